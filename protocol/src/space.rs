//! One space as a state machine without IO.
//!
//! [`Space`] takes calls and messages in, and gives out values that say what the outer world has to do.

mod accept;
mod apply;
mod batch;
mod cut;
mod deliver;
mod effect;
mod explain;
mod judge;
mod memory;
mod seal;
mod tokens;
mod view;
mod waiting;

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
};

use ed25519_dalek::SigningKey;

pub use cut::Rule;
pub use effect::{
    Arrived, CallId, Change, Commit, DeadReason, Invalid, Logged, NewEpoch, NewValue, Output, Refusal, Reply, Taken,
    Write, Written,
};
pub use explain::{Explained, Preview, Void, Voided, WaitingEpoch, Worth};
pub use judge::CheckedEpoch;
pub use memory::MemoryView;
pub use view::{EpochAt, View, ViewError};

use self::{
    apply::Log,
    batch::{Batch, Own},
    deliver::Deliveries,
    judge::{Ancestry, Bench, check_alone},
    view::Overlay,
    waiting::{Guest, Waiting},
};
use crate::{
    authority::{Access, AccessChange, Proof},
    dag::{Branch, Dag, Place},
    id::{BlobHash, Did, EpochId, HostKey, Incarnation, Millis, SpaceId},
    kv::Operation,
    limits::{CLOCK_AHEAD_MAX_MS, COMMIT_BYTES_MAX, COMMIT_CHANGES_MAX, COMMIT_EPOCHS_MAX},
};

/// One space on one host.
///
/// Four kinds of method: **inputs** (`handle_*`), each with the time and a borrowed view of what is durable;
/// **outputs** (`poll_output`, to be drained after each input); the **timer** (`poll_timeout`, asked after draining);
/// and **questions**, which change nothing.
///
/// Nothing leaves before it is durable: of a batch first comes `Commit`, and only after `handle_committed` its
/// `Access` and `Reply`. One `Commit` is outstanding at a time; calls go on filling the next batch meanwhile. A commit that
/// fails ends the state machine: drop it and open a new one, with a new incarnation, from what is durable. The same
/// holds after a [`Fault`].
pub struct Space {
    id: SpaceId,
    key: SigningKey,
    host: HostKey,
    did: Did,
    own: Own,
    log: Log,
    batch: Batch,
    waiting: Waiting,
    deliveries: Deliveries,
    /// Whether somebody else signs with this host's key on its present chain.
    is_cloned: bool,
    /// Whether a `Commit` is out.
    committing: bool,
    /// What it changes.
    out: Arc<Vec<Change>>,
    /// What may leave once it is durable.
    held_back: Vec<Output>,
    outputs: VecDeque<Output>,
}

impl Space {
    /// A space of which nothing is held yet, for the host with this key. `incarnation` is drawn at random.
    #[must_use]
    pub fn new(id: SpaceId, key: SigningKey, incarnation: Incarnation) -> Self {
        let host = HostKey(key.verifying_key().to_bytes());
        Self {
            log: Log::new(id.clone()),
            did: host.did(),
            own: Own { incarnation, last: None, seq: 0 },
            batch: Batch::default(),
            waiting: Waiting::default(),
            deliveries: Deliveries::default(),
            is_cloned: false,
            committing: false,
            out: Arc::default(),
            held_back: Vec::new(),
            outputs: VecDeque::new(),
            id,
            key,
            host,
        }
    }

    /// The space as an index has kept it: `held` and `view` are of the same moment.
    ///
    /// When the index holds a chain of this very incarnation, whose last commit must not have failed, that chain goes on.
    ///
    /// # Errors
    /// [`ReplayError`] when index and log do not fit together, or the view cannot be read.
    pub fn reopen(
        id: SpaceId,
        key: SigningKey,
        incarnation: Incarnation,
        held: Held,
        view: &dyn View,
    ) -> Result<Self, ReplayError> {
        let mut space = Self::new(id.clone(), key, incarnation);
        let Held { branches, delegations, revoking } = held;
        space.log = Log::restore(id.clone(), Dag::of(branches), delegations);
        for checked in revoking {
            let epoch = checked.epoch.id;
            let ancestry = Ancestry::find(&checked.epoch, view)?.map_err(|_| ReplayError::Ancestor(epoch))?;
            let judged = space.bench(view).judge(&checked, &ancestry)?;
            let judged = judged.map_err(|invalid| ReplayError::Invalid(epoch, invalid))?;
            space.log.revoke_again(&id, &epoch, &judged, view)?;
        }
        space.log.cuts.settle();
        let own = |branch: &&Branch| branch.host == space.host && branch.incarnation == incarnation;
        if let Some(branch) = space.log.dag.branches().iter().rfind(own) {
            space.own.last = Some((branch.tip, branch.tip_n));
            space.own.seq = branch.tip_seq;
        }
        Ok(space)
    }

