//! How much is asked for at once, and how long is waited.

/// How much at once, and how long to wait. Times are milliseconds.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// Groups of a stripe.
    pub(crate) stripe_groups: u64,
    /// Peers that are asked for one value at once.
    pub(crate) peers_per_blob_max: usize,
    /// Stripes under way with one peer.
    pub(crate) flights_per_peer_max: usize,
    /// Stripes under way.
    pub(crate) flights_max: usize,
    /// Values that are wanted.
    pub(crate) wants_max: usize,
    /// A peer that sent a broken range is not asked for that value for so long.
    pub(crate) ban_ms: i64,
    /// A peer that does not have a value, or did not bring it, is asked for it again after this time, doubled each time …
    pub(crate) again_ms: i64,
    /// … up to this.
    pub(crate) again_max_ms: i64,
    /// A busy peer is left alone for so long.
    pub(crate) busy_ms: i64,
    /// After this time a second peer is asked for the same stripe.
    pub(crate) endgame_ms: i64,
    /// After trouble with the disk.
    pub(crate) disk_ms: i64,
    /// When nobody is there to be asked.
    pub(crate) idle_ms: i64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            stripe_groups: 64,
            peers_per_blob_max: 4,
            flights_per_peer_max: 2,
            flights_max: 32,
            wants_max: 10_000,
            ban_ms: 3_600_000,
            again_ms: 2_000,
            again_max_ms: 600_000,
            busy_ms: 1_000,
            endgame_ms: 2_000,
            disk_ms: 10_000,
            idle_ms: 60_000,
        }
    }
}
