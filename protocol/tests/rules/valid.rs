//! Which epochs are valid, and which wait.

use super::*;

#[test]
fn an_epoch_of_another_space_or_of_no_host_is_refused() {
    let mut scene = Scene::new();
    let put = scene.put("k", b"one", &[]);
    let other = Owner::new(99);
    let elsewhere = Forger { space: other.space, ..Forger::new(&scene.owner, 3) };
    let draft = scene.on(&[&scene.root], vec![put]);
    assert_eq!(scene.refusal(&elsewhere.epoch(draft.clone())), Some(Invalid::Space));
    let unnamed = Forger { proof: None, ..Forger::new(&scene.owner, 3) };
    assert_eq!(scene.refusal(&unnamed.epoch(draft.clone())), Some(Invalid::Host));
    let borrowed = Forger { proof: scene.a.proof, ..Forger::new(&scene.owner, 3) };
    assert_eq!(scene.refusal(&borrowed.epoch(draft.clone())), Some(Invalid::Host), "named is another host");
    let absent = Forger::new(&scene.owner, 33);
    assert_eq!(scene.refusal(&absent.epoch(draft.clone())), Some(Invalid::Host), "its delegation is not in the log");
    let session = Forger { proof: Some(scene.session.delegation.address()), ..Forger::new(&scene.owner, 4) };
    assert_eq!(scene.refusal(&session.epoch(draft.clone())), Some(Invalid::Host), "a session is no host");
    assert_eq!(scene.refusal(&scene.b.epoch(draft)), None);
}

#[test]
fn a_host_delegation_holds_until_a_minute_after_its_expiry_and_not_before_it_begins() {
    let mut scene = Scene::new();
    let host = Forger::new(&scene.owner, 33);
    let mut claims = Claims::until(Millis(START_MS + 1000));
    claims.not_before = Some(Millis(START_MS + 500));
    claims.audience = Some(host.did());
    claims.capabilities.insert(format!("{}/space", scene.owner.space), vec!["tinycloud.space/host".into()]);
    let proof = verified(&claims, &scene.owner.key);
    let host = Forger { proof: Some(proof.address()), ..host };
    scene.mirror.now_ms += DAY_MS;
    for (incarnation, (at_ms, refusal)) in
        [(499, Some(Invalid::Host)), (500, None), (61_000, None), (61_001, Some(Invalid::Host))].into_iter().enumerate()
    {
        let incarnation = incarnation as u64;
        let draft = scene.on(&[&scene.root], vec![event(&proof)]);
        let draft = Draft { incarnation, seq: clock(START_MS + at_ms), ..draft };
        assert_eq!(scene.refusal(&host.epoch(draft)), refusal, "{at_ms}");
    }
}

#[test]
fn a_chain_runs_from_its_own_epoch_before_and_the_clock_never_back() {
    let mut scene = Scene::new();
    let first = scene.b.epoch(scene.on(&[&scene.root], vec![scene.put("k", b"one", &[])]));
    assert_eq!(scene.refusal(&first), None);
    let good = Draft { n: 1, prev: Some(id(&first)), ..scene.on(&[&first], vec![scene.put("k", b"two", &[])]) };
    let cases = [
        (Draft { n: 2, ..good.clone() }, Invalid::Prev),
        (Draft { incarnation: 1, ..good.clone() }, Invalid::Prev),
        (Draft { prev: Some(id(&scene.root)), parents: vec![id(&first)], ..good.clone() }, Invalid::Prev),
        (Draft { seq: seq(&first), ..good.clone() }, Invalid::Seq),
        (Draft { n: 0, prev: None, seq: seq(&first), ..good.clone() }, Invalid::Seq),
    ];
    for (draft, why) in cases {
        let epoch = scene.b.epoch(draft);
        assert_eq!(scene.refusal(&epoch), Some(why));
    }
    let taken_over = scene.a.epoch(good.clone());
    assert_eq!(scene.refusal(&taken_over), Some(Invalid::Prev), "of another host");
    let good = scene.b.epoch(good);
    assert_eq!(scene.refusal(&good), None);
}

#[test]
fn a_key_beyond_the_size_refuses_the_epoch() {
    let mut scene = Scene::new();
    let long = scene.b.epoch(scene.on(&[&scene.root], vec![scene.put(&"k".repeat(1025), b"one", &[])]));
    assert_eq!(scene.refusal(&long), Some(Invalid::Key));
    let longest = scene.b.epoch(scene.on(&[&scene.root], vec![scene.put(&"k".repeat(1024), b"one", &[])]));
    assert_eq!(scene.refusal(&longest), None);
}

#[test]
fn what_rests_on_a_refused_epoch_leaves_the_waiting_room() {
    let mut scene = Scene::new();
    let bad = scene.b.epoch(Draft {
        n: 7,
        prev: Some(id(&scene.root)),
        ..scene.on(&[&scene.root], vec![scene.put("k", b"1", &[])])
    });
    let child = scene.a.epoch(Draft { incarnation: 1, ..scene.on(&[&bad], vec![scene.put("k", b"2", &[])]) });
    let grandchild = scene.b.epoch(Draft { incarnation: 1, ..scene.on(&[&child], vec![scene.put("k", b"3", &[])]) });
    scene.receive(&grandchild);
    assert_eq!(scene.mirror.core.missing(), [id(&child)]);
    scene.receive(&child);
    assert_eq!(scene.mirror.core.missing(), [id(&bad)]);
    scene.receive(&bad);
    assert_eq!(scene.mirror.core.missing(), []);
}

