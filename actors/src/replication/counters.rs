//! What is counted for the operator.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

/// Reasons that are counted apart; further ones are counted as one.
const REASONS_MAX: usize = 64;

/// Counts since the start.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    taken: AtomicU64,
    refused: Mutex<BTreeMap<String, u64>>,
    answered: Mutex<BTreeMap<(&'static str, &'static str), u64>>,
}

impl Counters {
    /// Epochs of peers that came into the log.
    pub(super) fn taken(&self, count: usize) {
        self.taken.fetch_add(count as u64, Ordering::Relaxed);
    }

    /// An epoch of a peer was refused.
    pub(super) fn refused(&self, reason: &str) {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let is_known = refused.contains_key(reason) || refused.len() < REASONS_MAX;
        *refused.entry(if is_known { reason } else { "other" }.to_owned()).or_default() += 1;
    }

    /// A request of a peer was answered.
    pub(super) fn answered(&self, kind: &'static str, outcome: &'static str) {
        *self.answered.lock().unwrap_or_else(PoisonError::into_inner).entry((kind, outcome)).or_default() += 1;
    }

    /// Epochs taken.
    pub(crate) fn epochs_taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// Epochs refused, by reason.
    pub(crate) fn epochs_refused(&self) -> Vec<(String, u64)> {
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.iter().map(|(reason, count)| (reason.clone(), *count)).collect()
    }

    /// Requests answered, by kind and outcome.
    pub(crate) fn requests_answered(&self) -> Vec<(String, String, u64)> {
        let answered = self.answered.lock().unwrap_or_else(PoisonError::into_inner);
        answered.iter().map(|((kind, outcome), count)| ((*kind).into(), (*outcome).into(), *count)).collect()
    }
}
