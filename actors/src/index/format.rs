//! What the index's records hold. Every value stays under 4 KiB; what is larger stays in the log.

use std::{collections::BTreeMap, sync::Arc};

use kvspace_protocol::{
    dag::{Branch, Place},
    id::{Address, BlobHash, EpochId, HostKey, Identity, Incarnation, Key, Millis},
    kv::{Effect, Integrity, Operation, Standing, Value, Version},
    space::DeadReason,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::IndexError;
use crate::log::Position;

/// The store keeps larger values in files of their own.
const VALUE_BYTES_MAX: usize = 3584;

/// An operation as the index keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) operation: Operation,
    /// Where the bytes of an inline value lie in the log.
    pub(crate) at: Option<Position>,
    /// Since when it has not been the winner; 0 of a winner.
    pub(crate) lost_at: Millis,
    /// Whether the stored headers have to be looked up in the epoch.
    pub(super) meta_in_log: bool,
}

/// The state of a key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The operation that wins; none when all are void.
    pub(crate) winner: Option<Stored>,
    /// Whether there are others.
    pub(crate) has_history: bool,
}

/// Where an epoch stands, by its id.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct EpochRecord {
    pub(super) branch: u32,
    pub(super) n: u64,
    pub(super) seq: u64,
}

/// An epoch, by its place.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct PlaceRecord {
    pub(super) id: [u8; 32],
    pub(super) at: [u32; 3],
}

/// Where the bytes of a delegation lie: the epoch and the event in it.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct DelegationRecord {
    pub(super) at: [u32; 3],
    pub(super) event: u16,
}

/// A use of a file: by what an operation is found.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct FileUse {
    pub(super) space: String,
    pub(super) key: String,
    pub(super) identity: [u8; 32],
    pub(super) size: u64,
}

/// A dead write: where its epoch stands, and why.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct DeadRecord {
    branch: u32,
    n: u64,
    reason: Reason,
}

/// [`DeadReason`] as records keep it.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
enum Reason {
    Signature,
    Authority,
    Time,
    After,
    Content,
}

#[derive(Serialize, Deserialize)]
struct BranchRecord {
    host: [u8; 32],
    incarnation: [u8; 8],
    first_n: u64,
    tip: [u8; 32],
    tip_n: u64,
    tip_seq: u64,
    is_head: bool,
    base: Option<(u32, u64)>,
}

#[derive(Serialize, Deserialize)]
struct EntryRecord {
    winner: Option<(VersionRecord, [u8; 32], OperationRecord)>,
    has_history: bool,
}

#[derive(Serialize, Deserialize)]
struct VersionRecord {
    seq: u64,
    epoch: [u8; 32],
    number: u32,
}

/// An operation without what its name says: key, token, version.
#[derive(Serialize, Deserialize)]
struct OperationRecord {
    branch: u32,
    n: u64,
    proofs: Vec<[u8; 32]>,
    host: Option<[u8; 32]>,
    expiry: Option<i64>,
    client_signed: bool,
    lost_at: i64,
    value: Option<ValueRecord>,
}

#[derive(Serialize, Deserialize)]
struct ValueRecord {
    blob: [u8; 32],
    size: u64,
    /// `None`: they stand in the log.
    meta: Option<BTreeMap<String, String>>,
    at: Option<[u32; 3]>,
}

/// Encodes a record.
pub(super) fn encode(record: &impl Serialize) -> Vec<u8> {
    postcard::to_stdvec(record).expect("a record has a length and no failing parts")
}

/// Decodes a record.
pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, IndexError> {
    postcard::from_bytes(bytes).map_err(|_| IndexError::new("a record of the index does not decode"))
}

/// A position as records keep it.
pub(super) fn position_record(at: Position) -> [u32; 3] {
    [at.segment, at.offset, at.length]
}

/// And back.
pub(super) fn position([segment, offset, length]: [u32; 3]) -> Position {
    Position { segment, offset, length }
}

impl Stored {
    /// The record of an operation in a key's history.
    pub(super) fn encode(&self) -> Vec<u8> {
        self.shortened(|record| encode(&record))
    }

    /// Leaves the headers to the log when the record would be too large.
    fn shortened(&self, encode: impl Fn(OperationRecord) -> Vec<u8>) -> Vec<u8> {
        let whole = encode(self.record(self.meta_in_log));
        if whole.len() <= VALUE_BYTES_MAX { whole } else { encode(self.record(true)) }
    }

    fn record(&self, meta_in_log: bool) -> OperationRecord {
        let Operation { place, standing, expiry, integrity, effect, .. } = &self.operation;
        let value = effect.value().map(|value| ValueRecord {
            blob: value.blob.0,
            size: value.size,
            meta: (!meta_in_log).then(|| value.meta.clone()),
            at: self.at.map(position_record),
        });
        OperationRecord {
            branch: place.branch,
            n: place.n,
            proofs: standing.proofs.iter().map(|proof| proof.0).collect(),
            host: standing.host.map(|host| host.0),
            expiry: expiry.map(|expiry| expiry.0),
            client_signed: *integrity == Integrity::ClientSigned,
            lost_at: self.lost_at.0,
            value,
        }
    }

