//! The host's own writing: calls fill a batch, a batch becomes an epoch.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use super::{
    Fault, Space,
    apply::Index,
    effect::{CallId, Commit, NewValue, Output, Refusal, Reply, Write, Written},
    judge::{Ancestry, CheckedEpoch, Verdict, content_holds, operations},
    view::{Overlay, View, ViewError},
};
use crate::{
    authority::{AccessChange, Proof, is_host_delegation, within},
    capability::Role,
    epoch::{self, Epoch, Event, Header},
    id::{Address, BlobHash, BodyId, EpochId, Identity, Incarnation, Key, Millis},
    kv::{Value, Version, seq_time},
    limits::{CLOCK_AHEAD_MAX_MS, EPOCH_BODY_BYTES_MAX, EPOCH_EVENTS_MAX, EPOCH_PARENTS_MAX, KEY_BYTES_MAX},
};

/// What an event costs in a body beside its token and headers: names, hashes and lengths, rounded up.
const EVENT_OVERHEAD_BYTES: usize = 256;

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
    /// Whom to answer: the first caller and those who repeated the call meanwhile.
    calls: Vec<CallId>,
    /// The live value that a delete removes.
    removed: Option<BlobHash>,
    /// The step of authority to publish once it is durable.
    change: Option<AccessChange>,
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
    fn push_write(&mut self, token: Proof, call: CallId, value: Option<NewValue>, removed: Option<BlobHash>) -> u64 {
        self.numbered += 1;
        let number = self.numbered;
        self.items.push_back(Item { number, token, value, calls: vec![call], removed, change: None });
        number
    }

    fn push_token(&mut self, token: Proof, call: Option<CallId>, change: AccessChange) {
        self.numbered += 1;
        let (number, calls) = (self.numbered, call.into_iter().collect());
        self.items.push_back(Item { number, token, value: None, calls, removed: None, change: Some(change) });
    }

    /// Forgets what is durable now.
    pub(super) fn committed(&mut self) {
        let sealed = self.sealed;
        self.keys.retain(|_, pending| pending.by > sealed);
        self.writes.retain(|_, (number, _)| *number > sealed);
        self.outcomes.clear();
    }

    /// The items that fit into one epoch.
    fn take(&mut self) -> Vec<Item> {
        let mut bytes = 0;
        let fits = |item: &&Item| {
            let meta = item.value.iter().flat_map(|value| &value.meta).map(|(name, text)| name.len() + text.len());
            bytes += item.token.bytes().len() + EVENT_OVERHEAD_BYTES + meta.sum::<usize>();
            bytes <= EPOCH_BODY_BYTES_MAX
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
        if authorized_at != self.log.access.generation() {
            let borrowed: BTreeMap<_, _> = borrowed.iter().map(|proof| (proof.address(), proof.clone())).collect();
            if let Err(denied) = self.log.access.invocation(&token, now, &borrowed) {
                return Ok(Err(denied.into()));
            }
        }
        let values: Vec<Value> = value.iter().map(as_value).collect();
        if !content_holds(&token, &values, &self.id) {
            return Ok(Err(Refusal::Content));
        }
        if let Some(refusal) = self.cannot_commit(now, view, &token)? {
            return Ok(Err(refusal));
        }
        let blob = value.as_ref().map(|value| value.blob);
        if let Some(repeated) = self.repeated(view, call, &token.identity(), &key, blob)? {
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
        let number = self.batch.push_write(token, call, value, live.filter(|_| !is_put));
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
        let (change, borrowed) = match token.role() {
            Role::Invocation => return Ok(Err(Refusal::NoKey)),
            Role::Delegation if self.log.access.holds(&token.address()) => return Ok(Ok(self.held(call, &token))),
            Role::Delegation => match self.log.access.delegation(&token, &known) {
                Ok(allowed) => (AccessChange::Delegation(token.clone()), allowed.borrowed),
                Err(denied) => return Ok(Err(denied.into())),
            },
            Role::Revocation { .. } => match self.log.access.revocation(&token, &known) {
                Ok((standing, _)) if self.log.access.is_revoked(&standing.target.identity()) => {
                    return Ok(Ok(self.held(call, &token)));
                }
                Ok((standing, borrowed)) => (AccessChange::Revoked(standing.target.identity()), borrowed),
                Err(denied) => return Ok(Err(denied.into())),
            },
        };
        if !within(&token, now, 0) {
            return Ok(Err(Refusal::Expired));
        }
        let makes_host = |proof: &Proof| is_host_delegation(proof, &self.id, &self.did);
        let creates = borrowed.iter().chain([&token]).any(makes_host);
        match self.cannot_commit(now, view, &token)? {
            Some(Refusal::NotHost) if creates => {}
            Some(refusal) => return Ok(Err(refusal)),
            None => {}
        }
        self.borrow(borrowed);
        self.log.access.apply(change.clone());
        self.batch.push_token(token, Some(call), change);
        Ok(Ok(None))
    }

    /// The answer to a token that the log holds, or will hold once the batch is durable.
    fn held(&mut self, call: CallId, token: &Proof) -> Option<Reply> {
        let queued = self.batch.items.iter_mut().find(|item| item.token.address() == token.address());
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
                self.batch.push_token(proof, None, change);
            }
        }
    }

    /// Why this host cannot commit anything, or not this token, now.
    fn cannot_commit(&self, now: Millis, view: &dyn View, token: &Proof) -> Result<Option<Refusal>, ViewError> {
        if self.host_proof(now, &|_| true).is_none() {
            return Ok(Some(Refusal::NotHost));
        }
        if next_seq(now, self.log.dag.heads().values().map(|head| head.seq)).is_none() {
            return Ok(Some(Refusal::Clock));
        }
        let mut missing = Vec::new();
        for id in token.after(&self.id).unwrap_or_default() {
            if view.epoch(id)?.is_none() {
                missing.push(*id);
            }
        }
        Ok((!missing.is_empty()).then_some(Refusal::Behind(missing)))
    }

    /// What the epoch would stand on: `Some(None)` when the host is the owner.
    fn host_proof(&self, now: Millis, stands: &dyn Fn(&Address) -> bool) -> Option<Option<Address>> {
        if self.did == self.id.owner() {
            return Some(None);
        }
        let proof = self.log.access.host_proof(&self.did, now, stands)?;
        Some(Some(proof.address()))
    }

    /// The outcome of a token that was used before: the first one again for the same value, a refusal for another.
    fn repeated(
        &mut self,
        view: &dyn View,
        call: CallId,
        identity: &Identity,
        key: &Key,
        blob: Option<BlobHash>,
    ) -> Result<Option<Result<(), Refusal>>, ViewError> {
        if let Some((number, first)) = self.batch.writes.get(identity) {
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
        let first = view.occurrences(key, identity)?.into_iter().min_by_key(|operation| operation.version);
        let Some(first) = first else { return Ok(None) };
        let first_blob = first.effect.value().map(|value| value.blob);
        if first_blob != blob {
            return Ok(Some(Err(Refusal::Duplicate)));
        }
        let removed = match first_blob {
            Some(_) => None,
            None => self.removed_by(view, key, &first.version)?,
        };
        let written = Written { version: first.version, blob, removed };
        self.outputs.push_back(Output::Reply(call, Ok(Reply::Written(written))));
        Ok(Some(Ok(())))
    }

    /// The value that the delete of this version removed.
    fn removed_by(&self, view: &dyn View, key: &Key, version: &Version) -> Result<Option<BlobHash>, ViewError> {
        let mut history = view.history(key)?.into_iter();
        let last = history.rfind(|operation| operation.version < *version && !self.is_void(operation));
        Ok(last.and_then(|operation| operation.effect.value().map(|value| value.blob)))
    }

    /// Makes an epoch of what the batch holds.
    pub(super) fn seal(&mut self, now: Millis, view: &dyn View) -> Result<Option<Commit>, Fault> {
        let items = self.batch.take();
        let Some(last) = items.last().map(|item| item.number) else { return Ok(None) };
        let checked = self.build(now, &items)?;
        let mut overlay = Overlay::new(view);
        let ancestry = Ancestry::find(&checked.epoch, &overlay)?.ok_or(Fault::Batch)?;
        let judged = self.bench(&overlay).judge(&checked, &ancestry)?.map_err(|_| Fault::Batch)?;
        if judged.verdicts.iter().any(|verdict| matches!(verdict, Verdict::Dead)) {
            return Err(Fault::Batch);
        }
        // Queued delegations and revocations are in `access` already, so that later calls were judged by them.
        let applied = self.log.apply(&self.id, &checked, &ancestry, judged, &mut overlay, Index::Learns)?;
        let (id, seq) = (checked.epoch.id, checked.epoch.header.seq);
        self.own.last = Some((id, checked.epoch.header.n));
        self.own.seq = seq;
        self.batch.sealed = last;
        let mut blobs: Vec<(BlobHash, Bytes)> = Vec::new();
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
            blobs.extend(item.value.and_then(|value| value.inline.map(|bytes| (value.blob, bytes))));
        }
        Ok(Some(Commit { epochs: vec![checked.epoch.signed], blobs, changes: applied.changes }))
    }

    /// The epoch of these items on top of everything held.
    fn build(&self, now: Millis, items: &[Item]) -> Result<CheckedEpoch, Fault> {
        let stands = |address: &Address| {
            self.log.tokens.holds(address) || items.iter().any(|item| item.token.address() == *address)
        };
        let proof = self.host_proof(now, &stands).ok_or(Fault::Batch)?;
        let prev = self.own.last.map(|(id, _)| id);
        let heads = self.log.dag.heads();
        let parents: Vec<_> = heads.iter().filter(|(id, _)| Some(**id) != prev).take(EPOCH_PARENTS_MAX).collect();
        let seqs = parents.iter().map(|(_, head)| head.seq).chain(self.own.last.map(|_| self.own.seq));
        let header = Header {
            v: epoch::VERSION,
            space: self.id.clone(),
            host: self.host,
            proof,
            incarnation: self.own.incarnation,
            n: self.own.last.map_or(0, |(_, n)| n + 1),
            prev,
            parents: parents.iter().map(|(id, _)| **id).collect(),
            seq: next_seq(now, seqs).ok_or(Fault::Batch)?,
            body: BodyId([0; 32]),
        };
        let event = |item: &Item| Event {
            token: item.token.bytes().to_vec(),
            values: item.value.iter().map(as_value).collect(),
        };
        let epoch = Epoch::sign(header, items.iter().map(event).collect(), &self.key).map_err(|_| Fault::Batch)?;
        Ok(CheckedEpoch { epoch, tokens: items.iter().map(|item| Some(item.token.clone())).collect() })
    }
}

/// `max(now << 16, 1 + greatest)`, `None` when that lies more than a minute ahead of `now`.
fn next_seq(now: Millis, seqs: impl Iterator<Item = u64>) -> Option<u64> {
    let physical = u64::try_from(now.0).ok()?.checked_mul(1 << 16)?;
    let seq = seqs.max().map_or(Some(physical), |greatest| greatest.checked_add(1).map(|next| next.max(physical)))?;
    (seq_time(seq) <= now.plus(CLOCK_AHEAD_MAX_MS)).then_some(seq)
}

fn as_value(value: &NewValue) -> Value {
    Value { blob: value.blob, size: value.size, meta: value.meta.clone() }
}
