//! The epoch: the events one host committed at once, signed by it (format version 1).
//!
//! A **header** and a **body**, both canonical DAG-CBOR with exactly the members below. The id is CIDv1, dag-cbor,
//! BLAKE3-256 over the header; the host's Ed25519 signature over `"kvspace epoch 1\n" ‖ header` travels beside it and is
//! no part of the id.

use bytes::Bytes;
use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    id::{Address, BodyId, EpochId, HostKey, Incarnation, Millis, SpaceId},
    kv::{Value, seq_time},
    limits::{
        EPOCH_BODY_BYTES_MAX, EPOCH_EVENTS_MAX, EPOCH_HEADER_BYTES_MAX, EPOCH_PARENTS_MAX, META_BYTES_MAX,
        TOKEN_BYTES_MAX,
    },
};

/// The format version this code writes and reads.
pub const VERSION: u64 = 1;
const SIGNATURE_CONTEXT: &[u8] = b"kvspace epoch 1\n";

/// The signed part of an epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// Format version, 1.
    pub v: u64,
    /// The space.
    pub space: SpaceId,
    /// The host that made it.
    pub host: HostKey,
    /// The owner's host delegation this epoch stands on, `None` when the host's key is the owner.
    pub proof: Option<Address>,
    /// The host's incarnation.
    pub incarnation: Incarnation,
    /// Its number on its chain, from 0.
    pub n: u64,
    /// The host's own epoch n-1 of this incarnation.
    pub prev: Option<EpochId>,
    /// The heads of everything else the host held, ascending and unique.
    pub parents: Vec<EpochId>,
    /// The hybrid logical clock.
    pub seq: u64,
    /// The hash of the body.
    pub body: BodyId,
}

/// A token taken into the log, with the values of its puts in byte order of resource.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Event {
    /// The token as stored: CBOR of a CACAO, ASCII of a JWT.
    #[serde(with = "serde_bytes")]
    pub token: Vec<u8>,
    /// One value for each put of the token in this space.
    pub values: Vec<Value>,
}

/// An epoch as it travels and is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedEpoch {
    /// The header's bytes.
    pub header: Bytes,
    /// The body's bytes.
    pub body: Bytes,
    /// The host's signature over context and header.
    pub signature: [u8; 64],
}

/// A decoded epoch whose form is right: canonical, within the sizes, signed by its host, body fitting.
#[derive(Debug, Clone)]
pub struct Epoch {
    /// Its id.
    pub id: EpochId,
    /// Its header.
    pub header: Header,
    /// Its events.
    pub events: Vec<Event>,
    /// Its bytes.
    pub signed: SignedEpoch,
}

