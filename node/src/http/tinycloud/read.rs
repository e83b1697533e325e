//! `kv/get` and `kv/metadata`.

use kvspace_actors::node::{Found, Lookup};
use warp::{
    http::{HeaderMap, HeaderValue, StatusCode, header},
    reply::Response,
};

use super::invoke::Invocation;
use crate::http::{
    body, empty,
    error::{Call, HttpError},
    headers::{self, X_KVSPACE_INTEGRITY, X_KVSPACE_SIZE, X_KVSPACE_VERSION},
};

/// The value of a key, with the headers stored with it.
pub(super) async fn get(invocation: Invocation<'_>, key: &str) -> Result<Response, HttpError> {
    let bytes_max = headers::response_bytes_max(invocation.headers)?;
    let found = find(&invocation, key).await?;
    if headers::is_known(invocation.headers, &found.value.blob) {
        let mut response = empty();
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        cache(response.headers_mut());
        name(&found, response.headers_mut());
        return Ok(response);
    }
    let size = found.value.size;
    if let Some(limit) = bytes_max.filter(|limit| size > *limit) {
        return Err(HttpError::response_too_large(size, limit));
    }
    let Invocation { context, space, .. } = invocation;
    let content = context.node.read(space, &found).await.map_err(|error| HttpError::node(Call::Invoke, &error))?;
    let mut response = body::content(content);
    cache(response.headers_mut());
    describe(&found, response.headers_mut());
    Ok(response)
}

/// The headers of a key without its value.
pub(super) async fn metadata(invocation: &Invocation<'_>, key: &str) -> Result<Response, HttpError> {
    let found = find(invocation, key).await?;
    let mut response = empty();
    describe(&found, response.headers_mut());
    response.headers_mut().insert(X_KVSPACE_SIZE, found.value.size.into());
    Ok(response)
}

async fn find(invocation: &Invocation<'_>, key: &str) -> Result<Found, HttpError> {
    let lookup = invocation.context.node.lookup(invocation.space, key).await;
    match lookup.map_err(|error| HttpError::node(Call::Invoke, &error))? {
        Lookup::Live(found) => Ok(found),
        Lookup::Deleted(_) | Lookup::Never => Err(HttpError::key_not_found()),
    }
}

fn cache(headers: &mut HeaderMap) {
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
}

fn describe(found: &Found, headers: &mut HeaderMap) {
    headers::replay(&found.value.meta, headers);
    name(found, headers);
}

fn name(found: &Found, headers: &mut HeaderMap) {
    headers.insert(header::ETAG, headers::etag(&found.value.blob));
    headers.insert(X_KVSPACE_VERSION, headers::display(&found.version));
    headers.insert(X_KVSPACE_INTEGRITY, HeaderValue::from_static(found.integrity.as_str()));
}
