//! When to ask whom for what.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    ops::Bound,
    sync::Arc,
};

use self::{
    known::KnownHeads,
    peer::Peer,
    pull::{Cause, Next, Task},
    random::Random,
};
use super::message::{Cursor, Pushed, Refused, Sent, Verdict};
use crate::{
    id::{EpochId, HostKey, Millis, SpaceId},
    limits::{RENEW_AFTER, RETRY_MS},
};

mod known;
mod peer;
mod pull;
mod random;

/// The replication of one node: which peers are there, what is compared and pulled when, and what is pushed to whom.
///
/// Inputs are `handle_*`, each with the time; drain `poll_output` after each; `poll_timeout` says when to wake. It holds no
/// epochs but those on their way to a peer, reads nothing, and survives a restart by being made anew: what it would have done
/// is found again by comparing. Each request that it gives out has to end: by its outcome, or because the peer is gone.
///
/// Bounds: one comparison and one push a peer, pulls and bytes by [`Settings`], spaces a peer and heads that are remembered
/// by [`crate::limits`]. There are as many peers as connections.
pub struct Replicator {
    settings: Settings,
    random: Random,
    peers: BTreeMap<HostKey, Peer>,
    /// What is under way.
    calls: BTreeMap<Call, Doing>,
    last_call: u64,
    /// Spaces that a peer was asked for just now, by when others may be, too: seldom does anything come twice, and nobody
    /// keeps a space from coming.
    pulling: BTreeMap<SpaceId, (Call, Millis)>,
    /// Whom was asked last, so that all have their turn.
    turn: Option<HostKey>,
    known: KnownHeads,
    /// What the clock showed last.
    now: Millis,
    outputs: VecDeque<Output>,
}

enum Doing {
    Compare(HostKey),
    /// With when it began.
    Pull(HostKey, SpaceId, Millis),
    Push(HostKey, Vec<Pushed>),
}

/// Names one request; its outcome carries it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Call(pub u64);

/// How often and how much.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Shared spaces are compared with each connected peer this often, give or take a quarter.
    pub compare_interval_ms: i64,
    /// Pulls under way with one peer.
    pub pulls_per_peer_max: usize,
    /// Pulls under way.
    pub pulls_max: usize,
    /// Bytes that wait to be pushed to one peer; beyond, what is oldest is left to comparing.
    pub push_bytes_max: usize,
    /// Bytes of one push.
    pub push_batch_bytes: usize,
}

/// A commit that is durable.
#[derive(Debug, Clone)]
pub struct Committed {
    /// The space.
    pub space: SpaceId,
    /// Its new epochs, ancestors first.
    pub epochs: Vec<New>,
    /// The space's hosts at this moment, without this one.
    pub hosts: Vec<HostKey>,
}

/// An epoch that is new here.
#[derive(Debug, Clone)]
pub struct New {
    /// The epoch.
    pub sent: Arc<Sent>,
    /// Hosts that have it already: who brought it, and whom that one told.
    pub told: BTreeSet<HostKey>,
}

/// What to do.
#[derive(Debug)]
pub enum Output {
    /// Compare the spaces shared with a peer, then `handle_compared`.
    Compare(Call, HostKey),
    /// Ask a peer, hand what it sends to the space, then `handle_pulled`.
    Pull(Call, Pull),
    /// Send [`super::Request::Push`], then `handle_pushed`.
    Push(Call, HostKey, Vec<Pushed>),
    /// Close the connection to this peer and dial it again: what should have been pushed keeps being found by comparing.
    Renew(HostKey),
}

/// One request for what is lacking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pull {
    /// Whom to ask.
    pub peer: HostKey,
    /// For which space.
    pub space: SpaceId,
    /// What to ask.
    pub ask: Ask,
}

/// What is asked in a pull.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// What is lacking by the heads that are here.
    ByHeads(Option<Cursor>),
    /// What is lacking by the last epochs of so many branches.
    ByBranches(usize, Option<Cursor>),
    /// These epochs.
    Epochs(Vec<EpochId>),
}

/// [`Ask`] in short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// What is lacking by the heads that are here.
    ByHeads,
    /// What is lacking by branches.
    ByBranches,
    /// So many epochs.
    Epochs(usize),
}

/// The outcome of comparing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Compared {
    /// These spaces differ.
    Differ(Vec<SpaceId>),
    /// The peer did not answer, or with nonsense.
    Failed,
}

