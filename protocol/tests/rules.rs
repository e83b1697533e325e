//! The rules of the log, one by one: which epochs are valid, which events sound, which operations count.
mod world;

use ed25519_dalek::Signer;
use kvspace_protocol::{
    authority::Proof,
    capability::{Content, build::Claims},
    epoch::{Event, SignedEpoch},
    id::{EpochId, HostKey, Millis},
    limits::{EXPIRY_GRACE_MS, ONCE_WINDOW_MS, WAITING_EPOCHS_MAX},
    space::{CheckedEpoch, Invalid},
};
use world::{
    Draft, Forger, Host, Owner, START_MS, Session, clock, did, event, hash, id, key, put_event, revocation, seq,
    verified,
};

const DAY_MS: i64 = 86_400_000;

/// A space as somebody mirrors it who only receives, and the hosts A and B that write by hand.
struct Scene {
    owner: Owner,
    session: Session,
    a: Forger,
    b: Forger,
    mirror: Host,
    /// The first epoch: host A names itself, B and the session.
    root: SignedEpoch,
}

impl Scene {
    fn new() -> Self {
        let owner = Owner::new(1);
        let (a, b, session) = (Forger::new(&owner, 2), Forger::new(&owner, 3), owner.session(4));
        let named = [&a, &b].map(|host| event(&owner.host_delegation(&host.did())));
        let events = named.into_iter().chain([event(&session.delegation)]).collect();
        let root = a.epoch(Draft { seq: clock(START_MS - 1000), events, ..Draft::default() });
        let mut mirror = Host::new(&owner, 9);
        mirror.receive([root.clone()]);
        Self { owner, session, a, b, mirror, root }
    }

    /// A draft of host B's first epoch on top of these.
    fn on(&self, parents: &[&SignedEpoch], events: Vec<Event>) -> Draft {
        let seq = parents.iter().map(|parent| seq(parent)).max().unwrap_or(0) + 1;
        Draft { parents: parents.iter().map(|parent| id(parent)).collect(), seq, events, ..Draft::default() }
    }

    fn put(&self, path: &str, bytes: &[u8], after: &[EpochId]) -> Event {
        put_event(&self.session.invocation(path, "put", START_MS + 60_000, after), bytes)
    }

    fn receive(&mut self, signed: &SignedEpoch) {
        self.mirror.receive([signed.clone()]);
    }

    /// What becomes of an epoch: `None` when it is taken in.
    fn refusal(&mut self, signed: &SignedEpoch) -> Option<Invalid> {
        self.receive(signed);
        let refused = self.mirror.refused.pop().map(|(_, why)| why);
        assert_eq!(refused.is_none(), self.mirror.frontier().contains(&id(signed)));
        refused
    }

    /// Whether the put in this event, in an epoch made at this time, is sound.
    fn is_sound(&mut self, event: Event, at_ms: i64) -> bool {
        self.mirror.now_ms = self.mirror.now_ms.max(at_ms);
        let incarnation = 1000 + self.mirror.core.dag().len();
        let draft = Draft { incarnation, seq: clock(at_ms), ..self.on(&[&self.root], vec![event]) };
        let epoch = self.b.epoch(draft);
        self.receive(&epoch);
        assert!(self.mirror.frontier().contains(&id(&epoch)), "the epoch stands, whatever its events are worth");
        self.mirror.operations().keys().any(|(_, version)| version.epoch == id(&epoch))
    }
}

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
