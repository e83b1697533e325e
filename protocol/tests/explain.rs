//! Why a key reads as it does: what each operation is worth, what waits, what a revocation would do.
mod world;

use kvspace_protocol::{
    epoch::{Event, SignedEpoch},
    id::EpochId,
    kv::{Value, Version},
    space::{
        CallId, Change, CheckedEpoch, DeadReason, Output, Preview, Refusal, Rule, View, Void, WaitingEpoch, Worth,
    },
};
use world::{Draft, Forger, Host, Owner, START_MS, Session, clock, event, hash, id, put_event, revocation, verified};

struct Scene {
    owner: Owner,
    host: Host,
    session: Session,
    forger: Forger,
}

impl Scene {
    fn new() -> Self {
        let owner = Owner::new(1);
        let mut host = Host::hosting(&owner, 2);
        let (session, forger) = (owner.session(4), Forger::new(&owner, 5));
        host.take_token(session.delegation.clone()).expect("taken in");
        host.take_token(owner.host_delegation(&forger.did())).expect("taken in");
        Self { owner, host, session, forger }
    }

    fn put(&mut self, path: &str, bytes: &[u8]) -> EpochId {
        self.host.put(&self.session, path, bytes).expect("written");
        self.host.frontier()[0]
    }

    fn worth(&self, path: &str) -> Vec<Worth> {
        let history = self.host.view.history(path).expect("the view reads");
        let explained = self.host.core.explain(&self.host.view, history).expect("the view reads");
        explained.into_iter().map(|explained| explained.worth).collect()
    }

    /// An epoch on top of everything, with these events.
    fn epoch(&self, incarnation: u64, events: Vec<Event>) -> SignedEpoch {
        let (parents, seq) = (self.host.frontier(), clock(START_MS) + 5000 + incarnation);
        self.forger.epoch(Draft { incarnation, parents, seq, events, ..Draft::default() })
    }
}

#[test]
fn each_operation_is_told_what_it_is_worth() {
    let mut scene = Scene::new();
    let host = scene.host.host_key();
    scene.put("k", b"one");
    scene.put("k", b"two");
    let token = scene.session.invocation("k", "put", START_MS + 60_000, &[]);
    let again = scene.epoch(1, vec![put_event(&token, b"three")]);
    scene.host.receive([again]);
    let repeated = scene.epoch(2, vec![put_event(&token, b"four")]);
    scene.host.receive([repeated]);
    let history = scene.host.view.history("k").expect("the view reads");
    let explained = scene.host.core.explain(&scene.host.view, history.clone()).expect("the view reads");
    for (one, operation) in explained.iter().zip(history.into_iter().rev()) {
        let alone = scene.host.core.explain(&scene.host.view, vec![operation]).expect("the view reads");
        assert_eq!(alone, std::slice::from_ref(one), "whatever else is asked about");
    }
    let worth: Vec<_> = explained.iter().map(|explained| explained.worth).collect();
    let (wins, others) = (worth.iter().filter(|worth| **worth == Worth::Wins).count(), worth.len());
    assert_eq!((wins, others), (1, 4));
    assert_eq!(worth.iter().filter(|worth| **worth == Worth::Superseded).count(), 2);
    assert_eq!(worth.iter().filter(|worth| **worth == Worth::Repeated).count(), 1);
    assert_eq!(explained.iter().filter(|explained| explained.host == Some(host)).count(), 2);
    assert_eq!(scene.worth("never written"), []);
}

#[test]
fn what_a_revocation_cuts_off_names_it() {
    let mut scene = Scene::new();
    let before = scene.put("k", b"one");
    scene.put("k", b"two");
    let revocation = scene.owner.revoke(&scene.session.delegation, &[before]);
    scene.host.take_token(revocation.clone()).expect("revoked");
    let (delegation, revocation) = (scene.session.delegation.address(), revocation.address());
    assert_eq!(scene.worth("k"), [Worth::Void(Void { delegation, revocation, rule: Rule::Cut }), Worth::Wins]);
}

