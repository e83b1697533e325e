//! Reading by position, beside the writer and without it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;

use super::{
    EpochRecord, LogError, ReadError,
    opened::Opened,
    record::{self, Kind, Position},
};
use crate::disk::Disk;

/// Segment files kept open for readers: well below the usual limit of 1,024 descriptors.
const OPEN_FILES_MAX: usize = 256;

/// Reads records by position. Clones share their open files; nothing in it waits for the log's writer.
#[derive(Clone)]
pub struct LogReader {
    pub(super) segments: Arc<Segments>,
}

impl LogReader {
    /// Of the log in this folder, which nobody needs to have open.
    pub(crate) fn new(dir: &Path, disk: Arc<dyn Disk>) -> Self {
        let segments = Segments { dir: dir.to_owned(), disk, open: Mutex::default(), written: AtomicU64::new(0) };
        Self { segments: Arc::new(segments) }
    }

    /// Reads a value. The checksum of its record is verified, so it is what was appended.
    ///
    /// # Errors
    /// [`ReadError::Freed`] when the segment was compacted and the value was not kept.
    pub fn read_blob(&self, at: Position) -> Result<Bytes, ReadError> {
        let (Kind::Blob, payload) = self.segments.read(at)? else {
            return Err(ReadError::Damaged(at));
        };
        record::decode_blob(&payload).map(|(_, bytes)| bytes).ok_or(ReadError::Damaged(at))
    }

    /// Reads an epoch. The checksum of its record is verified.
    ///
    /// # Errors
    /// [`ReadError::Damaged`] when it is not there as it was appended. Compaction never frees an epoch.
    pub fn read_epoch(&self, at: Position) -> Result<EpochRecord, ReadError> {
        let (Kind::Epoch, payload) = self.segments.read(at)? else {
            return Err(ReadError::Damaged(at));
        };
        record::decode_epoch(&payload).ok_or(ReadError::Damaged(at))
    }

    /// Whether compaction has taken away what was at this position. Nothing is read where nothing was taken away.
    #[must_use]
    pub fn has_freed(&self, at: Position) -> bool {
        let is_compacted = |opened: Arc<Opened>| opened.header.generation > 0;
        self.segments.get(at.segment).ok().flatten().is_some_and(is_compacted)
            && matches!(self.read_blob(at), Err(ReadError::Freed(_)))
    }

    /// Whether the record at this position is there and sound.
    ///
    /// # Errors
    /// [`ReadError::Io`] when nobody can tell.
    pub fn holds(&self, at: Position) -> Result<bool, ReadError> {
        match self.segments.read(at) {
            Ok(_) => Ok(true),
            Err(ReadError::Freed(_) | ReadError::Damaged(_)) => Ok(false),
            Err(error @ ReadError::Io(_)) => Err(error),
        }
    }
}

/// The segments as readers see them. A reader that has its file keeps it, whatever happens to the name.
pub(super) struct Segments {
    pub(super) dir: PathBuf,
    pub(super) disk: Arc<dyn Disk>,
    open: Mutex<Open>,
    /// The segment that was begun last, and in the lower half where its durable records end.
    written: AtomicU64,
}

#[derive(Default)]
struct Open {
    files: BTreeMap<u32, (Arc<Opened>, u64)>,
    uses: u64,
}

impl Segments {
    /// Makes a segment known to readers, in place of a former generation, never of a later one.
    pub(super) fn insert(&self, opened: Arc<Opened>) {
        let mut open = self.open();
        open.uses += 1;
        let last_use = open.uses;
        let known = open.files.get(&opened.header.segment);
        if known.is_none_or(|(known, _)| known.header.generation <= opened.header.generation) {
            open.files.insert(opened.header.segment, (opened, last_use));
        }
        while open.files.len() > OPEN_FILES_MAX {
            let oldest = open.files.iter().min_by_key(|(_, (_, last_use))| *last_use).map(|(segment, _)| *segment);
            oldest.and_then(|segment| open.files.remove(&segment));
        }
    }

    /// The newest generation of a segment; `None` if its file is missing.
    pub(super) fn get(&self, segment: u32) -> Result<Option<Arc<Opened>>, LogError> {
        if let Some(opened) = self.known(segment) {
            return Ok(Some(opened));
        }
        let opened = Opened::open(self.disk.as_ref(), &self.dir, segment)?.map(Arc::new);
        if let Some(opened) = &opened {
            self.insert(Arc::clone(opened));
        }
        Ok(opened)
    }

    /// Notes where the durable records of the segment end that was begun last.
    pub(super) fn set_written(&self, segment: u32, end: u32) {
        self.written.store(u64::from(segment) << 32 | u64::from(end), Ordering::Release);
    }

    /// The segment that was begun last and where its durable records end; 0 if there is none.
    pub(super) fn written(&self) -> (u32, u32) {
        let written = self.written.load(Ordering::Acquire);
        ((written >> 32) as u32, written as u32)
    }

    fn read(&self, at: Position) -> Result<(Kind, Bytes), ReadError> {
        match self.get(at.segment) {
            Ok(Some(opened)) => opened.read(at),
            Err(LogError::Io { source, .. }) => Err(ReadError::Io(source)),
            Ok(None) | Err(_) => Err(ReadError::Damaged(at)),
        }
    }

    fn known(&self, segment: u32) -> Option<Arc<Opened>> {
        let mut open = self.open();
        open.uses += 1;
        let last_use = open.uses;
        let (opened, used) = open.files.get_mut(&segment)?;
        *used = last_use;
        Some(Arc::clone(opened))
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
