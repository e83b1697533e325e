//! RFC 3986, as far as resources need it: which text is a path in normal form.

/// Whether every byte is a `pchar` or `/`, percent escapes are upper case and of reserved bytes only, and no segment
/// is `.` or `..` (RFC 3986 sections 3.3 and 6.2.2).
#[must_use]
pub fn is_normal_path(path: &str) -> bool {
    path.split('/').all(|segment| segment != "." && segment != "..") && is_normal(path, b":@/")
}

/// The same for a query or fragment, where `?` is plain as well (section 3.4).
#[must_use]
pub fn is_normal_query(text: &str) -> bool {
    is_normal(text, b":@/?")
}

/// Whether this reads like a URI: a scheme, a colon and something of the characters a URI may have (section 2), one
/// line without spaces. It need not be in normal form.
#[must_use]
pub fn is_uri(text: &str) -> bool {
    text.split_once(':').is_some_and(|(scheme, rest)| is_scheme(scheme) && !rest.is_empty() && is_plain(rest, b"/?#%"))
}

/// Whether this is the scheme of a URI (section 3.1).
#[must_use]
pub fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
}

/// Whether this reads like the authority of a URI: host, port and user, in the characters they may have (section 3.2).
#[must_use]
pub fn is_authority(text: &str) -> bool {
    !text.is_empty() && is_plain(text, b"%")
}

fn is_plain(text: &str, also: &[u8]) -> bool {
    let plain = |byte: u8| is_unreserved(byte) || SUB_DELIMS.contains(&byte) || b":@[]".contains(&byte);
    text.bytes().all(|byte| plain(byte) || also.contains(&byte))
}

const SUB_DELIMS: &[u8] = b"!$&'()*+,;=";

fn is_normal(text: &str, also: &[u8]) -> bool {
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] == b'%' {
            let Some(byte) = bytes.get(at + 1..at + 3).and_then(escaped) else { return false };
            if is_unreserved(byte) {
                return false;
            }
            at += 3;
        } else if is_unreserved(bytes[at]) || SUB_DELIMS.contains(&bytes[at]) || also.contains(&bytes[at]) {
            at += 1;
        } else {
            return false;
        }
    }
    true
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

fn escaped(digits: &[u8]) -> Option<u8> {
    let digit = |b: u8| match b {
        b'0'..=b'9' => Some(b - b'0'),
        b'A'..=b'F' => Some(b - b'A' + 10),
        _ => None,
    };
    Some(digit(digits[0])? << 4 | digit(digits[1])?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_normal_path_has_plain_bytes_and_upper_case_escapes_of_reserved_ones() {
        for path in ["", "a", "a/b", "//a", "a/", "a%20b", "%C3%A9", "a:b@c", "a..b", "~x", "(1)!*'"] {
            assert!(is_normal_path(path), "{path}");
        }
        for path in ["a b", "é", "a?b", "a#b", "%c3", "%41", "%", "%2", "a/../b", "./a", "a/.", "a\\b", "\"", "a|b"] {
            assert!(!is_normal_path(path), "{path}");
        }
    }

    #[test]
    fn a_uri_has_a_scheme_and_no_space() {
        for text in ["a:b", "did:key:z#z", "https://a.example/b?c#d", "urn:x:%20", "A+.-1:[]"] {
            assert!(is_uri(text), "{text}");
        }
        for text in ["", "a", "a:", ":b", "1a:b", "a:b c", "a:b\n", "a:é", "a:\"", "a:<", "a b:c"] {
            assert!(!is_uri(text), "{text}");
        }
    }

    #[test]
    fn an_authority_has_no_path() {
        assert!(is_authority("user@a.example:80") && is_authority("[::1]"));
        for text in ["", "a/b", "a?b", "a#b", "a b", "a\n"] {
            assert!(!is_authority(text), "{text}");
        }
    }
}
