//! The names of things: hashes with their CID spelling, host keys, times.

use std::{fmt, str::FromStr, sync::Arc};

use cid::Cid;
use multihash::Multihash;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

mod did;
mod space;

pub use did::{Did, DidError};
pub use space::{SpaceId, SpaceIdError};

const CODEC_RAW: u64 = 0x55;
const CODEC_DAG_CBOR: u64 = 0x71;
const BLAKE3_256: u64 = 0x1e;

/// Why a text or CID is not the id it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Not a CID at all.
    #[error("not a CID")]
    NotACid,
    /// A CID of another kind: wrong version, codec or hash.
    #[error("a CID of another kind")]
    OtherKind,
}

macro_rules! hash_id {
    ($(#[$doc:meta])* $name:ident, $codec:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; 32]);

        impl $name {
            /// The id of these bytes: their BLAKE3-256.
            #[must_use]
            pub fn of(bytes: &[u8]) -> Self {
                Self(*blake3::hash(bytes).as_bytes())
            }

            /// The hash itself.
            #[must_use]
            pub fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }

            /// The id as CIDv1.
            #[must_use]
            pub fn cid(&self) -> Cid {
                let hash = Multihash::wrap(BLAKE3_256, &self.0).expect("32 bytes fit a multihash of 64");
                Cid::new_v1($codec, hash)
            }

            /// Takes the hash out of a CIDv1 with this id's own codec.
            ///
            /// # Errors
            /// [`IdError::OtherKind`] for another version, codec or hash.
            pub fn from_cid(cid: &Cid) -> Result<Self, IdError> {
                if cid.version() != cid::Version::V1 || cid.codec() != $codec {
                    return Err(IdError::OtherKind);
                }
                digest(cid).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.cid().fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.cid().fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::from_cid(&Cid::try_from(text).map_err(|_| IdError::NotACid)?)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    serializer.collect_str(self)
                } else {
                    self.cid().serialize(serializer)
                }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                if deserializer.is_human_readable() {
                    String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
                } else {
                    Self::from_cid(&Cid::deserialize(deserializer)?).map_err(D::Error::custom)
                }
            }
        }
    };
}

hash_id!(
    /// The id of an epoch: CIDv1, dag-cbor, BLAKE3-256 over its header.
    EpochId,
    CODEC_DAG_CBOR
);
hash_id!(
    /// The id of an epoch's body: CIDv1, dag-cbor, BLAKE3-256.
    BodyId,
    CODEC_DAG_CBOR
);
hash_id!(
    /// The hash of a value: CIDv1, raw, BLAKE3-256.
    BlobHash,
    CODEC_RAW
);
hash_id!(
    /// The address of a token: CIDv1, raw, BLAKE3-256 over its bytes as stored.
    Address,
    CODEC_RAW
);

impl Address {
    /// Reads a proof CID. Only the hash counts: any base and codec is taken, as the reference does.
    ///
    /// # Errors
    /// [`IdError::NotACid`] or [`IdError::OtherKind`] when the hash is not BLAKE3-256.
    pub fn from_proof(text: &str) -> Result<Self, IdError> {
        digest(&Cid::try_from(text).map_err(|_| IdError::NotACid)?).map(Self)
    }
}

impl BlobHash {
    /// The strong entity tag of a value: `"blake3-<64 hex>"`, quotes included.
    #[must_use]
    pub fn etag(&self) -> String {
        format!("\"blake3-{}\"", blake3::Hash::from_bytes(self.0).to_hex())
    }
}

fn digest(cid: &Cid) -> Result<[u8; 32], IdError> {
    if cid.hash().code() != BLAKE3_256 {
        return Err(IdError::OtherKind);
    }
    cid.hash().digest().try_into().map_err(|_| IdError::OtherKind)
}

/// The identity of a token: BLAKE3-256 over what was signed (the SIWE text, or `header.payload` of a JWT).
///
/// One signed statement has several byte forms, so replay and revocation go by identity and only proofs are found by
/// [`Address`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity(pub [u8; 32]);

impl Identity {
    /// The identity of this signed text.
    #[must_use]
    pub fn of(signed: &[u8]) -> Self {
        Self(*blake3::hash(signed).as_bytes())
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "identity:{}", blake3::Hash::from_bytes(self.0).to_hex())
    }
}

/// A host's Ed25519 public key. Its did:key and its PeerId are two spellings of it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct HostKey(#[serde(with = "serde_bytes")] pub [u8; 32]);

impl HostKey {
    /// The did:key of this host.
    #[must_use]
    pub fn did(&self) -> Did {
        Did::from_ed25519(&self.0)
    }
}

impl fmt::Debug for HostKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.did().fmt(f)
    }
}

/// The number a host draws when a process first commits in a space.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Incarnation(#[serde(with = "serde_bytes")] pub [u8; 8]);

impl fmt::Debug for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", u64::from_be_bytes(self.0))
    }
}

/// Milliseconds since the Unix epoch, floored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Millis(pub i64);

impl Millis {
    /// This time moved by `delay_ms`, held at the ends of the range.
    #[must_use]
    pub fn plus(self, delay_ms: i64) -> Self {
        Self(self.0.saturating_add(delay_ms))
    }
}

/// A key of a space: the path of a `kv` resource, never decoded, compared byte for byte.
pub type Key = Arc<str>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_from_its_own_text() {
        let id = EpochId::of(b"epoch");
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(id.cid().codec(), CODEC_DAG_CBOR);
    }

    #[test]
    fn an_epoch_id_is_not_taken_for_a_blob() {
        assert_eq!(BlobHash::from_cid(&EpochId::of(b"x").cid()), Err(IdError::OtherKind));
    }

    #[test]
    fn a_proof_is_found_by_its_hash_whatever_its_codec() {
        let address = Address::of(b"token");
        let other = EpochId(address.0).to_string();
        assert_eq!(Address::from_proof(&other), Ok(address));
    }
}
