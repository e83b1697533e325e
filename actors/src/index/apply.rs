//! What a commit changes in the index, as batches of records with absolute values.
//!
//! A large commit is several batches, and a crash may leave only the first of them. So operations come first and the
//! epochs that hold them last, each whole in one batch: replaying the commit then finds an epoch either not held, and takes
//! it in again over the same records, or held with all that belongs to it.

use std::collections::{BTreeMap, BTreeSet};

use kvspace_protocol::{
    dag::Branch,
    id::{BlobHash, EpochId, HostKey, Key, Millis},
    kv::{Operation, Version, seq_time},
    limits::INLINE_BYTES_MAX,
    space::{Change, NewEpoch},
};

use super::{
    IndexError, SpaceIndex, Summary,
    format::{self, DeadRecord, DelegationRecord, Entry, EpochRecord, FileUse, PlaceRecord, Stored},
    keys,
};
use crate::{log::Position, records::Batch};

/// Records of one batch before another is begun.
const BATCH_RECORDS: usize = if cfg!(test) { 8 } else { 150 };

/// Dead writes that are kept of one key.
pub(super) const DEAD_MAX: usize = 16;

/// What one commit brought.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Durable<'a> {
    /// What the space's state machine says.
    pub(crate) changes: &'a [Change],
    /// The inline values.
    pub(crate) blobs: &'a [(BlobHash, Position)],
    /// The epochs.
    pub(crate) epochs: &'a BTreeMap<EpochId, Position>,
}

/// As many records as these changes may bring.
pub(super) fn records_max(changes: &[Change]) -> u32 {
    let records = changes.iter().map(|change| match change {
        Change::Epoch(new) => 7 + new.inserted.learned.len() + new.inserted.ended.len(),
        Change::Delegation { .. } => 3,
        // Itself, and the oldest one that it drives out.
        Change::Dead { .. } => 2,
        Change::Operation(operation) => 2 + operation.standing.roots().count(),
        Change::Winner { .. } => 4,
    });
    u32::try_from(records.sum::<usize>()).unwrap_or(u32::MAX)
}

impl SpaceIndex {
    /// The records of a commit. They are computed from what the index shows, so the commit before must be in it.
    pub(crate) fn batches(&self, durable: &Durable<'_>) -> Result<Vec<Batch>, IndexError> {
        let mut work = Work::new(self)?;
        work.gather(durable)?;
        let keys: BTreeSet<Key> = work.fresh.keys().chain(work.winners.keys()).cloned().collect();
        for key in keys {
            work.key(&key)?;
        }
        work.dead()?;
        work.finish()
    }

    /// That this host was named for the space.
    fn hosted_by(&self, host: &HostKey) -> (Vec<u8>, Option<Vec<u8>>) {
        (keys::hosted_space(host, self.names.0), Some(self.id.as_str().as_bytes().to_vec()))
    }

    /// That the value of an operation is, or is to be, in a file.
    fn file_use(&self, stored: &Stored) -> Option<(Vec<u8>, Option<Vec<u8>>)> {
        let value = stored.operation.effect.value()?;
        let Operation { key, identity, version, .. } = &stored.operation;
        let (space, key, identity) = (self.id.to_string(), key.to_string(), identity.0);
        let record = FileUse { space, key, identity, size: value.size };
        Some((keys::file_use(&value.blob, self.names.0, version), Some(format::encode(&record))))
    }

    /// Notes that the winner of a key needs a file, if the index does not say so: its bytes were freed while it was about to
    /// win again. From then on the file is wanted, and kept. Blocks.
    pub(crate) fn note_file(&self, key: &str, version: &Version) -> Result<(), IndexError> {
        let winner = self.winning(key)?.filter(|winner| winner.operation.version == *version);
        let Some((name, record)) = winner.and_then(|winner| self.file_use(&winner)) else { return Ok(()) };
        if self.index.records.get(&name)?.is_none() {
            self.index.records.write_aside(Batch::from([(name, record)]))?;
        }
        Ok(())
    }

    pub(crate) fn branch(&self, number: u32) -> Result<Option<Branch>, IndexError> {
        self.index.records.get(&self.names.branch(number))?.map(|branch| format::decode_branch(&branch)).transpose()
    }
}

/// The records of one commit, as they grow.
struct Work<'a> {
    space: &'a SpaceIndex,
    blobs: BTreeMap<BlobHash, Position>,
    summary: Summary,
    /// The latest clock of the commit.
    time: Millis,
    batches: Vec<Batch>,
    batch: Batch,
    epochs: Vec<EpochWork>,
    branches: BTreeMap<u32, Branch>,
    /// Operations by key.
    fresh: BTreeMap<Key, Vec<&'a Operation>>,
    winners: BTreeMap<Key, Option<&'a Operation>>,
    /// Dead writes by key.
    dead: BTreeMap<Key, BTreeMap<Version, DeadRecord>>,
}

/// One epoch of it.
struct EpochWork {
    records: Batch,
    at: Position,
    /// The sizes of its inline values, whether they are in the log or not.
    values: BTreeMap<BlobHash, u64>,
}

