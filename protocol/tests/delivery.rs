//! Deliveries of epochs by peers: what comes with them, what they are answered, and what one commit takes.
mod world;

use std::collections::BTreeSet;

use bytes::Bytes;
use kvspace_protocol::{
    epoch::{Epoch, SignedEpoch},
    id::{EpochId, HostKey, Incarnation},
    kv::Value,
    limits::{
        COMMIT_BYTES_MAX, COMMIT_EPOCHS_MAX, INLINE_BYTES_MAX, NAMES_MAX, TOLD_MAX, WAITING_BYTES_MAX,
        WAITING_EPOCHS_MAX,
    },
    space::{Arrived, CallId, CheckedEpoch, Invalid, Output, Taken},
};
use world::{Draft, Forger, Host, Owner, START_MS, Session, clock, hash, id, put_event};

fn plain(signed: &SignedEpoch) -> Arrived {
    arrived(signed, &[], &[])
}

fn arrived(signed: &SignedEpoch, values: &[&[u8]], told: &[u8]) -> Arrived {
    Arrived {
        checked: CheckedEpoch::check(signed.clone()).expect("well formed"),
        values: values.iter().map(|bytes| Bytes::copy_from_slice(bytes)).collect(),
        told: told.iter().map(|host| HostKey([*host; 32])).collect(),
    }
}

/// A host that answers nothing by itself, another that makes epochs, and a third whose epochs are forged by hand.
struct Scene {
    host: Host,
    other: Host,
    forger: Forger,
    session: Session,
    owner: Owner,
}

impl Scene {
    fn new() -> Self {
        let owner = Owner::new(1);
        let mut other = Host::hosting(&owner, 3);
        let (session, forger) = (owner.session(4), Forger::new(&owner, 5));
        other.take_token(session.delegation.clone()).expect("taken in");
        other.take_token(owner.host_delegation(&forger.did())).expect("taken in");
        Self { host: Host::new(&owner, 2), other, forger, session, owner }
    }

    /// The host holds what the other has so far.
    fn synced(mut self) -> Self {
        self.host.receive(self.other.log.clone());
        self.host.taken.clear();
        self
    }

    fn puts(&mut self, count: usize) -> Vec<SignedEpoch> {
        let before = self.other.log.len();
        for number in 0..count {
            self.other
                .put(&self.session, &format!("k{number}"), format!("value {number}").as_bytes())
                .expect("written");
        }
        self.other.log[before..].to_vec()
    }

    /// An epoch that rests on these.
    fn forged(&self, incarnation: u64, parents: Vec<EpochId>, path: &str, bytes: &[u8]) -> SignedEpoch {
        let token = self.session.invocation(path, "put", START_MS + 60_000, &[]);
        let events = vec![put_event(&token, bytes)];
        self.forger.epoch(Draft { incarnation, parents, seq: clock(START_MS) + 5000, events, ..Draft::default() })
    }

    fn deliver(&mut self, epochs: Vec<Arrived>) -> Taken {
        let call = self.host.deliver(epochs);
        self.host.taken.remove(&call).expect("the delivery is answered")
    }

    fn deliver_from(&mut self, from: u8, epochs: Vec<Arrived>) -> CallId {
        self.host.deliver_from(Some(HostKey([from; 32])), epochs)
    }

    fn last_values(&self) -> Vec<Vec<Vec<u8>>> {
        let commit = self.host.commits.last().expect("a commit");
        commit.iter().map(|logged| logged.values.iter().map(|(_, bytes)| bytes.to_vec()).collect()).collect()
    }
}

#[test]
fn a_delivery_is_counted() {
    let mut scene = Scene::new().synced();
    let held = scene.other.log[0].clone();
    let epochs = scene.puts(4);
    let last = id(&epochs[2]);
    let taken = scene.deliver(vec![plain(&epochs[3])]);
    assert_eq!(taken, Taken { missing: vec![last], waiting: 1, ..Taken::default() });
    let taken =
        scene.deliver(vec![plain(&held), plain(&held), plain(&epochs[1]), plain(&epochs[0]), plain(&epochs[0])]);
    assert_eq!(taken, Taken { taken: 2, held: 1, missing: vec![last], waiting: 1, ..Taken::default() });
    let taken = scene.deliver(vec![plain(&epochs[2])]);
    assert_eq!(taken, Taken { taken: 2, ..Taken::default() }, "with the one that waited for it");
    assert_eq!(scene.host.frontier(), scene.other.frontier());
}

