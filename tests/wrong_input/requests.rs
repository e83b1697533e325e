//! Good tokens in requests that do not say what they should.

use std::collections::BTreeMap;

use kvspace_client::{BlobHash, EpochId};
use kvspace_protocol::capability::Content;

use super::{KEY, VALUE, World};
use crate::harness::{
    Request, get, post,
    tokens::{DEL, GET, LIST, PUT, etag_of},
};

#[test]
fn a_path_that_leads_nowhere() {
    let world = World::new();
    for path in ["/nope", "/", "/invoke/more", "/v0/nope", "/invoke%20", "//invoke", "/v9/frontier"] {
        let answer = world.refuses(&post(path).body("x"), 404, "no_route");
        assert!(!answer.text().to_lowercase().contains("space not found"));
    }
}

#[test]
fn a_method_that_a_path_does_not_have() {
    let world = World::new();
    for request in [
        get("/invoke"),
        get("/delegate"),
        get("/revoke"),
        post("/info"),
        Request::new("PUT", "/invoke"),
        Request::new("DELETE", "/invoke"),
        post("/peer/generate/tinycloud:key:z6Mk:default"),
    ] {
        world.refuses(&request, 405, "method_not_allowed");
    }
}

#[test]
fn a_space_that_is_none() {
    let world = World::new();
    for space in ["x", "", "tinycloud:", "tinycloud:key:z6Mk:", "%ff", "%", "tinycloud%3akey", "tinycloud:a:b/kv"] {
        world.refuses(&get(&format!("/peer/generate/{space}")), 400, "space_malformed");
    }
}

#[test]
fn a_key_that_is_too_long() {
    let world = World::new();
    for ability in [PUT, GET, DEL] {
        let request = world.session.invoke(ability, &"k".repeat(1025)).body("x");
        world.refuses(&request, 400, "key_too_long");
    }
    world.session.put(&world.node, &"k".repeat(1024), "x").expect(200);
}

#[test]
fn headers_that_are_too_large_to_store() {
    let world = World::new();
    let put =
        |bytes: usize| world.session.invoke(PUT, "docs/b").header("x-tinycloud-meta-a", "m".repeat(bytes)).body("x");
    world.refuses(&put(8 * 1024), 400, "meta_too_large");
    world.node.ask(&put(8 * 1024 - "x-tinycloud-meta-a".len())).expect(200);
}

#[test]
fn headers_that_cannot_be_stored() {
    let world = World::new();
    let put = || world.session.invoke(PUT, "docs/b").body("x");
    let request = put().header("content-type", "a/b").header("content-type", "c/d");
    world.refuses(&request, 400, "header_repeated");
    world.refuses(&put().header("x-tinycloud-meta-a", "a\tb"), 400, "header_malformed");
}

#[test]
fn a_form_where_a_value_belongs() {
    let world = World::new();
    let put = world.session.invoke(PUT, "docs/b").header("content-type", "multipart/form-data; boundary=b");
    world.refuses(&put.body("--b\r\n\r\nx\r\n--b--\r\n"), 501, "batch_unsupported");
}

#[test]
fn a_precondition_that_cannot_be_read() {
    let world = World::new();
    let tag = etag_of(VALUE);
    for bad in [
        "*".to_owned(),
        "x".into(),
        String::new(),
        tag.trim_matches('"').into(),
        format!("W/{tag}"),
        format!("{tag}, {tag}"),
        tag.replace("blake3", "sha256"),
        tag.replace("blake3-", "blake3-0"),
    ] {
        for ability in [PUT, DEL] {
            let request = world.session.invoke(ability, KEY).header("if-match", &bad).body("x");
            world.refuses(&request, 400, "condition_malformed");
        }
    }
    for bad in [&*tag, "x", ""] {
        let request = world.session.invoke(PUT, KEY).header("if-none-match", bad).body("x");
        world.refuses(&request, 400, "condition_malformed");
    }
}

#[test]
fn two_preconditions_at_once() {
    let world = World::new();
    let request = world.session.invoke(PUT, KEY).header("if-match", etag_of(VALUE)).header("if-none-match", "*");
    world.refuses(&request.body("x"), 400, "condition_malformed");
}

#[test]
fn a_precondition_on_a_version() {
    let world = World::new();
    for ability in [PUT, DEL, GET] {
        let request = world.session.invoke(ability, KEY).header("x-tinycloud-expected-version", "1").body("x");
        world.refuses(&request, 400, "condition_malformed");
    }
}

#[test]
fn a_precondition_that_does_not_hold() {
    let world = World::new();
    let words = "KV precondition failed";
    let request = world.session.invoke(PUT, KEY).header("if-none-match", "*").body("x");
    world.refuses_with(&request, 412, "precondition_failed", words);
    for ability in [PUT, DEL] {
        let request = world.session.invoke(ability, KEY).header("if-match", etag_of(b"other")).body("x");
        world.refuses_with(&request, 412, "precondition_failed", words);
        let request = world.session.invoke(ability, "docs/none").header("if-match", etag_of(VALUE)).body("x");
        world.refuses_with(&request, 412, "precondition_failed", words);
    }
}

