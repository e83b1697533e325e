//! One record of the log.
//!
//! ```text
//! length u32 · kind u8 · flags u8 · zero u16 · mark u32 · checksum 8 bytes · payload · zeros to a multiple of 8
//! ```
//!
//! Little-endian. The checksum is BLAKE3 cut to 8 bytes over segment, generation and the record's present offset, then
//! what stands before the checksum, then the payload: a record of another place or of a file's former life is no record
//! here. The flags say whether the record begins (2) and ends (1) its commit.
//!
//! In a segment that was never compacted (generation 0) `mark` is the offset up to which the segment was synced when
//! the record was written; so a later record witnesses that what came before it had been whole. In a compacted segment
//! `mark` is the offset the record had when it was first written, its **birth**: positions go by it.

use bytes::Bytes;
use kvspace_protocol::id::{BlobHash, SpaceId};

/// Bytes of a record before its payload.
pub(super) const HEAD_BYTES: u32 = 20;
/// Every record begins at a multiple of this.
pub(super) const ALIGN: u32 = 8;
/// The least payload: a blob of no bytes, that is its hash.
const PAYLOAD_BYTES_MIN: u32 = 32;
/// The bytes of the head that the checksum covers.
const COVERED: usize = 12;
const FLAG_ENDS_COMMIT: u8 = 1;
const FLAG_BEGINS_COMMIT: u8 = 2;

/// Names a record of this node's log, for good: compaction moves bytes and changes no position. Positions of one log
/// sort in the order they were written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The segment, from 1.
    pub segment: u32,
    /// The payload's first byte when it was first written, counted from the start of the file.
    pub offset: u32,
    /// The payload's length in bytes.
    pub length: u32,
}

/// An epoch as it lies in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EpochRecord {
    /// The space it belongs to.
    pub space: SpaceId,
    /// The header: canonical DAG-CBOR, its hash is the epoch's id.
    pub header: Bytes,
    /// The body: canonical DAG-CBOR.
    pub body: Bytes,
    /// The host's signature over the header.
    pub signature: [u8; 64],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Blob,
    Epoch,
}

impl Position {
    /// Of the record that was born at this offset.
    pub(super) fn of(segment: u32, birth: u32, length: u32) -> Self {
        Self { segment, offset: birth.saturating_add(HEAD_BYTES), length }
    }

    /// Where the record began when it was first written; `None` where no record begins.
    pub(super) fn birth(self) -> Option<u32> {
        self.offset.checked_sub(HEAD_BYTES).filter(|birth| birth % ALIGN == 0)
    }

    /// Where the record ended when it was first written; `None` where there can be none.
    pub(super) fn end(self) -> Option<u32> {
        self.birth()?.checked_add(record_bytes(self.length as usize)?)
    }
}

/// Where a record begins at present.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) segment: u32,
    pub(super) generation: u32,
    pub(super) offset: u32,
}

/// What stands before a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) length: u32,
    pub(super) kind: Kind,
    pub(super) edges: Edges,
    /// What was durable when the record was written, or the record's birth: see the record's format.
    pub(super) mark: u32,
}

/// Which ends of its commit a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Edges {
    pub(super) begins: bool,
    /// The commit is whole with this record.
    pub(super) ends: bool,
}

impl Edges {
    /// Of record number `index` in a commit of `count`.
    pub(super) fn of(index: usize, count: usize) -> Self {
        Self { begins: index == 0, ends: index + 1 == count }
    }
}

impl Head {
    /// Reads a head; `None` where there is none, in zeros for instance.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; HEAD_BYTES as usize] = bytes.get(..HEAD_BYTES as usize)?.try_into().ok()?;
        let length = u32_at(bytes, 0);
        let kind = match bytes[4] {
            1 => Kind::Blob,
            2 => Kind::Epoch,
            _ => return None,
        };
        if length < PAYLOAD_BYTES_MIN
            || bytes[5] & !(FLAG_ENDS_COMMIT | FLAG_BEGINS_COMMIT) != 0
            || bytes[6..8] != [0, 0]
        {
            return None;
        }
        let edges = Edges { begins: bytes[5] & FLAG_BEGINS_COMMIT != 0, ends: bytes[5] & FLAG_ENDS_COMMIT != 0 };
        Some(Self { length, kind, edges, mark: u32_at(bytes, 8) })
    }

    fn encode(self) -> [u8; COVERED] {
        let mut bytes = [0; COVERED];
        bytes[..4].copy_from_slice(&self.length.to_le_bytes());
        bytes[4] = match self.kind {
            Kind::Blob => 1,
            Kind::Epoch => 2,
        };
        bytes[5] |= if self.edges.ends { FLAG_ENDS_COMMIT } else { 0 };
        bytes[5] |= if self.edges.begins { FLAG_BEGINS_COMMIT } else { 0 };
        bytes[8..].copy_from_slice(&self.mark.to_le_bytes());
        bytes
    }

    /// The whole record in bytes, with head and padding; `None` if no segment could hold it.
    pub(super) fn record_bytes(self) -> Option<u32> {
        record_bytes(self.length as usize)
    }

    /// Where the record was first written, if it is at `offset` now in a segment of this generation.
    pub(super) fn birth(self, generation: u32, offset: u32) -> u32 {
        if generation == 0 { offset } else { self.mark }
    }
}

