//! Epochs that are not yet: an ancestor is missing, or their clock is ahead. Bounded; what is dropped is offered again.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::{
    deliver::Deliveries,
    effect::{Arrived, CallId},
    explain::WaitingEpoch,
    judge::{Ancestry, CheckedEpoch},
    view::{View, ViewError},
};
use crate::{
    id::{BlobHash, EpochId, HostKey, Millis},
    limits::{
        CLOCK_AHEAD_MAX_MS, COMMIT_BYTES_MAX, INLINE_BYTES_MAX, NAMES_MAX, TOLD_MAX, WAITING_BYTES_MAX,
        WAITING_EPOCHS_MAX,
    },
};

/// What a guest takes beside its bytes, roughly: what was read out of them, and its names in the room.
const GUEST_OVERHEAD_BYTES: usize = 1024;

/// The waiting room. Each epoch in it is a candidate, or idle: ahead of the clock, or lacking ancestors.
#[derive(Default)]
pub(super) struct Waiting {
    guests: BTreeMap<EpochId, Guest>,
    bytes: usize,
    arrivals: u64,
    /// Those to be looked at, by arrival: new ones, and those that lack nothing any more.
    candidates: BTreeMap<u64, EpochId>,
    /// The others, by arrival.
    idle: BTreeMap<u64, EpochId>,
    /// Those whose clock is too far ahead, by clock.
    ahead: BTreeSet<(Millis, EpochId)>,
    /// Of each epoch that is lacking, those that lack it.
    lacking: BTreeMap<EpochId, BTreeSet<EpochId>>,
}

/// An epoch in the room, with all that came with it.
pub(super) struct Guest {
    pub(super) checked: CheckedEpoch,
    /// Inline values that its events name.
    pub(super) values: BTreeMap<BlobHash, Bytes>,
    /// Hosts that are known to have it.
    pub(super) told: BTreeSet<HostKey>,
    /// The deliveries that wait until it was looked at.
    pub(super) calls: BTreeSet<CallId>,
    arrival: u64,
    /// Ancestors that were not held when it was last looked at.
    lacks: BTreeSet<EpochId>,
}

impl Guest {
    fn new(arrived: Arrived, arrival: u64, call: CallId) -> Self {
        let Arrived { checked, values, told } = arrived;
        let (calls, lacks) = ([call].into(), BTreeSet::new());
        let mut guest = Self { checked, values: BTreeMap::new(), told: BTreeSet::new(), calls, arrival, lacks };
        guest.unite(&values, told);
        guest
    }

    /// Takes over those values that its events name, and whom it was told.
    fn unite(&mut self, values: &[Bytes], told: BTreeSet<HostKey>) {
        let room = TOLD_MAX.saturating_sub(self.told.len());
        self.told.extend(told.into_iter().take(room));
        if values.is_empty() {
            return;
        }
        let named = self.checked.writes().filter_map(|(_, _, value)| value);
        let mut wanted: BTreeMap<BlobHash, u64> = named.map(|value| (value.blob, value.size)).collect();
        wanted.retain(|blob, size| *size <= INLINE_BYTES_MAX && !self.values.contains_key(blob));
        let mut sizes: BTreeSet<u64> = wanted.values().copied().collect();
        for bytes in values {
            // Only what may be one of them is hashed.
            if !sizes.contains(&(bytes.len() as u64)) || self.commit_bytes() + bytes.len() > COMMIT_BYTES_MAX {
                continue;
            }
            let blob = BlobHash::of(bytes);
            if wanted.get(&blob).is_some_and(|size| *size == bytes.len() as u64) {
                wanted.remove(&blob);
                sizes = wanted.values().copied().collect();
                self.values.insert(blob, bytes.clone());
            }
        }
    }

    /// What it takes in a commit.
    pub(super) fn commit_bytes(&self) -> usize {
        let signed = &self.checked.epoch.signed;
        signed.header.len() + signed.body.len() + self.values.values().map(Bytes::len).sum::<usize>()
    }

    fn bytes(&self) -> usize {
        GUEST_OVERHEAD_BYTES + self.told.len() * size_of::<HostKey>() + self.commit_bytes()
    }

    /// Parts from the message it came in, of which it would keep all in memory.
    fn settle_down(&mut self) {
        let signed = &mut self.checked.epoch.signed;
        for bytes in [&mut signed.header, &mut signed.body].into_iter().chain(self.values.values_mut()) {
            *bytes = Bytes::copy_from_slice(bytes);
        }
    }
}

impl Waiting {
    /// Takes an epoch in. When the room is full those that have waited longest for something give way; the ones still
    /// to be looked at do not, so that nobody can keep out what could be taken in at once.
    pub(super) fn admit(&mut self, call: CallId, arrived: Arrived, deliveries: &mut Deliveries) {
        let id = arrived.checked.epoch.id;
        let beside = arrived.told.len() * size_of::<HostKey>() + arrived.values.iter().map(Bytes::len).sum::<usize>();
        if self.guests.contains_key(&id) && !self.make_room(beside) {
            return;
        }
        // It may just have given way to itself.
        if let Some(guest) = self.guests.get_mut(&id) {
            let before = guest.bytes();
            guest.unite(&arrived.values, arrived.told);
            self.bytes += guest.bytes() - before;
            if self.candidates.contains_key(&guest.arrival) && guest.calls.insert(call) {
                deliveries.await_one(call);
            }
            return;
        }
        self.arrivals += 1;
        let guest = Guest::new(arrived, self.arrivals, call);
        if self.make_room(guest.bytes()) {
            deliveries.await_one(call);
            self.bytes += guest.bytes();
            self.candidates.insert(guest.arrival, id);
            self.guests.insert(id, guest);
        }
    }

