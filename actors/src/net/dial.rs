//! Whom to dial, where and when. Pure: time comes in, dials go out.
//!
//! Nothing below redials, so this does: each peer has its own delay, doubled with each failure, and its addresses with
//! what became of them. A connection that held for a while starts the count again.

use std::collections::{BTreeMap, BTreeSet};

use kvspace_protocol::id::{HostKey, Millis};
use libp2p::Multiaddr;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

mod known;
#[cfg(test)]
mod tests;

use super::{Blocked, PeerInfo};
use known::{Known, Source};

/// Dials at once: enough for a start with many dead peers, few enough for a small machine.
pub(super) const DIALS_MAX: usize = 16;
/// Peers found on the local network are dialled only below this number of connections.
pub(super) const DISCOVERED_CONNECTIONS_MAX: usize = 64;
/// Peers of which addresses are remembered, beside those that are configured, wanted or blocked.
const KNOWN_MAX: usize = 1024;
/// The first delay.
const DELAY_MIN_MS: i64 = 1_000;
/// The longest delay, before it is spread.
const DELAY_MAX_MS: i64 = 300_000;
/// A connection that held for so long was a good one.
const UPTIME_MS: i64 = 60_000;
/// Failures after which the delay no longer grows.
const FAILURES_MAX: u32 = 16;

/// What a dial is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Target {
    /// A peer.
    Peer(HostKey),
    /// A configured address whose peer is not known yet, by its place in the configuration.
    Seed(usize),
}

/// A dial to make. [`Dialler::handle_reached`] or [`Dialler::handle_failed`] ends it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Dial {
    pub(super) target: Target,
    pub(super) addresses: Vec<Multiaddr>,
}

/// Why a dial failed.
#[derive(Debug, Clone, Default)]
pub(super) struct Failure {
    /// In words.
    pub(super) error: String,
    /// The addresses that did not answer.
    pub(super) addresses: Vec<Multiaddr>,
    /// The address at which another peer answered.
    pub(super) stranger_at: Option<Multiaddr>,
}

/// A configured address without a peer.
#[derive(Debug)]
struct Seed {
    address: Multiaddr,
    /// Who answered there.
    found: Option<HostKey>,
    is_dialling: bool,
    failures: u32,
    next: Millis,
}

/// Everything known about peers and when they are dialled.
#[derive(Debug)]
pub(super) struct Dialler {
    peers: BTreeMap<HostKey, Known>,
    seeds: Vec<Seed>,
    wanted: BTreeSet<HostKey>,
    random: StdRng,
}

impl Dialler {
    /// A dialler of the configured peers. `seed` is where its randomness starts.
    pub(super) fn new(configured: Vec<(Multiaddr, Option<HostKey>)>, seed: u64) -> Self {
        let mut new = Self {
            peers: BTreeMap::new(),
            seeds: Vec::new(),
            wanted: BTreeSet::new(),
            random: StdRng::seed_from_u64(seed),
        };
        for (address, peer) in configured {
            match peer {
                Some(peer) => new.known(peer).add(address, Source::Configured),
                None => new.seeds.push(Seed { address, found: None, is_dialling: false, failures: 0, next: Millis(0) }),
            }
        }
        new
    }

    /// What to dial now.
    pub(super) fn poll(&mut self, now: Millis) -> Vec<Dial> {
        let mut due: Vec<(Millis, Target)> = self.candidates().filter(|(next, _)| is_due(*next, now)).collect();
        due.sort_unstable();
        due.truncate(DIALS_MAX.saturating_sub(self.dialling()));
        due.into_iter().map(|(_, target)| self.dial(target)).collect()
    }

    /// When [`Self::poll`] has something next, if nothing else happens.
    pub(super) fn poll_timeout(&self) -> Option<Millis> {
        if self.dialling() >= DIALS_MAX {
            return None;
        }
        self.candidates().map(|(next, _)| next).min()
    }

    /// A dial was answered by this peer.
    pub(super) fn handle_reached(&mut self, target: Target, peer: HostKey, address: Multiaddr) {
        let source = match target {
            Target::Peer(peer) => {
                self.known(peer).is_dialling = false;
                Source::Learnt
            }
            Target::Seed(at) => {
                let seed = &mut self.seeds[at];
                (seed.found, seed.is_dialling) = (Some(peer), false);
                Source::Configured
            }
        };
        let known = self.known(peer);
        known.add(address.clone(), source);
        known.answered(&address);
    }

