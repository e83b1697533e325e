//! Who may what, over time: delegations that come early, revocations that stay.

use serde_json::json;

use crate::harness::{
    Node, Owner, Session, Statement,
    tokens::{ALL, DEL, GET, LIST, PUT, REVOKE, delegate, did, new_key, revocation, revoke},
};

/// A space with a value, a session of its owner, and somebody else with a part of it.
fn shared(owner: &Owner) -> (Node, Session, Session) {
    let node = Node::new();
    let session = owner.open(&node, "default");
    session.put(&node, "docs/a", "value").expect(200);
    let bob = session.pass_on(&node, "docs", &[GET, LIST, PUT]);
    assert_eq!(bob.get(&node, "docs/a").expect(200).text(), "value");
    (node, session, bob)
}

fn is_revoked(node: &Node, session: &Session) {
    let words = format!("delegation-revoked: {}", session.delegation().address());
    for request in [session.invoke(GET, "docs/a"), session.invoke(PUT, "docs/a").body("x")] {
        let answer = node.ask(&request).expect(401);
        assert_eq!((answer.text(), answer.code()), (&*words, Some("delegation_revoked")));
    }
}

fn takes_effect(node: &Node, answer: &crate::harness::Response, revoked: &Session) {
    let cid = revoked.delegation().address().to_string();
    assert_eq!((answer.status, answer.json()), (200, json!({ "revoked": true, "cid": cid })));
    is_revoked(node, revoked);
    // Posting the delegation again is answered, and changes nothing.
    let answer = delegate(node, revoked.delegation()).expect(200).json();
    assert_eq!(answer, json!({ "cid": cid, "activated": [], "skipped": [] }));
    is_revoked(node, revoked);
}

#[test]
fn an_owner_ends_what_others_delegated() {
    for owner in [Owner::wallet(7), Owner::key(7)] {
        let (node, session, bob) = shared(&owner);
        let token = owner.revocation(bob.delegation());
        takes_effect(&node, &revoke(&node, &token), &bob);
        // Once more is no error.
        revoke(&node, &token).expect(200);
        session.get(&node, "docs/a").expect(200);
    }
}

#[test]
fn a_delegator_ends_its_delegation() {
    let (node, session, bob) = shared(&Owner::wallet(7));
    takes_effect(&node, &revoke(&node, &revocation(&session.key, bob.delegation())), &bob);
    session.get(&node, "docs/a").expect(200);
}

#[test]
fn a_delegator_ends_its_delegation_the_way_the_sdk_says_it() {
    let (node, session, bob) = shared(&Owner::wallet(7));
    // The SDK cites the session, which need not name the right to revoke.
    let statement = Statement::of(format!("urn:cid:{}", bob.delegation().address()), &[REVOKE]);
    let token = statement.resting_on(session.delegation()).sign(&session.key);
    takes_effect(&node, &revoke(&node, &token), &bob);
}

#[test]
fn a_delegatee_gives_its_delegation_up() {
    let (node, _, bob) = shared(&Owner::wallet(7));
    takes_effect(&node, &revoke(&node, &revocation(&bob.key, bob.delegation())), &bob);
}

#[test]
fn a_holder_of_the_right_to_revoke_ends_what_its_giver_could() {
    let owner = Owner::wallet(7);
    let (node, session, bob) = shared(&owner);
    let right = owner.session(&node, &session.space, &format!("{}/delegation", session.space), &[REVOKE]);
    let statement = Statement::of(format!("urn:cid:{}", bob.delegation().address()), &[REVOKE]);
    let token = statement.resting_on(right.delegation()).sign(&right.key);
    takes_effect(&node, &revoke(&node, &token), &bob);
}

