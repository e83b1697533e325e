//! The headers of the interface: their names, those stored with a value, and preconditions.

use std::fmt::Display;

use bytes::Bytes;
use kvspace_protocol::{
    id::BlobHash,
    kv::{Condition, Meta},
    limits::META_BYTES_MAX,
};
use warp::{
    http::{HeaderMap, HeaderName, HeaderValue, header},
    reply::{Reply, Response},
};

use super::error::HttpError;

pub(crate) const X_KVSPACE_ERROR: HeaderName = HeaderName::from_static("x-kvspace-error");
pub(crate) const X_KVSPACE_VERSION: HeaderName = HeaderName::from_static("x-kvspace-version");
pub(crate) const X_KVSPACE_FRONTIER: HeaderName = HeaderName::from_static("x-kvspace-frontier");
pub(crate) const X_KVSPACE_AFTER: HeaderName = HeaderName::from_static("x-kvspace-after");
pub(crate) const X_KVSPACE_WAIT_MS: HeaderName = HeaderName::from_static("x-kvspace-wait-ms");
pub(crate) const X_KVSPACE_INTEGRITY: HeaderName = HeaderName::from_static("x-kvspace-integrity");
pub(crate) const X_KVSPACE_SIZE: HeaderName = HeaderName::from_static("x-kvspace-size");
pub(crate) const X_TINYCLOUD_LIMIT: HeaderName = HeaderName::from_static("x-tinycloud-limit");
pub(crate) const X_TINYCLOUD_CURSOR: HeaderName = HeaderName::from_static("x-tinycloud-cursor");
pub(crate) const X_TINYCLOUD_TRUNCATED: HeaderName = HeaderName::from_static("x-tinycloud-truncated");
pub(crate) const X_TINYCLOUD_NEXT_CURSOR: HeaderName = HeaderName::from_static("x-tinycloud-next-cursor");
const X_TINYCLOUD_MAX_RESPONSE_BYTES: HeaderName = HeaderName::from_static("x-tinycloud-max-response-bytes");
const X_TINYCLOUD_EXPECTED_VERSION: HeaderName = HeaderName::from_static("x-tinycloud-expected-version");

/// Stored by their full name; beside them whatever begins with [`STORED_PREFIX`].
const STORED: [HeaderName; 4] =
    [header::CONTENT_TYPE, header::CONTENT_ENCODING, header::CONTENT_LANGUAGE, header::CONTENT_DISPOSITION];
const STORED_PREFIX: &str = "x-tinycloud-meta-";

/// At most so many keys in one page.
pub(crate) const LIST_LIMIT_MAX: usize = 1000;

/// An answer of plain text.
pub(crate) fn text(words: impl Into<Bytes>) -> Response {
    typed(words, HeaderValue::from_static("text/plain; charset=utf-8"))
}

/// An answer of JSON.
pub(crate) fn json(document: impl Into<Bytes>) -> Response {
    typed(document, HeaderValue::from_static("application/json"))
}

fn typed(body: impl Into<Bytes>, content_type: HeaderValue) -> Response {
    let mut response = whole(body.into());
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response
}

/// An answer of these bytes.
pub(crate) fn whole(body: Bytes) -> Response {
    http::Response::new(body).into_response()
}

/// The value of a header that may stand there once.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a HeaderValue>, HttpError> {
    let mut values = headers.get_all(name).iter();
    let first = values.next();
    if values.next().is_some() {
        return Err(HttpError::bad_request("header_repeated", format!("the header {name} may stand there once")));
    }
    Ok(first)
}

/// The text of a header that may stand there once.
pub(crate) fn single_text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, HttpError> {
    let text = |value: &'a HeaderValue| {
        let words = format!("the header {name} is not plain ASCII text");
        value.to_str().map_err(|_| HttpError::bad_request("header_malformed", words))
    };
    single(headers, name)?.map(text).transpose()
}

