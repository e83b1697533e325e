//! A walk over the records in order of key: the tail merged over the store, a page at a time.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, PoisonError},
};

use super::{
    shared::Shared,
    store::{Pair, StoreError},
};

/// Records looked at together.
pub(super) const PAGE_RECORDS: usize = 128;

/// Records in order of key. Each page is what stood there when it was read; between two pages anything may have changed.
/// After an error there is nothing more.
#[derive(Debug)]
pub struct Scan {
    shared: Arc<Shared>,
    prefix: Vec<u8>,
    /// Where the next page begins; `None` after the last.
    next: Option<Vec<u8>>,
    page: VecDeque<Pair>,
}

impl Scan {
    pub(super) fn new(shared: Arc<Shared>, prefix: &[u8], from: &[u8]) -> Self {
        Self { shared, prefix: prefix.to_vec(), next: Some(from.to_vec()), page: VecDeque::new() }
    }

    /// Looks at the tail first and at the store afterwards: what the thread moved in between is met twice, never missed.
    fn read(&mut self, from: &[u8]) -> Result<(), StoreError> {
        let tail = {
            let tail = self.shared.tail.read().unwrap_or_else(PoisonError::into_inner);
            tail.page(&self.prefix, from, PAGE_RECORDS)
        };
        let store = self.shared.told(self.shared.store.page(&self.prefix, from, PAGE_RECORDS))?;
        // Beyond the end of a full page one of the two has not been heard.
        let tail_end = tail.get(PAGE_RECORDS - 1).map(|(key, _)| key.clone());
        let store_end = store.get(PAGE_RECORDS - 1).map(|(key, _)| key.clone());
        let end = match (tail_end, store_end) {
            (Some(tail), Some(store)) => Some(tail.min(store)),
            (one, other) => one.or(other),
        };
        let mut page: BTreeMap<_, _> = store.into_iter().map(|(key, value)| (key, Some(value))).collect();
        page.extend(tail);
        let heard = page.into_iter().take_while(|(key, _)| end.as_ref().is_none_or(|end| key <= end));
        self.page = heard.filter_map(|(key, value)| Some((key, value?))).collect();
        self.next = end.map(|mut end| {
            end.push(0);
            end
        });
        Ok(())
    }
}

impl Iterator for Scan {
    type Item = Result<Pair, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.page.is_empty() {
            let from = self.next.take()?;
            if let Err(error) = self.read(&from) {
                return Some(Err(error));
            }
        }
        self.page.pop_front().map(Ok)
    }
}
