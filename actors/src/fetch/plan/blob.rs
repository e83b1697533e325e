//! One value that is wanted: where it stands, who was asked, and what is lacking.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

use kvspace_protocol::id::{HostKey, Millis, SpaceId};

use super::{BlobKey, Call};
use crate::{
    blobs::Groups,
    fetch::{Occurrence, Urgency},
};

/// Places of one value that are remembered: it is asked for at any of them.
const PLACES_MAX: usize = 4;

/// What a peer's answers for one value came to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Standing {
    pub(super) failures: u32,
    /// Whether the last answer was that it is not there.
    pub(super) is_missing: bool,
    pub(super) not_before: Millis,
}

pub(super) struct Flight {
    pub(super) key: BlobKey,
    pub(super) peer: HostKey,
    pub(super) at: Occurrence,
    pub(super) groups: Range<u64>,
    pub(super) since: Millis,
}

/// Where a value stands in the order of things.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Ready,
    Sleeping(Millis),
    /// Everything is here; it is getting its name.
    Complete,
}

pub(super) struct Blob {
    pub(super) urgency: Urgency,
    /// Order of arrival.
    pub(super) number: u64,
    pub(super) place: Place,
    pub(super) at: Vec<Occurrence>,
    /// Places of which no host was connected.
    pub(super) deserted: BTreeSet<Occurrence>,
    /// The space in whose part of the list it is.
    pub(super) listed: SpaceId,
    /// What was not verified yet.
    pub(super) left: Groups,
    pub(super) flights: BTreeSet<Call>,
    pub(super) standings: BTreeMap<(HostKey, Occurrence), Standing>,
    pub(super) bans: BTreeMap<HostKey, Millis>,
    pub(super) asked: BTreeMap<HostKey, Millis>,
}

impl Blob {
    /// Takes in another place. When there are as many as may be, it replaces one that brings nothing; one where somebody waits
    /// for the value replaces any.
    pub(super) fn take_place(&mut self, at: &Occurrence, urgency: Urgency) -> bool {
        if self.at.len() >= PLACES_MAX {
            let failures = |at: &Occurrence| -> u32 {
                let said = self.standings.iter().filter(|((_, other), _)| other == at);
                said.map(|(_, standing)| standing.failures).fold(0, u32::saturating_add)
            };
            let useless = |at: &Occurrence| (self.deserted.contains(at), failures(at));
            let Some(worst) = (0..self.at.len()).rev().max_by_key(|index| useless(&self.at[*index])) else {
                return false;
            };
            if urgency == Urgency::Soon && useless(&self.at[worst]) == (false, 0) {
                return false;
            }
            let replaced = self.at.remove(worst);
            self.standings.retain(|(_, other), _| *other != replaced);
            self.deserted.remove(&replaced);
        }
        self.at.push(at.clone());
        true
    }
}
