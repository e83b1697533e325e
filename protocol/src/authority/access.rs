//! What a host accepts in a space at this moment: the delegations it holds and those that are revoked.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    Chain, Denied, Proof, Proofs, Purpose,
    chain::{self, chain, chain_over, closure, dependent, within},
    revocation::{self, Standing},
};
use crate::{
    capability::{Capability, Token},
    id::{Address, Did, Identity, Millis, SpaceId},
    limits::{DELEGATIONS_BYTES_MAX, DELEGATIONS_MAX, EXPIRY_GRACE_MS},
};

/// The ability that makes a node a host of a space.
const HOST: &str = "tinycloud.space/host";
const HOST_SERVICE: &str = "space";

/// The accepting side of one space's authority.
#[derive(Debug, Clone)]
pub struct Access {
    pub(super) space: SpaceId,
    generation: u64,
    delegations: BTreeMap<Address, Proof>,
    /// The bytes of all of them.
    bytes: usize,
    /// Their chains, themselves included, as far as they hold. Checked once: they follow from the tokens alone.
    pub(super) chains: BTreeMap<Address, Arc<Chain>>,
    /// Those that name a host of this space, by the host, in the order in which they end: each write asks for the one that
    /// lasts longest.
    pub(super) hosts: BTreeMap<Did, Vec<Proof>>,
    revoked: BTreeSet<Identity>,
}

/// One step of a space's authority; each raises the generation.
#[derive(Debug, Clone)]
pub enum AccessChange {
    /// The log took in a delegation.
    Delegation(Proof),
    /// The log took in a revocation of this delegation.
    Revoked(Identity),
}

/// That a token may do what it says, as of a generation.
#[derive(Debug, Clone)]
pub struct Allowed {
    /// The generation of authority this was judged at.
    pub generation: u64,
    /// What covers the request.
    pub grants: Grants,
    /// What the token rests on and this space's log does not hold yet, ancestors first.
    pub borrowed: Vec<Proof>,
}

/// What covers a request.
#[derive(Debug, Clone)]
pub enum Grants {
    /// The signer owns the space.
    Owner,
    /// These capabilities of the cited proofs, any of them.
    Under(Vec<Capability>),
}

impl Access {
    /// The authority of a space of which nothing is known but its owner.
    #[must_use]
    pub fn new(space: SpaceId) -> Self {
        let (delegations, hosts, revoked) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
        Self { space, generation: 0, delegations, bytes: 0, chains: BTreeMap::new(), hosts, revoked }
    }

    /// How often it has changed.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Makes every judgement up to this generation outdated.
    pub fn outdate(&mut self, generation: u64) {
        self.generation = self.generation.max(generation.saturating_add(1));
    }

    /// Takes a change in.
    pub fn apply(&mut self, change: AccessChange) {
        self.generation += 1;
        match change {
            AccessChange::Delegation(proof) => {
                let host = proof.audience_did().filter(|host| is_host_delegation(&proof, &self.space, host));
                if let Some(host) = host.filter(|_| !self.holds(&proof.address())) {
                    let proofs = self.hosts.entry(host.clone()).or_default();
                    let at = proofs.partition_point(|known| lasting(known) < lasting(&proof));
                    proofs.insert(at, proof.clone());
                }
                if self.delegations.insert(proof.address(), proof.clone()).is_none() {
                    self.bytes += proof.bytes().len();
                }
                self.check_chain(&proof);
            }
            AccessChange::Revoked(identity) => drop(self.revoked.insert(identity)),
        }
    }

    /// Takes back a step that was never logged.
    pub(crate) fn take_back(&mut self, change: &AccessChange) {
        self.generation += 1;
        match change {
            AccessChange::Delegation(proof) => {
                let address = proof.address();
                if self.delegations.remove(&address).is_some() {
                    self.bytes -= proof.bytes().len();
                }
                self.hosts.values_mut().for_each(|named| named.retain(|known| known.address() != address));
                self.chains.retain(|_, chain| chain.members().all(|(member, _)| *member != address));
            }
            AccessChange::Revoked(identity) => drop(self.revoked.remove(identity)),
        }
    }

