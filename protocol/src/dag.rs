//! The epoch DAG of one space as this replica holds it: branches, vectors and heads.
//!
//! A *branch* is the linear run of one host's epochs in one incarnation; a forked chain is two branches. Branch numbers
//! are this replica's own and are never sent. What an epoch's Past reaches is a prefix of each branch, so a set of epochs
//! closed under Past is one [`Vector`], and "is an ancestor" is one comparison.
//!
//! Each start of each host begins a branch, and the first epoch of a branch has nearly all of the space in its Past. So a
//! branch keeps only what goes beyond one *base*, an epoch that its first one names. Bases form trees; on the way down such a
//! tree every so often a branch remembers all that its base reaches, which bounds how far a question is handed on.

use std::{
    cell::{Cell, OnceCell},
    collections::{BTreeMap, BTreeSet},
};

use crate::{
    id::{EpochId, HostKey, Incarnation},
    space::NewEpoch,
};

/// Bases that a question is handed on to before a branch remembers what its base reaches. A chain of B branches remembers
/// B / 32 vectors of at most B numbers: 10,000 restarts take 1.6 million.
const WAY_MAX: usize = 64;

/// Looks at what an epoch names before its Past is computed as a whole.
const LOOKS_MAX: u64 = 64;

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

/// The Past of an epoch, by what the epoch names itself. Whoever asks much of it has it computed as a whole, once.
#[derive(Debug, Clone)]
pub struct Past {
    roots: Vec<Place>,
    whole: OnceCell<Vector>,
    /// What answering has cost so far.
    looks: Cell<u64>,
}

impl Past {
    fn looked(&self, times: usize) {
        self.looks.set(self.looks.get().saturating_add(times as u64));
    }

    /// What answering has cost so far.
    #[cfg(test)]
    pub(crate) fn looks(&self) -> u64 {
        self.looks.get()
    }
}

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
    /// An epoch that the first one names and whose whole Past is therefore in each one's; on a branch of a lower number.
    pub base: Option<Place>,
    /// Of each other branch, ascending by n: from this branch's epoch n on, Past reaches up to m there. Only what goes
    /// beyond the base.
    pub learned: BTreeMap<u32, Vec<(u64, u64)>>,
}

impl Branch {
    /// A branch of one epoch, before it learns anything.
    pub(crate) fn begin(
        host: HostKey,
        incarnation: Incarnation,
        first: (EpochId, u64, u64),
        base: Option<Place>,
    ) -> Self {
        let (tip, n, tip_seq) = first;
        let learned = BTreeMap::new();
        Self { host, incarnation, first_n: n, tip, tip_n: n, tip_seq, is_head: true, base, learned }
    }

    /// Makes an epoch its last one.
    pub(crate) fn extend(&mut self, id: EpochId, seq: u64, inserted: &Inserted) {
        let n = inserted.place.n;
        (self.tip, self.tip_n, self.tip_seq, self.is_head) = (id, n, seq, true);
        for learned in &inserted.learned {
            self.learned.entry(learned.branch).or_default().push((n, learned.n));
        }
    }
}

/// What an epoch `n` has learnt of another branch, and at which epoch.
fn learned_by(steps: &[(u64, u64)], n: u64) -> Option<(u64, u64)> {
    let known = steps.partition_point(|(at_n, _)| *at_n <= n);
    known.checked_sub(1).and_then(|last| steps.get(last)).copied()
}

/// What taking an epoch in changed in the DAG.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inserted {
    /// Where it stands.
    pub place: Place,
    /// The base of the branch that begins with it, if one does.
    pub base: Option<Place>,
    /// How far its Past reaches in other branches, where that is further than its branch or base reached before.
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

impl Link<'_> {
    /// The branch that begins with it, before it learns anything.
    fn begins(&self, base: Option<Place>) -> Branch {
        let Self { id, host, incarnation, n, seq, .. } = *self;
        Branch::begin(host, incarnation, (id, n, seq), base)
    }
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
    /// Of some branches, by number, all that their base reaches.
    remembered: Vec<Option<Vector>>,
    chains: BTreeSet<(HostKey, Incarnation)>,
    heads: BTreeMap<EpochId, Head>,
    forks: Vec<Fork>,
    epochs: u64,
}

