//! Reading the log from its beginning: whole commits in order, and where the last segment ends.

use std::{path::Path, sync::Arc};

use bytes::Bytes;

use super::{
    LogError, Replayed,
    record::{self, ALIGN, HEAD_BYTES, Head, Kind, Place, Position},
    segment::{self, BLOCK_BYTES, Header},
};
use crate::disk::{Disk, DiskFile};

/// Bytes read at a time.
const READ_BYTES: usize = 1024 * 1024;
/// Bytes hashed in search of a witness behind a torn end. A tear is at most one round; this is sixteen of them.
const WITNESS_BYTES_MAX: u64 = 128 * 1024 * 1024;

/// The last segment: where writing goes on.
pub(super) struct Last {
    pub(super) header: Header,
    pub(super) file: Arc<dyn DiskFile>,
    /// Behind the last whole commit.
    pub(super) end: u32,
    pub(super) size_bytes: u32,
    path: std::path::PathBuf,
}

/// Reads every segment and delivers the records of whole commits that lie behind `after`.
pub(super) fn replay(
    disk: &dyn Disk,
    dir: &Path,
    after: Option<Position>,
    each: &mut dyn FnMut(Replayed) -> Result<(), LogError>,
) -> Result<Option<Last>, LogError> {
    let mut opened: Option<(Header, Arc<dyn DiskFile>)> = None;
    for segment in numbers(disk, dir)? {
        let path = segment::path_of(dir, segment);
        let file = disk.open(&path).map_err(LogError::io(&path))?;
        let header = Header::read(file.as_ref(), segment, &path)?;
        if let Some((before, before_file)) = opened.replace((header, file)) {
            let end = if before.end == 0 { header.previous_end } else { before.end };
            replay_sealed(dir, before, before_file.as_ref(), end, after, each)?;
        }
    }
    let Some((header, file)) = opened else {
        return Ok(None);
    };
    let path = segment::path_of(dir, header.segment);
    let size_bytes = file.size_bytes().map_err(LogError::io(&path))?;
    let size_bytes = u32::try_from(size_bytes).unwrap_or(u32::MAX);
    let mut scan = Scan::new(header, file.as_ref(), size_bytes, &path);
    let end = scan.commits(after, each)?;
    scan.refuse_witnesses(end)?;
    Ok(Some(Last { header, file, end, size_bytes, path }))
}

/// The segments' numbers: 1, 2, 3 … without a gap.
fn numbers(disk: &dyn Disk, dir: &Path) -> Result<Vec<u32>, LogError> {
    let names = disk.list(dir).map_err(LogError::io(dir))?;
    let mut numbers: Vec<u32> = names.iter().filter_map(|name| segment::number_of(name)).collect();
    numbers.sort_unstable();
    for (expected, found) in (1..).zip(&numbers) {
        if *found != expected {
            return Err(LogError::Damaged { segment: expected, offset: 0, what: "its file is missing" });
        }
    }
    Ok(numbers)
}

fn replay_sealed(
    dir: &Path,
    header: Header,
    file: &dyn DiskFile,
    end: u32,
    after: Option<Position>,
    each: &mut dyn FnMut(Replayed) -> Result<(), LogError>,
) -> Result<(), LogError> {
    let segment = header.segment;
    if after.is_some_and(|after| after.segment > segment) {
        return Ok(());
    }
    let path = segment::path_of(dir, segment);
    let mut scan = Scan::new(header, file, end, &path);
    let offset = scan.commits(after, each)?;
    if offset == end {
        return Ok(());
    }
    Err(LogError::Damaged { segment, offset, what: "a commit is broken that was whole once" })
}

/// Makes the last segment what replay took it for: its commits are written and synced again, because the process that
/// wrote them may have ended before its sync, or been told that the sync failed; everything behind them becomes zero.
pub(super) fn settle(last: &Last) -> Result<(), LogError> {
    let io = || LogError::io(&last.path);
    let mut chunk = vec![0; READ_BYTES];
    let mut start = BLOCK_BYTES;
    let mut torn = false;
    while start < last.size_bytes {
        let length = READ_BYTES.min((last.size_bytes - start) as usize);
        let chunk = &mut chunk[..length];
        let read = last.file.read_at(chunk, u64::from(start)).map_err(io())?;
        let kept = (last.end.saturating_sub(start) as usize).min(read);
        let clean = chunk[kept..read].iter().all(|byte| *byte == 0);
        if kept > 0 || !clean {
            chunk[kept..].fill(0);
            last.file.write_at(chunk, u64::from(start)).map_err(io())?;
        }
        torn |= !clean;
        start += length as u32;
    }
    if torn {
        tracing::warn!(segment = last.header.segment, end = last.end, "cut off a torn end of the log");
    }
    last.file.sync().map_err(io())
}

