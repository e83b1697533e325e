//! Which operations count, and what revocations let stand.

use super::*;

#[test]
fn the_greatest_version_wins_then_the_greater_id_then_the_later_event() {
    let mut scene = Scene::new();
    let draft =
        |scene: &Scene, incarnation, seq, events| Draft { incarnation, seq, ..scene.on(&[&scene.root], events) };
    let base = clock(START_MS);
    let low = scene.b.epoch(draft(&scene, 1, base + 5, vec![scene.put("k", b"low", &[])]));
    let high =
        scene.b.epoch(draft(&scene, 2, base + 6, vec![scene.put("k", b"first", &[]), scene.put("k", b"last", &[])]));
    scene.receive(&high);
    scene.receive(&low);
    assert_eq!(scene.mirror.live("k"), Some(hash(b"last")));
    let twins = [b"x", b"y"].map(|bytes| scene.b.epoch(draft(&scene, 3, base + 7, vec![scene.put("k", bytes, &[])])));
    let greater = if id(&twins[0]) > id(&twins[1]) { b"x" } else { b"y" };
    for twin in &twins {
        scene.receive(twin);
    }
    assert_eq!(scene.mirror.live("k"), Some(hash(greater)));
}

#[test]
fn a_token_counts_once_at_its_least_version() {
    let mut scene = Scene::new();
    let (twice, between) = (scene.put("k", b"twice", &[]), scene.put("k", b"between", &[]));
    let base = clock(START_MS);
    let draft = |scene: &Scene, seq, event| Draft {
        incarnation: seq,
        seq: base + seq,
        ..scene.on(&[&scene.root], vec![event])
    };
    let early = scene.b.epoch(draft(&scene, 1, twice.clone()));
    let middle = scene.b.epoch(draft(&scene, 2, between));
    let late = scene.b.epoch(draft(&scene, 3, twice));
    for (order, winner) in [(&late, b"twice".as_slice()), (&middle, b"twice"), (&early, b"between")] {
        scene.receive(order);
        assert_eq!(scene.mirror.live("k"), Some(hash(winner)));
    }
}

#[test]
fn a_copy_from_long_before_the_expiry_counts_only_when_there_is_no_other() {
    let mut scene = Scene::new();
    let expiry = START_MS + 20 * 60_000;
    scene.mirror.now_ms = expiry;
    let token = put_event(&scene.session.invocation("k", "put", expiry, &[]), b"token");
    let window = expiry - ONCE_WINDOW_MS;
    let draft = |scene: &Scene, at_ms, event| Draft {
        incarnation: clock(at_ms),
        seq: clock(at_ms),
        ..scene.on(&[&scene.root], vec![event])
    };
    let early = scene.b.epoch(draft(&scene, window - 2, token.clone()));
    let early_too = scene.b.epoch(draft(&scene, window - 1, token.clone()));
    let other = put_event(&scene.session.invocation("k", "put", expiry, &[]), b"other");
    let between = scene.b.epoch(draft(&scene, window, other));
    let honest = scene.b.epoch(draft(&scene, window + 1, token));
    for alone in [&early_too, &early] {
        scene.receive(alone);
        let winner = scene.mirror.winners().remove("k").expect("a winner");
        assert_eq!((winner.0.epoch, winner.1), (id(alone), Some(hash(b"token"))));
    }
    scene.receive(&between);
    assert_eq!(scene.mirror.live("k"), Some(hash(b"other")));
    scene.receive(&honest);
    assert_eq!(scene.mirror.live("k"), Some(hash(b"token")));
}

#[test]
fn a_void_place_of_a_token_does_not_count() {
    let mut scene = Scene::new();
    let (twice, between) = (scene.put("k", b"twice", &[]), scene.put("k", b"between", &[]));
    let base = clock(START_MS);
    let first = scene.b.epoch(Draft { seq: base + 1, ..scene.on(&[&scene.root], vec![twice.clone()]) });
    let on = |scene: &Scene, n, event| Draft { incarnation: n, seq: base + n, ..scene.on(&[&scene.root], vec![event]) };
    let second = scene.a.epoch(on(&scene, 2, between));
    let third = scene.a.epoch(on(&scene, 3, twice));
    for epoch in [&first, &second, &third] {
        scene.receive(epoch);
    }
    assert_eq!(scene.mirror.live("k"), Some(hash(b"between")));
    let removal = scene.owner.revoke(&scene.owner.host_delegation(&scene.b.did()), &[id(&scene.root)]);
    let removed = scene.a.epoch(on(&scene, 4, event(&removal)));
    scene.receive(&removed);
    assert_eq!(scene.mirror.live("k"), Some(hash(b"twice")), "it counts where A took it in");
}