/// Why bytes are no epoch. All but [`Malformed::UnknownVersion`] are the sender's fault for ever.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Written by a newer release: neither stored nor remembered as refused.
    #[error("unknown epoch version {0}")]
    UnknownVersion(u64),
    /// Not DAG-CBOR of these members.
    #[error("not an epoch: {0}")]
    Decode(String),
    /// Decodes, but has another encoding.
    #[error("not the canonical encoding")]
    NotCanonical,
    /// Beyond a size of the protocol.
    #[error("{0} beyond the protocol's size")]
    TooLarge(&'static str),
    /// No event, or parents not ascending and unique, or prev among them.
    #[error("{0}")]
    Shape(&'static str),
    /// The body is not the one the header names.
    #[error("the body is not the one the header names")]
    Body,
    /// The host did not sign this.
    #[error("the host's signature does not hold")]
    Signature,
}

impl Epoch {
    /// Builds and signs an epoch of `key`'s host.
    ///
    /// # Errors
    /// [`Malformed`] when the parts break a rule of form; then nothing was signed.
    pub fn sign(mut header: Header, events: Vec<Event>, key: &SigningKey) -> Result<Self, Malformed> {
        let body = encode(&events);
        header.body = BodyId::of(&body);
        check_form(&header, &events)?;
        let header_bytes = encode(&header);
        check_sizes(&header_bytes, &body)?;
        let signature = key.sign(&signed_text(&header_bytes)).to_bytes();
        let id = EpochId::of(&header_bytes);
        Ok(Self { id, header, events, signed: SignedEpoch { header: header_bytes, body, signature } })
    }

    /// Decodes bytes from anywhere and checks everything that needs no other epoch.
    ///
    /// # Errors
    /// [`Malformed`], which says by what.
    pub fn decode(signed: SignedEpoch) -> Result<Self, Malformed> {
        let epoch = Self::decode_unsigned(signed)?;
        let key = VerifyingKey::from_bytes(&epoch.header.host.0).map_err(|_| Malformed::Signature)?;
        let signature = ed25519_dalek::Signature::from_bytes(&epoch.signed.signature);
        key.verify_strict(&signed_text(&epoch.signed.header), &signature).map_err(|_| Malformed::Signature)?;
        Ok(epoch)
    }

    /// Decodes an epoch of this node's own log, whose signature was checked before it went in.
    ///
    /// # Errors
    /// As [`Epoch::decode`], but for the signature.
    pub fn decode_unsigned(signed: SignedEpoch) -> Result<Self, Malformed> {
        check_version(&signed.header)?;
        check_sizes(&signed.header, &signed.body)?;
        let header: Header = decode_canonical(&signed.header)?;
        if BodyId::of(&signed.body) != header.body {
            return Err(Malformed::Body);
        }
        let events: Vec<Event> = decode_canonical(&signed.body)?;
        check_form(&header, &events)?;
        Ok(Self { id: EpochId::of(&signed.header), header, events, signed })
    }

    /// `t(e)`: when it was made, by its host's clock.
    #[must_use]
    pub fn time(&self) -> Millis {
        seq_time(self.header.seq)
    }
}

fn signed_text(header: &[u8]) -> Vec<u8> {
    [SIGNATURE_CONTEXT, header].concat()
}

fn check_sizes(header: &[u8], body: &[u8]) -> Result<(), Malformed> {
    if header.len() > EPOCH_HEADER_BYTES_MAX {
        return Err(Malformed::TooLarge("a header"));
    }
    if body.len() > EPOCH_BODY_BYTES_MAX {
        return Err(Malformed::TooLarge("a body"));
    }
    Ok(())
}

/// Reads `v` alone, so that a newer format is told from a broken one.
fn check_version(header: &[u8]) -> Result<(), Malformed> {
    #[derive(Deserialize)]
    struct Probe {
        v: u64,
    }
    let probe: Probe = serde_ipld_dagcbor::from_slice(header).map_err(|e| Malformed::Decode(e.to_string()))?;
    if probe.v == VERSION { Ok(()) } else { Err(Malformed::UnknownVersion(probe.v)) }
}

fn check_form(header: &Header, events: &[Event]) -> Result<(), Malformed> {
    if events.is_empty() {
        return Err(Malformed::Shape("an epoch without events"));
    }
    if events.len() > EPOCH_EVENTS_MAX {
        return Err(Malformed::TooLarge("the number of events"));
    }
    if header.parents.len() > EPOCH_PARENTS_MAX {
        return Err(Malformed::TooLarge("the number of parents"));
    }
    if header.parents.windows(2).any(|pair| pair[0] >= pair[1]) {
        return Err(Malformed::Shape("parents are not ascending and unique"));
    }
    if header.prev.is_some() != (header.n > 0) {
        return Err(Malformed::Shape("prev is null exactly in a chain's first epoch"));
    }
    if header.prev.is_some_and(|prev| header.parents.binary_search(&prev).is_ok()) {
        return Err(Malformed::Shape("prev is among the parents"));
    }
    for event in events {
        if event.token.len() > TOKEN_BYTES_MAX {
            return Err(Malformed::TooLarge("a token"));
        }
        let meta = |value: &Value| value.meta.iter().map(|(name, text)| name.len() + text.len()).sum::<usize>();
        if event.values.iter().any(|value| meta(value) > META_BYTES_MAX) {
            return Err(Malformed::TooLarge("stored headers"));
        }
    }
    Ok(())
}

fn encode<T: Serialize>(value: &T) -> Bytes {
    serde_ipld_dagcbor::to_vec(value).expect("plain data encodes to memory").into()
}

fn decode_canonical<T: DeserializeOwned + Serialize>(bytes: &[u8]) -> Result<T, Malformed> {
    let value: T = serde_ipld_dagcbor::from_slice(bytes).map_err(|e| Malformed::Decode(e.to_string()))?;
    if encode(&value) == bytes { Ok(value) } else { Err(Malformed::NotCanonical) }
}
