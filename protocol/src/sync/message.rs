//! The messages of `/kvspace/sync/1` and `/kvspace/push/1`: canonical DAG-CBOR, one request and one answer a stream.
//!
//! A choice is a map of one member that names what was chosen; records are maps with exactly the members below; `bytes` is a
//! byte string, `link` a CIDv1. The sizes stand in [`crate::limits`].
//!
//! ```text
//! request   { compare: bytes }
//!         | { pull: { have, after: uint | null, shown: [bytes], space: text } }
//!         | { get: { shown: [bytes], space: text, epochs: [link] } }
//!         | { proofs: { shown: [bytes], space: text, addresses: [link] } }
//!         | { push: [ { told: [bytes 32], space: text, epochs: [sent] } ] }
//! have      { heads: [link] } | { branches: { rest: bytes 32 | null, tips: [tip] } }
//! tip       [ host: bytes 32, incarnation: bytes 8, first n: uint, n: uint, seq: uint, id: link ]
//! sent      { body: bytes, header: bytes, values: [bytes], signature: bytes 64 }
//!
//! response  { compare: bytes }
//!         | { epochs: { next: uint | null, heads: [link], epochs: [sent], tell_branches: bool } }
//!         | { proofs: [bytes] }
//!         | { push: [ "taken" | { refused } ] }
//!         | { refused }
//! refused   "not_found" | "busy" | "malformed"
//! ```
//!
//! Header and body of an epoch are bytes here: one that a newer release has made passes, and is judged by itself.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::have::Have;
use crate::{
    epoch::SignedEpoch,
    id::{Address, EpochId, HostKey, SpaceId},
    limits::{
        COMPARE_BYTES_MAX, HEADS_MAX, MESSAGE_BYTES_MAX, MESSAGE_EPOCHS_MAX, MESSAGE_ITEMS_MAX, NAMES_MAX,
        PROOFS_TOLD_MAX, SHOWN_MAX, TIPS_MAX, TOKEN_BYTES_MAX,
    },
};

/// A place in the log of the host that answers: opaque to the host that asks, good while their connection lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Cursor(pub u64);

/// What one host asks another.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// A round of set reconciliation over the spaces that both host.
    Compare(#[serde(with = "byte_string")] Bytes),
    /// What of this space the asking host lacks, ancestors first.
    Pull {
        /// The space.
        space: SpaceId,
        /// What it has.
        have: Have,
        /// Go on behind this place of the answering host's log.
        after: Option<Cursor>,
        /// Tokens that show the asking host's right, ancestors first: its own host delegation, which is taken into the log, or
        /// a read capability. Empty when it is known as a host.
        #[serde(with = "byte_strings")]
        shown: Vec<Bytes>,
    },
    /// These epochs, each with up to [`crate::limits::GET_RUN_EPOCHS`] of its own chain before it, oldest first.
    Get {
        /// The space.
        space: SpaceId,
        /// The epochs.
        epochs: Vec<EpochId>,
        /// As in [`Request::Pull`].
        #[serde(with = "byte_strings")]
        shown: Vec<Bytes>,
    },
    /// Delegations at these addresses, with all they rest on.
    Proofs {
        /// The space.
        space: SpaceId,
        /// The addresses.
        addresses: Vec<Address>,
        /// As in [`Request::Pull`].
        #[serde(with = "byte_strings")]
        shown: Vec<Bytes>,
    },
    /// What was just committed, space by space.
    Push(Vec<Pushed>),
}

/// New epochs of one space.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pushed {
    /// The space.
    pub space: SpaceId,
    /// The epochs, ancestors first.
    pub epochs: Vec<Sent>,
    /// Hosts that this host has sent them to as well.
    pub told: Vec<HostKey>,
}

/// An epoch on its way, with small values beside it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(from = "SentParts", into = "SentParts")]
pub struct Sent {
    /// The epoch.
    pub epoch: SignedEpoch,
    /// Inline values of its events, as far as they are at hand and win; found by their hash.
    pub values: Vec<Bytes>,
}

