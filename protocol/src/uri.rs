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
        } else if is_unreserved(bytes[at]) || b"!$&'()*+,;=".contains(&bytes[at]) || also.contains(&bytes[at]) {
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
}