/// The headers to store with a value.
pub(crate) fn stored(headers: &HeaderMap) -> Result<Meta, HttpError> {
    let mut meta = Meta::new();
    let mut size = 0;
    for (name, value) in headers.iter().filter(|(name, _)| is_stored(name)) {
        let text = str::from_utf8(value.as_bytes()).ok().filter(|text| !text.chars().any(char::is_control));
        let Some(text) = text else {
            let words = format!("the header {name} is not visible UTF-8 text and cannot be stored");
            return Err(HttpError::bad_request("header_malformed", words));
        };
        size += name.as_str().len() + text.len();
        if meta.insert(name.as_str().to_owned(), text.to_owned()).is_some() {
            let words = format!("the header {name} may stand there once");
            return Err(HttpError::bad_request("header_repeated", words));
        }
    }
    if size > META_BYTES_MAX {
        let words = format!("the headers to store have {size} bytes, more than {META_BYTES_MAX}");
        return Err(HttpError::bad_request("meta_too_large", words));
    }
    Ok(meta)
}

/// Adds the headers stored with a value to an answer. Those that a client could not have stored here are left out:
/// another host may have taken them.
pub(crate) fn replay(meta: &Meta, headers: &mut HeaderMap) {
    for (name, text) in meta {
        let name = HeaderName::from_bytes(name.as_bytes()).ok().filter(is_stored);
        if let (Some(name), Ok(value)) = (name, HeaderValue::from_bytes(text.as_bytes())) {
            headers.insert(name, value);
        }
    }
}

fn is_stored(name: &HeaderName) -> bool {
    name.as_str().starts_with(STORED_PREFIX) || STORED.contains(name)
}

/// Whether the body is a form of several values.
pub(crate) fn is_multipart(headers: &HeaderMap) -> bool {
    let value = headers.get(header::CONTENT_TYPE).map_or(&[][..], HeaderValue::as_bytes);
    value.len() >= 10 && value[..10].eq_ignore_ascii_case(b"multipart/")
}

/// An id, version or cursor as a header.
pub(crate) fn display(id: &impl Display) -> HeaderValue {
    HeaderValue::try_from(id.to_string()).expect("ids are plain ASCII")
}

/// A strong entity tag as a header.
pub(crate) fn etag(hash: &BlobHash) -> HeaderValue {
    HeaderValue::try_from(hash.etag()).expect("hex digits are a header value")
}

/// What a put demands of its key.
pub(crate) fn put_condition(headers: &HeaderMap) -> Result<Condition, HttpError> {
    let matches = if_match(headers)?;
    let none_match = single_text(headers, &header::IF_NONE_MATCH)?;
    match (matches, none_match) {
        (None, None) => Ok(Condition::Always),
        (Some(hash), None) => Ok(Condition::Matches(hash)),
        (None, Some("*")) => Ok(Condition::Absent),
        (None, Some(_)) => Err(bad_condition("If-None-Match of a put is *, or not there")),
        (Some(_), Some(_)) => Err(bad_condition("a put has If-Match or If-None-Match, not both")),
    }
}

/// What a delete demands of its key.
pub(crate) fn delete_condition(headers: &HeaderMap) -> Result<Condition, HttpError> {
    if headers.contains_key(header::IF_NONE_MATCH) {
        return Err(bad_condition("a delete takes no If-None-Match"));
    }
    Ok(if_match(headers)?.map_or(Condition::Always, Condition::Matches))
}

/// Refuses the header that no node honours, so that nobody believes it was.
pub(crate) fn no_expected_version(headers: &HeaderMap) -> Result<(), HttpError> {
    if headers.contains_key(X_TINYCLOUD_EXPECTED_VERSION) {
        return Err(bad_condition("x-tinycloud-expected-version is not supported; use If-Match with the ETag"));
    }
    Ok(())
}

fn bad_condition(words: &'static str) -> HttpError {
    HttpError::bad_request("condition_malformed", words)
}

