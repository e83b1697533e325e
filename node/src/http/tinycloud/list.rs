//! `kv/list`.

use bytes::Bytes;
use futures::stream;
use kvspace_actors::node::{ListQuery, Node, NodeError, Page};
use kvspace_protocol::id::{Key, SpaceId};
use warp::{
    http::{HeaderValue, header},
    reply::{Reply, Response},
};

use super::invoke::Invocation;
use crate::http::{
    error::{Call, HttpError},
    headers::{self, LIST_LIMIT_MAX, X_TINYCLOUD_NEXT_CURSOR, X_TINYCLOUD_TRUNCATED},
    list_cursor::Question,
};

/// The keys under a path: one page if the client names a limit, else all of them.
pub(super) async fn list(invocation: Invocation<'_>, path: &str) -> Result<Response, HttpError> {
    let Invocation { context, headers, token, space, authorized } = invocation;
    let limit = headers::list_limit(headers)?;
    let question = Question { invoker: token.issuer(), space, path, limit };
    let after = headers::list_cursor(headers)?.map(|cursor| question.last(cursor)).transpose()?;
    let size = limit.unwrap_or(LIST_LIMIT_MAX);
    let query = ListQuery { path: path.to_owned(), grants: authorized.grants, after, limit: Some(size) };
    let page = context.node.list(space, &query).await.map_err(|error| HttpError::node(Call::Invoke, &error))?;
    match (limit, page.keys.last()) {
        (Some(_), Some(last)) if page.truncated => {
            let mut response = whole(&page, "true");
            response.headers_mut().insert(X_TINYCLOUD_NEXT_CURSOR, headers::display(&question.cursor(last)));
            Ok(response)
        }
        (None, Some(_)) if page.truncated => {
            let (node, space) = (context.node.clone(), space.clone());
            Ok(streamed(Pages { node, space, query, page: Some(page), begun: false }))
        }
        _ => Ok(whole(&page, "false")),
    }
}

fn whole(page: &Page, truncated: &'static str) -> Response {
    let mut document = vec![b'['];
    write_keys(&page.keys, true, &mut document);
    document.push(b']');
    mark(headers::json(document), truncated)
}

fn mark(mut response: Response, truncated: &'static str) -> Response {
    response.headers_mut().insert(X_TINYCLOUD_TRUNCATED, HeaderValue::from_static(truncated));
    response
}

/// A long list, page by page: no more than one of them is in memory.
struct Pages {
    node: Node,
    space: SpaceId,
    query: ListQuery,
    /// The page to write next; `None` after the last.
    page: Option<Page>,
    begun: bool,
}

fn streamed(pages: Pages) -> Response {
    let parts = stream::unfold(pages, |mut pages| async { pages.next().await.map(|part| (part, pages)) });
    let mut response = warp::reply::stream(Box::pin(parts)).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    mark(response, "false")
}

impl Pages {
    async fn following(&mut self, page: &Page) -> Result<Option<Page>, NodeError> {
        let (true, Some(last)) = (page.truncated, page.keys.last()) else { return Ok(None) };
        self.query.after = Some(last.clone());
        self.node.list(&self.space, &self.query).await.map(Some)
    }

    /// The next part of the document.
    async fn next(&mut self) -> Option<Result<Bytes, NodeError>> {
        let page = self.page.take()?;
        let mut part = if self.begun { Vec::new() } else { vec![b'['] };
        write_keys(&page.keys, !self.begun, &mut part);
        self.begun = true;
        match self.following(&page).await {
            Ok(following) => self.page = following,
            Err(error) => return Some(Err(error)),
        }
        if self.page.is_none() {
            part.push(b']');
        }
        Some(Ok(part.into()))
    }
}

fn write_keys(keys: &[Key], first: bool, into: &mut Vec<u8>) {
    for (index, key) in keys.iter().enumerate() {
        if index > 0 || !first {
            into.push(b',');
        }
        serde_json::to_writer(&mut *into, &**key).expect("a text is JSON and memory takes it");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_written_as_one_array_in_parts() {
        let keys: Vec<Key> = vec!["a".into(), "b\"".into()];
        let mut document = Vec::new();
        write_keys(&keys, true, &mut document);
        write_keys(&[], false, &mut document);
        write_keys(&keys[..1], false, &mut document);
        assert_eq!(document, br#""a","b\"","a""#);
    }
}
