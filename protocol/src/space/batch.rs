//! The host's own writing: calls fill a batch, a batch becomes an epoch.

use std::collections::{BTreeMap, VecDeque};

use super::{
    Fault, Space,
    apply::Index,
    effect::{CallId, Commit, NewValue, Output, Refusal, Reply, Write, Written},
    judge::{Ancestry, CheckedEpoch, Verdict, content_holds, operations},
    view::{Overlay, View, ViewError},
};
use crate::{
    authority::{Access, AccessChange, Chain, Proof, is_host_delegation, within},
    capability::Role,
    dag::Head,
    epoch::{self, Epoch, Event, Header},
    id::{Address, BlobHash, BodyId, EpochId, Identity, Incarnation, Key, Millis},
    kv::{Condition, Value, Version, is_early, seq_time},
    limits::{
        CLOCK_AHEAD_MAX_MS, COMMIT_INLINE_BYTES_MAX, EPOCH_BODY_BYTES_MAX, EPOCH_EVENTS_MAX, EPOCH_PARENTS_MAX,
        EXPIRY_GRACE_MS, KEY_BYTES_MAX, META_BYTES_MAX,
    },
};

/// What an event costs in a body beside its token and headers: names, hashes and lengths, rounded up.
const EVENT_OVERHEAD_BYTES: usize = 256;
/// What a stored header costs beside its name and text: their lengths.
const META_OVERHEAD_BYTES: usize = 6;
/// A generation that authority never has.
const UNAUTHORIZED: u64 = u64::MAX;

/// The host's own chain.
pub(super) struct Own {
    pub(super) incarnation: Incarnation,
    /// The last epoch of this incarnation and its number.
    pub(super) last: Option<(EpochId, u64)>,
    /// Its clock.
    pub(super) seq: u64,
}

/// One event to be.
struct Item {
    number: u64,
    token: Proof,
    value: Option<NewValue>,
    /// What a write demands of its key's state.
    condition: Condition,
    /// Whom to answer: the first caller and those who repeated the call meanwhile. At first nobody for what was put in
    /// because something else rests on it.
    calls: Vec<CallId>,
    /// The live value that a delete removes.
    removed: Option<BlobHash>,
    /// The step of authority to publish once it is durable.
    change: Option<AccessChange>,
}

impl Item {
    fn token(token: Proof, call: Option<CallId>, change: Option<AccessChange>) -> Self {
        let (condition, calls) = (Condition::Always, call.into_iter().collect());
        Self { number: 0, token, value: None, condition, calls, removed: None, change }
    }

    fn is(&self, identity: &Identity) -> bool {
        self.token.identity() == *identity
    }

    /// How many bytes its event takes in a body, at most.
    fn bytes_max(&self) -> usize {
        let headers = self.value.as_ref().map_or(0, |value| meta_bytes(value) + value.meta.len() * META_OVERHEAD_BYTES);
        self.token.bytes().len() + EVENT_OVERHEAD_BYTES + headers
    }
}

/// A key as the batch and the commit in flight leave it.
struct Pending {
    by: u64,
    live: Option<BlobHash>,
}

/// The calls that are not durable yet.
#[derive(Default)]
pub(super) struct Batch {
    items: VecDeque<Item>,
    numbered: u64,
    /// Items up to this number are in the commit that is out.
    sealed: u64,
    keys: BTreeMap<Key, Pending>,
    writes: BTreeMap<Identity, (u64, Option<BlobHash>)>,
    /// What each write in the commit that is out answers.
    outcomes: BTreeMap<u64, Written>,
}

impl Batch {
    fn push(&mut self, item: Item) -> u64 {
        self.numbered += 1;
        self.items.push_back(Item { number: self.numbered, ..item });
        self.numbered
    }

    /// Gives back all that is queued. Nothing is in flight.
    fn reopen(&mut self) -> VecDeque<Item> {
        self.keys.clear();
        self.writes.clear();
        std::mem::take(&mut self.items)
    }

    /// Forgets what is durable now.
    pub(super) fn committed(&mut self) {
        let sealed = self.sealed;
        self.keys.retain(|_, pending| pending.by > sealed);
        self.writes.retain(|_, (number, _)| *number > sealed);
        self.outcomes.clear();
    }