fn if_match(headers: &HeaderMap) -> Result<Option<BlobHash>, HttpError> {
    let hash =
        |text: &str| read_etag(text).ok_or_else(|| bad_condition("If-Match is one ETag \"blake3-<64 hex digits>\""));
    single_text(headers, &header::IF_MATCH)?.map(hash).transpose()
}

fn read_etag(text: &str) -> Option<BlobHash> {
    let hex = text.strip_prefix("\"blake3-")?.strip_suffix('"')?;
    (hex.len() == 64).then(|| blake3::Hash::from_hex(hex).ok().map(|hash| BlobHash(*hash.as_bytes())))?
}

/// Whether `If-None-Match` names this value: in a list, weakly, or by `*`.
pub(crate) fn is_known(headers: &HeaderMap, hash: &BlobHash) -> bool {
    if !headers.contains_key(header::IF_NONE_MATCH) {
        return false;
    }
    let tag = hash.etag();
    let same = |candidate: &str| {
        let candidate = candidate.trim();
        candidate == "*" || candidate.strip_prefix("W/").unwrap_or(candidate) == tag
    };
    let mut values = headers.get_all(header::IF_NONE_MATCH).iter();
    values.any(|value| value.to_str().is_ok_and(|list| list.split(',').any(same)))
}

/// The size of the largest value that the client takes.
pub(crate) fn response_bytes_max(headers: &HeaderMap) -> Result<Option<u64>, HttpError> {
    let words = "x-tinycloud-max-response-bytes is a number above 0";
    number(headers, &X_TINYCLOUD_MAX_RESPONSE_BYTES, words)
}

/// How many keys the client wants in one page.
pub(crate) fn list_limit(headers: &HeaderMap) -> Result<Option<usize>, HttpError> {
    let words = "x-tinycloud-limit is a number from 1 to 1000";
    let limit = number(headers, &X_TINYCLOUD_LIMIT, words)?.map(usize::try_from);
    match limit {
        None => Ok(None),
        Some(Ok(limit)) if limit <= LIST_LIMIT_MAX => Ok(Some(limit)),
        Some(_) => Err(HttpError::bad_request("header_malformed", words)),
    }
}

/// The cursor of a list, as the client sends it back.
pub(crate) fn list_cursor(headers: &HeaderMap) -> Result<Option<&str>, HttpError> {
    single_text(headers, &X_TINYCLOUD_CURSOR)
}

