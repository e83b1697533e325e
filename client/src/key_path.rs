//! Keys, as people write them and as they stand in a URI.

use std::{borrow::Cow, fmt, fmt::Write as _, sync::Arc};

use kvspace_protocol::{limits::KEY_BYTES_MAX, uri::is_normal_path};

/// The key of a value as the path of its resource URI: what is signed, stored and listed.
///
/// A node keeps keys as URI paths and never decodes them. A key with a space, a letter outside ASCII, `%`, `?`, `#` or
/// another byte that a URI path may not hold is therefore percent-encoded on its way in ([`KeyPath::from_text`]) and
/// shown decoded ([`KeyPath::text`]): the key `notes/Zoë 1` is the path `notes/Zo%C3%AB%201`. Plain keys are the same in
/// both spellings.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyPath(Arc<str>);

/// Why a text cannot be a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyPathError {
    /// No text at all.
    #[error("a key has at least one character")]
    Empty,
    /// Longer than a node takes.
    #[error("a key has at most {KEY_BYTES_MAX} bytes, percent-encoding included")]
    TooLong,
    /// A URI path in normal form has no such segment, encoded or not.
    #[error("a key has no segment `.` or `..`")]
    DotSegment,
    /// Given as a path, but not one in normal form.
    #[error("not a URI path in normal form: escapes are upper case and only of characters that need one")]
    NotNormal,
}

impl KeyPath {
    /// The path of a key given as text; what a path may not hold is percent-encoded.
    ///
    /// # Errors
    /// [`KeyPathError`] when no path can stand for it.
    pub fn from_text(text: &str) -> Result<Self, KeyPathError> {
        Self::from_path(&encode(text))
    }

    /// A key given as URI path, taken as it is.
    ///
    /// # Errors
    /// [`KeyPathError`] when it is not a path in normal form.
    pub fn from_path(path: &str) -> Result<Self, KeyPathError> {
        if path.is_empty() {
            return Err(KeyPathError::Empty);
        }
        if path.len() > KEY_BYTES_MAX {
            return Err(KeyPathError::TooLong);
        }
        if path.split('/').any(|segment| segment == "." || segment == "..") {
            return Err(KeyPathError::DotSegment);
        }
        if !is_normal_path(path) {
            return Err(KeyPathError::NotNormal);
        }
        Ok(Self(path.into()))
    }

    /// The path.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The key as people write it: decoded, if encoding gives this path again; otherwise the path itself (another client
    /// may have encoded a `/`; such a key is reached by [`KeyPath::from_path`]).
    #[must_use]
    pub fn text(&self) -> Cow<'_, str> {
        if !self.0.contains('%') {
            return Cow::Borrowed(&self.0);
        }
        match decode(&self.0) {
            Some(text) if Self::from_text(&text).as_ref() == Ok(self) => Cow::Owned(text),
            _ => Cow::Borrowed(&self.0),
        }
    }
}

fn encode(text: &str) -> String {
    let mut path = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/".contains(&byte) {
            path.push(char::from(byte));
        } else {
            write!(path, "%{byte:02X}").expect("a String takes any text");
        }
    }
    path
}

fn decode(path: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((plain, escaped)) = rest.split_once('%') {
        bytes.extend_from_slice(plain.as_bytes());
        bytes.push(u8::from_str_radix(escaped.get(..2)?, 16).ok()?);
        rest = escaped.get(2..)?;
    }
    bytes.extend_from_slice(rest.as_bytes());
    String::from_utf8(bytes).ok()
}

impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What can name a key: text, which is encoded, or a [`KeyPath`], which is taken as it is.
pub trait AsKey {
    /// The path it stands for.
    ///
    /// # Errors
    /// [`KeyPathError`] when it stands for none.
    fn key_path(&self) -> Result<KeyPath, KeyPathError>;
}

impl AsKey for str {
    fn key_path(&self) -> Result<KeyPath, KeyPathError> {
        KeyPath::from_text(self)
    }
}

impl AsKey for String {
    fn key_path(&self) -> Result<KeyPath, KeyPathError> {
        KeyPath::from_text(self)
    }
}

impl AsKey for KeyPath {
    fn key_path(&self) -> Result<KeyPath, KeyPathError> {
        Ok(self.clone())
    }
}

impl<K: AsKey + ?Sized> AsKey for &K {
    fn key_path(&self) -> Result<KeyPath, KeyPathError> {
        (**self).key_path()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_the_way_to_its_path_and_back() {
        for (text, path) in [
            ("plain/key.txt", "plain/key.txt"),
            ("notes/Zoë 1", "notes/Zo%C3%AB%201"),
            ("100%?#", "100%25%3F%23"),
            ("//a/", "//a/"),
            ("a\\b|\"<>", "a%5Cb%7C%22%3C%3E"),
            ("%41", "%2541"),
        ] {
            let key = KeyPath::from_text(text).expect(text);
            assert_eq!(key.as_str(), path);
            assert_eq!(key.text(), text);
        }
    }

    #[test]
    fn a_path_that_no_text_gives_is_shown_as_it_is() {
        for path in ["a%2Fb", "%FF", "%3A"] {
            assert_eq!(KeyPath::from_path(path).expect(path).text(), path);
        }
    }

    #[test]
    fn what_no_path_can_stand_for_is_refused() {
        assert_eq!(KeyPath::from_text(""), Err(KeyPathError::Empty));
        assert_eq!(KeyPath::from_text("a/../b"), Err(KeyPathError::DotSegment));
        assert_eq!(KeyPath::from_text(&"é".repeat(200)), Err(KeyPathError::TooLong));
        assert_eq!(KeyPath::from_path("a b"), Err(KeyPathError::NotNormal));
        assert_eq!(KeyPath::from_path("%41"), Err(KeyPathError::NotNormal));
    }
}