    /// The items that fit into one epoch and its commit.
    fn take(&mut self) -> Vec<Item> {
        let (mut bytes, mut inline_bytes) = (0, 0);
        let fits = |item: &&Item| {
            bytes += item.bytes_max();
            inline_bytes += item.value.as_ref().filter(|value| value.inline.is_some()).map_or(0, |value| value.size);
            bytes <= EPOCH_BODY_BYTES_MAX && inline_bytes <= COMMIT_INLINE_BYTES_MAX
        };
        let count = self.items.iter().take(EPOCH_EVENTS_MAX).take_while(fits).count();
        self.items.drain(..count).collect()
    }
}

impl Space {
    /// Queues a write, or says why not.
    pub(super) fn accept_write(
        &mut self,
        now: Millis,
        view: &dyn View,
        call: CallId,
        write: Write,
    ) -> Result<Result<(), Refusal>, ViewError> {
        let Write { token, authorized_at, borrowed, value, condition } = write;
        let mut targets = operations(&token, &self.id);
        let (Some((key, is_put)), None) = (targets.next(), targets.next()) else { return Ok(Err(Refusal::NoKey)) };
        if key.len() > KEY_BYTES_MAX || is_put != value.is_some() {
            return Ok(Err(Refusal::NoKey));
        }
        let key: Key = key.into();
        drop(targets);
        if !within(&token, now, 0) {
            return Ok(Err(Refusal::Expired));
        }
        let known: BTreeMap<_, _> = borrowed.iter().map(|proof| (proof.address(), proof.clone())).collect();
        let mut borrowed = borrowed;
        if authorized_at != self.log.access.generation() || !self.log.access.is_in_force(&token, &known, now, 0) {
            match self.log.access.invocation(&token, now, &known) {
                Ok(allowed) => borrowed = allowed.borrowed,
                Err(denied) => return Ok(Err(denied.into())),
            }
        }
        let values: Vec<Value> = value.iter().map(as_value).collect();
        let headers = value.as_ref().map_or(0, meta_bytes);
        if headers > META_BYTES_MAX || !content_holds(&token, &values, &self.id) {
            return Ok(Err(Refusal::Content));
        }
        let time = match self.commit_time(now, view, &token, false)? {
            Ok(time) => time,
            Err(refusal) => return Ok(Err(refusal)),
        };
        // Half of the grace is left for the wait until the commit.
        if !self.log.access.is_in_force(&token, &known, time, EXPIRY_GRACE_MS / 2) {
            return Ok(Err(Refusal::Clock));
        }
        let blob = value.as_ref().map(|value| value.blob);
        if let Some(repeated) = self.repeated(view, call, &token, time, &key, blob)? {
            return Ok(repeated);
        }
        let (written, live) = match self.batch.keys.get(&key) {
            Some(pending) => (true, pending.live),
            None => view.winner(&key)?.map_or((false, None), |winner| (true, winner.effect.value().map(|v| v.blob))),
        };
        if !condition.allows(live.as_ref()) {
            return Ok(Err(Refusal::Precondition));
        }
        if !is_put && !written {
            return Ok(Err(Refusal::NoSuchKey(key)));
        }
        self.borrow(borrowed);
        let identity = token.identity();
        let removed = live.filter(|_| !is_put);
        let item = Item { number: 0, token, value, condition, calls: vec![call], removed, change: None };
        let number = self.batch.push(item);
        self.batch.keys.insert(key, Pending { by: number, live: blob });
        self.batch.writes.insert(identity, (number, blob));
        Ok(Ok(()))
    }

    /// Queues a delegation or revocation; answers at once when the log holds it.
    pub(super) fn accept_token(
        &mut self,
        now: Millis,
        view: &dyn View,
        call: CallId,
        token: Proof,
        borrowed: Vec<Proof>,
    ) -> Result<Result<Option<Reply>, Refusal>, ViewError> {
        let known: BTreeMap<_, _> = borrowed.iter().map(|proof| (proof.address(), proof.clone())).collect();
        let (change, borrowed, own_proofs) = match token.role() {
            Role::Invocation => return Ok(Err(Refusal::NoKey)),
            Role::Delegation if self.holds(&token) => return Ok(Ok(self.held(call, &token))),
            Role::Delegation => match self.log.access.delegation(&token, &known) {
                Ok(allowed) => (AccessChange::Delegation(token.clone()), allowed.borrowed, None),
                Err(denied) => return Ok(Err(denied.into())),
            },
            Role::Revocation { .. } if self.holds(&token) => return Ok(Ok(self.held(call, &token))),
            Role::Revocation { .. } => match self.log.access.revocation(&token, &known) {
                Ok((standing, borrowed)) => {
                    (AccessChange::Revoked(standing.target.identity()), borrowed, Some(standing.proofs))
                }
                Err(denied) => return Ok(Err(denied.into())),
            },
        };
        let in_force = |access: &Access, at| match &own_proofs {
            Some(own) => within(&token, at, 0) && own.in_force(at, 0),
            None => access.is_in_force(&token, &known, at, 0),
        };
        if !in_force(&self.log.access, now) {
            return Ok(Err(Refusal::Expired));
        }
        let live = |proof: &Proof| !self.log.access.is_revoked(&proof.identity());
        let makes_host = |proof: &Proof| live(proof) && is_host_delegation(proof, &self.id, &self.did);
        let creates = borrowed.iter().chain([&token]).any(makes_host);
        let time = match self.commit_time(now, view, &token, creates)? {
            Ok(time) => time,
            Err(refusal) => return Ok(Err(refusal)),
        };
        // The whole grace is left for the wait until the commit: what is in `access` cannot be taken back.
        if !in_force(&self.log.access, time) {
            return Ok(Err(Refusal::Clock));
        }
        self.borrow(borrowed);
        self.log.access.apply(change.clone());
        self.batch.push(Item::token(token, Some(call), Some(change)));
        Ok(Ok(None))
    }