#[test]
fn a_revocation_voids_what_its_signer_had_not_seen() {
    let mut scene = Scene::new();
    let seen = scene.b.epoch(scene.on(&[&scene.root], vec![scene.put("seen", b"1", &[])]));
    let unseen =
        scene.b.epoch(Draft { incarnation: 1, ..scene.on(&[&scene.root], vec![scene.put("unseen", b"1", &[])]) });
    let revoked = scene.owner.revoke(&scene.session.delegation, &[id(&seen)]);
    let carrier = scene.a.epoch(Draft { incarnation: 1, ..scene.on(&[&seen, &unseen], vec![event(&revoked)]) });
    for epoch in [&unseen, &carrier, &seen] {
        scene.receive(epoch);
    }
    assert_eq!(scene.mirror.entries().into_keys().collect::<Vec<_>>(), ["seen"]);
    let after = scene.b.epoch(Draft { incarnation: 2, ..scene.on(&[&carrier], vec![scene.put("after", b"1", &[])]) });
    scene.receive(&after);
    assert_eq!(scene.mirror.entries().into_keys().collect::<Vec<_>>(), ["seen"]);
}

#[test]
fn a_revocation_without_after_cuts_at_the_past_of_every_epoch_that_carries_it() {
    let mut scene = Scene::new();
    let revoked = event(&scene.owner.revoke(&scene.session.delegation, &[]));
    let one = scene.b.epoch(scene.on(&[&scene.root], vec![scene.put("one", b"1", &[])]));
    let events = vec![scene.put("before", b"1", &[]), revoked.clone(), scene.put("behind", b"1", &[])];
    let carrier = scene.a.epoch(Draft { incarnation: 1, ..scene.on(&[&one], events) });
    scene.receive(&one);
    scene.receive(&carrier);
    assert_eq!(scene.mirror.entries().into_keys().collect::<Vec<_>>(), ["before", "one"]);
    let other = scene.a.epoch(Draft { incarnation: 2, ..scene.on(&[&scene.root], vec![revoked]) });
    scene.receive(&other);
    assert_eq!(scene.mirror.entries().into_keys().collect::<Vec<_>>(), [""; 0], "the other had not seen it");
}

#[test]
fn a_delegatee_that_gives_up_its_own_voids_nothing() {
    let mut scene = Scene::new();
    let put = scene.b.epoch(scene.on(&[&scene.root], vec![scene.put("k", b"1", &[])]));
    let given_up = revocation(&scene.session.key, &scene.owner.space, &scene.session.delegation, &[], vec![]);
    let carrier = Draft { incarnation: 1, ..scene.on(&[&scene.root], vec![event(&given_up)]) };
    let carrier = scene.a.epoch(carrier);
    scene.receive(&put);
    scene.receive(&carrier);
    assert_eq!(scene.mirror.live("k"), Some(hash(b"1")));
    assert!(scene.mirror.core.access().is_revoked(&scene.session.delegation.identity()), "but it is of no more use");
}

