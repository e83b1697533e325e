use super::*;

const A: HostKey = HostKey([1; 32]);
const B: HostKey = HostKey([2; 32]);

fn address(number: u16) -> Multiaddr {
    format!("/ip4/192.0.2.1/tcp/{number}").parse().unwrap()
}

fn dialler(configured: &[(u16, Option<HostKey>)]) -> Dialler {
    Dialler::new(configured.iter().map(|(number, peer)| (address(*number), *peer)).collect(), 1)
}

fn failure(addresses: &[Multiaddr]) -> Failure {
    Failure { error: "nobody".to_owned(), addresses: addresses.to_vec(), stranger_at: None }
}

fn targets(dials: &[Dial]) -> Vec<Target> {
    dials.iter().map(|dial| dial.target).collect()
}

/// Fails every dial that is made, and gives the delays until the next.
fn delays_ms(dialler: &mut Dialler, count: usize) -> Vec<i64> {
    let mut now = Millis(0);
    let mut delays = Vec::new();
    for _ in 0..count {
        for dial in dialler.poll(now) {
            dialler.handle_failed(now, dial.target, failure(&dial.addresses));
        }
        let next = dialler.poll_timeout().unwrap();
        assert!(dialler.poll(next.plus(-1)).is_empty(), "it is not dialled before its time");
        delays.push(next.0 - now.0);
        now = next;
    }
    delays
}

#[test]
fn the_delay_doubles_up_to_five_minutes_and_is_spread() {
    for configured in [(1, Some(A)), (1, None)] {
        let delays = delays_ms(&mut dialler(&[configured]), 12);
        for (at, delay) in delays.iter().enumerate() {
            let middle = (1_000_i64 << at).min(300_000);
            assert!((middle / 2..=middle * 3 / 2).contains(delay), "{delay} ms after {at} failures");
        }
        assert!(delays.iter().enumerate().any(|(at, delay)| *delay != (1_000_i64 << at).min(300_000)));
    }
}

#[test]
fn only_a_connection_that_held_for_a_minute_starts_the_delay_again() {
    for (uptime_ms, is_short) in [(UPTIME_MS - 1, false), (UPTIME_MS, true)] {
        let mut dialler = dialler(&[(1, Some(A))]);
        delays_ms(&mut dialler, 8);
        dialler.handle_connected(Millis(0), A);
        dialler.handle_disconnected(Millis(uptime_ms), A);
        let delay_ms = dialler.poll_timeout().unwrap().0 - uptime_ms;
        assert_eq!(delay_ms <= DELAY_MIN_MS * 3 / 2, is_short, "{delay_ms} ms");
    }
}

#[test]
fn a_peer_is_dialled_at_all_its_addresses_and_once_at_a_time() {
    let mut dialler = dialler(&[(1, Some(A)), (2, Some(A))]);
    let dial = Dial { target: Target::Peer(A), addresses: vec![address(1), address(2)] };
    assert_eq!(dialler.poll(Millis(0)), [dial]);
    assert_eq!((dialler.poll(Millis(i64::MAX)), dialler.poll_timeout()), (vec![], None));
    dialler.handle_reached(Target::Peer(A), A, address(2));
    dialler.handle_connected(Millis(0), A);
    assert_eq!((dialler.poll(Millis(i64::MAX)), dialler.poll_timeout()), (vec![], None));
}

#[test]
fn sixteen_are_dialled_at_once() {
    let peers: Vec<_> = (0..40_u16).map(|number| (number, Some(HostKey([number.to_be_bytes()[1]; 32])))).collect();
    let mut dialler = dialler(&peers);
    let first = dialler.poll(Millis(0));
    assert_eq!((first.len(), dialler.poll_timeout()), (DIALS_MAX, None));
    dialler.handle_failed(Millis(0), first[0].target, failure(&[]));
    let next = dialler.poll(Millis(0));
    assert_eq!(next.len(), 1);
    assert!(!targets(&first).contains(&next[0].target), "another has its turn");
}

