//! `/kvspace/blob/1`: the bytes of a value, a range at a time, each range verifiable against the value's hash.
//!
//! The side that opened the stream sends a request: its length in four bytes, big endian, then [`Request`] in canonical
//! DAG-CBOR. It reads the whole answer before it sends the next one on the same stream.
//!
//! The answer is one byte, a [`Status`]. After [`Status::Follows`] comes the bao encoding of the range, in groups of
//! [`GROUP_BYTES`], **without** the size in front: from the root down in pre-order, 64 bytes for each inner node of the
//! BLAKE3 tree whose range meets the one asked for (the chaining values of its two children), and the bytes of each group in
//! it. Its length follows from size and range, so nothing marks its end. The range from 0 to 0 of an empty value is nothing
//! at all, and a value of one group is its bytes. A side that finds its own bytes broken half-way closes the stream.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::{
    id::{BlobHash, EpochId, SpaceId},
    limits::{BLOB_BYTES_MAX, BLOB_RANGE_BYTES_MAX, SHOWN_MAX},
};

/// What is verified at once; ranges begin and end at its multiples.
pub const GROUP_BYTES: u64 = 16 * 1024;

/// Asks for a range of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// A space in which the value stands.
    pub space: SpaceId,
    /// An epoch that puts it there: a small value is found by it.
    pub epoch: EpochId,
    /// The value.
    pub hash: BlobHash,
    /// Its size in bytes, as its epoch says.
    pub size: u64,
    /// The first byte: a multiple of [`GROUP_BYTES`].
    pub from: u64,
    /// The byte behind the last one: a multiple of [`GROUP_BYTES`], or the size.
    pub to: u64,
    /// Tokens that show the asking host's right, as in [`Request::Pull`](super::Request::Pull).
    pub shown: Vec<Bytes>,
}

/// Why bytes are no request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no request for a value: {0}")]
pub struct NoRequest(String);

/// How an answer begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// The range comes.
    Follows,
    /// The value is not here, or the peer may not read it: the two look the same.
    NotFound,
    /// Too much at once; later.
    Busy,
    /// The request makes no sense; the stream ends.
    Malformed,
}

impl Status {
    /// As it travels.
    #[must_use]
    pub fn byte(self) -> u8 {
        match self {
            Self::Follows => 0,
            Self::NotFound => 1,
            Self::Busy => 2,
            Self::Malformed => 3,
        }
    }

    /// What this byte says.
    #[must_use]
    pub fn from_byte(byte: u8) -> Option<Self> {
        [Self::Follows, Self::NotFound, Self::Busy, Self::Malformed].into_iter().find(|status| status.byte() == byte)
    }
}

/// The members as they are encoded.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    space: SpaceId,
    epoch: EpochId,
    hash: BlobHash,
    size: u64,
    from: u64,
    to: u64,
    shown: Vec<ByteBuf>,
}

impl Request {
    /// The bytes of the request, without their length.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let Self { space, epoch, hash, size, from, to, shown } = self.clone();
        let shown = shown.into_iter().map(|token| ByteBuf::from(token.to_vec())).collect();
        let wire = Wire { space, epoch, hash, size, from, to, shown };
        serde_ipld_dagcbor::to_vec(&wire).expect("plain data encodes to memory")
    }

    /// Reads a request of a peer.
    ///
    /// # Errors
    /// [`NoRequest`] when it is not canonical, or its range is none of the value, not aligned, or too long.
    pub fn decode(bytes: &[u8]) -> Result<Self, NoRequest> {
        let wire: Wire = serde_ipld_dagcbor::from_slice(bytes).map_err(|error| NoRequest(error.to_string()))?;
        let Wire { space, epoch, hash, size, from, to, shown } = wire;
        let shown = shown.into_iter().map(|token| Bytes::from(token.into_vec())).collect();
        let request = Self { space, epoch, hash, size, from, to, shown };
        if request.encode() != bytes {
            return Err(NoRequest("not the canonical encoding".into()));
        }
        request.check().map_err(|why| NoRequest(why.into()))?;
        Ok(request)
    }

    fn check(&self) -> Result<(), &'static str> {
        let Self { size, from, to, .. } = *self;
        if size > BLOB_BYTES_MAX || self.shown.len() > SHOWN_MAX {
            return Err("beyond a size of the protocol");
        }
        if to > size || from > to || (from == to && size > 0) {
            return Err("no range of the value");
        }
        if !from.is_multiple_of(GROUP_BYTES) || !(to == size || to.is_multiple_of(GROUP_BYTES)) {
            return Err("not whole groups");
        }
        if to - from > BLOB_RANGE_BYTES_MAX {
            return Err("too long a range");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Did;

    fn request(size: u64, from: u64, to: u64) -> Request {
        let space = SpaceId::new(&Did::from_ed25519(&[7; 32]), "default").expect("a space id");
        let shown = vec![Bytes::from_static(b"a token")];
        Request { space, epoch: EpochId::of(b"epoch"), hash: BlobHash::of(b"value"), size, from, to, shown }
    }

    #[test]
    fn a_request_reads_back_from_its_bytes() {
        for request in [request(0, 0, 0), request(1, 0, 1), request(100_000, 16_384, 32_768)] {
            assert_eq!(Request::decode(&request.encode()), Ok(request));
        }
    }

    #[test]
    fn a_range_is_whole_groups_of_the_value_and_not_too_long() {
        let long = 16 * BLOB_RANGE_BYTES_MAX;
        for (size, from, to) in [
            (0, 0, 1),
            (10, 0, 11),
            (10, 0, 0),
            (100_000, 32_768, 16_384),
            (100_000, 1, 100_000),
            (100_000, 0, 99_999),
            (long, 0, BLOB_RANGE_BYTES_MAX + GROUP_BYTES),
            (u64::MAX, 0, GROUP_BYTES),
        ] {
            assert!(Request::decode(&request(size, from, to).encode()).is_err(), "{size} {from} {to}");
        }
        assert!(Request::decode(&request(long, GROUP_BYTES, BLOB_RANGE_BYTES_MAX + GROUP_BYTES).encode()).is_ok());
    }

    #[test]
    fn another_encoding_of_a_request_is_refused() {
        let bytes = request(1, 0, 1).encode();
        assert!(Request::decode(&bytes[..bytes.len() - 1]).is_err());
        assert!(Request::decode(&[&bytes[..], &[0]].concat()).is_err());
        let at = bytes.windows(5).position(|window| window == b"dsize").expect("a member");
        // The value 1 in two bytes.
        let longer = [&bytes[..at + 5], &[0x18, 0x01], &bytes[at + 6..]].concat();
        assert!(Request::decode(&longer).is_err());
    }

    #[test]
    fn a_status_is_its_byte() {
        for byte in 0..4 {
            assert_eq!(Status::from_byte(byte).map(Status::byte), Some(byte));
        }
        assert_eq!(Status::from_byte(4), None);
    }
}
