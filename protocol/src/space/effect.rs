//! What goes into the state machine and what comes out of it, as values.

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;

use super::{judge::CheckedEpoch, view::EpochAt};
use crate::{
    authority::{AccessChange, Denied, Proof},
    dag::{Branch, Inserted, Place},
    epoch::SignedEpoch,
    id::{Address, BlobHash, EpochId, HostKey, Incarnation, Key},
    kv::{Condition, Meta, Operation, Version},
};

/// Names one call to the state machine; the reply carries it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct CallId(pub u64);

/// An invocation that writes: one put or delete.
#[derive(Debug, Clone)]
pub struct Write {
    /// The invocation.
    pub token: Proof,
    /// The generation of authority at which it was found to be allowed.
    pub authorized_at: u64,
    /// What it rests on and the space's log does not hold, ancestors first.
    pub borrowed: Vec<Proof>,
    /// The value of a put.
    pub value: Option<NewValue>,
    /// What it demands of the key's present state.
    pub condition: Condition,
}

/// A value that a client sent.
#[derive(Debug, Clone)]
pub struct NewValue {
    /// Its hash.
    pub blob: BlobHash,
    /// Its size in bytes.
    pub size: u64,
    /// The headers to store.
    pub meta: Meta,
    /// The bytes when they go into the log; `None` when they are durable in a file already.
    pub inline: Option<Bytes>,
}

/// An epoch that a peer brought.
#[derive(Debug, Clone)]
pub struct Arrived {
    /// The epoch.
    pub checked: CheckedEpoch,
    /// Inline values that came with it, found by their hash.
    pub values: Vec<Bytes>,
    /// Hosts that are known to have it: who brought it, and whom that one told.
    pub told: BTreeSet<HostKey>,
}

/// What became of epochs that were brought together; all that was taken is durable.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Taken {
    /// How many are new in the log, those that had waited for them included.
    pub taken: usize,
    /// How many were held already.
    pub held: usize,
    /// Those that are no epochs of this space, for ever, and why.
    pub refused: Vec<(EpochId, Invalid)>,
    /// How many arrivals gave way because the waiting room was full: to be offered again.
    pub dropped: usize,
    /// Ancestors that the waiting room lacks.
    pub missing: Vec<EpochId>,
    /// How many are waiting now, in the whole space.
    pub waiting: usize,
}

/// What the outer world has to do, in this order.
#[derive(Debug)]
pub enum Output {
    /// Make these durable, then call `handle_committed`. One is outstanding at a time.
    Commit(Commit),
    /// Publish a step of authority; it is durable.
    Access(AccessChange),
    /// Answer a call.
    Reply(CallId, Result<Reply, Refusal>),
    /// Answer a delivery of epochs.
    Taken(CallId, Taken),
    /// An epoch from outside was refused for ever.
    Refused(EpochId, Invalid),
}

/// What becomes durable at once.
#[derive(Debug, Default)]
pub struct Commit {
    /// The epochs, ancestors first.
    pub epochs: Vec<Logged>,
    /// What the index has to learn once the epochs are durable; absolute values, in order.
    pub changes: Arc<Vec<Change>>,
}

impl Commit {
    pub(super) fn change(&mut self, changes: Vec<Change>) {
        Arc::make_mut(&mut self.changes).extend(changes);
    }

    /// The bytes of the epochs and the values beside them.
    pub(super) fn bytes(&self) -> usize {
        self.epochs.iter().map(Logged::bytes).sum()
    }
}

impl Logged {
    fn bytes(&self) -> usize {
        let values = self.values.iter().map(|(_, bytes)| bytes.len());
        self.signed.header.len() + self.signed.body.len() + values.sum::<usize>()
    }
}

/// An epoch that becomes durable.
#[derive(Debug, Clone)]
pub struct Logged {
    /// The epoch.
    pub signed: SignedEpoch,
    /// The inline values at hand of what its operations put.
    pub values: Vec<(BlobHash, Bytes)>,
    /// Hosts that are known to have it.
    pub told: BTreeSet<HostKey>,
}

/// One step for the index; absolute, so that taking it in twice is the same as once.
#[derive(Debug, Clone)]
pub enum Change {
    /// An epoch is held.
    Epoch(NewEpoch),
    /// A delegation's bytes stand in an epoch.
    Delegation {
        /// The delegation.
        address: Address,
        /// The epoch's place.
        place: Place,
        /// The event's index in the epoch.
        event: u16,
        /// The host of this space that it names, if it names one.
        hosts: Option<HostKey>,
    },
    /// An operation that is not dead.
    Operation(Operation),
    /// A write that is dead: unsound for ever. Kept for whoever asks why it does not show.
    Dead {
        /// The key.
        key: Key,
        /// The version it would have had.
        version: Version,
        /// Where its epoch stands.
        place: Place,
        /// Why.
        reason: DeadReason,
    },
    /// Who wins a key now, `None` when nothing counts any more.
    Winner {
        /// The key.
        key: Key,
        /// The winning operation.
        winner: Option<Operation>,
    },
}

