//! The incarnation in which this process commits.

use std::sync::atomic::{AtomicU64, Ordering};

use kvspace_protocol::id::Incarnation;
use rand::Rng;

/// One number for all spaces, drawn at the start and anew after each failed commit: that commit may still be in the log, so
/// no second epoch may get its number. A space that is opened again without such a failure goes on with its chain.
#[derive(Debug)]
pub(crate) struct Incarnations(AtomicU64);

impl Incarnations {
    pub(crate) fn draw() -> Self {
        Self(AtomicU64::new(rand::rng().next_u64()))
    }

    /// What a space that is opened now commits in.
    pub(crate) fn current(&self) -> Incarnation {
        Incarnation(self.0.load(Ordering::SeqCst).to_be_bytes())
    }

    /// A commit failed. Nobody opens its space before this returns.
    pub(crate) fn redraw(&self) {
        self.0.store(rand::rng().next_u64(), Ordering::SeqCst);
    }
}