    /// Takes in the epochs of one commit that is durable already: how the index is made from the log, commits in log order.
    /// An epoch that the view shows already is left out, one that does not hold, because the log has lost what it rests on,
    /// is passed over.
    ///
    /// # Errors
    /// [`Fault`]: the view cannot be read, and the state machine has ended.
    pub fn replay<'a>(
        &mut self,
        view: &dyn View,
        epochs: impl IntoIterator<Item = &'a CheckedEpoch>,
    ) -> Result<Replay, Fault> {
        let mut view = Overlay::new(view);
        let mut replay = Replay::default();
        for checked in epochs {
            match self.take_again(&mut view, checked)? {
                Ok(changes) => replay.changes.extend(changes),
                Err(error) => replay.passed_over.push(error),
            }
        }
        replay.changes.extend(self.log.settle(&mut view)?);
        Ok(replay)
    }

    fn take_again(
        &mut self,
        view: &mut Overlay<'_>,
        checked: &CheckedEpoch,
    ) -> Result<Result<Vec<Change>, ReplayError>, ViewError> {
        let (id, header) = (checked.epoch().id, &checked.epoch().header);
        if view.epoch(&id)?.is_some() {
            return Ok(Ok(Vec::new()));
        }
        let Ok(ancestry) = Ancestry::find(checked.epoch(), view)? else { return Ok(Err(ReplayError::Ancestor(id))) };
        let judged = match self.bench(view).judge(checked, &ancestry)? {
            Ok(judged) => judged,
            Err(invalid) => return Ok(Err(ReplayError::Invalid(id, invalid))),
        };
        let applied = self.log.apply(&self.id, checked, &ancestry, judged, view)?;
        if header.host == self.host && header.incarnation == self.own.incarnation {
            self.own.last = Some((id, header.n));
            self.own.seq = header.seq;
        }
        Ok(Ok(applied.changes))
    }

    /// Judges anew whatever was judged by a former state machine of this space, whose authority had come this far.
    pub fn outdate(&mut self, generation: u64) {
        self.log.access.outdate(generation);
    }

    /// A client's write. Its time, lifetime and signature are checked.
    ///
    /// # Errors
    /// [`Fault`]: the state machine has ended.
    pub fn handle_invocation(&mut self, now: Millis, view: &dyn View, call: CallId, write: Write) -> Result<(), Fault> {
        match self.accept_write(now, view, call, write)? {
            Ok(()) => {}
            Err(refusal) => self.outputs.push_back(Output::Reply(call, Err(refusal))),
        }
        self.go_on(now, view)
    }

    /// A client's delegation or revocation. Its time and signature are checked. `borrowed` holds what it rests on and this
    /// log may not hold, ancestors first.
    ///
    /// # Errors
    /// [`Fault`]: the state machine has ended.
    pub fn handle_token(
        &mut self,
        now: Millis,
        view: &dyn View,
        call: CallId,
        token: Proof,
        borrowed: Vec<Proof>,
    ) -> Result<(), Fault> {
        match self.accept_token(now, view, call, token, borrowed)? {
            Ok(Some(reply)) => self.outputs.push_back(Output::Reply(call, Ok(reply))),
            Ok(None) => {}
            Err(refusal) => self.outputs.push_back(Output::Reply(call, Err(refusal))),
        }
        self.go_on(now, view)
    }

    /// Epochs from other hosts, in any order. Those whose ancestors are missing wait, within bounds. `Taken` answers the call
    /// once all that was taken in is durable. `from` is the host that brought them: each has a share of the waiting room.
    ///
    /// # Errors
    /// [`Fault`]: the state machine has ended.
    pub fn handle_epochs(
        &mut self,
        now: Millis,
        view: &dyn View,
        call: CallId,
        from: Option<HostKey>,
        epochs: impl IntoIterator<Item = Arrived>,
    ) -> Result<(), Fault> {
        self.deliveries.begin(call);
        let mut seen = BTreeSet::new();
        for arrived in epochs {
            let id = arrived.checked.epoch.id;
            let is_new = seen.insert(id);
            if view.epoch(&id)?.is_some() {
                self.deliveries.begin(call).held += usize::from(is_new);
            } else if let Err(invalid) = check_alone(&arrived.checked, &self.id) {
                if is_new {
                    self.refuse(id, invalid.clone());
                    self.deliveries.begin(call).refused.push((id, invalid));
                }
            } else {
                self.waiting.admit(call, from, arrived, &mut self.deliveries);
            }
        }
        self.go_on(now, view)
    }

    /// The outstanding commit is durable, and `view` shows it.
    ///
    /// # Errors
    /// [`Fault`]: the state machine has ended.
    pub fn handle_committed(&mut self, now: Millis, view: &dyn View) -> Result<(), Fault> {
        self.committing = false;
        self.out = Arc::default();
        self.release();
        self.batch.committed();
        self.go_on(now, view)
    }

    /// The time that `poll_timeout` named has come.
    ///
    /// # Errors
    /// [`Fault`]: the state machine has ended.
    pub fn handle_timeout(&mut self, now: Millis, view: &dyn View) -> Result<(), Fault> {
        self.go_on(now, view)
    }

    /// What the outer world has to do next.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When to call `handle_timeout`: an epoch whose clock is ahead of ours comes into reach, or our own may be made.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Millis> {
        let own = self.next_own_time().filter(|_| !self.committing);
        self.waiting.next_time().into_iter().chain(own).min().map(|time| time.plus(-CLOCK_AHEAD_MAX_MS))
    }

    /// The key of the host this is the space on.
    #[must_use]
    pub fn host(&self) -> HostKey {
        self.host
    }

    /// Whether an epoch of this host in its present incarnation came from outside: somebody else has its key and its memory.
    /// This state machine goes on with its own chain; the next one must not be opened with this incarnation.
    #[must_use]
    pub fn is_cloned(&self) -> bool {
        self.is_cloned
    }

    /// The accepting side of authority, what is not durable yet included.
    #[must_use]
    pub fn access(&self) -> &Access {
        &self.log.access
    }

    /// The epochs held, what is not durable yet included.
    #[must_use]
    pub fn dag(&self) -> &Dag {
        &self.log.dag
    }

    /// Ancestors that waiting epochs lack, at most [`crate::limits::NAMES_MAX`].
    #[must_use]
    pub fn missing(&self) -> Vec<EpochId> {
        self.waiting.missing()
    }

    /// Whether a revocation takes an operation's effect away.
    #[must_use]
    pub fn is_void(&self, operation: &Operation) -> bool {
        self.log.is_void(operation)
    }

    fn bench<'a>(&'a self, view: &'a dyn View) -> Bench<'a> {
        Bench { space: &self.id, dag: &self.log.dag, tokens: &self.log.tokens, view }
    }

    /// Starts the next commit if none is out: what came from other hosts, and on top of it the batch.
    fn go_on(&mut self, now: Millis, view: &dyn View) -> Result<(), Fault> {
        // What these brought is durable already.
        let finished = self.deliveries.finished();
        self.answer(finished);
        if self.committing {
            return Ok(());
        }
        let mut view = Overlay::new(view);
        let mut commit = Commit::default();
        if self.take_waiting(now, &mut view, &mut commit)? {
            self.judge_batch_anew(now, &view)?;
        }
        self.seal(now, &mut view, &mut commit)?;
        self.deliveries.hold_back();
        if commit.epochs.is_empty() {
            self.release();
        } else {
            self.committing = true;
            self.out = commit.changes.clone();
            self.outputs.push_back(Output::Commit(commit));
        }
        Ok(())
    }

    /// Lets out what was held back for a commit.
    fn release(&mut self) {
        self.outputs.extend(self.held_back.drain(..));
        let durable = self.deliveries.durable();
        self.answer(durable);
    }

    fn answer(&mut self, deliveries: Vec<(CallId, Taken)>) {
        for (call, taken) in deliveries {
            let (missing, waiting) = (self.waiting.missing(), self.waiting.len());
            self.outputs.push_back(Output::Taken(call, Taken { missing, waiting, ..taken }));
        }
    }

    /// Applies waiting epochs whose time has come and whose ancestors are held, as many as one commit takes; true when that
    /// took authority away.
    fn take_waiting(&mut self, now: Millis, view: &mut Overlay<'_>, commit: &mut Commit) -> Result<bool, ViewError> {
        let mut revoked = false;
        let mut carried = BTreeSet::new();
        while commit.epochs.len() < COMMIT_EPOCHS_MAX && commit.changes.len() < COMMIT_CHANGES_MAX {
            let left = COMMIT_BYTES_MAX.saturating_sub(commit.bytes());
            let fits = |bytes| bytes <= left || commit.epochs.is_empty();
            let next = self.waiting.next_ready(now, view, fits, &mut self.deliveries)?;
            let Some((Guest { checked, mut values, told, calls, .. }, ancestry)) = next else { break };
            let id = checked.epoch.id;
            match self.bench(view).judge(&checked, &ancestry)? {
                Err(invalid) => {
                    self.deliveries.settle(&calls, |taken| taken.refused.push((id, invalid.clone())));
                    self.refuse(id, invalid);
                }
                Ok(judged) => {
                    let header = &checked.epoch.header;
                    self.is_cloned |= header.host == self.host && header.incarnation == self.own.incarnation;
                    let applied = self.log.apply(&self.id, &checked, &ancestry, judged, view)?;
                    self.deliveries.settle(&calls, |taken| taken.taken += 1);
                    self.waiting.held(&id, &calls, &mut self.deliveries);
                    revoked |= applied.access.iter().any(|change| matches!(change, AccessChange::Revoked(_)));
                    self.held_back.extend(applied.access.into_iter().map(Output::Access));
                    let live: BTreeSet<BlobHash> = applied.changes.iter().filter_map(Change::value).collect();
                    values.retain(|blob, _| live.contains(blob) && carried.insert(*blob));
                    commit.change(applied.changes);
                    let (signed, values) = (checked.epoch.signed, values.into_iter().collect());
                    commit.epochs.push(Logged { signed, values, told });
                }
            }
        }
        commit.change(self.log.settle(view)?);
        Ok(revoked)
    }

    /// An epoch is none of this space, for ever, and so is all that rests on it.
    fn refuse(&mut self, id: EpochId, invalid: Invalid) {
        self.waiting.refuse(id);
        self.outputs.push_back(Output::Refused(id, invalid));
    }
}