impl Change {
    /// The value that an operation puts.
    pub(super) fn value(&self) -> Option<BlobHash> {
        match self {
            Self::Operation(operation) => operation.effect.value().map(|value| value.blob),
            Self::Epoch(_) | Self::Delegation { .. } | Self::Dead { .. } | Self::Winner { .. } => None,
        }
    }
}

/// What an index keeps of an epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEpoch {
    /// Its id.
    pub id: EpochId,
    /// Its clock.
    pub seq: u64,
    /// Its place, and what it changes in the DAG.
    pub inserted: Inserted,
    /// Its host.
    pub host: HostKey,
    /// Its host's incarnation.
    pub incarnation: Incarnation,
    /// Whether a revocation in it has to be taken in again when the space is opened.
    pub revokes: bool,
}

impl NewEpoch {
    /// Where it stands, and its clock.
    #[must_use]
    pub fn at(&self) -> EpochAt {
        EpochAt { place: self.inserted.place, seq: self.seq }
    }

    /// The branch that begins with it, before it learns anything.
    #[must_use]
    pub fn begins(&self) -> Branch {
        let Inserted { place, base, .. } = self.inserted;
        Branch::begin(self.host, self.incarnation, (self.id, place.n, self.seq), base)
    }

    /// Makes it the last epoch of its branch.
    pub fn extends(&self, branch: &mut Branch) {
        branch.extend(self.id, self.seq, &self.inserted);
    }
}

/// The good end of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// A write is durable.
    Written(Written),
    /// The log took the token in with this epoch.
    Taken(EpochId),
    /// The log held it already.
    Held,
}

/// What a write did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Its version; the epoch in it is the write's frontier token.
    pub version: Version,
    /// The value written by a put.
    pub blob: Option<BlobHash>,
    /// The live value that a delete removed.
    pub removed: Option<BlobHash>,
}

/// Why an event is unsound: the rules are numbers 5 to 7 of the design's section "The epoch".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DeadReason {
    /// Its token's signature does not hold.
    Signature,
    /// A proof it rests on is missing, or does not cover it (rule 5).
    Authority,
    /// It was not in force when the epoch was made (rule 6).
    Time,
    /// What its `after` names does not lie in the epoch's Past (rule 7).
    After,
    /// It signs other values than stand beside it (rule 7).
    Content,
}

/// Why a call was refused; nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No authority.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// The token is not in force any more, or not yet.
    #[error("Invocation expired or not yet valid")]
    Expired,
    /// The token was used before, for something else.
    #[error("duplicate invocation")]
    Duplicate,
    /// The key's present state is not what the write demands.
    #[error("KV precondition failed")]
    Precondition,
    /// A delete of a key that was never written.
    #[error("No Such Key: {0}")]
    NoSuchKey(Key),
    /// The write signs hash, size and headers of another value.
    #[error("the value is not the one the token signs (kvspace/content)")]
    Content,
    /// The token does not hold exactly one put or delete of this space with a path.
    #[error("the token writes no key of this space")]
    NoKey,
    /// The write knows epochs that this host does not hold yet.
    #[error("this host does not hold {} of the epochs that the token names (kvspace/after)", .0.len())]
    Behind(Vec<EpochId>),
    /// This node may not host the space (any more).
    #[error("this node is not a host of the space")]
    NotHost,
    /// The space has as many delegations as this host takes.
    #[error("the space has as many delegations as this host takes")]
    Full,
    /// The space's clock is more than a minute ahead of this host's.
    #[error("the clock of this host is behind the space's by more than a minute")]
    Clock,
}

/// Why an epoch from outside is no epoch of this space, for ever.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// Of another space.
    #[error("of another space")]
    Space,
    /// A key is longer than the protocol takes.
    #[error("a key beyond the protocol's size")]
    Key,
    /// The owner does not name its host.
    #[error("the host delegation does not hold")]
    Host,
    /// `prev` is not the same chain's epoch before.
    #[error("prev is not the epoch before on the same chain")]
    Prev,
    /// The clock runs backwards.
    #[error("seq is not greater than every parent's")]
    Seq,
}
