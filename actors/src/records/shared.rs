//! What readers, writers and the index thread share, and the order in which they touch it.
//!
//! Locks are taken in the order queue, tail. The store is never called under either.

use std::{
    fmt,
    path::PathBuf,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock},
};

use super::{
    queue::Queue,
    room::{Places, Room},
    store::{Batch, Store, StoreError},
    tail::{Stamp, Tail},
    trust::Trust,
};
use crate::disk::Disk;

pub(super) struct Shared {
    pub(super) store: Arc<dyn Store>,
    pub(super) tail: RwLock<Tail>,
    pub(super) progress: Mutex<Progress>,
    /// Something changed that the thread may wait for.
    pub(super) wake: Condvar,
    /// Something was applied, or never will be.
    pub(super) applied: Condvar,
    pub(super) places: Arc<Places>,
    /// `None` for a store that does not outlive the process.
    pub(super) trust: Option<Trust>,
    /// Where the store takes its bytes from; `None` for a store that takes none.
    pub(super) disk: Option<Space>,
    failure: Mutex<Option<StoreError>>,
}

/// The disk that the store takes its bytes from.
pub(super) struct Space {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) dir: PathBuf,
    pub(super) free_bytes_min: u64,
}

/// Where the way from log to store stands.
#[derive(Debug, Default)]
pub(super) struct Progress {
    pub(super) queue: Queue,
    /// How many commits are wholly in the store.
    pub(super) applied: u64,
    /// How many wait for that: then no batch waits for more records.
    pub(super) hurried: u32,
    pub(super) end: Option<End>,
}

/// How the thread is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// When everything filled is applied.
    Drained,
    /// At once, as if the process were killed.
    Abandoned,
    /// At once, because of a failure.
    Failed,
}

impl Shared {
    pub(super) fn new(store: Arc<dyn Store>, trust: Option<Trust>, disk: Option<Space>) -> Self {
        Self {
            store,
            tail: RwLock::default(),
            progress: Mutex::default(),
            wake: Condvar::new(),
            applied: Condvar::new(),
            places: Arc::new(Places::new()),
            trust,
            disk,
            failure: Mutex::default(),
        }
    }

    pub(super) fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows the records of a commit to readers, all at once, and hands them to the thread.
    pub(super) fn fill(&self, number: u64, mut room: Room, batches: Vec<Batch>) -> Result<(), StoreError> {
        let records = batches.iter().map(Batch::len).sum();
        let sizes = batches.iter().flatten().map(|(key, value)| key.len() + value.as_ref().map_or(0, Vec::len));
        room.grow(records, sizes.sum());
        let batches: Vec<_> = batches.into_iter().map(Arc::new).collect();
        let mut progress = self.progress();
        if matches!(progress.end, Some(End::Drained | End::Abandoned)) {
            return Err(StoreError::closed());
        }
        let mut tail = self.tail.write().unwrap_or_else(PoisonError::into_inner);
        for (batch, records) in batches.iter().enumerate() {
            tail.show(Stamp { commit: number, batch }, records);
        }
        drop(tail);
        progress.queue.fill(number, batches, room);
        drop(progress);
        self.wake.notify_all();
        self.check()
    }

    /// The value of a key: first what the tail says, then the store, which has by then what the tail has lost.
    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let tail = self.tail.read().unwrap_or_else(PoisonError::into_inner).get(key);
        match tail {
            Some(value) => Ok(value),
            None => self.told(self.store.get(key)),
        }
    }

    /// Passes a result of the store on. An error ends the way from log to store.
    pub(super) fn told<T>(&self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        result.inspect_err(|error| {
            if self.progress().end.is_none() {
                self.fail(error);
            }
        })
    }

    /// Ends the way from log to store: nothing more is applied, nobody gets room, the next start begins anew. The first
    /// failure counts.
    pub(super) fn fail(&self, error: &StoreError) {
        {
            let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
            if failure.is_some() {
                return;
            }
            *failure = Some(error.clone());
        }
        tracing::error!(%error, "the index has failed; the next start makes it anew");
        if let Some(trust) = &self.trust {
            trust.distrust();
        }
        self.places.close();
        self.end(End::Failed);
    }

    pub(super) fn failure(&self) -> Option<StoreError> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn check(&self) -> Result<(), StoreError> {
        self.failure().map_or(Ok(()), Err)
    }

    /// Has the thread end, if it was not told to before. A failure ends it at once in any case.
    pub(super) fn end(&self, how: End) {
        let mut progress = self.progress();
        if progress.end.is_none() || how == End::Failed {
            progress.end = Some(how);
        }
        drop(progress);
        self.wake.notify_all();
        self.applied.notify_all();
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("failure", &self.failure()).finish_non_exhaustive()
    }
}
