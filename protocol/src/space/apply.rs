//! Taking a judged epoch into the state: what changes in the index and in authority.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{
    cut::{Carrier, Cuts, Revocation},
    effect::{Change, DeadReason, NewEpoch},
    judge::{Ancestry, CheckedEpoch, Judged, Verdict, effects, integrity, operations},
    tokens::Tokens,
    view::{EpochAt, Overlay, View, ViewError},
};
use crate::{
    authority::{
        Access, AccessChange, Chain, Proof, Proofs, RevocationStanding, identities_beneath, is_host_delegation,
    },
    capability::Role,
    dag::{Dag, Link, Place, Vector},
    epoch::Header,
    id::{Address, Did, EpochId, HostKey, Identity, Key, SpaceId},
    kv::{Effect, Operation, Standing, Value, Version, Winner},
    limits::KEY_BYTES_MAX,
};

/// What a space knows beside its keys: a function of the set of epochs.
#[derive(Debug, Clone)]
pub(super) struct Log {
    pub(super) dag: Dag,
    pub(super) tokens: Tokens,
    pub(super) cuts: Cuts,
    /// Whether a revocation came since they were settled.
    is_unsettled: bool,
    pub(super) access: Access,
    /// The revocations in the log, whether they count or not, and what each ends.
    pub(super) revocations: BTreeMap<Identity, Identity>,
    /// The chain of each delegation that operations stand on, itself included.
    chains: BTreeMap<Address, Arc<BTreeSet<Identity>>>,
}

impl Log {
    pub(super) fn new(space: SpaceId) -> Self {
        Self {
            dag: Dag::default(),
            tokens: Tokens::default(),
            cuts: Cuts::default(),
            is_unsettled: false,
            access: Access::new(space),
            revocations: BTreeMap::new(),
            chains: BTreeMap::new(),
        }
    }

    /// What an index has kept: the DAG, and every delegation with the places where it stands. Revocations follow, by
    /// [`Log::revoke_again`].
    pub(super) fn restore(space: SpaceId, dag: Dag, delegations: Vec<(Proof, Vec<Place>)>) -> Self {
        let mut log = Self { dag, ..Self::new(space) };
        for (proof, places) in delegations {
            log.access.apply(AccessChange::Delegation(proof.clone()));
            log.tokens.restore(proof, places);
        }
        log.access.check_chains();
        let roots: Vec<_> = log.tokens.all().map(|proof| proof.address()).collect();
        roots.iter().for_each(|root| log.note_root(root));
        log
    }

    /// Takes in the revocations of an epoch whose operations the index holds; the cuts have to be settled afterwards.
    pub(super) fn revoke_again(
        &mut self,
        space: &SpaceId,
        epoch: &EpochId,
        judged: &Judged,
        view: &dyn View,
    ) -> Result<(), ViewError> {
        let Some(EpochAt { place, .. }) = view.epoch(epoch)? else {
            return Err(ViewError(format!("epoch {epoch} is not in the index")));
        };
        self.revoke_all(space, place, judged, view, &mut Applied::default()).map(drop)
    }

    /// Takes in an epoch all of whose Past is held; changes go to the index and, for the next epoch, to `view`. After the last
    /// one of a commit [`Log::settle`] has to follow.
    pub(super) fn apply(
        &mut self,
        space: &SpaceId,
        checked: &CheckedEpoch,
        ancestry: &Ancestry,
        judged: Judged,
        view: &mut Overlay<'_>,
    ) -> Result<Applied, ViewError> {
        let (epoch, header) = (&checked.epoch, &checked.epoch.header);
        let (prev, parents) = ancestry.places();
        let link = Link {
            id: epoch.id,
            host: header.host,
            incarnation: header.incarnation,
            n: header.n,
            seq: header.seq,
            prev,
            parents: &parents,
        };
        let inserted = self.dag.insert(&link);
        let place = inserted.place;
        let is_revocation = |verdict: &Verdict| matches!(verdict, Verdict::Revocation(..));
        let mut applied = Applied::default();
        let (host, incarnation) = (header.host, header.incarnation);
        let revokes = judged.verdicts.iter().any(is_revocation);
        let new = NewEpoch { id: epoch.id, seq: header.seq, inserted, host, incarnation, revokes };
        applied.push(view, Change::Epoch(new));
        // A delegation stands in the log by its bytes alone: whether it holds is asked of whatever rests on it.
        for (event, token) in (0u16..).zip(&checked.tokens) {
            let Some(token) = token.as_ref().filter(|token| token.role() == Role::Delegation) else { continue };
            if self.tokens.learn(token, place, &self.dag, &judged.past) {
                let named = token.audience_did().filter(|host| is_host_delegation(token, space, host));
                let hosts = named.and_then(Did::ed25519).map(HostKey);
                applied.push(view, Change::Delegation { address: token.address(), place, event, hosts });
            }
            if !self.access.holds(&token.address()) {
                applied.access(&mut self.access, AccessChange::Delegation(token.clone()));
            }
        }
        for change in dead(space, checked, place, &judged) {
            applied.push(view, change);
        }
        if revokes && self.revoke_all(space, place, &judged, view, &mut applied)? {
            self.is_unsettled = true;
        }
        let written = self.operations(space, checked, place, &judged);
        for operation in written.values().flatten() {
            applied.push(view, Change::Operation(operation.clone()));
        }
        for (key, fresh) in &written {
            if let Some(change) = self.winner(key, fresh, view)? {
                applied.push(view, change);
            }
        }
        Ok(applied)
    }

