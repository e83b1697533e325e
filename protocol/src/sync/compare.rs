//! Which of the spaces that two hosts share differ: range-based set reconciliation (negentropy) over one item a space.
//!
//! The item of a space is a hash over its id and its frontier, so equal logs are equal items, and a space costs nothing while
//! nothing happens in it. Only the side that asks keeps state, and only while it asks.

use bytes::Bytes;

use crate::id::{EpochId, SpaceId};

/// The item of a space: BLAKE3 over its id and its heads, ascending.
#[must_use]
pub fn item(_space: &SpaceId, _frontier: &[EpochId]) -> [u8; 32] {
    todo!()
}

/// The items of the spaces shared with one peer, ready to be compared. Cheap to clone.
#[derive(Clone)]
pub struct Items;

/// Why a message of a peer cannot be answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a broken message of set reconciliation")]
pub struct BrokenMessage;

impl Items {
    /// Sorts the items.
    #[must_use]
    pub fn new(_items: impl IntoIterator<Item = [u8; 32]>) -> Self {
        todo!()
    }

    /// Answers one message of a peer, in at most [`crate::limits::COMPARE_BYTES_MAX`] bytes.
    ///
    /// # Errors
    /// [`BrokenMessage`].
    pub fn answer(&self, _message: &[u8]) -> Result<Bytes, BrokenMessage> {
        todo!()
    }
}

/// One comparison, by the side that asks.
pub struct Comparison;

/// What to do next.
#[derive(Debug)]
pub enum Step {
    /// Send this and bring the answer.
    Send(Bytes),
    /// Done: items of ours that the peer has not.
    Done(Vec<[u8; 32]>),
}

impl Comparison {
    /// Begins; the bytes are the first message.
    #[must_use]
    pub fn begin(_items: &Items) -> (Self, Bytes) {
        todo!()
    }

    /// Takes an answer in.
    ///
    /// # Errors
    /// [`BrokenMessage`], also after more than [`crate::limits::COMPARE_ROUNDS_MAX`] rounds.
    pub fn step(&mut self, _answer: &[u8]) -> Result<Step, BrokenMessage> {
        todo!()
    }
}