fn number(headers: &HeaderMap, name: &HeaderName, words: &'static str) -> Result<Option<u64>, HttpError> {
    let read = |text: &str| {
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        let number = text.parse().ok().filter(|number| digits && *number > 0);
        number.ok_or_else(|| HttpError::bad_request("header_malformed", words))
    };
    single_text(headers, name)?.map(read).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
            map.append(name, HeaderValue::from_bytes(value.as_bytes()).expect("a value"));
        }
        map
    }

    #[test]
    fn what_is_stored_comes_back_and_the_rest_is_dropped() {
        let sent = headers(&[
            ("Content-Type", "text/plain;charset=UTF-8"),
            ("X-TinyCloud-Meta-Colour", "grün"),
            ("content-disposition", "attachment"),
            ("x-other", "1"),
            ("set-cookie", "a=b"),
        ]);
        let meta = stored(&sent).expect("headers to store");
        assert_eq!(meta.len(), 3);
        let mut answer = HeaderMap::new();
        replay(&meta, &mut answer);
        assert_eq!(answer[header::CONTENT_TYPE], "text/plain;charset=UTF-8");
        assert_eq!(answer["x-tinycloud-meta-colour"], "grün".as_bytes());
        assert_eq!(answer.len(), 3);
    }

    #[test]
    fn a_header_that_another_host_took_in_bad_faith_is_not_replayed() {
        let meta = Meta::from([
            ("set-cookie".into(), "a=b".into()),
            ("x-tinycloud-meta-a".into(), "1\r\nset-cookie: a=b".into()),
            ("content-type".into(), "text/plain".into()),
        ]);
        let mut answer = HeaderMap::new();
        replay(&meta, &mut answer);
        assert_eq!(answer.len(), 1);
    }

    #[test]
    fn headers_that_cannot_be_stored_are_refused() {
        let mut invalid = headers(&[]);
        invalid.insert("x-tinycloud-meta-a", HeaderValue::from_bytes(b"\xff").expect("a value"));
        assert!(stored(&invalid).is_err());
        assert!(stored(&headers(&[("content-type", "a\tb")])).is_err());
        assert!(stored(&headers(&[("content-type", "a"), ("content-type", "b")])).is_err());
        let long = "a".repeat(META_BYTES_MAX - "x-tinycloud-meta-a".len());
        assert!(stored(&headers(&[("x-tinycloud-meta-a", &long)])).is_ok());
        assert!(stored(&headers(&[("x-tinycloud-meta-a", &format!("{long}b"))])).is_err());
    }

    #[test]
    fn conditions_are_read_or_refused_and_never_passed_over() {
        let tag = BlobHash::of(b"value").etag();
        let put = |pairs: &[(&str, &str)]| put_condition(&headers(pairs));
        assert_eq!(put(&[]), Ok(Condition::Always));
        assert_eq!(put(&[("if-none-match", "*")]), Ok(Condition::Absent));
        assert_eq!(put(&[("if-match", &tag)]), Ok(Condition::Matches(BlobHash::of(b"value"))));
        for bad in [
            &[("if-none-match", tag.as_str())][..],
            &[("if-match", "*")],
            &[("if-match", &format!("W/{tag}"))],
            &[("if-match", &format!("{tag}, {tag}"))],
            &[("if-match", &tag), ("if-match", &tag)],
            &[("if-match", "\"sha256-00\"")],
            &[("if-match", "\"blake3-00\"")],
            &[("if-match", &tag), ("if-none-match", "*")],
        ] {
            assert!(put(bad).is_err(), "{bad:?}");
        }
        assert!(delete_condition(&headers(&[("if-none-match", "*")])).is_err());
        assert_eq!(delete_condition(&headers(&[])), Ok(Condition::Always));
        assert!(no_expected_version(&headers(&[("x-tinycloud-expected-version", "1")])).is_err());
    }

    #[test]
    fn a_reader_names_what_it_has_in_a_list_weakly_or_by_a_star() {
        let hash = BlobHash::of(b"value");
        let (tag, other) = (hash.etag(), BlobHash::of(b"other").etag());
        for known in [tag.clone(), format!("W/{tag}"), format!("{other}, {tag}"), "*".into()] {
            assert!(is_known(&headers(&[("if-none-match", &known)]), &hash), "{known}");
        }
        assert!(is_known(&headers(&[("if-none-match", &other), ("if-none-match", &tag)]), &hash));
        assert!(!is_known(&headers(&[("if-none-match", &other)]), &hash));
        assert!(!is_known(&headers(&[]), &hash));
    }

    #[test]
    fn numbers_have_their_range() {
        let limit = |text| list_limit(&headers(&[("x-tinycloud-limit", text)]));
        assert_eq!(limit("1"), Ok(Some(1)));
        assert_eq!(limit("1000"), Ok(Some(1000)));
        for bad in ["0", "1001", "-1", "+1", "1.0", "", "ten", "99999999999999999999"] {
            assert!(limit(bad).is_err(), "{bad}");
            assert!(bad == "1001" || response_bytes_max(&headers(&[("x-tinycloud-max-response-bytes", bad)])).is_err());
        }
    }

    #[test]
    fn a_form_is_known_in_any_case() {
        assert!(is_multipart(&headers(&[("content-type", "Multipart/form-data; boundary=x")])));
        assert!(!is_multipart(&headers(&[("content-type", "text/plain")])));
        assert!(!is_multipart(&headers(&[])));
    }
}