#[test]
fn a_delivery_is_answered_when_all_that_it_brought_is_durable() {
    let mut scene = Scene::new().synced();
    let epochs = scene.puts(3);
    scene.host.slow = true;
    let first = scene.host.deliver(vec![plain(&epochs[0])]);
    let again = scene.host.deliver(vec![plain(&epochs[0])]);
    let second = scene.host.deliver(vec![plain(&epochs[1])]);
    let waiting = scene.host.deliver(vec![plain(&scene.other.log[0])]);
    assert_eq!(scene.host.taken.keys().collect::<Vec<_>>(), [&waiting], "what it brought is held");
    scene.host.finish();
    assert_eq!(scene.host.taken.get(&first).map(|taken| taken.taken), Some(1));
    assert!(!scene.host.taken.contains_key(&second), "it is in the commit that went out just now");
    scene.host.finish();
    assert_eq!(scene.host.taken.get(&second).map(|taken| taken.taken), Some(1));
    assert_eq!(scene.host.taken.get(&again).map(|taken| (taken.taken, taken.held)), Some((0, 1)));
}

#[test]
fn an_epoch_that_two_deliveries_bring_at_once_lets_both_wait() {
    let mut scene = Scene::new().synced();
    let epochs = scene.puts(2);
    scene.host.slow = true;
    scene.host.deliver(vec![plain(&epochs[0])]);
    let calls = [scene.host.deliver(vec![plain(&epochs[1])]), scene.host.deliver(vec![plain(&epochs[1])])];
    scene.host.finish();
    assert!(!calls.iter().any(|call| scene.host.taken.contains_key(call)));
    scene.host.finish();
    assert!(calls.iter().all(|call| scene.host.taken[call].taken == 1));
}

#[test]
fn values_and_hosts_wait_with_their_epoch() {
    let mut scene = Scene::new().synced();
    let epochs = scene.puts(2);
    scene.deliver(vec![arrived(&epochs[1], &[b"value 1", b"value 0", b"junk"], &[7, 8])]);
    scene.deliver(vec![arrived(&epochs[1], &[], &[9])]);
    scene.deliver(vec![arrived(&epochs[0], &[b"value 0"], &[6])]);
    assert_eq!(scene.last_values(), [[b"value 0".to_vec()], [b"value 1".to_vec()]]);
    let told: Vec<BTreeSet<HostKey>> = scene.host.commits.last().expect("one").iter().map(|l| l.told.clone()).collect();
    let hosts = |seeds: &[u8]| seeds.iter().map(|seed| HostKey([*seed; 32])).collect::<BTreeSet<_>>();
    assert_eq!(told, [hosts(&[6]), hosts(&[7, 8, 9])], "who brought it twice is united");
}

#[test]
fn values_that_come_with_a_second_copy_are_kept() {
    let mut scene = Scene::new().synced();
    let epochs = scene.puts(2);
    scene.deliver(vec![plain(&epochs[1])]);
    scene.deliver(vec![arrived(&epochs[1], &[b"value 1"], &[])]);
    scene.deliver(vec![plain(&epochs[0])]);
    assert_eq!(scene.last_values(), [vec![], vec![b"value 1".to_vec()]]);
}

#[test]
fn own_epochs_are_told_to_nobody() {
    let mut scene = Scene::new();
    scene.puts(1);
    let own = scene.other.commits.last().expect("a commit");
    assert!(own.len() == 1 && own[0].told.is_empty() && own[0].values == [(hash(b"value 0"), "value 0".into())]);
}

