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
    /// That, by the spelling which the revocation names.
    pub(super) target_address: Address,
    /// What it rests on, whichever epoch carries it.
    pub(super) rests_on: BTreeSet<Identity>,
    /// What it names in `after`, with its Past.
    pub(super) after: Option<Vector>,
    /// Those that say anything.
    pub(super) carriers: Vec<Carrier>,
    /// Whether more than one epoch carries it.
    pub(super) is_repeated: bool,
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
    /// True when that may change what it lets stand.
    ///
    /// With `after` only the first epochs matter: the question is whether any lies in a set closed under Past. Without it
    /// an epoch adds nothing that has another one in its Past and stands on all that this one stands on: it has seen as much,
    /// and whoever widens what the other had seen widens what it had seen.
    fn carried_by(&mut self, carrier: Carrier) -> bool {
        let is_after = self.after.is_some();
        if self.carriers.iter().any(|known| known.place == carrier.place) {
            return false;
        }
        let covers =
            |known: &Carrier| carrier.past.contains(known.place) && (is_after || known.host.is_subset(&carrier.host));
        let was_repeated = std::mem::replace(&mut self.is_repeated, true);
        if self.carriers.iter().any(covers) {
            return !was_repeated && !is_after;
        }
        self.carriers.push(carrier);
        true
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
    /// Takes in one epoch's copy of a revocation; when that is true, `settle` has to follow.
    pub(super) fn add(&mut self, id: Identity, first: Revocation) -> bool {
        self.targets.entry(first.target).or_default().insert(id);
        match self.revocations.get_mut(&id) {
            Some(known) => {
                let mut is_changed = false;
                for carrier in first.carriers {
                    is_changed |= known.carried_by(carrier);
                }
                is_changed
            }
            None => self.revocations.insert(id, first).is_none(),
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
    ) -> Option<(Address, Address, Rule)> {
        let mut revocations = chain.iter().filter_map(|member| self.targets.get(member)).flatten();
        revocations.find_map(|id| {
            let (cut, revocation) = (self.cuts.get(id)?, self.revocations.get(id)?);
            let rule = || if cut.seen == revocation.seen() { Rule::Cut } else { Rule::Widened };
            (!cut.contains(place, version.event())).then(|| (revocation.target_address, revocation.address, rule()))
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
            [only] if !revocation.is_repeated => Some((only.place, only.event)),
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

#[cfg(test)]
mod tests {
    use super::*;

    const ID: Identity = Identity([1; 32]);

    /// A revocation without `after`, carried by the epoch at this place on top of its branch and of what `seen` names.
    fn carried(branch: u32, n: u64, seen: &[(u32, u64)], host: u8) -> Revocation {
        let mut past = Vector::default();
        let below = n.checked_sub(1).map(|below| (branch, below));
        below.iter().chain(seen).for_each(|(branch, n)| past.reach(Place { branch: *branch, n: *n }));
        let carrier = Carrier { place: Place { branch, n }, event: 3, past, host: [Identity([host; 32])].into() };
        Revocation {
            address: Address::of(b"revocation"),
            target: Identity([2; 32]),
            target_address: Address::of(b"target"),
            rests_on: BTreeSet::new(),
            after: None,
            carriers: vec![carrier],
            is_repeated: false,
        }
    }

    #[test]
    fn an_epoch_that_repeats_a_revocation_on_top_of_another_changes_nothing() {
        let mut cuts = Cuts::default();
        assert!(cuts.add(ID, carried(0, 5, &[], 7)));
        cuts.settle();
        let own = |cuts: &Cuts| cuts.cuts[&ID].contains(Place { branch: 0, n: 5 }, 1);
        assert!(own(&cuts), "earlier events of the only epoch survive");
        assert!(cuts.add(ID, carried(0, 6, &[], 7)), "it is not the only one any more");
        cuts.settle();
        assert!(!own(&cuts));
        assert!((7..1000).all(|n| !cuts.add(ID, carried(0, n, &[], 7))));
        assert!(!cuts.add(ID, carried(1, 0, &[(0, 9)], 7)), "on another chain of the same host");
        assert_eq!(cuts.revocations[&ID].carriers.len(), 1);
        assert!(cuts.add(ID, carried(1, 1, &[(0, 9)], 8)), "what another host stands on may be widened otherwise");
        assert!(cuts.add(ID, carried(2, 0, &[], 7)), "it has not seen the first");
        assert_eq!(cuts.revocations[&ID].carriers.len(), 3);
    }
}
