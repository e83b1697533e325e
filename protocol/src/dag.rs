//! The epoch DAG of one space as this replica holds it: branches, vectors and heads.
//!
//! A *branch* is the linear run of one host's epochs in one incarnation; a forked chain is two branches. Branch numbers
//! are this replica's own and are never sent. What an epoch's Past reaches is a prefix of each branch, so a set of epochs
//! closed under Past is one [`Vector`], and "is an ancestor" is one comparison.

use std::collections::BTreeMap;

use crate::{
    id::{EpochId, HostKey, Incarnation},
    space::NewEpoch,
};

/// Where an epoch stands: its branch and its number on its chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The branch, numbered by this replica.
    pub branch: u32,
    /// The epoch's `n`.
    pub n: u64,
}

/// A set of epochs closed under Past: of each branch the greatest `n` in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Vector(BTreeMap<u32, u64>);

impl Vector {
    /// Whether the epoch at `place` is in the set.
    #[must_use]
    pub fn contains(&self, place: Place) -> bool {
        self.0.get(&place.branch).is_some_and(|n| place.n <= *n)
    }

    /// The greatest `n` of a branch that is in the set.
    #[must_use]
    pub fn last(&self, branch: u32) -> Option<u64> {
        self.0.get(&branch).copied()
    }

    /// Adds the epoch at `place` and what its branch holds before it.
    pub fn reach(&mut self, place: Place) {
        let n = self.0.entry(place.branch).or_insert(place.n);
        *n = (*n).max(place.n);
    }

    /// Union.
    pub fn join(&mut self, other: &Self) {
        for (&branch, &n) in &other.0 {
            self.reach(Place { branch, n });
        }
    }

    /// Intersection.
    #[must_use]
    pub fn meet(&self, other: &Self) -> Self {
        let common = |(branch, n): (&u32, &u64)| other.0.get(branch).map(|m| (*branch, *n.min(m)));
        Self(self.0.iter().filter_map(common).collect())
    }

    fn iter(&self) -> impl Iterator<Item = Place> {
        self.0.iter().map(|(&branch, &n)| Place { branch, n })
    }
}

/// The Past of an epoch, by what the epoch names itself.
#[derive(Debug, Clone)]
pub struct Past(Vec<Place>);

/// The linear run of one host's epochs in one incarnation. All that an index keeps of the DAG beside its epochs' places:
/// [`Dag::of`] makes the DAG from it again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Branch {
    /// The host.
    pub host: HostKey,
    /// Its incarnation.
    pub incarnation: Incarnation,
    /// The number of the first epoch: 0, or where the chain forked.
    pub first_n: u64,
    /// The last epoch.
    pub tip: EpochId,
    /// Its number.
    pub tip_n: u64,
    /// Its clock.
    pub tip_seq: u64,
    /// Whether it is in no other's Past.
    pub is_head: bool,
    /// Of each other branch, ascending by n: from this branch's epoch n on, Past reaches up to m there.
    pub learned: BTreeMap<u32, Vec<(u64, u64)>>,
}

/// What taking an epoch in changed in the DAG.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inserted {
    /// Where it stands.
    pub place: Place,
    /// How far its Past reaches in other branches, where that is further than its branch reached before.
    pub learned: Vec<Place>,
    /// Other branches whose last epoch is a head no more.
    pub ended: Vec<u32>,
}

/// What a header says of an epoch's place.
#[derive(Debug, Clone, Copy)]
pub struct Link<'a> {
    /// The epoch.
    pub id: EpochId,
    /// Its host.
    pub host: HostKey,
    /// Its host's incarnation.
    pub incarnation: Incarnation,
    /// Its number.
    pub n: u64,
    /// Its clock.
    pub seq: u64,
    /// Where `prev` stands, `None` exactly for a chain's first epoch.
    pub prev: Option<Place>,
    /// Where the parents stand.
    pub parents: &'a [Place],
}

