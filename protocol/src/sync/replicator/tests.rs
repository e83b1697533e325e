mod bounds;

use bytes::Bytes;

use super::*;
use crate::{
    epoch::SignedEpoch,
    id::Did,
    limits::{NAMES_MAX, NOT_FOUND_INTERVALS, RETRY_MS, TIPS_FIRST, TIPS_MAX, WALK_STEPS_MAX},
};

const INTERVAL_MS: i64 = 60_000;
const EPOCH_BYTES: usize = 1_000;

fn settings() -> Settings {
    Settings {
        compare_interval_ms: INTERVAL_MS,
        pulls_per_peer_max: 2,
        pulls_max: 3,
        push_bytes_max: 10 * EPOCH_BYTES,
        push_batch_bytes: 3 * EPOCH_BYTES,
    }
}

fn peer(number: u8) -> HostKey {
    HostKey([number; 32])
}

fn space(number: u8) -> SpaceId {
    SpaceId::new(&Did::from_ed25519(&[number; 32]), "default").expect("a space id")
}

fn id(number: u64) -> EpochId {
    EpochId::of(&number.to_be_bytes())
}

fn sent(number: u64) -> Arc<Sent> {
    let header = Bytes::copy_from_slice(&number.to_be_bytes());
    let epoch = SignedEpoch { header, body: vec![0; EPOCH_BYTES - 72].into(), signature: [0; 64] };
    Arc::new(Sent { epoch, values: vec![] })
}

/// What is asked of the outer world, taken apart.
#[derive(Default)]
struct Outputs {
    compares: Vec<(Call, HostKey)>,
    pulls: Vec<(Call, Pull)>,
    pushes: Vec<(Call, HostKey, Vec<Pushed>)>,
    renewed: Vec<HostKey>,
}

struct Scene {
    replicator: Replicator,
    now: Millis,
}

impl Scene {
    fn new(peers: u8) -> Self {
        let mut scene = Self { replicator: Replicator::new(settings(), 1), now: Millis(1_000_000) };
        (1..=peers).for_each(|number| scene.replicator.handle_connected(scene.now, peer(number)));
        scene
    }

    fn asked(&mut self) -> Outputs {
        let mut asked = Outputs::default();
        while let Some(output) = self.replicator.poll_output() {
            match output {
                Output::Compare(call, peer) => asked.compares.push((call, peer)),
                Output::Pull(call, pull) => asked.pulls.push((call, pull)),
                Output::Push(call, peer, batch) => asked.pushes.push((call, peer, batch)),
                Output::Renew(peer) => asked.renewed.push(peer),
            }
        }
        asked
    }

    /// All comparisons that are asked for end with these spaces.
    fn compare(&mut self, spaces: &[u8]) -> Outputs {
        for (call, _) in self.asked().compares {
            self.replicator.handle_compared(
                self.now,
                call,
                Compared::Differ(spaces.iter().copied().map(space).collect()),
            );
        }
        self.asked()
    }

    /// Time passes until something is to be done.
    fn wait(&mut self) -> i64 {
        let next = self.replicator.poll_timeout().expect("something is to be done");
        let waited = next.0 - self.now.0;
        self.now = self.now.max(next);
        self.replicator.handle_timeout(self.now);
        waited
    }

    fn answer(&mut self, call: Call, outcome: Pulled) -> Outputs {
        self.replicator.handle_pulled(self.now, call, outcome);
        self.asked()
    }

    /// One peer, one space that differs; the call of its first pull.
    fn pulling() -> (Self, Call) {
        let mut scene = Self::new(1);
        let asked = scene.compare(&[1]);
        assert_eq!(asked.pulls[0].1, Pull { peer: peer(1), space: space(1), ask: Ask::ByHeads(None) });
        (scene, asked.pulls[0].0)
    }

    fn committed(&mut self, number: u64, told: &[u8], hosts: &[u8]) {
        let told = told.iter().copied().map(peer).collect();
        let epochs = vec![New { sent: sent(number), told }];
        let hosts = hosts.iter().copied().map(peer).collect();
        self.replicator.handle_committed(self.now, Committed { space: space(1), epochs, hosts });
    }
}

