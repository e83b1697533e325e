//! Which range of which value to ask of whom: a state machine without IO, with the time as an argument.
//!
//! What is lacking of a value is cut into stripes. A stripe is asked of one peer; what a peer did not bring is lacking again.
//! A flight that takes long is asked of a second peer as well, and what is first wins. Tell it `want`, `handle_*`; after each
//! drain `poll_cancel` and `poll`; `poll_timeout` says when to come back.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    ops::{self, Range},
};

use kvspace_protocol::id::{BlobHash, HostKey, Millis, SpaceId};

pub(crate) use self::settings::Settings;
use super::{Occurrence, Urgency};
use crate::blobs::Groups;

mod blob;
mod room;
mod settings;

use blob::{Blob, Flight, Place, Standing};
use room::Room;

/// Values that one look passes over though a host of theirs is free. Then they rest, so that the next look sees others.
const BLOCKED_MAX: usize = 256;
/// The part of all requests under way that one space may have while others want something: a quarter.
const SPACE_PART: usize = 4;
/// Peers of which it is remembered that they sent broken ranges.
const CULPRITS_MAX: usize = 1024;

/// A value as it is wanted: the size is a part of it, because a lie about it must not stand in the way of the truth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct BlobKey {
    pub(crate) hash: BlobHash,
    pub(crate) size: u64,
}

/// Names one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Call(u64);

/// A request to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ask {
    pub(crate) call: Call,
    pub(crate) peer: HostKey,
    pub(crate) at: Occurrence,
    pub(crate) key: BlobKey,
    pub(crate) groups: Range<u64>,
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// All of it came.
    Whole,
    /// It broke off, or nothing came for too long.
    Broken,
    /// The peer does not have it, or does not give it.
    NotFound,
    /// The peer has too much to do.
    Busy,
    /// What came is not what the hash names.
    Bad,
    /// It could not be written here.
    Disk,
    /// As before, and nothing that came until now is here any more.
    Lost,
}

/// How many requests one space may have under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Share {
    /// Its part.
    Part,
    /// All: nobody else wants anything that can be had.
    All,
}

/// Whether a space can be asked for anything now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    Free,
    /// All its hosts that are connected have as much to do as they may.
    Full,
    /// None is connected.
    None,
}

/// What can be done for a value now.
enum Next {
    Ask(Ask),
    /// Whoever could be asked is at work, or all of it is under way.
    Blocked,
    /// Nothing before this time.
    Sleep(Millis),
}

#[derive(Default)]
struct Peer {
    flights: usize,
    busy_until: Option<Millis>,
}

/// The plan of all values that are wanted.
pub(crate) struct Plan {
    settings: Settings,
    blobs: BTreeMap<BlobKey, Blob>,
    ready: BTreeSet<(Urgency, u64, BlobKey)>,
    sleeping: BTreeSet<(Millis, BlobKey)>,
    flights: BTreeMap<Call, Flight>,
    peers: BTreeMap<HostKey, Peer>,
    room: Room,
    cancelled: VecDeque<Call>,
    next: u64,
    polled: Millis,
    bad: u64,
    culprits: BTreeMap<HostKey, u64>,
}