/// What an index has kept of a space, beside what a [`View`] shows.
#[derive(Debug, Clone, Default)]
pub struct Held {
    /// The branches, by number.
    pub branches: Vec<Branch>,
    /// The delegations, with every place that [`Change::Delegation`] named.
    pub delegations: Vec<(Proof, Vec<Place>)>,
    /// The epochs with [`NewEpoch::revokes`], ancestors first.
    pub revoking: Vec<CheckedEpoch>,
}

/// What a commit of the log brings the index.
#[derive(Debug, Default)]
pub struct Replay {
    /// What the index has to hold.
    pub changes: Vec<Change>,
    /// Epochs that do not hold, and why.
    pub passed_over: Vec<ReplayError>,
}

/// The state machine cannot go on. Nothing of its open batch is durable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The index cannot be read.
    #[error(transparent)]
    View(#[from] ViewError),
    /// The batch does not make a valid epoch of sound events: its calls may be repeated as they are.
    #[error("the batch does not make a valid epoch")]
    Batch,
}

/// Why an epoch of the log does not hold, or a space cannot be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// An epoch's ancestor does not come before it.
    #[error("the log holds epoch {0} before an ancestor of it")]
    Ancestor(EpochId),
    /// An epoch that is not valid.
    #[error("the log holds epoch {0}, which is not valid: {1}")]
    Invalid(EpochId, Invalid),
    /// The index cannot be read.
    #[error(transparent)]
    View(#[from] ViewError),
}
