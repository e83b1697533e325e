//! Calls that want to write: what is refused, what is answered at once, what goes into the batch.

use std::collections::BTreeMap;

use super::{
    Space,
    batch::{Item, Pending, as_value, meta_bytes},
    effect::{CallId, Output, Refusal, Reply, Write, Written},
    judge::{content_holds, operations},
    view::{View, ViewError},
};
use crate::{
    authority::{Access, AccessChange, Proof, is_host_delegation, within},
    capability::Role,
    id::{BlobHash, Key, Millis},
    kv::{Value, Version, is_early, seq_time},
    limits::{EXPIRY_GRACE_MS, KEY_BYTES_MAX, META_BYTES_MAX},
};

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
        if !borrowed.is_empty() && self.log.access.is_full() {
            return Ok(Err(Refusal::Full));
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
        self.borrow(borrowed, time);
        let identity = token.identity();
        let removed = live.filter(|_| !is_put);
        let item = Item { value, condition, removed, ..Item::token(token, Some(call), None) };
        let number = self.batch.push(item, time);
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
            Role::Delegation if self.log.access.is_full() => return Ok(Err(Refusal::Full)),
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
        // The whole grace is left for the wait until the commit.
        if !in_force(&self.log.access, time) {
            return Ok(Err(Refusal::Clock));
        }
        self.borrow(borrowed, time);
        self.log.access.apply(change.clone());
        self.batch.push(Item::token(token, Some(call), Some(change)), time);
        Ok(Ok(None))
    }

    /// Whether the log holds a delegation or revocation, or will hold it once the batch is durable. Of a revoked delegation
    /// no other spelling of its signature is taken in.
    fn holds(&self, token: &Proof) -> bool {
        let (access, identity) = (&self.log.access, token.identity());
        match token.role() {
            Role::Delegation => access.holds(&token.address()) || access.is_revoked(&identity),
            Role::Revocation { .. } => {
                self.log.revocations.contains_key(&identity) || self.batch.items.iter().any(|item| item.is(&identity))
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
    fn borrow(&mut self, borrowed: Vec<Proof>, time: Millis) {
        for proof in borrowed {
            if !self.log.access.holds(&proof.address()) {
                let change = AccessChange::Delegation(proof.clone());
                self.log.access.apply(change.clone());
                self.batch.push(Item::token(proof, None, Some(change)), time);
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
}
