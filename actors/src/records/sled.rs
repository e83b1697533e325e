//! The store on disk: one sled tree. The only file that knows sled.
//!
//! What sled 0.34.7 does, and what is done about it here:
//! * its `flush` writes and never syncs: [`Store::close`] syncs every file and folder itself;
//! * it may panic on damaged files: every call is guarded, and a panic is a [`StoreError`];
//! * its background thread would sync twice a second, and if it panicked, dropping the database would wait for it for
//!   ever: there is none, `flush_every_ms` is off;
//! * what it finds damaged while it looks for the end of its log, it takes for that end: batches are counted, each is
//!   flushed to the operating system, and the count stands in a file beside. A store that has fewer is not opened. What
//!   it finds damaged further back it passes over, and a page may be there as it was before: after a kill, with files
//!   that were damaged besides, a key may have an older value of its own. After a close it looks at none of that;
//! * only opening writes a snapshot of where its pages lie, without which the next opening reads the whole file:
//!   [`Store::close`] opens once more, so that the next start need not;
//! * its `Mode` is read by nobody, and values above some kilobytes go to files of their own: records stay small;
//! * it checks what it reads by CRC, page by page. Each value ends in four bytes of BLAKE3 over key and value as well.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use super::store::{Batch, Pair, Store, StoreError};
use crate::{
    disk::{Disk, DiskFile},
    failpoint,
};

/// Bytes of checksum at the end of a stored value.
const CHECK_BYTES: usize = 4;
/// A record that every such store holds: without it the files are not what was written.
const FORMAT: (&[u8], &[u8]) = (b"\0format", b"1");
/// The key of the number of batches that were applied.
const BATCHES: &[u8] = b"\0batches";
/// The file that says how many batches the operating system has, in decimal digits.
const WRITTEN: &str = "written";
const WRITTEN_DIGITS: usize = 20;
/// sled's parts may take a moment to let go of the file after the database was dropped: tries, and the pause between.
const LOCK_TRIES: u32 = 100;
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// Records in a folder of sled's files.
pub struct SledStore {
    db: RwLock<Option<sled::Db>>,
    /// Whether sled has panicked: then it is not trusted to end in an orderly way either.
    broken: AtomicBool,
    /// How many batches were applied. Held while one is.
    batches: Mutex<u64>,
    written: Arc<dyn DiskFile>,
    dir: PathBuf,
    cache_bytes: u64,
    disk: Arc<dyn Disk>,
}

impl SledStore {
    /// A new store in a folder that is not there yet. `cache_bytes` bounds sled's cache of pages.
    ///
    /// # Errors
    /// [`StoreError`] when sled cannot begin.
    pub fn create(dir: &Path, cache_bytes: u64, disk: Arc<dyn Disk>) -> Result<Self, StoreError> {
        disk.create_dir(dir).map_err(|e| no_file(dir, &e))?;
        let path = dir.join(WRITTEN);
        let written = disk.create(&path).map_err(|e| no_file(&path, &e))?;
        let store = Self::start(dir, cache_bytes, disk, written)?;
        store.apply(&Batch::from([(FORMAT.0.to_vec(), Some(FORMAT.1.to_vec()))]))?;
        Ok(store)
    }

    /// The store that lies in this folder.
    ///
    /// # Errors
    /// [`StoreError`] when files are missing or damaged.
    pub fn open(dir: &Path, cache_bytes: u64, disk: Arc<dyn Disk>) -> Result<Self, StoreError> {
        if let Some(missing) = ["conf", "db", "blobs"].into_iter().find(|name| !dir.join(name).exists()) {
            return Err(StoreError::new(format!("{} is missing", dir.join(missing).display())));
        }
        let path = dir.join(WRITTEN);
        let written = disk.open(&path).map_err(|e| no_file(&path, &e))?;
        let least = read_count(written.as_ref()).map_err(|e| no_file(&path, &e))?;
        let store = Self::start(dir, cache_bytes, disk, written)?;
        match store.get(FORMAT.0)? {
            Some(format) if format == FORMAT.1 => {}
            Some(_) => return Err(StoreError::new("the store has another format")),
            None => return Err(StoreError::new("the store has lost its records")),
        }
        let batches = store.get(BATCHES)?.and_then(|count| Some(u64::from_be_bytes(count.try_into().ok()?)));
        let batches = batches.ok_or_else(|| StoreError::new("the store does not say how far it is"))?;
        if batches < least {
            return Err(StoreError::new(format!("the store has {batches} batches of at least {least}")));
        }
        *store.batches.lock().unwrap_or_else(PoisonError::into_inner) = batches;
        Ok(store)
    }