    /// Whether the log holds a delegation or revocation, or will hold it once the batch is durable. Of a revoked delegation
    /// no other spelling of its signature is taken in.
    fn holds(&self, token: &Proof) -> bool {
        let (access, identity) = (&self.log.access, token.identity());
        match token.role() {
            Role::Delegation => access.holds(&token.address()) || access.is_revoked(&identity),
            Role::Revocation { .. } => {
                self.log.revocations.contains(&identity) || self.batch.items.iter().any(|item| item.is(&identity))
            }
            Role::Invocation => false,
        }
    }

    /// The answer to a token that the log holds, or will hold once the batch is durable.
    fn held(&mut self, call: CallId, token: &Proof) -> Option<Reply> {
        let queued = self.batch.items.iter_mut().find(|item| item.is(&token.identity()));
        match queued {
            Some(item) => {
                item.calls.push(call);
                None
            }
            None if self.committing => {
                self.held_back.push(Output::Reply(call, Ok(Reply::Held)));
                None
            }
            None => Some(Reply::Held),
        }
    }

    /// Queues what a token rests on, before the token.
    fn borrow(&mut self, borrowed: Vec<Proof>) {
        for proof in borrowed {
            if !self.log.access.holds(&proof.address()) {
                let change = AccessChange::Delegation(proof.clone());
                self.log.access.apply(change.clone());
                self.batch.push(Item::token(proof, None, Some(change)));
            }
        }
    }

    /// The time an epoch with this token would have now, or why there can be none. `creates`: it makes this node a host.
    fn commit_time(
        &self,
        now: Millis,
        view: &dyn View,
        token: &Proof,
        creates: bool,
    ) -> Result<Result<Millis, Refusal>, ViewError> {
        let is_host = || self.is_owner() || self.log.access.host_proof(&self.did, now, &|_| true).is_some();
        if !creates && !is_host() {
            return Ok(Err(Refusal::NotHost));
        }
        let Some(seq) = self.next_seq(now) else { return Ok(Err(Refusal::Clock)) };
        let mut missing = Vec::new();
        for id in token.after(&self.id).unwrap_or_default() {
            if view.epoch(id)?.is_none() {
                missing.push(*id);
            }
        }
        Ok(if missing.is_empty() { Ok(seq_time(seq)) } else { Err(Refusal::Behind(missing)) })
    }

    fn is_owner(&self) -> bool {
        self.did == *self.id.owner()
    }

    /// What an epoch of ours stands on, among the delegations that `stands` allows. It may be revoked by what is in that
    /// very epoch, or was revoked from outside since that was queued.
    fn host_proof(&self, now: Millis, stands: &dyn Fn(&Address) -> bool) -> Result<Option<Address>, Fault> {
        if self.is_owner() {
            return Ok(None);
        }
        let (access, host) = (&self.log.access, &self.did);
        let proof = access.host_proof(host, now, stands).or_else(|| access.former_host_proof(host, now, stands));
        proof.map(|proof| Some(proof.address())).ok_or(Fault::Batch)
    }

