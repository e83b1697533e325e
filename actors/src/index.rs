//! The index: what the log says, arranged for looking up. A cache that can always be made anew from the log.
//!
//! Records of all spaces lie in one ordered store. A put costs one record for a new key and two for one that had a value:
//! the entry, and the old entry in the key's history. An epoch costs its place, its id and the last of its branch.
//!
//! [`SpaceIndex::batches`] says what a commit changes, [`Records`] takes that in, in the order of the log. Whoever computes
//! the records of a space is the only one to do so.

mod apply;
mod compare;
mod format;
mod keys;
mod open;
mod space;
#[cfg(test)]
mod tests;
mod winners;

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use kvspace_protocol::{
    authority::Proof,
    epoch::SignedEpoch,
    id::{Address, BlobHash, EpochId, HostKey, Identity, SpaceId},
    space::{Change, CheckedEpoch, ViewError},
};
use serde::{Deserialize, Serialize};

pub(crate) use self::{
    apply::Durable,
    compare::{Difference, compare},
    format::Stored,
    space::{DeadWrite, Fate, PageQuery, SpaceIndex},
};
pub(crate) use crate::records::StoreError as IndexError;
use crate::{
    blobs::Blobs,
    log::{EpochRecord, LogReader, Position},
    records::{Batch, Records, Room, Slot},
};

/// The index of the whole node. Clones are the same index.
#[derive(Clone)]
pub(crate) struct Index {
    records: Records,
    log: LogReader,
    /// The number that the last new space got.
    last_number: Arc<AtomicU32>,
}

/// Counts of one space.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Epochs in the log.
    pub epochs: u64,
    /// Their bytes in the log.
    pub epoch_bytes: u64,
    /// Bytes of the inline values of each, freed or not.
    pub value_bytes: u64,
    /// Keys with a live value.
    pub keys: u64,
    /// Bytes of live values.
    pub live_bytes: u64,
}

/// That an operation needs a file.
#[derive(Debug, Clone)]
pub(crate) struct FileUse {
    space: SpaceId,
    pub(crate) hash: BlobHash,
    size: u64,
    epoch: EpochId,
    pub(crate) fate: Fate,
    name: Vec<u8>,
    /// As it lies in the index.
    record: Vec<u8>,
}

/// A value that wins and whose bytes are not here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// The space.
    pub(crate) space: SpaceId,
    /// The value.
    pub(crate) hash: BlobHash,
    /// Its size in bytes.
    pub(crate) size: u64,
    /// The epoch that put it there.
    pub(crate) epoch: EpochId,
    /// Where to go on behind it.
    pub(crate) name: Vec<u8>,
}

impl Index {
    /// The index in these records, of the log that `log` reads.
    pub(crate) fn new(records: Records, log: LogReader) -> Result<Self, IndexError> {
        let mut last = 0;
        for record in records.scan(&keys::spaces(), &keys::spaces()) {
            last = last.max(format::decode(&record?.1)?);
        }
        Ok(Self { records, log, last_number: Arc::new(AtomicU32::new(last)) })
    }

    /// The records.
    pub(crate) fn records(&self) -> &Records {
        &self.records
    }

    /// Room for what these changes bring.
    pub(crate) async fn room(&self, changes: &[Change]) -> Result<Room, IndexError> {
        self.records.room(apply::records_max(changes)).await
    }

    /// As [`Index::room`], for a thread that may block.
    pub(crate) fn room_blocking(&self, changes: &[Change]) -> Result<Room, IndexError> {
        self.records.room_blocking(apply::records_max(changes))
    }

    /// The place of the next commit, which ends at `end` in the log; called in the order of the log.
    pub(crate) fn begin(&self, end: Option<Position>) -> Slot {
        self.records.begin(end.map(mark).unwrap_or_default())
    }

    /// The index of a space that is hosted here.
    pub(crate) fn space(&self, id: &SpaceId) -> Result<Option<SpaceIndex>, IndexError> {
        let number = self.records.get(&keys::space(id))?;
        number.map(|number| Ok(SpaceIndex::new(self.clone(), id.clone(), format::decode(&number)?))).transpose()
    }

