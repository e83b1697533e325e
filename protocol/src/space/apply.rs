//! Taking a judged epoch into the state: what changes in the index and in authority.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{
    cut::{Carrier, Cuts, Revocation},
    effect::Change,
    judge::{Ancestry, CheckedEpoch, Judged, Verdict, integrity, operations},
    tokens::Tokens,
    view::{EpochAt, Overlay, View, ViewError},
};
use crate::{
    authority::{Access, AccessChange, Chain, Proof, RevocationStanding},
    capability::Role,
    dag::{Dag, Link, Place, Vector},
    id::{Address, Identity, Key, SpaceId},
    kv::{Effect, Operation, Standing, Version, Winner},
};

/// What a space knows beside its keys: a function of the set of epochs.
#[derive(Debug, Clone)]
pub(super) struct Log {
    pub(super) dag: Dag,
    pub(super) tokens: Tokens,
    pub(super) cuts: Cuts,
    pub(super) access: Access,
    /// The revocations in the log, whether they count or not.
    pub(super) revocations: BTreeSet<Identity>,
    /// The chain of each delegation that operations stand on, itself included.
    chains: BTreeMap<Address, Arc<BTreeSet<Identity>>>,
}

impl Log {
    pub(super) fn new(space: SpaceId) -> Self {
        Self {
            dag: Dag::default(),
            tokens: Tokens::default(),
            cuts: Cuts::default(),
            access: Access::new(space),
            revocations: BTreeSet::new(),
            chains: BTreeMap::new(),
        }
    }

    /// Takes in an epoch all of whose Past is held; changes go to `changes` and, for the next epoch, to `view`.
    pub(super) fn apply(
        &mut self,
        space: &SpaceId,
        checked: &CheckedEpoch,
        ancestry: &Ancestry,
        judged: Judged,
        view: &mut Overlay<'_>,
        index: Index,
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
        let place = self.dag.insert(&link);
        let mut applied = Applied::default();
        applied.push(view, Change::Epoch { id: epoch.id, at: EpochAt { place, seq: header.seq } });
        // A delegation stands in the log by its bytes alone: whether it holds is asked of whatever rests on it.
        for token in checked.tokens.iter().flatten() {
            if token.role() == Role::Delegation {
                self.tokens.learn(token, place, &self.dag, &judged.past);
                if !self.access.holds(&token.address()) {
                    applied.access(&mut self.access, AccessChange::Delegation(token.clone()));
                }
            }
        }
        let host: BTreeSet<Identity> = judged.host.identities();
        let mut written: BTreeMap<Key, Vec<Operation>> = BTreeMap::new();
        let mut carries = false;
        for (index, verdict) in (0u16..).zip(&judged.verdicts) {
            match verdict {
                Verdict::Dead => applied.dead += 1,
                Verdict::Delegation => {}
                Verdict::Revocation(token, standing) => {
                    let carrier =
                        Carrier { place, event: index, past: self.dag.vector(&judged.past), host: host.clone() };
                    carries |= self.revoke(space, token, standing, carrier, view)?;
                    let target = standing.target.identity();
                    if !self.access.is_revoked(&target) {
                        applied.access(&mut self.access, AccessChange::Revoked(target));
                    }
                }
                Verdict::Operations(token, chain) => {
                    let version = |number| Version::new(header.seq, epoch.id, index, number);
                    let standing = self.standing(token, chain, header.proof, &judged.host);
                    let values = &epoch.events[usize::from(index)].values;
                    for operation in write(token, space, values, standing, place, version) {
                        written.entry(operation.key.clone()).or_default().push(operation.clone());
                        applied.push(view, Change::Operation(operation));
                    }
                }
            }
        }
        let revoked = carries && self.cuts.settle();
        if index == Index::Knows {
            return Ok(applied);
        }
        let keys = if revoked { view.keys()? } else { written.keys().cloned().collect() };
        for key in keys {
            let fresh = if revoked { &[][..] } else { written.get(&key).map_or(&[][..], Vec::as_slice) };
            if let Some(change) = self.winner(&key, fresh, view)? {
                applied.push(view, change);
            }
        }
        Ok(applied)
    }

