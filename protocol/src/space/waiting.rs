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

/// The waiting room. Each epoch in it is a candidate, ahead of the clock, or lacks ancestors.
#[derive(Default)]
pub(super) struct Waiting {
    epochs: BTreeMap<EpochId, Guest>,
    bytes: usize,
    arrivals: u64,
    /// Those to be looked at: new ones, and those that lack nothing any more.
    candidates: BTreeSet<EpochId>,
    /// Those whose clock is too far ahead, by clock.
    ahead: BTreeSet<(Millis, EpochId)>,
}

struct Guest {
    checked: CheckedEpoch,
    arrival: u64,
    /// Ancestors that were not held when it was last looked at.
    lacks: BTreeSet<EpochId>,
}

impl Waiting {
    /// Takes an epoch in. When the room is full those that have waited longest for something give way; the ones still
    /// to be looked at do not, so that nobody can keep out what could be taken in at once.
    pub(super) fn admit(&mut self, checked: CheckedEpoch) {
        let (id, size) = (checked.epoch.id, size(&checked));
        if self.epochs.contains_key(&id) {
            return;
        }
        while self.epochs.len() >= WAITING_EPOCHS_MAX || self.bytes + size > WAITING_BYTES_MAX {
            let idle = self.epochs.iter().filter(|(id, _)| !self.candidates.contains(*id));
            let Some(longest) = idle.min_by_key(|(_, guest)| guest.arrival).map(|(id, _)| *id) else { return };
            self.remove(&longest);
        }
        self.bytes += size;
        self.arrivals += 1;
        self.candidates.insert(id);
        self.epochs.insert(id, Guest { checked, arrival: self.arrivals, lacks: BTreeSet::new() });
    }

    /// Takes out an epoch that may be judged now; `held` or `refuse` has to follow.
    pub(super) fn next_ready(
        &mut self,
        now: Millis,
        view: &dyn View,
    ) -> Result<Option<(CheckedEpoch, Ancestry)>, ViewError> {
        let latest = now.plus(CLOCK_AHEAD_MAX_MS);
        while let Some(&(time, id)) = self.ahead.first().filter(|(time, _)| *time <= latest) {
            self.ahead.remove(&(time, id));
            self.candidates.insert(id);
        }
        while let Some(id) = self.candidates.pop_first() {
            let Some(guest) = self.epochs.get_mut(&id) else { continue };
            let epoch = &guest.checked.epoch;
            if view.epoch(&id)?.is_some() {
                self.remove(&id);
                self.held(&id);
                continue;
            }
            if epoch.time() > latest {
                self.ahead.insert((epoch.time(), id));
                continue;
            }
            match Ancestry::find(epoch, view)? {
                Ok(ancestry) => return Ok(self.remove(&id).map(|checked| (checked, ancestry))),
                Err(lacks) => guest.lacks = lacks,
            }
        }
        Ok(None)
    }

    /// An epoch is held now; its children may lack nothing any more.
    pub(super) fn held(&mut self, id: &EpochId) {
        for (child, guest) in &mut self.epochs {
            if guest.lacks.remove(id) && guest.lacks.is_empty() {
                self.candidates.insert(*child);
            }
        }
    }

    /// Drops all that rest on an epoch which can never be held.
    pub(super) fn refuse(&mut self, id: EpochId) {
        let mut refused = vec![id];
        while let Some(id) = refused.pop() {
            let resting: Vec<_> =
                self.epochs.iter().filter(|(_, guest)| guest.lacks.contains(&id)).map(|(child, _)| *child).collect();
            for child in resting {
                self.remove(&child);
                refused.push(child);
            }
        }
    }

    fn remove(&mut self, id: &EpochId) -> Option<CheckedEpoch> {
        let guest = self.epochs.remove(id)?;
        self.bytes -= size(&guest.checked);
        self.candidates.remove(id);
        self.ahead.remove(&(guest.checked.epoch.time(), *id));
        Some(guest.checked)
    }

    /// The clock of the next epoch that waits for its time.
    pub(super) fn next_time(&self) -> Option<Millis> {
        self.ahead.first().map(|(time, _)| *time)
    }

    /// Ancestors that are neither held nor waiting.
    pub(super) fn missing(&self) -> Vec<EpochId> {
        let lacking: BTreeSet<_> = self.epochs.values().flat_map(|guest| guest.lacks.iter().copied()).collect();
        lacking.into_iter().filter(|id| !self.epochs.contains_key(id)).collect()
    }
}

fn size(checked: &CheckedEpoch) -> usize {
    checked.epoch.signed.header.len() + checked.epoch.signed.body.len()
}
