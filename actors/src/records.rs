//! The bottom of the index: byte records in order of key, fed from the log.
//!
//! A commit is durable once it is in the log. Its records are then shown to readers from the **tail**, in memory, and
//! one thread carries them to the **store** on disk, in log order, a batch at a time. Each batch carries the **covered
//! mark**: the log's position up to which the store has everything. Nothing is promised about durability: after a
//! crash the log is replayed from the mark.
//!
//! What holds, and is tested:
//! * a reader sees the newest records of all filled commits, in log order, in whatever order they were filled;
//! * the store is the result of all commits up to the mark, and of later ones at most whole first batches of a commit
//!   that has several;
//! * a store that may not be whole is never read: it is removed, and the caller told to replay the log from its
//!   beginning;
//! * an error or a panic of the store ends the index, never the process, and is never an answer.

use std::{
    io,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use crate::{
    disk::{Disk, OsDisk},
    failpoint,
};

mod applier;
mod block;
mod memory;
mod queue;
mod room;
mod scan;
mod shared;
mod sled;
mod slot;
mod store;
mod tail;
#[cfg(test)]
mod tests;
mod trust;

pub use self::sled::SledStore;
pub use memory::MemoryStore;
pub use room::{PLACE_BYTES, Room, TAIL_RECORDS_MAX};
pub use scan::Scan;
pub use slot::Slot;
pub use store::{Batch, Pair, Store, StoreError};
pub use trust::Reason;

use shared::{End, Shared};
use trust::{Left, Trust};

/// The key of the covered mark. Keys that begin with a zero byte are the index's own.
const MARK: &[u8] = b"\0covered";
/// The least key that is not the index's own.
const FIRST: &[u8] = &[1];

/// What is left free on the disk, unless somebody says otherwise.
const FREE_BYTES_MIN: u64 = 32 * 1024 * 1024;

/// How records are opened. The default is what a node uses.
#[derive(Debug, Clone)]
pub struct RecordsOptions {
    /// What the store's cache may take, in bytes.
    pub cache_bytes: u64,
    /// The id of the machine's present boot. With `None` only an index that was closed is trusted.
    pub boot_id: Option<String>,
    /// What must be free on the disk before a batch is applied, in bytes: sled does not survive a full disk, and a batch
    /// dirties a few MiB of pages at most.
    pub free_bytes_min: u64,
    /// The file operations, beside those of the store itself.
    pub disk: Arc<dyn Disk>,
}

impl Default for RecordsOptions {
    fn default() -> Self {
        Self {
            cache_bytes: 64 * 1024 * 1024,
            boot_id: trust::boot_id(),
            free_bytes_min: FREE_BYTES_MIN,
            disk: Arc::new(OsDisk),
        }
    }
}

/// What was found in the folder of an index.
#[derive(Debug)]
pub struct Opened {
    /// The records.
    pub records: Records,
    /// The mark of the last commit in the store: the log is replayed from behind it, or from its beginning if there is
    /// none.
    pub covered: Option<Vec<u8>>,
    /// Why the store was begun anew, if it was. What was there before is gone.
    pub fresh: Option<Reason>,
}

/// The records. Clones are the same records; when the last is dropped without [`Records::close`], the store is left as
/// by a process that was killed.
#[derive(Debug, Clone)]
pub struct Records {
    handle: Arc<Handle>,
}

#[derive(Debug)]
struct Handle {
    shared: Arc<Shared>,
    thread: Mutex<Option<thread::JoinHandle<()>>>,
}

impl Records {
    /// Opens the index in this folder, which is there. One process at a time: the data folder's lock sees to it.
    ///
    /// # Errors
    /// [`StoreError`] when not even a new index can be begun.
    pub fn open(dir: &Path, options: &RecordsOptions) -> Result<Opened, StoreError> {
        let trust = Trust::new(dir, Arc::clone(&options.disk), options.boot_id.clone());
        let found = trust.read().and_then(|left| reopen(&trust, &left, options));
        let (store, covered, fresh) = match found {
            Ok((store, covered)) => (store, covered, None),
            Err(reason) => {
                trust.remove().map_err(cannot("remove the old index"))?;
                trust.open().map_err(cannot("write the index's state file"))?;
                let store = SledStore::create(&trust.db(), options.cache_bytes, Arc::clone(&options.disk))?;
                (store, None, Some(reason))
            }
        };
        let disk = shared::Space {
            disk: Arc::clone(&options.disk),
            dir: dir.to_owned(),
            free_bytes_min: options.free_bytes_min,
        };
        let records = Self::start(Shared::new(Arc::new(store), Some(trust), Some(disk)))?;
        Ok(Opened { records, covered, fresh })
    }

    /// Records over this store, which nobody else writes. What outlives the process is not judged.
    ///
    /// # Errors
    /// [`StoreError`] when there can be no thread.
    pub fn over(store: Arc<dyn Store>) -> Result<Self, StoreError> {
        Self::start(Shared::new(store, None, None))
    }

    fn start(shared: Shared) -> Result<Self, StoreError> {
        let shared = Arc::new(shared);
        let theirs = Arc::clone(&shared);
        let thread = thread::Builder::new().name("index".into()).spawn(move || applier::run(&theirs));
        let thread = Mutex::new(Some(thread.map_err(cannot("start the index thread"))?));
        Ok(Self { handle: Arc::new(Handle { shared, thread }) })
    }

    /// The value of a key.
    ///
    /// # Errors
    /// [`StoreError`] when the store cannot tell: then the index has failed.
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.shared().get(key)
    }

    /// The records at or after `from` whose keys begin with `prefix`, ascending.
    #[must_use]
    pub fn scan(&self, prefix: &[u8], from: &[u8]) -> Scan {
        Scan::new(Arc::clone(self.shared()), prefix, from.max(FIRST))
    }

    /// Room for a commit of about so many records, before it goes to the log. Waits while the tail is full; first come,
    /// first served.
    ///
    /// # Errors
    /// The [`StoreError`] that ended the index.
    pub async fn room(&self, records: u32) -> Result<Room, StoreError> {
        let room = Arc::clone(&self.shared().places).take(records).await;
        room.ok_or_else(|| self.failure().unwrap_or_else(StoreError::closed))
    }

    /// [`Records::room`] for a thread that may block.
    ///
    /// # Errors
    /// The [`StoreError`] that ended the index.
    pub fn room_blocking(&self, records: u32) -> Result<Room, StoreError> {
        block::on(self.room(records))
    }

    /// Writes records that belong to no commit, behind all commits that have a place by now. Blocks while the tail is
    /// full. They are gone when a start begins anew, and may be gone after any crash.
    ///
    /// # Errors
    /// The [`StoreError`] that ended the index.
    pub fn write_aside(&self, batch: Batch) -> Result<(), StoreError> {
        let room = self.room_blocking(u32::try_from(batch.len()).unwrap_or(u32::MAX))?;
        self.begin(Vec::new()).fill(room, vec![batch])
    }

    /// The mark of the last commit that is wholly in the store.
    ///
    /// # Errors
    /// [`StoreError`] when the store cannot tell.
    pub fn covered(&self) -> Result<Option<Vec<u8>>, StoreError> {
        self.shared().told(self.shared().store.get(MARK))
    }

    /// The place of the next commit: called in log order. `mark` is the log's position after the commit, empty if it moves
    /// nothing. Never waits.
    pub fn begin(&self, mark: Vec<u8>) -> Slot {
        let number = self.shared().progress().queue.begin(mark);
        Slot::new(Arc::clone(self.shared()), number)
    }

    /// Returns when the store has every commit that is filled now and waits for no unfilled one before it.
    ///
    /// # Errors
    /// The [`StoreError`] that ended the index.
    pub fn settle(&self) -> Result<(), StoreError> {
        let shared = self.shared();
        let mut progress = shared.progress();
        let goal = progress.queue.filled();
        progress.hurried += 1;
        shared.wake.notify_all();
        let waits = |progress: &mut shared::Progress| progress.end.is_none() && progress.applied < goal;
        let mut progress = shared.applied.wait_while(progress, waits).unwrap_or_else(PoisonError::into_inner);
        progress.hurried -= 1;
        let settled = progress.applied >= goal;
        drop(progress);
        shared.check()?;
        if settled { Ok(()) } else { Err(StoreError::closed()) }
    }

    /// Why nothing is applied any more, if so.
    #[must_use]
    pub fn failure(&self) -> Option<StoreError> {
        self.shared().failure()
    }

    /// Has the next start begin anew, durably. What is open goes on.
    pub fn distrust(&self) {
        if let Some(trust) = &self.shared().trust {
            trust.distrust();
        }
    }

    /// The log has been replayed to its end: whatever is left of a former store is removed.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be removed; the index is as good as before.
    pub fn rebuilt(&self) -> Result<(), StoreError> {
        let trust = self.shared().trust.as_ref();
        trust.map_or(Ok(()), Trust::remove_aside).map_err(cannot("remove what is left of the old index"))
    }

    /// Applies what is filled, makes the store durable and says so. On a disk without room it does not wait for any:
    /// the rest is found in the log at the next start. Later calls fail.
    ///
    /// # Errors
    /// [`StoreError`]: then the next start begins anew.
    pub fn close(&self) -> Result<(), StoreError> {
        let shared = self.shared();
        shared.places.close();
        shared.end(End::Drained);
        if !self.handle.join() {
            return Err(self.failure().unwrap_or_else(StoreError::closed));
        }
        shared.check()?;
        let closed = || {
            let mark = shared.store.get(MARK)?;
            shared.store.close()?;
            failpoint::reached("index.close.state");
            let Some(trust) = &shared.trust else { return Ok(()) };
            trust.closed(mark.as_deref()).map_err(cannot("write the index's state file"))
        };
        closed().inspect_err(|error| shared.fail(error))
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.handle.shared
    }
}