    /// Who wins `key` now, if that changed. `fresh` are the operations this epoch added, or none to judge all anew.
    fn winner(&self, key: &Key, fresh: &[Operation], view: &Overlay<'_>) -> Result<Option<Change>, ViewError> {
        let present = view.winner(key)?;
        if let [only] = fresh
            && present.as_ref().is_none_or(|present| present.version < only.version)
            && !self.is_void(only)
            && view.occurrences(key, &only.identity)?.len() == 1
        {
            return Ok(Some(Change::Winner { key: key.clone(), winner: Some(only.clone()) }));
        }
        let history = view.history(key)?;
        let winner = Winner::among(&history, |operation| self.is_void(operation)).cloned();
        let same = winner.as_ref().map(|w| w.version) == present.as_ref().map(|p| p.version);
        Ok((!same).then(|| Change::Winner { key: key.clone(), winner }))
    }

    /// Whether an operation is cut off by a revocation.
    pub(super) fn is_void(&self, operation: &Operation) -> bool {
        if self.cuts.is_empty() {
            return false;
        }
        let Standing { proofs, host } = &operation.standing;
        let mut chain = BTreeSet::new();
        for root in proofs.iter().chain(host) {
            chain.extend(self.chains.get(root).into_iter().flat_map(|members| members.iter().copied()));
        }
        self.cuts.voids(&chain, operation.place, &operation.version)
    }

    /// What an operation stands on, with the chains noted for later.
    fn standing(&mut self, token: &Proof, chain: &Chain, host_proof: Option<Address>, host: &Chain) -> Standing {
        let rooted = chain.members().len() == 0;
        let proofs = if rooted { &[][..] } else { token.proofs() };
        for cited in proofs {
            let members = || Arc::new(chain.from(cited).into_iter().map(|(_, member)| member.identity()).collect());
            self.chains.entry(*cited).or_insert_with(members);
        }
        if let Some(address) = host_proof {
            self.chains.entry(address).or_insert_with(|| Arc::new(host.identities()));
        }
        Standing { proofs: proofs.into(), host: host_proof }
    }

    /// Takes in a revocation; true when it counts, so that the cuts have to be settled anew.
    fn revoke(
        &mut self,
        space: &SpaceId,
        token: &Proof,
        standing: &RevocationStanding,
        carrier: Carrier,
        view: &Overlay<'_>,
    ) -> Result<bool, ViewError> {
        self.revocations.insert(token.identity());
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
            target: standing.target.identity(),
            rests_on: standing.rests_on.clone(),
            after,
            carriers: vec![carrier],
        };
        self.cuts.add(token.identity(), revocation);
        Ok(true)
    }
}

/// What the index behind the view knows of an epoch that is taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Index {
    /// Nothing: the changes are for it.
    Learns,
    /// Everything.
    Knows,
}

/// The effects of one epoch.
#[derive(Debug, Default)]
pub(super) struct Applied {
    pub(super) changes: Vec<Change>,
    pub(super) access: Vec<AccessChange>,
    pub(super) dead: usize,
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

fn write(
    token: &Proof,
    space: &SpaceId,
    values: &[crate::kv::Value],
    standing: Standing,
    place: Place,
    version: impl Fn(u16) -> Version,
) -> Vec<Operation> {
    let mut values = values.iter();
    let effect = |is_put: bool| match is_put {
        true => values.next().cloned().map(|value| Effect::Put(Arc::new(value))),
        false => Some(Effect::Delete),
    };
    let integrity = integrity(token);
    let (keys, puts): (Vec<_>, Vec<_>) = operations(token, space).unzip();
    let effects = puts.into_iter().map_while(effect);
    let numbered = (0u16..).zip(keys.into_iter().zip(effects));
    let operation = |(number, (key, effect)): (u16, (&str, Effect))| Operation {
        key: key.into(),
        version: version(number),
        place,
        identity: token.identity(),
        standing: standing.clone(),
        expiry: token.expiry(),
        integrity,
        effect,
    };
    numbered.map(operation).collect()
}
