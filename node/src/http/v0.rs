//! What kvspace adds to the TinyCloud routes, under `/v0/`.

use std::sync::Arc;

use kvspace_actors::{clock, node::NodeError};
use kvspace_protocol::id::SpaceId;
use serde::Serialize;
use serde_json::json;
use url::form_urlencoded;
use warp::{Filter, filters::BoxedFilter, http::HeaderMap, reply::Response};

use super::{
    Context, answer, auth,
    barrier::Barrier,
    error::{Call, HttpError},
    headers, with,
};

mod explain;
mod hosts;
mod preview;

/// `GET /v0/frontier?space=<id>`, `GET /v0/hosts?space=<id>`, `GET /v0/explain?space=<id>&key=<key>` and
/// `POST /v0/revoke/preview`
pub(crate) fn routes(context: &Arc<Context>) -> BoxedFilter<(Response,)> {
    let asked = || {
        let query = warp::query::raw().or(warp::any().map(String::new)).unify();
        warp::get().and(with(context)).and(warp::header::headers_cloned()).and(query)
    };
    let frontier = warp::path!("v0" / "frontier")
        .and(asked())
        .then(|context: Arc<Context>, headers: HeaderMap, query: String| async move {
            answer(frontier(&context, &headers, &query).await)
        })
        .boxed();
    let hosts = warp::path!("v0" / "hosts")
        .and(asked())
        .then(|context: Arc<Context>, headers: HeaderMap, query: String| async move {
            answer(hosts::hosts(&context, &headers, &query).await)
        })
        .boxed();
    let explain = warp::path!("v0" / "explain")
        .and(asked())
        .then(|context: Arc<Context>, headers: HeaderMap, query: String| async move {
            answer(explain::explain(&context, &headers, &query).await)
        })
        .boxed();
    let preview =
        warp::path!("v0" / "revoke" / "preview")
            .and(warp::post())
            .and(with(context))
            .and(warp::header::headers_cloned())
            .then(|context: Arc<Context>, headers: HeaderMap| async move {
                answer(preview::preview(&context, &headers).await)
            })
            .boxed();
    frontier.or(hosts).unify().or(explain).unify().or(preview).unify().boxed()
}

/// The heads of a space, for whoever may do anything in it.
async fn frontier(context: &Context, headers: &HeaderMap, query: &str) -> Result<Response, HttpError> {
    let space = member(context, headers, query).await?;
    if let Some(barrier) = Barrier::read(headers)? {
        barrier.pass(&context.node, &space).await?;
        member(context, headers, query).await?;
    }
    let heads = context.node.frontier(&space).await.map_err(|error| refused(&error))?;
    Ok(headers::json(json!({ "frontier": heads }).to_string()))
}

/// The space that is asked about, if the token may do anything in it.
async fn member(context: &Context, headers: &HeaderMap, query: &str) -> Result<SpaceId, HttpError> {
    let space = space(query)?;
    let now = clock::now();
    let token = auth::invocation(headers, now, context.options.lifetime_max_ms, &context.keys)?;
    if !context.node.hosts(&space).map_err(|error| refused(&error))? {
        return Err(refused(&NodeError::NotHosted));
    }
    if !token.capabilities().iter().any(|held| held.resource.space() == Some(&space)) {
        return Err(HttpError::elsewhere());
    }
    context.node.authorize(&space, &token, now).await.map_err(|error| refused(&error))?;
    Ok(space)
}

fn refused(error: &NodeError) -> HttpError {
    HttpError::node(Call::Invoke, error)
}

fn document(document: &impl Serialize) -> Response {
    headers::json(serde_json::to_vec(document).expect("texts and numbers are JSON"))
}

fn space(query: &str) -> Result<SpaceId, HttpError> {
    let text = parameter(query, "space");
    let text = text.ok_or_else(|| HttpError::bad_request("space_malformed", "name a space: ?space=<id>"))?;
    text.parse().map_err(|error| HttpError::bad_request("space_malformed", format!("{error}")))
}

fn parameter(query: &str, wanted: &str) -> Option<String> {
    form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == wanted).map(|(_, text)| text.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_space_is_named_plainly_or_escaped() {
        let id = "tinycloud:key:z6Mk:default";
        for query in [format!("space={id}"), "a=b&space=tinycloud%3Akey%3Az6Mk%3Adefault".into()] {
            assert_eq!(space(&query).expect("a space").as_str(), id);
        }
        assert!(space("").is_err() && space("space=").is_err() && space("space=x").is_err());
    }
}