/// An epoch in no other's Past.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Where it stands.
    pub place: Place,
    /// Its clock.
    pub seq: u64,
}

/// A fork: two epochs of one host with the same incarnation and number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fork {
    /// The host that signed both.
    pub host: HostKey,
    /// Its incarnation.
    pub incarnation: Incarnation,
    /// The number both epochs carry.
    pub n: u64,
}

/// The DAG: every epoch is held with its whole Past.
#[derive(Debug, Clone, Default)]
pub struct Dag {
    branches: Vec<Branch>,
    heads: BTreeMap<EpochId, Head>,
    forks: Vec<Fork>,
    epochs: u64,
}

impl Dag {
    /// The DAG of these branches, by number.
    #[must_use]
    pub fn of(branches: Vec<Branch>) -> Self {
        let mut dag = Self::default();
        for (branch, number) in branches.into_iter().zip(0..) {
            dag.note_fork(branch.host, branch.incarnation, branch.first_n);
            dag.epochs += branch.tip_n - branch.first_n + 1;
            if branch.is_head {
                let place = Place { branch: number, n: branch.tip_n };
                dag.heads.insert(branch.tip, Head { place, seq: branch.tip_seq });
            }
            dag.branches.push(branch);
        }
        dag
    }

    /// The branches, by number.
    #[must_use]
    pub fn branches(&self) -> &[Branch] {
        &self.branches
    }

    /// The ids of the heads, ascending: the frontier.
    pub fn frontier(&self) -> impl ExactSizeIterator<Item = EpochId> {
        self.heads.keys().copied()
    }

    /// The heads with their places and clocks.
    #[must_use]
    pub fn heads(&self) -> &BTreeMap<EpochId, Head> {
        &self.heads
    }

    /// Chains seen to fork, in the order they were seen.
    #[must_use]
    pub fn forks(&self) -> &[Fork] {
        &self.forks
    }