#[test]
fn an_address_without_an_id_is_dialled_until_its_peer_is_known() {
    let mut dialler = dialler(&[(1, None)]);
    assert_eq!(targets(&dialler.poll(Millis(0))), [Target::Seed(0)]);
    dialler.handle_reached(Target::Seed(0), A, address(1));
    dialler.handle_connected(Millis(0), A);
    assert!(dialler.infos()[0].is_configured);
    dialler.handle_disconnected(Millis(0), A);
    assert_eq!(targets(&dialler.poll(Millis(DELAY_MAX_MS))), [Target::Peer(A)]);
    // Now somebody else answers there.
    let failure = Failure { stranger_at: Some(address(1)), ..failure(&[address(1)]) };
    dialler.handle_failed(Millis(0), Target::Peer(A), failure);
    assert_eq!(targets(&dialler.poll(Millis(DELAY_MAX_MS))), [Target::Seed(0)]);
    dialler.handle_reached(Target::Seed(0), B, address(1));
    assert_eq!(dialler.infos().iter().map(|info| info.is_configured).collect::<Vec<_>>(), [false, true]);
}

#[test]
fn learnt_addresses_are_bounded_and_forgotten_and_configured_ones_are_not() {
    let mut dialler = dialler(&[(1, Some(A))]);
    dialler.handle_learnt(Millis(0), A, (2..20).map(address).collect(), Found::Told);
    let known: Vec<_> = dialler.poll(Millis(0)).remove(0).addresses;
    assert_eq!(known.len(), 1 + known::LEARNT_MAX);
    assert!(known.contains(&address(1)) && known.contains(&address(19)), "the newest are kept");
    dialler.handle_failed(Millis(0), Target::Peer(A), failure(&known[..2]));
    for round in 1..known::ADDRESS_FAILURES_MAX {
        assert_eq!(dialler.infos()[0].addresses.len(), known.len(), "after {round} failures");
        dialler.handle_failed(Millis(0), Target::Peer(A), failure(&known[..2]));
    }
    let left = &dialler.infos()[0].addresses;
    assert_eq!(left.len(), known.len() - 1);
    assert!(left.contains(&address(1).to_string()) && !left.contains(&known[1].to_string()));
}

#[test]
fn a_new_address_is_tried_at_once() {
    let mut dialler = dialler(&[(1, Some(A))]);
    delays_ms(&mut dialler, 9);
    dialler.handle_learnt(Millis(5), A, vec![address(1)], Found::Told);
    assert!(dialler.poll(Millis(5)).is_empty(), "a known one is not new");
    dialler.handle_learnt(Millis(5), A, vec![address(2)], Found::Told);
    assert_eq!(targets(&dialler.poll(Millis(5))), [Target::Peer(A)]);
}

#[test]
fn a_peer_that_told_its_address_is_dialled_only_if_it_is_wanted() {
    let mut dialler = dialler(&[]);
    dialler.set_wanted([A].into());
    assert!(dialler.poll(Millis(0)).is_empty(), "no address is known");
    dialler.handle_learnt(Millis(0), A, vec![address(1)], Found::Told);
    dialler.handle_learnt(Millis(0), B, vec![address(2)], Found::Told);
    assert_eq!(targets(&dialler.poll(Millis(0))), [Target::Peer(A)]);
    dialler.set_wanted([B].into());
    assert_eq!(targets(&dialler.poll(Millis(0))), [Target::Peer(B)]);
}

#[test]
fn a_discovered_peer_is_dialled_while_there_are_few_connections() {
    let mut dialler = dialler(&[]);
    dialler.handle_learnt(Millis(0), A, vec![address(1)], Found::Discovered);
    for number in 0..DISCOVERED_CONNECTIONS_MAX {
        dialler.handle_connected(Millis(0), HostKey([u8::try_from(number + 10).unwrap(); 32]));
    }
    assert!(dialler.poll(Millis(0)).is_empty());
    dialler.handle_disconnected(Millis(0), HostKey([10; 32]));
    assert_eq!(targets(&dialler.poll(Millis(0))), [Target::Peer(A)]);
    dialler.handle_failed(Millis(0), Target::Peer(A), failure(&[]));
    dialler.handle_undiscovered(A);
    assert!(dialler.poll(Millis(i64::MAX)).is_empty());
}

