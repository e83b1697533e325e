//! Large blobs: values above 256 KiB, one file each, named by their hash.
//!
//! A value is streamed to a staging file while it is hashed, synced, and renamed into place; the name is durable before
//! anyone hears of it. Who may still need a file is known by its **leases** here and by the references of the index;
//! making and removing a file of one hash exclude each other.
//!
//! A value that comes from peers is collected in a partial file instead, group by group, and goes on where it was after a
//! restart.
//!
//! The rule for an upload: commit the entry, let readers see it, then [`Staged::keep`]; keep also after
//! [`AppendError::Failed`](crate::log::AppendError::Failed), because the epoch may turn up after a restart. The next
//! [`Blobs::sweep`] then decides.

use std::{
    collections::BTreeMap,
    fmt, fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use kvspace_protocol::id::BlobHash;

use crate::disk::{Disk, OsDisk};

mod disk;
mod groups;
mod partial;
mod staging;
#[cfg(test)]
mod tests;

pub(crate) use groups::Groups;
pub(crate) use partial::Partial;
pub use staging::Upload;
pub(crate) use staging::blocking;

/// The values that have a file in this folder of blobs, ascending.
///
/// # Errors
/// As the file system reports them.
pub fn list(dir: &Path) -> io::Result<Vec<BlobHash>> {
    disk::hashes(&OsDisk, dir)
}

/// The file of a value in this folder of blobs: `ab/abcdef…`.
#[must_use]
pub fn file_of(dir: &Path, hash: &BlobHash) -> PathBuf {
    disk::path_of(dir, hash)
}

/// The names of unfinished uploads in this folder of blobs.
///
/// # Errors
/// As the file system reports them.
pub fn unfinished(dir: &Path) -> io::Result<Vec<String>> {
    match OsDisk.list(&dir.join("staging")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        names => names,
    }
}

/// What must stay free on the disk: twice the log's own need, so that large values are refused before commits are.
const RESERVE_BYTES: u64 = 256 * 1024 * 1024;

/// How blobs are kept. The default is what a node uses.
#[derive(Debug, Clone)]
pub struct BlobOptions {
    /// Bytes that must stay free on the disk; an upload beyond fails with [`io::ErrorKind::StorageFull`].
    pub reserve_bytes: u64,
    /// The file operations.
    pub disk: Arc<dyn Disk>,
}

impl Default for BlobOptions {
    fn default() -> Self {
        Self { reserve_bytes: RESERVE_BYTES, disk: Arc::new(OsDisk) }
    }
}

/// The large blobs of this node. Clones are the same blobs.
#[derive(Clone)]
pub struct Blobs {
    shared: Arc<Shared>,
}

struct Shared {
    dir: PathBuf,
    staging: PathBuf,
    partial: PathBuf,
    reserve_bytes: u64,
    disk: Arc<dyn Disk>,
    /// By the first byte of the hash. Holding one is the right to make and remove the files of its folder.
    leases: Vec<Mutex<BTreeMap<BlobHash, Leases>>>,
    /// The number of the next staging file.
    next: std::sync::atomic::AtomicU64,
}

/// The leases of one hash.
#[derive(Debug, Clone, Copy)]
struct Leases {
    count: u32,
    /// Whether the file outlives them.
    kept: bool,
}

impl fmt::Debug for Blobs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Blobs").field("dir", &self.shared.dir).finish_non_exhaustive()
    }
}

impl Blobs {
    /// Opens the blobs in the folder `dir`, creating it if it is missing; removes unfinished uploads of a former
    /// process.
    ///
    /// # Errors
    /// As the file system reports them.
    pub fn open(dir: &Path) -> io::Result<Self> {
        Self::open_with(dir, BlobOptions::default())
    }

    /// As [`Blobs::open`], with options.
    ///
    /// # Errors
    /// As the file system reports them.
    pub fn open_with(dir: &Path, options: BlobOptions) -> io::Result<Self> {
        disk::prepare(options.disk.as_ref(), dir, &dir.join("staging"), &dir.join("partial"))?;
        Ok(Self::in_folders(dir, options))
    }

    /// The blobs in folders that are there.
    pub(crate) fn in_folders(dir: &Path, options: BlobOptions) -> Self {
        let BlobOptions { reserve_bytes, disk } = options;
        let (staging, partial) = (dir.join("staging"), dir.join("partial"));
        let leases = (0..=u8::MAX).map(|_| Mutex::default()).collect();
        let dir = dir.to_owned();
        Self { shared: Arc::new(Shared { dir, staging, partial, reserve_bytes, disk, leases, next: 0.into() }) }
    }

    /// Begins an upload.
    ///
    /// # Errors
    /// [`is_full`](crate::disk::is_full) tells whether there is no room.
    pub async fn upload(&self) -> io::Result<Upload> {
        let shared = Arc::clone(&self.shared);
        blocking(move || Upload::begin(shared)).await
    }

    /// Whether the file of this hash is here.
    #[must_use]
    pub fn exists(&self, hash: &BlobHash) -> bool {
        self.shared.path(hash).is_file()
    }

    /// As [`Blobs::open_blob`], for a thread that may block and without the size.
    pub(crate) fn open_file(&self, hash: &BlobHash) -> Option<fs::File> {
        fs::File::open(self.shared.path(hash)).ok()
    }