/// One segment, read from front to back through a window.
struct Scan<'a> {
    header: Header,
    file: &'a dyn DiskFile,
    path: &'a Path,
    /// Nothing is read from here on.
    limit: u32,
    window: Vec<u8>,
    window_start: u32,
}

/// What stands at an offset.
enum Found {
    Record { head: Head, next: u32 },
    Nothing,
}

impl<'a> Scan<'a> {
    fn new(header: Header, file: &'a dyn DiskFile, limit: u32, path: &'a Path) -> Self {
        Self { header, file, path, limit, window: Vec::new(), window_start: 0 }
    }

    /// Delivers the records of whole commits behind `after` and says where the last whole commit ends.
    fn commits(
        &mut self,
        after: Option<Position>,
        each: &mut dyn FnMut(Replayed) -> Result<(), LogError>,
    ) -> Result<u32, LogError> {
        let mut commit = Vec::new();
        let mut end = BLOCK_BYTES;
        let mut offset = BLOCK_BYTES;
        while let Found::Record { head, next } = self.find(offset)? {
            let at = self.place(offset).payload(head.length);
            if after.is_none_or(|after| at > after) {
                commit.push(self.record(head, at)?);
            }
            offset = next;
            if head.ends_commit {
                commit.drain(..).try_for_each(&mut *each)?;
                end = next;
            }
        }
        Ok(end)
    }

    /// Searches behind a torn end for a record that was written when more than that was durable already. There is
    /// none after a torn write; there is one if something in the middle was lost or changed.
    fn refuse_witnesses(&mut self, end: u32) -> Result<(), LogError> {
        let mut budget = WITNESS_BYTES_MAX;
        let mut offset = end;
        while offset < self.limit {
            let Some(head) = self.head(offset)? else {
                offset = offset.saturating_add(ALIGN);
                continue;
            };
            if head.durable > end && head.durable <= offset {
                budget = budget.saturating_sub(u64::from(head.length));
                if let Found::Record { .. } = self.find(offset)? {
                    let segment = self.header.segment;
                    return Err(LogError::Damaged {
                        segment,
                        offset: end,
                        what: "a commit is broken that was whole once",
                    });
                }
            }
            if budget == 0 {
                tracing::warn!(segment = self.header.segment, end, "gave up searching behind the log's torn end");
                return Ok(());
            }
            offset = offset.saturating_add(ALIGN);
        }
        Ok(())
    }

    /// The record at `offset`, if there is a sound one. It is then in the window.
    fn find(&mut self, offset: u32) -> Result<Found, LogError> {
        let Some(head) = self.head(offset)? else {
            return Ok(Found::Nothing);
        };
        let place = self.place(offset);
        let Some(size) = head.record_bytes() else {
            return Ok(Found::Nothing);
        };
        match self.bytes(offset, size)? {
            Some(bytes) if record::holds(place, head, bytes) => Ok(Found::Record { head, next: offset + size }),
            _ => Ok(Found::Nothing),
        }
    }

    fn head(&mut self, offset: u32) -> Result<Option<Head>, LogError> {
        Ok(self.bytes(offset, HEAD_BYTES)?.and_then(Head::decode))
    }

    /// The record that was just found at this position.
    fn record(&mut self, head: Head, at: Position) -> Result<Replayed, LogError> {
        let damaged = |what| LogError::Damaged { segment: at.segment, offset: at.offset, what };
        let Some(payload) = self.bytes(at.offset, at.length)?.map(Bytes::copy_from_slice) else {
            return Err(damaged("it ends within a record"));
        };
        match head.kind {
            Kind::Blob => record::decode_blob(&payload).map(|(hash, bytes)| Replayed::Blob { hash, at, bytes }),
            Kind::Epoch => record::decode_epoch(&payload).map(|record| Replayed::Epoch { record, at }),
        }
        .ok_or_else(|| damaged("a record is sound and its content is not"))
    }

    fn place(&self, offset: u32) -> Place {
        Place { segment: self.header.segment, generation: self.header.generation, offset }
    }

    /// `length` bytes from `offset`, moving the window if needed; `None` if they go beyond the end.
    fn bytes(&mut self, offset: u32, length: u32) -> Result<Option<&[u8]>, LogError> {
        let wanted = offset.checked_add(length).filter(|end| *end <= self.limit);
        let Some(end) = wanted else {
            return Ok(None);
        };
        let window_end = self.window_start as usize + self.window.len();
        if offset < self.window_start || end as usize > window_end {
            let size = READ_BYTES.max(length as usize).min((self.limit - offset) as usize);
            self.window.resize(size, 0);
            let read = self.file.read_at(&mut self.window, u64::from(offset)).map_err(LogError::io(self.path))?;
            self.window.truncate(read);
            self.window_start = offset;
        }
        let start = (offset - self.window_start) as usize;
        Ok(self.window.get(start..start + length as usize))
    }
}
