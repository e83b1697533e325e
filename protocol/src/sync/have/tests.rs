use std::collections::BTreeSet;

use proptest::prelude::*;

use super::{
    super::play::{HOSTS, Play, Replica, Step, id, steps},
    *,
};

/// The numbers of the epochs in these ranges.
fn sent(ranges: &[Range], replica: &Replica) -> BTreeSet<usize> {
    let branches = replica.dag.branches();
    let places = ranges.iter().flat_map(|range| {
        (range.from_n..=branches[range.branch as usize].tip_n).map(|n| Place { branch: range.branch, n })
    });
    places.map(|place| replica.log[&place].1).collect()
}

/// What the host lacks of the replica by asking as the replicator does, with this many tips at first.
fn lacks(asking: &Replica, answering: &Replica, mut tips_max: usize) -> Vec<Range> {
    loop {
        let have = Have::branches(&asking.dag, tips_max);
        match have.lacking(&answering.dag, answering).expect("the view reads") {
            Lacking::Ranges(ranges) => return ranges,
            Lacking::Unknown => {
                assert!(tips_max < asking.dag.branches().len(), "all is told, and it is not enough");
                tips_max *= 4;
            }
        }
    }
}

/// Chains of which two replicas together hold a fork that neither of them shows.
fn has_unseen_fork(play: &Play, hosts: [usize; 2]) -> bool {
    let forks = |numbers: &BTreeSet<usize>| -> BTreeSet<_> {
        let mut seen = BTreeSet::new();
        let place = |one: &usize| (play.made[*one].host, play.made[*one].incarnation, play.made[*one].n);
        numbers.iter().map(place).filter(|place| !seen.insert(*place)).collect()
    };
    let [one, other] = hosts.map(|host| play.set(host));
    let both = forks(&one.union(&other).copied().collect());
    let shown: BTreeSet<_> = forks(&one).union(&forks(&other)).copied().collect();
    !both.is_subset(&shown)
}

proptest! {
    #[test]
    fn heads_that_are_known_tell_exactly_what_is_lacking(steps in steps(true)) {
        let play = Play::of(&steps);
        for (asking, answering) in (0..HOSTS).flat_map(|one| (0..HOSTS).map(move |other| (one, other))) {
            let (one, other) = (play.replica(asking), play.replica(answering));
            let have = Have::heads(&one.dag);
            let lacking = have.lacking(&other.dag, &other).expect("the view reads");
            let theirs = play.set(asking);
            if one.dag.frontier().all(|head| other.epoch(&head).expect("the view reads").is_some()) {
                let Lacking::Ranges(ranges) = lacking else { panic!("the heads are known") };
                prop_assert_eq!(sent(&ranges, &other), play.set(answering).difference(&theirs).copied().collect());
            } else {
                prop_assert_eq!(lacking, Lacking::Unknown);
            }
        }
    }

    #[test]
    fn branches_tell_exactly_what_is_lacking_where_nothing_has_forked(steps in steps(false), tips_max in 1..9_usize) {
        let play = Play::of(&steps);
        for (asking, answering) in (0..HOSTS).flat_map(|one| (0..HOSTS).map(move |other| (one, other))) {
            let (one, other) = (play.replica(asking), play.replica(answering));
            let sent = sent(&lacks(&one, &other, tips_max), &other);
            prop_assert_eq!(sent, play.set(answering).difference(&play.set(asking)).copied().collect());
        }
    }

    #[test]
    fn only_behind_an_unseen_fork_is_something_left_out(steps in steps(true), tips_max in 1..9_usize) {
        let play = Play::of(&steps);
        for (asking, answering) in (0..HOSTS).flat_map(|one| (0..HOSTS).map(move |other| (one, other))) {
            let (one, other) = (play.replica(asking), play.replica(answering));
            let sent = sent(&lacks(&one, &other, tips_max), &other);
            let lacking: BTreeSet<usize> = play.set(answering).difference(&play.set(asking)).copied().collect();
            prop_assert!(sent.is_superset(&lacking) || has_unseen_fork(&play, [asking, answering]));
        }
    }
}

/// Two hosts that have the same, and each then goes on alone.
fn parted() -> Play {
    let mut steps = vec![Step::Write(0); 50];
    steps.push(Step::Sync { from: 0, to: 1, percent: 100 });
    steps.extend([Step::Write(0), Step::Write(0), Step::Write(1)]);
    Play::of(&steps)
}