#[test]
fn what_rests_on_a_revoked_delegation_ends_with_it() {
    let owner = Owner::wallet(7);
    let (mut node, session, bob) = shared(&owner);
    let carol = bob.pass_on(&node, "docs/a", &[GET]);
    carol.get(&node, "docs/a").expect(200);
    revoke(&node, &owner.revocation(session.delegation())).expect(200);
    let check = |node: &Node| {
        is_revoked(node, &session);
        let root = session.delegation().address();
        for dead in [&bob, &carol] {
            let words = format!("delegation-ancestor-revoked: ancestor={root} invoked={}", dead.delegation().address());
            assert_eq!(dead.get(node, "docs/a").expect(401).text(), words);
        }
        let child = Statement::of(bob.kv("docs/a"), &[GET]).to(&did(&new_key()));
        let token = child.clone().resting_on(session.delegation()).sign(&session.key);
        assert_eq!(delegate(node, &token).expect(401).text(), format!("delegation-parent-revoked: {root}"));
        let token = child.resting_on(bob.delegation()).sign(&bob.key);
        let words = format!("delegation-ancestor-revoked: ancestor={root} parent={}", bob.delegation().address());
        assert_eq!(delegate(node, &token).expect(401).text(), words);
    };
    check(&node);
    node.kill();
    node.start();
    check(&node);
    // The owner begins anew; what was written is still there.
    let fresh = owner.session(&node, &session.space, &format!("{}/kv", session.space), &ALL);
    assert_eq!(fresh.get(&node, "docs/a").expect(200).text(), "value");
}

#[test]
fn what_was_written_before_a_revocation_stays() {
    let owner = Owner::wallet(7);
    let (node, session, bob) = shared(&owner);
    bob.put(&node, "docs/b", "by bob").expect(200);
    revoke(&node, &owner.revocation(bob.delegation())).expect(200);
    assert_eq!(session.get(&node, "docs/b").expect(200).text(), "by bob");
    assert_eq!(session.list(&node, "docs"), ["docs/a", "docs/b"]);
}

#[test]
fn what_was_written_outside_of_what_the_revoker_knew_is_undone() {
    let owner = Owner::wallet(7);
    let (node, session, bob) = shared(&owner);
    session.put(&node, "docs/b", "by the owner").expect(200);
    let known = node.ask(&bob.invoke(PUT, "docs/c").body("seen")).expect(200);
    let known = known.header("x-kvspace-frontier").expect("an epoch").to_owned();
    bob.put(&node, "docs/b", "by bob").expect(200);
    bob.put(&node, "docs/d", "new").expect(200);
    let Owner::Wallet(wallet) = &owner else { return };
    let mut statement = Statement::new([]);
    statement.audience = Some(format!("ucan:{}", bob.delegation().address()));
    statement.after = vec![format!("{}/after/{known}", session.space)];
    takes_effect(&node, &revoke(&node, &statement.sign_in(wallet)), &bob);
    assert_eq!(session.get(&node, "docs/b").expect(200).text(), "by the owner");
    assert_eq!(session.get(&node, "docs/c").expect(200).text(), "seen");
    session.get(&node, "docs/d").expect(404);
    assert_eq!(session.list(&node, "docs"), ["docs/a", "docs/b", "docs/c"]);
}

#[test]
fn a_delegation_that_comes_before_its_space_counts_once_the_space_is_there() {
    let owner = Owner::wallet(7);
    let mut node = Node::new();
    let (space, key) = (owner.space("default"), new_key());
    let resource = format!("{space}/kv");
    let delegation = owner.sign(&Statement::of(resource, &ALL).to(&did(&key)).until(3_600_000));
    let cid = delegation.address().to_string();
    for _ in 0..2 {
        let answer = delegate(&node, &delegation).expect(200).json();
        assert_eq!(answer, json!({ "cid": cid, "activated": [], "skipped": [space] }));
    }
    assert_eq!(node.status()["parked"], 1);
    let session = Session { key, space: space.clone(), delegation: Some(delegation) };
    let answer = session.put(&node, "a", "early").expect(404);
    assert_eq!(answer.text(), "Space not found");
    let answer = delegate(&node, &owner.host(&space, &node.did())).expect(200).json();
    assert_eq!((&answer["activated"], &answer["skipped"]), (&json!([space]), &json!([])));
    session.put(&node, "a", "value").expect(200);
    node.stop();
    node.start();
    assert_eq!(session.get(&node, "a").expect(200).text(), "value");
    let answer = delegate(&node, session.delegation()).expect(200).json();
    assert_eq!(answer, json!({ "cid": cid, "activated": [], "skipped": [] }));
}

