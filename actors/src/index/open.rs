//! What a space's state machine is opened from: its branches and delegations, and the epochs that revoke.

use std::collections::BTreeMap;

use kvspace_protocol::{
    authority::Proof,
    dag::{Branch, Place},
    id::Address,
    space::{CheckedEpoch, Held},
};

use super::{IndexError, SpaceIndex, format, keys::Rest, signed};
use crate::log::Position;

impl SpaceIndex {
    /// Reads what is kept for opening the state machine.
    pub(crate) fn held(&self) -> Result<Held, IndexError> {
        Ok(Held { branches: self.branches()?, delegations: self.delegations()?, revoking: self.revoking()? })
    }

    fn branches(&self) -> Result<Vec<Branch>, IndexError> {
        let broken = || IndexError::new("the index has a branch without the ones before it");
        let prefix = self.names.branches();
        let mut branches = Vec::new();
        for record in self.index.records.scan(&prefix, &prefix) {
            let (name, value) = record?;
            let number = Rest(&name[prefix.len()..]).u32().ok_or_else(broken)?;
            if number as usize != branches.len() {
                return Err(broken());
            }
            let branch = format::decode_branch(&value)?;
            if branch.base.is_some_and(|base| base.branch >= number) {
                return Err(broken());
            }
            branches.push(branch);
        }
        let prefix = self.names.all_learned();
        for record in self.index.records.scan(&prefix, &prefix) {
            let (name, value) = record?;
            let mut rest = Rest(&name[prefix.len()..]);
            let (branch, other, n) = rest.u32().and_then(|b| Some((b, rest.u32()?, rest.u64()?))).ok_or_else(broken)?;
            let branch = branches.get_mut(branch as usize).ok_or_else(broken)?;
            branch.learned.entry(other).or_default().push((n, format::decode(&value)?));
        }
        Ok(branches)
    }

    fn delegations(&self) -> Result<Vec<(Proof, Vec<Place>)>, IndexError> {
        let broken = || IndexError::new("the index names a delegation that is not in the log");
        let prefix = self.names.delegations();
        let mut places: BTreeMap<Address, Vec<(Place, u16)>> = BTreeMap::new();
        for record in self.index.records.scan(&prefix, &prefix) {
            let (name, value) = record?;
            let mut rest = Rest(&name[prefix.len()..]);
            let address = Address(rest.hash().ok_or_else(broken)?);
            let place = rest.place().ok_or_else(broken)?;
            places.entry(address).or_default().push((place, format::decode(&value)?));
        }
        // Many delegations share an epoch: each is read once.
        let mut by_place: BTreeMap<Place, Vec<(Address, u16)>> = BTreeMap::new();
        for (address, places) in &places {
            let (place, event) = places.first().ok_or_else(broken)?;
            by_place.entry(*place).or_default().push((*address, *event));
        }
        let mut delegations = Vec::new();
        for (place, tokens) in by_place {
            let epoch = self.index.read_epoch(self.position(place)?)?;
            for (address, event) in tokens {
                let proof = epoch.token(event).filter(|proof| proof.address() == address).ok_or_else(broken)?;
                let stands = places.remove(&address).unwrap_or_default().into_iter().map(|(place, _)| place).collect();
                delegations.push((proof.clone(), stands));
            }
        }
        Ok(delegations)
    }

    fn revoking(&self) -> Result<Vec<CheckedEpoch>, IndexError> {
        let prefix = self.names.all_revoking();
        let mut positions: Vec<Position> = Vec::new();
        for record in self.index.records.scan(&prefix, &prefix) {
            let (name, _) = record?;
            let place = Rest(&name[prefix.len()..]).place();
            let place = place.ok_or_else(|| IndexError::new("the index has a revocation without an epoch"))?;
            positions.push(self.position(place)?);
        }
        // In the log ancestors come first.
        positions.sort_unstable();
        let read = |at: Position| {
            let record = self.index.log.read_epoch(at).map_err(|error| IndexError::new(error.to_string()))?;
            CheckedEpoch::trusted(signed(record)).map_err(|error| IndexError::new(error.to_string()))
        };
        positions.into_iter().map(read).collect()
    }
}
