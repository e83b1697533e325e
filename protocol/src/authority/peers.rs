//! Who else may have a space's events: the hosts that the owner names, and peers that show a read capability.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{Access, Chain, Proof, access::Both};
use crate::{
    capability::{Capability, Caveats, Resource},
    id::{Address, Did, HostKey, Millis},
};

/// A space of this name is readable by anybody.
pub const PUBLIC: &str = "public";
const KV: &str = "kv";
const GET: &str = "tinycloud.kv/get";

/// A host that the owner names or named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NamedHost {
    /// The host.
    pub host: HostKey,
    /// The delegation that names it.
    pub delegation: Address,
    /// When that ends, if ever.
    pub until: Option<Millis>,
    /// Whether the owner has taken it away.
    pub is_revoked: bool,
}

impl Access {
    /// The hosts whose delegations are live at `now`, and the owner's own key, which is a host if it is a node's.
    #[must_use]
    pub fn hosts(&self, now: Millis) -> BTreeSet<HostKey> {
        let named = self.hosts.keys().chain([self.space.owner()]);
        named.filter_map(Did::ed25519).map(HostKey).filter(|host| self.is_host(host, now)).collect()
    }

    /// Whether this is the owner's own key, or the owner names it a host, as of `now`.
    #[must_use]
    pub fn is_host(&self, host: &HostKey, now: Millis) -> bool {
        let did = host.did();
        did == *self.space.owner()
            || self.hosts.get(&did).is_some_and(|named| named.iter().any(|p| self.is_live(p, now)))
    }

    /// Every host that the owner names or named: of its delegations the one that lasts longest, one that is not revoked
    /// before one that is.
    #[must_use]
    pub fn all_hosts(&self) -> Vec<NamedHost> {
        let named = |(did, proofs): (&Did, &Vec<Proof>)| {
            let host = HostKey(did.ed25519()?);
            let by_lasting = proofs.iter().rev().filter_map(|proof| {
                let chain = self.chain_beneath(proof)?;
                let is_revoked = self.has_revoked(&chain);
                Some(NamedHost { host, delegation: proof.address(), until: proof.expiry(), is_revoked })
            });
            // Of equals the first is kept.
            by_lasting.reduce(|best, next| if best.is_revoked && !next.is_revoked { next } else { best })
        };
        self.hosts.iter().filter_map(named).collect()
    }

    /// A delegation behind all that it rests on; alone when its chain does not hold.
    #[must_use]
    pub fn with_ancestors(&self, proof: &Proof) -> Vec<Proof> {
        let mut all = self.chain_beneath(proof).map(|chain| chain.ancestors_first()).unwrap_or_default();
        all.retain(|other| other.address() != proof.address());
        all.push(proof.clone());
        all
    }

    /// Whether `peer` may read every key of the space: anybody may read a public one, and otherwise it is a delegation to it
    /// among the tokens shown, which rest on each other and on what is held, that says so. Their signatures are checked.
    #[must_use]
    pub fn may_read(&self, shown: &[Proof], peer: &Did, now: Millis) -> bool {
        if self.space.name() == PUBLIC {
            return true;
        }
        let Ok(ability) = GET.parse() else { return false };
        let resource = Resource::in_space(&self.space, KV, None);
        let all = Capability { resource, ability, caveats: Caveats::default() };
        let known: BTreeMap<Address, Proof> = shown.iter().map(|proof| (proof.address(), proof.clone())).collect();
        shown.iter().filter(|proof| proof.audience_did() == Some(peer)).any(|proof| {
            proof.capabilities().iter().any(|held| held.covers(&all))
                && Chain::beneath(proof, &Both(self, &known)).is_ok_and(|chain| self.is_chain_live(&chain, now))
        })
    }

    fn chain_beneath(&self, proof: &Proof) -> Option<Arc<Chain>> {
        let checked = self.chains.get(&proof.address()).cloned();
        checked.or_else(|| Chain::beneath(proof, self).ok().map(Arc::new))
    }

    pub(super) fn is_live(&self, proof: &Proof, now: Millis) -> bool {
        self.chain_beneath(proof).is_some_and(|chain| self.is_chain_live(&chain, now))
    }

    fn is_chain_live(&self, chain: &Chain, now: Millis) -> bool {
        chain.in_force(now, 0) && !self.has_revoked(chain)
    }

    fn has_revoked(&self, chain: &Chain) -> bool {
        chain.members().any(|(_, member)| self.is_revoked(&member.identity()))
    }
}