impl Sent {
    /// Its bytes: epoch and values.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        let values: usize = self.values.iter().map(Bytes::len).sum();
        self.epoch.header.len() + self.epoch.body.len() + self.epoch.signature.len() + values
    }
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Response {
    /// To [`Request::Compare`].
    Compare(#[serde(with = "byte_string")] Bytes),
    /// To [`Request::Pull`] and [`Request::Get`].
    Epochs {
        /// The answering host's heads, the newest if there are more than a message holds.
        heads: Vec<EpochId>,
        /// Epochs, ancestors first.
        epochs: Vec<Sent>,
        /// Where to go on; `None` when this is all.
        next: Option<Cursor>,
        /// The heads named are not known here: tell the branches.
        tell_branches: bool,
    },
    /// To [`Request::Proofs`]: the tokens' bytes, ancestors first.
    Proofs(#[serde(with = "byte_strings")] Vec<Bytes>),
    /// To [`Request::Push`]: one for each [`Pushed`].
    Push(Vec<Verdict>),
    /// No.
    Refused(Refused),
}

/// What became of one [`Pushed`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// On its way into the log, or held already, or waiting for what is asked for.
    Taken,
    /// Refused.
    Refused(Refused),
}

/// Why a host does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refused {
    /// The space is not here, or the peer may not read it: the two look the same.
    NotFound,
    /// Too much at once; later.
    Busy,
    /// The request makes no sense.
    Malformed,
}

/// Why bytes of a peer are no message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BrokenMessage {
    /// Not DAG-CBOR of these members.
    #[error("not a message: {0}")]
    Decode(String),
    /// Decodes, but has another encoding.
    #[error("not the canonical encoding")]
    NotCanonical,
    /// Beyond a size of the protocol.
    #[error("{0} beyond the protocol's size")]
    TooLarge(&'static str),
}

impl Request {
    /// The message.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        encode(self)
    }

    /// Reads a message of a peer.
    ///
    /// # Errors
    /// [`BrokenMessage`].
    pub fn decode(bytes: &[u8]) -> Result<Self, BrokenMessage> {
        let request: Self = decode(bytes)?;
        request.check()?;
        Ok(request)
    }

    fn check(&self) -> Result<(), BrokenMessage> {
        match self {
            Self::Compare(bytes) => at_most(bytes.len(), COMPARE_BYTES_MAX, "a message of set reconciliation"),
            Self::Pull { have, shown, .. } => {
                match have {
                    Have::Heads(heads) => at_most(heads.len(), HEADS_MAX, "the number of heads")?,
                    Have::Branches { tips, .. } => at_most(tips.len(), TIPS_MAX, "the number of branches")?,
                }
                check_tokens(shown, SHOWN_MAX)
            }
            Self::Get { epochs, shown, .. } => {
                at_most(epochs.len(), NAMES_MAX, "the number of epochs asked for")?;
                check_tokens(shown, SHOWN_MAX)
            }
            Self::Proofs { addresses, shown, .. } => {
                at_most(addresses.len(), NAMES_MAX, "the number of delegations asked for")?;
                check_tokens(shown, SHOWN_MAX)
            }
            Self::Push(pushed) => {
                at_most(pushed.len(), NAMES_MAX, "the number of spaces")?;
                let epochs = pushed.iter().map(|pushed| pushed.epochs.len()).sum();
                at_most(epochs, MESSAGE_EPOCHS_MAX, "the number of epochs")?;
                pushed.iter().try_for_each(|pushed| at_most(pushed.told.len(), NAMES_MAX, "the number of hosts"))
            }
        }
    }
}

impl Response {
    /// The message.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        encode(self)
    }

    /// Reads a message of a peer.
    ///
    /// # Errors
    /// [`BrokenMessage`].
    pub fn decode(bytes: &[u8]) -> Result<Self, BrokenMessage> {
        let response: Self = decode(bytes)?;
        response.check()?;
        Ok(response)
    }

    fn check(&self) -> Result<(), BrokenMessage> {
        match self {
            Self::Compare(bytes) => at_most(bytes.len(), COMPARE_BYTES_MAX, "a message of set reconciliation"),
            Self::Epochs { heads, epochs, .. } => {
                at_most(heads.len(), HEADS_MAX, "the number of heads")?;
                at_most(epochs.len(), MESSAGE_EPOCHS_MAX, "the number of epochs")
            }
            Self::Proofs(tokens) => check_tokens(tokens, PROOFS_TOLD_MAX),
            Self::Push(verdicts) => at_most(verdicts.len(), NAMES_MAX, "the number of spaces"),
            Self::Refused(_) => Ok(()),
        }
    }
}

