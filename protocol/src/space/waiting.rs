//! Epochs that are not yet: an ancestor is missing, or their clock is ahead. Bounded; what is dropped is offered again.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    judge::{Ancestry, CheckedEpoch},
    view::{View, ViewError},
};
use crate::{
    id::{EpochId, Millis},
    limits::{CLOCK_AHEAD_MAX_MS, WAITING_BYTES_MAX, WAITING_EPOCHS_MAX},
};

#[derive(Default)]
pub(super) struct Waiting {
    epochs: BTreeMap<EpochId, CheckedEpoch>,
    bytes: usize,
    /// Those whose ancestors may all be held: new ones, and the children of what was just taken in.
    candidates: BTreeSet<EpochId>,
}

impl Waiting {
    /// Takes an epoch in while there is room.
    pub(super) fn admit(&mut self, checked: CheckedEpoch) {
        let (id, size) = (checked.epoch.id, size(&checked));
        let full = self.epochs.len() == WAITING_EPOCHS_MAX || self.bytes + size > WAITING_BYTES_MAX;
        if full || self.epochs.contains_key(&id) {
            return;
        }
        self.bytes += size;
        self.candidates.insert(id);
        self.epochs.insert(id, checked);
    }

    /// Takes out an epoch that may be judged now.
    pub(super) fn next_ready(
        &mut self,
        now: Millis,
        view: &dyn View,
    ) -> Result<Option<(CheckedEpoch, Ancestry)>, ViewError> {
        let latest = now.plus(CLOCK_AHEAD_MAX_MS);
        let ahead: BTreeSet<EpochId> =
            self.candidates.iter().filter(|id| self.epochs[*id].epoch.time() > latest).copied().collect();
        while let Some(id) = self.candidates.iter().find(|id| !ahead.contains(*id)).copied() {
            self.candidates.remove(&id);
            if let Some(ancestry) = Ancestry::find(&self.epochs[&id].epoch, view)? {
                let checked = self.epochs.remove(&id).expect("a candidate is waiting");
                self.bytes -= size(&checked);
                let children = self.epochs.iter().filter(|(_, waiting)| names(waiting, &id));
                self.candidates.extend(children.map(|(child, _)| *child));
                return Ok(Some((checked, ancestry)));
            }
        }
        Ok(None)
    }

    /// The clock of the next epoch that waits for its time.
    pub(super) fn next_time(&self) -> Option<Millis> {
        self.candidates.iter().map(|id| self.epochs[id].epoch.time()).min()
    }

    /// Ancestors that are neither held nor waiting.
    pub(super) fn missing(&self) -> Vec<EpochId> {
        let named = self
            .epochs
            .values()
            .flat_map(|waiting| waiting.epoch.header.parents.iter().chain(&waiting.epoch.header.prev).copied());
        let missing: BTreeSet<_> = named.filter(|id| !self.epochs.contains_key(id)).collect();
        missing.into_iter().collect()
    }
}

fn names(waiting: &CheckedEpoch, id: &EpochId) -> bool {
    let header = &waiting.epoch.header;
    header.prev.as_ref() == Some(id) || header.parents.binary_search(id).is_ok()
}

fn size(checked: &CheckedEpoch) -> usize {
    checked.epoch.signed.header.len() + checked.epoch.signed.body.len()
}
