//! A sealed segment written anew without the values nobody needs, beside the old file and then in its place.

use std::{ops::ControlFlow, path::Path, sync::Arc};

use super::{
    CompactError, Damage, LogError, ReplayedCommit,
    opened::Opened,
    reader::Segments,
    record::{self, Edges, Head, Kind, Place},
    scan::{Ending, Found, Piece, READ_BYTES},
    segment::{self, BLOCK_BYTES, Header},
    table::Table,
};
use crate::{
    disk::{Disk, DiskFile},
    failpoint,
};

/// What stays free on the disk beside the new file, in bytes. Less than what new segments leave: compaction is how a
/// full disk gets room.
const SPARE_BYTES: u64 = 1024 * 1024;
/// Bytes written between two syncs: small enough not to hold up a commit's sync for long.
const CHUNK_BYTES: usize = 4 * 1024 * 1024;

/// What a compaction did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Compacted {
    /// Bytes of the file before.
    pub bytes_before: u64,
    /// Bytes of the file now.
    pub bytes_after: u64,
    /// Values that are no more.
    pub blobs_dropped: u64,
    /// What their records took.
    pub bytes_dropped: u64,
}

/// Compacts one segment; `keep` gets each commit and says for each of its blobs whether it stays.
pub(super) fn compact(
    segments: &Segments,
    segment: u32,
    keep: &mut dyn FnMut(&ReplayedCommit) -> Vec<bool>,
    is_worth: impl FnOnce(&Compacted) -> bool,
) -> Result<Compacted, CompactError> {
    let (opened, end) = sealed(segments, segment)?;
    let plan = plan(segments, &opened, end, keep)?;
    let header = Header { generation: opened.header.generation.saturating_add(1), end: plan.end, ..opened.header };
    let tail = plan.table.encode(segment, header.generation, header.end);
    let bytes_before = u64::from(opened.size_bytes);
    let bytes_after = u64::from(plan.end) + tail.len() as u64;
    let Plan { blobs_dropped, bytes_dropped, .. } = plan;
    let compacted = Compacted { bytes_before, bytes_after, blobs_dropped, bytes_dropped };
    if (plan.blobs_dropped == 0 && bytes_after >= bytes_before) || !is_worth(&compacted) {
        return Ok(Compacted { bytes_before, bytes_after: bytes_before, ..Compacted::default() });
    }
    let (disk, dir) = (segments.disk.as_ref(), segments.dir.as_path());
    if disk.free_bytes(dir).map_err(CompactError::io(dir))? < bytes_after + SPARE_BYTES {
        return Err(CompactError::DiskFull);
    }
    let file = put_in_place(disk, dir, &opened, header, &plan, &tail)?;
    failpoint::reached("compact.renamed");
    disk.sync_dir(dir).map_err(CompactError::io(dir))?;
    failpoint::reached("compact.named");
    let opened = Opened::of(header, file, None).map_err(CompactError::io(dir))?;
    segments.insert(Arc::new(opened));
    failpoint::reached("compact.swapped");
    Ok(compacted)
}

/// The segment and where its records end, if that is settled.
fn sealed(segments: &Segments, segment: u32) -> Result<(Arc<Opened>, u32), CompactError> {
    let (newest, _) = segments.written();
    if segment == 0 || segment >= newest {
        return Err(CompactError::NotSealed(segment));
    }
    let damaged = |segment, what| CompactError::Damaged(Damage { segment, offset: 0, length: 0, what });
    let get = |segment| match segments.get(segment) {
        Ok(Some(opened)) => match opened.broken_header.or(opened.broken_table) {
            None => Ok(opened),
            Some(what) => Err(damaged(segment, what)),
        },
        Ok(None) => Err(damaged(segment, "its file is missing")),
        Err(LogError::Io { path, source }) => Err(CompactError::Io { path, source }),
        Err(_) => Err(damaged(segment, "it has another format")),
    };
    let opened = get(segment)?;
    let next = if opened.header.generation == 0 { Some(get(segment + 1)?.header.previous_end) } else { None };
    match opened.ending(next) {
        Ending::Known(end) => Ok((opened, end)),
        Ending::AtLeast(_) | Ending::Open => Err(damaged(segment, "its header says no end")),
    }
}

/// What the new file will hold.
struct Plan {
    /// The kept records: where they are now, which ends of their commits they will be.
    kept: Vec<(u32, Edges)>,
    table: Table,
    /// Where the records will end.
    end: u32,
    blobs_dropped: u64,
    bytes_dropped: u64,
}

