//! Good tokens for more than their signer may do, or for somebody else.

use super::{KEY, World};
use crate::harness::{
    Node, Owner, Session, Setup, Statement, post,
    tokens::{DEL, GET, HOST, LIST, METADATA, PUT, REVOKE, delegate, did, new_key, revocation},
};

fn action(resource: &str, ability: &str) -> String {
    format!("Unauthorized Action: {resource} / {ability}")
}

/// A session that may read and list beneath `docs`.
fn narrow(world: &World) -> Session {
    let resource = world.session.kv("docs");
    world.owner.session(&world.node, &world.session.space, &resource, &[GET, LIST])
}

#[test]
fn an_invocation_beyond_the_path_that_was_granted() {
    let world = World::new();
    let narrow = narrow(&world);
    for path in ["docs2", "doc", "secret", "", "Docs/a"] {
        for ability in [GET, LIST] {
            let words = action(&narrow.kv(path), ability);
            world.refuses_with(&narrow.invoke(ability, path), 401, "unauthorized_action", &words);
        }
    }
}

#[test]
fn an_invocation_of_an_ability_that_was_not_granted() {
    let world = World::new();
    let narrow = narrow(&world);
    for ability in [PUT, DEL, METADATA] {
        let words = action(&narrow.kv(KEY), ability);
        world.refuses_with(&narrow.invoke(ability, KEY).body("x"), 401, "unauthorized_action", &words);
    }
}

#[test]
fn a_large_body_without_the_right_to_store_it() {
    let world = World::new();
    let narrow = narrow(&world);
    let request = narrow.invoke(PUT, KEY).body(vec![7; 4 << 20]);
    world.refuses(&request, 401, "unauthorized_action");
}

#[test]
fn a_delegation_wider_than_its_proof() {
    let world = World::new();
    let (narrow, other) = (narrow(&world), did(&new_key()));
    for (path, ability) in [("doc", GET), ("docs2", GET), ("", GET), ("docs", PUT), ("docs/a", DEL)] {
        let resource = narrow.kv(path);
        let statement = Statement::of(resource.clone(), &[ability]).to(&other).resting_on(narrow.delegation());
        let request = post("/delegate").token(statement.sign(&narrow.key).to_header());
        let words = format!("Unauthorized Capability: {resource}, {ability}");
        world.refuses_with(&request, 401, "unauthorized_capability", &words);
    }
}

#[test]
fn a_delegation_that_outlives_its_proof() {
    let world = World::new();
    let narrow = narrow(&world);
    let statement = Statement::of(narrow.kv("docs"), &[GET]).to(&did(&new_key())).resting_on(narrow.delegation());
    let request = |statement: Statement| post("/delegate").token(statement.sign(&narrow.key).to_header());
    let words = "Child delegation expiry exceeds parent expiry";
    world.refuses_with(&request(statement.until(1_000_000_000)), 401, "outside_parent_time", words);
}

#[test]
fn a_proof_that_was_given_to_another_key() {
    let world = World::new();
    let thief = Session { key: new_key(), ..world.session.clone() };
    for ability in [GET, PUT, LIST] {
        let words = action(&thief.kv(KEY), ability);
        world.refuses_with(&thief.invoke(ability, KEY).body("x"), 401, "unauthorized_action", &words);
    }
    let words = format!("Unauthorized Delegator: {}", thief.did());
    let statement = Statement::of(thief.kv("docs"), &[GET]).to(&did(&new_key())).resting_on(thief.delegation());
    let request = post("/delegate").token(statement.sign(&thief.key).to_header());
    world.refuses_with(&request, 401, "unauthorized_delegator", &words);
}

#[test]
fn a_proof_that_nobody_has_seen() {
    let world = World::new();
    let words = "Cannot find parent delegation";
    let unseen = world.owner.sign(&Statement::of(world.session.kv("docs"), &[GET]).to(&world.session.did()));
    let statement = Statement::of(world.session.kv(KEY), &[GET]).resting_on(&unseen);
    world.refuses_with(&world.session.request(&statement), 401, "proof_missing", words);
    let without = Statement::of(world.session.kv(KEY), &[GET]);
    world.refuses_with(&world.session.request(&without), 401, "proof_missing", words);
    let statement = Statement::of(world.session.kv("docs"), &[GET]).to(&did(&new_key())).resting_on(&unseen);
    let request = post("/delegate").token(statement.sign(&world.session.key).to_header());
    world.refuses_with(&request, 401, "proof_missing", words);
}

#[test]
fn a_delegation_by_somebody_who_owns_nothing_here() {
    let world = World::new();
    let statement = Statement::of(world.session.kv("docs"), &[GET]).to(&world.session.did());
    for stranger in [Owner::wallet(8), Owner::key(8)] {
        let request = post("/delegate").token(stranger.sign(&statement).to_header());
        world.refuses_with(&request, 401, "proof_missing", "Cannot find parent delegation");
    }
}

#[test]
fn a_write_addressed_to_somebody_else() {
    let world = World::new();
    for ability in [PUT, DEL] {
        let statement = world.session.wants(ability, KEY).to(&did(&new_key()));
        let words = action(&world.session.kv(KEY), ability);
        world.refuses_with(&world.session.request(&statement).body("x"), 401, "audience_mismatch", &words);
    }
    // A read leaves nothing in the log; its audience does not count, as on the reference.
    let statement = world.session.wants(GET, KEY).to(&did(&new_key()));
    world.node.ask(&world.session.request(&statement)).expect(200);
}