#[test]
fn a_commit_carries_a_value_once_and_none_of_a_dead_write() {
    let mut scene = Scene::new().synced();
    let parents = scene.other.frontier();
    let one = scene.forged(1, parents.clone(), "a", b"same");
    let two = scene.forged(2, parents.clone(), "b", b"same");
    // Expired long before its epoch was made.
    let token = scene.session.invocation("c", "put", START_MS - 120_000, &[]);
    let events = vec![put_event(&token, b"dead")];
    let dead = Draft { incarnation: 3, parents, seq: clock(START_MS) + 5000, events, ..Draft::default() };
    let dead = scene.forger.epoch(dead);
    scene.deliver(vec![
        arrived(&one, &[b"same"], &[]),
        arrived(&two, &[b"same"], &[]),
        arrived(&dead, &[b"dead"], &[]),
    ]);
    assert_eq!(scene.last_values(), [vec![b"same".to_vec()], vec![], vec![]]);
}

#[test]
fn a_value_that_is_too_large_for_the_log_is_not_carried() {
    let mut scene = Scene::new().synced();
    let size = usize::try_from(INLINE_BYTES_MAX).expect("small");
    let (fits, large) = (vec![1_u8; size], vec![2_u8; size + 1]);
    let parents = scene.other.frontier();
    let one = scene.forged(1, parents.clone(), "a", &fits);
    let two = scene.forged(2, parents, "b", &large);
    scene.deliver(vec![arrived(&one, &[&fits], &[]), arrived(&two, &[&large], &[])]);
    assert_eq!(scene.last_values(), [vec![fits], vec![]]);
}

#[test]
fn a_value_of_another_size_than_its_event_says_is_not_carried() {
    let mut scene = Scene::new().synced();
    let token = scene.session.invocation("a", "put", START_MS + 60_000, &[]);
    let mut lying = put_event(&token, b"bytes");
    lying.values = vec![Value { size: 4, ..lying.values[0].clone() }];
    let parents = scene.other.frontier();
    let epoch =
        scene.forger.epoch(Draft { parents, seq: clock(START_MS) + 5000, events: vec![lying], ..Draft::default() });
    scene.deliver(vec![arrived(&epoch, &[b"bytes", b"byte"], &[])]);
    assert_eq!(scene.last_values(), [Vec::<Vec<u8>>::new()]);
}

#[test]
fn what_one_commit_takes_is_bounded_and_the_own_batch_goes_with_the_first() {
    let mut scene = Scene::new().synced();
    let epochs = scene.puts(2 * COMMIT_EPOCHS_MAX + 10);
    scene.host.take_token(scene.owner.host_delegation(&scene.host.did())).expect("it hosts the space");
    scene.host.slow = true;
    scene.host.put_and_wait(&scene.session, "own");
    let call = scene.host.deliver(epochs.iter().map(plain).collect());
    let put = scene.session.put_write(&scene.host, "queued", b"mine");
    let put = scene.host.send(put);
    scene.host.finish();
    assert_eq!(scene.host.out.as_ref().map(|commit| commit.epochs.len()), Some(COMMIT_EPOCHS_MAX + 1));
    scene.host.finish();
    assert!(scene.host.reply(put).is_some_and(|reply| reply.is_ok()), "own writes do not wait for all of a delivery");
    assert!(!scene.host.taken.contains_key(&call));
    scene.host.finish();
    assert!(!scene.host.taken.contains_key(&call), "the rest is out");
    scene.host.finish();
    assert_eq!(scene.host.taken[&call], Taken { taken: epochs.len(), ..Taken::default() });
}

