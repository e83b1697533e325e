//! Uploads: a value on its way to its file, a buffer at a time.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
};

use kvspace_protocol::id::BlobHash;

use super::{Leases, Shared, Staged};
use crate::{disk::DiskFile, failpoint};

/// What an upload collects before a blocking thread hashes and writes it: all the memory it takes, beside the chunk.
const BUFFER_BYTES: usize = 1024 * 1024;

/// A value that is being received. Dropping it before [`Upload::finish`] leaves nothing behind.
pub struct Upload {
    /// `None` once a write was given up half-way; the upload is then of no use.
    writing: Option<Writing>,
    size: u64,
}

/// What moves to the blocking thread and back.
struct Writing {
    staging: StagingFile,
    hasher: blake3::Hasher,
    buffer: Vec<u8>,
    written: u64,
}

/// The file of an unfinished upload; it goes with its value.
struct StagingFile {
    shared: Arc<Shared>,
    file: Arc<dyn DiskFile>,
    path: PathBuf,
    /// Whether nothing of that name is left.
    gone: bool,
}

impl Upload {
    pub(super) fn begin(shared: Arc<Shared>) -> io::Result<Self> {
        check_room(&shared)?;
        let path = shared.staging.join(shared.next.fetch_add(1, Ordering::Relaxed).to_string());
        let file = shared.disk.create(&path)?;
        let staging = StagingFile { shared, file, path, gone: false };
        let writing = Writing { staging, hasher: blake3::Hasher::new(), buffer: Vec::new(), written: 0 };
        Ok(Self { writing: Some(writing), size: 0 })
    }

    /// Takes the next bytes of the value.
    ///
    /// # Errors
    /// [`is_full`](crate::disk::is_full) tells whether there is no room. After an error, or when the future was
    /// dropped before it was done, nothing but an error follows.
    pub async fn write(&mut self, mut chunk: &[u8]) -> io::Result<()> {
        self.size += chunk.len() as u64;
        while !chunk.is_empty() {
            let writing = self.writing.as_mut().ok_or_else(given_up)?;
            let (now, later) = chunk.split_at(chunk.len().min(BUFFER_BYTES - writing.buffer.len()));
            writing.buffer.extend_from_slice(now);
            chunk = later;
            if writing.buffer.len() == BUFFER_BYTES {
                let mut writing = self.writing.take().ok_or_else(given_up)?;
                self.writing = Some(blocking(move || writing.flush().map(|()| writing)).await?);
            }
        }
        Ok(())
    }

    /// The bytes taken so far.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Makes the value durable under its hash.
    ///
    /// # Errors
    /// As [`Upload::write`].
    pub async fn finish(mut self) -> io::Result<Staged> {
        let writing = self.writing.take().ok_or_else(given_up)?;
        blocking(move || writing.finish()).await
    }
}

impl Writing {
    fn flush(&mut self) -> io::Result<()> {
        check_room(&self.staging.shared)?;
        self.hasher.update(&self.buffer);
        self.staging.file.write_at(&self.buffer, self.written)?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    fn finish(mut self) -> io::Result<Staged> {
        let staged = self.place();
        self.staging.discard();
        staged
    }

    fn place(&mut self) -> io::Result<Staged> {
        self.flush()?;
        self.staging.file.sync()?;
        failpoint::reached("blobs.synced");
        let hash = BlobHash(*self.hasher.finalize().as_bytes());
        self.staging.place(hash)?;
        Ok(Staged::new(&self.staging.shared, hash, self.written))
    }
}

impl StagingFile {
    /// Gives the file its final name and takes a lease on it. A file that has the name already makes way: it should be
    /// the same, and if it is damaged, this one is not. Who has it open goes on reading it.
    fn place(&mut self, hash: BlobHash) -> io::Result<()> {
        let shared = Arc::clone(&self.shared);
        let path = shared.path(&hash);
        let mut leases = shared.lock(&hash);
        let was_here = path.is_file();
        shared.disk.rename(&self.path, &path)?;
        self.gone = true;
        failpoint::reached("blobs.renamed");
        let synced = shared.disk.sync_dir(path.parent().expect("a blob lies in a folder"));
        if let Err(e) = synced {
            if !was_here && !leases.contains_key(&hash) {
                shared.disk.remove(&path).ok();
            }
            return Err(e);
        }
        failpoint::reached("blobs.named");
        leases.entry(hash).or_insert(Leases { count: 0, kept: was_here }).count += 1;
        Ok(())
    }

    /// Removes the file now, if it still has its first name.
    fn discard(&mut self) {
        if !std::mem::replace(&mut self.gone, true) {
            remove(&self.shared, &self.path);
        }
    }
}

impl Drop for StagingFile {
    /// Removing a large file takes a while, so inside an async runtime a blocking thread does it.
    fn drop(&mut self) {
        if self.gone {
            return;
        }
        let (shared, path) = (Arc::clone(&self.shared), std::mem::take(&mut self.path));
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(move || remove(&shared, &path))),
            Err(_) => remove(&shared, &path),
        }
    }
}

fn remove(shared: &Shared, path: &Path) {
    if let Err(e) = shared.disk.remove(path) {
        tracing::warn!(path = %path.display(), error = %e, "cannot remove an unfinished upload");
    }
}

pub(super) fn check_room(shared: &Shared) -> io::Result<()> {
    if shared.disk.free_bytes(&shared.staging)? < shared.reserve_bytes + BUFFER_BYTES as u64 {
        return Err(io::ErrorKind::StorageFull.into());
    }
    Ok(())
}

fn given_up() -> io::Error {
    io::Error::other("a write of this upload failed or was given up")
}

/// Runs file operations where they hold up nobody.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}
