//! Which writes a revocation lets stand.
//!
//! A cut is what the revoker had seen: a set of epochs closed under Past. An operation that rests on the revoked delegation
//! is void unless its epoch lies in it. The rules are numbers 5 to 7 of the design's section "Which write wins".

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    dag::{Place, Vector},
    id::Identity,
    kv::Version,
};

/// What one revocation lets stand.
#[derive(Debug, Clone, Default)]
struct Cut {
    seen: Vector,
    /// Of the only epoch that carries the revocation: events before this one survive as well.
    own: Option<(Place, u16)>,
}

impl Cut {
    fn contains(&self, place: Place, event: u16) -> bool {
        self.seen.contains(place) || self.own.is_some_and(|(at, index)| at == place && event < index)
    }
}

/// An epoch that carries a revocation.
#[derive(Debug, Clone)]
pub(super) struct Carrier {
    pub(super) place: Place,
    pub(super) event: u16,
    pub(super) past: Vector,
    /// The identities of what the epoch itself stands on.
    pub(super) host: BTreeSet<Identity>,
}

/// A revocation that counts.
#[derive(Debug, Clone)]
pub(super) struct Revocation {
    /// The delegation it ends.
    pub(super) target: Identity,
    /// What it rests on.
    pub(super) rests_on: BTreeSet<Identity>,
    /// What it names in `after`, with its Past.
    pub(super) after: Option<Vector>,
    pub(super) carriers: Vec<Carrier>,
}

/// The revocations of a space and what each lets stand.
#[derive(Debug, Clone, Default)]
pub(super) struct Cuts {
    revocations: BTreeMap<Identity, Revocation>,
    by_target: BTreeMap<Identity, Vec<Cut>>,
}

impl Cuts {
    /// Takes in one epoch's copy of a revocation and computes all cuts anew.
    pub(super) fn add(&mut self, revocation: Identity, first: Revocation) {
        match self.revocations.get_mut(&revocation) {
            Some(known) => known.carriers.extend(first.carriers),
            None => drop(self.revocations.insert(revocation, first)),
        }
        let mut known = BTreeMap::new();
        self.by_target.clear();
        for (id, revocation) in &self.revocations {
            let cut = self.cut(*id, &mut known);
            self.by_target.entry(revocation.target).or_default().push(cut);
        }
    }

    /// Whether there is no revocation, so that nothing is void.
    pub(super) fn is_empty(&self) -> bool {
        self.revocations.is_empty()
    }

    /// Whether an operation with this chain in this epoch is cut off.
    pub(super) fn voids(&self, chain: &BTreeSet<Identity>, place: Place, version: &Version) -> bool {
        let cuts = chain.iter().filter_map(|member| self.by_target.get(member)).flatten();
        cuts.into_iter().any(|cut| !cut.contains(place, version.event()))
    }

    /// Rules 6 and 7. Each step looks at revocations that rest on strictly less, so it ends.
    fn cut(&self, id: Identity, known: &mut BTreeMap<Identity, Cut>) -> Cut {
        if let Some(cut) = known.get(&id) {
            return cut.clone();
        }
        let revocation = &self.revocations[&id];
        let cut = match &revocation.after {
            Some(after) => {
                Cut { seen: self.widened(id, after, &revocation.rests_on, &revocation.carriers, known), own: None }
            }
            None => self.carried(id, revocation, known),
        };
        known.insert(id, cut.clone());
        cut
    }

    /// Without `after`: the Past of every epoch that carries it, each widened before they are intersected.
    fn carried(&self, id: Identity, revocation: &Revocation, known: &mut BTreeMap<Identity, Cut>) -> Cut {
        let mut seen: Option<Vector> = None;
        for carrier in &revocation.carriers {
            let rests_on = revocation.rests_on.union(&carrier.host).copied().collect();
            let past = self.widened(id, &carrier.past, &rests_on, std::slice::from_ref(carrier), known);
            seen = Some(seen.map_or_else(|| past.clone(), |seen| seen.meet(&past)));
        }
        let own = match revocation.carriers.as_slice() {
            [only] => Some((only.place, only.event)),
            _ => None,
        };
        Cut { seen: seen.unwrap_or_default(), own }
    }

    /// What `seen` becomes when the signer had itself been revoked before: the revoked may end what stands beneath
    /// them, never erase what was there.
    fn widened(
        &self,
        id: Identity,
        seen: &Vector,
        rests_on: &BTreeSet<Identity>,
        carriers: &[Carrier],
        known: &mut BTreeMap<Identity, Cut>,
    ) -> Vector {
        let mut seen = seen.clone();
        for (nearer, judge) in &self.revocations {
            let rests_on_less = judge.rests_on.is_subset(rests_on) && judge.rests_on.len() < rests_on.len();
            if *nearer == id || !rests_on.contains(&judge.target) || !rests_on_less {
                continue;
            }
            let cut = self.cut(*nearer, known);
            if !carriers.iter().any(|carrier| cut.contains(carrier.place, carrier.event)) {
                seen.join(&cut.seen);
            }
        }
        seen
    }
}
