//! The one place that reads the time.

use std::time::{SystemTime, UNIX_EPOCH};

use kvspace_protocol::id::Millis;

/// The time now, by this machine's clock.
#[must_use]
#[allow(clippy::disallowed_methods, reason = "the one place that reads the clock")]
pub fn now() -> Millis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX)).plus(skew_ms())
}

#[cfg(not(debug_assertions))]
#[inline(always)]
fn skew_ms() -> i64 {
    0
}

/// By how much a test has set the clock wrong: the environment variable `KVSPACE_CLOCK_SKEW_MS`. Release builds have none
/// of this.
#[cfg(debug_assertions)]
fn skew_ms() -> i64 {
    static SKEW_MS: std::sync::OnceLock<i64> = std::sync::OnceLock::new();
    let read = || std::env::var("KVSPACE_CLOCK_SKEW_MS").ok().and_then(|skew| skew.parse().ok());
    *SKEW_MS.get_or_init(|| read().unwrap_or_default())
}
