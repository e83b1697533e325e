//! The bytes of live values: in the log or in files.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use kvspace_protocol::id::{BlobHash, HostKey, SpaceId};

use super::{
    Progress,
    report::{Counts, Fault, Faults, ValueFault},
    unusable,
};
use crate::{
    StartError, blobs,
    index::{Index, IndexError, SpaceIndex, Stored},
    log::{LogReader, Position, ReadError},
};

/// Read at a time.
const READ_BYTES: usize = 1024 * 1024;

/// What a file holds.
#[derive(Debug, Clone, Copy)]
struct Read {
    size_bytes: u64,
    hash: BlobHash,
}

pub(super) struct Values<'a> {
    dir: PathBuf,
    /// The host whose data this is, if its key is known.
    pub(super) own: Option<HostKey>,
    log: &'a LogReader,
    pub(super) faults: &'a mut Faults,
    counts: &'a mut Counts,
    progress: &'a mut dyn FnMut(Progress),
    /// The files that are there.
    hashes: Vec<BlobHash>,
    /// The files that were read.
    read: BTreeMap<BlobHash, Result<Read, ValueFault>>,
    read_bytes: u64,
}

impl<'a> Values<'a> {
    pub(super) fn new(
        dir: &Path,
        log: &'a LogReader,
        faults: &'a mut Faults,
        counts: &'a mut Counts,
        progress: &'a mut dyn FnMut(Progress),
    ) -> Self {
        let (hashes, read) = (Vec::new(), BTreeMap::new());
        Self { dir: dir.to_owned(), own: None, log, faults, counts, progress, hashes, read, read_bytes: 0 }
    }

    /// Checks the values that the log says are live, and counts the files. Values in segments that are not among the
    /// suspects were checked on the way.
    pub(super) fn check(&mut self, made: &Index, suspects: &BTreeSet<u32>) -> Result<(), StartError> {
        let hashes = blobs::list(&self.dir).map_err(unusable(&self.dir))?;
        self.counts.files = hashes.len() as u64;
        for hash in &hashes {
            let path = blobs::file_of(&self.dir, hash);
            self.counts.file_bytes += std::fs::metadata(&path).map_err(unusable(&path))?.len();
        }
        self.counts.unfinished = blobs::unfinished(&self.dir).map_err(unusable(&self.dir))?.len() as u64;
        for space in made.spaces(None) {
            let space = space?;
            self.counts.spaces += 1;
            for stored in space.winners() {
                self.counts.keys += 1;
                let stored = stored?;
                let what = match (stored.file(), stored.at) {
                    (Some(hash), _) => self.file(&hash, size_of(&stored)),
                    (None, Some(at)) if suspects.contains(&at.segment) => self.inline(&stored, at),
                    (None, Some(_)) => None,
                    (None, None) => Some(ValueFault::Missing),
                };
                let is_pending = what == Some(ValueFault::Missing) && self.may_come(&space, &stored)?;
                self.counts.pending += u64::from(is_pending);
                let what = what.filter(|_| !is_pending);
                self.tell(space.id(), &stored, what);
            }
        }
        self.hashes = hashes;
        Ok(())
    }

    /// Counts the files that no live value needs.
    pub(super) fn count_files(&mut self, made: &Index, kept: Option<&Index>) -> Result<(), IndexError> {
        for hash in self.hashes.iter().filter(|hash| !self.read.contains_key(hash)) {
            // A kept index that cannot be read is told of elsewhere.
            let is_needed = made.needs_file(hash)? || kept.is_some_and(|kept| kept.needs_file(hash).unwrap_or(true));
            let count = if is_needed { &mut self.counts.superseded_files } else { &mut self.counts.unneeded_files };
            *count += 1;
        }
        Ok(())
    }

