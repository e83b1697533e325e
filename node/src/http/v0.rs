//! What kvspace adds to the TinyCloud routes, under `/v0/`.

use std::sync::Arc;

use kvspace_actors::{clock, node::NodeError};
use kvspace_protocol::id::SpaceId;
use serde_json::json;
use url::form_urlencoded;
use warp::{Filter, filters::BoxedFilter, http::HeaderMap, reply::Response};

use super::{
    Context, answer, auth,
    error::{Call, HttpError},
    headers, with,
};

/// `GET /v0/frontier?space=<id>`
pub(crate) fn routes(context: &Arc<Context>) -> BoxedFilter<(Response,)> {
    warp::path!("v0" / "frontier")
        .and(warp::get())
        .and(with(context))
        .and(warp::header::headers_cloned())
        .and(warp::query::raw().or(warp::any().map(String::new)).unify())
        .then(|context: Arc<Context>, headers: HeaderMap, query: String| async move {
            answer(frontier(&context, &headers, &query).await)
        })
        .boxed()
}

/// The heads of a space, for whoever may do anything in it.
async fn frontier(context: &Context, headers: &HeaderMap, query: &str) -> Result<Response, HttpError> {
    let space = space(query)?;
    let now = clock::now();
    let token = auth::invocation(headers, now, context.options.lifetime_max_ms, &context.keys)?;
    let refused = |error: NodeError| HttpError::node(Call::Invoke, &error);
    if !context.node.hosts(&space).map_err(refused)? {
        return Err(refused(NodeError::NotHosted));
    }
    if !token.capabilities().iter().any(|held| held.resource.space() == Some(&space)) {
        return Err(HttpError::elsewhere());
    }
    context.node.authorize(&space, &token, now).await.map_err(refused)?;
    let heads = context.node.frontier(&space).await.map_err(refused)?;
    Ok(headers::json(json!({ "frontier": heads }).to_string()))
}

fn space(query: &str) -> Result<SpaceId, HttpError> {
    let named = form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "space");
    let (_, text) = named.ok_or_else(|| HttpError::bad_request("space_malformed", "name a space: ?space=<id>"))?;
    text.parse().map_err(|error| HttpError::bad_request("space_malformed", format!("{error}")))
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
