//! Which events are sound.

use super::*;

#[test]
fn a_dead_event_holds_up_nothing() {
    let mut scene = Scene::new();
    let mut broken = scene.put("dead", b"1", &[]);
    let last = broken.token.len() - 3;
    broken.token[last] = if broken.token[last] == b'A' { b'B' } else { b'A' };
    let garbage = Event { token: b"no token at all".to_vec(), values: vec![] };
    let events = vec![broken, garbage, scene.put("good", b"2", &[])];
    let epoch = scene.b.epoch(scene.on(&[&scene.root], events));
    assert_eq!(scene.refusal(&epoch), None);
    assert_eq!(scene.mirror.entries().into_iter().collect::<Vec<_>>(), [("good".to_owned(), hash(b"2"))]);
}

#[test]
fn an_operation_rests_on_what_stands_before_it_only() {
    let mut scene = Scene::new();
    let late = scene.owner.session(50);
    let put = || put_event(&late.invocation("k", "put", START_MS + 60_000, &[]), b"1");
    let before = scene.b.epoch(scene.on(&[&scene.root], vec![put(), event(&late.delegation)]));
    scene.receive(&before);
    assert_eq!(scene.mirror.live("k"), None, "the delegation comes after it in the body");
    let beside = scene.a.epoch(Draft { incarnation: 1, ..scene.on(&[&scene.root], vec![put()]) });
    scene.receive(&beside);
    assert_eq!(scene.mirror.live("k"), None, "the delegation is held, but not in its Past");
    let behind = scene.a.epoch(Draft { incarnation: 2, ..scene.on(&[&before], vec![put()]) });
    scene.receive(&behind);
    assert_eq!(scene.mirror.live("k"), Some(hash(b"1")));
}

#[test]
fn a_signer_needs_a_delegation_that_covers_what_it_does() {
    let mut scene = Scene::new();
    let stranger = Session { key: key(60), ..scene.session.clone() };
    let put = put_event(&stranger.invocation("k", "put", START_MS + 60_000, &[]), b"1");
    assert!(!scene.is_sound(put, START_MS), "delegated to another key");
    let mut claims = Claims::until(Millis(START_MS + 60_000));
    claims.capabilities.insert(format!("{}/kv/k", scene.owner.space), vec!["tinycloud.kv/put".into()]);
    let bare = verified(&claims, &scene.session.key);
    assert!(!scene.is_sound(put_event(&bare, b"1"), START_MS), "cites nothing");
    let own = verified(&claims, &scene.owner.key);
    assert!(scene.is_sound(put_event(&own, b"1"), START_MS), "the owner needs nothing");
    let deeper = scene.session.delegate(61);
    let root = scene.root.clone();
    let handed_on = scene.a.epoch(Draft { incarnation: 5, ..scene.on(&[&root], vec![event(&deeper.delegation)]) });
    scene.receive(&handed_on);
    for (ability, sound) in [("put", true), ("del", false)] {
        let token = deeper.invocation("k", ability, START_MS + 60_000, &[]);
        let event = if ability == "put" { put_event(&token, b"1") } else { event(&token) };
        let epoch = scene.b.epoch(Draft { incarnation: 6, ..scene.on(&[&handed_on], vec![event]) });
        scene.receive(&epoch);
        let found = scene.mirror.operations().keys().any(|(_, version)| version.epoch == id(&epoch));
        assert_eq!(found, sound, "{ability}");
    }
}

#[test]
fn a_token_stands_in_epochs_between_its_not_before_and_a_minute_after_its_expiry() {
    let mut scene = Scene::new();
    let mut claims = Claims::until(Millis(START_MS + 1000));
    claims.not_before = Some(Millis(START_MS + 500));
    claims.capabilities.insert(format!("{}/kv/k", scene.owner.space), vec!["tinycloud.kv/put".into()]);
    let token = put_event(&verified(&claims, &scene.owner.key), b"1");
    for (at_ms, sound) in [(499, false), (500, true), (1000 + EXPIRY_GRACE_MS, true), (1001 + EXPIRY_GRACE_MS, false)] {
        assert_eq!(scene.is_sound(token.clone(), START_MS + at_ms), sound, "{at_ms}");
    }
}