    /// Checks the values that the kept index shows: it may know of those that are lost. `lost_end` is a commit from which
    /// on the log holds nothing of what the index knows.
    pub(super) fn check_kept(
        &mut self,
        kept: &Index,
        suspects: &BTreeSet<u32>,
        lost_end: Option<Position>,
    ) -> Result<(), IndexError> {
        if suspects.is_empty() && lost_end.is_none() {
            return Ok(());
        }
        for space in kept.spaces(None) {
            let space = space?;
            for stored in space.winners() {
                let stored = stored?;
                let what = match (stored.file(), stored.at) {
                    (Some(hash), _) => self.file(&hash, size_of(&stored)),
                    (None, Some(at)) => self.inline(&stored, at),
                    (None, None) => None,
                };
                let is_pending = what == Some(ValueFault::Missing) && self.may_come(&space, &stored)?;
                let what = what.filter(|_| !is_pending);
                self.tell(space.id(), &stored, what);
            }
        }
        Ok(())
    }

    /// Whether a value that is in no file came from another host, whose bytes follow later.
    fn may_come(&self, space: &SpaceIndex, stored: &Stored) -> Result<bool, IndexError> {
        let Some(own) = self.own.filter(|_| stored.at.is_none()) else { return Ok(false) };
        let branch = space.branch(stored.operation.place.branch)?;
        Ok(branch.is_some_and(|branch| branch.host != own))
    }

    fn tell(&mut self, space: &SpaceId, stored: &Stored, what: Option<ValueFault>) {
        let (Some(what), Some(value)) = (what, stored.operation.effect.value()) else { return };
        let (space, key) = (space.clone(), stored.operation.key.to_string());
        self.faults.add(Fault::Value { space, key, hash: value.blob, size_bytes: value.size, what });
    }

    /// What is wrong with a value in the log.
    fn inline(&self, stored: &Stored, at: Position) -> Option<ValueFault> {
        let value = stored.operation.effect.value()?;
        match self.log.read_blob(at) {
            Ok(bytes) if BlobHash::of(&bytes) == value.blob => None,
            Ok(_) => Some(ValueFault::Hash),
            Err(ReadError::Freed(_) | ReadError::Damaged(_)) => Some(ValueFault::Missing),
            Err(ReadError::Io(error)) => Some(ValueFault::Unreadable(error.to_string())),
        }
    }

    /// What is wrong with a value in a file. Each is read once.
    fn file(&mut self, hash: &BlobHash, size_bytes: u64) -> Option<ValueFault> {
        if !self.read.contains_key(hash) {
            let found = self.read_file(hash);
            self.read.insert(*hash, found);
        }
        match self.read.get(hash)? {
            Ok(found) if found.size_bytes != size_bytes => Some(ValueFault::Size(found.size_bytes)),
            Ok(found) if found.hash != *hash => Some(ValueFault::Hash),
            Ok(_) => None,
            Err(fault) => Some(fault.clone()),
        }
    }

    fn read_file(&mut self, hash: &BlobHash) -> Result<Read, ValueFault> {
        let unreadable = |error: io::Error| ValueFault::Unreadable(error.to_string());
        let mut file = match File::open(blobs::file_of(&self.dir, hash)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(ValueFault::Missing),
            file => file.map_err(unreadable)?,
        };
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; READ_BYTES];
        let mut size_bytes = 0;
        loop {
            let read = file.read(&mut buffer).map_err(unreadable)?;
            if read == 0 {
                break;
            }
            hasher.update(&buffer[..read]);
            size_bytes += read as u64;
            self.read_bytes += read as u64;
            let (done_bytes, total_bytes) = (self.read_bytes, self.counts.file_bytes);
            (self.progress)(Progress { what: "files", done_bytes, total_bytes });
        }
        Ok(Read { size_bytes, hash: BlobHash(*hasher.finalize().as_bytes()) })
    }
}

fn size_of(stored: &Stored) -> u64 {
    stored.operation.effect.value().map_or(0, |value| value.size)
}
