//! `kv/put` and `kv/del`.

use kvspace_actors::node::{Body, NodeError, WriteRequest};
use kvspace_protocol::{
    kv::{Condition, Meta},
    limits::INLINE_BYTES_MAX,
    space::Written,
};
use tokio::time::timeout;
use warp::{
    http::{HeaderMap, HeaderValue, header},
    reply::Response,
};

use super::invoke::Invocation;
use crate::http::{
    Context,
    body::{Bounds, RequestBody},
    empty,
    error::{Call, HttpError},
    headers::{self, X_KVSPACE_FRONTIER, X_KVSPACE_VERSION},
};

/// Stores the body under a key.
pub(super) async fn put(invocation: Invocation<'_>, body: RequestBody) -> Result<Response, HttpError> {
    let Invocation { context, headers, .. } = invocation;
    if headers::is_multipart(headers) {
        return Err(HttpError::multipart());
    }
    let condition = headers::put_condition(headers)?;
    let meta = headers::stored(headers)?;
    let body = Box::pin(receive(context, headers, body)).await?;
    let written = write(invocation, Some(body), meta, condition).await?;
    Ok(answer(&written, written.blob.as_ref().map(headers::etag)))
}

/// Removes a key.
pub(super) async fn delete(invocation: Invocation<'_>) -> Result<Response, HttpError> {
    let condition = headers::delete_condition(invocation.headers)?;
    let written = write(invocation, None, Meta::new(), condition).await?;
    Ok(answer(&written, written.removed.as_ref().map(headers::etag)))
}

async fn receive(context: &Context, headers: &HeaderMap, body: RequestBody) -> Result<Body, HttpError> {
    let bounds =
        Bounds { length: length(headers), bytes_max: context.options.body_bytes_max, idle: context.options.body_idle };
    bounds.check()?;
    let _turn = match bounds.length {
        Some(length) if length <= INLINE_BYTES_MAX => None,
        Some(_) | None => {
            let turn = timeout(context.options.permit_wait, context.uploads.acquire()).await;
            Some(turn.map_err(|_| HttpError::node(Call::Invoke, &NodeError::Busy))?)
        }
    };
    body.receive(&context.node, bounds).await
}

fn length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

async fn write(
    invocation: Invocation<'_>,
    body: Option<Body>,
    meta: Meta,
    condition: Condition,
) -> Result<Written, HttpError> {
    let Invocation { context, token, space, authorized, .. } = invocation;
    let (space, token) = (space.clone(), token.clone());
    let request = WriteRequest { space, token, authorized, body, meta, condition };
    context.node.write(request).await.map_err(|error| HttpError::node(Call::Invoke, &error))
}

fn answer(written: &Written, etag: Option<HeaderValue>) -> Response {
    let mut response = empty();
    let headers = response.headers_mut();
    if let Some(etag) = etag {
        headers.insert(header::ETAG, etag);
    }
    headers.insert(X_KVSPACE_VERSION, headers::display(&written.version));
    headers.insert(X_KVSPACE_FRONTIER, headers::display(&written.version.epoch));
    response
}
