//! A batch becomes an epoch of this host.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Fault, Space,
    batch::{Item, as_value},
    effect::{Commit, Logged, Output, Refusal, Reply, Write, Written},
    judge::{Ancestry, CheckedEpoch, Verdict},
    view::{Overlay, ViewError},
};
use crate::{
    authority::{AccessChange, Chain, within},
    capability::Role,
    dag::Head,
    epoch::{self, Epoch, Event, Header},
    id::{Address, BodyId, EpochId, Millis},
    kv::{Version, seq_time},
    limits::{CLOCK_AHEAD_MAX_MS, EPOCH_PARENTS_MAX, EXPIRY_GRACE_MS},
};

/// A generation that authority never has.
const UNAUTHORIZED: u64 = u64::MAX;

impl Space {
    /// Puts an epoch of what the batch holds on top of what `view` shows. While the clock forbids that, writes are refused
    /// and the rest waits.
    pub(super) fn seal(&mut self, now: Millis, view: &mut Overlay<'_>, commit: &mut Commit) -> Result<(), Fault> {
        if self.batch.items.is_empty() {
            return Ok(());
        }
        let time = self.next_seq(now).map(seq_time);
        if time.is_none_or(|time| self.batch.is_overtaken(time)) {
            self.judge_batch_anew(now, view)?;
        }
        let Some(time) = time.filter(|_| !self.batch.items.is_empty()) else { return Ok(()) };
        let queued: BTreeSet<Address> = self.batch.items.iter().map(|item| item.token.address()).collect();
        if !self.is_owner() && self.host_proof(now, time, &|address| self.stands(address, &queued)).is_none() {
            self.refuse_batch(&Refusal::NotHost);
            return Ok(());
        }
        self.merge_heads(now, view, commit)?;
        let items = self.batch.take(commit.bytes());
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
            let value = item.value.and_then(|value| value.inline.map(|bytes| (value.blob, bytes)));
            if let Some(own) = commit.epochs.last_mut() {
                own.values.extend(value);
            }
        }
        Ok(())
    }

    /// Judges what is queued anew: authority was taken away from outside, or the clock ran off. A delegation stays, dead or
    /// not.
    pub(super) fn judge_batch_anew(&mut self, now: Millis, view: &Overlay<'_>) -> Result<(), ViewError> {
        let time = self.next_seq(now).map(seq_time);
        let is_late = |item: &Item| {
            let Ok((standing, _)) = self.log.access.revocation(&item.token, &()) else { return false };
            let in_force =
                |time| within(&item.token, time, EXPIRY_GRACE_MS) && standing.proofs.in_force(time, EXPIRY_GRACE_MS);
            !time.is_none_or(in_force)
        };
        let (late, items): (Vec<_>, Vec<_>) = self.batch.reopen().into_iter().partition(is_late);
        for item in late {
            self.take_back(item, &items, &Refusal::Expired);
        }
        for item in items {
            if item.change.is_some() {
                let judged_at = time.unwrap_or(item.judged_at);
                self.batch.push(item, judged_at);
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

    /// Refuses all that is queued.
    fn refuse_batch(&mut self, refusal: &Refusal) {
        for item in self.batch.reopen() {
            self.take_back(item, &[], refusal);
        }
    }

    /// Refuses a queued item. What it changed in `access` goes, unless the log or another of the items that `stay` says the
    /// same.
    fn take_back(&mut self, item: Item, stay: &[Item], refusal: &Refusal) {
        let says = |other: &Item| match (&item.change, &other.change) {
            (Some(AccessChange::Revoked(target)), Some(AccessChange::Revoked(other))) => target == other,
            _ => false,
        };
        if let Some(change) = item.change.as_ref().filter(|change| !self.log.has_made(change))
            && !stay.iter().any(says)
        {
            self.log.access.take_back(change);
        }
        self.outputs.extend(item.calls.iter().map(|call| Output::Reply(*call, Err(refusal.clone()))));
    }

    /// Leaves no more heads than one epoch has parents, so that the batch has all that is held in its Past. The epochs
    /// in between carry the host's own delegation once more, which changes nothing.
    fn merge_heads(&mut self, now: Millis, view: &mut Overlay<'_>, commit: &mut Commit) -> Result<(), Fault> {
        while self.other_heads().count() > EPOCH_PARENTS_MAX {
            let time = self.next_seq(now).map_or(now, seq_time);
            let own = self.log.access.former_host_proof(&self.did, time, &|_| true);
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
        if verdicts.any(|(item, verdict)| acts(item) && matches!(verdict, Verdict::Dead(_))) {
            return Err(Fault::Batch);
        }
        // Queued delegations and revocations are in `access` already, so that later calls were judged by them.
        let applied = self.log.apply(&self.id, &checked, &ancestry, judged, view)?;
        let (id, seq) = (checked.epoch.id, checked.epoch.header.seq);
        self.own.last = Some((id, checked.epoch.header.n));
        self.own.seq = seq;
        commit.change(applied.changes);
        commit.change(self.log.settle(view)?);
        commit.epochs.push(Logged { signed: checked.epoch.signed, values: Vec::new(), told: BTreeSet::new() });
        Ok((id, seq))
    }

    /// The heads beside the own chain's last epoch.
    fn other_heads(&self) -> impl Iterator<Item = (&EpochId, &Head)> {
        let prev = self.own.last.map(|(id, _)| id);
        self.log.dag.heads().iter().filter(move |(id, _)| Some(**id) != prev)
    }

    /// The epoch of these items on top of everything held.
    fn build(&self, now: Millis, items: &[Item]) -> Result<CheckedEpoch, Fault> {
        let queued = items.iter().map(|item| item.token.address()).collect();
        let seq = self.next_seq(now).ok_or(Fault::Batch)?;
        let proof = self.host_proof(now, seq_time(seq), &|address| self.stands(address, &queued));
        let header = Header {
            v: epoch::VERSION,
            space: self.id.clone(),
            host: self.host,
            proof: if self.is_owner() { None } else { Some(proof.ok_or(Fault::Batch)?) },
            incarnation: self.own.incarnation,
            n: self.own.last.map_or(0, |(_, n)| n + 1),
            prev: self.own.last.map(|(id, _)| id),
            parents: self.other_heads().map(|(id, _)| *id).take(EPOCH_PARENTS_MAX).collect(),
            seq,
            body: BodyId([0; 32]),
        };
        let event = |item: &Item| Event {
            token: item.token.bytes().to_vec(),
            values: item.value.iter().map(as_value).collect(),
        };
        let epoch = Epoch::sign(header, items.iter().map(event).collect(), &self.key).map_err(|_| Fault::Batch)?;
        let tokens = items.iter().map(|item| Some(item.token.clone())).collect();
        Ok(CheckedEpoch { epoch, tokens, unsigned: BTreeMap::new() })
    }

    /// The clock of an epoch made now on top of everything held, `None` when that lies more than a minute ahead of `now`.
    pub(super) fn next_seq(&self, now: Millis) -> Option<u64> {
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

    pub(super) fn is_owner(&self) -> bool {
        self.did == *self.id.owner()
    }

    /// What an epoch of ours stands on, among the delegations that `stands` allows. It may be revoked by what is in that
    /// very epoch, or was revoked from outside since that was queued.
    fn host_proof(&self, now: Millis, time: Millis, stands: &dyn Fn(&Address) -> bool) -> Option<Address> {
        let (access, host) = (&self.log.access, &self.did);
        let proof = access.host_proof(host, now, stands).or_else(|| access.former_host_proof(host, time, stands));
        proof.map(|proof| proof.address())
    }

    /// Whether a delegation stands in the log, or will with those that are queued.
    fn stands(&self, address: &Address, queued: &BTreeSet<Address>) -> bool {
        self.log.tokens.holds(address) || queued.contains(address)
    }
}
