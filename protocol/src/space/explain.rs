//! Questions of whoever wants to know why: what each operation on a key is worth, what waits, what a revocation would do.

use std::collections::{BTreeMap, BTreeSet, btree_map::Entry};

use super::{
    Fault, Space,
    batch::Batch,
    cut::Rule,
    deliver::Deliveries,
    effect::{CallId, Refusal},
    view::{Overlay, View, ViewError},
    waiting::Waiting,
};
use crate::{
    authority::{Proof, Proofs},
    capability::Role,
    id::{Address, EpochId, HostKey, Identity, Key, Millis},
    kv::{Operation, Version, Winner},
};

/// Operations that a preview looks at for each one that it may list.
const LOOKED_AT: usize = 100;

/// An operation on a key and what it is worth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explained {
    /// The operation.
    pub operation: Operation,
    /// The host that took it in.
    pub host: Option<HostKey>,
    /// What it is worth.
    pub worth: Worth,
}

/// What an operation that is not dead is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Worth {
    /// It is what the key holds.
    Wins,
    /// It counts, and another one has a greater version.
    Superseded,
    /// The same token did it elsewhere in the log, and counts there (rule 3).
    Repeated,
    /// A revocation took its effect away.
    Void(Void),
}

/// Which revocation takes an operation's effect away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Void {
    /// The revoked delegation, by the address under which the log holds it.
    pub delegation: Address,
    /// The revocation.
    pub revocation: Address,
    /// What it lets stand, beyond which the operation lies.
    pub rule: Rule,
}

/// An epoch that is not yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitingEpoch {
    /// The epoch.
    pub epoch: EpochId,
    /// The host that made it.
    pub host: HostKey,
    /// Ancestors it lacks.
    pub lacks: Vec<EpochId>,
    /// When it was made, if that is too far ahead of our clock.
    pub ahead: Option<Millis>,
}

/// An operation that a revocation would void.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Voided {
    /// Its key.
    pub key: Key,
    /// The operation.
    pub version: Version,
    /// Whether it is what the key holds.
    pub wins: bool,
}

/// What a revocation would void: by key, newest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Preview {
    /// The operations, as many as were asked for.
    pub voided: Vec<Voided>,
    /// Whether there are more.
    pub has_more: bool,
}

impl Space {
    /// What each of these operations of `view` is worth, newest first. Those that are not given are not looked at, but for
    /// other places where one of their tokens stands.
    ///
    /// # Errors
    /// [`ViewError`] when the index cannot be read.
    pub fn explain(&self, view: &dyn View, mut operations: Vec<Operation>) -> Result<Vec<Explained>, ViewError> {
        operations.sort_by_key(|operation| std::cmp::Reverse(operation.version));
        let mut counting: BTreeMap<(Key, Identity), BTreeSet<Version>> = BTreeMap::new();
        let mut explained = Vec::with_capacity(operations.len());
        for operation in operations {
            let place = (operation.key.clone(), operation.identity);
            if let Entry::Vacant(entry) = counting.entry(place.clone()) {
                let stands = view.occurrences(&operation.key, &operation.identity)?;
                let counts = Winner::counting(&stands, |operation| self.is_void(operation));
                entry.insert(counts.map(|counts| counts.version).collect());
            }
            let counts = counting.get(&place).is_some_and(|counting| counting.contains(&operation.version));
            let worth = match self.log.why_void(&operation) {
                Some(void) => Worth::Void(void),
                None if !counts => Worth::Repeated,
                None if view.winner(&operation.key)?.is_some_and(|wins| wins.version == operation.version) => {
                    Worth::Wins
                }
                None => Worth::Superseded,
            };
            let host = self.log.dag.chain(operation.place).map(|(host, _)| host);
            explained.push(Explained { operation, host, worth });
        }
        Ok(explained)
    }