#[test]
fn an_owner_with_a_key_of_its_own_needs_no_proof() {
    let owner = Owner::key(3);
    let node = Node::new();
    let session = owner.open(&node, "default");
    let own = Session::of_owner(&owner, &session.space);
    own.put(&node, "a", "by the owner").expect(200);
    assert_eq!(session.get(&node, "a").expect(200).text(), "by the owner");
    session.put(&node, "b", "by a session").expect(200);
    assert_eq!(own.list(&node, ""), ["a", "b"]);
    own.del(&node, "b").expect(200);
    let stranger = Session::of_owner(&Owner::key(4), &session.space);
    for ability in [GET, PUT, DEL, LIST] {
        let answer = node.ask(&stranger.invoke(ability, "a").body("x")).expect(401);
        assert_eq!(answer.text(), "Cannot find parent delegation");
    }
}

#[test]
fn a_delegation_of_several_spaces_goes_into_each_that_is_here() {
    let owner = Owner::wallet(7);
    let node = Node::new();
    let (one, two) = (owner.open(&node, "one"), owner.space("two"));
    let key = new_key();
    let statement = Statement::of(format!("{}/kv", one.space), &[GET]).and(format!("{two}/kv"), GET);
    let statement =
        statement.and(format!("urn:tinycloud:encryption:{}:default", owner.did()), "tinycloud.encryption/decrypt");
    let token = owner.sign(&statement.to(&did(&key)));
    let answer = delegate(&node, &token).expect(200).json();
    assert_eq!((&answer["activated"], &answer["skipped"]), (&json!([one.space]), &json!([two])));
    let session = Session { key, space: one.space.clone(), delegation: Some(token) };
    one.put(&node, "a", "value").expect(200);
    assert_eq!(session.get(&node, "a").expect(200).text(), "value");
}

#[test]
fn a_session_ends_with_its_time() {
    let owner = Owner::wallet(7);
    let node = Node::new();
    let session = owner.open(&node, "default");
    let key = new_key();
    let token = owner.sign(&Statement::of(session.kv("a"), &[PUT]).to(&did(&key)).until(1500));
    delegate(&node, &token).expect(200);
    let brief = Session { key, space: session.space.clone(), delegation: Some(token) };
    brief.put(&node, "a", "in time").expect(200);
    crate::harness::process::eventually("the session has ended", || brief.put(&node, "a", "late").status == 401);
    let answer = brief.put(&node, "a", "late").expect(401);
    assert_eq!(answer.text(), format!("Unauthorized Action: {} / {PUT}", brief.kv("a")));
    let state = session.get(&node, "a").expect(200);
    assert!(matches!(state.text(), "in time" | "late"));
}

#[test]
fn the_frontier_is_told_to_whoever_may_do_anything_there() {
    let owner = Owner::wallet(7);
    let (node, session, bob) = shared(&owner);
    let frontier = session.frontier(&node).expect(200).json();
    assert_eq!(frontier["frontier"], node.status()["spaces"][0]["frontier"]);
    let written = session.put(&node, "a", "x").expect(200);
    let frontier = session.frontier(&node).expect(200).json();
    assert_eq!(frontier["frontier"], json!([written.header("x-kvspace-frontier").expect("an epoch")]));
    let stranger = Session::of_owner(&Owner::key(4), &session.space);
    stranger.frontier(&node).expect(401);
    drop(bob);
}
