//! A data folder made of a backup, part by part. It is believed only after the mark at the end.

use std::{
    io::{self, Read},
    path::{Path, PathBuf},
};

use super::{
    FolderTarget, Hashed, Part, TEXT_BYTES_MAX, Target as _,
    mark::{Digest, MARK_BYTES_MAX},
};
use crate::disk::{OpenError, mark_restored, require_format};

/// Why a backup is refused.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// It names something that is no part of a backup.
    #[error("this is no backup of kvspace: it holds {0:?}")]
    Foreign(String),
    /// A part twice, or in the wrong place.
    #[error("the backup is not as it was written: {0} is out of place")]
    Order(Part),
    /// Nothing says that it is whole.
    #[error("the backup is incomplete: {0}")]
    Incomplete(&'static str),
    /// A later release wrote it.
    #[error("another release of kvspace wrote this backup; use that one")]
    OtherFormat,
    /// Some of its bytes have changed.
    #[error("the backup is damaged: it does not match its mark {}", Part::Complete)]
    Damaged,
    /// Its data folder is none of this program's.
    #[error(transparent)]
    DataDir(#[from] OpenError),
    /// It cannot be read, or the folder not be written.
    #[error("cannot restore {part}: {source}")]
    Io {
        /// The part.
        part: Part,
        /// The reason.
        source: io::Error,
    },
}

/// What becomes of the node's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyWish {
    /// It is taken over.
    Keep,
    /// It is left out, so that the node gets a new one.
    Leave,
}

/// A data folder in the making. Nothing that it wrote may be used before [`Restoring::finish`].
#[derive(Debug)]
pub struct Restoring {
    dir: PathBuf,
    target: FolderTarget,
    key: KeyWish,
    digest: Digest,
    last: Option<Part>,
    restored: Restored,
}

/// What was restored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Restored {
    /// Whether the node's key is among it.
    pub has_key: bool,
    /// Files of the log.
    pub segments: u64,
    /// Files of large values.
    pub files: u64,
    /// Bytes of all.
    pub bytes: u64,
}

impl Restoring {
    /// Into this folder, which is there and empty, and which nobody looks at yet.
    #[must_use]
    pub fn new(dir: &Path, key: KeyWish) -> Self {
        let target = FolderTarget::new(dir);
        Self { dir: dir.to_owned(), target, key, digest: Digest::default(), last: None, restored: Restored::default() }
    }

    /// Takes the next part. `path` is as the backup spells it. Anything is refused that is no part, or not in its place.
    ///
    /// # Errors
    /// [`RestoreError`]; nothing may be taken after it.
    pub fn take(&mut self, path: &str, size_bytes: u64, bytes: &mut dyn Read) -> Result<(), RestoreError> {
        let part = Part::parse(path).ok_or_else(|| RestoreError::Foreign(path.to_owned()))?;
        if self.last.as_ref().is_some_and(|last| *last >= part) {
            return Err(RestoreError::Order(part));
        }
        self.last = Some(part.clone());
        let failed = |source| RestoreError::Io { part: part.clone(), source };
        if part == Part::Complete {
            return self.check(size_bytes, bytes);
        }
        if matches!(part, Part::Format | Part::Key) && size_bytes > TEXT_BYTES_MAX {
            return Err(failed(io::Error::other("it is too long")));
        }
        let mut tell = |_| ();
        let mut hashed = Hashed::new(bytes.take(size_bytes), &mut tell);
        if part == Part::Key && self.key == KeyWish::Leave {
            io::copy(&mut hashed, &mut io::sink()).map_err(failed)?;
        } else {
            self.target.put(&part, size_bytes, &mut hashed).map_err(failed)?;
            self.restored.has_key |= part == Part::Key;
        }
        let (read, hash) = hashed.end();
        if read != size_bytes {
            return Err(RestoreError::Incomplete("a part ends too early"));
        }
        self.restored.bytes += read;
        self.restored.segments += u64::from(matches!(part, Part::Segment(_)));
        self.restored.files += u64::from(matches!(part, Part::Blob(_)));
        self.digest.add(&part, read, &hash);
        Ok(())
    }

    fn check(&self, size_bytes: u64, bytes: &mut dyn Read) -> Result<(), RestoreError> {
        let failed = |source| RestoreError::Io { part: Part::Complete, source };
        let mut mark = String::new();
        bytes.take(size_bytes.min(MARK_BYTES_MAX)).read_to_string(&mut mark).map_err(failed)?;
        if Digest::is_of_other_format(&mark) {
            return Err(RestoreError::OtherFormat);
        }
        if mark == self.digest.mark() { Ok(()) } else { Err(RestoreError::Damaged) }
    }

    /// Ends it: everything is durable, under the name it has now.
    ///
    /// # Errors
    /// [`RestoreError::Incomplete`] when the mark never came.
    pub fn finish(self) -> Result<Restored, RestoreError> {
        if self.last != Some(Part::Complete) {
            return Err(RestoreError::Incomplete("it ends before its mark"));
        }
        require_format(&self.dir)?;
        mark_restored(&self.dir).map_err(|source| RestoreError::Io { part: Part::Complete, source })?;
        self.target.sync().map_err(|source| RestoreError::Io { part: Part::Complete, source })?;
        Ok(self.restored)
    }
}
