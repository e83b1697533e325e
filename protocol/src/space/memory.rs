//! A view in memory: the twin of every other index, and the oracle for it.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    effect::{Change, NewEpoch},
    view::{EpochAt, View, ViewError},
};
use crate::{
    dag::{Branch, Place},
    id::{Address, EpochId, Identity, Key},
    kv::{Operation, Version},
};

/// The index of one space, in memory. Taking a change in twice is the same as once.
#[derive(Debug, Clone, Default)]
pub struct MemoryView {
    epochs: BTreeMap<EpochId, EpochAt>,
    keys: BTreeMap<Key, KeyState>,
    branches: Vec<Branch>,
    delegations: BTreeMap<Address, Vec<(Place, u16)>>,
    revoking: Vec<EpochId>,
}

/// A key's operations. Most keys have one or two, so they lie in a plain list.
#[derive(Debug, Clone, Default)]
struct KeyState {
    /// Ascending by version.
    operations: Vec<Operation>,
    winner: Option<Version>,
    /// Of a long history, what each token did: asked for on every write.
    tokens: BTreeMap<Identity, Vec<Version>>,
}

/// Operations of a key from which on its tokens are kept in a map.
const LONG_HISTORY: usize = 16;

impl MemoryView {
    /// Takes a change in.
    pub fn absorb(&mut self, change: &Change) {
        match change {
            Change::Epoch(epoch) => self.insert(epoch),
            Change::Delegation { address, place, event, .. } => {
                let places = self.delegations.entry(*address).or_default();
                if !places.contains(&(*place, *event)) {
                    places.push((*place, *event));
                }
            }
            Change::Dead { .. } => {}
            Change::Operation(operation) => self.keys.entry(operation.key.clone()).or_default().insert(operation),
            Change::Winner { key, winner } => {
                let state = self.keys.entry(key.clone()).or_default();
                state.winner = winner.as_ref().map(|winner| winner.version);
            }
        }
    }

    fn insert(&mut self, epoch: &NewEpoch) {
        if self.epochs.insert(epoch.id, epoch.at()).is_some() {
            return;
        }
        let place = epoch.inserted.place;
        let number = place.branch as usize;
        if number == self.branches.len() {
            self.branches.push(epoch.begins());
        }
        epoch.extends(&mut self.branches[number]);
        for ended in &epoch.inserted.ended {
            self.branches[*ended as usize].is_head = false;
        }
        if epoch.revokes {
            self.revoking.push(epoch.id);
        }
    }

    /// The branches, by number.
    #[must_use]
    pub fn branches(&self) -> &[Branch] {
        &self.branches
    }

    /// The delegations, with the epochs and events in which their bytes stand.
    #[must_use]
    pub fn delegations(&self) -> &BTreeMap<Address, Vec<(Place, u16)>> {
        &self.delegations
    }

    /// The epochs with revocations, ancestors first.
    #[must_use]
    pub fn revoking(&self) -> &[EpochId] {
        &self.revoking
    }

    /// Every key that ever had an operation, in byte order.
    pub fn keys(&self) -> impl Iterator<Item = &Key> {
        self.keys.keys()
    }

    /// The keys after `after` in byte order, with their winners; keys without one are left out.
    pub fn entries(&self, from: Option<&str>) -> impl Iterator<Item = (&Key, &Operation)> {
        let start = from.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Included);
        let range = self.keys.range::<str, _>((start, std::ops::Bound::Unbounded));
        range.filter_map(|(key, state)| Some((key, state.winner()?)))
    }
}

impl KeyState {
    fn insert(&mut self, operation: &Operation) {
        let Err(at) = self.place(&operation.version) else { return };
        self.operations.insert(at, operation.clone());
        match self.operations.len() {
            ..LONG_HISTORY => {}
            LONG_HISTORY => {
                for known in &self.operations {
                    self.tokens.entry(known.identity).or_default().push(known.version);
                }
            }
            _ => self.tokens.entry(operation.identity).or_default().push(operation.version),
        }
    }

    fn place(&self, version: &Version) -> Result<usize, usize> {
        self.operations.binary_search_by(|known| known.version.cmp(version))
    }

    fn get(&self, version: &Version) -> Option<&Operation> {
        self.place(version).ok().and_then(|at| self.operations.get(at))
    }

    fn winner(&self) -> Option<&Operation> {
        self.winner.and_then(|version| self.get(&version))
    }

    fn occurrences(&self, identity: &Identity) -> Vec<Operation> {
        if self.operations.len() < LONG_HISTORY {
            return self.operations.iter().filter(|known| known.identity == *identity).cloned().collect();
        }
        let versions = self.tokens.get(identity).into_iter().flatten();
        versions.filter_map(|version| self.get(version).cloned()).collect()
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
        Ok(self.keys.get(key).map(|state| state.operations.clone()).unwrap_or_default())
    }

    fn occurrences(&self, key: &str, identity: &Identity) -> Result<Vec<Operation>, ViewError> {
        Ok(self.keys.get(key).map(|state| state.occurrences(identity)).unwrap_or_default())
    }

    fn keys_under(&self, affected: &dyn Fn(&Address) -> bool) -> Result<BTreeSet<Key>, ViewError> {
        let is_under = |state: &&KeyState| state.operations.iter().any(|op| op.standing.roots().any(affected));
        Ok(self.keys.iter().filter(|(_, state)| is_under(state)).map(|(key, _)| key.clone()).collect())
    }
}
