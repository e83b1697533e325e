//! What is told of a space's other hosts, and of why a key reads as it does here.

use std::time::Duration;

use kvspace_protocol::{
    id::{Address, BlobHash, Did, EpochId, Key, Millis},
    kv::{Integrity, Version},
};

/// Another host of a space, as far as it is known here.
#[derive(Debug, Clone)]
pub struct Replica {
    /// The host.
    pub host: Did,
    /// The delegation that names it, of several the one that lasts longest; `None` for the owner's own key.
    pub delegation: Option<Address>,
    /// When that ends; `None`: it does not.
    pub until: Option<Millis>,
    /// Whether the owner has taken it away.
    pub is_revoked: bool,
    /// Whether it is this node.
    pub is_here: bool,
    /// Whether it is connected.
    pub is_connected: bool,
    /// Its heads, when they were last heard, and when that was.
    pub heard: Option<(Vec<EpochId>, Millis)>,
    /// Heads of its that are not held here.
    pub missing: Vec<EpochId>,
    /// Whether it had everything that is held here, when it was last heard.
    pub has_all: bool,
    /// When it was last asked for something, and for what.
    pub asked: Option<(Millis, String)>,
}

/// Why a key reads as it does here.
#[derive(Debug, Clone)]
pub struct Explanation {
    /// What the key holds, and every other operation on it, newest first, at most [`OPERATIONS_MAX`].
    pub operations: Vec<ExplainedOperation>,
    /// Whether there are more.
    pub has_more: bool,
    /// The frontier here.
    pub frontier: Vec<EpochId>,
    /// The space's hosts.
    pub replicas: Vec<Replica>,
    /// Ancestors that waiting epochs lack.
    pub missing: Vec<EpochId>,
    /// Epochs that are not yet, and why.
    pub waiting: Vec<WaitingEpoch>,
    /// Epochs that were refused, and why, newest first; bounded.
    pub refused: Vec<RefusedEpoch>,
    /// Chains of which two epochs have the same number.
    pub forks: Vec<(Did, u64)>,
}

/// Operations of one explanation.
pub const OPERATIONS_MAX: usize = 100;

/// Epochs that one request waits for.
pub const WAIT_EPOCHS_MAX: usize = 16;
/// How long it waits at most.
pub const WAIT_MAX: Duration = Duration::from_secs(60);

/// One operation on a key.
#[derive(Debug, Clone)]
pub struct ExplainedOperation {
    /// Its version; the epoch in it holds it.
    pub version: Version,
    /// The host that took it in.
    pub host: Did,
    /// Who signed the token; `None` if the epoch cannot be read.
    pub signer: Option<Did>,
    /// Who vouches for the value.
    pub integrity: Integrity,
    /// Hash and size of the value of a put.
    pub value: Option<(BlobHash, u64)>,
    /// Whether the value's bytes are here.
    pub bytes: Bytes,
    /// What it is worth.
    pub standing: Standing,
}

/// Where the bytes of a value are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bytes {
    /// There are none: a delete.
    None,
    /// Here.
    Here,
    /// On their way: whom they were asked of, and when.
    Pending(Vec<(Did, Millis)>),
    /// Freed, or never fetched because another operation won.
    NotHere,
}

/// What an operation is worth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// It is what the key holds.
    Wins,
    /// Another one has a greater version.
    Superseded,
    /// The same token did it before.
    Repeated,
    /// A revocation took its effect away: of this delegation, by this revocation, under this rule of the design.
    Void {
        /// The revoked delegation.
        delegation: String,
        /// The revocation.
        revocation: String,
        /// The rule, in words.
        rule: &'static str,
    },
    /// Unsound for ever, and why, in words.
    Dead(String),
}

/// An epoch that is not yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitingEpoch {
    /// The epoch.
    pub epoch: EpochId,
    /// The host that made it.
    pub host: Did,
    /// Ancestors it lacks.
    pub lacks: Vec<EpochId>,
    /// Its clock, if that is ahead of ours.
    pub ahead: Option<Millis>,
}

/// An epoch that was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedEpoch {
    /// The epoch.
    pub epoch: EpochId,
    /// Who sent it.
    pub from: Option<Did>,
    /// When.
    pub at: Millis,
    /// Why.
    pub reason: String,
}

/// A write that a revocation would void.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Voided {
    /// The key.
    pub key: Key,
    /// The write.
    pub version: Version,
    /// Whether it is what the key holds.
    pub wins: bool,
}

/// A peer as the operator sees it.
#[derive(Debug, Clone)]
pub struct PeerStatus {
    /// The peer.
    pub peer: Did,
    /// Since when it is connected.
    pub connected: Option<Millis>,
    /// Where it is, as far as known.
    pub addresses: Vec<String>,
    /// Whether the operator cut it off.
    pub is_blocked: bool,
    /// When it is dialled next, if it is not connected.
    pub next_dial: Option<Millis>,
    /// What went wrong last.
    pub last_error: Option<String>,
    /// When spaces were last compared to the end.
    pub compared: Option<Millis>,
    /// Spaces known to differ.
    pub behind: usize,
    /// Epochs that wait to be pushed, and their bytes.
    pub to_push: (usize, usize),
    /// Epochs it sent that were refused.
    pub refused: u64,
}

/// Figures for `/metrics`.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    /// Epochs taken in from peers.
    pub epochs_taken: u64,
    /// Epochs refused, by reason.
    pub epochs_refused: Vec<(String, u64)>,
    /// Requests answered to peers, by kind and outcome.
    pub answered: Vec<(String, String, u64)>,
    /// Values fetched from peers, and their bytes.
    pub blobs_fetched: (u64, u64),
    /// Values that are wanted.
    pub blobs_wanted: u64,
    /// Ranges that were not what they should be.
    pub blobs_bad: u64,
    /// Epochs that wait for an ancestor or the clock, in the spaces in memory.
    pub epochs_waiting: u64,
}