    /// Checks the chains of delegations that came before what they rest on.
    pub(crate) fn check_chains(&mut self) {
        let unchecked = self.delegations.values().filter(|proof| !self.chains.contains_key(&proof.address()));
        for proof in unchecked.cloned().collect::<Vec<_>>() {
            self.check_chain(&proof);
        }
    }

    fn check_chain(&mut self, proof: &Proof) {
        if let Ok(chain) = Chain::beneath(proof, &*self) {
            self.chains.insert(proof.address(), Arc::new(chain));
        }
    }

    /// Whether clients may bring no more delegations.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.delegations.len() >= DELEGATIONS_MAX || self.bytes >= DELEGATIONS_BYTES_MAX
    }

    /// Whether the log holds the delegation at `address`.
    #[must_use]
    pub fn holds(&self, address: &Address) -> bool {
        self.delegations.contains_key(address)
    }

    /// The delegations in the log.
    pub fn delegations(&self) -> impl ExactSizeIterator<Item = (&Address, &Proof)> {
        self.delegations.iter()
    }

    /// Whether `token` and all it rests on are there and in force at `at`, each given `grace_ms` after its expiry.
    #[must_use]
    pub fn is_in_force(&self, token: &Token, others: &impl Proofs, at: Millis, grace_ms: i64) -> bool {
        within(token, at, grace_ms)
            && closure(token, &Both(self, others))
                .is_ok_and(|members| members.values().all(|proof| within(proof, at, grace_ms)))
    }

    /// Whether this delegation is revoked.
    #[must_use]
    pub fn is_revoked(&self, identity: &Identity) -> bool {
        self.revoked.contains(identity)
    }

    /// Judges an invocation; its own time and signature are the caller's part.
    ///
    /// # Errors
    /// [`Denied`] in the words of an invocation.
    pub fn invocation(&self, token: &Token, now: Millis, others: &impl Proofs) -> Result<Allowed, Denied> {
        let checked = |address: &Address| self.chains.get(address).map(|chain| &**chain);
        let chain = chain_over(token, Purpose::Invoke, checked);
        let chain = chain.unwrap_or_else(|| chain::chain(token, Purpose::Invoke, &Both(self, others)))?;
        self.check_live(token, &chain, Purpose::Invoke)?;
        let in_force = |proof: &Proof| within(proof, now, 0) && proof.expiry().is_none_or(|end| now < end);
        if let Some(wanted) = dependent(token).next()
            && !chain.members().all(|(_, proof)| in_force(proof))
        {
            return Err(Denied::not_covered(Purpose::Invoke, wanted));
        }
        Ok(self.allowed(token, &chain))
    }

    /// Judges a delegation; its own time and signature are the caller's part.
    ///
    /// # Errors
    /// [`Denied`] in the words of a delegation.
    pub fn delegation(&self, token: &Token, others: &impl Proofs) -> Result<Allowed, Denied> {
        let known = Both(self, others);
        let chain = chain(token, Purpose::Delegate, &known)?;
        self.check_live(token, &chain, Purpose::Delegate)?;
        Ok(self.allowed(token, &chain))
    }

    /// Judges a revocation; its own time and signature are the caller's part.
    ///
    /// # Errors
    /// [`Denied`] when the signer has no right, or its own proof is revoked.
    pub fn revocation(&self, token: &Token, others: &impl Proofs) -> Result<(Standing, Vec<Proof>), Denied> {
        let standing = revocation::judge(token, &self.space, &Both(self, others))?;
        self.check_live(token, &standing.proofs, Purpose::Invoke)?;
        let mut borrowed = self.missing(&standing.target_proofs);
        for proof in self.missing(&standing.proofs).into_iter().chain([standing.target.clone()]) {
            if !self.holds(&proof.address()) && !borrowed.iter().any(|held| held.address() == proof.address()) {
                borrowed.push(proof);
            }
        }
        Ok((standing, borrowed))
    }

    /// The host delegation `host` may stand on at `now`: unrevoked, in force, among those that `stand` the one that
    /// lasts longest.
    #[must_use]
    pub fn host_proof(&self, host: &Did, now: Millis, stands: &dyn Fn(&Address) -> bool) -> Option<Proof> {
        self.lasting_longest(host, |proof| stands(&proof.address()) && self.is_live(proof, now))
    }

    /// The same, revoked or not: what an epoch of `host` made at `at` is valid under, so that a host can still log its own
    /// removal and what it accepted in time.
    #[must_use]
    pub fn former_host_proof(&self, host: &Did, at: Millis, stands: &dyn Fn(&Address) -> bool) -> Option<Proof> {
        self.lasting_longest(host, |proof| {
            stands(&proof.address())
                && Chain::beneath(proof, self).is_ok_and(|chain| chain.in_force(at, EXPIRY_GRACE_MS))
        })
    }

    fn lasting_longest(&self, host: &Did, fits: impl Fn(&Proof) -> bool) -> Option<Proof> {
        self.hosts.get(host).into_iter().flatten().rev().find(|proof| fits(proof)).cloned()
    }

    fn check_live(&self, token: &Token, chain: &Chain, purpose: Purpose) -> Result<(), Denied> {
        if self.revoked.is_empty() || chain.members().all(|(_, member)| !self.is_revoked(&member.identity())) {
            return Ok(());
        }
        for cited in token.proofs() {
            for (address, member) in chain.from(cited) {
                if self.is_revoked(&member.identity()) {
                    return Err(match (purpose, address == *cited) {
                        (Purpose::Delegate, true) => Denied::ParentRevoked(address),
                        (Purpose::Delegate, false) => {
                            Denied::ParentAncestorRevoked { ancestor: address, parent: *cited }
                        }
                        (Purpose::Invoke, true) => Denied::Revoked(address),
                        (Purpose::Invoke, false) => Denied::AncestorRevoked { ancestor: address, invoked: *cited },
                    });
                }
            }
        }
        Ok(())
    }

    fn allowed(&self, token: &Token, chain: &Chain) -> Allowed {
        let wanted: Vec<_> = dependent(token).collect();
        let covering = |held: &&Capability| wanted.iter().any(|wanted| held.covers(wanted));
        let cited = chain.members().filter(|(address, _)| token.proofs().contains(address));
        let grants = if wanted.is_empty() {
            Grants::Owner
        } else {
            Grants::Under(cited.flat_map(|(_, proof)| proof.capabilities()).filter(covering).cloned().collect())
        };
        Allowed { generation: self.generation, grants, borrowed: self.missing(chain) }
    }

    /// The members this log does not hold, each after what it rests on.
    fn missing(&self, chain: &Chain) -> Vec<Proof> {
        chain.ancestors_first().into_iter().filter(|proof| !self.holds(&proof.address())).collect()
    }
}

