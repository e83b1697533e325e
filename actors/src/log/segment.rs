//! Segment files: their names, their header block, and the open ones that readers share.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;

use super::record::{self, Head, Kind, Place, Position};
use super::{LogError, ReadError};
use crate::disk::{Disk, DiskFile};

/// The header block; records begin behind it. One page, so that no record shares a sector with it.
pub(super) const BLOCK_BYTES: u32 = 4096;
const MAGIC: [u8; 8] = *b"kvsp log";
const FORMAT: u32 = 1;
/// The fields of the header: magic, format, segment, generation, end, previous end.
const FIELDS: usize = 28;
/// Segment files kept open for readers: well below the usual limit of 1,024 descriptors.
const OPEN_FILES_MAX: usize = 256;

/// What the header block of a segment says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) segment: u32,
    pub(super) generation: u32,
    /// Where this segment's records end, if that was known when it was made (it was compacted); else 0, and the next
    /// segment says it.
    pub(super) end: u32,
    /// Where the segment before ended when this one was begun. 0 in the first.
    pub(super) previous_end: u32,
}

impl Header {
    pub(super) fn encode(self) -> Vec<u8> {
        let mut block = vec![0; BLOCK_BYTES as usize];
        block[..8].copy_from_slice(&MAGIC);
        for (i, field) in [FORMAT, self.segment, self.generation, self.end, self.previous_end].into_iter().enumerate() {
            block[8 + 4 * i..12 + 4 * i].copy_from_slice(&field.to_le_bytes());
        }
        let checksum = checksum(&block);
        block[FIELDS..FIELDS + 8].copy_from_slice(&checksum);
        block
    }

    /// Reads the header of segment `segment` from its file.
    pub(super) fn read(file: &dyn DiskFile, segment: u32, path: &Path) -> Result<Self, LogError> {
        let damaged = |what| LogError::Damaged { segment, offset: 0, what };
        let mut block = vec![0; BLOCK_BYTES as usize];
        let read = file.read_at(&mut block, 0).map_err(LogError::io(path))?;
        if read < block.len() || block[..8] != MAGIC {
            return Err(damaged("it does not begin as a segment does"));
        }
        let stored = block[FIELDS..FIELDS + 8].to_vec();
        block[FIELDS..FIELDS + 8].fill(0);
        if stored != checksum(&block) {
            return Err(damaged("its header does not match its checksum"));
        }
        let found = record::u32_at(&block, 8);
        if found != FORMAT {
            return Err(LogError::OtherFormat { segment, found, known: FORMAT });
        }
        let header = Self {
            segment: record::u32_at(&block, 12),
            generation: record::u32_at(&block, 16),
            end: record::u32_at(&block, 20),
            previous_end: record::u32_at(&block, 24),
        };
        if header.segment != segment {
            return Err(damaged("its header names another segment"));
        }
        Ok(header)
    }
}

/// The checksum of a header block whose own place for it is zero.
fn checksum(block: &[u8]) -> [u8; 8] {
    blake3::hash(block).as_bytes()[..8].try_into().expect("a hash has 32 bytes")
}

/// The file of a segment.
pub(super) fn path_of(dir: &Path, segment: u32) -> PathBuf {
    dir.join(format!("{segment:08}.seg"))
}

/// The segment that a file name belongs to.
pub(super) fn number_of(name: &str) -> Option<u32> {
    let digits = name.strip_suffix(".seg")?;
    (digits.len() >= 8 && digits.bytes().all(|byte| byte.is_ascii_digit())).then(|| digits.parse().ok())?
}

/// The segments as readers see them. A reader that has its file keeps it, whatever happens to the name.
#[derive(Debug)]
pub(super) struct Segments {
    dir: PathBuf,
    disk: Arc<dyn Disk>,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    files: BTreeMap<u32, OpenFile>,
    uses: u64,
}

impl std::fmt::Debug for Open {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.files.keys()).finish()
    }
}

struct OpenFile {
    generation: u32,
    file: Arc<dyn DiskFile>,
    last_use: u64,
}

impl Segments {
    pub(super) fn new(dir: PathBuf, disk: Arc<dyn Disk>) -> Self {
        Self { dir, disk, open: Mutex::default() }
    }

    /// Makes a segment known to readers, in place of its former generation.
    pub(super) fn insert(&self, segment: u32, generation: u32, file: Arc<dyn DiskFile>) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.uses += 1;
        let last_use = open.uses;
        open.files.insert(segment, OpenFile { generation, file, last_use });
        while open.files.len() > OPEN_FILES_MAX {
            let oldest = open.files.iter().min_by_key(|(_, file)| file.last_use).map(|(segment, _)| *segment);
            oldest.and_then(|segment| open.files.remove(&segment));
        }
    }

    /// Reads the payload at `at` and checks it.
    pub(super) fn read(&self, at: Position) -> Result<(Kind, Bytes), ReadError> {
        let damaged = || ReadError::Damaged(at);
        let place = Place::of(at).ok_or_else(damaged)?;
        let size = record::record_bytes(at.length as usize).ok_or_else(damaged)?;
        let file = self.file(at)?;
        let mut bytes = vec![0; size as usize];
        let read = file.read_at(&mut bytes, u64::from(place.offset)).map_err(ReadError::Io)?;
        let head = Head::decode(&bytes[..read]).ok_or_else(damaged)?;
        if head.length != at.length || !record::holds(place, head, &bytes[..read]) {
            return Err(damaged());
        }
        let payload = record::HEAD_BYTES as usize..(record::HEAD_BYTES + at.length) as usize;
        Ok((head.kind, Bytes::from(bytes).slice(payload)))
    }

    fn file(&self, at: Position) -> Result<Arc<dyn DiskFile>, ReadError> {
        if let Some((generation, file)) = self.known(at.segment) {
            return if generation == at.generation { Ok(file) } else { Err(ReadError::Moved(at)) };
        }
        let path = path_of(&self.dir, at.segment);
        let file = match self.disk.open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(ReadError::Damaged(at)),
            Err(e) => return Err(ReadError::Io(e)),
        };
        let header = Header::read(file.as_ref(), at.segment, &path).map_err(|_| ReadError::Damaged(at))?;
        if header.generation != at.generation {
            return Err(ReadError::Moved(at));
        }
        self.insert(at.segment, header.generation, Arc::clone(&file));
        Ok(file)
    }

    fn known(&self, segment: u32) -> Option<(u32, Arc<dyn DiskFile>)> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.uses += 1;
        let last_use = open.uses;
        let file = open.files.get_mut(&segment)?;
        file.last_use = last_use;
        Some((file.generation, Arc::clone(&file.file)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_gives_its_number_and_no_other_name_does() {
        assert_eq!(number_of("00000017.seg"), Some(17));
        for name in ["17.seg", "next.zeros", "00000017.seg.new", "0000001x.seg", "+0000017.seg"] {
            assert_eq!(number_of(name), None, "{name}");
        }
    }
}