/// What a record with a payload of this length takes in the segment; `None` beyond 32 bits.
pub(super) fn record_bytes(payload: usize) -> Option<u32> {
    u32::try_from(payload).ok()?.checked_add(HEAD_BYTES)?.checked_next_multiple_of(ALIGN)
}

/// The payload length of a blob record.
pub(super) fn blob_payload_bytes(blob: &Bytes) -> usize {
    32 + blob.len()
}

/// The payload length of an epoch record.
pub(super) fn epoch_payload_bytes(epoch: &EpochRecord) -> usize {
    EPOCH_HEAD_BYTES + epoch.space.as_str().len() + epoch.header.len() + epoch.body.len()
}

/// Length of the space (u16), of the header (u32), and the signature; the body is what is left.
const EPOCH_HEAD_BYTES: usize = 2 + 4 + 64;

/// Appends a blob's record to `buffer`.
pub(super) fn encode_blob(
    buffer: &mut Vec<u8>,
    place: Place,
    edges: Edges,
    durable: u32,
    hash: &BlobHash,
    blob: &Bytes,
) -> Position {
    encode(buffer, place, Kind::Blob, edges, durable, &[hash.as_bytes(), blob])
}

/// Appends an epoch's record to `buffer`.
pub(super) fn encode_epoch(
    buffer: &mut Vec<u8>,
    place: Place,
    edges: Edges,
    durable: u32,
    epoch: &EpochRecord,
) -> Position {
    let space = epoch.space.as_str().as_bytes();
    let space_length = u16::try_from(space.len()).expect("a space id has at most 512 bytes");
    let header_length = u32::try_from(epoch.header.len()).expect("a commit beyond 32 bits was refused before");
    let parts: [&[u8]; 6] = [
        &space_length.to_le_bytes(),
        &header_length.to_le_bytes(),
        &epoch.signature,
        space,
        &epoch.header,
        &epoch.body,
    ];
    encode(buffer, place, Kind::Epoch, edges, durable, &parts)
}

fn encode(buffer: &mut Vec<u8>, place: Place, kind: Kind, edges: Edges, durable: u32, parts: &[&[u8]]) -> Position {
    let length = parts.iter().map(|part| part.len()).sum::<usize>();
    let length = u32::try_from(length).expect("a commit beyond 32 bits was refused before");
    put(buffer, place, Head { length, kind, edges, mark: durable }, parts);
    Position::of(place.segment, place.offset, length)
}

/// Appends a record of this head and payload to `buffer`.
pub(super) fn put(buffer: &mut Vec<u8>, place: Place, head: Head, parts: &[&[u8]]) {
    let head = head.encode();
    let start = buffer.len();
    buffer.extend_from_slice(&head);
    buffer.extend_from_slice(&[0; HEAD_BYTES as usize - COVERED]);
    for part in parts {
        buffer.extend_from_slice(part);
    }
    let payload = start + HEAD_BYTES as usize;
    let checksum = checksum(place, &head, &buffer[payload..]);
    buffer[start + COVERED..payload].copy_from_slice(&checksum);
    let padded = (buffer.len() - start).next_multiple_of(ALIGN as usize);
    buffer.resize(start + padded, 0);
}

/// Whether these bytes, head to padding, are the record of this place. `head` was decoded from them.
pub(super) fn holds(place: Place, head: Head, record: &[u8]) -> bool {
    let payload_end = HEAD_BYTES as usize + head.length as usize;
    let (Some(payload), Some(padding)) = (record.get(HEAD_BYTES as usize..payload_end), record.get(payload_end..))
    else {
        return false;
    };
    let stored = &record[COVERED..HEAD_BYTES as usize];
    padding.iter().all(|byte| *byte == 0) && stored == checksum(place, &head.encode(), payload)
}

