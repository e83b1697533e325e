use proptest::{collection::vec, prelude::*, sample::Index};

use super::*;

fn id(number: u32) -> EpochId {
    let mut id = [0; 32];
    id[..4].copy_from_slice(&number.to_be_bytes());
    EpochId(id)
}

fn link(number: u32, host: u8, n: u64, prev: Option<Place>, parents: &[Place]) -> Link<'_> {
    let incarnation = Incarnation([0; 8]);
    Link { id: id(number), host: HostKey([host; 32]), incarnation, n, seq: u64::from(number), prev, parents }
}

/// The first epoch of a chain of its own.
fn root(number: u32, parents: &[Place]) -> Link<'_> {
    Link { incarnation: Incarnation(u64::from(number).to_be_bytes()), ..link(number, 1, 0, None, parents) }
}

impl Dag {
    /// What it keeps beside its branches' first and last epochs.
    fn entries(&self) -> usize {
        let learned = self.branches.iter().flat_map(|branch| branch.learned.values()).map(Vec::len);
        learned.sum::<usize>() + self.remembered.iter().flatten().map(|all| all.0.len()).sum::<usize>()
    }
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
    assert_eq!(dag.frontier().collect::<Vec<_>>(), [id(3), id(4)]);
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

#[test]
fn restarts_in_a_row_cost_little_each() {
    const ROOTS: u32 = 5_000;
    let mut dag = Dag::default();
    let mut places: Vec<Place> = Vec::new();
    let mut told = 0;
    for number in 0..ROOTS {
        let inserted = dag.insert(&root(number, places.last().map(std::slice::from_ref).unwrap_or_default()));
        told += inserted.learned.len();
        places.push(inserted.place);
    }
    assert_eq!((told, dag.heads().len(), dag.forks().len()), (0, 1, 0), "an index has nothing to keep of them");
    let again = Dag::of(dag.branches().to_vec());
    for dag in [&dag, &again] {
        assert!(dag.entries() <= 100 * ROOTS as usize, "{} entries", dag.entries());
        let last = places[places.len() - 1];
        assert!(places.iter().all(|place| dag.reaches(last, *place)));
        assert!(places[1..].iter().all(|place| !dag.reaches(places[0], *place)));
        assert_eq!(dag.reach(last).0.len(), ROOTS as usize);
    }
}

#[test]
fn many_who_build_on_the_last_of_many_restarts_cost_little_each() {
    for restarts in (WAY_MAX as u32 - 3)..(WAY_MAX as u32 + 3) {
        let mut dag = Dag::default();
        let mut last = dag.insert(&root(0, &[])).place;
        for number in 1..restarts {
            last = dag.insert(&root(number, &[last])).place;
        }
        let before = dag.entries();
        for number in 0..1_000 {
            let above = dag.insert(&root(1_000 + 2 * number, &[last])).place;
            dag.insert(&root(1_001 + 2 * number, &[above]));
        }
        assert!(dag.entries() - before <= 4 * WAY_MAX, "{restarts} restarts: {} entries", dag.entries());
    }
}

#[test]
fn a_question_is_handed_on_a_bounded_number_of_times() {
    let mut dag = Dag::default();
    let mut last: Option<Place> = None;
    for number in 0..1_000 {
        let place = dag.insert(&root(number, last.as_slice())).place;
        let way = std::iter::successors(dag.asked_next(place.branch), |base| dag.asked_next(base.branch));
        assert!(way.count() <= WAY_MAX);
        last = Some(place);
    }
}

#[test]
fn a_past_of_which_much_is_asked_is_computed_once() {
    let mut dag = Dag::default();
    let roots: Vec<Place> = (0..64).map(|number| dag.insert(&root(number, &[])).place).collect();
    let apart = dag.insert(&root(64, &[])).place;
    let past = Dag::past(None, &roots);
    let asked = 10_000;
    for number in 0..asked {
        assert!(!dag.is_past(&past, apart));
        assert!(dag.is_past(&past, roots[number % roots.len()]));
    }
    assert!(past.looks() <= 2 * (LOOKS_MAX + asked as u64), "{} looks", past.looks());
    // The usual epoch asks little, and has nothing computed.
    let past = Dag::past(Some(roots[0]), &[]);
    assert!((0..5).all(|_| dag.is_past(&past, roots[0])) && past.whole.get().is_none());
}

/// What insertion says of an epoch, as an index gets it.
fn told(link: &Link<'_>, inserted: Inserted) -> NewEpoch {
    let Link { id, host, incarnation, seq, .. } = *link;
    NewEpoch { id, seq, inserted, host, incarnation, revokes: false }
}

/// An epoch as the brute force knows it.
struct Made {
    host: u8,
    incarnation: Incarnation,
    place: Place,
    /// It and its Past, by number.
    reach: BTreeSet<usize>,
}

fn same(one: &Dag, other: &Dag) -> Result<(), TestCaseError> {
    prop_assert_eq!(one.branches(), other.branches());
    prop_assert_eq!(one.heads(), other.heads());
    prop_assert_eq!(one.forks(), other.forks());
    prop_assert_eq!(one.len(), other.len());
    prop_assert_eq!(&one.remembered, &other.remembered);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Each step: the host, how it goes on (a fork, a chain of its own, a restart on the latest epoch, or its last chain),
    /// and which are its other parents.
    #[test]
    fn a_dag_says_what_its_epochs_say_however_it_was_made(
        steps in vec((0..4u8, 0..12usize, vec(any::<Index>(), 0..3), any::<Index>()), 1..250)
    ) {
        let (mut dag, mut again) = (Dag::default(), Dag::default());
        let mut all: Vec<Made> = Vec::new();
        for (number, (host, how, others, pick)) in (0u32..).zip(steps) {
            let own: Vec<usize> = (0..all.len()).filter(|one| all[*one].host == host).collect();
            let prev = match how {
                0 | 1 => (!own.is_empty()).then(|| own[pick.index(own.len())]),
                2..=8 => None,
                _ => own.last().copied(),
            };
            let others = if how < 6 { &others[..] } else { &others[..others.len().min(1)] };
            let mut parents: Vec<usize> = others.iter().filter(|_| !all.is_empty()).map(|one| one.index(all.len())).collect();
            if (3..=8).contains(&how) {
                // Some restarts build on the latest alone.
                parents.truncate(how % 2);
                parents.extend(all.len().checked_sub(1));
            }
            let places: Vec<Place> = parents.iter().map(|parent| all[*parent].place).collect();
            let mut reach: BTreeSet<usize> = prev.iter().chain(&parents).flat_map(|one| all[*one].reach.clone()).collect();
            let (n, prev) = prev.map_or((0, None), |one| (all[one].place.n + 1, Some(&all[one])));
            let own_incarnation = Incarnation(if how == 2 { [0; 8] } else { u64::from(number).to_be_bytes() });
            let incarnation = prev.map_or(own_incarnation, |prev| prev.incarnation);
            let link = Link { incarnation, ..link(number, host, n, prev.map(|prev| prev.place), &places) };
            let inserted = dag.insert(&link);
            let place = inserted.place;
            // A Past says the same before it is computed as a whole and after.
            let past = Dag::past(link.prev, &places);
            for (one, made) in all.iter().enumerate() {
                prop_assert_eq!(dag.is_past(&past, made.place), reach.contains(&one));
            }
            let whole = dag.vector(&past);
            prop_assert!(all.iter().enumerate().all(|(one, made)| whole.contains(made.place) == reach.contains(&one)));
            reach.insert(all.len());
            all.push(Made { host, incarnation, place, reach });
            let new = told(&link, inserted);
            again.replay(&new);
            // Twice is as once.
            again.replay(&new);
        }
        same(&again, &dag)?;
        let of = Dag::of(dag.branches().to_vec());
        same(&of, &dag)?;
        let heads: BTreeSet<Place> = (0..all.len())
            .filter(|one| !all[one + 1..].iter().any(|made| made.reach.contains(one)))
            .map(|one| all[one].place)
            .collect();
        prop_assert_eq!(dag.heads().values().map(|head| head.place).collect::<BTreeSet<_>>(), heads);
        for made in &all {
            let vector = of.reach(made.place);
            for (one, other) in all.iter().enumerate() {
                prop_assert_eq!(vector.contains(other.place), made.reach.contains(&one));
                prop_assert_eq!(of.reaches(made.place, other.place), made.reach.contains(&one));
            }
        }
        // One set of several is the union of each.
        let mut set = Vector::default();
        let mut union = Vector::default();
        for made in all.iter().rev().step_by(7) {
            of.gather(&mut set, made.place);
            union.join(&of.reach(made.place));
        }
        prop_assert_eq!(set, union);
    }
}
