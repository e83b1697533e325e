//! The disk: the data folder, and the few file operations that log and blobs are built on.
//!
//! [`Disk`] is a seam: the node runs on [`OsDisk`], the tests on one that counts, fails, and forgets what was never
//! synced.

use std::{fmt, fs, io, os::unix::fs::FileExt, path::Path, sync::Arc};

mod collecting;
#[cfg(test)]
pub(crate) mod cut;
#[cfg(test)]
pub(crate) mod fake;
mod folder;

pub use collecting::CollectLock;
pub use folder::{DataDir, OpenError, create_durable, mark_restored, require_format};

/// The operations on names that change what is on disk. A name is durable after [`Disk::sync_dir`] of its folder.
pub trait Disk: fmt::Debug + Send + Sync + 'static {
    /// An empty file of this name, in place of one that may be there.
    ///
    /// # Errors
    /// As the file system reports them; so for all methods.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    /// The file of this name, for reading and writing.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    /// The file of this name, for reading alone.
    fn open_to_read(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.open(path)
    }
    /// Gives a file another name, in place of one that may be there.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes a folder and those above it; it may be there already.
    fn create_dir(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in a folder durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// The names in a folder, ascending.
    fn list(&self, path: &Path) -> io::Result<Vec<String>>;
    /// Bytes that an ordinary user may still write to the file system of this folder.
    fn free_bytes(&self, path: &Path) -> io::Result<u64>;
}

/// The operations on one open file. What was written is durable after [`DiskFile::sync`].
pub trait DiskFile: Send + Sync {
    /// Reads from `offset` until the buffer is full or the file ends; says how much it read.
    ///
    /// # Errors
    /// As the file system reports them; so for all methods.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all of these bytes at `offset`.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Makes content and size durable: `fdatasync`.
    fn sync(&self) -> io::Result<()>;
    /// The size in bytes.
    fn size_bytes(&self) -> io::Result<u64>;
}

/// Whether this error says that no room is left: by the disk's size or by a quota.
#[must_use]
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// The operating system's files.
#[derive(Debug, Clone, Copy, Default)]
pub struct OsDisk;

impl Disk for OsDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(fs::OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(fs::OpenOptions::new().read(true).write(true).open(path)?))
    }

    fn open_to_read(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(fs::File::open(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        fs::File::open(path)?.sync_all()
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(path)? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        Ok(names)
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(path)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

impl DiskFile for fs::File {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut read = 0;
        while read < buffer.len() {
            match FileExt::read_at(self, &mut buffer[read..], offset + read as u64) {
                Ok(0) => break,
                Ok(n) => read += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(read)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn size_bytes(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }
}