    /// Judges anew what the revocations of the epochs that were applied touch.
    pub(super) fn settle(&mut self, view: &mut Overlay<'_>) -> Result<Vec<Change>, ViewError> {
        let mut applied = Applied::default();
        if !std::mem::take(&mut self.is_unsettled) {
            return Ok(applied.changes);
        }
        let affected = self.cuts.settle();
        if affected.is_empty() {
            return Ok(applied.changes);
        }
        let is_affected = |root: &Address| self.chains.get(root).is_some_and(|members| !members.is_disjoint(&affected));
        for key in view.keys_under(&is_affected)? {
            if let Some(change) = self.winner(&key, &[], view)? {
                applied.push(view, change);
            }
        }
        Ok(applied.changes)
    }

    /// The operations of a judged epoch, by key.
    fn operations(
        &mut self,
        space: &SpaceId,
        checked: &CheckedEpoch,
        place: Place,
        judged: &Judged,
    ) -> BTreeMap<Key, Vec<Operation>> {
        let epoch = &checked.epoch;
        let mut written: BTreeMap<Key, Vec<Operation>> = BTreeMap::new();
        for ((index, verdict), event) in (0u16..).zip(&judged.verdicts).zip(&epoch.events) {
            let Verdict::Operations(token, chain) = verdict else { continue };
            let version = |number| Version::new(epoch.header.seq, epoch.id, index, number);
            let standing = self.standing(token, chain, epoch.header.proof);
            for operation in write(token, space, &event.values, standing, place, version) {
                written.entry(operation.key.clone()).or_default().push(operation);
            }
        }
        written
    }

    /// Takes in the revocations of a judged epoch; true when the cuts have to be settled.
    fn revoke_all(
        &mut self,
        space: &SpaceId,
        place: Place,
        judged: &Judged,
        view: &dyn View,
        applied: &mut Applied,
    ) -> Result<bool, ViewError> {
        let host = judged.host.identities();
        let mut counts = false;
        for (event, verdict) in (0u16..).zip(&judged.verdicts) {
            let Verdict::Revocation(token, standing) = verdict else { continue };
            let carrier = Carrier { place, event, past: self.dag.vector(&judged.past), host: host.clone() };
            counts |= self.revoke(space, token, standing, carrier, view)?;
            let target = standing.target.identity();
            if !self.access.is_revoked(&target) {
                applied.access(&mut self.access, AccessChange::Revoked(target));
            }
        }
        Ok(counts)
    }

    /// Who wins `key` now, if that changed. `fresh` are the operations this epoch added, or none to judge all anew.
    fn winner(&self, key: &Key, fresh: &[Operation], view: &Overlay<'_>) -> Result<Option<Change>, ViewError> {
        let present = view.winner(key)?;
        if let [only] = fresh
            && !self.is_void(only)
            && view.occurrences(key, &only.identity)?.len() == 1
        {
            // It counts, and nothing else has changed: the greater one wins.
            let wins = present.as_ref().is_none_or(|present| present.version < only.version);
            return Ok(wins.then(|| Change::Winner { key: key.clone(), winner: Some(only.clone()) }));
        }
        let history = view.history(key)?;
        let winner = Winner::among(&history, |operation| self.is_void(operation)).cloned();
        let same = winner.as_ref().map(|w| w.version) == present.as_ref().map(|p| p.version);
        Ok((!same).then(|| Change::Winner { key: key.clone(), winner }))
    }

    /// Whether an operation is cut off by a revocation.
    pub(super) fn is_void(&self, operation: &Operation) -> bool {
        self.is_void_under(&self.cuts, operation)
    }

    /// Whether it is, if these are the revocations.
    pub(super) fn is_void_under(&self, cuts: &Cuts, operation: &Operation) -> bool {
        !cuts.is_empty() && cuts.voids(&self.chain_of(operation), operation.place, &operation.version)
    }