#[test]
fn a_peer_of_another_kind_is_not_sought_again() {
    let mut dialler = dialler(&[(1, Some(A))]);
    for peer in [A, B] {
        dialler.handle_learnt(Millis(0), peer, vec![address(3)], Found::Discovered);
        dialler.handle_connected(Millis(0), peer);
        dialler.handle_foreign(peer, "other".to_owned());
        dialler.handle_disconnected(Millis(0), peer);
        dialler.handle_learnt(Millis(0), peer, vec![address(4)], Found::Discovered);
    }
    assert!(dialler.poll(Millis(DELAY_MAX_MS / 2 - 1)).is_empty());
    let configured = Dial { target: Target::Peer(A), addresses: vec![address(1)] };
    assert_eq!(dialler.poll(Millis(DELAY_MAX_MS * 3 / 2)), [configured]);
    // A later version of it may be one.
    dialler.handle_learnt(Millis(0), B, vec![address(4)], Found::Told);
    dialler.handle_learnt(Millis(0), B, vec![address(4)], Found::Discovered);
    assert_eq!(targets(&dialler.poll(Millis(0))), [Target::Peer(B)]);
}

#[test]
fn a_blocked_peer_is_dialled_when_it_is_taken_back() {
    let mut dialler = dialler(&[(1, Some(A))]);
    delays_ms(&mut dialler, 9);
    dialler.set_blocked(Millis(0), A, Blocked::Yes);
    assert_eq!((dialler.poll(Millis(i64::MAX)), dialler.is_blocked(&A)), (vec![], true));
    dialler.set_blocked(Millis(7), A, Blocked::No);
    assert_eq!(targets(&dialler.poll(Millis(7))), [Target::Peer(A)]);
}

#[test]
fn a_renewed_peer_is_dialled_once_though_nobody_wants_it() {
    let mut dialler = dialler(&[]);
    dialler.handle_learnt(Millis(0), A, vec![address(1)], Found::Told);
    dialler.handle_connected(Millis(0), A);
    dialler.redial(Millis(0), A);
    dialler.handle_disconnected(Millis(3), A);
    assert_eq!(targets(&dialler.poll(Millis(3))), [Target::Peer(A)]);
    dialler.handle_failed(Millis(3), Target::Peer(A), failure(&[]));
    assert!(dialler.poll(Millis(i64::MAX)).is_empty());
}

#[test]
fn peers_of_no_use_are_forgotten_beyond_a_number() {
    let mut dialler = dialler(&[(1, Some(A))]);
    dialler.set_wanted([B].into());
    for number in 0..2_000_u32 {
        let mut key = [0; 32];
        key[..4].copy_from_slice(&number.to_be_bytes());
        dialler.handle_learnt(Millis(number.into()), HostKey(key), vec![address(2)], Found::Told);
        dialler.handle_learnt(Millis(0), B, vec![address(3)], Found::Told);
    }
    let infos = dialler.infos();
    assert_eq!(infos.len(), KNOWN_MAX);
    assert!([A, B].iter().all(|peer| infos.iter().any(|info| info.peer == *peer)));
}

#[test]
fn a_clock_that_was_set_back_does_not_stop_the_dials() {
    let mut dialler = dialler(&[(1, Some(A))]);
    let late = Millis(1_000_000_000_000);
    dialler.poll(late);
    dialler.handle_failed(late, Target::Peer(A), failure(&[]));
    assert_eq!(targets(&dialler.poll(Millis(0))), [Target::Peer(A)]);
}
