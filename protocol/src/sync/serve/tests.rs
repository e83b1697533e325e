use std::collections::BTreeSet;

use proptest::prelude::*;

use super::{
    super::play::{EPOCH_BYTES, HOSTS, Play, Replica, Step, id, number, steps},
    *,
};

fn pull(replica: &Replica, have: &Have, after: Option<Cursor>, bytes_max: usize) -> (Vec<usize>, Option<Cursor>) {
    let answer = serve_pull(replica, have, after, bytes_max).expect("the view reads");
    let Response::Epochs { heads, epochs, next, tell_branches: false } = answer else {
        panic!("no epochs: {answer:?}")
    };
    assert_eq!(heads, replica.dag.frontier().collect::<Vec<_>>());
    (epochs.iter().map(number).collect(), next)
}

fn get(replica: &Replica, epochs: &[EpochId], bytes_max: usize) -> Vec<usize> {
    let answer = serve_get(replica, epochs, bytes_max).expect("the view reads");
    let Response::Epochs { epochs, next: None, tell_branches: false, .. } = answer else {
        panic!("no epochs: {answer:?}")
    };
    epochs.iter().map(number).collect()
}

proptest! {
    #[test]
    fn page_by_page_all_that_is_lacking_comes_once_and_in_the_order_of_the_log(steps in steps(true), fit in 0..7_usize) {
        let play = Play::of(&steps);
        let none = Have::Heads(vec![]);
        for host in 0..HOSTS {
            let replica = play.replica(host);
            let whole: Vec<usize> = {
                let mut log: Vec<_> = replica.log.values().copied().collect();
                log.sort_unstable();
                log.into_iter().map(|(_, number)| number).collect()
            };
            let (mut after, mut come, mut pages) = (None, vec![], 0);
            loop {
                let (page, next) = pull(&replica, &none, after, fit * EPOCH_BYTES);
                prop_assert!(page.len() <= fit.max(1) && (next.is_none() || page.len() == fit.max(1)));
                come.extend(page);
                pages += 1;
                after = next;
                if next.is_none() {
                    break;
                }
            }
            prop_assert_eq!(pages, whole.len().div_ceil(fit.max(1)).max(1));
            prop_assert_eq!(come, whole);
        }
    }

    #[test]
    fn named_epochs_come_with_what_is_before_them_on_their_branch(steps in steps(true), fit in 1..9_usize) {
        let play = Play::of(&steps);
        for (asking, host) in (0..HOSTS).flat_map(|one| (0..HOSTS).map(move |other| (one, other))) {
            let (one, replica) = (play.replica(asking), play.replica(host));
            let named: Vec<EpochId> = one.dag.frontier().collect();
            let held: Vec<&EpochId> =
                named.iter().filter(|id| replica.epoch(id).expect("the view reads").is_some()).collect();
            let all = get(&replica, &named, usize::MAX);
            let cut = get(&replica, &named, fit * EPOCH_BYTES);
            prop_assert!(cut.len() == all.len().min(fit));
            let come: BTreeSet<usize> = cut.iter().copied().collect();
            prop_assert!(come.len() == cut.len(), "an epoch comes twice");
            if fit >= held.len() {
                prop_assert!(held.iter().all(|named| come.iter().any(|come| id(*come) == **named)));
            }
        }
    }
}

#[test]
fn a_named_epoch_that_is_not_here_is_left_out() {
    let play = Play::of(&[Step::Write(0); 100]);
    let replica = play.replica(0);
    assert_eq!(get(&replica, &[id(1_000)], 1_000_000), [0_usize; 0]);
    let run = get(&replica, &[id(90), id(1_000), id(90)], 1_000_000);
    assert_eq!(run, (90 - GET_RUN_EPOCHS..=90).collect::<Vec<_>>());
    assert_eq!(get(&replica, &[id(90), id(50)], 4 * EPOCH_BYTES), [49, 50, 89, 90]);
}

#[test]
fn heads_that_are_not_known_here_are_answered_with_a_question() {
    let play = Play::of(&[Step::Write(0), Step::Write(1)]);
    let asked = Have::heads(&play.replica(1).dag);
    let answer = serve_pull(&play.replica(0), &asked, None, 1_000).expect("the view reads");
    assert_eq!(answer, Response::Epochs { heads: vec![id(0)], epochs: vec![], next: None, tell_branches: true });
}