    /// A dial failed.
    pub(super) fn handle_failed(&mut self, now: Millis, target: Target, failure: Failure) {
        match target {
            Target::Peer(peer) => {
                let known = self.known(peer);
                known.is_dialling = false;
                known.is_once = false;
                known.failed(&failure.addresses);
                known.last_error = Some(failure.error);
                self.delay_peer(now, peer);
                if let Some(address) = failure.stranger_at {
                    self.handle_stranger(now, peer, &address);
                }
            }
            Target::Seed(at) => {
                let failures = (self.seeds[at].failures + 1).min(FAILURES_MAX);
                let next = self.after(now, failures);
                let seed = &mut self.seeds[at];
                (seed.is_dialling, seed.failures, seed.next) = (false, failures, next);
            }
        }
    }

    /// A peer is connected, whoever dialled.
    pub(super) fn handle_connected(&mut self, now: Millis, peer: HostKey) {
        let known = self.known(peer);
        known.connected.get_or_insert(now);
        known.is_once = false;
        known.last_error = None;
    }

    /// The last connection to a peer is gone.
    pub(super) fn handle_disconnected(&mut self, now: Millis, peer: HostKey) {
        let known = self.known(peer);
        let Some(since) = known.connected.take() else { return };
        if now.0.saturating_sub(since.0) >= UPTIME_MS {
            known.failures = 0;
        }
        if known.is_once {
            known.next = now;
        } else {
            self.delay_peer(now, peer);
        }
        self.forget();
    }

    /// A peer may be reached at these addresses. Found on the local network, it is dialled although nobody asked.
    pub(super) fn handle_learnt(&mut self, now: Millis, peer: HostKey, addresses: Vec<Multiaddr>, found: Found) {
        let known = self.known(peer);
        match found {
            Found::Told => known.is_foreign = false,
            Found::Discovered if known.is_foreign => return,
            Found::Discovered => known.is_discovered = true,
        }
        for address in addresses {
            if !known.has(&address) {
                known.add(address, Source::Learnt);
                known.next = now;
            }
        }
        self.forget();
    }

    /// A peer is no longer on the local network.
    pub(super) fn handle_undiscovered(&mut self, peer: HostKey) {
        if let Some(known) = self.peers.get_mut(&peer) {
            known.is_discovered = false;
        }
    }

    /// A peer is not a node like this one. Only one that is configured is tried again, and that rarely.
    pub(super) fn handle_foreign(&mut self, peer: HostKey, error: String) {
        let known = self.known(peer);
        known.turn_foreign();
        known.failures = FAILURES_MAX;
        known.last_error = Some(error);
    }

    /// These peers are dialled when an address is known.
    pub(super) fn set_wanted(&mut self, peers: BTreeSet<HostKey>) {
        self.wanted = peers;
    }

    /// Cuts a peer off, or takes it back and dials it at once.
    pub(super) fn set_blocked(&mut self, now: Millis, peer: HostKey, is_blocked: Blocked) {
        let known = self.known(peer);
        known.is_blocked = is_blocked == Blocked::Yes;
        if is_blocked == Blocked::No {
            known.failures = 0;
            self.redial(now, peer);
        }
    }

    /// Dials a peer once and at once, whether or not it is wanted, as soon as it is not connected.
    pub(super) fn redial(&mut self, now: Millis, peer: HostKey) {
        let known = self.known(peer);
        known.is_once = known.has_addresses();
        known.next = now;
    }

    /// Whether this peer is configured or wanted.
    pub(super) fn is_expected(&self, peer: &HostKey) -> bool {
        self.wanted.contains(peer) || self.peers.get(peer).is_some_and(Known::is_configured)
    }

    /// Whether the operator cut this peer off.
    pub(super) fn is_blocked(&self, peer: &HostKey) -> bool {
        self.peers.get(peer).is_some_and(|known| known.is_blocked)
    }