fn checksum(place: Place, head: &[u8; COVERED], payload: &[u8]) -> [u8; 8] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&place.segment.to_le_bytes());
    hasher.update(&place.generation.to_le_bytes());
    hasher.update(&place.offset.to_le_bytes());
    hasher.update(head);
    hasher.update(payload);
    hasher.finalize().as_bytes()[..8].try_into().expect("a hash has 32 bytes")
}

/// Takes a blob's payload apart.
pub(super) fn decode_blob(payload: &Bytes) -> Option<(BlobHash, Bytes)> {
    let hash = payload.get(..32)?.try_into().ok()?;
    Some((BlobHash(hash), payload.slice(32..)))
}

/// Takes an epoch's payload apart. Its parts share the payload's memory.
pub(super) fn decode_epoch(payload: &Bytes) -> Option<EpochRecord> {
    let head = payload.get(..EPOCH_HEAD_BYTES)?;
    let space_end = EPOCH_HEAD_BYTES + usize::from(u16::from_le_bytes([head[0], head[1]]));
    let header_end = space_end.checked_add(u32_at(head, 2) as usize)?;
    let space = std::str::from_utf8(payload.get(EPOCH_HEAD_BYTES..space_end)?).ok()?.parse().ok()?;
    payload.get(space_end..header_end)?;
    Some(EpochRecord {
        space,
        header: payload.slice(space_end..header_end),
        body: payload.slice(header_end..),
        signature: head[6..].try_into().ok()?,
    })
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Place = Place { segment: 3, generation: 1, offset: 4096 };
    const ENDS: Edges = Edges { begins: false, ends: true };

    fn blob() -> (BlobHash, Bytes) {
        let bytes = Bytes::from_static(b"a value");
        (BlobHash::of(&bytes), bytes)
    }

    fn record() -> Vec<u8> {
        let (hash, bytes) = blob();
        let mut buffer = Vec::new();
        let at = encode_blob(&mut buffer, HERE, ENDS, 4096, &hash, &bytes);
        assert_eq!(at, Position { segment: 3, offset: 4116, length: 39 });
        buffer
    }

    #[test]
    fn a_record_reads_back() {
        let record = record();
        let head = Head::decode(&record).expect("a head");
        assert_eq!(head, Head { length: 39, kind: Kind::Blob, edges: ENDS, mark: 4096 });
        assert_eq!(head.record_bytes(), Some(record.len() as u32));
        assert!(holds(HERE, head, &record));
        let payload = Bytes::copy_from_slice(&record[20..59]);
        assert_eq!(decode_blob(&payload), Some(blob()));
    }

    #[test]
    fn an_epoch_reads_back() {
        let epoch = EpochRecord {
            space: "tinycloud:pkh:eip155:1:0x71C7656EC7ab88b098defB751B7401B5f6d8976F:default".parse().expect("an id"),
            header: Bytes::from_static(b"header"),
            body: Bytes::from_static(b"body"),
            signature: [7; 64],
        };
        let mut buffer = Vec::new();
        let at = encode_epoch(&mut buffer, HERE, ENDS, 4096, &epoch);
        assert_eq!(at.length as usize, epoch_payload_bytes(&epoch));
        let payload = Bytes::from(buffer).slice(20..20 + at.length as usize);
        assert_eq!(decode_epoch(&payload), Some(epoch));
        assert_eq!(decode_epoch(&payload.slice(..80)), None);
    }

    #[test]
    fn a_record_of_another_place_is_none_here() {
        let record = record();
        let head = Head::decode(&record).expect("a head");
        for place in [
            Place { segment: 4, ..HERE },
            Place { generation: 0, ..HERE },
            Place { generation: 2, ..HERE },
            Place { offset: 4104, ..HERE },
        ] {
            assert!(!holds(place, head, &record), "{place:?}");
        }
    }

    #[test]
    fn no_flipped_bit_goes_unseen() {
        let record = record();
        for bit in 0..record.len() * 8 {
            let mut flipped = record.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let sound = Head::decode(&flipped)
                .is_some_and(|head| head.record_bytes() == Some(flipped.len() as u32) && holds(HERE, head, &flipped));
            assert!(!sound, "bit {bit}");
        }
    }

    #[test]
    fn zeros_are_no_record() {
        assert_eq!(Head::decode(&[0; 64]), None);
    }
}
