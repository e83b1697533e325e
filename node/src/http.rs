//! The HTTP interface: filters for the routes, and the loop that serves them.

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use kvspace_actors::node::Node;
use serde_json::json;
use tokio::sync::Semaphore;
use warp::{Filter, Rejection, filters::BoxedFilter, http::Method, reply::Response};

mod auth;
mod barrier;
mod body;
pub(crate) mod cors;
mod counters;
mod error;
mod headers;
mod keys;
mod list_cursor;
pub(crate) mod operator;
pub(crate) mod server;
mod tinycloud;
mod v0;

use self::{counters::Counters, error::HttpError, keys::Keys};

/// The version of TinyCloud's protocol that is spoken here.
const PROTOCOL: u32 = 1;
/// What of it is there.
const FEATURES: [&str; 2] = ["kv", "delegation"];
/// Large bodies received at one time. Each takes a buffer of 1 MiB, so 64 MiB together.
const UPLOADS_MAX: usize = 64;

/// What the routes take from a request.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// How far ahead an invocation may expire.
    pub(crate) lifetime_max_ms: i64,
    /// The largest value.
    pub(crate) body_bytes_max: u64,
    /// How long a body may stand still.
    pub(crate) body_idle: Duration,
    /// How long a large body waits for its turn.
    pub(crate) permit_wait: Duration,
}

/// What every handler knows.
pub(crate) struct Context {
    node: Node,
    options: Options,
    uploads: Semaphore,
    keys: Keys,
    counters: Counters,
    info: Bytes,
}

impl Context {
    /// The routes' view of a running node.
    pub(crate) fn new(node: Node, options: Options) -> Self {
        let info = info(node.did().as_str());
        Self {
            node,
            options,
            uploads: Semaphore::new(UPLOADS_MAX),
            keys: Keys::default(),
            counters: Counters::default(),
            info,
        }
    }
}

fn info(node_id: &str) -> Bytes {
    let version = env!("CARGO_PKG_VERSION");
    json!({ "protocol": PROTOCOL, "version": version, "features": FEATURES, "nodeId": node_id, "inTEE": false })
        .to_string()
        .into()
}

/// All routes of clients.
pub(crate) fn routes(context: &Arc<Context>) -> BoxedFilter<(Response,)> {
    let tinycloud = tinycloud::routes(context);
    let others = v0::routes(context).or(healthz()).unify().or(preflight()).unify().boxed();
    counters::counted(context, tinycloud.or(others).unify().recover(rejected).unify().boxed())
}

fn healthz() -> BoxedFilter<(Response,)> {
    warp::path!("healthz").and(warp::get().or(warp::head()).unify()).map(empty).boxed()
}

/// Answers what browsers ask before a request to another origin, whatever the path. `warp::options` would turn every
/// unknown path into a wrong method.
fn preflight() -> BoxedFilter<(Response,)> {
    let asked = |method: Method| async move {
        if method == Method::OPTIONS { Ok(empty()) } else { Err(warp::reject::not_found()) }
    };
    warp::method().and_then(asked).boxed()
}

/// Hands the context to a handler.
fn with(context: &Arc<Context>) -> impl Filter<Extract = (Arc<Context>,), Error = Infallible> + Clone + use<> {
    let context = Arc::clone(context);
    warp::any().map(move || Arc::clone(&context))
}

fn answer(result: Result<Response, HttpError>) -> Response {
    result.unwrap_or_else(|error| {
        tracing::debug!(?error, "refused");
        error.into_response()
    })
}

fn empty() -> Response {
    headers::whole(Bytes::new())
}

/// Answers what no route took.
async fn rejected(rejection: Rejection) -> Result<Response, Infallible> {
    let error = if rejection.is_not_found() {
        HttpError::no_route()
    } else if rejection.find::<warp::reject::MethodNotAllowed>().is_some() {
        HttpError::method()
    } else {
        tracing::warn!(?rejection, "a filter rejected a request in an unforeseen way");
        HttpError::internal()
    };
    Ok(error.into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_node_says_what_the_sdk_asks_for() {
        let info: serde_json::Value = serde_json::from_slice(&info("did:key:z6Mk")).expect("JSON");
        assert_eq!(info["protocol"], 1);
        assert_eq!(info["features"], json!(["kv", "delegation"]));
        assert_eq!(info["nodeId"], "did:key:z6Mk");
        assert_eq!(info["inTEE"], false);
    }
}