impl Plan {
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            settings,
            blobs: BTreeMap::new(),
            ready: BTreeSet::new(),
            sleeping: BTreeSet::new(),
            flights: BTreeMap::new(),
            peers: BTreeMap::new(),
            room: Room::default(),
            cancelled: VecDeque::new(),
            next: 0,
            polled: Millis(i64::MIN),
            bad: 0,
            culprits: BTreeMap::new(),
        }
    }

    /// This value is wanted; of it, `had` is here already. Says no when there is no room: then it is to be offered again.
    pub(crate) fn want(&mut self, now: Millis, key: BlobKey, at: &Occurrence, urgency: Urgency, had: &Groups) -> bool {
        if !self.blobs.contains_key(&key) {
            if self.blobs.len() >= self.settings.wants_max && !self.make_room(&at.space, urgency) {
                return false;
            }
            let mut left = Groups::of_size(key.size);
            had.runs().for_each(|run| left.remove(run));
            if left.is_empty() {
                // It was whole but never got its name: the last group is asked for once more, and finishes it.
                let groups = Groups::of_size(key.size).runs().last().map_or(0, |run| run.end);
                left.insert(groups - 1..groups);
            }
            let blob = Blob {
                urgency,
                number: self.number(),
                place: Place::Ready,
                at: Vec::new(),
                deserted: BTreeSet::new(),
                listed: at.space.clone(),
                left,
                flights: BTreeSet::new(),
                standings: BTreeMap::new(),
                bans: BTreeMap::new(),
                asked: BTreeMap::new(),
            };
            self.room.add(&at.space, blob.number, key, self.settings.wants_max);
            self.ready.insert((urgency, blob.number, key));
            self.blobs.insert(key, blob);
        }
        let soonest = now.plus(self.settings.again_ms);
        let blob = self.blobs.get_mut(&key).expect("it was put there if it was not");
        let is_new_place = !blob.at.contains(at) && blob.take_place(at, urgency);
        if urgency == Urgency::Now {
            // Somebody waits: what was put off for long is tried again.
            for standing in blob.standings.values_mut() {
                standing.not_before = standing.not_before.min(soonest);
            }
        }
        let (place, urgency) = (blob.place, urgency.min(blob.urgency));
        if is_new_place {
            self.room.set_hopeful(&key);
        }
        if place != Place::Complete && (is_new_place || urgency == Urgency::Now) {
            self.wake(key, urgency);
        }
        true
    }

    /// Nobody wants it any more.
    pub(crate) fn forget(&mut self, hash: &BlobHash) {
        self.keys(hash).into_iter().for_each(|key| self.drop_value(key));
    }

    fn drop_value(&mut self, key: BlobKey) {
        for call in self.blobs.get(&key).map(|blob| blob.flights.clone()).unwrap_or_default() {
            self.cancel(call);
        }
        self.unplace(key);
        if let Some(blob) = self.blobs.remove(&key) {
            self.room.remove(&blob.listed, blob.number, key, self.settings.wants_max);
        }
    }

    /// A peer that hosts these spaces has come: what was put off because of it, or because nobody was there, is tried at once.
    pub(crate) fn handle_peer(&mut self, peer: &HostKey, spaces: &BTreeSet<SpaceId>) {
        if let Some(peer) = self.peers.get_mut(peer) {
            peer.busy_until = None;
        }
        let mut woken = Vec::new();
        for (key, blob) in &mut self.blobs {
            blob.standings.retain(|(other, at), _| other != peer || !spaces.contains(&at.space));
            blob.deserted.retain(|at| !spaces.contains(&at.space));
            let is_sleeping = matches!(blob.place, Place::Sleeping(_));
            if is_sleeping && blob.at.iter().any(|at| spaces.contains(&at.space)) {
                woken.push((*key, blob.urgency));
            }
        }
        for (key, urgency) in woken {
            self.room.set_hopeful(&key);
            self.wake(key, urgency);
        }
    }

    /// The spaces in which values are wanted.
    pub(crate) fn spaces(&self) -> BTreeSet<SpaceId> {
        self.blobs.values().flat_map(|blob| blob.at.iter().map(|at| at.space.clone())).collect()
    }

    /// A request ended after bringing `got`. Says whether the value is complete now: then it is to get its name, and
    /// [`Plan::handle_placed`] or [`Plan::handle_lost`] follows.
    pub(crate) fn handle_end(&mut self, now: Millis, call: Call, got: Range<u64>, end: End) -> bool {
        let Some(flight) = self.land(call) else { return false };
        let Some(blob) = self.blobs.get_mut(&flight.key) else { return false };
        blob.left.remove(got);
        let pair = (flight.peer, flight.at);
        match end {
            End::Whole => {
                blob.standings.remove(&pair);
            }
            End::Broken | End::NotFound => {
                let failures = blob.standings.get(&pair).map_or(0, |standing| standing.failures);
                let Settings { again_ms, again_max_ms, .. } = self.settings;
                let wait_ms = again_ms.saturating_mul(1 << failures.min(20)).min(again_max_ms);
                let (is_missing, not_before) = (end == End::NotFound, now.plus(wait_ms));
                let standing = Standing { failures: failures + 1, is_missing, not_before };
                blob.standings.insert(pair, standing);
            }
            End::Busy => {
                let busy_until = Some(now.plus(self.settings.busy_ms));
                self.peers.entry(flight.peer).or_default().busy_until = busy_until;
            }
            End::Bad => {
                blob.bans.insert(flight.peer, now.plus(self.settings.ban_ms));
                self.bad += 1;
                if self.culprits.contains_key(&flight.peer) || self.culprits.len() < CULPRITS_MAX {
                    *self.culprits.entry(flight.peer).or_default() += 1;
                }
            }
            End::Disk => {}
            End::Lost => blob.left = Groups::of_size(flight.key.size),
        }
        let (urgency, is_complete) = (blob.urgency, blob.left.is_empty());
        self.cancel_needless(flight.key);
        if is_complete {
            self.unplace(flight.key);
            self.set_place(flight.key, Place::Complete);
        } else if matches!(end, End::Disk | End::Lost) {
            self.unplace(flight.key);
            self.set_place(flight.key, Place::Sleeping(now.plus(self.settings.disk_ms)));
        } else {
            self.wake(flight.key, urgency);
        }
        is_complete
    }

    /// The value has its name.
    pub(crate) fn handle_placed(&mut self, key: BlobKey) {
        self.drop_value(key);
    }

    /// What was here of the value is lost: all over again, after a while.
    pub(crate) fn handle_lost(&mut self, now: Millis, key: BlobKey) {
        let Some(blob) = self.blobs.get_mut(&key) else { return };
        blob.left = Groups::of_size(key.size);
        self.unplace(key);
        self.set_place(key, Place::Sleeping(now.plus(self.settings.disk_ms)));
    }

    /// A request that need not go on.
    pub(crate) fn poll_cancel(&mut self) -> Option<Call> {
        self.cancelled.pop_front()
    }

    /// The next request; `hosts` names the connected hosts of a space.
    pub(crate) fn poll(&mut self, now: Millis, hosts: &dyn Fn(&SpaceId) -> Vec<HostKey>) -> Option<Ask> {
        self.polled = now;
        while let Some((_, key)) = self.sleeping.first().copied().filter(|(until, _)| *until <= now) {
            self.wake(key, self.blobs[&key].urgency);
        }
        if self.flights.len() >= self.settings.flights_max {
            return None;
        }
        self.look(now, hosts, Share::Part).or_else(|| self.look(now, hosts, Share::All))
    }

    /// Looks for the first value that something can be asked for, in spaces that have no more than their share under way.
    fn look(&mut self, now: Millis, hosts: &dyn Fn(&SpaceId) -> Vec<HostKey>, share: Share) -> Option<Ask> {
        let of_space_max = match share {
            Share::Part => (self.settings.flights_max / SPACE_PART).max(1),
            Share::All => self.settings.flights_max,
        };
        let mut reached: BTreeMap<SpaceId, Reach> = BTreeMap::new();
        let mut blocked = Vec::new();
        let mut at = ops::Bound::Unbounded;
        while blocked.len() < BLOCKED_MAX {
            let entry = *self.ready.range((at, ops::Bound::Unbounded)).next()?;
            at = ops::Bound::Excluded(entry);
            let key = entry.2;
            let mut reach = |space: &SpaceId| {
                let known = reached.get(space).copied();
                known.unwrap_or_else(|| {
                    let reach = self.reach(now, space, &hosts(space), of_space_max);
                    reached.insert(space.clone(), reach);
                    reach
                })
            };
            let reaches: Vec<Reach> = self.blobs[&key].at.iter().map(|at| reach(&at.space)).collect();
            if !reaches.contains(&Reach::Free) && reaches.contains(&Reach::Full) {
                continue;
            }
            match self.next_of(now, key, hosts, of_space_max) {
                Next::Ask(ask) => {
                    self.fly(now, &ask);
                    return Some(ask);
                }
                Next::Blocked => blocked.push(key),
                Next::Sleep(until) => {
                    if self.is_hopeless(key, hosts) {
                        self.room.set_hopeless(key);
                    }
                    if let Some(blob) = self.blobs.get_mut(&key) {
                        let deserted = blob.at.iter().filter(|at| hosts(&at.space).is_empty());
                        blob.deserted = deserted.cloned().collect();
                    }
                    self.rest(key, until);
                }
            }
        }
        let until = now.plus(self.settings.busy_ms);
        blocked.retain(|key| self.blobs[key].flights.is_empty());
        blocked.into_iter().for_each(|key| self.rest(key, until));
        None
    }

    fn reach(&self, now: Millis, space: &SpaceId, hosts: &[HostKey], of_space_max: usize) -> Reach {
        let is_free = |peer: &HostKey| {
            self.peers.get(peer).is_none_or(|peer| {
                peer.flights < self.settings.flights_per_peer_max && peer.busy_until.is_none_or(|until| until <= now)
            })
        };
        if hosts.is_empty() {
            Reach::None
        } else if self.flights_of(space) < of_space_max && hosts.iter().any(is_free) {
            Reach::Free
        } else {
            Reach::Full
        }
    }

    fn flights_of(&self, space: &SpaceId) -> usize {
        self.flights.values().filter(|flight| flight.at.space == *space).count()
    }

    /// Whether all hosts that are connected said that they do not have the value.
    fn is_hopeless(&self, key: BlobKey, hosts: &dyn Fn(&SpaceId) -> Vec<HostKey>) -> bool {
        let blob = &self.blobs[&key];
        let is_missing = |pair: &(HostKey, Occurrence)| blob.standings.get(pair).is_some_and(|said| said.is_missing);
        let mut asked = blob.at.iter().flat_map(|at| hosts(&at.space).into_iter().map(|peer| (peer, at.clone())));
        !blob.standings.is_empty() && asked.all(|pair| is_missing(&pair))
    }

    fn rest(&mut self, key: BlobKey, until: Millis) {
        self.unplace(key);
        self.set_place(key, Place::Sleeping(until));
    }

    /// When to poll again, though nothing happened.
    pub(crate) fn poll_timeout(&self) -> Option<Millis> {
        let sleeping = self.sleeping.first().map(|(until, _)| *until);
        let late = self.flights.values().map(|flight| flight.since.plus(self.settings.endgame_ms));
        let busy = self.peers.values().filter_map(|peer| peer.busy_until);
        sleeping.into_iter().chain(late).chain(busy).filter(|time| *time > self.polled).min()
    }

    pub(crate) fn contains(&self, key: &BlobKey) -> bool {
        self.blobs.contains_key(key)
    }

    /// How many values are wanted.
    pub(crate) fn wanted(&self) -> usize {
        self.blobs.len()
    }

    /// The values that are wanted.
    pub(crate) fn all_wanted(&self) -> Vec<BlobHash> {
        self.blobs.keys().map(|key| key.hash).collect()
    }

    /// Who was asked for a value, and when last.
    pub(crate) fn asked(&self, hash: &BlobHash) -> BTreeMap<HostKey, Millis> {
        self.keys(hash).into_iter().flat_map(|key| self.blobs[&key].asked.clone()).collect()
    }

    /// Who said last that it does not have this value in this space, and has not come anew since.
    pub(crate) fn missing_at(&self, hash: &BlobHash, space: &SpaceId) -> BTreeSet<HostKey> {
        let standings = self.keys(hash).into_iter().flat_map(|key| &self.blobs[&key].standings);
        let missing = standings.filter(|((_, at), standing)| at.space == *space && standing.is_missing);
        missing.map(|((peer, _), _)| *peer).collect()
    }

    /// How many broken ranges came.
    pub(crate) fn bad(&self) -> u64 {
        self.bad
    }

    /// Who sent broken ranges, and how many.
    pub(crate) fn culprits(&self) -> &BTreeMap<HostKey, u64> {
        &self.culprits
    }

    fn keys(&self, hash: &BlobHash) -> Vec<BlobKey> {
        let (first, last) = (BlobKey { hash: *hash, size: 0 }, BlobKey { hash: *hash, size: u64::MAX });
        self.blobs.range(first..=last).map(|(key, _)| *key).collect()
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn unplace(&mut self, key: BlobKey) {
        let Some(blob) = self.blobs.get(&key) else { return };
        match blob.place {
            Place::Ready => {
                self.ready.remove(&(blob.urgency, blob.number, key));
            }
            Place::Sleeping(until) => {
                self.sleeping.remove(&(until, key));
            }
            Place::Complete => {}
        }
    }

    fn set_place(&mut self, key: BlobKey, place: Place) {
        let Some(blob) = self.blobs.get_mut(&key) else { return };
        blob.place = place;
        match place {
            Place::Ready => {
                self.ready.insert((blob.urgency, blob.number, key));
            }
            Place::Sleeping(until) => {
                self.sleeping.insert((until, key));
            }
            Place::Complete => {}
        }
    }

    fn wake(&mut self, key: BlobKey, urgency: Urgency) {
        self.unplace(key);
        if let Some(blob) = self.blobs.get_mut(&key) {
            blob.urgency = urgency;
        }
        self.set_place(key, Place::Ready);
    }

    fn next_of(
        &self,
        now: Millis,
        key: BlobKey,
        hosts: &dyn Fn(&SpaceId) -> Vec<HostKey>,
        of_space_max: usize,
    ) -> Next {
        let blob = &self.blobs[&key];
        let (groups, avoid) = match self.gap(blob) {
            Some(groups) => (groups, None),
            None => match self.late(now, blob) {
                Some(flight) => (flight.groups.clone(), Some(flight.peer)),
                None => return Next::Blocked,
            },
        };
        let asked: BTreeSet<HostKey> = blob.flights.iter().map(|call| self.flights[call].peer).collect();
        let (mut best, mut is_blocked) = (None, false);
        let mut wake = now.plus(self.settings.idle_ms);
        for at in &blob.at {
            let is_over = self.flights_of(&at.space) >= of_space_max;
            for peer in hosts(&at.space) {
                let banned = blob.bans.get(&peer).copied();
                let standing = blob.standings.get(&(peer, at.clone()));
                let busy = self.peers.get(&peer).and_then(|peer| peer.busy_until);
                let until = [banned, standing.map(|standing| standing.not_before), busy].into_iter().flatten().max();
                if let Some(until) = until.filter(|until| *until > now) {
                    wake = wake.min(until);
                    continue;
                }
                let flights = self.peers.get(&peer).map_or(0, |peer| peer.flights);
                let is_one_more = !asked.contains(&peer) && asked.len() >= self.settings.peers_per_blob_max;
                if flights >= self.settings.flights_per_peer_max || is_one_more || is_over || Some(peer) == avoid {
                    is_blocked = true;
                    continue;
                }
                let rank = (flights, standing.map_or(0, |standing| standing.failures), peer);
                if best.as_ref().is_none_or(|(other, _)| rank < *other) {
                    best = Some((rank, at));
                }
            }
        }
        match best {
            Some(((_, _, peer), at)) => Next::Ask(Ask { call: Call(self.next + 1), peer, at: at.clone(), key, groups }),
            None if is_blocked => Next::Blocked,
            None => Next::Sleep(wake),
        }
    }

    /// The first stripe of the value that is lacking and not under way.
    fn gap(&self, blob: &Blob) -> Option<Range<u64>> {
        let mut free = blob.left.clone();
        for call in &blob.flights {
            free.remove(self.flights[call].groups.clone());
        }
        let run = free.runs().next()?;
        let stripe = self.settings.stripe_groups;
        let end = (run.start / stripe + 1) * stripe;
        Some(run.start..run.end.min(end))
    }

    /// A stripe that has been under way for long and was asked for once.
    fn late(&self, now: Millis, blob: &Blob) -> Option<&Flight> {
        let flights = || blob.flights.iter().map(|call| &self.flights[call]);
        let is_late = |flight: &&Flight| flight.since.plus(self.settings.endgame_ms) <= now;
        let is_single =
            |flight: &&Flight| flights().filter(|other| other.groups.contains(&flight.groups.start)).count() == 1;
        flights().filter(is_late).find(is_single)
    }

    fn fly(&mut self, now: Millis, ask: &Ask) {
        self.next = ask.call.0;
        let Ask { call, peer, at, key, groups } = ask.clone();
        self.peers.entry(peer).or_default().flights += 1;
        if let Some(blob) = self.blobs.get_mut(&key) {
            blob.flights.insert(call);
            blob.asked.insert(peer, now);
        }
        self.flights.insert(call, Flight { key, peer, at, groups, since: now });
    }

    fn land(&mut self, call: Call) -> Option<Flight> {
        let flight = self.flights.remove(&call)?;
        if let Some(blob) = self.blobs.get_mut(&flight.key) {
            blob.flights.remove(&call);
        }
        let now = self.polled;
        if let Some(peer) = self.peers.get_mut(&flight.peer) {
            peer.flights -= 1;
            if peer.flights == 0 && peer.busy_until.is_none_or(|until| until <= now) {
                self.peers.remove(&flight.peer);
            }
        }
        Some(flight)
    }

    fn cancel(&mut self, call: Call) {
        if self.land(call).is_some() {
            self.cancelled.push_back(call);
        }
    }

    /// Ends the flights of a value that can bring nothing new.
    fn cancel_needless(&mut self, key: BlobKey) {
        let Some(blob) = self.blobs.get(&key) else { return };
        let brings = |groups: &Range<u64>| blob.left.runs().any(|run| run.start < groups.end && groups.start < run.end);
        let needless: Vec<Call> =
            blob.flights.iter().copied().filter(|call| !brings(&self.flights[call].groups)).collect();
        for call in needless {
            self.cancel(call);
        }
    }
}

#[cfg(test)]
mod tests;
