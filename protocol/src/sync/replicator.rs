//! When to ask whom for what.

use std::{collections::BTreeSet, sync::Arc};

use super::message::{Cursor, Pushed, Sent, Verdict};
use crate::id::{EpochId, HostKey, Millis, SpaceId};

/// The replication of one node: which peers are there, what is compared and pulled when, and what is pushed to whom.
///
/// Inputs are `handle_*`, each with the time; drain `poll_output` after each; `poll_timeout` says when to wake. It holds no
/// epochs but those on their way to a peer, reads nothing, and survives a restart by being made anew: what it would have done
/// is found again by comparing.
pub struct Replicator;

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
    /// Its heads then.
    pub heads: Vec<EpochId>,
    /// When.
    pub at: Millis,
    /// When it was last asked for something, and for what.
    pub asked: Option<(Millis, Ask)>,
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
    /// Epochs it sent that were refused.
    pub refused: u64,
}

impl Replicator {
    /// Nobody is connected. `seed` is drawn at random: it spreads intervals.
    #[must_use]
    pub fn new(_settings: Settings, _seed: u64) -> Self {
        todo!()
    }

    /// A peer is connected: its spaces are compared at once.
    pub fn handle_connected(&mut self, _now: Millis, _peer: HostKey) {
        todo!()
    }

    /// A peer is gone; what was under way with it ends without an outcome.
    pub fn handle_disconnected(&mut self, _now: Millis, _peer: &HostKey) {
        todo!()
    }

    /// A commit is durable.
    pub fn handle_committed(&mut self, _now: Millis, _committed: Committed) {
        todo!()
    }

    /// The end of [`Output::Compare`].
    pub fn handle_compared(&mut self, _now: Millis, _call: Call, _outcome: Compared) {
        todo!()
    }

    /// The end of [`Output::Pull`].
    pub fn handle_pulled(&mut self, _now: Millis, _call: Call, _outcome: Pulled) {
        todo!()
    }

    /// The end of [`Output::Push`]; `None` when no answer came.
    pub fn handle_pushed(&mut self, _now: Millis, _call: Call, _verdicts: Option<Vec<Verdict>>) {
        todo!()
    }

    /// This peer has epochs of this space that are lacking here: it pushed some whose ancestors are missing, or somebody waits
    /// for them.
    pub fn handle_behind(&mut self, _now: Millis, _peer: HostKey, _space: SpaceId) {
        todo!()
    }

    /// The time that `poll_timeout` named has come.
    pub fn handle_timeout(&mut self, _now: Millis) {
        todo!()
    }

    /// What to do next.
    pub fn poll_output(&mut self) -> Option<Output> {
        todo!()
    }

    /// When to call `handle_timeout`.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Millis> {
        todo!()
    }

    /// What was last heard of a space at a peer.
    #[must_use]
    pub fn known(&self, _space: &SpaceId, _peer: &HostKey) -> Option<&Known> {
        todo!()
    }

    /// All peers, for the operator.
    pub fn peers(&self) -> impl Iterator<Item = PeerState> {
        std::iter::empty()
    }
}
