//! A space id in a path, percent-encoded or as it is.

use kvspace_protocol::id::SpaceId;

use crate::http::error::HttpError;

/// Reads the space that the rest of a path names.
pub(super) fn read(path: &str) -> Result<SpaceId, HttpError> {
    path.parse().or_else(|error| {
        let decoded = decode(path).and_then(|text| text.parse().ok());
        decoded.ok_or_else(|| HttpError::bad_request("space_malformed", format!("{error}")))
    })
}

/// Takes percent-encoding off.
fn decode(path: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let (byte, after) = match first {
            b'%' => {
                let (digits, after) = after.split_at_checked(2)?;
                (digit(digits[0])? << 4 | digit(digits[1])?, after)
            }
            byte => (*byte, after),
        };
        bytes.push(byte);
        rest = after;
    }
    String::from_utf8(bytes).ok()
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_space_is_read_plain_and_encoded() {
        let id = "tinycloud:pkh:eip155:1:0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266:default";
        for path in [id.to_owned(), id.replace(':', "%3A"), id.replace(':', "%3a")] {
            assert_eq!(read(&path).expect("a space").as_str(), id);
        }
    }

    #[test]
    fn a_bad_space_is_refused() {
        for path in ["", "x", "tinycloud%3", "tinycloud%3Akey", "tinycloud%zz", "%ff", "tinycloud:key:z6Mk:a/kv"] {
            assert!(read(path).is_err(), "{path}");
        }
    }
}
