//! What can go wrong, whose fault it is, and what to do.

use kvspace_protocol::id::{BlobHash, SpaceIdError};

use crate::{key_path::KeyPathError, meta::MetaError, refusal::Refusal};

/// Who can mend it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The caller: the same call fails again.
    Caller,
    /// The node: its operator has to look, or it needs time.
    Node,
    /// The way between them: trying again may help.
    Network,
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The key cannot be written as a path.
    #[error(transparent)]
    Key(#[from] KeyPathError),
    /// A header cannot be stored.
    #[error(transparent)]
    Meta(#[from] MetaError),
    /// The name or id of a space cannot be used.
    #[error(transparent)]
    Space(#[from] SpaceIdError),
    /// The node's address is not a URL of http or https.
    #[error("`{0}` is not the address of a node: write http://HOST:PORT or https://HOST")]
    NodeUrl(String),
    /// Not a secret key.
    #[error("not a secret key: 64 hex digits, for Ethereum within the range of its curve")]
    Secret,
    /// A token cannot be read or made.
    #[error("token: {0}")]
    Token(String),
    /// The session does not reach so far.
    #[error("the session {0}")]
    Session(String),
    /// The node took the owner's word and left the space out all the same.
    #[error("the node does not host {0}")]
    NotCreated(kvspace_protocol::id::SpaceId),
    /// The system gave no randomness.
    #[error("the system gives no randomness: {0}")]
    Randomness(String),
    /// The caller's file or writer failed.
    #[error("cannot read or write the local data: {0}")]
    Local(#[from] std::io::Error),
    /// The file was changed while it was sent. Nothing was stored.
    #[error("the data changed while it was sent; nothing was stored")]
    SourceChanged,
    /// The value does not fit the memory it was asked into.
    #[error("the value is larger than the {limit} bytes taken into memory; read it to a file or writer instead")]
    ValueTooLarge {
        /// The caller's bound.
        limit: u64,
    },
    /// Nobody answers at the node's address.
    #[error("cannot reach the node at {node}: {reason}")]
    Unreachable {
        /// Its address.
        node: String,
        /// What the system said.
        reason: String,
    },
    /// The connection ended in the middle.
    #[error("the connection to the node ended too early: {0}")]
    Interrupted(String),
    /// Nothing came or went for too long.
    #[error("the node stood still for {idle_ms} ms")]
    Stalled {
        /// How long was waited.
        idle_ms: u64,
    },
    /// The node said no.
    #[error(transparent)]
    Refused(#[from] Box<Refusal>),
    /// The node's answer makes no sense.
    #[error("the node's answer cannot be used: {0}")]
    Answer(String),
    /// The bytes that came are not the value that the node named.
    #[error("the value came damaged: its hash is {found}, not {named}")]
    Corrupt {
        /// What the ETag says.
        named: BlobHash,
        /// What came.
        found: BlobHash,
    },
}

impl Error {
    /// Who can mend it.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::Unreachable { .. } | Self::Interrupted(_) | Self::Stalled { .. } => Fault::Network,
            Self::Answer(_) | Self::Corrupt { .. } | Self::NotCreated(_) => Fault::Node,
            Self::Refused(refusal) => refusal.kind.fault(),
            Self::Key(_)
            | Self::Meta(_)
            | Self::Space(_)
            | Self::NodeUrl(_)
            | Self::Secret
            | Self::Token(_)
            | Self::Session(_)
            | Self::Randomness(_)
            | Self::Local(_)
            | Self::SourceChanged
            | Self::ValueTooLarge { .. } => Fault::Caller,
        }
    }

    /// What to do next, as a sentence for people.
    #[must_use]
    pub fn advice(&self) -> Option<&'static str> {
        match self {
            Self::Unreachable { .. } => Some("check the address and that the node runs"),
            Self::Interrupted(_) | Self::Stalled { .. } => Some("try again"),
            Self::Answer(_) => Some("check that the address is that of a node"),
            Self::Corrupt { .. } => Some("read it again, or from another host of the space"),
            Self::SourceChanged => Some("put it again when nothing writes to it"),
            Self::Refused(refusal) => refusal.kind.advice(),
            Self::NotCreated(_) => Some("create the space at this node first, with the owner's key"),
            Self::Session(_) => Some("open a new session, or ask for a delegation that reaches further"),
            Self::Key(_)
            | Self::Meta(_)
            | Self::Space(_)
            | Self::NodeUrl(_)
            | Self::Secret
            | Self::Token(_)
            | Self::Randomness(_)
            | Self::Local(_)
            | Self::ValueTooLarge { .. } => None,
        }
    }

    /// The node's refusal, if it is one.
    #[must_use]
    pub fn refusal(&self) -> Option<&Refusal> {
        if let Self::Refused(refusal) = self { Some(refusal) } else { None }
    }
}
