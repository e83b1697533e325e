//! A view in memory: the twin of every other index, and the oracle for it.

use std::collections::BTreeMap;

use super::{
    effect::Change,
    view::{EpochAt, View, ViewError},
};
use crate::{
    id::{EpochId, Identity, Key},
    kv::{Operation, Version},
};

/// The index of one space, in memory. Taking a change in twice is the same as once.
#[derive(Debug, Clone, Default)]
pub struct MemoryView {
    epochs: BTreeMap<EpochId, EpochAt>,
    keys: BTreeMap<Key, KeyState>,
}

#[derive(Debug, Clone, Default)]
struct KeyState {
    operations: BTreeMap<Version, Operation>,
    winner: Option<Version>,
    /// What each token did first; looked up on every write, when a key's history may be long.
    tokens: BTreeMap<Identity, Vec<Version>>,
}

impl MemoryView {
    /// Takes a change in.
    pub fn absorb(&mut self, change: &Change) {
        match change {
            Change::Epoch { id, at } => drop(self.epochs.insert(*id, *at)),
            Change::Operation(operation) => {
                let state = self.keys.entry(operation.key.clone()).or_default();
                let versions = state.tokens.entry(operation.identity).or_default();
                if state.operations.insert(operation.version, operation.clone()).is_none() {
                    versions.push(operation.version);
                }
            }
            Change::Winner { key, winner } => {
                let state = self.keys.entry(key.clone()).or_default();
                state.winner = winner.as_ref().map(|winner| winner.version);
            }
        }
    }

    /// The keys after `after` in byte order, with their winners; keys without one are left out.
    pub fn entries(&self, from: Option<&str>) -> impl Iterator<Item = (&Key, &Operation)> {
        let start = from.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Included);
        let range = self.keys.range::<str, _>((start, std::ops::Bound::Unbounded));
        range.filter_map(|(key, state)| Some((key, state.winner()?)))
    }
}

impl KeyState {
    fn winner(&self) -> Option<&Operation> {
        self.winner.and_then(|version| self.operations.get(&version))
    }
}

impl View for MemoryView {
    fn epoch(&self, id: &EpochId) -> Result<Option<EpochAt>, ViewError> {
        Ok(self.epochs.get(id).copied())
    }

    fn winner(&self, key: &str) -> Result<Option<Operation>, ViewError> {
        Ok(self.keys.get(key).and_then(KeyState::winner).cloned())
    }

    fn history(&self, key: &str) -> Result<Vec<Operation>, ViewError> {
        Ok(self.keys.get(key).into_iter().flat_map(|state| state.operations.values().cloned()).collect())
    }

    fn occurrences(&self, key: &str, identity: &Identity) -> Result<Vec<Operation>, ViewError> {
        let Some(state) = self.keys.get(key) else { return Ok(Vec::new()) };
        let versions = state.tokens.get(identity).into_iter().flatten();
        Ok(versions.filter_map(|version| state.operations.get(version).cloned()).collect())
    }

    fn keys(&self) -> Result<Vec<Key>, ViewError> {
        Ok(self.keys.keys().cloned().collect())
    }
}