/// An answer that brings so many.
fn brings(taken: usize) -> Pulled {
    Pulled::Answered {
        heads: vec![id(1)],
        unknown: vec![],
        taken,
        held: 0,
        refused: 0,
        missing: vec![],
        next: None,
        tell_branches: false,
    }
}

fn page(number: usize, at: u64) -> Pulled {
    let Pulled::Answered { heads, unknown, held, refused, missing, tell_branches, .. } = brings(0) else {
        unreachable!("an answer")
    };
    Pulled::Answered { heads, unknown, taken: number, held, refused, missing, next: Some(Cursor(at)), tell_branches }
}

/// A page with nothing but what is held.
fn held_page(at: u64) -> Pulled {
    let Pulled::Answered { heads, unknown, taken, refused, missing, next, tell_branches, .. } = page(0, at) else {
        unreachable!("an answer")
    };
    Pulled::Answered { heads, unknown, taken, held: 1, refused, missing, next, tell_branches }
}

fn lacks(taken: usize, unknown: &[u64], missing: &[u64]) -> Pulled {
    let ids = |numbers: &[u64]| numbers.iter().copied().map(id).collect::<Vec<_>>();
    Pulled::Answered {
        heads: ids(unknown),
        unknown: ids(unknown),
        taken,
        held: 0,
        refused: 0,
        missing: ids(missing),
        next: None,
        tell_branches: false,
    }
}

fn tell_branches() -> Pulled {
    Pulled::Answered {
        heads: vec![],
        unknown: vec![],
        taken: 0,
        held: 0,
        refused: 0,
        missing: vec![],
        next: None,
        tell_branches: true,
    }
}

fn only(asked: &Outputs) -> (Call, Ask) {
    assert_eq!(asked.pulls.len(), 1, "one pull");
    (asked.pulls[0].0, asked.pulls[0].1.ask.clone())
}

#[test]
fn a_peer_is_compared_with_at_once_and_then_at_intervals() {
    let mut scene = Scene::new(1);
    let mut asked = scene.asked();
    for _ in 0..20 {
        let (call, of) = asked.compares.pop().expect("a comparison");
        assert_eq!(of, peer(1));
        scene.replicator.handle_compared(scene.now, call, Compared::Differ(vec![]));
        let waited = scene.wait();
        assert!((INTERVAL_MS * 3 / 4..=INTERVAL_MS * 5 / 4).contains(&waited));
        asked = scene.asked();
    }
}

#[test]
fn a_comparison_that_failed_is_repeated_later_and_later() {
    let mut scene = Scene::new(1);
    let mut waits = vec![];
    for _ in 0..12 {
        let (call, _) = scene.asked().compares.pop().expect("a comparison");
        scene.replicator.handle_compared(scene.now, call, Compared::Failed);
        waits.push(scene.wait());
    }
    assert!(waits[0] <= RETRY_MS && waits[3] > 5 * RETRY_MS && waits[11] <= INTERVAL_MS);
    assert_eq!(scene.replicator.peers().next().and_then(|peer| peer.compared), None);
}

#[test]
fn a_space_is_pulled_from_one_peer_at_a_time() {
    let mut scene = Scene::new(3);
    let asked = scene.compare(&[1]);
    let (call, _) = only(&asked);
    let next = scene.answer(call, brings(1));
    assert_ne!(next.pulls[0].1.peer, asked.pulls[0].1.peer);
    assert_eq!(next.pulls.len(), 1);
}

#[test]
fn pulls_under_way_are_bounded_and_all_peers_and_spaces_have_their_turn() {
    let mut scene = Scene::new(3);
    let mut open = scene.compare(&[1, 2, 3, 4, 5, 6]).pulls;
    let mut order = vec![];
    while !open.is_empty() {
        assert!(open.len() <= 3, "pulls under way");
        for number in 1..=3 {
            assert!(open.iter().filter(|(_, pull)| pull.peer == peer(number)).count() <= 2, "pulls with a peer");
        }
        let spaces: BTreeSet<_> = open.iter().map(|(_, pull)| pull.space.clone()).collect();
        assert_eq!(spaces.len(), open.len(), "a space is pulled twice");
        let (call, pull) = open.remove(0);
        order.push(pull);
        // The first space of each peer has no end for long.
        let endless = order.len() < 30 && order.iter().filter(|pull| pull.space == space(1)).count() > 0;
        let is_first = order.last().is_some_and(|pull| pull.space == space(1));
        let outcome = if endless && is_first { page(1, order.len() as u64) } else { brings(1) };
        open.extend(scene.answer(call, outcome).pulls);
    }
    let at = |peer: HostKey, wanted: SpaceId| order.iter().position(|pull| pull.peer == peer && pull.space == wanted);
    for number in 1..=3 {
        assert!((1..=6).all(|wanted| at(peer(number), space(wanted)).is_some_and(|at| at < 30)), "{order:?}");
    }
}