#[test]
fn the_bytes_of_one_commit_are_bounded() {
    let mut scene = Scene::new().synced();
    let size = usize::try_from(INLINE_BYTES_MAX).expect("small");
    let parents = scene.other.frontier();
    let values: Vec<Vec<u8>> = (0..40_u8).map(|number| vec![number; size]).collect();
    let forged = |number: usize| scene.forged(number as u64, parents.clone(), &format!("k{number}"), &values[number]);
    let epochs: Vec<_> = (0..40).map(forged).collect();
    scene.host.slow = true;
    let call =
        scene.host.deliver(epochs.iter().zip(&values).map(|(epoch, value)| arrived(epoch, &[value], &[])).collect());
    let mut epochs = Vec::new();
    while let Some(commit) = &scene.host.out {
        let values = commit.epochs.iter().flat_map(|logged| &logged.values).map(|(_, bytes)| bytes.len());
        assert!(values.sum::<usize>() <= COMMIT_BYTES_MAX);
        epochs.push(commit.epochs.len());
        scene.host.finish();
    }
    assert_eq!(epochs, [31, 9], "thirty-two values and their epochs would be too much");
    assert_eq!(scene.host.taken[&call].taken, 40);
}

#[test]
fn epochs_that_can_never_be_of_this_space_do_not_enter_the_waiting_room() {
    let mut scene = Scene::new().synced();
    let nowhere = vec![EpochId([7; 32])];
    let elsewhere = Owner::new(9);
    let token = elsewhere.session(4).invocation("k", "put", START_MS + 60_000, &[]);
    let events = vec![put_event(&token, b"x")];
    let draft = || Draft { parents: nowhere.clone(), seq: clock(START_MS), events: events.clone(), ..Draft::default() };
    let other_space = Forger::new(&elsewhere, 5).epoch(draft());
    let no_host = Forger { proof: None, ..Forger::new(&scene.owner, 5) }.epoch(draft());
    let taken = scene.deliver(vec![plain(&other_space), plain(&no_host), plain(&no_host)]);
    let refused = vec![(id(&other_space), Invalid::Space), (id(&no_host), Invalid::Host)];
    assert_eq!(taken, Taken { refused: refused.clone(), ..Taken::default() });
    assert_eq!(scene.host.refused, refused);
}

#[test]
fn what_is_refused_is_told_to_the_delivery_that_unlocked_it() {
    let mut scene = Scene::new().synced();
    let epochs = scene.puts(1);
    let mut early = scene.forged(1, vec![id(&epochs[0])], "a", b"x");
    early = scene.forger.epoch(Draft {
        incarnation: 1,
        parents: vec![id(&epochs[0])],
        seq: 5,
        events: Epoch::decode_unsigned(early).expect("well formed").events,
        ..Draft::default()
    });
    assert_eq!(scene.deliver(vec![plain(&early)]).waiting, 1);
    let taken = scene.deliver(vec![plain(&epochs[0])]);
    assert_eq!(taken, Taken { taken: 1, refused: vec![(id(&early), Invalid::Seq)], ..Taken::default() });
}

#[test]
fn the_room_is_bounded_and_a_hostile_host_does_not_keep_an_honest_join_out() {
    let mut scene = Scene::new();
    let history = scene.puts(40);
    let history: Vec<_> =
        scene.other.log[..scene.other.log.len() - history.len()].iter().chain(&history).cloned().collect();
    // Each lacks as much as an epoch can name.
    let lacking =
        |number: u16| (0..64_u16).map(|at| EpochId::of(&[number.to_be_bytes(), at.to_be_bytes()].concat())).collect();
    let token = scene.session.invocation("k", "put", START_MS + 60_000, &[]);
    let epochs: Vec<_> = (0..WAITING_EPOCHS_MAX as u16 + 100)
        .map(|number| {
            let (parents, events) = (lacking(number), vec![put_event(&token, b"x")]);
            let seq = clock(START_MS) + u64::from(number);
            plain(&scene.forger.epoch(Draft { parents, seq, events, ..Draft::default() }))
        })
        .collect();
    let (before, after) = epochs.split_at(epochs.len() - 50);
    let taken = scene.deliver(before.to_vec());
    assert_eq!((taken.waiting, taken.missing.len()), (WAITING_EPOCHS_MAX, NAMES_MAX));
    let (first, rest) = history.split_at(20);
    assert_eq!(scene.deliver(first.iter().map(plain).collect()).taken, first.len());
    assert_eq!(scene.deliver(after.to_vec()).waiting, WAITING_EPOCHS_MAX);
    assert_eq!(scene.deliver(rest.iter().map(plain).collect()).taken, rest.len());
    assert_eq!(scene.host.frontier(), scene.other.frontier());
}

