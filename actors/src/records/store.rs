//! Ordered byte records on disk or in memory, behind one trait.

use std::{collections::BTreeMap, fmt, sync::Arc};

/// Records to write and keys to remove, by key. `None` removes.
pub type Batch = BTreeMap<Vec<u8>, Option<Vec<u8>>>;
/// A key and its value.
pub type Pair = (Vec<u8>, Vec<u8>);

/// Ordered byte records. Every method may be called from any thread.
pub trait Store: Send + Sync + 'static {
    /// The value of a key.
    ///
    /// # Errors
    /// [`StoreError`] when the store cannot tell; so for all methods. A value that is not what was written is an error,
    /// never an answer.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// The first `max` records at or after `from` whose keys begin with `prefix`, ascending. Fewer means that there are
    /// no more.
    fn page(&self, prefix: &[u8], from: &[u8], max: usize) -> Result<Vec<Pair>, StoreError>;

    /// Writes and removes all of these together, or nothing. It need not be durable when the call returns, but what a
    /// crash leaves is the result of the first so many batches.
    fn apply(&self, batch: &Batch) -> Result<(), StoreError>;

    /// Makes everything durable and ends the store: later calls fail.
    fn close(&self) -> Result<(), StoreError>;
}

/// Why the store cannot do what it was asked: a sentence for the operator. The store is not to be trusted any more; what
/// it held can be made again from the log.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct StoreError(Arc<str>);

impl StoreError {
    /// An error with this sentence.
    #[must_use]
    pub fn new(sentence: impl Into<Arc<str>>) -> Self {
        Self(sentence.into())
    }

    /// What every call says after [`Store::close`].
    pub(super) fn closed() -> Self {
        Self::new("the index is closed")
    }
}

impl fmt::Debug for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoreError({:?})", &self.0)
    }
}
