//! Segment files: their names and their header block.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::record;
use crate::disk::{Disk, DiskFile};

/// The header block; records begin behind it. One page, so that no record shares a sector with it.
pub(super) const BLOCK_BYTES: u32 = 4096;
const MAGIC: [u8; 8] = *b"kvsp log";
/// The format of segments that this program writes and reads.
pub(super) const FORMAT: u32 = 2;
/// The fields of the header: magic, format, segment, generation, end, previous end.
const FIELDS: usize = 28;

/// What the header block of a segment says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) segment: u32,
    pub(super) generation: u32,
    /// Where this segment's records end, if it was compacted; else 0, and the next segment says it.
    pub(super) end: u32,
    /// Where the records of the segment before ended when this one was begun. 0 in the first.
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
    pub(super) fn read(file: &dyn DiskFile, segment: u32) -> io::Result<Result<Self, NoHeader>> {
        let mut block = vec![0; BLOCK_BYTES as usize];
        let Ok(read) = file.read_at(&mut block, 0) else {
            return Ok(Err(NoHeader::Damaged("its header cannot be read")));
        };
        if read < block.len() || block[..8] != MAGIC {
            return Ok(Err(NoHeader::Damaged("it does not begin as a segment does")));
        }
        let stored = block[FIELDS..FIELDS + 8].to_vec();
        block[FIELDS..FIELDS + 8].fill(0);
        if stored != checksum(&block) {
            return Ok(Err(NoHeader::Damaged("its header does not match its checksum")));
        }
        let found = record::u32_at(&block, 8);
        if found != FORMAT {
            return Ok(Err(NoHeader::OtherFormat(found)));
        }
        let header = Self {
            segment: record::u32_at(&block, 12),
            generation: record::u32_at(&block, 16),
            end: record::u32_at(&block, 20),
            previous_end: record::u32_at(&block, 24),
        };
        if header.segment != segment {
            return Ok(Err(NoHeader::Damaged("its header names another segment")));
        }
        Ok(Ok(header))
    }
}

/// Why a file has no header of its segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoHeader {
    /// What was found instead.
    Damaged(&'static str),
    /// Another release wrote it, in this format.
    OtherFormat(u32),
}

/// The checksum of a header block whose own place for it is zero.
fn checksum(block: &[u8]) -> [u8; 8] {
    blake3::hash(block).as_bytes()[..8].try_into().expect("a hash has 32 bytes")
}

/// The file of a segment.
pub(super) fn path_of(dir: &Path, segment: u32) -> PathBuf {
    dir.join(format!("{segment:08}.seg"))
}

/// The file that is to take the place of a segment when it is whole.
pub(super) fn new_path_of(dir: &Path, segment: u32) -> PathBuf {
    dir.join(format!("{segment:08}.seg.new"))
}

/// Whether a file name is that of a segment which never took its place.
fn is_left_over(name: &str) -> bool {
    name.strip_suffix(".new").and_then(number_of).is_some()
}

/// Removes files that were to take a segment's place and never did.
pub(super) fn remove_left_overs(disk: &dyn Disk, dir: &Path) -> io::Result<()> {
    disk.list(dir)?.iter().filter(|name| is_left_over(name)).try_for_each(|name| disk.remove(&dir.join(name)))
}

/// The numbers of the segments in a folder, ascending.
pub(super) fn list(disk: &dyn Disk, dir: &Path) -> io::Result<Vec<u32>> {
    let mut numbers: Vec<u32> = disk.list(dir)?.iter().filter_map(|name| number_of(name)).collect();
    numbers.sort_unstable();
    numbers.dedup();
    Ok(numbers)
}

/// The segment that a file name belongs to.
fn number_of(name: &str) -> Option<u32> {
    let digits = name.strip_suffix(".seg")?;
    let number = digits.parse().ok().filter(|number| *number > 0)?;
    (digits == format!("{number:08}")).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_gives_its_number_and_no_other_name_does() {
        assert_eq!(number_of("00000017.seg"), Some(17));
        assert!(is_left_over("00000017.seg.new") && !is_left_over("00000017.seg") && !is_left_over("17.seg.new"));
        for name in [
            "17.seg",
            "next.zeros",
            "00000017.seg.new",
            "0000001x.seg",
            "+0000017.seg",
            "00000000.seg",
            "000000017.seg",
        ] {
            assert_eq!(number_of(name), None, "{name}");
        }
    }
}
