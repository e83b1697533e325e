//! The index in memory, rebuilt from the log at each start.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{PoisonError, RwLock, RwLockReadGuard},
};

use kvspace_protocol::{
    id::{BlobHash, EpochId, Identity, Key},
    kv::Operation,
    limits::INLINE_BYTES_MAX,
    space::{Change, EpochAt, MemoryView, View, ViewError},
};

use super::{Durable, Index, PageOfKeys, PageQuery, Summary};
use crate::log::Position;

/// One space's index in memory.
#[derive(Debug, Default)]
pub struct MemoryIndex {
    state: RwLock<State>,
}

#[derive(Debug, Default)]
struct State {
    view: MemoryView,
    blobs: BTreeMap<BlobHash, Position>,
    files: BTreeSet<BlobHash>,
    epochs: Vec<Position>,
    summary: Summary,
}

impl MemoryIndex {
    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn absorb(&mut self, change: &Change) {
        match change {
            Change::Epoch { .. } => self.summary.epochs += 1,
            Change::Operation(operation) => {
                let large = operation.effect.value().filter(|value| value.size > INLINE_BYTES_MAX);
                self.files.extend(large.map(|value| value.blob));
            }
            Change::Winner { key, winner } => {
                let before = self.view.winner(key).unwrap_or_default();
                let size = |operation: &Option<Operation>| operation.as_ref()?.effect.value().map(|value| value.size);
                let (before, after) = (size(&before), size(winner));
                self.summary.keys = self.summary.keys + u64::from(after.is_some()) - u64::from(before.is_some());
                self.summary.live_bytes =
                    self.summary.live_bytes + after.unwrap_or_default() - before.unwrap_or_default();
            }
        }
        self.view.absorb(change);
    }
}

impl Index for MemoryIndex {
    fn apply(&self, durable: Durable<'_>) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        durable.changes.iter().for_each(|change| state.absorb(change));
        state.blobs.extend(durable.blobs.iter().copied());
        state.epochs.extend(durable.epochs);
    }

    fn page(&self, query: &PageQuery<'_>) -> PageOfKeys {
        let state = self.read();
        let mut page = PageOfKeys::default();
        for (looked, (key, winner)) in state.view.entries(Some(query.from)).enumerate() {
            if !key.starts_with(query.prefix) {
                break;
            }
            if looked == query.look_max || page.keys.len() == query.take_max {
                page.next = Some(key.clone());
                break;
            }
            if winner.effect.value().is_some() && (query.wanted)(key, winner) {
                page.keys.push(key.clone());
            }
        }
        page
    }

    fn blob_at(&self, hash: &BlobHash) -> Option<Position> {
        self.read().blobs.get(hash).copied()
    }

    fn needs_file(&self, hash: &BlobHash) -> bool {
        self.read().files.contains(hash)
    }

    fn epochs(&self) -> Vec<Position> {
        self.read().epochs.clone()
    }

    fn summary(&self) -> Summary {
        self.read().summary
    }
}

impl View for MemoryIndex {
    fn epoch(&self, id: &EpochId) -> Result<Option<EpochAt>, ViewError> {
        self.read().view.epoch(id)
    }

    fn winner(&self, key: &str) -> Result<Option<Operation>, ViewError> {
        self.read().view.winner(key)
    }

    fn history(&self, key: &str) -> Result<Vec<Operation>, ViewError> {
        self.read().view.history(key)
    }

    fn occurrences(&self, key: &str, identity: &Identity) -> Result<Vec<Operation>, ViewError> {
        self.read().view.occurrences(key, identity)
    }

    fn keys(&self) -> Result<Vec<Key>, ViewError> {
        self.read().view.keys()
    }
}
