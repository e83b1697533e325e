//! Making the index whole: what the log holds beyond the index is taken into it again.

use std::collections::BTreeMap;

use ed25519_dalek::SigningKey;
use kvspace_protocol::{
    id::{BlobHash, EpochId, Incarnation, Millis, SpaceId},
    space::{CheckedEpoch, Space},
};

use crate::{
    clock, failpoint,
    index::{Durable, Index, IndexError, SpaceIndex, signed},
    log::{LogReader, Position, Replayed, ReplayedCommit},
    records::Records,
    registry,
};

/// Between two words on how far it is.
const PROGRESS_MS: i64 = 5_000;
/// Epochs that are kept by name when nobody asks.
const PASSED_OVER_MAX: usize = 1_000;

/// Takes the log's commits into the index, in order.
pub(crate) struct Recovery {
    records: Records,
    key: SigningKey,
    incarnation: Incarnation,
    index: Option<Index>,
    /// The spaces at work.
    cores: BTreeMap<SpaceId, (SpaceIndex, Space)>,
    cores_max: usize,
    told: Millis,
    /// Commits taken in.
    pub(crate) commits: u64,
    /// Places in the log that are broken, and epochs that do not hold without what was there.
    pub(crate) damaged: u64,
    /// Epochs that do not hold, and why; not all, if there are many.
    passed_over: Vec<(SpaceId, String)>,
}

impl Recovery {
    pub(crate) fn new(records: Records, key: SigningKey, incarnation: Incarnation, cores_max: usize) -> Self {
        let (index, cores, told, passed_over) = (None, BTreeMap::new(), clock::now(), Vec::new());
        Self { records, key, incarnation, index, cores, cores_max, told, commits: 0, damaged: 0, passed_over }
    }

    pub(crate) fn take(&mut self, log: &LogReader, replayed: Replayed) -> Result<(), IndexError> {
        match replayed {
            Replayed::Commit(commit) => self.take_commit(log, commit),
            Replayed::Damage(damage) => {
                self.damaged += 1;
                let (segment, offset, what) = (damage.segment, damage.offset, damage.what);
                tracing::error!(segment, offset, what, "the log is damaged; `kvspace verify` says what is lost");
                Ok(())
            }
        }
    }

    fn take_commit(&mut self, log: &LogReader, commit: ReplayedCommit) -> Result<(), IndexError> {
        failpoint::reached("index.rebuild");
        self.tell(commit.end);
        let mut checked = Vec::new();
        let mut positions: BTreeMap<EpochId, Position> = BTreeMap::new();
        let Some(space) = commit.epochs.first().map(|(record, _)| record.space.clone()) else { return Ok(()) };
        for (record, at) in commit.epochs {
            match CheckedEpoch::trusted(signed(record)) {
                Ok(epoch) => {
                    positions.insert(epoch.epoch().id, at);
                    checked.push(epoch);
                }
                Err(error) => self.pass_over(&space, &error),
            }
        }
        let blobs: Vec<(BlobHash, Position)> = commit.blobs.iter().map(|blob| (blob.hash, blob.at)).collect();
        self.open(log, &space)?;
        let Some((index, core)) = self.cores.get_mut(&space) else {
            return Err(IndexError::new("a space that was opened is not there"));
        };
        let replay = core.replay(index, &checked).map_err(|fault| IndexError::new(fault.to_string()))?;
        let whole = index.index().clone();
        let room = whole.room_blocking(&replay.changes)?;
        let slot = whole.begin(Some(commit.end));
        slot.fill(room, index.batches(&Durable { changes: &replay.changes, blobs: &blobs, epochs: &positions })?)?;
        self.commits += 1;
        replay.passed_over.iter().for_each(|error| self.pass_over(&space, error));
        Ok(())
    }

    /// Has the space among `cores`.
    fn open(&mut self, log: &LogReader, space: &SpaceId) -> Result<(), IndexError> {
        if self.cores.contains_key(space) {
            return Ok(());
        }
        if self.cores.len() >= self.cores_max {
            self.cores.clear();
        }
        let index = match &self.index {
            Some(index) => index.clone(),
            None => self.index.insert(Index::new(self.records.clone(), log.clone())?).clone(),
        };
        let opened = match index.space(space)? {
            Some(index) => {
                let core = registry::open_core(&index, &self.key, self.incarnation)?;
                (index, core)
            }
            None => (index.new_space(space), Space::new(space.clone(), self.key.clone(), self.incarnation)),
        };
        self.cores.insert(space.clone(), opened);
        Ok(())
    }

    fn pass_over(&mut self, space: &SpaceId, error: &dyn std::fmt::Display) {
        self.damaged += 1;
        if self.passed_over.len() < PASSED_OVER_MAX {
            self.passed_over.push((space.clone(), error.to_string()));
        }
        tracing::error!(%space, %error, "an epoch of the log is passed over");
    }

    /// The epochs that were passed over since this was asked last, and why.
    pub(crate) fn passed_over(&mut self) -> Vec<(SpaceId, String)> {
        std::mem::take(&mut self.passed_over)
    }

    fn tell(&mut self, at: Position) {
        let now = clock::now();
        if now < self.told.plus(PROGRESS_MS) {
            return;
        }
        self.told = now;
        tracing::info!(segment = at.segment, commits = self.commits, "taking the log into the index");
    }

    /// The index, whole.
    pub(crate) fn finish(self, log: &LogReader) -> Result<Index, IndexError> {
        let index = match self.index {
            Some(index) => index,
            None => Index::new(self.records, log.clone())?,
        };
        if self.damaged > 0 {
            index.note_damage(self.damaged)?;
        }
        Ok(index)
    }
}
