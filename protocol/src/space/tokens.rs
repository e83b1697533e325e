//! Which delegations stand where in the log.

use std::collections::BTreeMap;

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
}

impl Tokens {
    /// Notes that `proof` stands in the epoch at `place`, whose Past is `past`; false when that adds nothing.
    pub(super) fn learn(&mut self, proof: &Proof, place: Place, dag: &Dag, past: &Past) -> bool {
        let empty = || Held { proof: proof.clone(), places: Vec::new() };
        let held = self.held.entry(proof.address()).or_insert_with(empty);
        let adds = !held.places.iter().any(|known| *known == place || dag.is_past(past, *known));
        if adds {
            held.places.push(place);
        }
        adds
    }

    /// Takes over a delegation with the places that were learnt before.
    pub(super) fn restore(&mut self, proof: Proof, places: Vec<Place>) {
        self.held.insert(proof.address(), Held { proof, places });
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

/// The delegations that stand in an epoch's Past or earlier in its body.
pub(super) struct Present<'a> {
    pub(super) tokens: &'a Tokens,
    pub(super) dag: &'a Dag,
    pub(super) past: &'a Past,
    pub(super) body: &'a BTreeMap<Address, Proof>,
}

impl Proofs for Present<'_> {
    fn find(&self, address: &Address) -> Option<&Proof> {
        self.body.get(address).or_else(|| {
            let held = self.tokens.held.get(address)?;
            held.places.iter().any(|place| self.dag.is_past(self.past, *place)).then_some(&held.proof)
        })
    }
}
