//! Numbers that spread what many nodes would do at once.

use crate::limits::RETRY_MS;

/// SplitMix64 (Steele, Lea and Flood 2014): a counter, well mixed. Nothing secret rests on it.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from 0 to `end`, without `end`; 0 when there is none.
    pub(super) fn below(&mut self, end: i64) -> i64 {
        let end = u64::try_from(end).unwrap_or(0).max(1);
        i64::try_from(self.next() % end).unwrap_or(0)
    }

    /// How long to wait after so many failures: twice as long each time, up to `most_ms`, and up to a quarter less.
    pub(super) fn backoff(&mut self, failures: u32, most_ms: i64) -> i64 {
        let doubled = 1_i64.checked_shl(failures.saturating_sub(1).min(32)).unwrap_or(i64::MAX);
        let delay_ms = RETRY_MS.saturating_mul(doubled).min(most_ms);
        delay_ms - self.below(delay_ms / 4)
    }
}