    /// The outcome of a token that was used before: the first one again for the same value, a refusal for another.
    fn repeated(
        &mut self,
        view: &dyn View,
        call: CallId,
        token: &Proof,
        time: Millis,
        key: &Key,
        blob: Option<BlobHash>,
    ) -> Result<Option<Result<(), Refusal>>, ViewError> {
        let identity = token.identity();
        if let Some((number, first)) = self.batch.writes.get(&identity) {
            if *first != blob {
                return Ok(Some(Err(Refusal::Duplicate)));
            }
            if let Some(item) = self.batch.items.iter_mut().find(|item| item.number == *number) {
                item.calls.push(call);
            } else if let Some(written) = self.batch.outcomes.get(number).cloned() {
                self.held_back.push(Output::Reply(call, Ok(Reply::Written(written))));
            }
            return Ok(Some(Ok(())));
        }
        // The place where the token counts, unless that would be the one it is about to get.
        let places = view.occurrences(key, &identity)?.into_iter().filter(|operation| !self.is_void(operation));
        let first = places.min_by_key(|operation| (operation.is_early(), operation.version));
        let Some(first) = first.filter(|first| !first.is_early() || is_early(token.expiry(), time)) else {
            return Ok(None);
        };
        let first_blob = first.effect.value().map(|value| value.blob);
        if first_blob != blob {
            return Ok(Some(Err(Refusal::Duplicate)));
        }
        let removed = match first_blob {
            Some(_) => None,
            None => self.removed_by(view, key, &first.version)?,
        };
        let written = Written { version: first.version, blob, removed };
        self.held_back.push(Output::Reply(call, Ok(Reply::Written(written))));
        Ok(Some(Ok(())))
    }

    /// The value that the delete of this version removed.
    fn removed_by(&self, view: &dyn View, key: &Key, version: &Version) -> Result<Option<BlobHash>, ViewError> {
        let history = view.history(key)?;
        let mut before = history.iter().filter(|operation| operation.version < *version);
        let last = before.rfind(|operation| !self.is_void(operation));
        Ok(last.and_then(|operation| operation.effect.value().map(|value| value.blob)))
    }

    /// Puts an epoch of what the batch holds on top of what `view` shows. While the clock forbids that, writes are refused
    /// and the rest waits.
    pub(super) fn seal(&mut self, now: Millis, view: &mut Overlay<'_>, commit: &mut Commit) -> Result<(), Fault> {
        if self.batch.items.is_empty() {
            return Ok(());
        }
        if self.next_seq(now).is_none() {
            self.judge_batch_anew(now, view)?;
            return Ok(());
        }
        self.merge_heads(now, view, commit)?;
        let items = self.batch.take();
        let Some(last) = items.last().map(|item| item.number) else { return Ok(()) };
        let (id, seq) = self.append(now, &items, view, commit)?;
        self.batch.sealed = last;
        for (index, item) in (0u16..).zip(items) {
            self.held_back.extend(item.change.map(Output::Access));
            let reply = if item.token.role() == Role::Invocation {
                let version = Version::new(seq, id, index, 0);
                let blob = item.value.as_ref().map(|value| value.blob);
                let written = Written { version, blob, removed: item.removed };
                self.batch.outcomes.insert(item.number, written.clone());
                Reply::Written(written)
            } else {
                Reply::Taken(id)
            };
            self.held_back.extend(item.calls.iter().map(|call| Output::Reply(*call, Ok(reply.clone()))));
            commit.blobs.extend(item.value.and_then(|value| value.inline.map(|bytes| (value.blob, bytes))));
        }
        Ok(())
    }

    /// Judges the queued writes anew: authority was taken away from outside, or the clock ran off.
    pub(super) fn judge_batch_anew(&mut self, now: Millis, view: &Overlay<'_>) -> Result<(), ViewError> {
        for item in self.batch.reopen() {
            if item.change.is_some() {
                self.batch.push(item);
                continue;
            }
            for call in item.calls {
                let write = Write {
                    token: item.token.clone(),
                    authorized_at: UNAUTHORIZED,
                    borrowed: Vec::new(),
                    value: item.value.clone(),
                    condition: item.condition,
                };
                if let Err(refusal) = self.accept_write(now, view, call, write)? {
                    self.outputs.push_back(Output::Reply(call, Err(refusal)));
                }
            }
        }
        Ok(())
    }

    /// Leaves no more heads than one epoch has parents, so that the batch has all that is held in its Past. The epochs
    /// in between carry the host's own delegation once more, which changes nothing.
    fn merge_heads(&mut self, now: Millis, view: &mut Overlay<'_>, commit: &mut Commit) -> Result<(), Fault> {
        while self.other_heads().count() > EPOCH_PARENTS_MAX {
            let own = self.log.access.former_host_proof(&self.did, now, &|_| true);
            let Some(proof) = own.or_else(|| self.log.access.delegations().next().map(|(_, any)| any.clone())) else {
                return Ok(());
            };
            let mut proofs = Chain::beneath(&proof, &self.log.access).map_or_else(|_| vec![], |c| c.ancestors_first());
            if proofs.is_empty() {
                proofs.push(proof);
            }
            let items: Vec<_> = proofs.into_iter().map(|proof| Item::token(proof, None, None)).collect();
            self.append(now, &items, view, commit)?;
        }
        Ok(())
    }