/// The outcome of a pull.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pulled {
    /// The peer answered, and what it sent is durable, waits, or was refused.
    Answered {
        /// The peer's heads.
        heads: Vec<EpochId>,
        /// Of those, the ones that are not held here now.
        unknown: Vec<EpochId>,
        /// How many new epochs came into the log.
        taken: usize,
        /// How many of those that came were held already.
        held: usize,
        /// How many were no epochs of this space, or broken.
        refused: usize,
        /// Ancestors that waiting epochs lack.
        missing: Vec<EpochId>,
        /// Where the peer goes on.
        next: Option<Cursor>,
        /// The peer does not know our heads.
        tell_branches: bool,
    },
    /// The peer does not let us read it, or does not have it.
    NotFound,
    /// The peer is busy, here there is no room, or the answer did not come.
    Later,
}

/// What was last heard of a space at a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// Its heads then, and what was pushed to it since.
    pub heads: Vec<EpochId>,
    /// When.
    pub at: Millis,
    /// When it was last asked for something, and for what.
    pub asked: Option<(Millis, Asked)>,
    /// What was pushed to it since did not arrive.
    pub missed: bool,
}

/// What an operator sees of a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerState {
    /// The peer.
    pub peer: HostKey,
    /// Since when it is connected.
    pub connected: Option<Millis>,
    /// When spaces were last compared to the end.
    pub compared: Option<Millis>,
    /// Spaces that are known to differ, so that something is still to be pulled.
    pub behind: usize,
    /// Epochs that wait to be pushed.
    pub to_push: usize,
    /// Bytes of them.
    pub to_push_bytes: usize,
    /// Epochs that were to be pushed and were left to comparing, because too many waited.
    pub dropped: u64,
    /// Epochs it sent that were refused.
    pub refused: u64,
    /// Pulls after which it still named heads that it did not give, or that wait for the clock.
    pub withheld: u64,
}

impl Replicator {
    /// Nobody is connected. `seed` is drawn at random: it spreads intervals.
    #[must_use]
    pub fn new(settings: Settings, seed: u64) -> Self {
        Self {
            settings,
            random: Random::new(seed),
            peers: BTreeMap::new(),
            calls: BTreeMap::new(),
            last_call: 0,
            pulling: BTreeMap::new(),
            turn: None,
            known: KnownHeads::default(),
            now: Millis(i64::MIN),
            outputs: VecDeque::new(),
        }
    }

    /// A peer is connected: its spaces are compared at once.
    pub fn handle_connected(&mut self, now: Millis, peer: HostKey) {
        self.read_clock(now);
        self.peers.entry(peer).or_insert_with(|| Peer::new(now));
        self.go_on(now);
    }

    /// A peer is gone; what was under way with it ends without an outcome.
    pub fn handle_disconnected(&mut self, now: Millis, peer: &HostKey) {
        self.read_clock(now);
        self.peers.remove(peer);
        self.calls.retain(|_, doing| doing.peer() != peer);
        self.pulling.retain(|_, (call, _)| self.calls.contains_key(call));
        self.go_on(now);
    }

    /// A commit is durable.
    pub fn handle_committed(&mut self, now: Millis, committed: Committed) {
        self.read_clock(now);
        let Committed { space, epochs, hosts } = committed;
        // A host that is none any more gets nothing, not even what was committed before.
        for (_, peer) in self.peers.iter_mut().filter(|(key, _)| !hosts.contains(key)) {
            peer.pushes.forget(&space);
        }
        for New { sent, mut told } in epochs {
            let connected = hosts.iter().filter(|host| self.peers.contains_key(*host));
            let targets: Vec<HostKey> = connected.filter(|host| !told.contains(*host)).copied().collect();
            told.extend(&targets);
            let told: Arc<BTreeSet<HostKey>> = Arc::new(told);
            for target in targets {
                let Some(peer) = self.peers.get_mut(&target) else { continue };
                peer.pushes.add(space.clone(), sent.clone(), told.clone(), self.settings.push_bytes_max);
            }
        }
        self.go_on(now);
    }

    /// The end of [`Output::Compare`].
    pub fn handle_compared(&mut self, now: Millis, call: Call, outcome: Compared) {
        self.read_clock(now);
        let Some(Doing::Compare(key)) = self.calls.remove(&call) else { return };
        let Some(peer) = self.peers.get_mut(&key) else { return };
        peer.comparing = None;
        match outcome {
            Compared::Differ(spaces) => {
                let cause = if peer.compared.is_some() { Cause::Interval } else { Cause::Connected };
                peer.begin_comparison(now, cause);
                peer.pulls.keep_rests_of(&spaces);
                spaces.into_iter().for_each(|space| peer.pulls.want(now, space, cause));
                let interval_ms = self.settings.compare_interval_ms;
                peer.compare_at = now.plus(interval_ms / 4 * 3 + self.random.below(interval_ms / 2));
            }
            Compared::Failed => {
                peer.failed += 1;
                let delay_ms = self.random.backoff(peer.failed, self.settings.compare_interval_ms);
                peer.compare_at = now.plus(delay_ms);
            }
        }
        self.go_on(now);
    }

