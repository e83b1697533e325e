//! Values and what a node says of them.

use std::fmt;

use bytes::Bytes;
use http::{HeaderMap, header};
use kvspace_protocol::id::{BlobHash, EpochId};

use crate::Meta;

const VERSION: &str = "x-kvspace-version";
const FRONTIER: &str = "x-kvspace-frontier";
const INTEGRITY: &str = "x-kvspace-integrity";
const SIZE: &str = "x-kvspace-size";

/// Who answers for a value being what its writer wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Integrity {
    /// The writer signed its hash.
    ClientSigned,
    /// The host that took it says so.
    HostAttested,
}

/// What a node says of a stored value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Head {
    /// Its entity tag, quotes included: what [`Condition::IfMatch`] takes.
    pub etag: Option<String>,
    /// Its length in bytes, where the node says it.
    pub size: Option<u64>,
    /// The headers stored with it.
    pub meta: Meta,
    /// The version of the entry, as the node spells it.
    pub version: Option<String>,
    /// Who answers for it.
    pub integrity: Option<Integrity>,
}

/// A value in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Value {
    /// Its bytes; their hash is the one of the entity tag.
    pub bytes: Bytes,
    /// What the node says of it.
    pub head: Head,
}

/// What came of a write or delete.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Written {
    /// Of a write: the entity tag of the value. Of a delete: that of the value that was removed, if there was one.
    pub etag: Option<String>,
    /// The version of the entry.
    pub version: Option<String>,
    /// The epoch that holds it: what a read at another host waits for ([`crate::Space::see`]).
    pub frontier: Option<EpochId>,
}

/// In which state the key must be for a write or delete to happen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Condition {
    /// In any.
    #[default]
    Always,
    /// There must be no value. For writes only.
    IfAbsent,
    /// The value must have this entity tag.
    IfMatch(String),
}

impl Head {
    pub(crate) fn parse(headers: &HeaderMap, has_body: bool) -> Self {
        let length = if has_body { text(headers, header::CONTENT_LENGTH.as_str()) } else { None };
        Self {
            etag: text(headers, header::ETAG.as_str()).map(str::to_owned),
            size: text(headers, SIZE).or(length).and_then(|size| size.parse().ok()),
            meta: Meta::from_headers(headers),
            version: text(headers, VERSION).map(str::to_owned),
            integrity: text(headers, INTEGRITY).and_then(Integrity::parse),
        }
    }

    /// The media type.
    #[must_use]
    pub fn content_type(&self) -> Option<&str> {
        self.meta.content_type()
    }

    /// The hash that the entity tag names.
    #[must_use]
    pub fn hash(&self) -> Option<BlobHash> {
        let hex = self.etag.as_deref()?.strip_prefix("\"blake3-")?.strip_suffix('"')?;
        blake3::Hash::from_hex(hex).ok().map(|hash| BlobHash(*hash.as_bytes()))
    }
}

impl Written {
    pub(crate) fn parse(headers: &HeaderMap) -> Self {
        Self {
            etag: text(headers, header::ETAG.as_str()).map(str::to_owned),
            version: text(headers, VERSION).map(str::to_owned),
            frontier: frontier(headers),
        }
    }

    /// The clock in the version, which reads `<seq>.<number>.<epoch>`.
    pub(crate) fn seq(&self) -> Option<u64> {
        self.version.as_deref()?.split('.').next()?.parse().ok()
    }
}

impl Integrity {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "client-signed" => Some(Self::ClientSigned),
            "host-attested" => Some(Self::HostAttested),
            _ => None,
        }
    }
}

impl fmt::Display for Integrity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ClientSigned => "client-signed",
            Self::HostAttested => "host-attested",
        })
    }
}

/// The frontier token of an answer.
fn frontier(headers: &HeaderMap) -> Option<EpochId> {
    text(headers, FRONTIER)?.parse().ok()
}

pub(crate) fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}
