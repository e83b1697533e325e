//! What the state machine reads of what is durable, and the same with changes not yet durable on top.

use std::collections::{BTreeMap, BTreeSet};

use super::effect::Change;
use crate::{
    dag::Place,
    id::{Address, EpochId, Identity, Key},
    kv::Operation,
};

/// Reading the index failed; the call changed nothing and the actor stops.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the index cannot be read: {0}")]
pub struct ViewError(pub String);

/// Where a held epoch stands, and its clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EpochAt {
    /// Its place in the DAG.
    pub place: Place,
    /// Its hybrid logical clock.
    pub seq: u64,
}

/// The durable state of one space, as its index answers.
pub trait View {
    /// Where this epoch stands, `None` if it is not held.
    ///
    /// # Errors
    /// [`ViewError`] when the index cannot be read; so for each call.
    fn epoch(&self, id: &EpochId) -> Result<Option<EpochAt>, ViewError>;

    /// The operation that wins this key, a tombstone included.
    ///
    /// # Errors
    /// As above.
    fn winner(&self, key: &str) -> Result<Option<Operation>, ViewError>;

    /// Every operation on this key that is not dead, ascending by version.
    ///
    /// # Errors
    /// As above.
    fn history(&self, key: &str) -> Result<Vec<Operation>, ViewError>;

    /// Those of the key's operations that this token did.
    ///
    /// # Errors
    /// As above.
    fn occurrences(&self, key: &str, identity: &Identity) -> Result<Vec<Operation>, ViewError>;

    /// The keys of all operations that stand on a delegation for which `affected` holds. It may name more keys than
    /// that: the caller judges each.
    ///
    /// # Errors
    /// As above.
    fn keys_under(&self, affected: &dyn Fn(&Address) -> bool) -> Result<BTreeSet<Key>, ViewError>;
}

/// A view with changes on top that are not durable yet.
pub(super) struct Overlay<'a> {
    below: &'a dyn View,
    epochs: BTreeMap<EpochId, EpochAt>,
    operations: BTreeMap<Key, Vec<Operation>>,
    winners: BTreeMap<Key, Option<Operation>>,
}

impl<'a> Overlay<'a> {
    pub(super) fn new(below: &'a dyn View) -> Self {
        Self { below, epochs: BTreeMap::new(), operations: BTreeMap::new(), winners: BTreeMap::new() }
    }

    pub(super) fn absorb(&mut self, change: &Change) {
        match change {
            Change::Epoch(epoch) => drop(self.epochs.insert(epoch.id, epoch.at())),
            Change::Delegation { .. } | Change::Dead { .. } => {}
            Change::Operation(operation) => {
                self.operations.entry(operation.key.clone()).or_default().push(operation.clone());
            }
            Change::Winner { key, winner } => drop(self.winners.insert(key.clone(), winner.clone())),
        }
    }
}

impl View for Overlay<'_> {
    fn epoch(&self, id: &EpochId) -> Result<Option<EpochAt>, ViewError> {
        match self.epochs.get(id) {
            Some(at) => Ok(Some(*at)),
            None => self.below.epoch(id),
        }
    }

    fn winner(&self, key: &str) -> Result<Option<Operation>, ViewError> {
        match self.winners.get(key) {
            Some(winner) => Ok(winner.clone()),
            None => self.below.winner(key),
        }
    }

    fn history(&self, key: &str) -> Result<Vec<Operation>, ViewError> {
        let mut history = self.below.history(key)?;
        if let Some(added) = self.operations.get(key) {
            history.extend(added.iter().cloned());
            history.sort_by_key(|operation| operation.version);
            // An index that was cut off within a commit holds some of its operations already.
            history.dedup_by_key(|operation| operation.version);
        }
        Ok(history)
    }

    fn occurrences(&self, key: &str, identity: &Identity) -> Result<Vec<Operation>, ViewError> {
        let mut found = self.below.occurrences(key, identity)?;
        let added = self.operations.get(key).into_iter().flatten();
        let new = |operation: &&Operation| {
            operation.identity == *identity && found.iter().all(|known| known.version != operation.version)
        };
        let added: Vec<_> = added.filter(new).cloned().collect();
        found.extend(added);
        Ok(found)
    }

    fn keys_under(&self, affected: &dyn Fn(&Address) -> bool) -> Result<BTreeSet<Key>, ViewError> {
        let mut keys = self.below.keys_under(affected)?;
        let added = self.operations.values().flatten().filter(|operation| operation.standing.roots().any(affected));
        keys.extend(added.map(|operation| operation.key.clone()));
        Ok(keys)
    }
}
