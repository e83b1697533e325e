//! What the segments are, by their headers alone.

use super::{
    reader::Segments,
    segment::{self, BLOCK_BYTES, Header},
};

/// A segment of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentInfo {
    /// Its number, from 1.
    pub segment: u32,
    /// How often it was compacted.
    pub generation: u32,
    /// Bytes of its records; 0 if nothing says it.
    pub record_bytes: u64,
    /// Bytes of its file.
    pub file_bytes: u64,
    /// Whether it can be compacted: another one is written by now.
    pub is_sealed: bool,
}

/// The segments in order. One whose file cannot be read is left out.
pub(super) fn infos(segments: &Segments) -> Vec<SegmentInfo> {
    let (newest, newest_end) = segments.written();
    let mut infos: Vec<SegmentInfo> = Vec::new();
    for number in segment::list(segments.disk.as_ref(), &segments.dir).unwrap_or_default() {
        if number > newest {
            break;
        }
        let Ok(file) = segments.disk.open_to_read(&segment::path_of(&segments.dir, number)) else {
            continue;
        };
        let (Ok(header), Ok(file_bytes)) = (Header::read(file.as_ref(), number), file.size_bytes()) else {
            continue;
        };
        let unknown = Header { segment: number, generation: 0, end: 0, previous_end: 0 };
        let header = header.unwrap_or(unknown);
        let before = infos.last_mut().filter(|before| before.segment + 1 == number && before.record_bytes == 0);
        if let Some(before) = before.filter(|before| before.generation == 0) {
            before.record_bytes = records(header.previous_end);
        }
        let end = if number == newest { newest_end } else { header.end };
        let (record_bytes, is_sealed) = (records(end), number < newest);
        infos.push(SegmentInfo { segment: number, generation: header.generation, record_bytes, file_bytes, is_sealed });
    }
    infos
}

/// The bytes of records that end at `end`.
fn records(end: u32) -> u64 {
    u64::from(end.saturating_sub(BLOCK_BYTES))
}