#[test]
fn what_a_widened_revocation_cuts_off_says_so() {
    let mut scene = Scene::new();
    let manager = scene.owner.session(6);
    let mut claims = scene.owner.claims();
    claims.audience = manager.delegation.audience_did().cloned();
    claims.capabilities.insert(format!("{}/delegation", scene.owner.space), vec!["tinycloud.delegation/revoke".into()]);
    let delegation = verified(&claims, &scene.owner.key);
    scene.host.take_token(delegation.clone()).expect("taken in");
    let first = scene.host.frontier();
    scene.put("a", b"one");
    let seen = scene.put("b", b"one");
    scene.put("c", b"one");
    scene.host.take_token(scene.owner.revoke(&delegation, &[seen])).expect("revoked");
    // The manager, revoked by now, ends the session as of before anything was written: it may not erase a and b.
    let proofs = vec![delegation.address()];
    let theft = revocation(&manager.key, &scene.owner.space, &scene.session.delegation, &first, proofs);
    let (events, seq) = (vec![event(&theft)], clock(START_MS) + 9000);
    let stolen = scene.forger.epoch(Draft { parents: first, seq, events, ..Draft::default() });
    scene.host.receive([stolen]);
    assert_eq!((scene.worth("a"), scene.worth("b")), (vec![Worth::Wins], vec![Worth::Wins]));
    let (delegation, revocation) = (scene.session.delegation.address(), theft.address());
    assert_eq!(scene.worth("c"), [Worth::Void(Void { delegation, revocation, rule: Rule::Widened })]);
}

fn dead(host: &mut Host, signed: SignedEpoch) -> Vec<(String, Version, DeadReason)> {
    let checked = CheckedEpoch::check(signed).expect("well formed");
    let arrived = kvspace_protocol::space::Arrived { checked, values: vec![], told: [].into() };
    host.core.handle_epochs(host.now(), &host.view, CallId(999), None, [arrived]).expect("sound");
    let Some(Output::Commit(commit)) = host.core.poll_output() else { panic!("nothing is taken in") };
    let dead = commit.changes.iter().filter_map(|change| match change {
        Change::Dead { key, version, reason, .. } => Some((key.to_string(), *version, *reason)),
        Change::Epoch(_) | Change::Delegation { .. } | Change::Operation(_) | Change::Winner { .. } => None,
    });
    dead.collect()
}

#[test]
fn a_dead_write_says_why() {
    let mut scene = Scene::new();
    let session = scene.session.clone();
    let put =
        |path: &str, expiry_ms: i64, after: &[EpochId]| session.invocation(path, "put", START_MS + expiry_ms, after);
    let mut forged = put_event(&put("signature", 60_000, &[]), b"x");
    let last = forged.token.len() - 1;
    forged.token[last] = if forged.token[last] == b'A' { b'Q' } else { b'A' };
    let stranger = Owner::new(9).session(8);
    let unknown = Session { space: scene.owner.space.clone(), ..stranger };
    let mut other = put_event(&put("content", 60_000, &[]), b"x");
    other.values.push(Value { blob: hash(b"y"), size: 1, meta: [].into() });
    let events = vec![
        forged,
        put_event(&unknown.invocation("authority", "put", START_MS + 60_000, &[]), b"x"),
        put_event(&put("time", -120_000, &[]), b"x"),
        put_event(&put("after", 60_000, &[EpochId([7; 32])]), b"x"),
        other,
        Event { token: vec![1, 2, 3], values: vec![] },
        put_event(&put("sound", 60_000, &[]), b"x"),
    ];
    let epoch = scene.epoch(1, events);
    let (id, seq) = (id(&epoch), clock(START_MS) + 5001);
    let reason = |event: u16, key: &str, reason| (key.to_owned(), Version::new(seq, id, event, 0), reason);
    let expected = [
        reason(0, "signature", DeadReason::Signature),
        reason(1, "authority", DeadReason::Authority),
        reason(2, "time", DeadReason::Time),
        reason(3, "after", DeadReason::After),
        reason(4, "content", DeadReason::Content),
    ];
    assert_eq!(dead(&mut scene.host, epoch), expected);
}