    /// Epochs that wait for an ancestor or for the clock, those that wait longest first; at most
    /// [`crate::limits::WAITING_EPOCHS_MAX`].
    #[must_use]
    pub fn waiting(&self) -> Vec<WaitingEpoch> {
        self.waiting.list()
    }

    /// What a revocation would newly void if it were logged now, on top of what is queued: it is judged and taken in on a copy.
    /// `borrowed` as in [`Space::handle_token`]. At most `max` operations are listed, and at most `LOOKED_AT` times as many
    /// looked at.
    ///
    /// # Errors
    /// The inner one is the refusal that logging it would meet, the outer one that there is no telling.
    pub fn preview(
        &self,
        now: Millis,
        view: &dyn View,
        token: &Proof,
        borrowed: Vec<Proof>,
        max: usize,
    ) -> Result<Result<Preview, Refusal>, Fault> {
        let Role::Revocation { target } = token.role() else { return Ok(Err(Refusal::NoKey)) };
        let mut overlay = Overlay::new(view);
        self.out.iter().for_each(|change| overlay.absorb(change));
        let mut copy = self.copy();
        copy.seal_all(now, &mut overlay)?;
        let before = copy.log.cuts.clone();
        match copy.accept_token(now, view, CallId(0), token.clone(), borrowed)? {
            Ok(None) => copy.seal_all(now, &mut overlay)?,
            Ok(Some(_)) => return Ok(Ok(Preview::default())),
            Err(refusal) => return Ok(Err(refusal)),
        }
        let log = &copy.log;
        let Some(target) = log.access.find(&target).map(|target| target.identity()) else {
            return Ok(Ok(Preview::default()));
        };
        let mut preview = Preview::default();
        let mut look = max.saturating_mul(LOOKED_AT);
        for key in overlay.keys_under(&|root| log.rests_on(root, &target))? {
            if look == 0 {
                preview.has_more = true;
                return Ok(Ok(preview));
            }
            let history = overlay.history(&key)?;
            look = look.saturating_sub(history.len());
            let was_void = |operation: &Operation| log.is_void_under(&before, operation);
            let winner = Winner::among(&history, was_void).map(|winner| winner.version);
            for operation in history.iter().rev().filter(|operation| log.is_void(operation) && !was_void(operation)) {
                if preview.voided.len() == max {
                    preview.has_more = true;
                    return Ok(Ok(preview));
                }
                let (version, wins) = (operation.version, winner == Some(operation.version));
                preview.voided.push(Voided { key: key.clone(), version, wins });
            }
        }
        Ok(Ok(preview))
    }

    /// The same space for a thought: what is queued is in it, whom to answer is not.
    fn copy(&self) -> Self {
        Self {
            id: self.id.clone(),
            key: self.key.clone(),
            host: self.host,
            did: self.did.clone(),
            own: self.own,
            log: self.log.clone(),
            batch: Batch { items: self.batch.items.clone(), numbered: self.batch.numbered, ..Batch::default() },
            waiting: Waiting::default(),
            deliveries: Deliveries::default(),
            is_cloned: self.is_cloned,
            committing: false,
            out: std::sync::Arc::default(),
            held_back: Vec::new(),
            outputs: std::collections::VecDeque::new(),
        }
    }

    /// Takes in all that is queued.
    fn seal_all(&mut self, now: Millis, view: &mut Overlay<'_>) -> Result<(), Fault> {
        let mut left = usize::MAX;
        while (1..left).contains(&self.batch.items.len()) {
            left = self.batch.items.len();
            self.seal(now, view, &mut super::Commit::default())?;
        }
        Ok(())
    }
}

impl super::apply::Log {
    /// The revocation that takes an operation's effect away: of several the first, by delegation and revocation.
    fn why_void(&self, operation: &Operation) -> Option<Void> {
        let chain = self.chain_of(operation);
        let (delegation, revocation, rule) = self.cuts.why(&chain, operation.place, &operation.version)?;
        Some(Void { delegation, revocation, rule })
    }
}