    /// How many epochs there are.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.epochs
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.epochs == 0
    }

    /// The host whose epoch stands at `place`, with its incarnation.
    #[must_use]
    pub fn chain(&self, place: Place) -> Option<(HostKey, Incarnation)> {
        self.branches.get(place.branch as usize).map(|branch| (branch.host, branch.incarnation))
    }

    /// The epoch at `place` and its Past.
    #[must_use]
    pub fn reach(&self, place: Place) -> Vector {
        let mut vector = Vector::default();
        if let Some(branch) = self.branches.get(place.branch as usize) {
            for &other in branch.learned.keys() {
                if let Some(n) = self.learned(place, other) {
                    vector.reach(Place { branch: other, n });
                }
            }
            vector.reach(place);
        }
        vector
    }

    /// What an epoch with this prev and these parents has in its Past.
    #[must_use]
    pub fn past(prev: Option<Place>, parents: &[Place]) -> Past {
        Past(prev.iter().chain(parents).copied().collect())
    }

    /// Whether the epoch at `place` is in this Past: a look at each thing the epoch names, not at each branch.
    #[must_use]
    pub fn is_past(&self, past: &Past, place: Place) -> bool {
        past.0.iter().any(|root| {
            let reached = if root.branch == place.branch { Some(root.n) } else { self.learned(*root, place.branch) };
            reached.is_some_and(|n| place.n <= n)
        })
    }

    /// The whole of a Past.
    #[must_use]
    pub fn vector(&self, past: &Past) -> Vector {
        let mut vector = Vector::default();
        past.0.iter().for_each(|root| vector.join(&self.reach(*root)));
        vector
    }

    /// Takes an epoch in whose prev and parents are held.
    pub fn insert(&mut self, link: &Link<'_>) -> Inserted {
        let at_tip = |place: &Place| self.branches.get(place.branch as usize).is_some_and(|b| b.tip_n == place.n);
        let goes_on = link.prev.filter(at_tip);
        let branch = goes_on.map_or_else(|| self.open(link), |prev| prev.branch);
        let place = Place { branch, n: link.n };
        let run = &mut self.branches[branch as usize];
        let replaced = std::mem::replace(&mut run.tip, link.id);
        (run.tip_n, run.tip_seq, run.is_head) = (link.n, link.seq, true);
        let mut inserted = Inserted { place, learned: Vec::new(), ended: Vec::new() };
        if goes_on.is_some() {
            self.heads.remove(&replaced);
        }
        // The usual epoch learns nothing from another chain.
        if goes_on.is_none() || !link.parents.is_empty() {
            self.learn(&mut inserted, &self.vector(&Self::past(link.prev, link.parents)));
        }
        self.heads.insert(link.id, Head { place, seq: link.seq });
        self.epochs += 1;
        inserted
    }

    /// Takes in again what [`Dag::insert`] did in another DAG of the same epochs; one that is held changes nothing. The cost
    /// is what the epoch changes, however many branches there are.
    pub fn replay(&mut self, new: &NewEpoch) {
        let place = new.inserted.place;
        let number = place.branch as usize;
        match self.branches.get_mut(number) {
            Some(run) if place.n <= run.tip_n => return,
            Some(run) => drop(self.heads.remove(&run.tip)),
            None => {
                self.note_fork(new.host, new.incarnation, place.n);
                self.branches.push(new.begins());
            }
        }
        for ended in &new.inserted.ended {
            if let Some(run) = self.branches.get_mut(*ended as usize) {
                run.is_head = false;
                self.heads.remove(&run.tip);
            }
        }
        if let Some(run) = self.branches.get_mut(number) {
            new.extends(run);
            self.heads.insert(new.id, Head { place, seq: new.seq });
        }
        self.epochs += 1;
    }

    /// Notes what a new epoch learnt from other chains, and which heads are heads no more.
    fn learn(&mut self, inserted: &mut Inserted, past: &Vector) {
        let place = inserted.place;
        let known = self.reach(place);
        let run = &mut self.branches[place.branch as usize];
        for other in past.iter().filter(|other| other.branch != place.branch && !known.contains(*other)) {
            run.learned.entry(other.branch).or_default().push((place.n, other.n));
            inserted.learned.push(other);
        }
        let ended = self.heads.extract_if(.., |_, head| past.contains(head.place)).map(|(_, head)| head.place.branch);
        inserted.ended.extend(ended);
        for branch in &inserted.ended {
            self.branches[*branch as usize].is_head = false;
        }
    }

    /// How far the epoch at `place` reaches in another branch.
    fn learned(&self, place: Place, other: u32) -> Option<u64> {
        let steps = self.branches.get(place.branch as usize)?.learned.get(&other)?;
        let known = steps.partition_point(|(n, _)| *n <= place.n);
        known.checked_sub(1).and_then(|last| steps.get(last)).map(|(_, m)| *m)
    }

    fn open(&mut self, link: &Link<'_>) -> u32 {
        self.note_fork(link.host, link.incarnation, link.n);
        let number = u32::try_from(self.branches.len()).expect("memory ends before 2^32 branches");
        self.branches.push(Branch {
            host: link.host,
            incarnation: link.incarnation,
            first_n: link.n,
            tip: link.id,
            tip_n: link.n,
            tip_seq: link.seq,
            is_head: true,
            learned: BTreeMap::new(),
        });
        number
    }

    fn note_fork(&mut self, host: HostKey, incarnation: Incarnation, n: u64) {
        if self.branches.iter().any(|known| known.host == host && known.incarnation == incarnation) {
            self.forks.push(Fork { host, incarnation, n });
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*, sample::Index};

    use super::*;

    fn link(id: u8, host: u8, n: u64, prev: Option<Place>, parents: &[Place]) -> Link<'_> {
        let incarnation = Incarnation([0; 8]);
        Link { id: EpochId([id; 32]), host: HostKey([host; 32]), incarnation, n, seq: n, prev, parents }
    }

    #[test]
    fn an_ancestor_is_told_from_a_concurrent_epoch() {
        let mut dag = Dag::default();
        let a0 = dag.insert(&link(1, 1, 0, None, &[])).place;
        let b0 = dag.insert(&link(2, 2, 0, None, &[])).place;
        let a1 = dag.insert(&link(3, 1, 1, Some(a0), &[])).place;
        assert!(!dag.reach(a1).contains(b0));
        let b1 = dag.insert(&link(4, 2, 1, Some(b0), &[a0])).place;
        assert!(dag.reach(b1).contains(a0) && !dag.reach(b1).contains(a1) && !dag.reach(b0).contains(a0));
        assert_eq!(dag.frontier().collect::<Vec<_>>(), [EpochId([3; 32]), EpochId([4; 32])]);
    }

    #[test]
    fn a_forked_chain_is_two_branches_and_both_stay_heads() {
        let mut dag = Dag::default();
        let a0 = dag.insert(&link(1, 1, 0, None, &[])).place;
        let b0 = dag.insert(&link(9, 2, 0, None, &[])).place;
        let a1 = dag.insert(&link(2, 1, 1, Some(a0), &[b0])).place;
        let twin = dag.insert(&link(3, 1, 1, Some(a0), &[])).place;
        assert_ne!(a1.branch, twin.branch);
        assert_eq!(dag.forks().len(), 1);
        assert_eq!(dag.heads().len(), 2);
        assert!(dag.reach(twin).contains(a0) && !dag.reach(twin).contains(a1) && !dag.reach(twin).contains(b0));
        let on = dag.insert(&link(4, 1, 2, Some(twin), &[a1])).place;
        assert_eq!(on.branch, twin.branch);
        assert!(dag.reach(on).contains(a1) && dag.reach(on).contains(b0));
        assert_eq!(dag.heads().len(), 1);
        let again = Dag::of(dag.branches().to_vec());
        assert_eq!((again.heads(), again.forks(), again.len()), (dag.heads(), dag.forks(), 5));
        assert_eq!(again.reach(on), dag.reach(on));
    }

    /// What insertion says of an epoch, as an index gets it.
    fn told(link: &Link<'_>, inserted: Inserted) -> NewEpoch {
        let Link { id, host, incarnation, seq, .. } = *link;
        NewEpoch { id, seq, inserted, host, incarnation, revokes: false }
    }

    proptest! {
        /// Each step: the host, which of the epochs so far is before it (none, the host's last, or any of its own: a fork),
        /// and which are its parents.
        #[test]
        fn a_replayed_dag_is_the_one_that_was_inserted_into(
            steps in vec((0..4u8, 0..8usize, vec(any::<Index>(), 0..3), any::<Index>()), 1..60)
        ) {
            let (mut dag, mut again) = (Dag::default(), Dag::default());
            let mut all: Vec<(u8, Place)> = Vec::new();
            for (number, (host, how, parents, pick)) in (1u8..).zip(steps) {
                let own: Vec<Place> = all.iter().filter(|(by, _)| *by == host).map(|(_, place)| *place).collect();
                let prev = match how {
                    0 => None,
                    1 | 2 => (!own.is_empty()).then(|| own[pick.index(own.len())]),
                    _ => own.last().copied(),
                };
                let parents: Vec<Place> = parents.iter().filter(|_| !all.is_empty()).map(|parent| all[parent.index(all.len())].1).collect();
                let n = prev.map_or(0, |prev| prev.n + 1);
                let link = Link { seq: number.into(), ..link(number, host, n, prev, &parents) };
                let inserted = dag.insert(&link);
                all.push((host, inserted.place));
                let new = told(&link, inserted);
                again.replay(&new);
                // Twice is as once.
                again.replay(&new);
                prop_assert_eq!(again.branches(), dag.branches());
                prop_assert_eq!(again.heads(), dag.heads());
                prop_assert_eq!(again.forks(), dag.forks());
                prop_assert_eq!(again.len(), dag.len());
            }
        }
    }
}
