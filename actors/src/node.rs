//! The running node as the HTTP side sees it.

mod collect;
mod explain;
mod peers;
mod reads;
mod recover;
pub mod replicas;
mod replicate;
mod restored;
mod room;
mod start;
#[cfg(test)]
mod tests;
mod writes;

use std::{
    path::PathBuf,
    sync::{Arc, Weak},
    time::Duration,
};

use bytes::Bytes;
use kvspace_protocol::{
    authority::{Denied, Grants, Proof},
    id::{Address, BlobHash, Did, EpochId, Key, SpaceId},
    kv::{Condition, Integrity, Meta, Value, Version},
    space::Refusal,
};
use tokio::sync::OwnedSemaphorePermit;

use self::start::Inner;
pub(crate) use self::{
    reads::{Pending, PendingValue},
    recover::Recovery,
};
pub use crate::index::Summary;
use crate::{
    disk::OpenError,
    index::IndexError,
    log::{AppendError, LogError, Position},
};

/// A body up to this size has its own share of the memory for bodies, which nobody can hold by sending slowly: it is asked
/// for when the body is there.
pub const SMALL_BODY_BYTES_MAX: u64 = 16 * 1024;

/// How a node runs.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// The node's Ed25519 key: its identity and its signature.
    pub key: [u8; 32],
    /// Whose spaces it hosts.
    pub admit: Admit,
    /// Bodies in memory at one time, in bytes: half of it for what goes out, an eighth for small ones that come in.
    pub body_bytes_max: usize,
    /// How long a request waits for its share of them.
    pub permit_wait: Duration,
    /// Spaces kept in memory that are not in use.
    pub active_spaces_max: usize,
    /// Size of a log segment, in bytes.
    pub segment_bytes: u32,
    /// Memory of the index's cache, in bytes.
    pub index_cache_bytes: u64,
    /// Free room on the disk below which writes are refused, in bytes.
    pub reserve_free_bytes: u64,
    /// How long the bytes of a value are kept that is the winner no more.
    pub retention: Duration,
    /// How often what may be freed is looked for.
    pub collect_interval: Duration,
    /// How it speaks to other nodes; `None`: not at all.
    pub network: Option<NetworkOptions>,
    /// How long a read waits for a value that is on its way.
    pub pending_wait: Duration,
}

/// How a node speaks to other nodes.
#[derive(Debug, Clone)]
pub struct NetworkOptions {
    /// Multiaddresses to listen on.
    pub listen: Vec<String>,
    /// Multiaddresses of nodes to stay connected to.
    pub peers: Vec<String>,
    /// Whether nodes in the local network are looked for.
    pub mdns: bool,
    /// How often shared spaces are compared with each peer.
    pub compare_interval: Duration,
}

/// Whose spaces a node hosts.
#[derive(Debug, Clone)]
pub enum Admit {
    /// Anybody's.
    Any,
    /// Nobody's new ones.
    None,
    /// These owners'.
    Owners(Vec<Did>),
}

/// A handle on the running node. Cheap to clone.
#[derive(Clone)]
pub struct Node {
    inner: Arc<Inner>,
}

/// A handle that does not keep the node.
#[derive(Clone)]
pub(crate) struct WeakNode {
    inner: Weak<Inner>,
}

impl Node {
    pub(crate) fn downgrade(&self) -> WeakNode {
        WeakNode { inner: Arc::downgrade(&self.inner) }
    }
}

impl WeakNode {
    pub(crate) fn upgrade(&self) -> Option<Node> {
        self.inner.upgrade().map(|inner| Node { inner })
    }
}

/// An invocation found to be allowed.
#[derive(Debug, Clone)]
pub struct Authorized {
    /// The space's generation of authority then.
    pub generation: u64,
    /// What covers the request.
    pub grants: Grants,
    /// What it rests on and the space's log does not hold.
    pub borrowed: Vec<Proof>,
}

/// The winning value of a key.
#[derive(Debug, Clone)]
pub struct Found {
    /// Its version.
    pub version: Version,
    /// Hash, size and stored headers.
    pub value: Arc<Value>,
    /// Who vouches for it.
    pub integrity: Integrity,
    /// The key.
    pub(crate) key: Key,
    /// Where the bytes of an inline value lie.
    pub(crate) at: Option<Position>,
}

/// What a lookup finds.
#[derive(Debug, Clone)]
pub enum Lookup {
    /// A live value.
    Live(Found),
    /// A tombstone.
    Deleted(Version),
    /// The key was never written.
    Never,
}

/// The bytes of a value.
#[derive(Debug)]
pub enum Content {
    /// Whole and checked against the hash; counts against the node's memory until dropped.
    Whole(Bytes, OwnedSemaphorePermit),
    /// A file to stream.
    File(tokio::fs::File, u64),
}

/// A page of keys.
#[derive(Debug, Clone)]
pub struct Page {
    /// Ascending.
    pub keys: Vec<Key>,
    /// Whether more follow.
    pub truncated: bool,
}

