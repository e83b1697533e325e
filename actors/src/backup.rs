//! A copy of a data folder, made while a node runs on it or not, and a data folder made of a copy.
//!
//! A backup is a sequence of **parts** in a fixed order: the format, the node's key, the segments of the log, the files of
//! large values, and at the end the mark that it is complete, with the number of the parts and a digest of them. The log is
//! copied first: whatever an epoch in the copy needs was durable before it and so is there when the files are copied, as long
//! as nothing is collected in between, which the [`CollectLock`] sees to. The index is left out: the log makes it anew.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use kvspace_protocol::id::BlobHash;

mod folder;
mod mark;
mod part;
mod restore;
#[cfg(test)]
mod tests;

pub use folder::FolderTarget;
pub use part::Part;
pub use restore::{KeyWish, RestoreError, Restored, Restoring};

use mark::Digest;

use crate::{
    blobs,
    disk::{CollectLock, OpenError, OsDisk, require_format},
    log::{self, LogError, SegmentCopy},
};

/// The longest text of a format or of a key.
const TEXT_BYTES_MAX: u64 = 4096;

/// Where the parts go.
pub trait Target {
    /// Takes a part: `size_bytes` to be read from `bytes`.
    ///
    /// # Errors
    /// As whatever lies behind it reports them.
    fn put(&mut self, part: &Part, size_bytes: u64, bytes: &mut dyn Read) -> io::Result<()>;
}

/// What is copied.
#[derive(Debug, Clone)]
pub struct Source {
    /// The data folder.
    pub data_dir: PathBuf,
    /// The file of the node's key, wherever it lies.
    pub key_file: PathBuf,
}

/// What was copied.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Copied {
    /// Whether the node's key is among it.
    pub has_key: bool,
    /// Files of the log.
    pub segments: u64,
    /// Their bytes.
    pub log_bytes: u64,
    /// Files of large values.
    pub files: u64,
    /// Their bytes.
    pub file_bytes: u64,
    /// Those whose bytes are not what their name says; copied as they are.
    pub damaged: Vec<BlobHash>,
}

/// Why there is no backup.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The data folder cannot be used.
    #[error(transparent)]
    DataDir(#[from] OpenError),
    /// The log cannot be read.
    #[error(transparent)]
    Log(#[from] LogError),
    /// A file cannot be read.
    #[error("cannot read {}: {source}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// The target takes no more.
    #[error("cannot write {part} of the backup: {source}")]
    Write {
        /// The part.
        part: Part,
        /// The reason.
        source: io::Error,
    },
}

/// Copies a data folder to a target. `progress` hears how many bytes were copied.
///
/// # Errors
/// [`BackupError`]. What the target has got then is no backup.
pub fn write(source: &Source, target: &mut dyn Target, progress: &mut dyn FnMut(u64)) -> Result<Copied, BackupError> {
    let Source { data_dir, key_file } = source;
    require_format(data_dir)?;
    let kept = CollectLock::shared(data_dir);
    let _kept = kept.map_err(unreadable(&data_dir.join("collect.lock")))?;
    let mut writing = Writing { target, progress, digest: Digest::default(), bytes: 0 };
    let mut copied = Copied::default();
    let format = data_dir.join("format");
    writing.file(&Part::Format, &format, File::open(&format).map_err(unreadable(&format))?)?;
    match File::open(key_file) {
        // A link that leads nowhere is a key out of reach.
        Err(error) if error.kind() == io::ErrorKind::NotFound && !key_file.is_symlink() => {}
        file => {
            writing.file(&Part::Key, key_file, file.map_err(unreadable(key_file))?)?;
            copied.has_key = true;
        }
    }
    let segments = log::copy(&data_dir.join("log"), &OsDisk, 1, |segment: SegmentCopy| {
        copied.segments += 1;
        copied.log_bytes += segment.size_bytes;
        let (part, size_bytes) = (Part::Segment(segment.segment), segment.size_bytes);
        writing.put(&part, size_bytes, segment).map(drop).map_err(Box::new)
    });
    match segments {
        Err(LogError::Stopped(error)) => return Err(*error.downcast::<BackupError>().map_err(LogError::Stopped)?),
        result => result?,
    }
    let dir = data_dir.join("blobs");
    for hash in blobs::list(&dir).map_err(unreadable(&dir))? {
        let path = blobs::file_of(&dir, &hash);
        let file = match File::open(&path) {
            // An upload whose commit failed: nothing in the copied log needs it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            file => file.map_err(unreadable(&path))?,
        };
        let size_bytes = file.metadata().map_err(unreadable(&path))?.len();
        if writing.put(&Part::Blob(hash), size_bytes, file)? != *hash.as_bytes() {
            copied.damaged.push(hash);
        }
        copied.files += 1;
        copied.file_bytes += size_bytes;
    }
    let mark = writing.digest.mark();
    let put = writing.target.put(&Part::Complete, mark.len() as u64, &mut mark.as_bytes());
    put.map_err(|source| BackupError::Write { part: Part::Complete, source })?;
    Ok(copied)
}

struct Writing<'a> {
    target: &'a mut dyn Target,
    progress: &'a mut dyn FnMut(u64),
    digest: Digest,
    bytes: u64,
}

impl Writing<'_> {
    fn file(&mut self, part: &Part, path: &Path, file: File) -> Result<(), BackupError> {
        let size_bytes = file.metadata().map_err(unreadable(path))?.len();
        self.put(part, size_bytes, file).map(drop)
    }

    /// Copies a part and gives the hash of its bytes.
    fn put(&mut self, part: &Part, size_bytes: u64, from: impl Read) -> Result<[u8; 32], BackupError> {
        let failed = |source| BackupError::Write { part: part.clone(), source };
        let before = self.bytes;
        let mut tell = |bytes| (self.progress)(before + bytes);
        let mut hashed = Hashed::new(from.take(size_bytes), &mut tell);
        self.target.put(part, size_bytes, &mut hashed).map_err(failed)?;
        let (read, hash) = hashed.end();
        if read != size_bytes {
            return Err(failed(io::ErrorKind::UnexpectedEof.into()));
        }
        self.bytes += read;
        self.digest.add(part, read, &hash);
        Ok(hash)
    }
}

/// Hashes and counts what is read.
struct Hashed<'a, R> {
    from: R,
    hasher: blake3::Hasher,
    bytes: u64,
    tell: &'a mut dyn FnMut(u64),
}

impl<'a, R: Read> Hashed<'a, R> {
    fn new(from: R, tell: &'a mut dyn FnMut(u64)) -> Self {
        Self { from, hasher: blake3::Hasher::new(), bytes: 0, tell }
    }

    fn end(self) -> (u64, [u8; 32]) {
        (self.bytes, *self.hasher.finalize().as_bytes())
    }
}

impl<R: Read> Read for Hashed<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(buffer)?;
        self.hasher.update(&buffer[..read]);
        self.bytes += read as u64;
        (self.tell)(self.bytes);
        Ok(read)
    }
}

fn unreadable(path: &Path) -> impl FnOnce(io::Error) -> BackupError + use<> {
    let path = path.to_owned();
    move |source| BackupError::Read { path, source }
}
