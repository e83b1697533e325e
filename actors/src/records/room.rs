//! Room in the tail: what bounds the records that are durable in the log and not yet in the store.
//!
//! A place is one record, or 2 KiB where a commit's records are larger on average; 4,096 places are 8 MiB. Places are
//! taken by number of records before a commit goes to the log. Its bytes are known only when it is filled: what they
//! need beyond is taken then without waiting, so the tail exceeds its bytes by no more than the commits that were on
//! their way, and nobody else gets a place until that is made good.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Semaphore;

/// Places in the tail.
pub const TAIL_RECORDS_MAX: u32 = 4096;
/// Bytes of key and value that one place stands for: 8 MiB over all.
pub const PLACE_BYTES: usize = 2048;

/// The places of one tail.
#[derive(Debug)]
pub(super) struct Places {
    free: Semaphore,
    /// Places in use beyond those there are.
    debt: Mutex<u32>,
}

/// Places that one commit holds, until it stands in the store or is given up.
#[derive(Debug)]
pub struct Room {
    places: Arc<Places>,
    held: u32,
}

impl Places {
    pub(super) fn new() -> Self {
        Self { free: Semaphore::new(TAIL_RECORDS_MAX as usize), debt: Mutex::new(0) }
    }

    /// Waits, first come first served, for so many places, or for all of them if a commit needs more than there are.
    /// `None` after [`Places::close`].
    pub(super) async fn take(self: Arc<Self>, records: u32) -> Option<Room> {
        let held = records.min(TAIL_RECORDS_MAX);
        self.free.acquire_many(held).await.ok()?.forget();
        Some(Room { places: self, held })
    }

    /// Nobody gets room any more, and who waits for it is told.
    pub(super) fn close(&self) {
        self.free.close();
    }

    fn give_back(&self, places: u32) {
        let mut debt = self.debt.lock().unwrap_or_else(PoisonError::into_inner);
        let paid = places.min(*debt);
        *debt -= paid;
        self.free.add_permits((places - paid) as usize);
    }
}

impl Room {
    /// Parts with so many places, if there are as many and one more.
    pub(super) fn split(&mut self, places: usize) -> Option<Self> {
        let places = u32::try_from(places).ok().filter(|places| *places < self.held)?;
        self.held -= places;
        Some(Self { places: Arc::clone(&self.places), held: places })
    }

    /// Takes what a commit needs beyond what it asked for. It does not wait: the commit is in the log already.
    pub(super) fn grow(&mut self, records: usize, bytes: usize) {
        let needed = u32::try_from(records.max(bytes.div_ceil(PLACE_BYTES))).unwrap_or(u32::MAX);
        let more = needed.min(TAIL_RECORDS_MAX).saturating_sub(self.held);
        let mut debt = self.places.debt.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = self.places.free.forget_permits(more as usize);
        *debt += more - taken as u32; // taken is at most more
        self.held += more;
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.places.give_back(self.held);
    }
}