#[test]
fn a_delegation_in_the_closure_is_in_force_like_the_token() {
    let mut scene = Scene::new();
    let mut claims = Claims::until(Millis(START_MS + 1000));
    claims.audience = Some(did(&scene.session.key));
    claims.capabilities.insert(format!("{}/kv", scene.owner.space), vec!["tinycloud.kv/put".into()]);
    let short = Session { delegation: verified(&claims, &scene.owner.key), ..scene.session.clone() };
    let root = scene.root.clone();
    scene.root = scene.a.epoch(Draft { incarnation: 5, ..scene.on(&[&root], vec![event(&short.delegation)]) });
    scene.mirror.receive([scene.root.clone()]);
    let late = put_event(&short.invocation("k", "put", START_MS + DAY_MS, &[]), b"1");
    assert!(scene.is_sound(late.clone(), START_MS + 1000 + EXPIRY_GRACE_MS));
    assert!(!scene.is_sound(late, START_MS + 1001 + EXPIRY_GRACE_MS));
}

#[test]
fn what_a_token_names_in_after_lies_in_the_past() {
    let mut scene = Scene::new();
    let one = scene.a.epoch(Draft { incarnation: 1, ..scene.on(&[&scene.root], vec![scene.put("x", b"1", &[])]) });
    scene.receive(&one);
    let bound = scene.put("k", b"2", &[id(&one)]);
    assert!(!scene.is_sound(bound.clone(), START_MS), "it is held, but not in the Past");
    let behind = scene.b.epoch(Draft { incarnation: 8, ..scene.on(&[&one], vec![bound]) });
    scene.receive(&behind);
    assert_eq!(scene.mirror.live("k"), Some(hash(b"2")));
    let unknown = scene.put("k", b"3", &[EpochId::of(b"unknown")]);
    assert!(!scene.is_sound(unknown, START_MS));
}

#[test]
fn values_are_as_many_as_puts_and_those_the_writer_signed() {
    let mut scene = Scene::new();
    let resource = format!("{}/kv/k", scene.owner.space);
    let mut claims = Claims::until(Millis(START_MS + 60_000));
    claims.capabilities.insert(resource.clone(), vec!["tinycloud.kv/put".into()]);
    let signed = Content { cid: hash(b"1"), size: 1, meta: [("a".to_owned(), "b".to_owned())].into() };
    claims.content = Some([(resource, signed)].into());
    let token: Proof = verified(&claims, &scene.owner.key);
    let mut good = put_event(&token, b"1");
    good.values[0].meta.insert("a".into(), "b".into());
    let mut cases = vec![put_event(&token, b"2"), put_event(&token, b"1"), event(&token), good.clone(), good.clone()];
    cases[3].values.push(good.values[0].clone());
    cases[4].values[0].size = 2;
    for bad in cases {
        assert!(!scene.is_sound(bad, START_MS));
    }
    assert!(scene.is_sound(good, START_MS));
    let mut with_value = event(&scene.owner.session(70).delegation);
    with_value.values.push(put_event(&token, b"1").values[0].clone());
    let epoch = scene.b.epoch(scene.on(&[&scene.root], vec![with_value]));
    assert_eq!(scene.refusal(&epoch), None);
}

#[test]
fn a_delegation_that_grants_more_than_it_has_grants_nothing() {
    let mut scene = Scene::new();
    let (narrow, wide) = (key(85), key(86));
    let delegation = |signer, audience, resource: &str, proofs| {
        let mut claims = scene.owner.claims();
        claims.audience = Some(did(audience));
        claims.capabilities.insert(format!("{}/{resource}", scene.owner.space), vec!["tinycloud.kv/put".into()]);
        claims.proofs = proofs;
        verified(&claims, signer)
    };
    let docs = delegation(&scene.owner.key, &narrow, "kv/docs", vec![]);
    let all = delegation(&narrow, &wide, "kv", vec![docs.address()]);
    let session = Session { key: wide, delegation: all.clone(), ..scene.session.clone() };
    let put = put_event(&session.invocation("other", "put", START_MS + 60_000, &[]), b"1");
    let epoch = scene.b.epoch(scene.on(&[&scene.root], vec![event(&docs), event(&all), put]));
    assert_eq!(scene.refusal(&epoch), None);
    assert_eq!(scene.mirror.operations().len(), 0);
}

#[test]
fn a_resource_with_a_raw_question_mark_names_no_key() {
    let mut scene = Scene::new();
    let (raw, encoded) = (scene.put("what?", b"other", &[]), scene.put("what%3F", b"other", &[]));
    assert!(!scene.is_sound(raw, START_MS));
    assert!(scene.is_sound(encoded, START_MS));
    assert_eq!(scene.mirror.live("what"), None);
}