impl Handle {
    /// Waits for the thread's end; false if somebody has done so.
    fn join(&self) -> bool {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        thread.is_some_and(|thread| {
            if thread.join().is_err() {
                tracing::error!("the index thread panicked");
            }
            true
        })
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.end(End::Abandoned);
        self.join();
    }
}

/// Opens a store that may be believed, and looks whether it is what its state file says. From here on that file says
/// `open`: opening alone writes.
fn reopen(trust: &Trust, left: &Left, options: &RecordsOptions) -> Result<(SledStore, Option<Vec<u8>>), Reason> {
    trust.open().map_err(cannot("write the index's state file")).map_err(Reason::Damaged)?;
    let store =
        SledStore::open(&trust.db(), options.cache_bytes, Arc::clone(&options.disk)).map_err(Reason::Damaged)?;
    let covered = store.get(MARK).map_err(Reason::Damaged)?;
    match left {
        Left::Closed(mark) if *mark != trust::spelled(covered.as_deref()) => {
            Err(Reason::Damaged(StoreError::new("the store has lost its last records")))
        }
        Left::Closed(_) | Left::Open => Ok((store, covered)),
    }
}

fn cannot(what: &'static str) -> impl FnOnce(io::Error) -> StoreError {
    move |error| StoreError::new(format!("cannot {what}: {error}"))
}