impl Proofs for Access {
    fn find(&self, address: &Address) -> Option<&Proof> {
        self.delegations.get(address)
    }
}

/// No proofs at all.
impl Proofs for () {
    fn find(&self, _: &Address) -> Option<&Proof> {
        None
    }
}

impl Proofs for BTreeMap<Address, Proof> {
    fn find(&self, address: &Address) -> Option<&Proof> {
        self.get(address)
    }
}

/// What the log holds, and other tokens.
pub(super) struct Both<'a, O>(pub(super) &'a Access, pub(super) &'a O);

impl<O: Proofs> Proofs for Both<'_, O> {
    fn find(&self, address: &Address) -> Option<&Proof> {
        self.0.find(address).or_else(|| self.1.find(address))
    }
}

/// How long a delegation lasts; of those that last equally the greater address.
fn lasting(proof: &Proof) -> (i64, Address) {
    (proof.expiry().map_or(i64::MAX, |end| end.0), proof.address())
}

/// Whether a delegation names `host` a host of `space`: service `space`, no path, query or fragment.
#[must_use]
pub fn is_host_delegation(token: &Token, space: &SpaceId, host: &Did) -> bool {
    token.audience_did() == Some(host) && spaces_to_host(token).any(|named| named == space)
}

/// The spaces for which a token gives the right to host.
pub fn spaces_to_host(token: &Token) -> impl Iterator<Item = &SpaceId> {
    let plain = |held: &&Capability| {
        held.ability.as_str() == HOST
            && held.resource.service() == Some(HOST_SERVICE)
            && held.resource.path().is_none()
            && !held.resource.text().contains(['?', '#'])
    };
    token.capabilities().iter().filter(plain).filter_map(|held| held.resource.space())
}
