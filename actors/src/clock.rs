//! The one place that reads the time.

use std::time::{SystemTime, UNIX_EPOCH};

use kvspace_protocol::id::Millis;

/// The time now, by this machine's clock.
#[must_use]
#[allow(clippy::disallowed_methods, reason = "the one place that reads the clock")]
pub fn now() -> Millis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
