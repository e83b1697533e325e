//! What replay found in the last segment is made durable, and what is torn is cut off.

use std::{io, path::Path, sync::Arc};

use super::{LogError, replay::Last, scan::READ_BYTES, segment, unreadable::read_around};
use crate::disk::{Disk, DiskFile};

/// Makes the last segment what replay took it for, and gives back its file.
///
/// Commits that nothing says were durable are written and synced again: the process that wrote them may have ended
/// before its sync, or been told that the sync failed. What is behind them becomes zero, if writing goes on here; a
/// segment that is damaged keeps the rest of its bytes as they are.
pub(super) fn settle(disk: &dyn Disk, dir: &Path, last: &Last) -> Result<Arc<dyn DiskFile>, LogError> {
    let path = segment::path_of(dir, last.segment);
    let io = || LogError::io(&path);
    let file = disk.open(&path).map_err(io())?;
    let size_bytes = u32::try_from(file.size_bytes().map_err(io())?).unwrap_or(u32::MAX);
    let limit = if last.is_open { size_bytes } else { last.end.min(size_bytes) };
    let mut chunk = vec![0; READ_BYTES];
    let mut start = last.durable;
    let mut torn = false;
    while start < limit {
        let length = READ_BYTES.min((limit - start) as usize);
        let chunk = &mut chunk[..length];
        let read = match file.read_at(chunk, u64::from(start)) {
            Ok(read) => read,
            Err(error) if last.is_open => return Err(io()(error)),
            Err(_) => {
                rewrite_readable(file.as_ref(), chunk, start).map_err(io())?;
                start += length as u32;
                continue;
            }
        };
        let kept = (last.end.saturating_sub(start) as usize).min(read);
        let clean = chunk[kept..read].iter().all(|byte| *byte == 0);
        if kept > 0 || !clean {
            chunk[kept..].fill(0);
            file.write_at(chunk, u64::from(start)).map_err(io())?;
        }
        torn |= !clean;
        start += length as u32;
    }
    if torn {
        tracing::warn!(segment = last.segment, end = last.end, "cut off a torn end of the log");
    }
    file.sync().map_err(io())?;
    Ok(file)
}

/// Writes again what is there from `start` on, but for what cannot be read: nothing is put in its place.
fn rewrite_readable(file: &dyn DiskFile, chunk: &mut [u8], start: u32) -> io::Result<()> {
    let mut at = u64::from(start);
    let mut readable = Vec::new();
    let read = read_around(file, chunk, at, |range| {
        readable.push(at..range.start);
        at = range.end;
    })?;
    readable.push(at..u64::from(start) + read as u64);
    for range in readable.into_iter().filter(|range| !range.is_empty()) {
        let within = (range.start - u64::from(start)) as usize..(range.end - u64::from(start)) as usize;
        file.write_at(&chunk[within], range.start)?;
    }
    Ok(())
}
