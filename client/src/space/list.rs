//! Listing keys, a page at a time.

use futures::{Stream, StreamExt as _, TryStreamExt as _, stream};
use http::HeaderValue;
use kvspace_protocol::{capability::Resource, limits::KEY_BYTES_MAX};

use super::Space;
use crate::{Error, KeyPath, KvAbility, value};

const LIMIT: &str = "x-tinycloud-limit";
const CURSOR: &str = "x-tinycloud-cursor";
const NEXT: &str = "x-tinycloud-next-cursor";
const TRUNCATED: &str = "x-tinycloud-truncated";

/// The most keys of one page.
pub const LIST_LIMIT_MAX: u16 = 1000;
/// A page of the longest keys, quoted: twice their bytes is more than enough.
const PAGE_BYTES_MAX: u64 = 2 * LIST_LIMIT_MAX as u64 * KEY_BYTES_MAX as u64;

/// Some keys, in byte order of their paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyPage {
    /// The keys.
    pub keys: Vec<KeyPath>,
    /// Where the next page begins; `None` after the last.
    pub cursor: Option<String>,
}

impl Space {
    /// One page of the keys beneath `prefix`: the prefix itself and what follows it at a `/`. Without one, all keys. A
    /// page has `limit` keys, 1 to [`LIST_LIMIT_MAX`], and goes on at the cursor of the one before it.
    ///
    /// # Errors
    /// [`Error`] as of any call.
    pub async fn list(&self, prefix: Option<&KeyPath>, limit: u16, cursor: Option<&str>) -> Result<KeyPage, Error> {
        let resource = Resource::in_space(self.id(), "kv", Some(prefix.map_or("", KeyPath::as_str)));
        let mut call = self.read(&resource, KvAbility::List)?;
        call.headers.insert(LIMIT, HeaderValue::from(limit.clamp(1, LIST_LIMIT_MAX)));
        if let Some(cursor) = cursor {
            let cursor = HeaderValue::from_str(cursor).map_err(|_| crate::MetaError::Value(CURSOR.into()))?;
            call.headers.insert(CURSOR, cursor);
        }
        let (headers, body) = self.client.transport.send_and_read(call, PAGE_BYTES_MAX).await?;
        let paths: Vec<String> = serde_json::from_slice(&body).map_err(|error| Error::Answer(error.to_string()))?;
        let truncated = value::text(&headers, TRUNCATED).is_none_or(|truncated| truncated == "true");
        Ok(KeyPage {
            keys: paths.iter().map(|path| KeyPath::from_path(path)).collect::<Result<_, _>>()?,
            cursor: value::text(&headers, NEXT).filter(|_| truncated).map(str::to_owned),
        })
    }

    /// All keys beneath `prefix`, asking for a page when the one before it is used up.
    pub fn list_all(&self, prefix: Option<KeyPath>) -> impl Stream<Item = Result<KeyPath, Error>> + Send + 'static {
        let pages = Pages { space: self.clone(), prefix, cursor: None, ended: false };
        stream::try_unfold(pages, Pages::next).map_ok(|keys| stream::iter(keys).map(Ok)).try_flatten()
    }
}

struct Pages {
    space: Space,
    prefix: Option<KeyPath>,
    cursor: Option<String>,
    ended: bool,
}

impl Pages {
    async fn next(mut self) -> Result<Option<(Vec<KeyPath>, Self)>, Error> {
        if self.ended {
            return Ok(None);
        }
        let page = self.space.list(self.prefix.as_ref(), LIST_LIMIT_MAX, self.cursor.as_deref()).await?;
        if page.cursor.is_some() && page.cursor == self.cursor {
            return Err(Error::Answer("the cursor of the list does not move".into()));
        }
        self.ended = page.cursor.is_none();
        self.cursor = page.cursor;
        Ok(Some((page.keys, self)))
    }
}
