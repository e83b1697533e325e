//! What this host is about to write: the calls that are not durable yet.

use std::collections::{BTreeMap, VecDeque};

use super::effect::{CallId, NewValue, Written};
use crate::{
    authority::{AccessChange, Proof},
    id::{BlobHash, EpochId, Identity, Incarnation, Key, Millis},
    kv::{Condition, Value},
    limits::{COMMIT_EVENTS_MAX, COMMIT_INLINE_BYTES_MAX, EPOCH_BODY_BYTES_MAX, EXPIRY_GRACE_MS},
};

/// What an event costs in a body beside its token and headers: names, hashes and lengths, rounded up.
const EVENT_OVERHEAD_BYTES: usize = 256;
/// What a stored header costs beside its name and text: their lengths.
const META_OVERHEAD_BYTES: usize = 6;

/// The host's own chain.
#[derive(Clone, Copy)]
pub(super) struct Own {
    pub(super) incarnation: Incarnation,
    /// The last epoch of this incarnation and its number.
    pub(super) last: Option<(EpochId, u64)>,
    /// Its clock.
    pub(super) seq: u64,
}

/// One event to be.
#[derive(Clone)]
pub(super) struct Item {
    pub(super) number: u64,
    /// The time of the epoch that it was found sound for.
    pub(super) judged_at: Millis,
    pub(super) token: Proof,
    pub(super) value: Option<NewValue>,
    /// What a write demands of its key's state.
    pub(super) condition: Condition,
    /// Whom to answer: the first caller and those who repeated the call meanwhile. At first nobody for what was put in
    /// because something else rests on it.
    pub(super) calls: Vec<CallId>,
    /// The live value that a delete removes.
    pub(super) removed: Option<BlobHash>,
    /// The step of authority to publish once it is durable.
    pub(super) change: Option<AccessChange>,
}

impl Item {
    pub(super) fn token(token: Proof, call: Option<CallId>, change: Option<AccessChange>) -> Self {
        let (condition, calls) = (Condition::Always, call.into_iter().collect());
        Self { number: 0, judged_at: Millis(0), token, value: None, condition, calls, removed: None, change }
    }

    pub(super) fn is(&self, identity: &Identity) -> bool {
        self.token.identity() == *identity
    }

    /// How many bytes its event takes in a body, at most.
    fn bytes_max(&self) -> usize {
        let headers = self.value.as_ref().map_or(0, |value| meta_bytes(value) + value.meta.len() * META_OVERHEAD_BYTES);
        self.token.bytes().len() + EVENT_OVERHEAD_BYTES + headers
    }
}

/// A key as the batch and the commit in flight leave it.
pub(super) struct Pending {
    pub(super) by: u64,
    pub(super) live: Option<BlobHash>,
}

/// The calls that are not durable yet.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) items: VecDeque<Item>,
    pub(super) numbered: u64,
    /// Items up to this number are in the commit that is out.
    pub(super) sealed: u64,
    pub(super) keys: BTreeMap<Key, Pending>,
    pub(super) writes: BTreeMap<Identity, (u64, Option<BlobHash>)>,
    /// What each write in the commit that is out answers.
    pub(super) outcomes: BTreeMap<u64, Written>,
}

impl Batch {
    /// Queues an item that is sound in an epoch of this time.
    pub(super) fn push(&mut self, item: Item, judged_at: Millis) -> u64 {
        self.numbered += 1;
        self.items.push_back(Item { number: self.numbered, judged_at, ..item });
        self.numbered
    }

    /// Gives back all that is queued. Nothing is in flight.
    pub(super) fn reopen(&mut self) -> VecDeque<Item> {
        self.keys.clear();
        self.writes.clear();
        std::mem::take(&mut self.items)
    }

    /// Whether an epoch of this time might be too late for something in it: each was found sound with half of the grace left.
    pub(super) fn is_overtaken(&self, time: Millis) -> bool {
        self.items.iter().any(|item| time > item.judged_at.plus(EXPIRY_GRACE_MS / 2))
    }

    /// Forgets what is durable now.
    pub(super) fn committed(&mut self) {
        let sealed = self.sealed;
        self.keys.retain(|_, pending| pending.by > sealed);
        self.writes.retain(|_, (number, _)| *number > sealed);
        self.outcomes.clear();
    }

    /// The items that fit into one epoch and its commit, in which so many bytes of others are already.
    pub(super) fn take(&mut self, others_bytes: usize) -> Vec<Item> {
        let (mut bytes, mut inline_bytes) = (0, 0);
        let left = (EPOCH_BODY_BYTES_MAX as u64 + COMMIT_INLINE_BYTES_MAX).saturating_sub(others_bytes as u64);
        let fits = |item: &&Item| {
            bytes += item.bytes_max();
            inline_bytes += item.value.as_ref().filter(|value| value.inline.is_some()).map_or(0, |value| value.size);
            let fits_epoch = bytes <= EPOCH_BODY_BYTES_MAX && inline_bytes <= COMMIT_INLINE_BYTES_MAX;
            fits_epoch && bytes as u64 + inline_bytes <= left
        };
        let count = self.items.iter().take(COMMIT_EVENTS_MAX).take_while(fits).count();
        self.items.drain(..count).collect()
    }
}

/// The value as it stands in an epoch's body.
pub(super) fn as_value(value: &NewValue) -> Value {
    Value { blob: value.blob, size: value.size, meta: value.meta.clone() }
}

/// The sum of a value's stored header names and texts, in bytes.
pub(super) fn meta_bytes(value: &NewValue) -> usize {
    value.meta.iter().map(|(name, text)| name.len() + text.len()).sum()
}