    /// Opens a blob for reading and says its size in bytes; `None` if it is not here. An open file stays readable
    /// whatever happens to its name.
    ///
    /// # Errors
    /// As the file system reports them.
    pub async fn open_blob(&self, hash: &BlobHash) -> io::Result<Option<(fs::File, u64)>> {
        let path = self.shared.path(hash);
        blocking(move || match fs::File::open(path) {
            Ok(file) => {
                let size = file.metadata()?.len();
                Ok(Some((file, size)))
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        })
        .await
    }

    /// Takes the name from a file whose bytes are wrong, so that the value can come anew; it stays beside as `<name>.rotten`. A
    /// file that is another one by now is left alone. Says whether it was this one. Blocks.
    pub(crate) fn set_aside(&self, hash: &BlobHash, rotten: &fs::Metadata) -> io::Result<bool> {
        let path = self.shared.path(hash);
        let _leases = self.shared.lock(hash);
        match fs::metadata(&path) {
            Ok(found) if (found.dev(), found.ino()) == (rotten.dev(), rotten.ino()) => {}
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(_) | Err(_) => return Ok(false),
        }
        self.shared.disk.rename(&path, &path.with_extension("rotten"))?;
        Ok(true)
    }

    /// A lease on a blob that is here, so that it stays until an entry refers to it; `None` if it is not here.
    #[must_use]
    pub fn hold(&self, hash: &BlobHash) -> Option<Staged> {
        let size = {
            let mut leases = self.shared.lock(hash);
            let size = fs::metadata(self.shared.path(hash)).ok()?.len();
            leases.entry(*hash).or_insert(Leases { count: 0, kept: true }).count += 1;
            size
        };
        Some(Staged::new(&self.shared, *hash, size))
    }

    /// Removes the file of this hash if `unreferenced` says so while nobody can add it. With leases out, the last of
    /// them removes it, unless it is kept. Says whether the file was removed now. Blocks.
    ///
    /// # Errors
    /// As the file system reports them.
    pub fn remove(&self, hash: &BlobHash, unreferenced: impl FnOnce() -> bool) -> io::Result<bool> {
        let mut leases = self.shared.lock(hash);
        if !unreferenced() {
            return Ok(false);
        }
        if let Some(leases) = leases.get_mut(hash) {
            leases.kept = false;
            return Ok(false);
        }
        match self.shared.disk.remove(&self.shared.path(hash)) {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Removes every file, and every partial file, that has no lease and that `keep` does not name, and says how many files.
    /// For the start, when the index is complete and before uploads are taken. Blocks.
    ///
    /// # Errors
    /// As the file system reports them, at the first file that cannot be removed.
    pub fn sweep(&self, keep: impl Fn(&BlobHash) -> bool) -> io::Result<usize> {
        let mut removed = 0;
        for hash in disk::hashes(self.shared.disk.as_ref(), &self.shared.dir)? {
            removed += usize::from(self.remove(&hash, || !keep(&hash))?);
        }
        self.sweep_partial(keep)?;
        Ok(removed)
    }
}

impl Shared {
    fn path(&self, hash: &BlobHash) -> PathBuf {
        disk::path_of(&self.dir, hash)
    }

    fn lock(&self, hash: &BlobHash) -> MutexGuard<'_, BTreeMap<BlobHash, Leases>> {
        self.leases[usize::from(hash.as_bytes()[0])].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a lease back; the last one of a file that nobody kept removes it.
    fn release(&self, hash: &BlobHash, keep: bool) {
        let mut leases = self.lock(hash);
        let Some(left) = leases.get_mut(hash) else {
            return;
        };
        left.count -= 1;
        left.kept |= keep;
        let Leases { count: 0, kept } = *left else {
            return;
        };
        leases.remove(hash);
        if kept {
            return;
        }
        match self.disk.remove(&self.path(hash)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%hash, error = %e, "cannot remove a blob nobody needs");
            }
            _ => tracing::debug!(%hash, "removed a blob nobody kept"),
        }
    }
}

/// A durable blob and a lease on it: while this is held, nobody removes the file. Dropping the last lease of a blob
/// that was not here before and that nobody kept removes it.
#[must_use = "dropping it takes the blob away again"]
pub struct Staged {
    /// The hash of the content.
    pub hash: BlobHash,
    /// The size in bytes.
    pub size: u64,
    shared: Option<Arc<Shared>>,
}

impl Staged {
    fn new(shared: &Arc<Shared>, hash: BlobHash, size: u64) -> Self {
        Self { hash, size, shared: Some(Arc::clone(shared)) }
    }

    /// Leaves the file in place: an entry refers to it, and whoever asks the index sees that entry.
    pub fn keep(mut self) {
        if let Some(shared) = self.shared.take() {
            shared.release(&self.hash, true);
        }
    }
}

impl Drop for Staged {
    /// Removing a large file takes a while, so inside an async runtime a blocking thread does it.
    fn drop(&mut self) {
        let Some(shared) = self.shared.take() else {
            return;
        };
        let hash = self.hash;
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(move || shared.release(&hash, false))),
            Err(_) => shared.release(&hash, false),
        }
    }
}

impl fmt::Debug for Staged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Staged").field("hash", &self.hash).field("size", &self.size).finish_non_exhaustive()
    }
}