impl<'a> Work<'a> {
    fn new(space: &'a SpaceIndex) -> Result<Self, IndexError> {
        Ok(Self {
            space,
            blobs: BTreeMap::new(),
            summary: space.summary()?,
            time: Millis(0),
            batches: Vec::new(),
            batch: Batch::new(),
            epochs: Vec::new(),
            branches: BTreeMap::new(),
            fresh: BTreeMap::new(),
            winners: BTreeMap::new(),
            dead: BTreeMap::new(),
        })
    }

    fn gather(&mut self, durable: &Durable<'a>) -> Result<(), IndexError> {
        self.blobs = durable.blobs.iter().copied().collect();
        let names = self.space.names;
        if self.summary.epochs == 0 {
            self.put(keys::space(&self.space.id), format::encode(&names.0));
        }
        for change in durable.changes {
            match change {
                Change::Epoch(new) => {
                    let at = durable.epochs.get(&new.id).copied();
                    let at = at.ok_or_else(|| IndexError::new("a commit changes an epoch that is not in it"))?;
                    self.epoch(new, at)?;
                }
                Change::Delegation { address, place, event, hosts } => {
                    let before = || IndexError::new("a delegation came before its epoch");
                    let EpochWork { records, at, .. } = self.epochs.last_mut().ok_or_else(before)?;
                    let record = DelegationRecord { at: format::position_record(*at), event: *event };
                    records.insert(names.delegation(address, *place), Some(format::encode(event)));
                    records.insert(keys::delegation(address), Some(format::encode(&record)));
                    records.extend(hosts.as_ref().map(|host| self.space.hosted_by(host)));
                }
                Change::Operation(operation) => {
                    for root in operation.standing.roots() {
                        self.put(names.written(root, operation.place), Vec::new());
                    }
                    let inline = operation.effect.value().filter(|value| value.size <= INLINE_BYTES_MAX);
                    if let Some((value, epoch)) = inline.zip(self.epochs.last_mut()) {
                        epoch.values.insert(value.blob, value.size);
                    }
                    self.fresh.entry(operation.key.clone()).or_default().push(operation);
                }
                Change::Dead { key, version, place, reason } => {
                    let record = DeadRecord::new(*place, *reason);
                    self.dead.entry(key.clone()).or_default().insert(*version, record);
                }
                Change::Winner { key, winner } => drop(self.winners.insert(key.clone(), winner.as_ref())),
            }
        }
        Ok(())
    }

    fn epoch(&mut self, new: &NewEpoch, at: Position) -> Result<(), IndexError> {
        let names = self.space.names;
        let place = new.inserted.place;
        self.time = self.time.max(seq_time(new.seq));
        let mut records = Batch::new();
        if !self.known(place.branch)? {
            self.branches.insert(place.branch, new.begins());
            // Nobody names the owner.
            if new.host.did() == *self.space.id.owner() {
                records.extend([self.space.hosted_by(&new.host)]);
            }
        }
        let mut changed: Vec<u32> = new.inserted.ended.clone();
        for branch in &changed {
            self.known(*branch)?;
        }
        for ended in changed.iter().filter(|branch| **branch != place.branch) {
            self.branches.entry(*ended).and_modify(|branch| branch.is_head = false);
        }
        self.branches.entry(place.branch).and_modify(|branch| new.extends(branch));
        changed.push(place.branch);
        for number in changed {
            if let Some(branch) = self.branches.get(&number) {
                records.insert(names.branch(number), Some(format::encode_branch(branch)));
            }
        }
        for learned in &new.inserted.learned {
            records.insert(names.learned(place, learned.branch), Some(format::encode(&learned.n)));
        }
        if new.revokes {
            records.insert(names.revoking(place), Some(Vec::new()));
        }
        let record = EpochRecord { branch: place.branch, n: place.n, seq: new.seq };
        records.insert(names.epoch(&new.id), Some(format::encode(&record)));
        let record = PlaceRecord { id: new.id.0, at: format::position_record(at) };
        records.insert(names.place(place), Some(format::encode(&record)));
        self.epochs.push(EpochWork { records, at, values: BTreeMap::new() });
        Ok(())
    }

    /// Whether a branch is known; it is then among `branches`.
    fn known(&mut self, number: u32) -> Result<bool, IndexError> {
        if !self.branches.contains_key(&number) {
            let Some(branch) = self.space.branch(number)? else { return Ok(false) };
            self.branches.insert(number, branch);
        }
        Ok(true)
    }