    fn start(
        dir: &Path,
        cache_bytes: u64,
        disk: Arc<dyn Disk>,
        written: Arc<dyn DiskFile>,
    ) -> Result<Self, StoreError> {
        let broken = AtomicBool::new(false);
        let db = guarded(&broken, || open(dir, cache_bytes))?;
        let (db, batches) = (RwLock::new(Some(db)), Mutex::new(0));
        Ok(Self { db, broken, batches, written, dir: dir.to_owned(), cache_bytes, disk })
    }

    fn with<T>(&self, call: impl FnOnce(&sled::Db) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let db = self.db.read().unwrap_or_else(PoisonError::into_inner);
        let db = db.as_ref().ok_or_else(StoreError::closed)?;
        guarded(&self.broken, || call(db))
    }

    /// Lets go of the database. After a panic it is leaked: its end would touch what the panic left.
    fn release(&self, db: sled::Db) -> Result<(), StoreError> {
        if self.broken.load(Ordering::Relaxed) {
            std::mem::forget(db);
            return Err(StoreError::new("sled has panicked before"));
        }
        guarded(&self.broken, || {
            let flushed = db.flush().map(|_| ()).map_err(told);
            drop(db);
            flushed
        })
    }

    /// Makes durable what the operating system has of the files, then their names.
    fn sync(&self) -> Result<(), StoreError> {
        let blobs = self.dir.join("blobs");
        let synced = || {
            for folder in [&self.dir, &blobs] {
                for name in self.disk.list(folder)? {
                    let path = folder.join(name);
                    if path != blobs {
                        self.disk.open(&path)?.sync()?;
                    }
                }
            }
            self.disk.sync_dir(&blobs)?;
            self.disk.sync_dir(&self.dir)?;
            self.dir.parent().map_or(Ok(()), |parent| self.disk.sync_dir(parent))
        };
        synced().map_err(|e: io::Error| StoreError::new(format!("cannot sync {}: {e}", self.dir.display())))
    }
}

impl Store for SledStore {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.with(|db| db.get(key).map_err(told)?.map(|stored| checked(key, &stored)).transpose())
    }

    fn page(&self, prefix: &[u8], from: &[u8], max: usize) -> Result<Vec<Pair>, StoreError> {
        self.with(|db| {
            let mut page = Vec::new();
            for record in db.range(from.max(prefix)..).take(max) {
                let (key, stored) = record.map_err(told)?;
                if !key.starts_with(prefix) {
                    break;
                }
                page.push((key.to_vec(), checked(&key, &stored)?));
            }
            Ok(page)
        })
    }

    fn apply(&self, batch: &Batch) -> Result<(), StoreError> {
        let mut changes = sled::Batch::default();
        for (key, value) in batch {
            match value {
                Some(value) => changes.insert(key.as_slice(), with_check(key, value)),
                None => changes.remove(key.as_slice()),
            }
        }
        let mut batches = self.batches.lock().unwrap_or_else(PoisonError::into_inner);
        let count = *batches + 1;
        changes.insert(BATCHES, with_check(BATCHES, &count.to_be_bytes()));
        self.with(|db| db.apply_batch(changes).and_then(|()| db.flush()).map(drop).map_err(told))?;
        *batches = count;
        let digits = format!("{count:0WRITTEN_DIGITS$}");
        self.written.write_at(digits.as_bytes(), 0).map_err(|e| no_file(&self.dir.join(WRITTEN), &e))
    }

    fn close(&self) -> Result<(), StoreError> {
        let db = self.db.write().unwrap_or_else(PoisonError::into_inner).take().ok_or_else(StoreError::closed)?;
        self.release(db)?;
        let again = guarded(&self.broken, || open(&self.dir, self.cache_bytes))?;
        self.release(again)?;
        failpoint::reached("index.close.sync");
        self.sync()
    }
}