    /// The index of a space of which nothing is held yet. It is hosted from its first commit on.
    pub(crate) fn new_space(&self, id: &SpaceId) -> SpaceIndex {
        let number = self.last_number.fetch_add(1, Ordering::Relaxed) + 1;
        SpaceIndex::new(self.clone(), id.clone(), number)
    }

    /// The spaces that are hosted here from `after` on, in byte order.
    pub(crate) fn spaces(&self, after: Option<&SpaceId>) -> impl Iterator<Item = Result<SpaceIndex, IndexError>> {
        let prefix = keys::spaces();
        let from = after.map_or_else(|| prefix.clone(), |after| [&keys::space(after)[..], &[0]].concat());
        self.records.scan(&prefix, &from).map(move |record| {
            let (name, number) = record?;
            let id = std::str::from_utf8(&name[prefix.len()..]).ok().and_then(|id| id.parse().ok());
            let id = id.ok_or_else(|| IndexError::new("the index names a space that is none"))?;
            Ok(SpaceIndex::new(self.clone(), id, format::decode(&number)?))
        })
    }

    /// The spaces that this host was ever named for, or that it owns and has written to; it may be revoked since.
    pub(crate) fn hosted_by(&self, host: HostKey) -> impl Iterator<Item = Result<SpaceIndex, IndexError>> {
        let prefix = keys::hosted(&host);
        self.records.scan(&prefix, &prefix).map(move |record| {
            let broken = || IndexError::new("the index names a host in a broken way");
            let (name, id) = record?;
            let number = keys::Rest(&name[prefix.len()..]).u32().ok_or_else(broken)?;
            let id = std::str::from_utf8(&id).ok().and_then(|id| id.parse().ok()).ok_or_else(broken)?;
            Ok(SpaceIndex::new(self.clone(), id, number))
        })
    }

    /// Whether this host was ever named for a space.
    pub(crate) fn is_named_host(&self, space: &SpaceId, host: &HostKey) -> Result<bool, IndexError> {
        let Some(number) = self.records.get(&keys::space(space))? else { return Ok(false) };
        Ok(self.records.get(&keys::hosted_space(host, format::decode(&number)?))?.is_some())
    }

    /// The log.
    pub(crate) fn log(&self) -> &LogReader {
        &self.log
    }

    /// How many places of the log were found broken, over all starts: what the log has lost the index cannot show.
    pub(crate) fn damaged(&self) -> Result<u64, IndexError> {
        let damaged = self.records.get(&keys::damaged())?;
        damaged.map_or(Ok(0), |damaged| format::decode(&damaged))
    }

    /// Counts more of them.
    pub(crate) fn note_damage(&self, places: u64) -> Result<(), IndexError> {
        let damaged = self.damaged()? + places;
        self.records.write_aside(Batch::from([(keys::damaged(), Some(format::encode(&damaged)))]))
    }

    /// A delegation from any space's log.
    pub(crate) fn delegation(&self, address: &Address) -> Result<Option<Proof>, IndexError> {
        let Some(found) = self.records.get(&keys::delegation(address))? else { return Ok(None) };
        let format::DelegationRecord { at, event } = format::decode(&found)?;
        let epoch = self.read_epoch(format::position(at))?;
        let proof = epoch.token(event).filter(|proof| proof.address() == *address);
        proof.cloned().map(Some).ok_or_else(|| IndexError::new("the index names a delegation that is not in the log"))
    }

    /// Whether an operation, of any space, needs the file of this hash.
    pub(crate) fn needs_file(&self, hash: &BlobHash) -> Result<bool, IndexError> {
        let prefix = keys::file(hash);
        Ok(self.records.scan(&prefix, &prefix).next().transpose()?.is_some())
    }

