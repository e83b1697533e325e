//! The one place of this crate that reads the time.

use std::time::Duration;

use kvspace_protocol::id::Millis;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// Now, by the system's clock.
#[must_use]
#[allow(clippy::disallowed_methods, reason = "tokens are signed for a time of day; everything else takes it from here")]
pub fn now() -> Millis {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// Begins to measure: what this gives back tells the time that has passed since.
#[allow(clippy::disallowed_methods, reason = "this module is where clocks are read")]
pub fn stopwatch() -> impl Fn() -> Duration {
    let begun = std::time::Instant::now();
    move || begun.elapsed()
}

/// A time as RFC 3339 spells it, in UTC and whole seconds; the number itself where that has no spelling.
#[must_use]
pub fn to_rfc3339(at: Millis) -> String {
    OffsetDateTime::from_unix_timestamp(at.0.div_euclid(1000))
        .ok()
        .and_then(|at| at.format(&Rfc3339).ok())
        .unwrap_or_else(|| at.0.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_shown_as_people_write_it() {
        assert_eq!(to_rfc3339(Millis(1_800_000_000_999)), "2027-01-15T08:00:00Z");
        assert_eq!(to_rfc3339(Millis(i64::MAX)), i64::MAX.to_string());
    }
}