    /// The identities of all delegations that an operation rests on.
    pub(super) fn chain_of(&self, operation: &Operation) -> BTreeSet<Identity> {
        let mut chain = BTreeSet::new();
        for root in operation.standing.roots() {
            chain.extend(self.chains.get(root).into_iter().flat_map(|members| members.iter().copied()));
        }
        chain
    }

    /// Whether a delegation that operations stand on is this one, or rests on it.
    pub(super) fn rests_on(&self, root: &Address, delegation: &Identity) -> bool {
        self.chains.get(root).is_some_and(|members| members.contains(delegation))
    }

    /// Whether the log itself, without what is only queued, has made this step of authority.
    pub(super) fn has_made(&self, change: &AccessChange) -> bool {
        match change {
            AccessChange::Delegation(proof) => self.tokens.holds(&proof.address()),
            AccessChange::Revoked(target) => self.revocations.values().any(|ended| ended == target),
        }
    }

    /// What an operation stands on, with the chains noted for later.
    fn standing(&mut self, token: &Proof, chain: &Chain, host: Option<Address>) -> Standing {
        let rooted = chain.members().len() == 0;
        let standing = Standing { proofs: if rooted { [].into() } else { token.proofs().into() }, host };
        standing.roots().for_each(|root| self.note_root(root));
        standing
    }

    /// Notes the chain of a delegation that is held with all it rests on.
    fn note_root(&mut self, root: &Address) {
        if self.chains.contains_key(root) {
            return;
        }
        let members = self.tokens.find(root).and_then(|proof| identities_beneath(proof, &self.tokens));
        if let Some(members) = members {
            self.chains.insert(*root, Arc::new(members));
        }
    }

    /// Takes in a revocation; true when it counts, so that the cuts have to be settled anew.
    fn revoke(
        &mut self,
        space: &SpaceId,
        token: &Proof,
        standing: &RevocationStanding,
        carrier: Carrier,
        view: &dyn View,
    ) -> Result<bool, ViewError> {
        self.revocations.insert(token.identity(), standing.target.identity());
        if !standing.counts {
            return Ok(false);
        }
        let mut after = None;
        for id in token.after(space).unwrap_or_default() {
            if let Some(at) = view.epoch(id)? {
                after.get_or_insert_with(Vector::default).join(&self.dag.reach(at.place));
            }
        }
        let revocation = Revocation {
            address: token.address(),
            target: standing.target.identity(),
            target_address: standing.target.address(),
            rests_on: standing.rests_on.clone(),
            after,
            carriers: vec![carrier],
            is_repeated: false,
        };
        Ok(self.cuts.add(token.identity(), revocation))
    }
}

/// The effects of one epoch.
#[derive(Debug, Default)]
pub(super) struct Applied {
    pub(super) changes: Vec<Change>,
    pub(super) access: Vec<AccessChange>,
}

impl Applied {
    fn push(&mut self, view: &mut Overlay<'_>, change: Change) {
        view.absorb(&change);
        self.changes.push(change);
    }

    fn access(&mut self, access: &mut Access, change: AccessChange) {
        access.apply(change.clone());
        self.access.push(change);
    }
}

/// The writes of a judged epoch's dead events.
fn dead<'a>(
    space: &'a SpaceId,
    checked: &'a CheckedEpoch,
    place: Place,
    judged: &'a Judged,
) -> impl Iterator<Item = Change> {
    let Header { seq, .. } = checked.epoch.header;
    (0u16..).zip(&judged.verdicts).flat_map(move |(event, verdict)| {
        let token = checked.token(event).map(|token| &***token).or_else(|| checked.unsigned.get(&event));
        let (reason, token) = match verdict {
            Verdict::Dead(reason) => (*reason, token),
            Verdict::Delegation | Verdict::Revocation(..) | Verdict::Operations(..) => (DeadReason::Signature, None),
        };
        let writes = token.into_iter().flat_map(|token| (0u16..).zip(operations(token, space)));
        let short = writes.filter(|(_, (key, _))| key.len() <= KEY_BYTES_MAX);
        short.map(move |(number, (key, _))| {
            let version = Version::new(seq, checked.epoch.id, event, number);
            Change::Dead { key: key.into(), version, place, reason }
        })
    })
}

fn write(
    token: &Proof,
    space: &SpaceId,
    values: &[Value],
    standing: Standing,
    place: Place,
    version: impl Fn(u16) -> Version,
) -> Vec<Operation> {
    let integrity = integrity(token);
    let operation = |(number, (key, value)): (u16, (&str, Option<&Value>))| Operation {
        key: key.into(),
        version: version(number),
        place,
        identity: token.identity(),
        standing: standing.clone(),
        expiry: token.expiry(),
        integrity,
        effect: value.map_or(Effect::Delete, |value| Effect::Put(Arc::new(value.clone()))),
    };
    (0u16..).zip(effects(token, space, values)).map(operation).collect()
}