impl Drop for SledStore {
    fn drop(&mut self) {
        let db = self.db.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Err(error)) = db.map(|db| self.release(db)) {
            tracing::debug!(%error, "the index was not closed in an orderly way");
        }
    }
}

/// Opens sled's files, waiting a while for a database of this process that was just dropped.
fn open(dir: &Path, cache_bytes: u64) -> Result<sled::Db, StoreError> {
    let config = || sled::Config::new().path(dir).cache_capacity(cache_bytes).flush_every_ms(None);
    for _ in 1..LOCK_TRIES {
        match config().open() {
            Err(sled::Error::Io(e)) if e.to_string().contains("could not acquire lock") => thread::sleep(LOCK_PAUSE),
            opened => return opened.map_err(told),
        }
    }
    config().open().map_err(told)
}

/// Calls sled, and takes a panic for an error.
fn guarded<T>(broken: &AtomicBool, call: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|panic| {
        broken.store(true, Ordering::Relaxed);
        let words = panic.downcast_ref::<String>().map(String::as_str);
        let words = words.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no words");
        Err(StoreError::new(format!("sled panicked: {words}")))
    })
}

#[expect(clippy::needless_pass_by_value, reason = "the shape of map_err")]
fn told(error: sled::Error) -> StoreError {
    StoreError::new(format!("sled: {error}"))
}

fn no_file(path: &Path, error: &io::Error) -> StoreError {
    StoreError::new(format!("{}: {error}", path.display()))
}

fn read_count(file: &dyn DiskFile) -> io::Result<u64> {
    let mut digits = [0; WRITTEN_DIGITS];
    let read = file.read_at(&mut digits, 0)?;
    let count = str::from_utf8(&digits[..read]).ok().filter(|_| read == WRITTEN_DIGITS);
    count.and_then(|count| count.parse().ok()).ok_or_else(|| io::Error::other("it holds no number"))
}

fn check(key: &[u8], value: &[u8]) -> [u8; CHECK_BYTES] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(key.len() as u64).to_be_bytes()).update(key).update(value);
    let mut check = [0; CHECK_BYTES];
    hasher.finalize_xof().fill(&mut check);
    check
}

fn with_check(key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut stored = Vec::with_capacity(value.len() + CHECK_BYTES);
    stored.extend_from_slice(value);
    stored.extend_from_slice(&check(key, value));
    stored
}

/// The value in what was stored for this key.
fn checked(key: &[u8], stored: &[u8]) -> Result<Vec<u8>, StoreError> {
    match stored.split_last_chunk::<CHECK_BYTES>() {
        Some((value, found)) if *found == check(key, value) => Ok(value.to_vec()),
        _ => Err(StoreError::new("a record is not what was written")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::OsDisk;

    #[test]
    fn a_value_that_was_changed_underneath_is_an_error_and_not_an_answer() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let store = SledStore::create(&dir.path().join("db"), 1 << 20, Arc::new(OsDisk)).expect("created");
        store.apply(&Batch::from([(b"key".to_vec(), Some(b"value".to_vec()))])).expect("applied");
        assert_eq!(store.get(b"key"), Ok(Some(b"value".to_vec())));
        let stored = store.with(|db| db.get(b"key").map_err(told)).expect("read").expect("there");
        for i in 0..stored.len() {
            let mut wrong = stored.to_vec();
            wrong[i] ^= 1;
            store.with(|db| db.insert(b"key", wrong).map_err(told)).expect("written");
            assert!(store.get(b"key").is_err(), "byte {i}");
            assert!(store.page(b"k", b"", 10).is_err(), "byte {i}");
        }
        store.with(|db| db.insert(b"other", stored).map_err(told)).expect("written");
        assert!(store.get(b"other").is_err(), "the value of another key");
    }

    #[test]
    fn a_panic_inside_is_an_error() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let store = SledStore::create(&dir.path().join("db"), 1 << 20, Arc::new(OsDisk)).expect("created");
        let error = store.with::<()>(|_| panic!("what now")).expect_err("guarded");
        assert_eq!(error.to_string(), "sled panicked: what now");
        assert!(store.close().is_err(), "never closed as if nothing had happened");
    }
}
