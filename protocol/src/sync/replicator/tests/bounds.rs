//! No peer and no clock holds the others up, and what is kept of them is bounded.

use super::*;
use crate::limits::{HEADS_MAX, KNOWN_HEADS_MAX, PULLS_NAMED_MAX};

#[test]
fn a_peer_that_answers_slowly_keeps_no_other_from_being_asked() {
    let mut scene = Scene::new(2);
    let asked = scene.compare(&[1]);
    let (slow, pull) = &asked.pulls[0];
    assert_eq!(scene.wait(), RETRY_MS);
    let (call, other) = scene.asked().pulls.pop().expect("the other is asked");
    assert_ne!(other.peer, pull.peer);
    // Its answers go on, whatever the slow one does.
    let next = scene.answer(call, page(5, 7));
    assert_eq!(next.pulls[0].1, Pull { ask: Ask::ByHeads(Some(Cursor(7))), ..other });
    scene.now = scene.now.plus(28_000);
    assert!(scene.answer(*slow, held_page(1)).pulls.is_empty(), "it rests");
    assert!(scene.answer(next.pulls[0].0, page(5, 9)).pulls.iter().all(|(_, next)| next.peer != pull.peer));
    let from = scene.now;
    let again = loop {
        scene.wait();
        let again = scene.asked().pulls.into_iter().find(|(_, next)| next.peer == pull.peer);
        if again.is_some() {
            break scene.now.0 - from.0;
        }
    };
    assert!((28_000..=31_000).contains(&again), "{again}");
}

#[test]
fn a_peer_that_brings_only_what_is_held_rests_now_and_then() {
    let (mut scene, mut call) = Scene::pulling();
    let mut rests = 0;
    for at in 0..100 {
        call = match scene.answer(call, held_page(at)).pulls.pop() {
            Some((call, _)) => call,
            None => {
                assert_eq!(scene.wait(), RETRY_MS);
                rests += 1;
                only(&scene.asked()).0
            }
        };
    }
    assert_eq!(rests, 100 / WALK_STEPS_MAX);
}

#[test]
fn a_clock_that_is_set_back_holds_nothing_up() {
    let set_back = |scene: &mut Scene| {
        scene.now = scene.now.plus(-3_600_000);
        scene.replicator.handle_timeout(scene.now);
    };
    let mut scene = Scene::new(2);
    scene.compare(&[1]);
    set_back(&mut scene);
    assert_eq!(scene.wait(), RETRY_MS);
    assert_eq!(scene.asked().pulls.len(), 1, "the other peer is asked");

    let (mut scene, call) = Scene::pulling();
    scene.answer(call, Pulled::Later);
    set_back(&mut scene);
    assert!(scene.wait() <= RETRY_MS);
    let (call, _) = only(&scene.asked());
    scene.answer(call, brings(1));
    set_back(&mut scene);
    assert!(scene.wait() <= INTERVAL_MS * 5 / 4);
    assert_eq!(scene.asked().compares.len(), 1);
}

#[test]
fn the_heads_that_are_remembered_are_bounded_and_those_heard_of_last_stay() {
    let mut scene = Scene::new(1);
    let heads: Vec<EpochId> = (0..HEADS_MAX as u64).map(id).collect();
    let spaces: Vec<SpaceId> = (0..KNOWN_HEADS_MAX / HEADS_MAX + 10)
        .map(|number| SpaceId::new(&Did::from_ed25519(&[1; 32]), &format!("s{number}")).expect("a space id"))
        .collect();
    for space in spaces.iter().chain([&spaces[10]]) {
        scene.replicator.handle_equal(scene.now, &peer(1), space, heads.clone());
    }
    scene.replicator.handle_equal(scene.now, &peer(1), &space(1), vec![id(1)]);
    let known: Vec<bool> = spaces.iter().map(|space| scene.replicator.known(space, &peer(1)).is_some()).collect();
    assert_eq!(known.iter().filter(|known| **known).count(), KNOWN_HEADS_MAX / HEADS_MAX - 1);
    assert!(!known[9] && known[10] && known[12] && known[known.len() - 1]);
    assert!(scene.replicator.known(&space(1), &peer(1)).is_some());
}

#[test]
fn pulls_that_wait_with_names_are_bounded() {
    let mut scene = Scene::new(1);
    let spaces: Vec<SpaceId> = (0..PULLS_NAMED_MAX + 100)
        .map(|number| SpaceId::new(&Did::from_ed25519(&[1; 32]), &format!("s{number}")).expect("a space id"))
        .collect();
    let (call, _) = scene.asked().compares.pop().expect("a comparison");
    scene.replicator.handle_compared(scene.now, call, Compared::Differ(spaces.clone()));
    let mut open: VecDeque<_> = scene.asked().pulls.into();
    let mut again = 0;
    for _ in 0..2 * spaces.len() {
        let (call, pull) = open.pop_front().expect("there is always a next");
        again += usize::from(pull.ask == Ask::ByHeads(None));
        open.extend(scene.answer(call, lacks(1, &[5], &[])).pulls);
    }
    // All begin once, and those that found no room for their names a second time.
    assert!((90..=100).contains(&(again - spaces.len())), "{again}");
}