fn plan(
    segments: &Segments,
    opened: &Opened,
    end: u32,
    keep: &mut dyn FnMut(&ReplayedCommit) -> Vec<bool>,
) -> Result<Plan, CompactError> {
    let mut plan =
        Plan { kept: Vec::new(), table: Table::default(), end: BLOCK_BYTES, blobs_dropped: 0, bytes_dropped: 0 };
    let generation = opened.header.generation;
    let went =
        opened.scan(Ending::Known(end), READ_BYTES).pieces(BLOCK_BYTES, Ending::Known(end), |piece| match piece {
            Piece::Commit(found) => {
                plan.take(generation, &found, &keep(&found.commit));
                ControlFlow::Continue(())
            }
            Piece::Damage(damage) => ControlFlow::Break(damage),
        });
    let path = segment::path_of(&segments.dir, opened.header.segment);
    match went.map_err(CompactError::io(&path))? {
        ControlFlow::Continue(_) => Ok(plan),
        ControlFlow::Break(damage) => Err(CompactError::Damaged(damage)),
    }
}

impl Plan {
    fn take(&mut self, generation: u32, found: &Found, keep: &[bool]) {
        let mut blobs = keep.iter();
        let mut kept = Vec::new();
        for (offset, head) in &found.records {
            // A value that `keep` says nothing of stays.
            if head.kind == Kind::Blob && blobs.next() == Some(&false) {
                self.blobs_dropped += 1;
                self.bytes_dropped += u64::from(size_of(*head));
            } else {
                kept.push((*offset, *head));
            }
        }
        if let Some((offset, head)) = kept.first() {
            self.table.note(head.birth(generation, *offset), self.end);
        }
        let count = kept.len();
        for (index, (offset, head)) in kept.into_iter().enumerate() {
            self.kept.push((offset, Edges::of(index, count)));
            self.end += size_of(head);
        }
    }
}

/// The bytes of a record that was found in a segment.
fn size_of(head: Head) -> u32 {
    head.record_bytes().expect("a record that was read fits in a segment")
}

/// Writes the new file, makes it durable, and gives it the segment's name. On an error nothing is left of it.
fn put_in_place(
    disk: &dyn Disk,
    dir: &Path,
    opened: &Opened,
    header: Header,
    plan: &Plan,
    tail: &[u8],
) -> Result<Arc<dyn DiskFile>, CompactError> {
    let (new, path) = (segment::new_path_of(dir, header.segment), segment::path_of(dir, header.segment));
    let file = disk.create(&new).map_err(CompactError::io(&new))?;
    let renamed = write(file.as_ref(), &new, opened, header, plan, tail)
        .inspect(|()| failpoint::reached("compact.synced"))
        .and_then(|()| disk.rename(&new, &path).map_err(CompactError::io(&path)));
    match renamed {
        Ok(()) => Ok(file),
        Err(error) => {
            if let Err(left) = disk.remove(&new) {
                tracing::warn!(path = %new.display(), error = %left, "cannot remove an unfinished segment file");
            }
            Err(error)
        }
    }
}

fn write(
    file: &dyn DiskFile,
    path: &Path,
    opened: &Opened,
    header: Header,
    plan: &Plan,
    tail: &[u8],
) -> Result<(), CompactError> {
    let Header { segment, generation, end, .. } = header;
    let mut scan = opened.scan(Ending::Known(u32::MAX), READ_BYTES);
    let mut buffer = header.encode();
    let mut written = 0;
    for (index, (offset, edges)) in plan.kept.iter().enumerate() {
        if index == plan.kept.len() / 2 {
            failpoint::reached("compact.half");
        }
        // Read and checked again: what has changed meanwhile must not get a new checksum.
        let Some((head, payload)) = scan.record(*offset).map_err(CompactError::io(path))? else {
            let damage = Damage { segment, offset: *offset, length: 0, what: "a record is broken that was just whole" };
            return Err(CompactError::Damaged(damage));
        };
        let place = Place { segment, generation, offset: (written + buffer.len() as u64) as u32 };
        let mark = head.birth(opened.header.generation, *offset);
        record::put(&mut buffer, place, Head { edges: *edges, mark, ..head }, &[&payload]);
        if buffer.len() >= CHUNK_BYTES {
            flush(file, &mut buffer, &mut written).map_err(CompactError::io(path))?;
        }
    }
    debug_assert_eq!(written + buffer.len() as u64, u64::from(end), "as planned");
    buffer.extend_from_slice(tail);
    flush(file, &mut buffer, &mut written).map_err(CompactError::io(path))
}

fn flush(file: &dyn DiskFile, buffer: &mut Vec<u8>, written: &mut u64) -> std::io::Result<()> {
    file.write_at(buffer, *written)?;
    failpoint::reached("compact.written");
    file.sync()?;
    *written += buffer.len() as u64;
    buffer.clear();
    Ok(())
}