#[test]
fn whoever_is_further_on_a_chain_has_what_is_here_of_it() {
    let play = parted();
    let (one, other) = (play.replica(0), play.replica(1));
    assert_eq!(Have::heads(&one.dag).lacking(&other.dag, &other), Ok(Lacking::Unknown));
    assert_eq!(sent(&lacks(&one, &other, 32), &other), BTreeSet::from([52]));
    assert_eq!(sent(&lacks(&other, &one, 32), &one), BTreeSet::from([50, 51]));
}

#[test]
fn an_epoch_with_the_same_number_proves_nothing() {
    let mut steps = vec![Step::Write(0); 3];
    steps.push(Step::Sync { from: 0, to: 1, percent: 40 });
    let mut play = Play::of(&steps);
    // Host 1 has epoch 0; then another epoch 1 is made from it, which host 2 gets.
    play.step(Step::Fork(0));
    play.step(Step::Fork(0));
    play.step(Step::Write(0));
    let one = play.replica(0);
    assert_eq!(one.dag.forks().len(), 1);
    let told = Have::Branches {
        tips: vec![Tip {
            host: play.made[3].host,
            incarnation: play.made[3].incarnation,
            first_n: 0,
            n: 1,
            seq: 1,
            id: EpochId([9; 32]),
        }],
        rest: None,
    };
    let mut straight = Play::of(&steps);
    straight.step(Step::Write(0));
    let straight = straight.replica(0);
    let all = told.lacking(&straight.dag, &straight).expect("the view reads");
    assert_eq!(all, Lacking::Ranges(vec![Range { branch: 0, from_n: 0 }]));
    // Where the fork is seen, what lies below it is common.
    let Lacking::Ranges(ranges) = told.lacking(&one.dag, &one).expect("the view reads") else { panic!("all is told") };
    assert!(!sent(&ranges, &one).contains(&0) && sent(&ranges, &one).len() == 3);
}

#[test]
fn an_equal_rest_is_held_and_another_is_asked_for() {
    let mut steps = vec![];
    for _ in 0..20 {
        steps.extend([Step::Write(0), Step::Restart(0)]);
    }
    steps.push(Step::Sync { from: 0, to: 1, percent: 100 });
    let apart = Play::of(&steps);
    steps.push(Step::Write(0));
    let play = Play::of(&steps);
    let (one, other) = (play.replica(0), play.replica(1));
    let have = Have::branches(&other.dag, 2);
    let Have::Branches { tips, rest } = &have else { panic!("branches") };
    assert!(tips.len() == 2 && rest.is_some() && tips[0].seq > tips[1].seq);
    let Ok(Lacking::Ranges(ranges)) = have.lacking(&one.dag, &one) else { panic!("the rest is equal") };
    assert_eq!(sent(&ranges, &one), BTreeSet::from([20]));
    // Another rest: told again with more, and at last it counts as lacking.
    let mut without = apart.replica(1);
    without.dag = Dag::of(without.dag.branches()[..15].to_vec());
    let have = Have::branches(&without.dag, 2);
    assert!(matches!(have.lacking(&one.dag, &one), Ok(Lacking::Ranges(_))), "the first known id proves its Past");
    let Have::Branches { tips, .. } = have else { panic!("branches") };
    let other_rest = |number| Have::Branches { tips: vec![tips[0]; number], rest: Some([0; 32]) };
    assert_eq!(other_rest(2).lacking(&one.dag, &one), Ok(Lacking::Unknown));
    assert!(matches!(other_rest(TIPS_MAX).lacking(&one.dag, &one), Ok(Lacking::Ranges(_))));
}

#[test]
fn a_replica_with_many_heads_tells_its_branches() {
    let play = parted();
    assert_eq!(Have::heads(&play.replica(1).dag), Have::Heads(vec![id(52)]));
    let branch = |number: u64| Branch {
        host: HostKey([1; 32]),
        incarnation: Incarnation(number.to_be_bytes()),
        first_n: 0,
        tip: EpochId(*blake3::hash(&number.to_be_bytes()).as_bytes()),
        tip_n: 0,
        tip_seq: number,
        is_head: true,
        base: None,
        learned: BTreeMap::new(),
    };
    let dag = Dag::of((0..=HEADS_MAX as u64).map(branch).collect());
    let Have::Branches { tips, rest } = Have::heads(&dag) else { panic!("branches") };
    assert!(tips.len() == HEADS_MAX && rest.is_some());
}