    fn of(key: Key, identity: Identity, version: Version, record: OperationRecord) -> Self {
        let OperationRecord { branch, n, proofs, host, expiry, client_signed, lost_at, value } = record;
        let at = value.as_ref().and_then(|value| value.at).map(position);
        let meta_in_log = value.as_ref().is_some_and(|value| value.meta.is_none());
        let put = |ValueRecord { blob, size, meta, .. }: ValueRecord| {
            Effect::Put(Arc::new(Value { blob: BlobHash(blob), size, meta: meta.unwrap_or_default() }))
        };
        let operation = Operation {
            key,
            version,
            place: Place { branch, n },
            identity,
            standing: Standing { proofs: proofs.into_iter().map(Address).collect(), host: host.map(Address) },
            expiry: expiry.map(Millis),
            integrity: if client_signed { Integrity::ClientSigned } else { Integrity::HostAttested },
            effect: value.map_or(Effect::Delete, put),
        };
        Self { operation, at, lost_at: Millis(lost_at), meta_in_log }
    }

    /// Reads an operation of a key's history; `rest` is its name behind the key.
    pub(super) fn decode(key: Key, rest: &mut super::keys::Rest<'_>, bytes: &[u8]) -> Result<Self, IndexError> {
        let named = rest.hash().and_then(|identity| Some((Identity(identity), rest.version()?)));
        let (identity, version) = named.ok_or_else(|| IndexError::new("a record of the index has a broken name"))?;
        Ok(Self::of(key, identity, version, decode(bytes)?))
    }
}

impl Entry {
    pub(super) fn encode(&self) -> Vec<u8> {
        let has_history = self.has_history;
        let is_live = self.winner.as_ref().is_some_and(|winner| winner.operation.effect.value().is_some());
        let encode = |record: &EntryRecord| [&[u8::from(is_live)], &encode(record)[..]].concat();
        let Some(winner) = &self.winner else { return encode(&EntryRecord { winner: None, has_history }) };
        let Operation { version, identity, .. } = &winner.operation;
        winner.shortened(|record| {
            let version = VersionRecord { seq: version.seq, epoch: version.epoch.0, number: version.number };
            encode(&EntryRecord { winner: Some((version, identity.0, record)), has_history })
        })
    }

    /// Whether a key with this record has a live value: its first byte, because lists ask nothing else.
    pub(super) fn is_live(bytes: &[u8]) -> bool {
        bytes.first() == Some(&1)
    }

    pub(super) fn decode(key: &str, bytes: &[u8]) -> Result<Self, IndexError> {
        let EntryRecord { winner, has_history } = decode(bytes.get(1..).unwrap_or_default())?;
        let stored = |(version, identity, record): (VersionRecord, [u8; 32], OperationRecord)| {
            let VersionRecord { seq, epoch, number } = version;
            Stored::of(key.into(), Identity(identity), Version { seq, epoch: EpochId(epoch), number }, record)
        };
        Ok(Self { winner: winner.map(stored), has_history })
    }
}

impl DeadRecord {
    pub(super) fn new(place: Place, reason: DeadReason) -> Self {
        let reason = match reason {
            DeadReason::Signature => Reason::Signature,
            DeadReason::Authority => Reason::Authority,
            DeadReason::Time => Reason::Time,
            DeadReason::After => Reason::After,
            DeadReason::Content => Reason::Content,
        };
        Self { branch: place.branch, n: place.n, reason }
    }

    pub(super) fn told(self) -> (Place, DeadReason) {
        let reason = match self.reason {
            Reason::Signature => DeadReason::Signature,
            Reason::Authority => DeadReason::Authority,
            Reason::Time => DeadReason::Time,
            Reason::After => DeadReason::After,
            Reason::Content => DeadReason::Content,
        };
        (Place { branch: self.branch, n: self.n }, reason)
    }
}

/// The record of a branch, without what it learnt.
pub(super) fn encode_branch(branch: &Branch) -> Vec<u8> {
    encode(&BranchRecord {
        host: branch.host.0,
        incarnation: branch.incarnation.0,
        first_n: branch.first_n,
        tip: branch.tip.0,
        tip_n: branch.tip_n,
        tip_seq: branch.tip_seq,
        is_head: branch.is_head,
        base: branch.base.map(|base| (base.branch, base.n)),
    })
}

/// And back.
pub(super) fn decode_branch(bytes: &[u8]) -> Result<Branch, IndexError> {
    let BranchRecord { host, incarnation, first_n, tip, tip_n, tip_seq, is_head, base } = decode(bytes)?;
    Ok(Branch {
        host: HostKey(host),
        incarnation: Incarnation(incarnation),
        first_n,
        tip: EpochId(tip),
        tip_n,
        tip_seq,
        is_head,
        base: base.map(|(branch, n)| Place { branch, n }),
        learned: BTreeMap::new(),
    })
}