#[test]
fn only_what_is_neither_held_nor_waiting_is_missing() {
    let mut scene = Scene::new();
    let one = scene.b.epoch(scene.on(&[&scene.root], vec![scene.put("k", b"1", &[])]));
    let two =
        scene.a.epoch(Draft { incarnation: 1, ..scene.on(&[&one, &scene.root], vec![scene.put("k", b"2", &[])]) });
    scene.receive(&two);
    assert_eq!(scene.mirror.core.missing(), [id(&one)]);
    scene.receive(&one);
    assert_eq!((scene.mirror.core.missing(), scene.mirror.frontier()), (vec![], vec![id(&two)]));
}

#[test]
fn nobody_fills_the_waiting_room_for_good() {
    let mut scene = Scene::new();
    let one = scene.b.epoch(scene.on(&[&scene.root], vec![scene.put("k", b"1", &[])]));
    let junk = |number: u64| {
        let parents = vec![EpochId::of(&number.to_be_bytes())];
        let events = vec![event(&scene.session.delegation)];
        // Half lack an ancestor, half are of the far future.
        let seq = if number.is_multiple_of(2) { clock(START_MS) } else { clock(START_MS + DAY_MS) };
        scene.b.epoch(Draft { incarnation: number, parents, seq, events, ..Draft::default() })
    };
    let junk: Vec<_> = (0..WAITING_EPOCHS_MAX as u64 + 10).map(junk).collect();
    for epoch in junk {
        scene.receive(&epoch);
    }
    scene.receive(&one);
    assert_eq!(scene.mirror.frontier(), [id(&one)]);
}

#[test]
fn an_epoch_ahead_of_the_clock_waits_for_its_time() {
    let mut scene = Scene::new();
    let events = vec![scene.put("k", b"1", &[])];
    let ahead = scene.b.epoch(Draft { seq: clock(START_MS + 60_001), ..scene.on(&[&scene.root], events) });
    let child = scene.a.epoch(Draft { incarnation: 1, ..scene.on(&[&ahead], vec![scene.put("k", b"2", &[])]) });
    scene.receive(&child);
    scene.receive(&ahead);
    assert_eq!(scene.mirror.frontier(), [id(&scene.root)]);
    assert_eq!(scene.mirror.core.poll_timeout(), Some(Millis(START_MS + 1)));
    scene.mirror.wait(1);
    assert_eq!((scene.mirror.frontier(), scene.mirror.core.poll_timeout()), (vec![id(&child)], None));
}

#[test]
fn an_epoch_that_comes_again_while_it_is_being_committed_is_taken_in_once() {
    let mut scene = Scene::new();
    let one = scene.b.epoch(scene.on(&[&scene.root], vec![scene.put("k", b"1", &[])]));
    scene.mirror.slow = true;
    scene.receive(&one);
    scene.receive(&one);
    scene.mirror.finish_all();
    scene.receive(&one);
    assert_eq!(scene.mirror.log.len(), 2);
    assert_eq!((scene.mirror.core.dag().len(), scene.mirror.core.dag().forks().len()), (2, 0));
}

#[test]
fn a_fork_is_kept_shown_and_voids_nothing() {
    let mut scene = Scene::new();
    let one = scene.b.epoch(scene.on(&[&scene.root], vec![scene.put("a", b"1", &[])]));
    let twin = scene.b.epoch(scene.on(&[&scene.root], vec![scene.put("b", b"2", &[])]));
    scene.receive(&one);
    scene.receive(&twin);
    let [fork] = scene.mirror.core.dag().forks() else { panic!("one fork") };
    assert_eq!((fork.host, fork.n), (HostKey(scene.b.key.verifying_key().to_bytes()), 0));
    assert_eq!(scene.mirror.entries().len(), 2);
}

#[test]
fn a_flipped_bit_of_an_epoch_is_never_taken_for_it() {
    let scene = Scene::new();
    let epoch = scene.b.epoch(scene.on(&[&scene.root], vec![scene.put("k", b"1", &[])]));
    let flip = |bytes: &bytes::Bytes, at: usize| {
        let mut flipped = bytes.to_vec();
        flipped[at / 8] ^= 1 << (at % 8);
        bytes::Bytes::from(flipped)
    };
    for at in 0..epoch.header.len() * 8 {
        assert!(CheckedEpoch::check(SignedEpoch { header: flip(&epoch.header, at), ..epoch.clone() }).is_err(), "{at}");
    }
    for at in 0..epoch.body.len() * 8 {
        assert!(CheckedEpoch::check(SignedEpoch { body: flip(&epoch.body, at), ..epoch.clone() }).is_err(), "{at}");
    }
    let other = scene.a.key.sign(b"something else").to_bytes();
    assert!(CheckedEpoch::check(SignedEpoch { signature: other, ..epoch }).is_err());
}