    /// The end of [`Output::Pull`].
    pub fn handle_pulled(&mut self, now: Millis, call: Call, outcome: Pulled) {
        self.read_clock(now);
        let Some(Doing::Pull(key, space, began)) = self.calls.remove(&call) else { return };
        self.pulling.retain(|_, (last, _)| *last != call);
        let Some(peer) = self.peers.get_mut(&key) else { return };
        let interval_ms = self.settings.compare_interval_ms;
        match outcome {
            Pulled::Answered { heads, unknown, taken, held, refused, missing, next, tell_branches } => {
                peer.refused += refused as u64;
                self.known.tell(now, &space, &key, heads);
                let Some(task) = peer.pulls.answered(&space) else { return };
                let is_late = taken > 0 && task.cause == Cause::Interval;
                let answer = pull::Answer { unknown, taken, held, missing, next, tell_branches };
                match task.step(answer, &mut self.random) {
                    Next::Ask => {
                        let took_ms = now.0.saturating_sub(began.0);
                        let rest_ms = task.rest_ms(took_ms).min(interval_ms);
                        peer.pulls.go_on(now, space, rest_ms);
                    }
                    Next::End { withheld } => {
                        peer.withheld += u64::from(withheld);
                        peer.pulls.end(now, space, interval_ms);
                    }
                }
                if is_late && peer.note_late(RENEW_AFTER) {
                    self.outputs.push_back(Output::Renew(key));
                }
            }
            Pulled::NotFound => peer.pulls.not_found(now, space, interval_ms, &mut self.random),
            Pulled::Later => peer.pulls.later(now, space, interval_ms, &mut self.random),
        }
        self.go_on(now);
    }

    /// The end of [`Output::Push`]; `None` when no answer came.
    pub fn handle_pushed(&mut self, now: Millis, call: Call, verdicts: Option<Vec<Verdict>>) {
        self.read_clock(now);
        let Some(Doing::Push(key, pushed)) = self.calls.remove(&call) else { return };
        let (mut verdicts, mut unknown) = (verdicts.unwrap_or_default().into_iter(), Vec::new());
        for pushed in pushed {
            let verdict = verdicts.next();
            if verdict == Some(Verdict::Taken) {
                self.known.pushed(now, &pushed.space, &key, &pushed.epochs);
                continue;
            }
            self.known.missed(&pushed.space, &key);
            if verdict == Some(Verdict::Refused(Refused::NotFound)) {
                unknown.push(pushed.space);
            }
        }
        if let Some(peer) = self.peers.get_mut(&key) {
            peer.pushing = None;
            // It has not heard that it is a host, or that this one is: in a pull the delegations are shown.
            unknown.into_iter().for_each(|space| peer.pulls.want(now, space, Cause::Behind));
        }
        self.go_on(now);
    }

