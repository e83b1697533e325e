//! Tokens that are none, and tokens at the wrong time or of the wrong form.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::json;

use super::{KEY, World};
use crate::harness::{
    post,
    tokens::{GET, LIST, PUT, jwt, parts},
};

const EXPIRED: &str = "Invocation expired or not yet valid";

fn is_no_token(world: &World, path: &str, text: &str) {
    world.refuses(&post(path).token(text).body("x"), 401, "token_malformed");
}

#[test]
fn a_request_without_a_token() {
    let world = World::new();
    for path in ["/invoke", "/delegate", "/revoke"] {
        world.refuses(&post(path).body("x"), 401, "token_missing");
    }
}

#[test]
fn garbage_for_a_token() {
    let world = World::new();
    for path in ["/invoke", "/delegate", "/revoke"] {
        for text in ["garbage", "", "a.b.c", "..", "{}", "o2FooWF0Z2VpcDQzNjFhcA==", "\u{e9}.\u{e9}.\u{e9}"] {
            is_no_token(&world, path, text);
        }
    }
}

#[test]
fn a_token_cut_off_anywhere() {
    let world = World::new();
    let invocation = world.session.wants(PUT, "docs/b").sign(&world.session.key).to_header();
    let delegation = world.session.delegation().to_header();
    for (path, text) in [("/invoke", invocation), ("/delegate", delegation)] {
        for tenths in 1..10 {
            is_no_token(&world, path, &text[..text.len() * tenths / 10]);
        }
        is_no_token(&world, path, &text[..text.len() - 1]);
    }
}

#[test]
fn a_token_of_65_kib() {
    let world = World::new();
    let (header, mut payload) = parts(&world.session.wants(PUT, "docs/b").sign(&world.session.key));
    payload["nnc"] = "n".repeat(65 * 1024).into();
    is_no_token(&world, "/invoke", &jwt(&header, &payload, &world.session.key));
    // As large as tokens may be is taken.
    payload["nnc"] = "n".repeat(46 * 1024).into();
    let text = jwt(&header, &payload, &world.session.key);
    assert!((62 * 1024..64 * 1024).contains(&text.len()), "{}", text.len());
    world.node.ask(&post("/invoke").token(text).body("x")).expect(200);
}

#[test]
fn headers_beyond_the_bound_of_the_server() {
    let world = World::new();
    let request = post("/invoke").token("a".repeat(300 * 1024)).body("x");
    let answer = world.unchanged(|| {
        let mut connection = world.node.connect();
        // The node need not read on when it has seen enough.
        drop(connection.try_send(&request.head()));
        connection.answer()
    });
    assert_eq!(answer.map(|answer| answer.status).ok(), Some(431));
}

#[test]
fn an_expired_invocation() {
    let world = World::new();
    for ability in [PUT, GET, LIST] {
        let statement = world.session.wants(ability, KEY).until(-1000);
        world.refuses_with(&world.session.request(&statement), 401, "token_expired", EXPIRED);
    }
}

#[test]
fn an_invocation_before_its_time() {
    let world = World::new();
    let statement = world.session.wants(PUT, "docs/b").within(30_000, 60_000);
    world.refuses_with(&world.session.request(&statement).body("x"), 401, "token_expired", EXPIRED);
}

#[test]
fn an_invocation_that_lives_too_long() {
    let world = World::new();
    let words = "Invocation lifetime exceeds server maximum";
    let statement = world.session.wants(PUT, "docs/b").until(310_000);
    world.refuses_with(&world.session.request(&statement).body("x"), 401, "token_lifetime", words);
    let statement = world.session.wants(PUT, "docs/b").until(290_000);
    world.node.ask(&world.session.request(&statement).body("x")).expect(200);
}

