//! The messages of `/kvspace/sync/1` and `/kvspace/push/1`: canonical DAG-CBOR, one request and one answer a stream.

use bytes::Bytes;

use super::have::Have;
use crate::{
    epoch::SignedEpoch,
    id::{Address, EpochId, HostKey, SpaceId},
};

/// A place in the log of the host that answers: opaque to the host that asks, good while their connection lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor(pub u64);

/// What one host asks another.
#[derive(Debug, Clone, PartialEq)]
pub enum Request {
    /// A round of set reconciliation over the spaces that both host.
    Compare(Bytes),
    /// What of this space the asking host lacks, ancestors first.
    Pull {
        /// The space.
        space: SpaceId,
        /// What it has.
        have: Have,
        /// Go on behind this place of the answering host's log.
        after: Option<Cursor>,
        /// Tokens that show the asking host's right, ancestors first: its own host delegation, which is taken into the log, or
        /// a read capability. Empty when it is known as a host.
        shown: Vec<Bytes>,
    },
    /// These epochs, each with up to [`crate::limits::GET_RUN_EPOCHS`] of its own chain before it, oldest first.
    Get {
        /// The space.
        space: SpaceId,
        /// The epochs.
        epochs: Vec<EpochId>,
        /// As in [`Request::Pull`].
        shown: Vec<Bytes>,
    },
    /// Delegations at these addresses, with all they rest on.
    Proofs {
        /// The space.
        space: SpaceId,
        /// The addresses.
        addresses: Vec<Address>,
        /// As in [`Request::Pull`].
        shown: Vec<Bytes>,
    },
    /// What was just committed, space by space.
    Push(Vec<Pushed>),
}

/// New epochs of one space.
#[derive(Debug, Clone, PartialEq)]
pub struct Pushed {
    /// The space.
    pub space: SpaceId,
    /// The epochs, ancestors first.
    pub epochs: Vec<Sent>,
    /// Hosts that this host has sent them to as well.
    pub told: Vec<HostKey>,
}

/// An epoch on its way, with small values beside it.
#[derive(Debug, Clone, PartialEq)]
pub struct Sent {
    /// The epoch.
    pub epoch: SignedEpoch,
    /// Inline values of its events, as far as they are at hand and win; found by their hash.
    pub values: Vec<Bytes>,
}

/// The answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Response {
    /// To [`Request::Compare`].
    Compare(Bytes),
    /// To [`Request::Pull`] and [`Request::Get`].
    Epochs {
        /// The answering host's heads.
        heads: Vec<EpochId>,
        /// Epochs, ancestors first.
        epochs: Vec<Sent>,
        /// Where to go on; `None` when this is all.
        next: Option<Cursor>,
        /// The heads named are not known here: tell the branches.
        tell_branches: bool,
    },
    /// To [`Request::Proofs`]: the tokens' bytes, ancestors first.
    Proofs(Vec<Bytes>),
    /// To [`Request::Push`]: one for each [`Pushed`].
    Push(Vec<Verdict>),
    /// No.
    Refused(Refused),
}

/// What became of one [`Pushed`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// On its way into the log, or held already, or waiting for what is asked for.
    Taken,
    /// Refused.
    Refused(Refused),
}

/// Why a host does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refused {
    /// The space is not here, or the peer may not read it: the two look the same.
    NotFound,
    /// Too much at once; later.
    Busy,
    /// The request makes no sense.
    Malformed,
}
