//! Keys, their operations and which of these wins.

use std::{collections::BTreeMap, fmt, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{
    id::{Address, BlobHash, EpochId, Identity, Key, Millis},
    limits::ONCE_WINDOW_MS,
};

/// The last-writer-wins order of operations. Nothing else decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// The epoch's hybrid logical clock: milliseconds in the upper 48 bits, a counter below.
    pub seq: u64,
    /// The epoch.
    pub epoch: EpochId,
    /// The operation in the epoch: the event's index in the upper 16 bits, the operation's index in the event below.
    pub number: u32,
}

impl Version {
    /// The version of operation `operation` of event `event`.
    #[must_use]
    pub fn new(seq: u64, epoch: EpochId, event: u16, operation: u16) -> Self {
        Self { seq, epoch, number: u32::from(event) << 16 | u32::from(operation) }
    }

    /// The index of the event in its epoch.
    #[must_use]
    pub fn event(&self) -> u16 {
        u16::try_from(self.number >> 16).expect("16 bits remain")
    }

    /// When the epoch was made, by its host's clock.
    #[must_use]
    pub fn time(&self) -> Millis {
        seq_time(self.seq)
    }
}

/// `t(e)`: the time in a hybrid logical clock.
#[must_use]
pub fn seq_time(seq: u64) -> Millis {
    Millis(i64::try_from(seq >> 16).expect("48 bits fit"))
}

impl fmt::Display for Version {
    /// `<seq>.<number>.<epoch cid>`: sorts like the version only within one seq; for people and equality.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.seq, self.number, self.epoch)
    }
}

/// Headers stored with a value: lower-case names, one value each.
pub type Meta = BTreeMap<String, String>;

/// A value by reference, as it stands in an epoch's body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Value {
    /// The hash of the bytes.
    pub blob: BlobHash,
    /// How many bytes.
    pub size: u64,
    /// The stored headers.
    pub meta: Meta,
}

/// What an operation does to its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Sets the value.
    Put(Arc<Value>),
    /// Removes it: a tombstone.
    Delete,
}

impl Effect {
    /// The value, if this is one.
    #[must_use]
    pub fn value(&self) -> Option<&Arc<Value>> {
        match self {
            Self::Put(value) => Some(value),
            Self::Delete => None,
        }
    }
}

/// Who vouches for a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Integrity {
    /// The writer signed hash, size and headers.
    ClientSigned,
    /// The host that took the write says so.
    HostAttested,
}

impl Integrity {
    /// The word in `x-kvspace-integrity`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ClientSigned => "client-signed",
            Self::HostAttested => "host-attested",
        }
    }
}

/// One operation of a sound event: what the index keeps of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// The key.
    pub key: Key,
    /// Its place in the last-writer-wins order.
    pub version: Version,
    /// The epoch's place in the DAG of this replica.
    pub place: crate::dag::Place,
    /// The token's identity: replay goes by it.
    pub identity: Identity,
    /// The token's own proofs and the epoch's: what a revocation must name to reach this operation.
    pub standing: Standing,
    /// The token's expiry.
    pub expiry: Option<Millis>,
    /// Who vouches for the value.
    pub integrity: Integrity,
    /// What it does.
    pub effect: Effect,
}

/// What an operation stands on, by address: the roots of its chain of delegations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The token's own proofs; empty when every capability is the signer's own.
    pub proofs: Arc<[Address]>,
    /// The host delegation of the epoch, `None` when the host's key is the owner.
    pub host: Option<Address>,
}

impl Standing {
    /// All of them.
    pub fn roots(&self) -> impl Iterator<Item = &Address> {
        self.proofs.iter().chain(&self.host)
    }
}

/// What a write demands of the present state of its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// Nothing.
    Always,
    /// No live value (`If-None-Match: *`).
    Absent,
    /// A live value with this hash (`If-Match`).
    Matches(BlobHash),
}

impl Condition {
    /// Whether a key with this live value passes.
    #[must_use]
    pub fn allows(self, live: Option<&BlobHash>) -> bool {
        match self {
            Self::Always => true,
            Self::Absent => live.is_none(),
            Self::Matches(wanted) => live == Some(&wanted),
        }
    }
}

/// The rule of the winner: a pure function of a key's operations.
pub struct Winner;

impl Winner {
    /// The operation of greatest version among those that count.
    pub fn among(history: &[Operation], is_void: impl Fn(&Operation) -> bool) -> Option<&Operation> {
        Self::counting(history, is_void).max_by_key(|operation| operation.version)
    }

    /// Those that count.
    ///
    /// `history` holds every operation of one key that is not dead. A token's operations count once: of the places where
    /// it stands and is not void, the least; one more than six minutes older than the token's expiry only when there is
    /// no other.
    pub(crate) fn counting(
        history: &[Operation],
        is_void: impl Fn(&Operation) -> bool,
    ) -> impl Iterator<Item = &Operation> {
        let standing: Vec<_> = history.iter().filter(|operation| !is_void(operation)).collect();
        let mut counted: BTreeMap<Identity, (bool, Version)> = BTreeMap::new();
        for operation in &standing {
            let rank = (operation.is_early(), operation.version.event_start());
            counted.entry(operation.identity).and_modify(|least| *least = rank.min(*least)).or_insert(rank);
        }
        standing.into_iter().filter(move |operation| {
            counted.get(&operation.identity).is_some_and(|(_, first)| *first == operation.version.event_start())
        })
    }
}

impl Operation {
    /// Whether its epoch is so long before the token's expiry that an honest host would hardly have taken it then.
    pub(crate) fn is_early(&self) -> bool {
        is_early(self.expiry, self.version.time())
    }
}

/// Whether `at` is more than six minutes before a token's expiry.
pub(crate) fn is_early(expiry: Option<Millis>, at: Millis) -> bool {
    expiry.is_some_and(|expiry| at < expiry.plus(-ONCE_WINDOW_MS))
}

impl Version {
    /// The version that the first operation of the same event has.
    fn event_start(&self) -> Self {
        Self { number: u32::from(self.event()) << 16, ..*self }
    }
}
