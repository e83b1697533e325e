//! Delegations of all spaces on this node, and those that wait for their space.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError, RwLock},
};

use kvspace_protocol::{
    authority::Proof,
    id::{Address, Millis, SpaceId},
};

/// Delegations that one owner may park.
const PARKED_PER_OWNER_MAX: usize = 64;
/// Delegations that all owners may park.
const PARKED_MAX: usize = 10_000;
/// How long a delegation waits for its space: one hour.
const PARKED_MS: i64 = 3_600_000;

/// Where proofs are looked for that a space's own log does not hold.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    held: RwLock<BTreeMap<Address, Proof>>,
    parked: Mutex<Vec<Parked>>,
}

#[derive(Debug)]
struct Parked {
    space: SpaceId,
    proof: Proof,
    until: Millis,
}

impl Pool {
    /// A space's log holds this delegation.
    pub(crate) fn insert(&self, proof: Proof) {
        self.held.write().unwrap_or_else(PoisonError::into_inner).insert(proof.address(), proof);
    }

    /// The delegation at this address, from any log or parked.
    pub(crate) fn find(&self, address: &Address, now: Millis) -> Option<Proof> {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner).get(address).cloned();
        held.or_else(|| {
            let parked = self.live(now);
            parked.iter().find(|parked| parked.proof.address() == *address).map(|parked| parked.proof.clone())
        })
    }

    /// Keeps an owner's delegation for a space that is not hosted here yet. Beyond the bounds it is forgotten: the client
    /// posts it again when the space is there.
    pub(crate) fn park(&self, space: &SpaceId, proof: &Proof, now: Millis) {
        let mut parked = self.live(now);
        let known = parked.iter().any(|other| other.space == *space && other.proof.address() == proof.address());
        let owned = parked.iter().filter(|other| other.space.owner() == space.owner()).count();
        if !known && parked.len() < PARKED_MAX && owned < PARKED_PER_OWNER_MAX {
            parked.push(Parked { space: space.clone(), proof: proof.clone(), until: now.plus(PARKED_MS) });
        }
    }

    /// Takes out what waits for this space.
    pub(crate) fn unpark(&self, space: &SpaceId, now: Millis) -> Vec<Proof> {
        let mut parked = self.live(now);
        let (mine, others) = std::mem::take(&mut *parked).into_iter().partition(|parked| parked.space == *space);
        *parked = others;
        Vec::into_iter(mine).map(|parked: Parked| parked.proof).collect()
    }

    /// How many wait.
    pub(crate) fn parked(&self) -> usize {
        self.parked.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    fn live(&self, now: Millis) -> MutexGuard<'_, Vec<Parked>> {
        let mut parked = self.parked.lock().unwrap_or_else(PoisonError::into_inner);
        // Parked in order of time, so the first that lives ends the search.
        let dead = parked.iter().take_while(|parked| parked.until < now).count();
        parked.drain(..dead);
        parked
    }
}