/// Which keys a list asks for.
#[derive(Debug, Clone)]
pub struct ListQuery {
    /// The listed path; empty is everything.
    pub path: String,
    /// What covers the request; keys outside are left out.
    pub grants: Grants,
    /// Begin after this key.
    pub after: Option<Key>,
    /// At most so many.
    pub limit: Option<usize>,
}

/// A put or delete, authorised.
#[derive(Debug)]
pub struct WriteRequest {
    /// The space.
    pub space: SpaceId,
    /// The invocation.
    pub token: Proof,
    /// The outcome of `authorize`.
    pub authorized: Authorized,
    /// The value of a put.
    pub body: Option<Body>,
    /// The headers to store.
    pub meta: Meta,
    /// What it demands of the key.
    pub condition: Condition,
}

/// The bytes of a put.
#[derive(Debug)]
pub enum Body {
    /// At most 256 KiB, with its share of the node's memory.
    Inline {
        /// Their hash.
        hash: BlobHash,
        /// The bytes.
        bytes: Bytes,
        /// Their share of the node's memory.
        permit: OwnedSemaphorePermit,
    },
    /// A larger one, durable in a file.
    Staged(crate::blobs::Staged),
}

/// What became of a delegation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delegated {
    /// Its address.
    pub cid: Address,
    /// The spaces whose log took it in with this call.
    pub activated: Vec<SpaceId>,
    /// The spaces it names that this node does not host.
    pub skipped: Vec<SpaceId>,
}

/// Why the node did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// No authority.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// The space refused; nothing was changed.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// This node does not host the space.
    #[error("Space not found")]
    NotHosted,
    /// This node does not take new spaces of this owner.
    #[error("this node does not host spaces of {0}")]
    NotAdmitted(Did),
    /// Too much at once; try again.
    #[error("the node is busy")]
    Busy,
    /// The disk is full.
    #[error("the disk is full")]
    DiskFull,
    /// Writing to or reading from storage failed.
    #[error("storage failed: {0}")]
    Storage(String),
    /// The value's bytes are not here (yet).
    #[error("the value's bytes are not here yet")]
    BlobPending,
    /// The value's bytes were freed when it was not the winner.
    #[error("the value's bytes are gone: they were freed after another value had taken its place")]
    BlobGone,
    /// These epochs are not held here.
    #[error("this host does not hold {} of the epochs that the request names", .0.len())]
    Behind(Vec<EpochId>),
    /// The data folder was made of a backup, and what the space's other hosts have of it is not here yet.
    #[error("this host was restored from a backup and first fetches what the space's other hosts have")]
    CatchingUp,
    /// The node stops.
    #[error("the node is stopping")]
    Stopping,
}

impl From<AppendError> for NodeError {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::DiskFull => Self::DiskFull,
            AppendError::Busy => Self::Busy,
            AppendError::Closed => Self::Stopping,
            AppendError::TooLarge { .. } | AppendError::Failed(_) => Self::Storage(error.to_string()),
        }
    }
}

impl From<IndexError> for NodeError {
    fn from(error: IndexError) -> Self {
        Self::Storage(error.to_string())
    }
}

/// Why a node does not start, as a sentence for the operator.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data folder cannot be used.
    #[error(transparent)]
    DataDir(#[from] OpenError),
    /// The log cannot be read.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The index can be neither opened nor begun anew.
    #[error("cannot use the index: {0}")]
    Index(#[from] IndexError),
    /// The folder of large values cannot be used.
    #[error("cannot use the folder of large values: {0}")]
    Blobs(std::io::Error),
    /// No thread for the actors.
    #[error("cannot start the actors' threads: {0}")]
    Thread(std::io::Error),
    /// It cannot speak to other nodes.
    #[error("{0}")]
    Network(String),
    /// The node's work ended before it began.
    #[error("starting failed: {0}")]
    Failed(String),
}

/// What `status` shows.
#[derive(Debug, Clone)]
pub struct Status {
    /// The hosted spaces, at most as many as were asked for.
    pub spaces: Vec<SpaceStatus>,
    /// Whether there are more.
    pub has_more: bool,
    /// Spaces in memory.
    pub active: usize,
    /// Delegations that wait for their space.
    pub parked: usize,
    /// What lies on the disk.
    pub storage: StorageStatus,
}

/// One hosted space.
#[derive(Debug, Clone)]
pub struct SpaceStatus {
    /// Its id.
    pub space: SpaceId,
    /// Its counts.
    pub summary: Summary,
    /// Its frontier.
    pub frontier: Vec<EpochId>,
    /// Whether it is in memory.
    pub active: bool,
}

/// What lies on the disk, and what is free.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StorageStatus {
    /// Files of the log.
    pub segments: usize,
    /// Their bytes.
    pub log_bytes: u64,
    /// Free bytes of the file system.
    pub free_bytes: u64,
    /// Whether there is too little room for writes.
    pub is_short: bool,
    /// Why the index takes nothing in any more, if so.
    pub index_failure: Option<String>,
    /// Places in the log that were found broken at the start.
    pub damaged: u64,
}