    /// Sets the entry of a key and moves what lost to its history.
    fn key(&mut self, key: &Key) -> Result<(), IndexError> {
        let names = self.space.names;
        let before = self.space.entry(key)?;
        let fresh = self.fresh.remove(key).unwrap_or_default();
        let version = |stored: &Option<Stored>| stored.as_ref().map(|stored| stored.operation.version);
        let winner = match self.winners.get(key).copied() {
            None => before.winner.clone(),
            Some(None) => None,
            Some(Some(operation)) if version(&before.winner) == Some(operation.version) => before.winner.clone(),
            Some(Some(operation)) => Some(self.winner(operation, &fresh)?),
        };
        let won = version(&winner);
        let lost_at = self.time.max(winner.as_ref().map_or(Millis(0), |won| won.operation.version.time()));
        let mut entry = Entry { winner, has_history: before.has_history };
        let mut records = Batch::new();
        let fresh = fresh.into_iter().filter(|operation| Some(operation.version) != version(&before.winner));
        let fresh = fresh.map(|operation| self.stored(operation)).collect::<Vec<_>>();
        // A large one has its file when it is written here. What has lost when it comes is not fetched.
        records.extend(fresh.iter().filter(|stored| stored.is_large()).filter_map(|stored| self.file_use(stored)));
        for lost in before.winner.iter().chain(&fresh).filter(|stored| Some(stored.operation.version) != won) {
            let Operation { identity, version, .. } = &lost.operation;
            let lost = Stored { lost_at, ..lost.clone() };
            records.insert(names.operation(key, identity, version), Some(lost.encode()));
            entry.has_history = true;
        }
        if let Some(winner) = entry.winner.as_ref().filter(|_| won != version(&before.winner)) {
            let Operation { identity, version, .. } = &winner.operation;
            if before.has_history && !fresh.iter().any(|stored| stored.operation.version == *version) {
                records.insert(names.operation(key, identity, version), None);
            }
            records.extend(self.file_use(winner));
        }
        if entry != before {
            records.insert(names.entry(key), Some(entry.encode()));
        }
        let size = |stored: &Option<Stored>| stored.as_ref()?.operation.effect.value().map(|value| value.size);
        let (old, new) = (size(&before.winner), size(&entry.winner));
        // Taking these may end the batch before them, whose counts are without these.
        self.take(records);
        self.summary.keys = self.summary.keys + u64::from(new.is_some()) - u64::from(old.is_some());
        self.summary.live_bytes = self.summary.live_bytes + new.unwrap_or_default() - old.unwrap_or_default();
        Ok(())
    }

    /// The new winner of a key: an operation of this commit, or one from the key's history.
    fn winner(&self, operation: &Operation, fresh: &[&Operation]) -> Result<Stored, IndexError> {
        if fresh.iter().any(|known| known.version == operation.version) {
            return Ok(self.stored(operation));
        }
        let found = self.space.lost(&operation.key, &operation.identity, &operation.version)?;
        let stored = found.ok_or_else(|| IndexError::new("the index does not know the winner of a key"))?;
        // What was freed when it had lost comes again as a file.
        let at = stored.at.filter(|at| !self.space.index.log.has_freed(*at));
        Ok(Stored { lost_at: Millis(0), at, ..stored })
    }

    fn stored(&self, operation: &Operation) -> Stored {
        let stored = Stored { operation: operation.clone(), at: None, lost_at: Millis(0), meta_in_log: false };
        let inline = stored.operation.effect.value().filter(|_| !stored.is_large());
        let at = inline.and_then(|value| self.blobs.get(&value.blob)).copied();
        Stored { at, ..stored }
    }

    /// That an operation needs a file, if it does.
    fn file_use(&self, stored: &Stored) -> Option<(Vec<u8>, Option<Vec<u8>>)> {
        stored.file()?;
        self.space.file_use(stored)
    }

    /// Keeps the newest dead writes of each key.
    fn dead(&mut self) -> Result<(), IndexError> {
        let names = self.space.names;
        for (key, fresh) in std::mem::take(&mut self.dead) {
            let before = self.space.dead(&key)?.into_iter().map(|dead| dead.version);
            let all: BTreeSet<Version> = before.chain(fresh.keys().copied()).collect();
            let dropped = all.len().saturating_sub(DEAD_MAX);
            let mut records: Batch = fresh
                .iter()
                .map(|(version, dead)| (names.dead_write(&key, version), Some(format::encode(dead))))
                .collect();
            records.extend(all.iter().take(dropped).map(|version| (names.dead_write(&key, version), None)));
            self.take(records);
        }
        Ok(())
    }

    fn put(&mut self, name: Vec<u8>, value: Vec<u8>) {
        self.take(Batch::from([(name, Some(value))]));
    }

    /// Takes records that belong together.
    fn take(&mut self, records: Batch) {
        if self.batch.len() + records.len() >= BATCH_RECORDS && !self.batch.is_empty() {
            self.seal();
        }
        self.batch.extend(records);
    }

    /// Ends a batch; the counts are those of what it and the ones before it hold.
    fn seal(&mut self) {
        let mut batch = std::mem::take(&mut self.batch);
        batch.insert(self.space.names.summary(), Some(format::encode(&self.summary)));
        self.batches.push(batch);
    }

    fn finish(mut self) -> Result<Vec<Batch>, IndexError> {
        for EpochWork { records, at, values } in std::mem::take(&mut self.epochs) {
            self.take(records);
            self.summary.epochs += 1;
            self.summary.epoch_bytes += u64::from(at.length);
            self.summary.value_bytes += values.values().sum::<u64>();
        }
        self.seal();
        Ok(self.batches)
    }
}