#[test]
fn what_waits_says_for_what() {
    let mut scene = Scene::new();
    let token = scene.session.invocation("k", "put", START_MS + 60_000, &[]);
    let events = vec![put_event(&token, b"x")];
    let nowhere = EpochId([7; 32]);
    let draft = |parents, seq| Draft { parents, seq, events: events.clone(), ..Draft::default() };
    let orphan = scene.forger.epoch(draft(vec![nowhere], clock(START_MS)));
    let early = scene.forger.epoch(draft(scene.host.frontier(), clock(START_MS + 120_000)));
    scene.host.receive([orphan.clone(), early.clone()]);
    let host = kvspace_protocol::id::HostKey(scene.forger.key.verifying_key().to_bytes());
    let ahead = Some(kvspace_protocol::id::Millis(START_MS + 120_000));
    let expected = [
        WaitingEpoch { epoch: id(&orphan), host, lacks: vec![nowhere], ahead: None },
        WaitingEpoch { epoch: id(&early), host, lacks: vec![], ahead },
    ];
    assert_eq!(scene.host.core.waiting(), expected);
    scene.host.wait(61_000);
    assert_eq!(scene.host.core.waiting(), expected[..1]);
}

#[test]
fn a_preview_is_cut_short_and_changes_nothing() {
    let mut scene = Scene::new();
    let first = scene.host.frontier();
    for path in ["a", "b", "c"] {
        scene.put(path, b"one");
    }
    scene.put("b", b"two");
    let revocation = scene.owner.revoke(&scene.session.delegation, &first);
    let all = scene.host.preview(&revocation, 10).expect("it may be revoked");
    let wins: Vec<_> = all.voided.iter().map(|voided| (&*voided.key, voided.wins)).collect();
    assert_eq!(wins, [("a", true), ("b", true), ("b", false), ("c", true)]);
    assert!(!all.has_more && all.voided[1].version > all.voided[2].version);
    let some = scene.host.preview(&revocation, 2).expect("it may be revoked");
    assert_eq!((&some.voided[..], some.has_more), (&all.voided[..2], true));
    assert!(!scene.host.preview(&revocation, 4).expect("it may be revoked").has_more);
    assert_eq!(scene.worth("a"), [Worth::Wins]);
    scene.put("d", b"the session is as it was");
    let last = scene.host.frontier();
    let revocation = scene.owner.revoke(&scene.session.delegation, &last);
    assert_eq!(scene.host.preview(&revocation, 10), Ok(Preview::default()), "it lets all stand");
}

#[test]
fn a_preview_looks_at_a_bounded_number_of_operations() {
    let mut scene = Scene::new();
    for number in 0..110 {
        scene.put("a", &[number]);
    }
    let seen = scene.host.frontier();
    scene.put("b", b"one");
    let revocation = scene.owner.revoke(&scene.session.delegation, &seen);
    let preview = scene.host.preview(&revocation, 1).expect("it may be revoked");
    assert_eq!(preview, Preview { voided: vec![], has_more: true });
    assert_eq!(scene.host.preview(&revocation, 2).expect("it may be revoked").voided.len(), 1);
}

#[test]
fn a_preview_sees_what_is_on_its_way_to_the_disk() {
    let mut scene = Scene::new();
    let first = scene.host.frontier();
    scene.host.slow = true;
    scene.host.put_and_wait(&scene.session, "out");
    let queued = scene.session.put_write(&scene.host, "queued", b"x");
    scene.host.send(queued);
    let revocation = scene.owner.revoke(&scene.session.delegation, &first);
    let preview = scene.host.preview(&revocation, 10).expect("it may be revoked");
    assert_eq!(preview.voided.iter().map(|voided| &*voided.key).collect::<Vec<_>>(), ["out", "queued"]);
}

#[test]
fn a_preview_is_refused_as_the_revocation_would_be() {
    let mut scene = Scene::new();
    let stranger = Owner::new(9);
    let revocation = revocation(&stranger.key, &scene.owner.space, &scene.session.delegation, &[], vec![]);
    let refused = scene.host.preview(&revocation, 10).expect_err("it may not be revoked");
    assert_eq!(scene.host.take_token(revocation), Err(refused));
    assert_eq!(scene.host.preview(&scene.session.delegation.clone(), 10), Err(Refusal::NoKey));
}
