//! Reading around what the disk does not give back.

use std::{io, ops::Range};

use crate::disk::DiskFile;

/// What is read at a time where reading fails: one bad sector costs this much.
const PIECE_BYTES: u64 = 4096;

/// Fills `buffer` from `offset` and says how much there was. What cannot be read is zeros, and its place is told.
pub(super) fn read_around(
    file: &dyn DiskFile,
    buffer: &mut [u8],
    offset: u64,
    mut unreadable: impl FnMut(Range<u64>),
) -> io::Result<usize> {
    let failed = match file.read_at(buffer, offset) {
        Err(error) if error.kind() != io::ErrorKind::Interrupted => error,
        read => return read,
    };
    let end = file.size_bytes()?.min(offset + buffer.len() as u64);
    tracing::warn!(offset, error = %failed, "a part of the log cannot be read");
    let mut at = offset;
    while at < end {
        let next = (at / PIECE_BYTES + 1).saturating_mul(PIECE_BYTES).min(end);
        let piece = &mut buffer[(at - offset) as usize..(next - offset) as usize];
        match file.read_at(piece, at) {
            Ok(read) if read < piece.len() => return Ok((at - offset) as usize + read),
            Ok(_) => {}
            Err(_) => {
                piece.fill(0);
                unreadable(at..next);
            }
        }
        at = next;
    }
    Ok(end.saturating_sub(offset) as usize)
}
