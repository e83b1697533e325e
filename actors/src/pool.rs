//! Where proofs are found that a space's own log does not hold: in the logs of all spaces here, and among those that wait
//! for their space.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use kvspace_protocol::{
    authority::Proof,
    id::{Address, Millis, SpaceId},
};

use crate::index::{Index, IndexError};

/// Delegations that one owner may park.
const PARKED_PER_OWNER_MAX: usize = 64;
/// Delegations that all owners may park.
const PARKED_MAX: usize = 10_000;
/// Bytes of their tokens.
const PARKED_BYTES_MAX: usize = 16 * 1024 * 1024;
/// How long a delegation waits for its space: one hour.
const PARKED_MS: i64 = 3_600_000;

/// Delegations kept that peers gave: they are asked for again when they are forgotten.
const BORROWED_MAX: usize = 1_000;

/// The delegations of this node.
pub(crate) struct Pool {
    index: Index,
    parked: Mutex<Vec<Parked>>,
    /// What peers gave because a token cites it, the latest last.
    borrowed: Mutex<VecDeque<Proof>>,
}

#[derive(Debug)]
struct Parked {
    space: SpaceId,
    proof: Proof,
    until: Millis,
}

impl Pool {
    pub(crate) fn new(index: Index) -> Self {
        Self { index, parked: Mutex::default(), borrowed: Mutex::default() }
    }

    /// The delegation at this address, from any log or parked.
    pub(crate) fn find(&self, address: &Address, now: Millis) -> Result<Option<Proof>, IndexError> {
        let parked = {
            let parked = self.live(now);
            parked.iter().find(|parked| parked.proof.address() == *address).map(|parked| parked.proof.clone())
        };
        let borrowed = || {
            let borrowed = self.borrowed.lock().unwrap_or_else(PoisonError::into_inner);
            borrowed.iter().find(|proof| proof.address() == *address).cloned()
        };
        match parked.or_else(borrowed) {
            Some(proof) => Ok(Some(proof)),
            None => self.index.delegation(address),
        }
    }

    /// Keeps delegations that a peer gave, until too many others have come.
    pub(crate) fn borrow(&self, proofs: &[Proof]) {
        let mut borrowed = self.borrowed.lock().unwrap_or_else(PoisonError::into_inner);
        for proof in proofs {
            borrowed.retain(|known| known.address() != proof.address());
            borrowed.push_back(proof.clone());
        }
        let many = borrowed.len().saturating_sub(BORROWED_MAX);
        borrowed.drain(..many);
    }

    /// Keeps an owner's delegation for a space that is not hosted here yet. Beyond the bounds it is forgotten: the client
    /// posts it again when the space is there.
    pub(crate) fn park(&self, space: &SpaceId, proof: &Proof, now: Millis) {
        let mut parked = self.live(now);
        let known = parked.iter().any(|other| other.space == *space && other.proof.address() == proof.address());
        let owned = parked.iter().filter(|other| other.space.owner() == space.owner()).count();
        let bytes: usize = parked.iter().map(|other| other.proof.bytes().len()).sum();
        let fits = bytes + proof.bytes().len() <= PARKED_BYTES_MAX;
        if !known && fits && parked.len() < PARKED_MAX && owned < PARKED_PER_OWNER_MAX {
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

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, path::Path, sync::Arc};

    use ed25519_dalek::SigningKey;
    use kvspace_protocol::{
        capability::build::{Claims, ucan},
        id::Did,
    };

    use super::*;
    use crate::{
        disk::fake::FakeDisk,
        log::{Log, LogOptions},
        records::{MemoryStore, Records},
    };

    #[test]
    fn what_is_parked_is_bounded_in_bytes() {
        let options = LogOptions { disk: Arc::new(FakeDisk::default()), ..LogOptions::default() };
        let log = Log::open(Path::new("/log"), options, |_, _| Ok::<_, Infallible>(())).expect("a log");
        let records = Records::over(Arc::new(MemoryStore::new())).expect("records");
        let pool = Pool::new(Index::new(records, log.reader()).expect("an index"));
        log.close();
        let mut bytes = 0;
        for owner in 0..16 {
            let key = SigningKey::from_bytes(&[owner; 32]);
            let did = Did::from_ed25519(&key.verifying_key().to_bytes());
            let space = SpaceId::new(&did, "default").expect("a space id");
            let mut claims = Claims::until(Millis(4_000_000_000_000));
            claims.audience = Some(did);
            // Few signatures of large tokens: the same delegation is parked for many spaces.
            claims.nonce = Some("n".repeat(45_000));
            claims.capabilities.insert(format!("{space}/kv"), vec!["tinycloud.kv/get".into()]);
            let proof: Proof = Arc::new(ucan(&claims, &key).expect("a token").verify().expect("signed just now"));
            for name in 0..PARKED_PER_OWNER_MAX {
                let space = SpaceId::new(space.owner(), &format!("space-{name}")).expect("a space id");
                pool.park(&space, &proof, Millis(0));
                bytes += proof.bytes().len();
            }
        }
        let parked: usize = pool.live(Millis(0)).iter().map(|parked| parked.proof.bytes().len()).sum();
        assert!(bytes > PARKED_BYTES_MAX && parked <= PARKED_BYTES_MAX, "{parked} of {bytes}");
        assert!(pool.parked() > 100);
    }
}