    /// This peer has epochs of this space that are lacking here: it pushed some whose ancestors are missing, or somebody waits
    /// for them.
    pub fn handle_behind(&mut self, now: Millis, peer: HostKey, space: SpaceId) {
        self.read_clock(now);
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.pulls.want(now, space, Cause::Behind);
        }
        self.go_on(now);
    }

    /// A comparison has found that a peer has these heads of a space, as this host does.
    pub fn handle_equal(&mut self, now: Millis, peer: &HostKey, space: &SpaceId, heads: Vec<EpochId>) {
        self.known.tell(now, space, peer, heads);
    }

    /// A peer has pushed these: it has them, whether they could be taken at once or wait.
    pub fn handle_brought(&mut self, now: Millis, peer: &HostKey, space: &SpaceId, epochs: &[Sent]) {
        self.known.pushed(now, space, peer, epochs);
    }

    /// A push of this peer was taken: what it pushes comes through.
    pub fn handle_heard(&mut self, peer: &HostKey) {
        if let Some(peer) = self.peers.get_mut(peer) {
            peer.late = 0;
        }
    }

    /// The time that `poll_timeout` named has come.
    pub fn handle_timeout(&mut self, now: Millis) {
        self.read_clock(now);
        self.go_on(now);
    }

    /// What to do next.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When to call `handle_timeout`.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Millis> {
        let free = self.pulling.values().map(|(_, until)| *until);
        self.peers.values().filter_map(Peer::next_time).chain(free).min()
    }

    /// What was last heard of a space at a peer.
    #[must_use]
    pub fn known(&self, space: &SpaceId, peer: &HostKey) -> Option<&Known> {
        self.known.get(space, peer)
    }

    /// All peers, for the operator.
    pub fn peers(&self) -> impl Iterator<Item = PeerState> {
        self.peers.iter().map(|(key, peer)| peer.state(*key))
    }

    /// Where the clock was set back, what is to come is as far off as before.
    fn read_clock(&mut self, now: Millis) {
        let back_ms = self.now.0.saturating_sub(now.0);
        self.now = now;
        if back_ms > 0 {
            self.peers.values_mut().for_each(|peer| peer.set_back(back_ms));
            self.pulling.values_mut().for_each(|(_, until)| *until = until.plus(-back_ms));
            self.calls.values_mut().for_each(|doing| doing.set_back(back_ms));
        }
    }

    /// Starts what may start now.
    fn go_on(&mut self, now: Millis) {
        let keys: Vec<HostKey> = self.peers.keys().copied().collect();
        for key in keys {
            self.compare(now, key);
            self.push(key);
            // Also while no further pull may begin: what is due is no reason to wake again.
            if let Some(peer) = self.peers.get_mut(&key) {
                peer.pulls.end_rests(now);
            }
        }
        self.pulling.retain(|_, (_, until)| *until > now);
        let mut under_way: usize = self.peers.values().map(|peer| peer.pulls.under_way()).sum();
        while under_way < self.settings.pulls_max {
            let Some((key, space, task)) = self.next_pull() else { break };
            under_way += 1;
            let call = self.call(Doing::Pull(key, space.clone(), now));
            self.pulling.insert(space.clone(), (call, now.plus(RETRY_MS)));
            self.known.asked(now, &space, &key, &task.ask);
            self.turn = Some(key);
            self.outputs.push_back(Output::Pull(call, Pull { peer: key, space, ask: task.ask }));
        }
    }

    fn compare(&mut self, now: Millis, key: HostKey) {
        let due = |peer: &Peer| peer.comparing.is_none() && peer.compare_at <= now;
        if self.peers.get(&key).is_some_and(due) {
            let call = self.call(Doing::Compare(key));
            if let Some(peer) = self.peers.get_mut(&key) {
                peer.comparing = Some(call);
            }
            self.outputs.push_back(Output::Compare(call, key));
        }
    }

    fn push(&mut self, key: HostKey) {
        let Some(peer) = self.peers.get_mut(&key).filter(|peer| peer.pushing.is_none()) else { return };
        let batch = peer.pushes.next_batch(self.settings.push_batch_bytes);
        if batch.is_empty() {
            return;
        }
        let call = self.call(Doing::Push(key, batch.clone()));
        if let Some(peer) = self.peers.get_mut(&key) {
            peer.pushing = Some(call);
        }
        self.outputs.push_back(Output::Push(call, key, batch));
    }

    /// The next pull: of the next peer in turn, the space that has waited longest.
    fn next_pull(&mut self) -> Option<(HostKey, SpaceId, Task)> {
        let after = self.turn.map_or(Bound::Unbounded, Bound::Excluded);
        let behind = self.peers.range((after, Bound::Unbounded)).map(|(key, _)| *key);
        let keys: Vec<HostKey> = behind.chain(self.peers.keys().copied()).take(self.peers.len()).collect();
        keys.into_iter().find_map(|key| {
            let peer = self.peers.get_mut(&key)?;
            let (space, task) = peer.pulls.next(&self.pulling, self.settings.pulls_per_peer_max)?;
            Some((key, space, task))
        })
    }

    fn call(&mut self, doing: Doing) -> Call {
        self.last_call += 1;
        let call = Call(self.last_call);
        self.calls.insert(call, doing);
        call
    }
}

impl Doing {
    fn peer(&self) -> &HostKey {
        match self {
            Self::Compare(peer) | Self::Pull(peer, ..) | Self::Push(peer, _) => peer,
        }
    }

    fn set_back(&mut self, back_ms: i64) {
        match self {
            Self::Pull(_, _, began) => *began = began.plus(-back_ms),
            Self::Compare(_) | Self::Push(..) => {}
        }
    }
}

#[cfg(test)]
mod tests;