#[test]
fn a_thief_that_is_revoked_erases_nothing_that_was_there() {
    let session = Scene::new().session.delegation.address();
    // As the delegator the thief needs no proof of its right; it rests on its session all the same.
    for proofs in [vec![session], vec![]] {
        let mut scene = Scene::new();
        let child = scene.session.delegate(80);
        let honest = put_event(&child.invocation("k", "put", START_MS + 60_000, &[]), b"honest");
        let events = vec![event(&child.delegation), honest];
        let history = scene.a.epoch(Draft { incarnation: 1, ..scene.on(&[&scene.root], events) });
        let revoked = scene.owner.revoke(&scene.session.delegation, &[id(&history)]);
        let judge = scene.a.epoch(Draft { incarnation: 2, ..scene.on(&[&history], vec![event(&revoked)]) });
        let after = [id(&scene.root)];
        let theft = revocation(&scene.session.key, &scene.owner.space, &child.delegation, &after, proofs);
        let stolen = scene.b.epoch(scene.on(&[&scene.root], vec![event(&child.delegation), event(&theft)]));
        scene.receive(&history);
        scene.receive(&stolen);
        assert_eq!(scene.mirror.live("k"), None, "until the owner steps in");
        scene.receive(&judge);
        assert_eq!(scene.mirror.live("k"), Some(hash(b"honest")));
    }
}

#[test]
fn two_removals_of_a_host_that_carries_both_come_to_an_end() {
    let mut scene = Scene::new();
    let delegation = scene.owner.host_delegation(&scene.b.did());
    let mut claims = Claims::until(Millis(START_MS + DAY_MS));
    claims.capabilities.insert(format!("urn:cid:{}", delegation.address()), vec!["tinycloud.delegation/revoke".into()]);
    claims.nonce = Some("again".into());
    let again = verified(&claims, &scene.owner.key);
    let events = vec![event(&scene.owner.revoke(&delegation, &[])), event(&again)];
    let carrier = scene.b.epoch(scene.on(&[&scene.root], events));
    scene.receive(&carrier);
    let put = scene.b.epoch(Draft { incarnation: 1, ..scene.on(&[&carrier], vec![scene.put("k", b"1", &[])]) });
    scene.receive(&put);
    assert_eq!(scene.mirror.live("k"), None);
    let other = scene.owner.host_delegation(&scene.a.did());
    let both = vec![event(&scene.owner.revoke(&other, &[])), event(&scene.owner.revoke(&delegation, &[]))];
    for (host, incarnation) in [(&scene.a, 7), (&scene.b, 8)] {
        let epoch = host.epoch(Draft { incarnation, ..scene.on(&[&scene.root], both.clone()) });
        scene.mirror.receive([epoch]);
    }
}

#[test]
fn proofs_that_a_rooted_delegation_cites_are_no_part_of_its_chain_in_any_order() {
    let scene = Scene::new();
    let owner = &scene.owner;
    let beside = owner.session(90);
    let mut claims = owner.claims();
    claims.audience = Some(did(&beside.key));
    claims.capabilities.insert(format!("{}/kv", owner.space), vec!["tinycloud.kv/put".into()]);
    claims.proofs = vec![beside.delegation.address()];
    let rooted = verified(&claims, &owner.key);
    let put = |proofs: &[&Proof], path: &str| {
        let mut claims = Claims::until(Millis(START_MS + 60_000));
        claims.capabilities.insert(format!("{}/kv/{path}", owner.space), vec!["tinycloud.kv/put".into()]);
        claims.proofs = proofs.iter().map(|proof| proof.address()).collect();
        put_event(&verified(&claims, &beside.key), b"1")
    };
    let grants = vec![event(&rooted), event(&beside.delegation)];
    let base = scene.a.epoch(Draft { incarnation: 1, ..scene.on(&[&scene.root], grants) });
    let both = scene.b.epoch(scene.on(&[&base], vec![put(&[&rooted, &beside.delegation], "both")]));
    let alone = scene.b.epoch(Draft { incarnation: 1, ..scene.on(&[&base], vec![put(&[&rooted], "alone")]) });
    let ended = event(&owner.revoke(&beside.delegation, &[id(&base)]));
    let ended = scene.a.epoch(Draft { incarnation: 2, ..scene.on(&[&base], vec![ended]) });
    for order in [[&both, &alone, &ended], [&alone, &both, &ended], [&ended, &both, &alone]] {
        let mut mirror = Host::new(owner, 10);
        mirror.receive([scene.root.clone(), base.clone()]);
        order.into_iter().for_each(|epoch| mirror.receive([epoch.clone()]));
        assert_eq!(mirror.entries().into_keys().collect::<Vec<_>>(), ["alone"]);
    }
}
