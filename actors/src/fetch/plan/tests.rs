//! The rules of the plan, and that it ends well whatever most peers do.

use kvspace_protocol::{
    id::{Did, EpochId},
    sync::blob::GROUP_BYTES,
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use super::*;

const MIB: u64 = 1024 * 1024;

fn place(name: &str) -> Occurrence {
    let space = SpaceId::new(&Did::from_ed25519(&[7; 32]), name).expect("a space id");
    Occurrence { space, epoch: EpochId::of(b"epoch") }
}

fn host(number: u8) -> HostKey {
    HostKey([number; 32])
}

fn key(number: u8, size: u64) -> BlobKey {
    BlobKey { hash: BlobHash([number; 32]), size }
}

/// A plan, its time, and who is connected.
struct World {
    plan: Plan,
    now: Millis,
    hosts: Vec<HostKey>,
}

impl World {
    fn new(hosts: u8) -> Self {
        Self { plan: Plan::new(Settings::default()), now: Millis(1_000_000), hosts: (0..hosts).map(host).collect() }
    }

    fn want(&mut self, key: BlobKey, urgency: Urgency) {
        assert!(self.plan.want(self.now, key, &place("default"), urgency, &Groups::default()));
    }

    fn poll(&mut self) -> Option<Ask> {
        let hosts = self.hosts.clone();
        self.plan.poll(self.now, &|_| hosts.clone())
    }

    fn poll_all(&mut self) -> Vec<Ask> {
        std::iter::from_fn(|| self.poll()).collect()
    }

    fn end(&mut self, ask: &Ask, end: End) -> bool {
        let got = if end == End::Whole { ask.groups.clone() } else { ask.groups.start..ask.groups.start };
        self.plan.handle_end(self.now, ask.call, got, end)
    }

    fn come(&mut self, number: u8) {
        self.plan.handle_peer(&host(number), &BTreeSet::from([place("default").space]));
    }

    fn want_at(&mut self, number: u8, space: &str, urgency: Urgency) -> bool {
        self.plan.want(self.now, key(number, 10), &place(space), urgency, &Groups::default())
    }

    fn pass(&mut self, delay_ms: i64) {
        self.now = self.now.plus(delay_ms);
    }
}

#[test]
fn a_value_is_cut_into_stripes_of_a_mebibyte() {
    let mut world = World::new(4);
    world.want(key(1, 2 * MIB + 1), Urgency::Soon);
    let groups: Vec<_> = world.poll_all().into_iter().map(|ask| ask.groups).collect();
    assert_eq!(groups, [0..64, 64..128, 128..129]);
}

#[test]
fn what_is_here_already_is_not_asked_for() {
    let mut world = World::new(4);
    let mut had = Groups::default();
    had.insert(0..70);
    had.insert(80..128);
    world.plan.want(world.now, key(1, 2 * MIB), &place("default"), Urgency::Soon, &had);
    let asks = world.poll_all();
    assert_eq!((asks.len(), asks[0].groups.clone()), (1, 70..80));
    assert!(world.end(&asks[0], End::Whole), "then it is complete");
}

#[test]
fn a_value_that_only_lacks_its_name_is_finished_by_its_last_group() {
    let mut world = World::new(1);
    let had = Groups::of_size(MIB);
    world.plan.want(world.now, key(1, MIB), &place("default"), Urgency::Soon, &had);
    let ask = world.poll().expect("a request");
    assert_eq!(ask.groups, 63..64);
    assert!(world.end(&ask, End::Whole));
}

#[test]
fn no_peer_has_more_than_two_stripes_and_no_value_more_than_four_peers() {
    let mut world = World::new(6);
    world.want(key(1, 100 * MIB), Urgency::Soon);
    let asks = world.poll_all();
    let peers: BTreeSet<HostKey> = asks.iter().map(|ask| ask.peer).collect();
    assert_eq!((asks.len(), peers.len()), (8, 4));
    world.want(key(2, 100 * MIB), Urgency::Soon);
    let more = world.poll_all();
    assert_eq!(more.len(), 4, "two peers are free");
    assert!(more.iter().all(|ask| !peers.contains(&ask.peer) && ask.key == key(2, 100 * MIB)));
}

#[test]
fn so_many_stripes_are_under_way_and_no_more() {
    let mut world = World::new(100);
    (0..50).for_each(|number| world.want(key(number, 100), Urgency::Soon));
    assert_eq!(world.poll_all().len(), 32);
}

#[test]
fn a_space_has_a_quarter_of_the_requests_while_others_want_something() {
    let mut world = World::new(100);
    (0..50).for_each(|number| assert!(world.want_at(number, "greedy", Urgency::Now)));
    (50..58).for_each(|number| assert!(world.want_at(number, "other", Urgency::Soon)));
    let asks = world.poll_all();
    let of = |name: &str| asks.iter().filter(|ask| ask.at == place(name)).count();
    assert_eq!((of("greedy"), of("other")), (24, 8), "what others leave is not left unused");
    assert!(asks[..8].iter().all(|ask| ask.at == place("greedy")));
    assert!(asks[8..16].iter().all(|ask| ask.at == place("other")));
}

#[test]
fn values_whose_hosts_are_at_work_do_not_stand_in_front_of_others() {
    let mut world = World::new(0);
    let hosts = |space: &SpaceId| {
        let is_other = *space == place("other").space;
        if is_other { vec![host(9)] } else { vec![host(1), host(2)] }
    };
    let want = |world: &mut World, number: u16, name: &str| {
        let mut hash = [0; 32];
        hash[..2].copy_from_slice(&number.to_be_bytes());
        let key = BlobKey { hash: BlobHash(hash), size: 10 };
        assert!(world.plan.want(world.now, key, &place(name), Urgency::Soon, &Groups::default()));
    };
    (0..1_000).for_each(|number| want(&mut world, number, "full"));
    // One host has as much as it may; of the other it is known that it has none of the first ones.
    let mut refused = 0;
    while let Some(ask) = world.plan.poll(world.now, &hosts) {
        if ask.peer == host(2) && refused < 700 {
            refused += 1;
            world.end(&ask, End::NotFound);
        }
    }
    for peer in [1, 2].map(host) {
        assert_eq!(world.plan.peers[&peer].flights, 2, "both are full");
    }
    want(&mut world, 2_000, "other");
    assert_eq!(world.plan.poll(world.now, &hosts).map(|ask| ask.peer), Some(host(9)));
    // The other one becomes free and is asked for nothing it does not have: a few looks pass over what is blocked.
    let free: Vec<Call> = world.plan.flights.iter().filter(|(_, f)| f.peer == host(2)).map(|(call, _)| *call).collect();
    for call in free {
        world.plan.handle_end(world.now, call, 0..0, End::NotFound);
    }
    want(&mut world, 2_001, "other");
    let asked: Vec<HostKey> = (0..8).flat_map(|_| world.plan.poll(world.now, &hosts)).map(|ask| ask.peer).collect();
    assert!(asked.contains(&host(9)), "{asked:?}");
}

#[test]
fn what_somebody_waits_for_comes_first() {
    let mut world = World::new(1);
    world.want(key(1, 10 * MIB), Urgency::Soon);
    world.want(key(2, 10), Urgency::Now);
    assert_eq!(world.poll().expect("a request").key, key(2, 10));
    world.want(key(3, 10), Urgency::Soon);
    assert_eq!(world.poll().expect("a request").key, key(1, 10 * MIB), "then in the order of arrival");
    let mut world = World::new(1);
    world.want(key(1, 10 * MIB), Urgency::Soon);
    world.want(key(3, 10), Urgency::Soon);
    world.want(key(3, 10), Urgency::Now);
    assert_eq!(world.poll().expect("a request").key, key(3, 10), "it became urgent");
}

#[test]
fn what_a_peer_did_not_bring_is_asked_of_another() {
    let mut world = World::new(2);
    world.want(key(1, 10), Urgency::Soon);
    let first = world.poll().expect("a request");
    world.end(&first, End::Broken);
    let second = world.poll().expect("a request");
    assert_ne!(second.peer, first.peer);
    world.end(&second, End::NotFound);
    assert_eq!(world.poll(), None, "both are left alone for a while");
    let wake = world.plan.poll_timeout().expect("a time");
    assert_eq!(wake, world.now.plus(Settings::default().again_ms));
    world.now = wake;
    assert!(world.poll().is_some());
}

#[test]
fn the_pause_grows_while_nobody_has_it_and_a_peer_that_comes_ends_it() {
    let mut world = World::new(1);
    world.want(key(1, 10), Urgency::Soon);
    for pause_ms in [2_000, 4_000, 8_000, 16_000] {
        let ask = world.poll().expect("a request");
        world.end(&ask, End::NotFound);
        world.pass(pause_ms - 1);
        assert_eq!(world.poll(), None, "{pause_ms}");
        world.pass(1);
    }
    let ask = world.poll().expect("a request");
    world.end(&ask, End::NotFound);
    assert_eq!(world.poll(), None);
    world.come(0);
    assert!(world.poll().is_some());
}

#[test]
fn a_value_is_asked_for_as_soon_as_a_host_comes() {
    let mut world = World::new(0);
    world.want(key(1, 10), Urgency::Soon);
    assert_eq!(world.poll(), None);
    world.hosts.push(host(1));
    world.come(1);
    assert!(world.poll().is_some());
}

#[test]
fn a_peer_that_hosts_nothing_wanted_wakes_nothing() {
    let mut world = World::new(1);
    world.want(key(1, 10), Urgency::Soon);
    let ask = world.poll().expect("a request");
    world.end(&ask, End::NotFound);
    assert_eq!(world.poll(), None);
    world.plan.handle_peer(&host(0), &BTreeSet::from([place("other").space]));
    assert_eq!((world.plan.ready.len(), world.poll()), (0, None));
    assert_eq!(world.plan.spaces(), BTreeSet::from([place("default").space]));
}

#[test]
fn a_peer_that_lied_is_not_asked_for_that_value_for_an_hour() {
    let mut world = World::new(1);
    world.want(key(1, 10), Urgency::Soon);
    let ask = world.poll().expect("a request");
    world.end(&ask, End::Bad);
    world.come(0);
    world.want(key(1, 10), Urgency::Now);
    world.pass(3_599_999);
    assert_eq!(world.poll(), None);
    world.want(key(2, 10), Urgency::Soon);
    assert_eq!(world.poll().map(|ask| ask.key), Some(key(2, 10)), "other values it may bring");
    world.pass(1);
    assert_eq!(world.poll().map(|ask| ask.key), Some(key(1, 10)));
    assert_eq!((world.plan.bad(), world.plan.culprits()[&host(0)]), (1, 1));
}

#[test]
fn a_busy_peer_is_left_alone_for_all_values() {
    let mut world = World::new(1);
    world.want(key(1, 10), Urgency::Soon);
    let ask = world.poll().expect("a request");
    world.end(&ask, End::Busy);
    world.want(key(2, 10), Urgency::Now);
    assert_eq!(world.poll(), None);
    assert_eq!(world.plan.poll_timeout(), Some(world.now.plus(1_000)));
    world.pass(1_000);
    assert_eq!(world.poll_all().len(), 2);
}

#[test]
fn a_stripe_that_takes_long_is_asked_of_a_second_peer_and_the_first_answer_ends_the_other() {
    let mut world = World::new(3);
    world.want(key(1, 10), Urgency::Soon);
    let first = world.poll().expect("a request");
    assert_eq!(world.poll(), None, "not at once");
    assert_eq!(world.plan.poll_timeout(), Some(world.now.plus(2_000)));
    world.pass(2_000);
    let second = world.poll().expect("a request");
    assert_ne!(second.peer, first.peer);
    assert_eq!(second.groups, first.groups);
    world.pass(2_000);
    assert_eq!(world.poll(), None, "twice is enough");
    assert!(world.end(&second, End::Whole));
    assert_eq!(world.plan.poll_cancel(), Some(first.call));
    assert!(!world.end(&first, End::Whole), "what comes too late says nothing");
}

#[test]
fn who_waits_has_long_pauses_cut_short() {
    let mut world = World::new(1);
    world.want(key(1, 10), Urgency::Soon);
    for _ in 0..8 {
        let ask = world.poll().expect("a request");
        world.end(&ask, End::NotFound);
        world.pass(600_000);
    }
    let ask = world.poll().expect("a request");
    world.end(&ask, End::NotFound);
    world.pass(100_000);
    assert_eq!(world.poll(), None);
    world.want(key(1, 10), Urgency::Now);
    assert_eq!(world.poll(), None, "but not away");
    world.pass(2_000);
    assert!(world.poll().is_some());
}

#[test]
fn a_value_is_asked_for_in_each_space_it_stands_in() {
    let mut world = World::new(1);
    world.want(key(1, 10), Urgency::Soon);
    assert!(world.plan.want(world.now, key(1, 10), &place("other"), Urgency::Soon, &Groups::default()));
    let first = world.poll().expect("a request");
    world.end(&first, End::NotFound);
    let second = world.poll().expect("a request");
    assert_ne!(first.at, second.at);
}

#[test]
fn a_place_where_somebody_waits_is_taken_though_there_are_many() {
    let mut world = World::new(0);
    let hosts = |space: &SpaceId| if *space == place("fifth").space { vec![host(1)] } else { Vec::new() };
    for name in ["first", "second", "third", "fourth"] {
        assert!(world.want_at(1, name, Urgency::Soon));
    }
    assert!(world.want_at(1, "fifth", Urgency::Now));
    assert_eq!(world.plan.poll(world.now, &hosts).map(|ask| ask.at), Some(place("fifth")));
}

#[test]
fn a_place_that_brings_nothing_gives_way_to_another_one() {
    let mut world = World::new(0);
    let hosts = |space: &SpaceId| match () {
        () if *space == place("first").space => vec![host(1)],
        () if *space == place("fifth").space => vec![host(5)],
        () => Vec::new(),
    };
    for name in ["first", "second", "third", "fourth"] {
        assert!(world.want_at(1, name, Urgency::Soon));
    }
    world.want_at(1, "fifth", Urgency::Soon);
    let ask = world.plan.poll(world.now, &hosts).expect("a request");
    assert_eq!((&ask.at, world.plan.poll(world.now, &hosts)), (&place("first"), None));
    world.end(&ask, End::NotFound);
    assert_eq!(world.plan.poll(world.now, &hosts), None, "until then nothing was known against the others");
    world.want_at(1, "fifth", Urgency::Soon);
    assert_eq!(world.plan.poll(world.now, &hosts).map(|ask| ask.at), Some(place("fifth")));
    assert!(world.plan.blobs[&key(1, 10)].at.contains(&place("first")), "a deserted place went first");
}

#[test]
fn who_said_that_it_does_not_have_a_value_is_known_until_it_comes_again() {
    let mut world = World::new(2);
    world.want(key(1, 10), Urgency::Soon);
    let first = world.poll().expect("a request");
    world.end(&first, End::NotFound);
    let second = world.poll().expect("a request");
    world.end(&second, End::Broken);
    let missing = |world: &World, name: &str| world.plan.missing_at(&BlobHash([1; 32]), &place(name).space);
    assert_eq!(missing(&world, "default"), BTreeSet::from([first.peer]), "trouble says nothing");
    assert_eq!(missing(&world, "other"), BTreeSet::new());
    world.come(first.peer.0[0]);
    assert_eq!(missing(&world, "default"), BTreeSet::new());
}

#[test]
fn what_is_lost_is_asked_for_all_over_again() {
    let mut world = World::new(1);
    world.want(key(1, 2 * MIB), Urgency::Soon);
    let asks = world.poll_all();
    assert_eq!(asks.len(), 2);
    assert!(!world.end(&asks[0], End::Whole) && !world.end(&asks[1], End::Lost));
    world.pass(10_000);
    let again: Vec<_> = world.poll_all().into_iter().map(|ask| ask.groups).collect();
    assert_eq!(again, [0..64, 64..128]);
}

#[test]
fn what_is_forgotten_is_not_asked_for_and_its_requests_end() {
    let mut world = World::new(1);
    world.want(key(1, 10), Urgency::Soon);
    world.want(key(1, 11), Urgency::Soon);
    let ask = world.poll().expect("a request");
    world.plan.forget(&ask.key.hash);
    assert_eq!(world.plan.poll_cancel(), Some(ask.call));
    assert_eq!((world.plan.wanted(), world.poll()), (0, None));
    world.want(key(2, 10), Urgency::Soon);
    world.want(key(3, 10), Urgency::Soon);
    assert_eq!(world.poll_all().len(), 2, "the peer is free");
}

#[test]
fn trouble_with_the_disk_pauses_the_value_and_a_loss_begins_it_anew() {
    let mut world = World::new(2);
    world.want(key(1, 10), Urgency::Soon);
    let ask = world.poll().expect("a request");
    assert!(!world.end(&ask, End::Disk));
    assert_eq!(world.poll(), None);
    world.pass(10_000);
    let ask = world.poll().expect("a request");
    assert!(world.end(&ask, End::Whole));
    assert_eq!(world.poll(), None, "it is getting its name");
    world.plan.handle_lost(world.now, ask.key);
    assert_eq!(world.poll(), None);
    world.pass(10_000);
    let ask = world.poll().expect("a request");
    assert!(world.end(&ask, End::Whole));
    world.plan.handle_placed(ask.key);
    assert_eq!((world.plan.wanted(), world.plan.poll_timeout()), (0, None));
}

#[test]
fn only_so_much_is_wanted_and_what_is_urgent_finds_room() {
    let mut world = World::new(0);
    world.plan.settings.wants_max = 3;
    (1..=3).for_each(|number| world.want(key(number, 10), Urgency::Soon));
    let now = world.now;
    let mut want =
        |number, urgency| world.plan.want(now, key(number, 10), &place("default"), urgency, &Groups::default());
    assert!(!want(4, Urgency::Soon));
    assert!(want(5, Urgency::Now));
    assert!(want(1, Urgency::Soon), "what was wanted first stays");
    assert!(!want(3, Urgency::Soon), "what was wanted last made room");
    assert_eq!(world.plan.wanted(), 3);
}

#[test]
fn a_space_that_fills_the_list_gives_way_to_others_up_to_their_part() {
    let mut world = World::new(0);
    world.plan.settings.wants_max = 16;
    assert!((1..=16).all(|number| world.want_at(number, "greedy", Urgency::Soon)), "while there is room");
    assert!(!world.want_at(17, "greedy", Urgency::Soon));
    assert!(world.want_at(18, "other", Urgency::Soon) && world.want_at(19, "other", Urgency::Soon));
    assert!(!world.want_at(20, "other", Urgency::Soon), "it has its part");
    assert_eq!(world.plan.wanted(), 16);
    assert!(!world.plan.contains(&key(16, 10)) && world.plan.contains(&key(1, 10)), "the last ones gave way");
}

#[test]
fn what_nobody_has_gives_way_to_what_comes() {
    let mut world = World::new(1);
    world.plan.settings.wants_max = 8;
    (1..=8).for_each(|number| assert!(world.want_at(number, "default", Urgency::Soon)));
    for _ in 0..2 {
        let ask = world.poll().expect("a request");
        world.end(&ask, End::NotFound);
    }
    let asks = world.poll_all();
    assert_eq!(asks.len(), 2);
    for ask in &asks {
        world.end(ask, End::Broken);
    }
    world.poll_all();
    assert!(world.want_at(9, "default", Urgency::Soon) && world.want_at(10, "default", Urgency::Soon));
    assert!(!world.plan.contains(&key(1, 10)) && !world.plan.contains(&key(2, 10)));
    assert!(!world.want_at(11, "default", Urgency::Soon), "of the others it is not known");
}

#[test]
fn a_value_of_any_claimed_size_takes_little_room() {
    let mut world = World::new(4);
    world.want(key(1, 1 << 48), Urgency::Soon);
    let asks = world.poll_all();
    assert_eq!(asks.len(), 8);
    assert!(asks.iter().all(|ask| ask.groups.end - ask.groups.start == 64));
}

/// How a peer behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Honest,
    Empty,
    Liar,
    Breaks,
    Busy,
    Stalls,
}