#[test]
fn a_delegation_where_an_invocation_belongs() {
    let world = World::new();
    let delegation = Statement::of(world.session.kv("docs"), &[PUT]).to(&did(&new_key()));
    let delegation = delegation.resting_on(world.session.delegation()).sign(&world.session.key);
    let request = post("/invoke").token(delegation.to_header()).body("x");
    world.refuses(&request, 401, "audience_mismatch");
}

#[test]
fn an_invocation_where_a_delegation_belongs() {
    let world = World::new();
    let token = world.session.wants(PUT, KEY).sign(&world.session.key);
    world.refuses(&post("/delegate").token(token.to_header()), 401, "token_role");
    let request = post("/revoke").token(token.to_header());
    world.refuses_with(&request, 403, "token_role", "Unauthorized Revoker");
}

#[test]
fn several_capabilities_in_one_invocation() {
    let world = World::new();
    let words = "Multiple invocation outcomes require a homogeneous KV get or metadata batch";
    for abilities in [[PUT, PUT], [GET, GET], [DEL, PUT]] {
        let statement = world.session.wants(abilities[0], KEY).and(world.session.kv("docs/b"), abilities[1]);
        let request = world.session.request(&statement).body("x");
        world.refuses_with(&request, 501, "batch_unsupported", words);
    }
}

#[test]
fn several_capabilities_of_which_one_is_not_granted() {
    let world = World::new();
    let narrow = narrow(&world);
    let statement = narrow.wants(GET, KEY).and(narrow.kv("secret"), GET);
    let words = action(&narrow.kv("secret"), GET);
    world.refuses_with(&narrow.request(&statement), 401, "unauthorized_action", &words);
}

#[test]
fn an_invocation_on_a_space_that_is_not_here() {
    let world = World::new();
    let owner = Owner::key(9);
    let session = Session::of_owner(&owner, &owner.space("default"));
    for ability in [PUT, GET, LIST, "tinycloud.space/info"] {
        world.refuses_with(&session.invoke(ability, KEY).body("x"), 404, "space_not_found", "Space not found");
    }
}

#[test]
fn a_host_delegation_for_another_node() {
    let world = World::new();
    for owner in [Owner::wallet(9), Owner::key(9)] {
        let space = owner.space("default");
        let token = owner.host(&space, &did(&new_key()));
        let before = world.node.status()["spaces"].clone();
        let answer = delegate(&world.node, &token).expect(200).json();
        assert_eq!(answer["cid"], token.address().to_string());
        assert_eq!((&answer["activated"], &answer["skipped"][0]), (&serde_json::json!([]), &space.as_str().into()));
        assert_eq!(world.node.status()["spaces"], before);
    }
}

#[test]
fn a_host_delegation_by_a_stranger() {
    let world = World::new();
    let space = Owner::wallet(9).space("default");
    for stranger in [Owner::wallet(8), Owner::key(8)] {
        let statement = Statement::of(format!("{space}/space"), &[HOST]).to(&world.node.did());
        let request = post("/delegate").token(stranger.sign(&statement).to_header());
        world.refuses_with(&request, 401, "proof_missing", "Cannot find parent delegation");
    }
}

#[test]
fn an_owner_that_is_not_admitted() {
    let admitted = Owner::wallet(7);
    let world = World::with(Setup::default().option("spaces.admit", admitted.did()));
    let owner = Owner::wallet(9);
    let token = owner.host(&owner.space("default"), &world.node.did());
    world.refuses(&post("/delegate").token(token.to_header()), 403, "not_admitted");
    let node: Node = Setup::default().option("spaces.admit", "none").start();
    let token = owner.host(&owner.space("default"), &node.did());
    let answer = delegate(&node, &token).expect(403);
    assert_eq!(answer.code(), Some("not_admitted"));
    assert_eq!(node.status()["spaces"], serde_json::json!([]));
}

#[test]
fn a_revocation_by_a_stranger() {
    let world = World::new();
    let words = "Unauthorized Revoker";
    for stranger in [Owner::wallet(8), Owner::key(8)] {
        let token = stranger.revocation(world.session.delegation());
        world.refuses_with(&post("/revoke").token(token.to_header()), 403, "unauthorized_revoker", words);
    }
    // The right to read is none to revoke.
    let narrow = narrow(&world);
    let statement = Statement::of(format!("urn:cid:{}", world.session.delegation().address()), &[REVOKE]);
    let token = statement.resting_on(narrow.delegation()).sign(&narrow.key);
    world.refuses_with(&post("/revoke").token(token.to_header()), 403, "unauthorized_revoker", words);
}

#[test]
fn a_revocation_of_what_nobody_has_seen() {
    let world = World::new();
    let unseen = world.owner.sign(&Statement::of(world.session.kv("docs"), &[GET]).to(&world.session.did()));
    let words = "Cannot find parent delegation";
    for token in [world.owner.revocation(&unseen), revocation(&new_key(), &unseen)] {
        world.refuses_with(&post("/revoke").token(token.to_header()), 403, "proof_missing", words);
    }
}

#[test]
fn a_delegation_where_a_revocation_belongs() {
    let world = World::new();
    let request = post("/revoke").token(world.session.delegation().to_header());
    world.refuses_with(&request, 403, "token_role", "Unauthorized Revoker");
    let request = post("/delegate").token(world.owner.revocation(world.session.delegation()).to_header());
    world.refuses(&request, 401, "token_role");
    delegate(&world.node, world.session.delegation()).expect(200);
}