#[test]
fn after_each_page_the_others_have_their_turn() {
    let mut scene = Scene::new(1);
    let asked = scene.compare(&[1, 2, 3]);
    assert_eq!(asked.pulls.iter().map(|(_, pull)| pull.space.clone()).collect::<Vec<_>>(), [space(1), space(2)]);
    let next = scene.answer(asked.pulls[0].0, page(5, 7));
    assert_eq!(next.pulls.iter().map(|(_, pull)| pull.space.clone()).collect::<Vec<_>>(), [space(3)]);
}

#[test]
fn a_pull_goes_on_page_by_page() {
    let (mut scene, call) = Scene::pulling();
    let (call, ask) = only(&scene.answer(call, page(5, 7)));
    assert_eq!(ask, Ask::ByHeads(Some(Cursor(7))));
    let (call, ask) = only(&scene.answer(call, page(5, 9)));
    assert_eq!(ask, Ask::ByHeads(Some(Cursor(9))));
    assert!(scene.answer(call, brings(1)).pulls.is_empty());
    assert_eq!(scene.replicator.known(&space(1), &peer(1)).map(|known| &known.heads[..]), Some(&[id(1)][..]));
    assert_eq!(scene.replicator.peers().map(|peer| peer.behind).sum::<usize>(), 0);
}

#[test]
fn a_cursor_that_does_not_advance_ends_the_pull() {
    let (mut scene, call) = Scene::pulling();
    let (call, _) = only(&scene.answer(call, page(5, 7)));
    assert!(scene.answer(call, page(5, 7)).pulls.is_empty());
}

#[test]
fn pages_without_anything_end_the_pull() {
    let (mut scene, mut call) = Scene::pulling();
    for at in 1..=WALK_STEPS_MAX as u64 + 1 {
        match scene.answer(call, page(0, at)).pulls.pop() {
            Some((next, _)) => call = next,
            None => return,
        }
    }
    panic!("it goes on for ever");
}

#[test]
fn more_and_more_branches_are_told_until_it_is_enough() {
    let (mut scene, mut call) = Scene::pulling();
    let mut told = vec![];
    while let Some((next, pull)) = scene.answer(call, tell_branches()).pulls.pop() {
        let Ask::ByBranches(tips, None) = pull.ask else { panic!("{:?}", pull.ask) };
        told.push(tips);
        call = next;
    }
    assert_eq!(told, [32, 128, 512, 2048, 8192]);
    assert_eq!((told[0], told[4]), (TIPS_FIRST, TIPS_MAX));
}

#[test]
fn what_is_still_lacking_is_asked_for_by_name() {
    let (mut scene, call) = Scene::pulling();
    let (call, ask) = only(&scene.answer(call, lacks(3, &[5], &[6, 7])));
    let Ask::Epochs(names) = ask else { panic!("{ask:?}") };
    assert_eq!(names.into_iter().collect::<BTreeSet<_>>(), [5, 6, 7].map(id).into());
    // Further back, and then all is there.
    let (call, ask) = only(&scene.answer(call, lacks(0, &[5], &[8])));
    let Ask::Epochs(names) = ask else { panic!("{ask:?}") };
    assert_eq!(names.into_iter().collect::<BTreeSet<_>>(), [5, 8].map(id).into());
    assert!(scene.answer(call, lacks(9, &[], &[])).pulls.is_empty());
}

