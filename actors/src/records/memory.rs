//! A store in memory: for tests, and the measure of the one on disk.

use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{PoisonError, RwLock, RwLockReadGuard},
};

use super::store::{Batch, Pair, Store, StoreError};

/// Records in an ordered map. It forgets everything when it is dropped.
#[derive(Debug, Default)]
pub struct MemoryStore {
    records: RwLock<Option<BTreeMap<Vec<u8>, Vec<u8>>>>,
}

impl MemoryStore {
    /// A store without records.
    #[must_use]
    pub fn new() -> Self {
        Self { records: RwLock::new(Some(BTreeMap::new())) }
    }

    fn records(&self) -> RwLockReadGuard<'_, Option<BTreeMap<Vec<u8>, Vec<u8>>>> {
        self.records.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for MemoryStore {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let records = self.records();
        Ok(records.as_ref().ok_or_else(StoreError::closed)?.get(key).cloned())
    }

    fn page(&self, prefix: &[u8], from: &[u8], max: usize) -> Result<Vec<Pair>, StoreError> {
        let records = self.records();
        let records = records.as_ref().ok_or_else(StoreError::closed)?;
        let range = records.range::<[u8], _>((Bound::Included(from.max(prefix)), Bound::Unbounded));
        let inside = range.take_while(|(key, _)| key.starts_with(prefix)).take(max);
        Ok(inside.map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    fn apply(&self, batch: &Batch) -> Result<(), StoreError> {
        let mut records = self.records.write().unwrap_or_else(PoisonError::into_inner);
        let records = records.as_mut().ok_or_else(StoreError::closed)?;
        for (key, value) in batch {
            match value {
                Some(value) => records.insert(key.clone(), value.clone()),
                None => records.remove(key),
            };
        }
        Ok(())
    }

    fn close(&self) -> Result<(), StoreError> {
        let mut records = self.records.write().unwrap_or_else(PoisonError::into_inner);
        records.take().map(drop).ok_or_else(StoreError::closed)
    }
}