    /// Whether an operation wins that needs the file of this hash.
    pub(crate) fn wins_with_file(&self, hash: &BlobHash) -> Result<bool, IndexError> {
        let prefix = keys::file(hash);
        for record in self.records.scan(&prefix, &prefix) {
            if self.file_use(record?)?.fate == Fate::Wins {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Every use of a file by an operation, in order of hash.
    pub(crate) fn file_uses(&self) -> impl Iterator<Item = Result<FileUse, IndexError>> {
        self.records.scan(&keys::files(), &keys::files()).map(|record| self.file_use(record?))
    }

    /// The values that win and whose files are not here, behind the one of this name, in order of hash: a walk through
    /// all uses of files, which holds a page of them. A value may come once for each key that holds it.
    pub(crate) fn wanted(
        &self,
        blobs: &Blobs,
        after: Option<&[u8]>,
    ) -> impl Iterator<Item = Result<Wanted, IndexError>> {
        let prefix = keys::files();
        let from = after.map_or_else(|| prefix.clone(), |after| [after, &[0]].concat());
        let mut present: Option<(BlobHash, bool)> = None;
        self.records.scan(&prefix, &from).filter_map(move |record| {
            let used = record.and_then(|(name, value)| {
                let hash = keys::Rest::of(&name, &prefix).and_then(|mut rest| rest.hash()).map(BlobHash);
                let hash = hash.ok_or_else(|| IndexError::new("the index names a file in a broken way"))?;
                let is_here = match present {
                    Some((known, is_here)) if known == hash => is_here,
                    Some(_) | None => present.insert((hash, blobs.exists(&hash))).1,
                };
                if is_here { Ok(None) } else { self.file_use((name, value)).map(Some) }
            });
            let wanted = |FileUse { space, hash, size, epoch, name, .. }| Wanted { space, hash, size, epoch, name };
            used.map(|used| used.filter(|used| used.fate == Fate::Wins).map(wanted)).transpose()
        })
    }

    fn file_use(&self, (name, value): (Vec<u8>, Vec<u8>)) -> Result<FileUse, IndexError> {
        let broken = || IndexError::new("the index names a file in a broken way");
        let mut rest = keys::Rest::of(&name, &keys::files()).ok_or_else(broken)?;
        let hash = BlobHash(rest.hash().ok_or_else(broken)?);
        let (number, version) = rest.u32().and_then(|number| Some((number, rest.version()?))).ok_or_else(broken)?;
        let format::FileUse { space, key, identity, size } = format::decode(&value)?;
        let space = SpaceIndex::new(self.clone(), space.parse().map_err(|_| broken())?, number);
        let fate = space.fate(&key, &Identity(identity), &version)?;
        Ok(FileUse { space: space.id, hash, size, epoch: version.epoch, fate, name, record: value })
    }

    /// Forgets that an operation needs a file.
    pub(crate) fn forget(&self, file_use: &FileUse) -> Result<(), IndexError> {
        self.records.write_aside(Batch::from([(file_use.name.clone(), None)]))
    }

    /// That an operation needs a file after all.
    pub(crate) fn remember(&self, file_use: &FileUse) -> Result<(), IndexError> {
        self.records.write_aside(Batch::from([(file_use.name.clone(), Some(file_use.record.clone()))]))
    }

    /// What has become of the operation of a use by now.
    pub(crate) fn fate_of(&self, file_use: &FileUse) -> Result<Fate, IndexError> {
        Ok(self.file_use((file_use.name.clone(), file_use.record.clone()))?.fate)
    }

    /// Up to where in the log all commits are applied.
    pub(crate) fn covered(&self) -> Result<Option<Position>, IndexError> {
        self.records.covered()?.map(|mark| covered(&mark)).transpose()
    }

    /// An epoch of the log, for what it says.
    fn read_epoch(&self, at: Position) -> Result<CheckedEpoch, IndexError> {
        let record = self.log.read_epoch(at).map_err(|error| IndexError::new(error.to_string()))?;
        CheckedEpoch::read(signed(record)).map_err(|error| IndexError::new(error.to_string()))
    }
}

/// A position as the records' mark.
fn mark(end: Position) -> Vec<u8> {
    format::encode(&format::position_record(end))
}

/// The position of a mark: up to there the index has everything.
pub(crate) fn covered(mark: &[u8]) -> Result<Position, IndexError> {
    format::decode(mark).map(format::position)
}

/// The epoch of a record.
pub(crate) fn signed(record: EpochRecord) -> SignedEpoch {
    let EpochRecord { header, body, signature, .. } = record;
    SignedEpoch { header, body, signature }
}

impl From<IndexError> for ViewError {
    fn from(error: IndexError) -> Self {
        Self(error.to_string())
    }
}
