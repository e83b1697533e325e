//! Which writes a revocation lets stand.
//!
//! A cut is what the revoker had seen: a set of epochs closed under Past. An operation that rests on the revoked delegation
//! is void unless its epoch lies in it. The rules are numbers 5 to 7 of the design's section "Which write wins".

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    dag::{Place, Vector},
    id::{Address, Identity},
    kv::Version,
};

/// What one revocation lets stand.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
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

/// Which rule of the design's section "Which write wins" gave a cut its size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// Rule 6: what the revocation names in `after`, or else what those had seen who carry it.
    Cut,
    /// Rule 7: that, widened because its signer had been revoked before.
    Widened,
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
    /// The token, by one of its spellings.
    pub(super) address: Address,
    /// The delegation it ends.
    pub(super) target: Identity,
    /// What it rests on, whichever epoch carries it.
    pub(super) rests_on: BTreeSet<Identity>,
    /// What it names in `after`, with its Past.
    pub(super) after: Option<Vector>,
    pub(super) carriers: Vec<Carrier>,
}

/// The revocations of a space and what each lets stand.
#[derive(Debug, Clone, Default)]
pub(super) struct Cuts {
    revocations: BTreeMap<Identity, Revocation>,
    /// The revocations of each delegation.
    targets: BTreeMap<Identity, BTreeSet<Identity>>,
    cuts: BTreeMap<Identity, Cut>,
}

impl Revocation {
    /// Adds an epoch that carries it, by its first copy there; epochs come ancestors first.
    ///
    /// With `after` only the first epochs matter: the question is whether any lies in a set closed under Past.
    fn carried_by(&mut self, carrier: Carrier) {
        let covers = |known: &Carrier| {
            known.place == carrier.place || (self.after.is_some() && carrier.past.contains(known.place))
        };
        if !self.carriers.iter().any(covers) {
            self.carriers.push(carrier);
        }
    }

    /// What it lets stand as long as nobody widens it.
    fn seen(&self) -> Vector {
        let pasts = || self.carriers.iter().map(|carrier| carrier.past.clone()).reduce(|seen, past| seen.meet(&past));
        self.after.clone().or_else(pasts).unwrap_or_default()
    }

    /// Whether this one may widen what `other` lets stand, carried by an epoch with which it rests on `rests_on`.
    ///
    /// It rests on strictly less. Compared is what the tokens themselves rest on; what the carrying epoch adds is set
    /// against a revocation with `after` only, whose own cut no carrier moves. So along a chain of such steps the
    /// tokens' part never grows, and where it stays the same the step is the last of its kind: the recursion ends.
    fn may_widen(&self, other: &Self, rests_on: &BTreeSet<Identity>) -> bool {
        let less_than = |all: &BTreeSet<Identity>| self.rests_on.len() < all.len() && self.rests_on.is_subset(all);
        let by_carrier = self.after.is_some() && self.rests_on.is_subset(&other.rests_on) && less_than(rests_on);
        less_than(&other.rests_on) || by_carrier
    }
}

impl Cuts {
    /// Takes in one epoch's copy of a revocation; `settle` has to follow.
    pub(super) fn add(&mut self, id: Identity, first: Revocation) {
        self.targets.entry(first.target).or_default().insert(id);
        match self.revocations.get_mut(&id) {
            Some(known) => first.carriers.into_iter().for_each(|carrier| known.carried_by(carrier)),
            None => drop(self.revocations.insert(id, first)),
        }
    }

    /// Computes all cuts anew; gives the delegations whose revocations let something else stand than before.
    pub(super) fn settle(&mut self) -> BTreeSet<Identity> {
        let mut cuts = BTreeMap::new();
        for id in self.revocations.keys() {
            self.cut(*id, &mut cuts);
        }
        let changed = self.revocations.iter().filter(|(id, _)| cuts.get(id) != self.cuts.get(id));
        let targets = changed.map(|(_, revocation)| revocation.target).collect();
        self.cuts = cuts;
        targets
    }

    /// Whether there is no revocation, so that nothing is void.
    pub(super) fn is_empty(&self) -> bool {
        self.revocations.is_empty()
    }

    /// Whether an operation with this chain in this epoch is cut off.
    pub(super) fn voids(&self, chain: &BTreeSet<Identity>, place: Place, version: &Version) -> bool {
        let revocations = chain.iter().filter_map(|member| self.targets.get(member)).flatten();
        let mut cuts = revocations.filter_map(|id| self.cuts.get(id));
        cuts.any(|cut| !cut.contains(place, version.event()))
    }

    /// The first revocation of this chain that cuts the operation off: what it revokes, itself, and by which rule.
    pub(super) fn why(
        &self,
        chain: &BTreeSet<Identity>,
        place: Place,
        version: &Version,
    ) -> Option<(Identity, Address, Rule)> {
        let targets = chain.iter().filter_map(|member| self.targets.get_key_value(member));
        let mut revocations = targets.flat_map(|(target, ids)| ids.iter().map(move |id| (target, id)));
        revocations.find_map(|(target, id)| {
            let (cut, revocation) = (self.cuts.get(id)?, self.revocations.get(id)?);
            let rule = || if cut.seen == revocation.seen() { Rule::Cut } else { Rule::Widened };
            (!cut.contains(place, version.event())).then(|| (*target, revocation.address, rule()))
        })
    }

    /// Rules 6 and 7.
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
        let (mut seen, revocation) = (seen.clone(), &self.revocations[&id]);
        for nearer in rests_on.iter().filter_map(|member| self.targets.get(member)).flatten() {
            if *nearer == id || !self.revocations[nearer].may_widen(revocation, rests_on) {
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