    /// Makes an epoch of these items, judges it as every other host will, and takes it in.
    fn append(
        &mut self,
        now: Millis,
        items: &[Item],
        view: &mut Overlay<'_>,
        commit: &mut Commit,
    ) -> Result<(EpochId, u64), Fault> {
        let checked = self.build(now, items)?;
        let ancestry = Ancestry::find(&checked.epoch, view)?.map_err(|_| Fault::Batch)?;
        let judged = self.bench(view).judge(&checked, &ancestry)?.map_err(|_| Fault::Batch)?;
        // A delegation stands in the log by its bytes, dead or not: revoked may be what expired long ago.
        let acts = |item: &Item| item.token.role() != Role::Delegation;
        let mut verdicts = items.iter().zip(&judged.verdicts);
        if verdicts.any(|(item, verdict)| acts(item) && matches!(verdict, Verdict::Dead)) {
            return Err(Fault::Batch);
        }
        // Queued delegations and revocations are in `access` already, so that later calls were judged by them.
        let applied = self.log.apply(&self.id, &checked, &ancestry, judged, view, Index::Learns)?;
        let (id, seq) = (checked.epoch.id, checked.epoch.header.seq);
        self.own.last = Some((id, checked.epoch.header.n));
        self.own.seq = seq;
        commit.changes.extend(applied.changes);
        commit.epochs.push(checked.epoch.signed);
        Ok((id, seq))
    }

    /// The heads beside the own chain's last epoch.
    fn other_heads(&self) -> impl Iterator<Item = (&EpochId, &Head)> {
        let prev = self.own.last.map(|(id, _)| id);
        self.log.dag.heads().iter().filter(move |(id, _)| Some(**id) != prev)
    }

    /// The epoch of these items on top of everything held.
    fn build(&self, now: Millis, items: &[Item]) -> Result<CheckedEpoch, Fault> {
        let stands = |address: &Address| {
            self.log.tokens.holds(address) || items.iter().any(|item| item.token.address() == *address)
        };
        let header = Header {
            v: epoch::VERSION,
            space: self.id.clone(),
            host: self.host,
            proof: self.host_proof(now, &stands)?,
            incarnation: self.own.incarnation,
            n: self.own.last.map_or(0, |(_, n)| n + 1),
            prev: self.own.last.map(|(id, _)| id),
            parents: self.other_heads().map(|(id, _)| *id).take(EPOCH_PARENTS_MAX).collect(),
            seq: self.next_seq(now).ok_or(Fault::Batch)?,
            body: BodyId([0; 32]),
        };
        let event = |item: &Item| Event {
            token: item.token.bytes().to_vec(),
            values: item.value.iter().map(as_value).collect(),
        };
        let epoch = Epoch::sign(header, items.iter().map(event).collect(), &self.key).map_err(|_| Fault::Batch)?;
        Ok(CheckedEpoch { epoch, tokens: items.iter().map(|item| Some(item.token.clone())).collect() })
    }

    /// The clock of an epoch made now on top of everything held, `None` when that lies more than a minute ahead of `now`.
    fn next_seq(&self, now: Millis) -> Option<u64> {
        let physical = u64::try_from(now.0).ok()?.checked_mul(1 << 16)?;
        let seq = self.least_seq()?.max(physical);
        (seq_time(seq) <= now.plus(CLOCK_AHEAD_MAX_MS)).then_some(seq)
    }

    /// One more than all that is held.
    fn least_seq(&self) -> Option<u64> {
        let heads = self.log.dag.heads().values().map(|head| head.seq);
        heads.chain(self.own.last.map(|_| self.own.seq)).max().map_or(Some(0), |greatest| greatest.checked_add(1))
    }

    /// The clock that the queued calls wait for; none are queued without a reason to wait.
    pub(super) fn next_own_time(&self) -> Option<Millis> {
        if self.batch.items.is_empty() { None } else { self.least_seq().map(seq_time) }
    }
}

fn as_value(value: &NewValue) -> Value {
    Value { blob: value.blob, size: value.size, meta: value.meta.clone() }
}

fn meta_bytes(value: &NewValue) -> usize {
    value.meta.iter().map(|(name, text)| name.len() + text.len()).sum()
}
