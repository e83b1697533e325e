//! A copy of a log that another process may be writing.

use std::{io, path::Path, sync::Arc};

use super::{
    LogError,
    opened::Opened,
    scan::{Ending, READ_BYTES, Scan, Searched},
    segment::{self, BLOCK_BYTES},
    unreadable::read_around,
};
use crate::disk::{Disk, DiskFile};

/// One file of a copy: a name, a size, and the bytes, to be read once from the beginning.
///
/// It holds the file open that was found under the name: a compaction that puts another in its place meanwhile changes
/// nothing here.
pub struct SegmentCopy {
    /// The segment.
    pub segment: u32,
    /// The file's name in the log's folder.
    pub name: String,
    /// How many bytes there are to read.
    pub size_bytes: u64,
    file: Arc<dyn DiskFile>,
    read_bytes: u64,
}

impl io::Read for SegmentCopy {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.size_bytes - self.read_bytes).unwrap_or(usize::MAX);
        let wanted = buffer.len().min(left);
        let read = read_around(self.file.as_ref(), &mut buffer[..wanted], self.read_bytes, drop)?;
        if read == 0 && wanted > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.read_bytes += read as u64;
        Ok(read)
    }
}

/// Hands out the log's segments from number `from` on, in order, so that the files together are a log that opens and
/// holds the commits of this one up to some moment during the call. `from` is 1 for all of it.
///
/// Sealed segments come as they are; the one that was the last when this began comes up to its last whole commit and
/// is shorter than it was. Nothing is written, and whoever writes the log is not disturbed.
///
/// # Errors
/// As [`Log::open`](super::Log::open); an error of `each` ends it as [`LogError::Stopped`]. Damage is copied as it is; what
/// cannot be read is zeros in the copy.
pub fn copy<E>(
    dir: &Path,
    disk: &dyn Disk,
    from: u32,
    mut each: impl FnMut(SegmentCopy) -> Result<(), E>,
) -> Result<(), LogError>
where
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let numbers = segment::list(disk, dir).map_err(LogError::io(dir))?;
    let last = numbers.last().copied();
    for segment in numbers.into_iter().filter(|segment| *segment >= from) {
        let path = segment::path_of(dir, segment);
        let io = || LogError::io(&path);
        let (file, size_bytes) = if Some(segment) == last {
            let Some(opened) = Opened::open(disk, dir, segment)? else {
                return Err(io()(io::ErrorKind::NotFound.into()));
            };
            let size_bytes = match last_end(disk, dir, &opened)? {
                Some(end) => u64::from(end),
                None => opened.file.size_bytes().map_err(io())?,
            };
            (opened.file, size_bytes)
        } else {
            let file = disk.open_to_read(&path).map_err(io())?;
            let size_bytes = file.size_bytes().map_err(io())?;
            (file, size_bytes)
        };
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let copy = SegmentCopy { segment, name, size_bytes, file, read_bytes: 0 };
        each(copy).map_err(|e| LogError::Stopped(e.into()))?;
    }
    Ok(())
}

/// Where the last segment's whole commits end; `None` if all of the file belongs to it.
pub(super) fn last_end(disk: &dyn Disk, dir: &Path, opened: &Opened) -> Result<Option<u32>, LogError> {
    if opened.header.generation > 0 || opened.broken_header.is_some() {
        return Ok(None);
    }
    let segment = opened.header.segment;
    let mut scan = opened.scan(Ending::Open, READ_BYTES);
    let end = whole_end(&mut scan).map_err(LogError::io(&segment::path_of(dir, segment)))?;
    // It may have been sealed meanwhile, and what is whole behind its end does not count then.
    let next = segment.checked_add(1).map(|next| Opened::open(disk, dir, next)).transpose()?.flatten();
    let sealed = next.filter(|next| next.broken_header.is_none()).map(|next| next.header.previous_end);
    let end = sealed.map_or(end, |sealed| sealed.min(end));
    Ok(Some(end).filter(|end| *end < opened.size_bytes))
}

/// Behind the last whole commit, while somebody may be writing behind it; the file's end and more if nobody knows.
fn whole_end(scan: &mut Scan<'_>) -> io::Result<u32> {
    let mut end = BLOCK_BYTES;
    loop {
        while let Some(found) = scan.commit(end)? {
            end = found.next;
        }
        let witness = scan.witness(end)?;
        if witness == Searched::Nothing {
            return Ok(end);
        }
        // What was not whole a moment ago is durable by now. If it still is not whole, it is damaged.
        scan.refresh();
        if scan.commit(end)?.is_none() {
            match (scan.next_commit(end)?, witness) {
                (Some(behind), _) => end = behind,
                (None, Searched::GaveUp) => return Ok(u32::MAX),
                (None, Searched::Found(_) | Searched::Nothing) => return Ok(end),
            }
        }
    }
}
