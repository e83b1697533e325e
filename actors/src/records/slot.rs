//! A commit's place in the order in which records reach the store.

use std::sync::Arc;

use super::{
    room::Room,
    shared::{End, Shared},
    store::{Batch, StoreError},
};

/// The place of one commit. It must be filled: a slot that is dropped unfilled is a commit whose records nobody will
/// ever see, and ends the index.
#[must_use = "a slot that is not filled ends the index"]
#[derive(Debug)]
pub struct Slot {
    shared: Arc<Shared>,
    number: u64,
    filled: bool,
}

impl Slot {
    pub(super) fn new(shared: Arc<Shared>, number: u64) -> Self {
        Self { shared, number, filled: false }
    }

    /// Shows the commit's records to readers, all at once, and hands them to the thread. Never waits. `room` was taken
    /// for this commit.
    ///
    /// `batches` are applied in this order. A commit of one batch may be put into one store batch with its neighbours;
    /// of several, each is a store batch by itself, and the covered mark moves with the last. Keys are not empty and do
    /// not begin with a zero byte: those are the index's own.
    ///
    /// # Errors
    /// The [`StoreError`] that ended the index; the records are shown nevertheless. After a close they are not, and the
    /// next start finds them in the log.
    pub fn fill(mut self, room: Room, batches: Vec<Batch>) -> Result<(), StoreError> {
        self.filled = true;
        self.shared.fill(self.number, room, batches)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let over = || matches!(self.shared.progress().end, Some(End::Drained | End::Abandoned));
        if !self.filled && !over() {
            self.shared.fail(&StoreError::new("the records of a commit never came"));
        }
    }
}