#[test]
fn a_limit_out_of_range() {
    let world = World::new();
    for limit in ["0", "1001", "abc", "-1", "1.5", ""] {
        let request = world.session.invoke(LIST, "").header("x-tinycloud-limit", limit);
        world.refuses(&request, 400, "header_malformed");
    }
}

#[test]
fn a_cursor_that_is_none_or_of_another_question() {
    let world = World::new();
    world.session.put(&world.node, "docs/b", "x").expect(200);
    let words = "Invalid KV list cursor";
    let list = |path: &str, limit: &str| world.session.invoke(LIST, path).header("x-tinycloud-limit", limit);
    let first = world.node.ask(&list("docs", "1")).expect(200);
    let cursor = first.header("x-tinycloud-next-cursor").expect("there is more");
    for bad in ["", "x", "e30", &cursor[1..], &format!("{cursor}=")] {
        let request = list("docs", "1").header("x-tinycloud-cursor", bad);
        world.refuses_with(&request, 400, "cursor_invalid", words);
    }
    for (path, limit) in [("docs/", "1"), ("", "1"), ("docs", "2")] {
        let request = list(path, limit).header("x-tinycloud-cursor", cursor);
        world.refuses_with(&request, 400, "cursor_invalid", words);
    }
    let other = world.owner.session(&world.node, &world.session.space, &world.session.kv("docs"), &[LIST]);
    let request = other.invoke(LIST, "docs").header("x-tinycloud-limit", "1").header("x-tinycloud-cursor", cursor);
    world.refuses_with(&request, 400, "cursor_invalid", words);
    assert_eq!(world.node.ask(&list("docs", "1").header("x-tinycloud-cursor", cursor)).keys(), ["docs/b"]);
}

#[test]
fn a_value_larger_than_the_client_takes() {
    let world = World::new();
    let ask = |bytes: &str| world.session.invoke(GET, KEY).header("x-tinycloud-max-response-bytes", bytes);
    let words = "KV response is 4 bytes, exceeding the requested limit of 3 bytes";
    world.refuses_with(&ask("3"), 413, "response_too_large", words);
    world.node.ask(&ask("4")).expect(200);
    for bad in ["0", "-1", "x", ""] {
        world.refuses(&ask(bad), 400, "header_malformed");
    }
}

#[test]
fn a_key_that_is_not_there() {
    let world = World::new();
    for ability in [GET, "tinycloud.kv/metadata"] {
        let answer = world.refuses(&world.session.invoke(ability, "docs/none"), 404, "key_not_found");
        assert!(!answer.text().to_lowercase().contains("space not found"));
    }
    let words = "No Such Key: docs/none";
    world.refuses_with(&world.session.invoke(DEL, "docs/none"), 404, "key_not_found", words);
}

#[test]
fn the_same_token_with_another_body() {
    let world = World::new();
    let put = world.session.invoke(PUT, "docs/b");
    world.node.ask(&put.clone().body("one")).expect(200);
    let words = "duplicate invocation";
    world.refuses_with(&put.clone().body("two"), 409, "duplicate", words);
    world.unchanged(|| world.node.ask(&put.body("one")).expect(200));
}

#[test]
fn a_value_that_its_signer_did_not_sign() {
    let world = World::new();
    let content = |bytes: &[u8]| Content { cid: BlobHash::of(bytes), size: bytes.len() as u64, meta: BTreeMap::new() };
    let put = |content: Content, meta: &str| {
        let mut statement = world.session.wants(PUT, "docs/b");
        statement.content = Some(BTreeMap::from([(world.session.kv("docs/b"), content)]));
        world.session.request(&statement).header("x-tinycloud-meta-a", meta).body("signed")
    };
    let meta = BTreeMap::from([("x-tinycloud-meta-a".to_owned(), "m".to_owned())]);
    for wrong in [
        content(b"signed"),
        Content { meta: meta.clone(), ..content(b"other!") },
        Content { meta: meta.clone(), size: 7, ..content(b"signed") },
    ] {
        world.refuses(&put(wrong, "m"), 400, "content_mismatch");
    }
    world.node.ask(&put(Content { meta, ..content(b"signed") }, "m")).expect(200);
    let answer = world.session.get(&world.node, "docs/b").expect(200);
    assert_eq!(answer.header("x-kvspace-integrity"), Some("client-signed"));
}

#[test]
fn a_write_that_rests_on_what_this_host_has_not_seen() {
    let world = World::new();
    let mut statement = world.session.wants(PUT, "docs/b");
    statement.after = vec![format!("{}/after/{}", world.session.space, EpochId::of(b"unseen"))];
    let answer = world.refuses(&world.session.request(&statement).body("x"), 425, "frontier_behind");
    assert!(answer.header("retry-after").is_some());
}

#[test]
fn a_key_with_a_raw_question_mark() {
    let world = World::new();
    world.refuses(&world.session.invoke(PUT, "docs/what?").body("other"), 400, "key_not_encoded");
}
