//! The routes of TinyCloud's own clients.

use std::sync::Arc;

use kvspace_protocol::id::SpaceId;
use warp::{Filter, filters::BoxedFilter, http::HeaderMap, reply::Response};

use super::{
    Context, answer,
    body::{RequestBody, request_body},
    error::HttpError,
    headers, with,
};

mod invoke;
mod list;
mod read;
mod space_path;
mod tokens;
mod write;

/// `/invoke`, `/delegate`, `/revoke`, `/info`, `/version` and `/peer/generate`
pub(crate) fn routes(context: &Arc<Context>) -> BoxedFilter<(Response,)> {
    let head = || with(context).and(warp::header::headers_cloned());
    let invoke = warp::path!("invoke")
        .and(warp::post())
        .and(head())
        .and(request_body())
        .then(|context: Arc<Context>, headers: HeaderMap, body: RequestBody| async move {
            answer(invoke::invoke(&context, &headers, body).await)
        })
        .boxed();
    let delegate =
        warp::path!("delegate")
            .and(warp::post())
            .and(head())
            .then(|context: Arc<Context>, headers: HeaderMap| async move {
                answer(tokens::delegate(&context, &headers).await)
            })
            .boxed();
    let revoke = warp::path!("revoke")
        .and(warp::post())
        .and(head())
        .then(
            |context: Arc<Context>, headers: HeaderMap| async move { answer(tokens::revoke(&context, &headers).await) },
        )
        .boxed();
    let info = warp::path!("info")
        .or(warp::path!("version"))
        .unify()
        .and(warp::get())
        .and(with(context))
        .map(|context: Arc<Context>| headers::json(context.info.clone()))
        .boxed();
    let peer = warp::path!("peer" / "generate" / ..)
        .and(warp::get())
        .and(with(context))
        .and(warp::path::tail())
        .map(|context: Arc<Context>, space: warp::path::Tail| answer(peer_did(&context, space.as_str())))
        .boxed();
    invoke.or(delegate).unify().or(revoke).unify().or(info).unify().or(peer).unify().boxed()
}

/// Who is to be named host of a space: this node, for every space.
fn peer_did(context: &Context, path: &str) -> Result<Response, HttpError> {
    let _space: SpaceId = space_path::read(path)?;
    Ok(headers::text(context.node.did().as_str().to_owned()))
}
