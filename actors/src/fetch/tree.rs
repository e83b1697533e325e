//! The BLAKE3 tree of a value, cut at groups of 16 KiB: what a range of groups looks like on the wire.

use std::{io, ops::Range};

use bao_tree::{
    BaoTree, BlockSize, ChunkNum, ChunkRanges,
    io::{BaoContentItem, DecodeError, sync::DecodeResponseIter},
    iter::{BaoChunk, ResponseIter},
};
use kvspace_protocol::{id::BlobHash, sync::blob::GROUP_BYTES};

/// Chunks of BLAKE3 in a group.
const GROUP_CHUNKS: u64 = 16;
pub(super) const BLOCK: BlockSize = BlockSize::from_chunk_log(4);
/// The two chaining values of an inner node.
const NODE_BYTES: usize = 64;

/// Bytes `groups` of a value of this size.
pub(super) fn bytes_of(size: u64, groups: &Range<u64>) -> Range<u64> {
    groups.start * GROUP_BYTES..size.min(groups.end * GROUP_BYTES)
}

/// These groups, as the tree counts; the last one stands for the end, which it proves.
pub(super) fn chunks(size: u64, groups: &Range<u64>) -> ChunkRanges {
    let (from, to) = (ChunkNum(groups.start * GROUP_CHUNKS), ChunkNum(groups.end * GROUP_CHUNKS));
    if groups.end * GROUP_BYTES >= size { ChunkRanges::from(from..) } else { ChunkRanges::from(from..to) }
}

/// How long the encoding of these groups is.
pub(super) fn encoded_bytes(size: u64, groups: &Range<u64>) -> usize {
    let chunks = ResponseIter::new(BaoTree::new(size, BLOCK), chunks(size, groups));
    chunks
        .map(|chunk| match chunk {
            BaoChunk::Parent { .. } => NODE_BYTES,
            BaoChunk::Leaf { size, .. } => size,
        })
        .sum()
}

/// What was found in an encoding.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Decoded {
    /// The bytes of the first groups, those that hold what the hash names.
    pub(super) bytes: Vec<u8>,
    /// How many groups these are.
    pub(super) groups: u64,
    /// Whether something in it is not what the hash names.
    pub(super) is_bad: bool,
}

/// Verifies an encoding, or what came of one, group by group.
pub(super) fn decode(hash: &BlobHash, size: u64, groups: &Range<u64>, encoded: &[u8]) -> Decoded {
    let ranges = chunks(size, groups);
    let root = blake3::Hash::from_bytes(hash.0);
    let items = DecodeResponseIter::new(root, BaoTree::new(size, BLOCK), io::Cursor::new(encoded), &ranges);
    let mut decoded = Decoded { bytes: Vec::with_capacity(encoded.len()), groups: 0, is_bad: false };
    for item in items {
        match item {
            Ok(BaoContentItem::Parent(_)) => {}
            Ok(BaoContentItem::Leaf(leaf)) => {
                decoded.bytes.extend_from_slice(&leaf.data);
                decoded.groups += 1;
            }
            Err(DecodeError::ParentHashMismatch(_) | DecodeError::LeafHashMismatch(_)) => decoded.is_bad = true,
            Err(DecodeError::ParentNotFound(_) | DecodeError::LeafNotFound(_) | DecodeError::Io(_)) => {}
        }
    }
    decoded
}

#[cfg(test)]
mod tests {
    use bao_tree::io::{outboard::PreOrderMemOutboard, sync::encode_ranges_validated};

    use super::*;

    fn encoded(bytes: &[u8], groups: &Range<u64>) -> Vec<u8> {
        let outboard = PreOrderMemOutboard::create(bytes, BLOCK);
        let mut encoded = Vec::new();
        let chunks = chunks(bytes.len() as u64, groups);
        encode_ranges_validated(bytes, &outboard, &chunks, &mut encoded).expect("encoded");
        encoded
    }

    fn content(size: u64) -> Vec<u8> {
        (0..size).map(|i| (i / 7) as u8).collect()
    }

    #[test]
    fn the_length_of_an_encoding_follows_from_size_and_range() {
        for size in [0, 1, GROUP_BYTES, GROUP_BYTES + 1, 5 * GROUP_BYTES, 1_000_001] {
            let bytes = content(size);
            let count = size.div_ceil(GROUP_BYTES).max(1);
            for (from, to) in (0..count).flat_map(|from| (from + 1..=count).map(move |to| (from, to))).take(50) {
                let encoded = encoded(&bytes, &(from..to));
                assert_eq!(encoded_bytes(size, &(from..to)), encoded.len(), "{size} {from} {to}");
                let decoded = decode(&BlobHash::of(&bytes), size, &(from..to), &encoded);
                let range = bytes_of(size, &(from..to));
                assert_eq!((decoded.groups, decoded.is_bad), (to - from, false));
                assert!(decoded.bytes == bytes[range.start as usize..range.end as usize]);
            }
        }
    }

    #[test]
    fn a_value_of_one_group_is_its_bytes() {
        assert_eq!(encoded(b"value", &(0..1)), b"value");
    }

    #[test]
    fn what_is_flipped_anywhere_is_found_and_what_came_before_it_counts() {
        let bytes = content(4 * GROUP_BYTES);
        let good = encoded(&bytes, &(0..4));
        for at in [0, 63, 64, 200, good.len() / 2, good.len() - 1] {
            let mut bad = good.clone();
            bad[at] ^= 1;
            let decoded = decode(&BlobHash::of(&bytes), bytes.len() as u64, &(0..4), &bad);
            assert!(decoded.is_bad && decoded.groups < 4, "{at}");
            assert!(bytes.starts_with(&decoded.bytes));
        }
        let short = decode(&BlobHash::of(&bytes), bytes.len() as u64, &(0..4), &good[..good.len() - 1]);
        assert_eq!((short.groups, short.is_bad), (3, false));
    }

    #[test]
    fn another_size_is_found_out_with_the_last_group() {
        let bytes = content(3 * GROUP_BYTES - 5);
        let good = encoded(&bytes, &(0..3));
        for size in [bytes.len() as u64 - 1, bytes.len() as u64 + 1] {
            let decoded = decode(&BlobHash::of(&bytes), size, &(0..3), &[&good[..], b"x"].concat());
            assert!(decoded.is_bad && decoded.groups < 3, "{size}");
        }
    }
}
