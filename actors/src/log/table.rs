//! The sparse table behind the records of a compacted segment: where records are now that were born elsewhere.
//!
//! ```text
//! records · zeros to a multiple of 4,096 · (birth u32 · present u32) … · checksum 8 bytes
//! ```
//!
//! Little-endian; the file ends with it. An entry is the first record of a commit: the first of the segment, and about
//! one every 16 KiB. The checksum is BLAKE3 cut to 8 bytes over segment, generation and all that lies between the
//! records and the checksum.

use std::{io, ops::ControlFlow};

use super::{
    record::u32_at,
    scan::{Ending, Piece, Scan},
    segment::BLOCK_BYTES,
};
use crate::disk::DiskFile;

/// Bytes of records from one entry to the next, at least.
const STEP_BYTES: u32 = 16 * 1024;
const ENTRY_BYTES: usize = 8;
const CHECKSUM_BYTES: usize = 8;

/// Births and present offsets, both ascending.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Table {
    entries: Vec<(u32, u32)>,
}

impl Table {
    /// Notes that a commit begins at `present` whose first record was born at `birth`. To be called for all, in order.
    pub(super) fn note(&mut self, birth: u32, present: u32) {
        if self.entries.last().is_none_or(|(_, last)| present - last >= STEP_BYTES) {
            self.entries.push((birth, present));
        }
    }

    /// Between which present offsets a record of this birth lies if it is there. `end` is where the records end.
    pub(super) fn around(&self, birth: u32, end: u32) -> (u32, u32) {
        let behind = self.entries.partition_point(|(born, _)| *born <= birth);
        let from = behind.checked_sub(1).map_or(BLOCK_BYTES, |at| self.entries[at].1);
        (from, self.entries.get(behind).map_or(end, |(_, present)| *present))
    }

    /// What follows the records that end at `end`.
    pub(super) fn encode(&self, segment: u32, generation: u32, end: u32) -> Vec<u8> {
        let mut tail = vec![0; padding(end)];
        for (birth, present) in &self.entries {
            tail.extend_from_slice(&birth.to_le_bytes());
            tail.extend_from_slice(&present.to_le_bytes());
        }
        let checksum = checksum(segment, generation, &tail);
        tail.extend_from_slice(&checksum);
        tail
    }

    /// Reads what follows the records that end at `end`; `None` if it is broken.
    pub(super) fn read(file: &dyn DiskFile, segment: u32, generation: u32, end: u32) -> io::Result<Option<Self>> {
        let padding = padding(end);
        // As many entries as there can be in a segment, and one more.
        let longest = padding + (end / STEP_BYTES + 2) as usize * ENTRY_BYTES + CHECKSUM_BYTES;
        let tail = usize::try_from(file.size_bytes()?.saturating_sub(u64::from(end))).unwrap_or(usize::MAX);
        let entries = tail.checked_sub(padding + CHECKSUM_BYTES).filter(|bytes| bytes % ENTRY_BYTES == 0);
        let Some(entries) = entries.filter(|_| tail <= longest) else {
            return Ok(None);
        };
        let mut bytes = vec![0; tail];
        let Ok(read) = file.read_at(&mut bytes, u64::from(end)) else {
            return Ok(None);
        };
        let (covered, stored) = bytes.split_at(tail - CHECKSUM_BYTES);
        if read < tail || stored != checksum(segment, generation, covered) {
            return Ok(None);
        }
        let entries = covered[padding..padding + entries].chunks_exact(ENTRY_BYTES);
        Ok(Some(Self { entries: entries.map(|entry| (u32_at(entry, 0), u32_at(entry, 4))).collect() }))
    }

    /// Makes the table anew from what is sound in the records.
    pub(super) fn rebuild(scan: &mut Scan<'_>, ending: Ending) -> io::Result<Self> {
        let (mut table, generation) = (Self::default(), scan.generation);
        let scanned = scan.pieces(BLOCK_BYTES, ending, |piece| {
            if let Piece::Commit(found) = piece {
                table.note(found.records[0].1.birth(generation, found.start()), found.start());
            }
            ControlFlow::<()>::Continue(())
        });
        scanned.map(|_| table)
    }
}

fn padding(end: u32) -> usize {
    (BLOCK_BYTES as usize - end as usize % BLOCK_BYTES as usize) % BLOCK_BYTES as usize
}

fn checksum(segment: u32, generation: u32, covered: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&segment.to_le_bytes());
    hasher.update(&generation.to_le_bytes());
    hasher.update(covered);
    hasher.finalize().as_bytes()[..CHECKSUM_BYTES].try_into().expect("a hash has 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_says_between_which_offsets_a_record_lies() {
        let mut table = Table::default();
        for i in 0..100 {
            table.note(4096 + 2000 * i, 4096 + 1000 * i);
        }
        assert_eq!(table.entries.len(), 6);
        let end = 4096 + 100_000;
        assert_eq!(table.around(4096, end), (4096, 4096 + 17_000));
        assert_eq!(table.around(4096 + 34_000, end), (4096 + 17_000, 4096 + 34_000));
        assert_eq!(table.around(4096 + 33_992, end), (4096, 4096 + 17_000));
        assert_eq!(table.around(u32::MAX, end), (4096 + 85_000, end));
        assert_eq!(Table::default().around(9999, end), (BLOCK_BYTES, end));
    }
}
