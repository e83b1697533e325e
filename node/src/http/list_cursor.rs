//! The cursor of a list: the last key, bound to the question it continues.
//!
//! There is no secret in it, so every host of the space takes it. The binding is no protection: it catches a cursor
//! that is sent with another question. What may be listed is decided anew for each page.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use kvspace_protocol::{
    id::{Did, Key, SpaceId},
    limits::KEY_BYTES_MAX,
};
use serde::{Deserialize, Serialize};

use super::error::HttpError;

/// The question that a cursor continues.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Question<'a> {
    /// Who asks.
    pub(crate) invoker: &'a Did,
    /// Where.
    pub(crate) space: &'a SpaceId,
    /// The listed path.
    pub(crate) path: &'a str,
    /// Keys a page.
    pub(crate) limit: Option<usize>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Cursor<'a> {
    last: std::borrow::Cow<'a, str>,
    of: String,
}

impl Question<'_> {
    /// The cursor after `last`.
    pub(crate) fn cursor(&self, last: &str) -> String {
        let cursor = Cursor { last: last.into(), of: self.digest() };
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(&cursor).expect("texts are JSON"))
    }

    /// The key after which to go on.
    pub(crate) fn last(&self, cursor: &str) -> Result<Key, HttpError> {
        self.read(cursor).ok_or_else(|| HttpError::bad_request("cursor_invalid", "Invalid KV list cursor"))
    }

    fn read(&self, cursor: &str) -> Option<Key> {
        let bytes = URL_SAFE_NO_PAD.decode(cursor).ok()?;
        let cursor: Cursor<'_> = serde_json::from_slice(&bytes).ok()?;
        (cursor.of == self.digest() && cursor.last.len() <= KEY_BYTES_MAX).then(|| cursor.last.into())
    }

    fn digest(&self) -> String {
        let limit = self.limit.map_or_else(String::new, |limit| limit.to_string());
        let mut hasher = blake3::Hasher::new_derive_key("kvspace list cursor 1");
        for part in [self.invoker.as_str(), self.space.as_str(), self.path, &limit] {
            hasher.update(&(part.len() as u64).to_be_bytes());
            hasher.update(part.as_bytes());
        }
        URL_SAFE_NO_PAD.encode(&hasher.finalize().as_bytes()[..16])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_continues_its_own_question_only() {
        let (invoker, other) = (Did::from_ed25519(&[1; 32]), Did::from_ed25519(&[2; 32]));
        let space = SpaceId::new(&invoker, "default").expect("a space");
        let other_space = SpaceId::new(&invoker, "other").expect("a space");
        let question = Question { invoker: &invoker, space: &space, path: "docs/", limit: Some(2) };
        let cursor = question.cursor("docs/b");
        assert_eq!(question.last(&cursor).as_deref(), Ok("docs/b"));
        for wrong in [
            Question { invoker: &other, ..question },
            Question { space: &other_space, ..question },
            Question { path: "docs", ..question },
            Question { limit: Some(3), ..question },
            Question { limit: None, ..question },
        ] {
            assert!(wrong.last(&cursor).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn what_is_no_cursor_is_refused() {
        let invoker = Did::from_ed25519(&[1; 32]);
        let space = SpaceId::new(&invoker, "default").expect("a space");
        let question = Question { invoker: &invoker, space: &space, path: "", limit: Some(2) };
        let long = question.cursor(&"a".repeat(KEY_BYTES_MAX + 1));
        for bad in ["", "a", "e30", "eyJsYXN0IjoiYSJ9", &long, &format!("{}=", question.cursor("a"))] {
            assert!(question.last(bad).is_err(), "{bad}");
        }
    }
}