fn at_most(number: usize, max: usize, what: &'static str) -> Result<(), BrokenMessage> {
    if number <= max { Ok(()) } else { Err(BrokenMessage::TooLarge(what)) }
}

fn check_tokens(tokens: &[Bytes], max: usize) -> Result<(), BrokenMessage> {
    at_most(tokens.len(), max, "the number of tokens")?;
    tokens.iter().try_for_each(|token| at_most(token.len(), TOKEN_BYTES_MAX, "a token"))
}

fn encode<T: Serialize>(message: &T) -> Bytes {
    serde_ipld_dagcbor::to_vec(message).expect("plain data encodes to memory").into()
}

fn decode<T: for<'de> Deserialize<'de> + Serialize>(bytes: &[u8]) -> Result<T, BrokenMessage> {
    at_most(bytes.len(), MESSAGE_BYTES_MAX, "a message")?;
    check_items(bytes)?;
    let message: T = serde_ipld_dagcbor::from_slice(bytes).map_err(|error| BrokenMessage::Decode(error.to_string()))?;
    if encode(&message) == bytes { Ok(message) } else { Err(BrokenMessage::NotCanonical) }
}

/// Counts the items before any is read: a list of a million empty strings is small on the wire only.
fn check_items(mut bytes: &[u8]) -> Result<(), BrokenMessage> {
    let broken = || BrokenMessage::Decode("it ends within an item".into());
    let mut items = 0;
    while let Some((head, rest)) = bytes.split_first() {
        items += 1;
        at_most(items, MESSAGE_ITEMS_MAX, "the number of items")?;
        let width = match head & 31 {
            ..24 => 0,
            small @ 24..28 => 1_usize << (small - 24),
            _ => return Err(BrokenMessage::Decode("an item of indefinite length".into())),
        };
        let (number, rest) = rest.split_at_checked(width).ok_or_else(broken)?;
        let number = number.iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
        let length = if width == 0 { u64::from(head & 31) } else { number };
        let skip = if matches!(head >> 5, 2 | 3) { usize::try_from(length).map_err(|_| broken())? } else { 0 };
        bytes = rest.get(skip..).ok_or_else(broken)?;
    }
    Ok(())
}

/// [`Sent`] on the wire.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SentParts {
    #[serde(with = "byte_string")]
    header: Bytes,
    #[serde(with = "byte_string")]
    body: Bytes,
    #[serde(with = "serde_bytes")]
    signature: [u8; 64],
    #[serde(with = "byte_strings")]
    values: Vec<Bytes>,
}

impl From<SentParts> for Sent {
    fn from(SentParts { header, body, signature, values }: SentParts) -> Self {
        Self { epoch: SignedEpoch { header, body, signature }, values }
    }
}

impl From<Sent> for SentParts {
    fn from(Sent { epoch: SignedEpoch { header, body, signature }, values }: Sent) -> Self {
        Self { header, body, signature, values }
    }
}

mod byte_string {
    use bytes::Bytes;
    use serde::{Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
        serde_bytes::deserialize::<Vec<u8>, D>(deserializer).map(Bytes::from)
    }
}

mod byte_strings {
    use bytes::Bytes;
    use serde::{Deserialize, Deserializer, Serializer};
    use serde_bytes::{ByteBuf, Bytes as Slice};

    pub(super) fn serialize<S: Serializer>(strings: &[Bytes], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(strings.iter().map(|bytes| Slice::new(bytes)))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Bytes>, D::Error> {
        let strings = Vec::<ByteBuf>::deserialize(deserializer)?;
        Ok(strings.into_iter().map(|bytes| Bytes::from(bytes.into_vec())).collect())
    }
}

#[cfg(test)]
mod tests;