#[test]
fn a_peer_that_names_heads_it_never_gives_is_left_and_counted() {
    let (mut scene, call) = Scene::pulling();
    let (call, ask) = only(&scene.answer(call, lacks(0, &[5], &[])));
    assert_eq!(ask, Ask::Epochs(vec![id(5)]));
    let (call, ask) = only(&scene.answer(call, lacks(0, &[5], &[])));
    assert_eq!(ask, Ask::ByBranches(0, None), "all, then");
    let (call, ask) = only(&scene.answer(call, lacks(0, &[5], &[])));
    assert_eq!(ask, Ask::Epochs(vec![id(5)]));
    assert!(scene.answer(call, lacks(0, &[5], &[])).pulls.is_empty());
    let state = scene.replicator.peers().next().expect("a peer");
    assert_eq!((state.withheld, state.behind), (1, 0));
    // Whoever says that it is behind has it asked for again, but not at once.
    scene.replicator.handle_behind(scene.now, peer(1), space(1));
    assert!(scene.asked().pulls.is_empty());
    assert_eq!(scene.wait(), RETRY_MS);
    assert_eq!(scene.asked().pulls.len(), 1);
}

#[test]
fn heads_that_nobody_has_and_ancestors_that_are_missing_share_the_names() {
    let (mut scene, call) = Scene::pulling();
    let count = |ask: &Ask, from: u64| {
        let Ask::Epochs(names) = ask else { panic!("{ask:?}") };
        assert_eq!(names.len(), NAMES_MAX);
        let of_kind: BTreeSet<EpochId> = (from..from + 1_000).map(id).collect();
        names.iter().filter(|name| of_kind.contains(name)).count()
    };
    let (many, few) = (|from| (from..from + 300).collect::<Vec<u64>>(), |from| (from..from + 3).collect::<Vec<u64>>());
    let (call, ask) = only(&scene.answer(call, lacks(1, &many(0), &many(1_000))));
    assert_eq!((count(&ask, 0), count(&ask, 1_000)), (NAMES_MAX / 2, NAMES_MAX / 2));
    let (call, ask) = only(&scene.answer(call, lacks(1, &many(0), &few(1_000))));
    assert_eq!((count(&ask, 0), count(&ask, 1_000)), (NAMES_MAX - 3, 3));
    let (_, ask) = only(&scene.answer(call, lacks(1, &few(0), &many(1_000))));
    assert_eq!((count(&ask, 0), count(&ask, 1_000)), (3, NAMES_MAX - 3));
}

#[test]
fn all_is_asked_for_less_and_less_when_it_brings_nothing() {
    let (mut scene, call) = Scene::pulling();
    let (mut calls, mut wholes) = (vec![call], vec![]);
    while scene.now.0 < 1_000_000 + 200 * INTERVAL_MS {
        for call in std::mem::take(&mut calls) {
            for (call, pull) in scene.answer(call, lacks(0, &[5], &[])).pulls {
                wholes.extend((pull.ask == Ask::ByBranches(0, None)).then_some(scene.now.0));
                calls.push(call);
            }
        }
        if calls.is_empty() {
            scene.wait();
            let asked = scene.asked();
            for (call, _) in asked.compares {
                scene.replicator.handle_compared(scene.now, call, Compared::Differ(vec![space(1)]));
            }
            calls.extend(asked.pulls.into_iter().chain(scene.asked().pulls).map(|(call, _)| call));
        }
    }
    let waits: Vec<i64> = wholes.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(waits.iter().all(|wait| *wait >= INTERVAL_MS), "{waits:?}");
    assert!(wholes.len() > 6 && wholes.len() < 12, "{waits:?}");
}

#[test]
fn a_way_back_that_is_too_long_is_left_for_the_beginning() {
    let (mut scene, mut call) = Scene::pulling();
    let mut asks = vec![];
    for number in 0..200 {
        let Some((next, pull)) = scene.answer(call, lacks(0, &[1], &[1_000 + number])).pulls.pop() else { break };
        asks.push(pull.ask);
        call = next;
    }
    let whole = asks.iter().filter(|ask| **ask == Ask::ByBranches(0, None)).count();
    assert_eq!(whole, 1);
    assert!(asks.len() < 3 * WALK_STEPS_MAX, "{}", asks.len());
}