#[test]
fn an_expired_delegation_or_revocation() {
    let world = World::new();
    let past = |token: &str| post(token);
    let mut statement = crate::harness::Statement::of(world.session.kv("docs"), &[GET]).to(&world.session.did());
    statement = statement.until(-1000);
    let request = past("/delegate").token(world.owner.sign(&statement).to_header());
    world.refuses_with(&request, 401, "token_expired", "Delegation expired or not yet valid");
    let mut statement = crate::harness::Statement::new([]).until(-1000);
    statement.audience = Some(format!("ucan:{}", world.session.delegation().address()));
    let request = past("/revoke").token(world.owner.sign(&statement).to_header());
    world.refuses_with(&request, 403, "token_expired", "Revocation expired or not yet valid");
}

#[test]
fn a_signature_of_another_key() {
    let world = World::new();
    let (header, payload) = parts(&world.session.wants(PUT, "docs/b").sign(&world.session.key));
    let forged = jwt(&header, &payload, &crate::harness::tokens::new_key());
    let words = "Failed to verify signature";
    world.refuses_with(&post("/invoke").token(forged).body("x"), 401, "token_signature", words);
}

#[test]
fn a_payload_changed_after_it_was_signed() {
    let world = World::new();
    let token = world.session.wants(PUT, "docs/b").sign(&world.session.key);
    let (_, mut payload) = parts(&token);
    payload["nnc"] = "another".into();
    let text = token.to_header();
    let signed: Vec<_> = text.split('.').collect();
    let changed = format!("{}.{}.{}", signed[0], URL_SAFE_NO_PAD.encode(payload.to_string()), signed[2]);
    let words = "Failed to verify signature";
    world.refuses_with(&post("/invoke").token(changed).body("x"), 401, "token_signature", words);
}

#[test]
fn a_wallets_message_signed_by_another_wallet() {
    let world = World::new();
    let crate::harness::Owner::Wallet(other) = crate::harness::Owner::wallet(8) else { return };
    let crate::harness::Owner::Wallet(wallet) = &world.owner else { return };
    let statement = crate::harness::Statement::of(world.session.kv("docs"), &[GET]).to(&world.session.did());
    let siwe = statement.siwe(wallet);
    let forged = siwe.sign(other.sign_personal(&siwe.text())).expect("it has the form of a token");
    let request = post("/delegate").token(forged.to_header());
    world.refuses_with(&request, 401, "token_signature", "Failed to verify signature");
}

#[test]
fn an_algorithm_or_version_that_is_not_spoken() {
    let world = World::new();
    let (header, payload) = parts(&world.session.wants(PUT, "docs/b").sign(&world.session.key));
    for (member, value) in [
        ("alg", json!("none")),
        ("alg", json!("ES256")),
        ("alg", json!("HS256")),
        ("alg", json!(null)),
        ("ucv", json!("0.9.0")),
        ("ucv", json!("1.0.0")),
        ("ucv", json!(null)),
        ("typ", json!("at+jwt")),
        ("typ", json!(null)),
    ] {
        let mut changed = header.clone();
        changed[member] = value;
        is_no_token(&world, "/invoke", &jwt(&changed, &payload, &world.session.key));
    }
}

#[test]
fn a_token_behind_the_word_bearer() {
    let world = World::new();
    let token = world.session.wants(PUT, "docs/b").sign(&world.session.key).to_header();
    is_no_token(&world, "/invoke", &format!("Bearer {token}"));
    is_no_token(&world, "/delegate", &format!("Bearer {}", world.session.delegation().to_header()));
}

#[test]
fn two_tokens_in_one_request() {
    let world = World::new();
    let token = || world.session.wants(PUT, "docs/b").sign(&world.session.key).to_header();
    let request = post("/invoke").token(token()).token(token()).body("x");
    world.refuses(&request, 401, "token_malformed");
}

#[test]
fn a_wallets_message_where_an_invocation_belongs() {
    let world = World::new();
    is_no_token(&world, "/invoke", &world.session.delegation().to_header());
}
