//! The one place of this crate that reads the time.

use kvspace_protocol::id::Millis;

/// Now, by the system's clock.
#[must_use]
#[allow(clippy::disallowed_methods, reason = "tokens are signed for a time of day; everything else takes it from here")]
pub fn now() -> Millis {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
