//! The tail: records that are durable in the log and not yet in the store, as readers see them.

use std::{collections::BTreeMap, ops::Bound, sync::Arc};

use super::store::Batch;

/// Which batch of which commit, in log order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Stamp {
    pub(super) commit: u64,
    pub(super) batch: usize,
}

/// For each key the newest batch that names it.
#[derive(Debug, Default)]
pub(super) struct Tail {
    records: BTreeMap<Vec<u8>, (Stamp, Arc<Batch>)>,
}

impl Tail {
    /// Shows a batch. Where a later one in log order names the same key, that one stays in front, whichever came first.
    pub(super) fn show(&mut self, stamp: Stamp, batch: &Arc<Batch>) {
        for key in batch.keys() {
            match self.records.get_mut(key) {
                Some(newest) if newest.0 > stamp => {}
                Some(newest) => *newest = (stamp, Arc::clone(batch)),
                None => drop(self.records.insert(key.clone(), (stamp, Arc::clone(batch)))),
            }
        }
    }

    /// Takes away the keys of a batch that the store has by now, where nothing later than `applied` is in front.
    pub(super) fn hide<'a>(&mut self, keys: impl Iterator<Item = &'a Vec<u8>>, applied: Stamp) {
        for key in keys {
            if self.records.get(key).is_some_and(|(stamp, _)| *stamp <= applied) {
                self.records.remove(key);
            }
        }
    }

    /// What the tail says of a key: a value, `Some(None)` for a removal, `None` for nothing.
    pub(super) fn get(&self, key: &[u8]) -> Option<Option<Vec<u8>>> {
        let (_, batch) = self.records.get(key)?;
        batch.get(key).cloned()
    }

    /// What the tail says of the first `max` keys at or after `from` that begin with `prefix`.
    pub(super) fn page(&self, prefix: &[u8], from: &[u8], max: usize) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
        let range = self.records.range::<[u8], _>((Bound::Included(from.max(prefix)), Bound::Unbounded));
        let inside = range.take_while(|(key, _)| key.starts_with(prefix)).take(max);
        inside.filter_map(|(key, (_, batch))| Some((key.clone(), batch.get(key)?.clone()))).collect()
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }
}