#[test]
fn a_space_that_a_peer_does_not_show_is_asked_for_less_and_less() {
    let (mut scene, mut call) = Scene::pulling();
    let mut waits = vec![];
    for _ in 0..14 {
        assert!(scene.answer(call, Pulled::NotFound).pulls.is_empty());
        let from = scene.now;
        call = loop {
            scene.wait();
            let asked = scene.asked();
            for (compare, _) in &asked.compares {
                scene.replicator.handle_compared(scene.now, *compare, Compared::Differ(vec![space(1)]));
            }
            let pulls = asked.pulls.into_iter().chain(scene.asked().pulls);
            if let Some((call, _)) = pulls.last() {
                break call;
            }
        };
        waits.push(scene.now.0 - from.0);
    }
    assert!(waits[0] <= INTERVAL_MS * 5 / 4, "the next comparison");
    assert!(waits[13] > 2 * INTERVAL_MS && waits[13] <= (NOT_FOUND_INTERVALS + 2) * INTERVAL_MS, "{waits:?}");
    // A peer that has something to tell of it is asked soon.
    scene.answer(call, Pulled::NotFound);
    scene.replicator.handle_compared(scene.now, Call(0), Compared::Failed);
    scene.replicator.handle_behind(scene.now, peer(1), space(1));
    assert!(scene.wait() <= RETRY_MS);
}

#[test]
fn a_pull_that_got_no_answer_is_repeated_where_it_was() {
    let (mut scene, call) = Scene::pulling();
    let (mut call, _) = only(&scene.answer(call, page(5, 7)));
    let mut waits = vec![];
    for _ in 0..4 {
        assert!(scene.answer(call, Pulled::Later).pulls.is_empty());
        waits.push(scene.wait());
        let (next, ask) = only(&scene.asked());
        assert_eq!(ask, Ask::ByHeads(Some(Cursor(7))));
        call = next;
    }
    assert!(waits[0] <= RETRY_MS && waits[3] > 5 * RETRY_MS, "{waits:?}");
}

#[test]
fn what_comes_up_during_a_pull_is_pulled_after_it() {
    let (mut scene, call) = Scene::pulling();
    scene.replicator.handle_behind(scene.now, peer(1), space(1));
    assert!(scene.asked().pulls.is_empty());
    let (_, ask) = only(&scene.answer(call, brings(1)));
    assert_eq!(ask, Ask::ByHeads(None));
}

#[test]
fn a_peer_that_is_gone_frees_its_space_for_others() {
    let mut scene = Scene::new(2);
    let asked = scene.compare(&[1]);
    let (call, first) = (asked.pulls[0].0, asked.pulls[0].1.peer);
    scene.replicator.handle_disconnected(scene.now, &first);
    let next = scene.asked();
    assert_eq!(next.pulls.len(), 1);
    assert_ne!(next.pulls[0].1.peer, first);
    assert!(scene.answer(call, brings(1)).pulls.is_empty(), "an outcome that comes too late");
}

#[test]
fn a_commit_is_pushed_to_the_connected_hosts_that_have_not_heard_of_it() {
    let mut scene = Scene::new(3);
    scene.asked();
    scene.committed(1, &[1, 9], &[1, 2, 3, 4]);
    let pushes = scene.asked().pushes;
    assert_eq!(pushes.iter().map(|(_, peer, _)| *peer).collect::<Vec<_>>(), [peer(2), peer(3)]);
    for (_, _, batch) in &pushes {
        assert_eq!(batch[0].told, [1, 2, 3, 9].map(peer));
        assert_eq!(batch[0].epochs, [(*sent(1)).clone()]);
    }
}

#[test]
fn pushes_to_a_peer_come_one_after_another_and_in_batches() {
    let mut scene = Scene::new(1);
    scene.asked();
    (1..=6).for_each(|number| scene.committed(number, &[], &[1]));
    let mut come = vec![];
    let mut pushes = scene.asked().pushes;
    while let Some((call, _, batch)) = pushes.pop() {
        assert!(pushes.is_empty(), "one at a time");
        come.push(batch.iter().flat_map(|pushed| pushed.epochs.clone()).collect::<Vec<_>>());
        scene.replicator.handle_pushed(scene.now, call, Some(vec![Verdict::Taken; batch.len()]));
        pushes = scene.asked().pushes;
    }
    assert_eq!(come.iter().map(Vec::len).collect::<Vec<_>>(), [1, 3, 2]);
    assert_eq!(come.concat(), (1..=6).map(|number| (*sent(number)).clone()).collect::<Vec<_>>());
}