/// Peers of every kind and one honest one, values of many sizes, wishes and disappointments at random: everything wanted comes
/// whole in the end, and nobody is asked for a value about which he lied.
#[test]
fn everything_comes_while_one_honest_peer_stays() {
    for seed in 0..150 {
        let mut random = StdRng::seed_from_u64(seed);
        let kinds: Vec<Kind> = std::iter::once(Kind::Honest)
            .chain((0..random.random_range(0..6)).map(|_| match random.random_range(0..6) {
                0 => Kind::Honest,
                1 => Kind::Empty,
                2 => Kind::Liar,
                3 => Kind::Breaks,
                4 => Kind::Busy,
                _ => Kind::Stalls,
            }))
            .collect();
        let mut world = World::new(u8::try_from(kinds.len()).expect("few"));
        let mut wanted: BTreeMap<BlobKey, Groups> = BTreeMap::new();
        for number in 0..random.random_range(1..8) {
            let key = key(number, random.random_range(0..6 * MIB));
            let urgency = if random.random_bool(0.3) { Urgency::Now } else { Urgency::Soon };
            world.want(key, urgency);
            wanted.insert(key, Groups::default());
        }
        let mut flying: Vec<Ask> = Vec::new();
        let mut lied: BTreeSet<(HostKey, BlobKey)> = BTreeSet::new();
        let mut steps = 0;
        while !wanted.is_empty() {
            steps += 1;
            assert!(steps < 20_000, "seed {seed}: no progress with {kinds:?}");
            while let Some(call) = world.plan.poll_cancel() {
                flying.retain(|ask| ask.call != call);
            }
            for ask in world.poll_all() {
                assert!(!lied.contains(&(ask.peer, ask.key)), "seed {seed}: a liar is asked again");
                assert!(ask.groups.start < ask.groups.end, "seed {seed}");
                flying.push(ask);
            }
            let of_peer = |peer| flying.iter().filter(|ask| ask.peer == peer).count();
            assert!(flying.len() <= 32 && world.hosts.iter().all(|peer| of_peer(*peer) <= 2), "seed {seed}");
            let stalls = |ask: &Ask| kinds[usize::from(ask.peer.0[0])] == Kind::Stalls;
            let movable: Vec<usize> = (0..flying.len()).filter(|i| !stalls(&flying[*i])).collect();
            if movable.is_empty() {
                let wake = world.plan.poll_timeout();
                assert!(wake.is_some() || !flying.is_empty(), "seed {seed}: nothing to wait for");
                world.now = wake.unwrap_or(world.now).max(world.now.plus(1));
                if (wake.is_none() || random.random_bool(0.3)) && !flying.is_empty() {
                    let ask = flying.remove(0);
                    world.end(&ask, End::Broken);
                }
                continue;
            }
            let ask = flying.remove(movable[random.random_range(0..movable.len())]);
            world.pass(random.random_range(0..300));
            let Range { start, end } = ask.groups.clone();
            let part = start..random.random_range(start..=end);
            let (got, end) = match kinds[usize::from(ask.peer.0[0])] {
                Kind::Honest if random.random_bool(0.05) => (part, End::Broken),
                Kind::Honest => (ask.groups.clone(), End::Whole),
                Kind::Empty => (start..start, End::NotFound),
                Kind::Liar => {
                    lied.insert((ask.peer, ask.key));
                    // What else is under way with it was asked before.
                    flying.retain(|other| {
                        let is_same = (other.peer, other.key) == (ask.peer, ask.key);
                        if is_same {
                            world.plan.handle_end(world.now, other.call, 0..0, End::Broken);
                        }
                        !is_same
                    });
                    (part, End::Bad)
                }
                Kind::Breaks => (part, End::Broken),
                Kind::Busy | Kind::Stalls => (start..start, End::Busy),
            };
            let here = wanted.get_mut(&ask.key).expect("it is wanted");
            here.insert(got.clone());
            let is_complete = world.plan.handle_end(world.now, ask.call, got, end);
            assert_eq!(is_complete, *here == Groups::of_size(ask.key.size), "seed {seed}");
            if is_complete {
                world.plan.handle_placed(ask.key);
                wanted.remove(&ask.key);
                flying.retain(|other| other.key != ask.key);
            }
        }
        assert_eq!((world.plan.wanted(), world.plan.flights.len()), (0, 0), "seed {seed}");
        assert!(world.plan.peers.values().all(|peer| peer.flights == 0), "seed {seed}");
    }
}

#[test]
fn groups_are_of_the_protocols_size() {
    assert_eq!(Settings::default().stripe_groups * GROUP_BYTES, MIB);
}
