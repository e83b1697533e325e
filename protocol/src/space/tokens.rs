//! Which delegations stand where in the log.

use std::{cell::RefCell, collections::BTreeMap};

use crate::{
    authority::{Proof, Proofs},
    dag::{Dag, Past, Place},
    id::Address,
};

/// The delegations of a space's log and the epochs they stand in.
#[derive(Debug, Clone, Default)]
pub(super) struct Tokens {
    held: BTreeMap<Address, Held>,
}

#[derive(Debug, Clone)]
struct Held {
    proof: Proof,
    /// Where it stands, leaving out places that have another of these in their Past: those add nothing.
    places: Vec<Place>,
    /// The last epoch that was noted, or found to add nothing.
    noted: Option<Place>,
}

impl Tokens {
    /// Notes that `proof` stands in the epoch at `place`, whose Past is `past`; false when that adds nothing.
    pub(super) fn learn(&mut self, proof: &Proof, place: Place, dag: &Dag, past: &Past) -> bool {
        let empty = || Held { proof: proof.clone(), places: Vec::new(), noted: None };
        let held = self.held.entry(proof.address()).or_insert_with(empty);
        if held.noted.replace(place) == Some(place) {
            return false;
        }
        let adds = !held.places.iter().any(|known| *known == place || dag.is_past(past, *known));
        if adds {
            held.places.push(place);
        }
        adds
    }

    /// Takes over a delegation with the places that were learnt before.
    pub(super) fn restore(&mut self, proof: Proof, places: Vec<Place>) {
        self.held.insert(proof.address(), Held { proof, places, noted: None });
    }

    /// The delegations, wherever they stand.
    pub(super) fn all(&self) -> impl DoubleEndedIterator<Item = &Proof> {
        self.held.values().map(|held| &held.proof)
    }

    /// Whether the log holds it anywhere.
    pub(super) fn holds(&self, address: &Address) -> bool {
        self.held.contains_key(address)
    }
}

/// The delegations that stand anywhere in the log.
impl Proofs for Tokens {
    fn find(&self, address: &Address) -> Option<&Proof> {
        self.held.get(address).map(|held| &held.proof)
    }
}

/// Which delegations were looked for in an epoch's Past so far, and whether they stand there.
#[derive(Debug, Default)]
pub(super) struct Found(RefCell<BTreeMap<Address, bool>>);

/// The delegations that stand in an epoch's Past or earlier in its body.
pub(super) struct Present<'a> {
    pub(super) tokens: &'a Tokens,
    pub(super) dag: &'a Dag,
    pub(super) past: &'a Past,
    pub(super) found: &'a Found,
    pub(super) body: &'a BTreeMap<Address, Proof>,
}

impl Proofs for Present<'_> {
    fn find(&self, address: &Address) -> Option<&Proof> {
        self.body.get(address).or_else(|| {
            let held = self.tokens.held.get(address)?;
            let stands = || held.places.iter().any(|place| self.dag.is_past(self.past, *place));
            self.found.0.borrow_mut().entry(*address).or_insert_with(stands).then_some(&held.proof)
        })
    }
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::SigningKey;

    use super::*;
    use crate::{
        capability::build::{Claims, ucan},
        dag::Link,
        id::{EpochId, HostKey, Incarnation, Millis},
    };

    const PLACES: u16 = 1_000;

    fn delegation() -> Proof {
        let signed = ucan(&Claims::until(Millis(1)), &SigningKey::from_bytes(&[1; 32])).expect("claims make a token");
        signed.verify().expect("signed just now").into()
    }

    /// Epochs that know nothing of each other.
    fn apart(dag: &mut Dag) -> Vec<Place> {
        let link = |number: u16| {
            let mut id = [0; 32];
            id[..2].copy_from_slice(&number.to_be_bytes());
            let (host, incarnation) = (HostKey(id), Incarnation([0; 8]));
            Link { id: EpochId(id), host, incarnation, n: 0, seq: 1, prev: None, parents: &[] }
        };
        (0..PLACES).map(|number| dag.insert(&link(number)).place).collect()
    }

    #[test]
    fn a_delegation_is_looked_for_once_for_all_events_of_an_epoch() {
        let mut dag = Dag::default();
        let places = apart(&mut dag);
        let (mut tokens, proof) = (Tokens::default(), delegation());
        tokens.restore(proof.clone(), places[..places.len() - 1].to_vec());
        for (root, stands) in [(places[places.len() - 1], false), (places[places.len() - 2], true)] {
            let (past, found, body) = (Dag::past(Some(root), &[]), Found::default(), BTreeMap::new());
            for _ in 0..100 {
                let present = Present { tokens: &tokens, dag: &dag, past: &past, found: &found, body: &body };
                assert_eq!(present.find(&proof.address()).is_some(), stands);
            }
            assert!(past.looks() <= PLACES.into(), "{} looks", past.looks());
        }
    }

    #[test]
    fn a_delegation_that_an_epoch_repeats_is_compared_once() {
        let mut dag = Dag::default();
        let places = apart(&mut dag);
        let (mut tokens, proof) = (Tokens::default(), delegation());
        tokens.restore(proof.clone(), places[..places.len() - 1].to_vec());
        // The last one held is in the epoch's Past, so the epoch adds nothing; the other one adds a place.
        let place = |branch| Place { branch, n: 0 };
        for (root, at, adds) in [(places.len() - 2, place(5_000), false), (places.len() - 1, place(5_001), true)] {
            let past = Dag::past(Some(places[root]), &[]);
            assert_eq!(tokens.learn(&proof, at, &dag, &past), adds);
            assert!((0..100).all(|_| !tokens.learn(&proof, at, &dag, &past)));
            assert!(past.looks() <= PLACES.into(), "{} looks", past.looks());
        }
    }
}