    /// All peers as the operator sees them.
    pub(super) fn infos(&self) -> Vec<PeerInfo> {
        let is_room = self.has_room_for_discovered();
        let info = |(peer, known): (&HostKey, &Known)| PeerInfo {
            peer: *peer,
            connected: known.connected,
            addresses: known.addresses().map(ToString::to_string).collect(),
            is_blocked: known.is_blocked,
            is_configured: known.is_configured(),
            next_dial: self.may_dial(peer, known, is_room).then_some(known.next),
            last_error: known.last_error.clone(),
        };
        self.peers.iter().map(info).collect()
    }

    fn candidates(&self) -> impl Iterator<Item = (Millis, Target)> {
        let is_room = self.has_room_for_discovered();
        let seeds = self.seeds.iter().enumerate();
        let seeds = seeds.filter(|(_, seed)| seed.found.is_none() && !seed.is_dialling);
        let peers = self.peers.iter().filter(move |(peer, known)| self.may_dial(peer, known, is_room));
        seeds
            .map(|(at, seed)| (seed.next, Target::Seed(at)))
            .chain(peers.map(|(peer, known)| (known.next, Target::Peer(*peer))))
    }

    fn may_dial(&self, peer: &HostKey, known: &Known, is_room: bool) -> bool {
        let is_asked_for =
            known.is_configured() || known.is_once || self.wanted.contains(peer) || (known.is_discovered && is_room);
        is_asked_for && known.can_be_dialled()
    }

    fn has_room_for_discovered(&self) -> bool {
        let connected = self.peers.values().filter(|known| known.connected.is_some()).count();
        connected < DISCOVERED_CONNECTIONS_MAX
    }

    fn dialling(&self) -> usize {
        let peers = self.peers.values().filter(|known| known.is_dialling).count();
        peers + self.seeds.iter().filter(|seed| seed.is_dialling).count()
    }

    fn dial(&mut self, target: Target) -> Dial {
        let addresses = match target {
            Target::Peer(peer) => {
                let known = self.known(peer);
                known.is_dialling = true;
                known.addresses().cloned().collect()
            }
            Target::Seed(at) => {
                self.seeds[at].is_dialling = true;
                vec![self.seeds[at].address.clone()]
            }
        };
        Dial { target, addresses }
    }

    /// Another peer answers at an address of this one. If that was only configured as an address, it is a seed again.
    fn handle_stranger(&mut self, now: Millis, peer: HostKey, address: &Multiaddr) {
        for at in 0..self.seeds.len() {
            if self.seeds[at].found != Some(peer) || self.seeds[at].address != *address {
                continue;
            }
            let next = self.after(now, 1);
            let seed = &mut self.seeds[at];
            (seed.found, seed.failures, seed.next) = (None, 1, next);
            self.known(peer).remove(address);
        }
    }

    fn delay_peer(&mut self, now: Millis, peer: HostKey) {
        let failures = (self.known(peer).failures + 1).min(FAILURES_MAX);
        let next = self.after(now, failures);
        let known = self.known(peer);
        (known.failures, known.next) = (failures, next);
    }

    /// The time after the delay of so many failures, half of it more or less.
    fn after(&mut self, now: Millis, failures: u32) -> Millis {
        let delay_ms = (DELAY_MIN_MS << (failures.clamp(1, FAILURES_MAX) - 1)).min(DELAY_MAX_MS);
        now.plus(self.random.random_range(delay_ms / 2..=delay_ms * 3 / 2))
    }

    fn known(&mut self, peer: HostKey) -> &mut Known {
        self.peers.entry(peer).or_default()
    }

    /// Forgets the peers that are of no use now and were heard of longest ago, down to the number that is kept.
    fn forget(&mut self) {
        while self.peers.len() > KNOWN_MAX {
            let idle = self.peers.iter().filter(|(peer, known)| known.is_idle() && !self.wanted.contains(peer));
            let Some((peer, _)) = idle.min_by_key(|(_, known)| known.next) else { return };
            let peer = *peer;
            self.peers.remove(&peer);
        }
    }
}

/// How a peer's addresses came to be known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// It said so itself, as a node like this one.
    Told,
    /// It was found on the local network.
    Discovered,
}

/// A time further ahead than any delay comes from a clock that was set back since.
fn is_due(next: Millis, now: Millis) -> bool {
    next <= now || next.0.saturating_sub(now.0) > DELAY_MAX_MS * 2
}