#[test]
fn values_in_the_room_count_and_give_way_with_their_epochs() {
    let mut scene = Scene::new().synced();
    let size = usize::try_from(INLINE_BYTES_MAX).expect("small");
    let values: Vec<Vec<u8>> = (0..100_u8).map(|number| vec![number; size]).collect();
    let forged = |number: usize| {
        let parents = vec![EpochId::of(&number.to_be_bytes())];
        arrived(&scene.forged(number as u64, parents, &format!("k{number}"), &values[number]), &[&values[number]], &[])
    };
    let epochs: Vec<_> = (0..100).map(forged).collect();
    let last = epochs.last().map(|epoch| epoch.checked.epoch().id);
    let mut waiting = 0;
    for epoch in epochs {
        waiting = scene.deliver(vec![epoch]).waiting;
    }
    assert_eq!(scene.host.core.waiting().last().map(|waiting| waiting.epoch), last, "the oldest gave way");
    assert_eq!(waiting, WAITING_BYTES_MAX / size - 1, "as many as find room with their values");
}

#[test]
fn whoever_takes_most_of_a_full_room_gives_way_and_is_told() {
    let mut scene = Scene::new().synced();
    let parents = scene.host.frontier();
    let honest = scene.puts(1);
    let size = usize::try_from(INLINE_BYTES_MAX).expect("small");
    let pushes: Vec<Vec<u8>> = (0..100_u8).map(|number| vec![number; size]).collect();
    let push = |number: usize| {
        let epoch = scene.forged(number as u64, parents.clone(), &format!("k{number}"), &pushes[number]);
        arrived(&epoch, &[&pushes[number]], &[])
    };
    let (pushes, others): (Vec<_>, Vec<_>) = ((0..96).map(push).collect(), (96..100).map(push).collect());
    scene.host.slow = true;
    scene.deliver_from(6, vec![plain(&honest[0])]);
    assert!(scene.host.out.is_some());
    let greedy = scene.deliver_from(7, pushes);
    let modest = scene.deliver_from(6, others);
    scene.host.finish_all();
    assert_eq!(scene.host.taken[&modest], Taken { taken: 4, ..Taken::default() });
    let room = WAITING_BYTES_MAX / size - 1 - 4;
    assert_eq!(scene.host.taken[&greedy], Taken { taken: room, dropped: 96 - room, ..Taken::default() });
}

#[test]
fn a_host_whose_epochs_all_wait_pushes_out_its_own_only() {
    let mut scene = Scene::new().synced();
    let epochs = scene.puts(2);
    scene.deliver_from(6, vec![plain(&epochs[1])]);
    let waits = |number: usize| {
        plain(&scene.forged(number as u64, vec![EpochId::of(&number.to_be_bytes())], &format!("k{number}"), b"x"))
    };
    let many = (0..WAITING_EPOCHS_MAX + 50).map(waits).collect();
    let call = scene.deliver_from(7, many);
    assert_eq!(scene.host.taken[&call].waiting, WAITING_EPOCHS_MAX);
    let call = scene.deliver_from(6, vec![plain(&epochs[0])]);
    assert_eq!(scene.host.taken[&call].taken, 2);
}

#[test]
fn junk_beside_an_epoch_and_the_same_epoch_a_thousand_times_change_nothing() {
    let mut scene = Scene::new().synced();
    let epochs = scene.puts(1);
    let junk: Vec<Vec<u8>> = (0..4096_u32).map(|number| number.to_be_bytes().repeat(2)[..7].to_vec()).collect();
    let junk: Vec<&[u8]> = junk.iter().map(Vec::as_slice).chain([&b"value 0"[..]]).collect();
    let mut copies = vec![arrived(&epochs[0], &junk, &[])];
    for number in 0..1000_u32 {
        let told = HostKey(*hash(&number.to_be_bytes()).as_bytes());
        copies.push(Arrived { told: [told].into(), ..arrived(&epochs[0], &[b"value 0"], &[]) });
    }
    assert_eq!(scene.deliver(copies), Taken { taken: 1, ..Taken::default() });
    assert_eq!(scene.last_values(), [[b"value 0".to_vec()]]);
    assert_eq!(scene.host.commits.last().expect("one")[0].told.len(), TOLD_MAX);
}

