//! The headers that are stored with a value.

use std::collections::BTreeMap;

use http::{HeaderMap, HeaderName, HeaderValue, header};
use kvspace_protocol::limits::META_BYTES_MAX;

/// The beginning of the names a client is free to choose.
const OWN: &str = "x-tinycloud-meta-";
const CONTENT: [&str; 4] = ["content-type", "content-encoding", "content-language", "content-disposition"];

/// The headers of a value: name in lower case → text. A node stores these four and no others: `content-type`,
/// `content-encoding`, `content-language`, `content-disposition`, and any `x-tinycloud-meta-…`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Meta(BTreeMap<String, String>);

/// Why a header cannot be stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MetaError {
    /// Not one of the names that nodes store.
    #[error(
        "`{0}` is not stored with a value: names are content-type, -encoding, -language, -disposition and x-tinycloud-meta-…"
    )]
    Name(String),
    /// Not the text of a header.
    #[error(
        "the value of `{0}` holds a character that a header may not: plain ASCII without line breaks can be stored"
    )]
    Value(String),
    /// More than a node stores.
    #[error("the headers of a value have at most {META_BYTES_MAX} bytes in all")]
    TooLarge,
}

impl Meta {
    /// No headers.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// These headers and a media type.
    ///
    /// # Errors
    /// [`MetaError`] when it is not the text of a header.
    pub fn with_content_type(self, media_type: &str) -> Result<Self, MetaError> {
        self.with(header::CONTENT_TYPE.as_str(), media_type)
    }

    /// These headers and one of the caller's own, stored as `x-tinycloud-meta-<name>`.
    ///
    /// # Errors
    /// [`MetaError`] when name or value cannot stand in a header.
    pub fn with_own(self, name: &str, value: &str) -> Result<Self, MetaError> {
        self.with(&format!("{OWN}{name}"), value)
    }

    /// These headers and this one, by its full name.
    ///
    /// # Errors
    /// [`MetaError`] when it cannot be stored.
    pub fn with(mut self, name: &str, value: &str) -> Result<Self, MetaError> {
        let name = name.to_ascii_lowercase();
        let stored = CONTENT.contains(&name.as_str()) || name.strip_prefix(OWN).is_some_and(|own| !own.is_empty());
        if !stored || HeaderName::from_bytes(name.as_bytes()).is_err() {
            return Err(MetaError::Name(name));
        }
        let trimmed = value.trim_matches([' ', '\t']);
        if HeaderValue::from_str(trimmed).is_err() {
            return Err(MetaError::Value(name));
        }
        self.0.insert(name, trimmed.to_owned());
        if self.0.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>() > META_BYTES_MAX {
            return Err(MetaError::TooLarge);
        }
        Ok(self)
    }

    /// One header, by its full name in lower case.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// The media type.
    #[must_use]
    pub fn content_type(&self) -> Option<&str> {
        self.get(header::CONTENT_TYPE.as_str())
    }

    /// All headers, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// All headers, as they are signed.
    #[must_use]
    pub fn as_map(&self) -> &BTreeMap<String, String> {
        &self.0
    }

    /// What an answer says of a stored value.
    pub(crate) fn from_headers(headers: &HeaderMap) -> Self {
        let stored = headers.iter().filter_map(|(name, value)| {
            let name = name.as_str();
            let kept = CONTENT.contains(&name) || name.starts_with(OWN);
            kept.then(|| (name.to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        });
        Self(stored.collect())
    }

    pub(crate) fn write_to(&self, headers: &mut HeaderMap) {
        for (name, value) in &self.0 {
            if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value)) {
                headers.insert(name, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_lower_case_and_only_the_stored_ones_are_taken() {
        let meta =
            Meta::new().with("Content-Type", " text/plain ").expect("stored").with_own("Tag", "a b").expect("stored");
        assert_eq!(meta.content_type(), Some("text/plain"));
        assert_eq!(meta.get("x-tinycloud-meta-tag"), Some("a b"));
        assert!(matches!(Meta::new().with("etag", "x"), Err(MetaError::Name(_))));
        assert!(matches!(Meta::new().with_own("", "x"), Err(MetaError::Name(_))));
        assert!(matches!(Meta::new().with_own("a b", "x"), Err(MetaError::Name(_))));
        assert!(matches!(Meta::new().with_own("a", "x\ny"), Err(MetaError::Value(_))));
        assert_eq!(Meta::new().with_own("a", &"x".repeat(META_BYTES_MAX)), Err(MetaError::TooLarge));
    }

    #[test]
    fn headers_come_back_as_they_were_written() {
        let meta = Meta::new().with_content_type("image/png").expect("stored").with_own("a", "1").expect("stored");
        let mut headers = HeaderMap::new();
        meta.write_to(&mut headers);
        headers.insert(header::ETAG, HeaderValue::from_static("\"x\""));
        assert_eq!(Meta::from_headers(&headers), meta);
    }
}
