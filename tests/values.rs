//! What a node does with values: they are kept, found, listed and deleted as clients expect it.

mod authority;
mod lists;
mod memory;
mod restart;

use std::thread;

use crate::harness::{
    Node, Owner, Request, Response, Session, get,
    tokens::{ALL, DEL, GET, LIST, METADATA, PUT, etag_of},
};

const KIB_256: usize = 256 * 1024;

fn open(node: &Node) -> Session {
    Owner::wallet(7).open(node, "default")
}

/// Bytes that are like no others.
fn bytes(length: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&seed.to_be_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

#[test]
fn a_node_says_what_it_is() {
    let node = Node::new();
    let info = node.ask(&get("/info")).expect(200);
    assert_eq!(info.header("content-type"), Some("application/json"));
    assert_eq!(node.ask(&get("/version")).expect(200).body, info.body);
    let info = info.json();
    assert_eq!((&info["protocol"], &info["inTEE"]), (&1.into(), &false.into()));
    assert_eq!(info["nodeId"], node.did().as_str());
    assert!(info["version"].is_string());
    assert!(info["features"].as_array().expect("features").contains(&"kv".into()));
    assert_eq!(node.ask(&get("/healthz")).expect(200).body, b"");
    let space = Owner::wallet(7).space("default");
    for path in [space.to_string(), space.to_string().replace(':', "%3A")] {
        let answer = node.ask(&get(&format!("/peer/generate/{path}"))).expect(200);
        assert_eq!(answer.text(), node.did().as_str());
    }
}

#[test]
fn a_value_comes_back_as_it_was_put() {
    let node = Node::new();
    let session = open(&node);
    let value = b"hello \xff\0 world";
    let put = session.invoke(PUT, "docs/a").header("content-type", "text/plain;charset=UTF-8").body(value);
    let answer = node.ask(&put).expect(200);
    assert_eq!((answer.etag(), answer.body.as_slice()), (Some(&*etag_of(value)), &b""[..]));
    let answer = session.get(&node, "docs/a").expect(200);
    assert_eq!((answer.etag(), answer.body.as_slice()), (Some(&*etag_of(value)), &value[..]));
    assert_eq!(answer.header("content-type"), Some("text/plain;charset=UTF-8"));
    assert_eq!(answer.header("cache-control"), Some("private, no-cache"));
    assert_eq!(answer.header("content-length"), Some("14"));
    assert_eq!(answer.header("x-kvspace-integrity"), Some("host-attested"));
}

#[test]
fn stored_headers_come_back_and_others_are_dropped() {
    let node = Node::new();
    let session = open(&node);
    let stored = [
        ("content-type", "application/json"),
        ("content-encoding", "br"),
        ("content-language", "de"),
        ("content-disposition", "attachment; filename=a.json"),
        ("x-tinycloud-meta-colour", "red"),
        ("x-tinycloud-meta-Size", "XL"),
    ];
    let dropped = [("x-other", "1"), ("set-cookie", "a=b"), ("x-kvspace-version", "9"), ("last-modified", "today")];
    let put = session.invoke(PUT, "a").body("{}");
    let put = stored.iter().chain(&dropped).fold(put, |put, (name, value)| put.header(name, value));
    node.ask(&put).expect(200);
    for ability in [GET, METADATA] {
        let answer = node.ask(&session.invoke(ability, "a")).expect(200);
        for (name, value) in stored {
            assert_eq!(answer.header(name), Some(value), "{name}");
        }
        for name in ["x-other", "set-cookie", "last-modified"] {
            assert_eq!(answer.header(name), None, "{name}");
        }
        assert_ne!(answer.header("x-kvspace-version"), Some("9"));
    }
    // The next put brings its own headers; nothing of the old ones stays.
    session.put(&node, "a", "[]").expect(200);
    let answer = session.get(&node, "a").expect(200);
    assert!(stored.iter().all(|(name, _)| answer.header(name).is_none()), "{answer:?}");
}

#[test]
fn the_headers_of_a_value_are_told_without_it() {
    let node = Node::new();
    let session = open(&node);
    let value = bytes(KIB_256 + 1, 1);
    session.put(&node, "a", value.clone()).expect(200);
    let answer = node.ask(&session.invoke(METADATA, "a")).expect(200);
    assert_eq!((answer.etag(), answer.body.as_slice()), (Some(&*etag_of(&value)), &b""[..]));
    assert_eq!(answer.header("x-kvspace-size"), Some("262145"));
}

#[test]
fn keys_are_paths_byte_for_byte() {
    let node = Node::new();
    let session = open(&node);
    let mut keys = vec![
        "a",
        "A",
        "a/",
        "a//",
        "//a",
        "a/b",
        "a.b",
        "a-b",
        "a~b",
        "notes/Zo%C3%AB%201",
        "100%25%3F%23",
        "x%2Fy",
        "e,f;g=h",
        "@user",
        "(1)",
        "it's!",
        "$&+*",
    ];
    for key in &keys {
        session.put(&node, key, *key).expect(200);
    }
    for key in &keys {
        assert_eq!(session.get(&node, key).expect(200).text(), *key);
    }
    keys.sort_unstable();
    assert_eq!(session.list(&node, ""), keys);
    for never in ["x/y", "notes/Zo%c3%ab%201", "aa"] {
        assert_ne!(session.get(&node, never).status, 200, "{never}");
    }
}

#[test]
fn an_empty_value_is_a_value() {
    let node = Node::new();
    let session = open(&node);
    let empty = "\"blake3-af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262\"";
    assert_eq!(session.put(&node, "a", "").expect(200).etag(), Some(empty));
    let answer = session.get(&node, "a").expect(200);
    assert_eq!((answer.body.len(), answer.etag(), answer.header("content-length")), (0, Some(empty), Some("0")));
    assert_eq!(session.list(&node, ""), ["a"]);
    let answer = node.ask(&session.invoke(PUT, "b").chunked()).expect(200);
    assert_eq!(answer.etag(), Some(empty));
    assert_eq!(session.get(&node, "b").expect(200).body, b"");
}

#[test]
fn a_value_is_the_same_on_both_sides_of_the_size_where_files_begin() {
    let node = Node::new();
    let session = open(&node);
    for (number, length) in [KIB_256 - 1, KIB_256, KIB_256 + 1, 3 * KIB_256].into_iter().enumerate() {
        for chunked in [false, true] {
            let (key, value) = (format!("{length}/{chunked}"), bytes(length, number as u64));
            let put = session.invoke(PUT, &key).body(value.clone());
            let put = if chunked { put.chunked() } else { put };
            assert_eq!(node.ask(&put).expect(200).etag(), Some(&*etag_of(&value)));
            let answer = session.get(&node, &key).expect(200);
            assert_eq!(answer.etag(), Some(&*etag_of(&value)));
            assert!(answer.body == value, "{key}");
        }
    }
    let (_, files) = node.state();
    assert_eq!(files.len(), 2, "one file for each value beyond 256 KiB: {files:?}");
    assert!(node.staging().is_empty());
}

#[test]
fn a_client_that_has_the_value_is_told_so() {
    let node = Node::new();
    let session = open(&node);
    let tag = session.put(&node, "a", "value").expect(200).etag().expect("a tag").to_owned();
    let other = etag_of(b"other");
    let ask = |known: &str| node.ask(&session.invoke(GET, "a").header("if-none-match", known));
    for known in [tag.clone(), format!("W/{tag}"), format!("{other}, {tag}"), "*".into()] {
        let answer = ask(&known).expect(304);
        assert_eq!((answer.etag(), answer.body.as_slice()), (Some(&*tag), &b""[..]), "{known}");
    }
    assert_eq!(ask(&other).expect(200).text(), "value");
    let missing = node.ask(&session.invoke(GET, "b").header("if-none-match", "*"));
    assert_eq!(missing.status, 404);
}

#[test]
fn a_put_happens_only_where_its_condition_holds() {
    let node = Node::new();
    let session = open(&node);
    let put = |value: &str, name: &str, condition: &str| {
        node.ask(&session.invoke(PUT, "a").header(name, condition).body(value))
    };
    put("0", "if-match", &etag_of(b"0")).expect(412);
    put("1", "if-none-match", "*").expect(200);
    put("2", "if-none-match", "*").expect(412);
    put("2", "if-match", &etag_of(b"1")).expect(200);
    put("3", "if-match", &etag_of(b"1")).expect(412);
    assert_eq!(session.get(&node, "a").text(), "2");
    let del = |condition: &str| node.ask(&session.invoke(DEL, "a").header("if-match", condition));
    del(&etag_of(b"1")).expect(412);
    del(&etag_of(b"2")).expect(200);
    put("4", "if-match", &etag_of(b"2")).expect(412);
    put("4", "if-none-match", "*").expect(200);
    assert_eq!(session.get(&node, "a").text(), "4");
}

/// Sends all requests at the same time; the answers in their order.
fn at_once(node: &Node, requests: Vec<Request>) -> Vec<Response> {
    let ready = std::sync::Barrier::new(requests.len());
    thread::scope(|scope| {
        let threads: Vec<_> = requests
            .iter()
            .map(|request| {
                let ready = &ready;
                scope.spawn(move || {
                    let mut connection = node.connect();
                    ready.wait();
                    connection.ask(request)
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("it ends")).collect()
    })
}

fn one_wins(node: &Node, session: &Session, key: &str, requests: Vec<Request>) {
    let answers = at_once(node, requests);
    let winners: Vec<_> = (0..answers.len()).filter(|n| answers[*n].status == 200).collect();
    assert_eq!(winners.len(), 1, "{answers:?}");
    assert!(answers.iter().all(|answer| matches!(answer.status, 200 | 412)), "{answers:?}");
    assert_eq!(session.get(node, key).expect(200).text(), winners[0].to_string());
}

#[test]
fn of_many_conditional_puts_at_once_one_happens() {
    let node = Node::new();
    let session = open(&node);
    for round in 0..4 {
        let key = format!("race/{round}");
        let put = |n: usize, name: &str, condition: &str| {
            session.invoke(PUT, &key).header(name, condition).body(n.to_string())
        };
        one_wins(&node, &session, &key, (0..32).map(|n| put(n, "if-none-match", "*")).collect());
        let tag = session.get(&node, &key).etag().expect("a tag").to_owned();
        // The value that is there is left out: putting it again would let a second one match.
        let current: usize = session.get(&node, &key).text().parse().expect("a number");
        let answers =
            at_once(&node, (0..32).map(|n| put(if n == current { 99 } else { n }, "if-match", &tag)).collect());
        assert_eq!(answers.iter().filter(|answer| answer.status == 200).count(), 1, "{answers:?}");
    }
}

#[test]
fn a_retry_is_given_the_first_outcome() {
    let node = Node::new();
    let session = open(&node);
    let put = session.invoke(PUT, "a").body("one");
    let first = node.ask(&put).expect(200);
    let again = node.ask(&put).expect(200);
    for name in ["etag", "x-kvspace-version", "x-kvspace-frontier"] {
        assert_eq!(again.header(name), first.header(name));
    }
    session.put(&node, "a", "two").expect(200);
    assert_eq!(node.ask(&put).expect(200).etag(), first.etag());
    assert_eq!(session.get(&node, "a").text(), "two", "a retry undoes nothing");
    let del = session.invoke(DEL, "a");
    let removed = etag_of(b"two");
    assert_eq!(node.ask(&del).expect(200).etag(), Some(&*removed));
    assert_eq!(node.ask(&del).expect(200).etag(), Some(&*removed));
    session.put(&node, "a", "three").expect(200);
    assert_eq!(node.ask(&del).expect(200).etag(), Some(&*removed));
    assert_eq!(session.get(&node, "a").text(), "three");
    // Reads may be sent any number of times.
    let read = session.invoke(GET, "a");
    assert_eq!(node.ask(&read).expect(200).body, node.ask(&read).expect(200).body);
}

#[test]
fn the_same_request_many_times_at_once_happens_once() {
    let node = Node::new();
    let session = open(&node);
    let put = session.invoke(PUT, "a").body("one");
    let answers = at_once(&node, vec![put; 32]);
    assert!(answers.iter().all(|answer| answer.status == 200), "{answers:?}");
    let versions: std::collections::BTreeSet<_> =
        answers.iter().map(|answer| answer.header("x-kvspace-version")).collect();
    assert_eq!(versions.len(), 1);
}

#[test]
fn a_delete_removes_and_says_what_it_removed() {
    let node = Node::new();
    let session = open(&node);
    let answer = session.del(&node, "docs/never").expect(404);
    assert_eq!(answer.text(), "No Such Key: docs/never");
    session.put(&node, "a", "value").expect(200);
    session.put(&node, "same", "value").expect(200);
    assert_eq!(session.del(&node, "a").expect(200).etag(), Some(&*etag_of(b"value")));
    session.get(&node, "a").expect(404);
    node.ask(&session.invoke(METADATA, "a")).expect(404);
    assert_eq!(session.list(&node, ""), ["same"]);
    assert_eq!(session.get(&node, "same").expect(200).text(), "value");
    assert_eq!(session.del(&node, "a").expect(200).etag(), None);
    assert_eq!(node.ask(&session.invoke("tinycloud.kv/delete", "same")).expect(200).etag(), Some(&*etag_of(b"value")));
    session.put(&node, "a", "again").expect(200);
    assert_eq!(session.get(&node, "a").expect(200).text(), "again");
}

#[test]
fn spaces_know_nothing_of_each_other() {
    let node = Node::new();
    let owner = Owner::wallet(7);
    let (one, two) = (owner.open(&node, "one"), owner.open(&node, "two"));
    let other = Owner::wallet(8).open(&node, "one");
    for (session, value) in [(&one, "1"), (&two, "2"), (&other, "3")] {
        session.put(&node, "a", value).expect(200);
    }
    for (session, value) in [(&one, "1"), (&two, "2"), (&other, "3")] {
        assert_eq!(session.get(&node, "a").expect(200).text(), value);
    }
    one.del(&node, "a").expect(200);
    assert_eq!((two.list(&node, ""), one.list(&node, "")), (vec!["a".to_owned()], vec![]));
}

#[test]
fn what_has_no_effect_here_is_answered_with_nothing() {
    let node = Node::new();
    let owner = Owner::wallet(7);
    let session = owner.open(&node, "default");
    let space = &session.space;
    let before = node.state();
    for (resource, ability) in [
        (format!("{space}/space"), "tinycloud.space/info"),
        (format!("{space}/sql/db"), "tinycloud.sql/read"),
        (format!("{space}/kv/a"), "tinycloud.kv/*"),
    ] {
        let other = owner.session(&node, space, &resource, &[ability]);
        let statement = crate::harness::Statement::of(resource.clone(), &[ability]).resting_on(other.delegation());
        assert_eq!(node.ask(&other.request(&statement)).expect(200).body, b"");
        let statement = crate::harness::Statement::of(resource, &[ability]).resting_on(session.delegation());
        node.ask(&session.request(&statement)).expect(401);
    }
    assert_eq!(node.state().1, before.1);
    assert_eq!(session.list(&node, ""), Vec::<String>::new());
}

#[test]
fn browsers_of_any_origin_may_read_every_answer() {
    let node = Node::new();
    let session = open(&node);
    let mut asked: Vec<_> = ALL.iter().map(|ability| session.invoke(ability, "none")).collect();
    asked.push(get("/info"));
    asked.push(get("/nope"));
    asked.push(get("/invoke"));
    asked.push(Request::new("POST", "/invoke"));
    asked.push(session.invoke(LIST, "").header("x-tinycloud-limit", "0"));
    for path in ["/invoke", "/delegate", "/any/thing"] {
        asked.push(Request::new("OPTIONS", path).header("origin", "https://app.example"));
    }
    for request in asked {
        let answer = node.ask(&request.header("origin", "https://app.example"));
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"), "{answer:?}");
        assert_eq!(answer.header("access-control-allow-methods"), Some("POST, PUT, GET, OPTIONS, DELETE"));
        let allowed = answer.header("access-control-allow-headers").expect("names");
        assert!(allowed.starts_with("*, Authorization") && allowed.contains("x-kvspace-after"), "{allowed}");
        assert_eq!(answer.header("access-control-allow-credentials"), Some("true"));
        let exposed = answer.header("access-control-expose-headers").expect("names");
        assert!(exposed.starts_with("*, Authorization") && exposed.contains("ETag"), "{exposed}");
    }
    let preflight = Request::new("OPTIONS", "/invoke").header("access-control-request-method", "POST");
    node.ask(&preflight).expect(200);
}
