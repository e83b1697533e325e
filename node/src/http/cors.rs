//! Every browser may ask: what opens the interface to other origins stands on every answer.

use warp::http::{
    HeaderMap, HeaderValue,
    header::{
        ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
        ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS,
    },
};

/// What scripts may read. The names stand beside `*` because that one does not count in requests with credentials.
const EXPOSED: &str = "*, Authorization, ETag, Retry-After, x-tinycloud-truncated, x-tinycloud-next-cursor, \
                       x-kvspace-error, x-kvspace-version, x-kvspace-frontier, x-kvspace-integrity, x-kvspace-size";

/// What scripts may send, with the names that `*` leaves out where there are credentials.
const ALLOWED: &str = "*, Authorization, Content-Type, If-Match, If-None-Match, x-tinycloud-limit, x-tinycloud-cursor, \
                       x-kvspace-after, x-kvspace-wait-ms";

/// Whether browsers of other origins are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cors {
    /// All of them.
    Any,
    /// None.
    Off,
}

impl Cors {
    /// Adds what belongs on every answer.
    pub(crate) fn add_to(self, headers: &mut HeaderMap) {
        if self == Self::Off {
            return;
        }
        for (name, value) in [
            (ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
            (ACCESS_CONTROL_ALLOW_METHODS, "POST, PUT, GET, OPTIONS, DELETE"),
            (ACCESS_CONTROL_ALLOW_HEADERS, ALLOWED),
            (ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED),
            (ACCESS_CONTROL_ALLOW_CREDENTIALS, "true"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::headers;

    #[test]
    fn every_header_of_ours_may_be_read_by_scripts() {
        for name in [
            headers::X_KVSPACE_ERROR,
            headers::X_KVSPACE_VERSION,
            headers::X_KVSPACE_FRONTIER,
            headers::X_KVSPACE_INTEGRITY,
            headers::X_KVSPACE_SIZE,
            headers::X_TINYCLOUD_TRUNCATED,
            headers::X_TINYCLOUD_NEXT_CURSOR,
        ] {
            assert!(EXPOSED.split(", ").any(|exposed| exposed == name.as_str()), "{name}");
        }
    }

    #[test]
    fn every_header_of_ours_may_be_sent_by_scripts() {
        for name in [headers::X_KVSPACE_AFTER, headers::X_KVSPACE_WAIT_MS, headers::X_TINYCLOUD_LIMIT] {
            assert!(ALLOWED.split(", ").any(|allowed| allowed == name.as_str()), "{name}");
        }
    }

    #[test]
    fn nothing_is_added_when_it_is_off() {
        let mut headers = HeaderMap::new();
        Cors::Off.add_to(&mut headers);
        assert!(headers.is_empty());
        Cors::Any.add_to(&mut headers);
        assert_eq!(headers[ACCESS_CONTROL_ALLOW_ORIGIN], "*");
    }
}
