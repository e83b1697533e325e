//! What the log says, arranged for reading: a cache that can always be made anew from the log.

mod memory;

pub use memory::MemoryIndex;

use kvspace_protocol::{
    id::{BlobHash, Key},
    kv::Operation,
    space::{Change, View},
};

use crate::log::Position;

/// The index of one space. Readers see what was applied; nothing is promised about a crash.
pub trait Index: View + Send + Sync {
    /// Takes in what became durable: the changes, and where the commit's values and epochs lie.
    fn apply(&self, durable: Durable<'_>);

    /// The live values from `query.from` on, in byte order of key, until `query` has enough.
    fn page(&self, query: &PageQuery<'_>) -> PageOfKeys;

    /// Where in the log an inline value lies.
    fn blob_at(&self, hash: &BlobHash) -> Option<Position>;

    /// Whether an operation of this space, winning or not, needs the file of this hash.
    fn needs_file(&self, hash: &BlobHash) -> bool;

    /// Where the space's epochs lie, in log order.
    fn epochs(&self) -> Vec<Position>;

    /// Counts for the operator.
    fn summary(&self) -> Summary;
}

/// What one commit brought.
#[derive(Debug, Clone, Copy)]
pub struct Durable<'a> {
    /// What the space's state machine says.
    pub changes: &'a [Change],
    /// The inline values.
    pub blobs: &'a [(BlobHash, Position)],
    /// The epochs, in the order of the commit.
    pub epochs: &'a [Position],
}

/// Which keys to read.
pub struct PageQuery<'a> {
    /// The first key to look at.
    pub from: &'a str,
    /// Keys must begin with this.
    pub prefix: &'a str,
    /// Which keys to take.
    pub wanted: &'a dyn Fn(&str, &Operation) -> bool,
    /// Take at most so many, at least 1.
    pub take_max: usize,
    /// Look at no more than so many, so that nobody waits long for the index.
    pub look_max: usize,
}

/// The keys of one look at the index.
#[derive(Debug, Clone, Default)]
pub struct PageOfKeys {
    /// The keys, ascending.
    pub keys: Vec<Key>,
    /// Where to go on; `None` when there is nothing more.
    pub next: Option<Key>,
}

/// Counts of one space.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Epochs in the log.
    pub epochs: u64,
    /// Keys with a live value.
    pub keys: u64,
    /// Bytes of live values.
    pub live_bytes: u64,
}