/// A host whose key and chain another process has as well: both go on from the same epoch.
fn clone_of(host: &Host, owner: &Owner, incarnation: Incarnation) -> Host {
    let mut clone = Host::new(owner, 2);
    clone.log.clone_from(&host.log);
    clone.open(incarnation);
    clone
}

#[test]
fn epochs_of_the_own_key_that_this_log_does_not_hold_are_taken_in() {
    let owner = Owner::new(1);
    let session = owner.session(4);
    let mut host = Host::hosting(&owner, 2);
    host.take_token(session.delegation.clone()).expect("taken in");
    let mut restored = clone_of(&host, &owner, Incarnation([9; 8]));
    host.put(&session, "lost", b"before the backup was restored").expect("written");
    restored.put(&session, "new", b"x").expect("written");
    restored.receive(host.log.clone());
    assert!(!restored.core.is_cloned(), "of another incarnation: that is its own past");
    restored.put(&session, "on", b"y").expect("written");
    host.receive(restored.log.clone());
    assert_eq!((host.frontier(), host.entries()), (restored.frontier(), restored.entries()));
    assert_eq!((host.frontier().len(), host.core.dag().forks().len()), (1, 0));
}

#[test]
fn a_fork_of_the_own_chain_leaves_both_branches_and_the_own_goes_on() {
    let owner = Owner::new(1);
    let session = owner.session(4);
    let mut host = Host::hosting(&owner, 2);
    host.take_token(session.delegation.clone()).expect("taken in");
    let mut clone = clone_of(&host, &owner, Incarnation([2; 8]));
    host.put(&session, "a", b"mine").expect("written");
    clone.put(&session, "b", b"its").expect("written");
    let own = host.frontier();
    host.receive(clone.log.clone());
    assert_eq!((host.core.dag().forks().len(), host.frontier().len()), (1, 2));
    assert!(host.core.is_cloned() && host.refused.is_empty());
    host.put(&session, "c", b"on").expect("written");
    let last = Epoch::decode(host.log.last().expect("an epoch").clone()).expect("well formed");
    assert_eq!((last.header.prev, last.header.n), (Some(own[0]), 3), "the own chain goes on from its own last epoch");
    assert_eq!(host.frontier(), [last.id]);
    clone.receive(host.log.clone());
    assert_eq!((clone.frontier(), clone.entries()), (host.frontier(), host.entries()));
}

#[test]
fn a_chain_that_somebody_else_goes_on_with_is_forked_and_not_followed() {
    let owner = Owner::new(1);
    let session = owner.session(4);
    let mut host = Host::hosting(&owner, 2);
    host.take_token(session.delegation.clone()).expect("taken in");
    let mut clone = clone_of(&host, &owner, Incarnation([2; 8]));
    let own = host.frontier();
    for value in [b"1", b"2", b"3"] {
        clone.put(&session, "b", value).expect("written");
    }
    host.receive(clone.log.clone());
    assert!(host.core.is_cloned());
    host.put(&session, "c", b"mine").expect("written");
    let last = Epoch::decode(host.log.last().expect("an epoch").clone()).expect("well formed");
    assert_eq!((last.header.prev, last.header.n), (Some(own[0]), 2));
    assert_eq!((host.core.dag().forks().len(), host.frontier()), (1, vec![last.id]));
}

#[test]
fn nothing_of_a_delivery_leaves_before_it_is_durable() {
    let scene = Scene::new();
    let Scene { mut host, other, .. } = scene;
    let epochs: Vec<_> = other.log.iter().map(plain).collect();
    host.core.handle_epochs(host.now(), &host.view, CallId(1), None, epochs).expect("sound");
    assert!(matches!(host.core.poll_output(), Some(Output::Commit(_))) && host.core.poll_output().is_none());
}