#[test]
fn what_waits_for_a_host_is_dropped_when_it_is_one_no_more() {
    let mut scene = Scene::new(2);
    scene.asked();
    scene.committed(1, &[], &[1, 2]);
    let pushes = scene.asked().pushes;
    scene.committed(2, &[], &[1, 2]);
    scene.committed(3, &[], &[2]);
    for (call, _, _) in pushes {
        scene.replicator.handle_pushed(scene.now, call, Some(vec![Verdict::Taken]));
    }
    let pushes = scene.asked().pushes;
    assert_eq!(pushes.iter().map(|(_, peer, _)| *peer).collect::<Vec<_>>(), [peer(2)]);
    let states: Vec<_> = scene.replicator.peers().map(|peer| (peer.to_push, peer.to_push_bytes)).collect();
    assert_eq!(states, [(0, 0), (0, 0)]);
}

#[test]
fn when_too_much_waits_the_oldest_is_left_to_comparing() {
    let mut scene = Scene::new(1);
    scene.asked();
    (1..=15).for_each(|number| scene.committed(number, &[], &[1]));
    let state = scene.replicator.peers().next().expect("a peer");
    assert_eq!((state.to_push, state.to_push_bytes, state.dropped), (10, 10 * EPOCH_BYTES, 4));
    let (call, _, _) = scene.asked().pushes.pop().expect("the first");
    scene.replicator.handle_pushed(scene.now, call, None);
    let (_, _, batch) = scene.asked().pushes.pop().expect("the next");
    assert_eq!(batch[0].epochs[0], *sent(6));
}

#[test]
fn a_push_that_failed_is_not_repeated_but_noted() {
    let mut scene = Scene::new(1);
    for (call, _) in scene.compare(&[1]).pulls {
        scene.answer(call, brings(0));
    }
    scene.committed(1, &[], &[1]);
    let (call, _, _) = scene.asked().pushes.pop().expect("a push");
    scene.replicator.handle_pushed(scene.now, call, None);
    assert!(scene.asked().pushes.is_empty());
    assert_eq!(scene.replicator.known(&space(1), &peer(1)).map(|known| known.missed), Some(true));
}

#[test]
fn a_peer_whose_epochs_are_found_only_by_comparing_is_connected_anew() {
    let mut scene = Scene::new(1);
    let mut renewed_after = vec![];
    for comparison in 0..7 {
        // Several spaces that were late are one comparison.
        let mut pulls = scene.compare(&[1, 2, 3]).pulls;
        while let Some((call, _)) = pulls.pop() {
            let asked = scene.answer(call, brings(1));
            renewed_after.extend(asked.renewed.iter().map(|_| comparison));
            pulls.extend(asked.pulls);
        }
        scene.wait();
    }
    // The one at the beginning does not count.
    assert_eq!(renewed_after, [3, 6]);
    let mut scene = Scene::new(1);
    for comparison in 0..7 {
        let number = usize::from(comparison % 3 != 0);
        for (call, _) in scene.compare(&[1]).pulls {
            assert!(scene.answer(call, brings(number)).renewed.is_empty(), "not three in a row");
        }
        scene.wait();
    }
}

#[test]
fn a_space_that_has_rested_is_no_reason_to_wake_while_no_pull_may_begin() {
    let mut scene = Scene::new(2);
    let asked = scene.compare(&[1, 2, 3, 4]);
    let (first, others) = asked.pulls.split_first().expect("pulls are under way");
    assert_eq!(others.len(), 2, "as many as there may be");
    // It rests, and another takes its place.
    assert_eq!(scene.answer(first.0, Pulled::Later).pulls.len(), 1);
    for _ in 0..100 {
        scene.wait();
        let due: Vec<_> = scene.asked().compares;
        for (call, _) in due {
            scene.replicator.handle_compared(scene.now, call, Compared::Differ(vec![]));
        }
        let next = scene.replicator.poll_timeout().expect("the next comparison");
        assert!(next > scene.now, "woken for nothing");
    }
}