impl Dag {
    /// The DAG of these branches, by number.
    #[must_use]
    pub fn of(branches: Vec<Branch>) -> Self {
        let mut dag = Self::default();
        for branch in branches {
            dag.epochs += branch.tip_n - branch.first_n + 1;
            let Branch { tip, tip_n, tip_seq, is_head, .. } = branch;
            let number = dag.begin(branch);
            if is_head {
                let place = Place { branch: number, n: tip_n };
                dag.heads.insert(tip, Head { place, seq: tip_seq });
            }
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
        self.gather(&mut vector, place);
        vector
    }

    /// Adds the epoch at `place` and its Past to a set closed under Past. The cost is what is new in the set.
    pub fn gather(&self, set: &mut Vector, place: Place) {
        self.gather_beyond(None, set, place);
    }

    /// What an epoch with this prev and these parents has in its Past.
    #[must_use]
    pub fn past(prev: Option<Place>, parents: &[Place]) -> Past {
        let roots = prev.iter().chain(parents).copied().collect();
        Past { roots, whole: OnceCell::new(), looks: Cell::new(0) }
    }

    /// Whether the epoch at `place` is in this Past. The first few times this is a look at each thing the epoch names.
    #[must_use]
    pub fn is_past(&self, past: &Past, place: Place) -> bool {
        if past.looks.get() >= LOOKS_MAX {
            past.looked(1);
            return self.whole(past).contains(place);
        }
        past.looked(past.roots.len());
        past.roots.iter().any(|root| self.reaches(*root, place))
    }

    /// The whole of a Past.
    #[must_use]
    pub fn vector(&self, past: &Past) -> Vector {
        self.whole(past).clone()
    }

    fn whole<'a>(&self, past: &'a Past) -> &'a Vector {
        past.whole.get_or_init(|| {
            let mut vector = Vector::default();
            past.roots.iter().for_each(|root| self.gather(&mut vector, *root));
            vector
        })
    }

    /// Takes an epoch in whose prev and parents are held.
    pub fn insert(&mut self, link: &Link<'_>) -> Inserted {
        let at_tip = |place: &Place| self.branches.get(place.branch as usize).is_some_and(|b| b.tip_n == place.n);
        let goes_on = link.prev.filter(at_tip);
        let roots: Vec<Place> = link.prev.iter().chain(link.parents).copied().collect();
        let base = if goes_on.is_some() { None } else { self.largest(&roots) };
        let mut beyond = Vector::default();
        roots.iter().for_each(|root| self.gather_beyond(goes_on.or(base), &mut beyond, *root));
        let branch = goes_on.map_or_else(|| self.begin(link.begins(base)), |prev| prev.branch);
        let inserted = Inserted {
            place: Place { branch, n: link.n },
            base,
            learned: beyond.iter().collect(),
            ended: roots.iter().filter_map(|root| self.end(*root)).filter(|ended| *ended != branch).collect(),
        };
        self.extend(link.id, link.seq, &inserted);
        inserted
    }

    /// Takes in again what [`Dag::insert`] did in another DAG of the same epochs; one that is held changes nothing. The cost
    /// is what the epoch changes, however many branches there are.
    pub fn replay(&mut self, new: &NewEpoch) {
        let place = new.inserted.place;
        match self.branches.get(place.branch as usize) {
            Some(run) if place.n <= run.tip_n => return,
            Some(run) => drop(self.end(Place { branch: place.branch, n: run.tip_n })),
            None => drop(self.begin(new.begins())),
        }
        for ended in &new.inserted.ended {
            if let Some(run) = self.branches.get(*ended as usize) {
                self.end(Place { branch: *ended, n: run.tip_n });
            }
        }
        self.extend(new.id, new.seq, &new.inserted);
    }

    /// Adds a branch that is yet to learn anything, or one as it is kept.
    fn begin(&mut self, branch: Branch) -> u32 {
        let (host, incarnation) = (branch.host, branch.incarnation);
        if !self.chains.insert((host, incarnation)) {
            self.forks.push(Fork { host, incarnation, n: branch.first_n });
        }
        let number = u32::try_from(self.branches.len()).expect("memory ends before 2^32 branches");
        self.branches.push(branch);
        self.remembered.push(None);
        self.shorten(number);
        number
    }

    /// Lets a branch half way up remember when the way from this one has become too long. That shortens the way for all
    /// beneath it, so of the branches that do, each has half a way of others to itself.
    fn shorten(&mut self, number: u32) {
        let (mut at, mut middle) = (number, number);
        for step in 1..=WAY_MAX {
            let Some(base) = self.asked_next(at) else { return };
            at = base.branch;
            if step == WAY_MAX / 2 {
                middle = at;
            }
        }
        self.remembered[middle as usize] = self.branches[middle as usize].base.map(|base| self.reach(base));
    }

    /// Whom a question is handed on to that this branch cannot answer.
    fn asked_next(&self, branch: u32) -> Option<Place> {
        let is_open = self.remembered.get(branch as usize).is_some_and(Option::is_none);
        self.branches.get(branch as usize).filter(|_| is_open)?.base
    }

    /// Which of an epoch's prev and parents reaches the most branches.
    fn largest(&self, roots: &[Place]) -> Option<Place> {
        match roots {
            [] => None,
            [only] => Some(*only),
            roots => roots.iter().copied().max_by_key(|root| self.reach(*root).0.len()),
        }
    }

    /// Adds to `set` what `root` reaches and `base` does not. Both together are closed under Past, before and after.
    fn gather_beyond(&self, base: Option<Place>, set: &mut Vector, root: Place) {
        let known = |set: &Vector, branch| set.last(branch).max(base.and_then(|base| self.reached(base, branch)));
        // First the way, then what is found on it: a set that is only half done says nothing about the rest.
        let mut way = Vec::new();
        let mut next = Some(root);
        while let Some(place) = next {
            let known = known(set, place.branch);
            if known >= Some(place.n) {
                break;
            }
            let run = self.branches.get(place.branch as usize);
            // Of a branch that is known in part, the base is known.
            next = run.and_then(|run| run.base).filter(|_| known.is_none());
            way.extend(run.map(|run| (place, run, known)));
        }
        for (place, run, from) in way {
            set.reach(place);
            for (&branch, steps) in &run.learned {
                let learned = learned_by(steps, place.n).filter(|(at_n, _)| Some(*at_n) > from);
                if let Some((_, n)) = learned.filter(|(_, n)| Some(*n) > known(set, branch)) {
                    set.reach(Place { branch, n });
                }
            }
        }
    }

    /// Whether the epoch at `place` is `root` or in its Past.
    fn reaches(&self, root: Place, place: Place) -> bool {
        self.reached(root, place.branch) >= Some(place.n)
    }

    /// How far `root` reaches in a branch.
    fn reached(&self, root: Place, branch: u32) -> Option<u64> {
        let mut at = root;
        // What lies nearer goes further.
        while at.branch != branch {
            let run = self.branches.get(at.branch as usize)?;
            if let Some((_, n)) = run.learned.get(&branch).and_then(|steps| learned_by(steps, at.n)) {
                return Some(n);
            }
            if let Some(Some(all)) = self.remembered.get(at.branch as usize) {
                return all.last(branch);
            }
            at = run.base?;
        }
        Some(at.n)
    }

    /// Makes the epoch at `place` a head no more; the branch if it was one. A head is in no other's Past, so a new epoch
    /// has it in its own only by naming it.
    fn end(&mut self, place: Place) -> Option<u32> {
        let run = self.branches.get_mut(place.branch as usize).filter(|run| run.is_head && run.tip_n == place.n)?;
        run.is_head = false;
        self.heads.remove(&run.tip);
        Some(place.branch)
    }

    /// Makes an epoch the last of its branch.
    fn extend(&mut self, id: EpochId, seq: u64, inserted: &Inserted) {
        let place = inserted.place;
        if let Some(run) = self.branches.get_mut(place.branch as usize) {
            run.extend(id, seq, inserted);
            self.heads.insert(id, Head { place, seq });
        }
        self.epochs += 1;
    }
}

#[cfg(test)]
mod tests;
