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
    /// What each host that brings epochs takes of it.
    shares: BTreeMap<Option<HostKey>, Share>,
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

/// The epochs that one host brought.
#[derive(Default)]
struct Share {
    bytes: usize,
    candidates: BTreeSet<u64>,
    idle: BTreeSet<u64>,
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
    /// Who brought it first.
    from: Option<HostKey>,
    arrival: u64,
    /// Ancestors that were not held when it was last looked at.
    lacks: BTreeSet<EpochId>,
}

impl Guest {
    fn new(arrived: Arrived, from: Option<HostKey>, arrival: u64, call: CallId) -> Self {
        let Arrived { checked, values, told } = arrived;
        let (calls, lacks) = ([call].into(), BTreeSet::new());
        let mut guest = Self { checked, values: BTreeMap::new(), told: BTreeSet::new(), calls, from, arrival, lacks };
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
    /// Takes an epoch in. When the room is too full then, the host that takes most of it gives way, so that nobody keeps out
    /// what others bring.
    pub(super) fn admit(&mut self, call: CallId, from: Option<HostKey>, arrived: Arrived, deliveries: &mut Deliveries) {
        let id = arrived.checked.epoch.id;
        if let Some(guest) = self.guests.get_mut(&id) {
            let before = guest.bytes();
            guest.unite(&arrived.values, arrived.told);
            let added = guest.bytes() - before;
            if self.candidates.contains_key(&guest.arrival) && guest.calls.insert(call) {
                deliveries.await_one(call);
            }
            self.shares.entry(guest.from).or_default().bytes += added;
            self.bytes += added;
        } else {
            self.arrivals += 1;
            let guest = Guest::new(arrived, from, self.arrivals, call);
            deliveries.await_one(call);
            let share = self.shares.entry(from).or_default();
            share.bytes += guest.bytes();
            share.candidates.insert(guest.arrival);
            self.bytes += guest.bytes();
            self.candidates.insert(guest.arrival, id);
            self.guests.insert(id, guest);
        }
        while self.bytes > WAITING_BYTES_MAX && self.give_way(deliveries) {}
    }

    /// Of the host that takes most of the room goes what has waited longest for something, or else what came last: what came
    /// before it may be taken in at once.
    fn give_way(&mut self, deliveries: &mut Deliveries) -> bool {
        let Some((_, most)) = self.shares.iter().max_by_key(|(_, share)| share.bytes) else { return false };
        let longest = most.idle.first().and_then(|arrival| self.idle.get(arrival));
        let last = most.candidates.last().and_then(|arrival| self.candidates.get(arrival));
        let Some(id) = longest.or(last).copied() else { return false };
        if let Some(guest) = self.remove(&id) {
            deliveries.settle(&guest.calls, |taken| taken.dropped += 1);
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
        let (arrival, share) = (guest.arrival, self.shares.entry(guest.from).or_default());
        self.candidates.remove(&arrival);
        self.idle.insert(arrival, *id);
        share.candidates.remove(&arrival);
        share.idle.insert(arrival);
        if self.idle.len() > WAITING_EPOCHS_MAX {
            let most = self.shares.values().max_by_key(|share| share.idle.len());
            let longest = most.and_then(|most| most.idle.first()).and_then(|arrival| self.idle.get(arrival)).copied();
            longest.and_then(|longest| self.remove(&longest));
        }
    }

    /// An idle one is to be looked at again.
    fn wake(&mut self, id: &EpochId) {
        if let Some(guest) = self.guests.get(id) {
            let share = self.shares.entry(guest.from).or_default();
            share.idle.remove(&guest.arrival);
            share.candidates.insert(guest.arrival);
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
        if let Some(share) = self.shares.get_mut(&guest.from) {
            share.bytes -= guest.bytes();
            share.candidates.remove(&guest.arrival);
            share.idle.remove(&guest.arrival);
            if share.bytes == 0 {
                self.shares.remove(&guest.from);
            }
        }
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