    fn make_room(&mut self, bytes: usize) -> bool {
        while self.bytes + bytes > WAITING_BYTES_MAX {
            let Some((_, longest)) = self.idle.first_key_value() else { return false };
            let longest = *longest;
            self.remove(&longest);
        }
        true
    }

    /// Takes out an epoch that may be judged now, if `fits` its bytes; `held` or `refuse` has to follow.
    pub(super) fn next_ready(
        &mut self,
        now: Millis,
        view: &dyn View,
        fits: impl Fn(usize) -> bool,
        deliveries: &mut Deliveries,
    ) -> Result<Option<(Guest, Ancestry)>, ViewError> {
        let latest = now.plus(CLOCK_AHEAD_MAX_MS);
        while let Some(&(time, id)) = self.ahead.first().filter(|(time, _)| *time <= latest) {
            self.ahead.remove(&(time, id));
            self.wake(&id);
        }
        while let Some(id) = self.candidates.first_key_value().map(|(_, id)| *id) {
            let Some(guest) = self.guests.get(&id) else { return Ok(None) };
            let time = guest.checked.epoch.time();
            if view.epoch(&id)?.is_some() {
                if let Some(guest) = self.remove(&id) {
                    deliveries.settle(&guest.calls, |taken| taken.held += 1);
                    self.held(&id, &guest.calls, deliveries);
                }
            } else if time > latest {
                self.ahead.insert((time, id));
                self.rest(&id, BTreeSet::new(), deliveries);
            } else {
                match Ancestry::find(&guest.checked.epoch, view)? {
                    Err(lacks) => self.rest(&id, lacks, deliveries),
                    Ok(_) if !fits(guest.commit_bytes()) => return Ok(None),
                    Ok(ancestry) => return Ok(self.remove(&id).map(|guest| (guest, ancestry))),
                }
            }
        }
        Ok(None)
    }

    /// A candidate cannot be taken in yet.
    fn rest(&mut self, id: &EpochId, lacks: BTreeSet<EpochId>, deliveries: &mut Deliveries) {
        let Some(guest) = self.guests.get_mut(id) else { return };
        deliveries.settle(&std::mem::take(&mut guest.calls), |_| {});
        guest.settle_down();
        for lacking in &lacks {
            self.lacking.entry(*lacking).or_default().insert(*id);
        }
        guest.lacks = lacks;
        self.candidates.remove(&guest.arrival);
        self.idle.insert(guest.arrival, *id);
        if self.idle.len() > WAITING_EPOCHS_MAX
            && let Some((_, longest)) = self.idle.pop_first()
        {
            self.remove(&longest);
        }
    }

    /// An idle one is to be looked at again.
    fn wake(&mut self, id: &EpochId) {
        if let Some(guest) = self.guests.get(id) {
            self.idle.remove(&guest.arrival);
            self.candidates.insert(guest.arrival, *id);
        }
    }

    /// An epoch is held now, which these calls brought; its children may lack nothing any more.
    pub(super) fn held(&mut self, id: &EpochId, calls: &BTreeSet<CallId>, deliveries: &mut Deliveries) {
        for child in self.lacking.remove(id).unwrap_or_default() {
            let Some(guest) = self.guests.get_mut(&child) else { continue };
            guest.lacks.remove(id);
            if guest.lacks.is_empty() {
                guest.calls.clone_from(calls);
                calls.iter().for_each(|call| deliveries.await_one(*call));
                self.wake(&child);
            }
        }
    }

    /// Drops all that rest on an epoch which can never be held.
    pub(super) fn refuse(&mut self, id: EpochId) {
        let mut refused = vec![id];
        while let Some(id) = refused.pop() {
            for child in self.lacking.remove(&id).unwrap_or_default() {
                self.remove(&child);
                refused.push(child);
            }
        }
    }

    fn remove(&mut self, id: &EpochId) -> Option<Guest> {
        let guest = self.guests.remove(id)?;
        self.bytes -= guest.bytes();
        self.candidates.remove(&guest.arrival);
        self.idle.remove(&guest.arrival);
        self.ahead.remove(&(guest.checked.epoch.time(), *id));
        for lacking in &guest.lacks {
            if let Some(children) = self.lacking.get_mut(lacking) {
                children.remove(id);
                if children.is_empty() {
                    self.lacking.remove(lacking);
                }
            }
        }
        Some(guest)
    }

    /// The clock of the next epoch that waits for its time.
    pub(super) fn next_time(&self) -> Option<Millis> {
        self.ahead.first().map(|(time, _)| *time)
    }

    /// Ancestors that are neither held nor waiting, at most [`NAMES_MAX`].
    pub(super) fn missing(&self) -> Vec<EpochId> {
        self.lacking.keys().filter(|id| !self.guests.contains_key(id)).take(NAMES_MAX).copied().collect()
    }

    /// The idle ones, those that wait longest first.
    pub(super) fn list(&self) -> Vec<WaitingEpoch> {
        let guests = self.idle.values().filter_map(|id| Some((*id, self.guests.get(id)?)));
        let waiting = |(id, guest): (EpochId, &Guest)| {
            let time = guest.checked.epoch.time();
            let ahead = self.ahead.contains(&(time, id)).then_some(time);
            let (host, lacks) = (guest.checked.epoch.header.host, guest.lacks.iter().copied().collect());
            WaitingEpoch { epoch: id, host, lacks, ahead }
        };
        guests.map(waiting).collect()
    }

    /// How many are idle.
    pub(super) fn len(&self) -> usize {
        self.idle.len()
    }
}
