//! Lists: complete, in order, page by page, and no further than a grant reaches.

use std::thread;

use super::open;
use crate::harness::{
    Node, Owner, Session,
    tokens::{GET, LIST, PUT},
};

const KEYS: usize = 2500;
const WRITERS: usize = 8;

/// A node with many keys, and those keys in order.
fn filled() -> (Node, Session, Vec<String>) {
    let node = Node::new();
    let session = open(&node);
    let mut keys: Vec<_> =
        (0..KEYS).map(|n| format!("{}/{:04}", ["docs", "docs2", "d", "e/f"][n % 4], n * 7919 % 10_000)).collect();
    thread::scope(|scope| {
        for share in keys.chunks(KEYS.div_ceil(WRITERS)) {
            let (node, session) = (&node, &session);
            scope.spawn(move || {
                let mut connection = node.connect();
                for key in share {
                    connection.ask(&session.invoke(PUT, key).body(key.as_bytes())).expect(200);
                }
            });
        }
    });
    keys.sort_unstable();
    (node, session, keys)
}

/// All pages of a list.
fn pages(node: &Node, session: &Session, path: &str, limit: usize) -> Vec<Vec<String>> {
    let (mut connection, mut cursor) = (node.connect(), None::<String>);
    let mut pages = Vec::new();
    loop {
        let request = session.invoke(LIST, path).header("x-tinycloud-limit", limit);
        let request = match &cursor {
            Some(cursor) => request.header("x-tinycloud-cursor", cursor),
            None => request,
        };
        let answer = connection.ask(&request).expect(200);
        assert_eq!(answer.header("content-type"), Some("application/json"));
        pages.push(answer.keys());
        cursor = answer.header("x-tinycloud-next-cursor").map(str::to_owned);
        assert_eq!(answer.header("x-tinycloud-truncated"), Some(if cursor.is_some() { "true" } else { "false" }));
        if cursor.is_none() {
            return pages;
        }
    }
}

#[test]
fn a_list_gives_each_key_once_and_in_order() {
    let (node, session, keys) = filled();
    // Without a limit all come in one answer.
    let answer = node.ask(&session.invoke(LIST, "")).expect(200);
    assert_eq!(answer.header("x-tinycloud-truncated"), Some("false"));
    assert_eq!(answer.keys(), keys);
    for limit in [1000, 333, 250] {
        let pages = pages(&node, &session, "", limit);
        assert_eq!(pages.len(), KEYS.div_ceil(limit));
        assert!(pages.iter().all(|page| page.len() <= limit));
        assert_eq!(pages.concat(), keys, "{limit}");
    }
    let beneath = |path: &str| keys.iter().filter(|key| key.starts_with(path)).cloned().collect::<Vec<_>>();
    for path in ["docs", "docs/"] {
        assert_eq!(pages(&node, &session, path, 100).concat(), beneath("docs/"));
        assert_eq!(session.list(&node, path), beneath("docs/"));
    }
    assert_eq!(session.list(&node, "e"), beneath("e/f/"));
    assert_eq!(session.list(&node, "do"), Vec::<String>::new());
    assert_eq!(session.list(&node, "DOCS"), Vec::<String>::new());
}

#[test]
fn keys_that_come_and_go_do_not_disturb_the_others() {
    let node = Node::new();
    let session = open(&node);
    let put = |key: &str| drop(session.put(&node, key, "x").expect(200));
    ["b", "d", "f", "h"].into_iter().for_each(put);
    let page = |cursor: Option<&str>| {
        let request = session.invoke(LIST, "").header("x-tinycloud-limit", 2);
        node.ask(&cursor.into_iter().fold(request, |request, cursor| request.header("x-tinycloud-cursor", cursor)))
    };
    let first = page(None);
    assert_eq!(first.keys(), ["b", "d"]);
    put("a");
    put("e");
    session.del(&node, "d").expect(200);
    session.del(&node, "f").expect(200);
    let second = page(first.header("x-tinycloud-next-cursor"));
    assert_eq!(second.keys(), ["e", "h"]);
    assert_eq!(second.header("x-tinycloud-next-cursor"), None);
}

#[test]
fn a_list_ends_where_the_grant_ends() {
    let node = Node::new();
    let owner = Owner::wallet(7);
    let session = owner.open(&node, "default");
    for key in ["docs", "docs/a", "docs/b/c", "docs2", "docs2/a", "doc", "z"] {
        session.put(&node, key, key).expect(200);
    }
    let narrow = owner.session(&node, &session.space, &session.kv("docs"), &[GET, LIST]);
    assert_eq!(narrow.list(&node, "docs"), ["docs", "docs/a", "docs/b/c"]);
    assert_eq!(narrow.list(&node, "docs/"), ["docs/a", "docs/b/c"]);
    assert_eq!(narrow.list(&node, "docs/b"), ["docs/b/c"]);
    assert_eq!(pages(&node, &narrow, "docs", 1).concat(), ["docs", "docs/a", "docs/b/c"]);
    for path in ["docs2", "doc", ""] {
        node.ask(&narrow.invoke(LIST, path)).expect(401);
    }
    // A grant on a folder is none on the value of the same name.
    let folder = owner.session(&node, &session.space, &session.kv("docs/"), &[GET, LIST]);
    assert_eq!(folder.list(&node, "docs/"), ["docs/a", "docs/b/c"]);
    node.ask(&folder.invoke(LIST, "docs")).expect(401);
    node.ask(&folder.invoke(GET, "docs")).expect(401);
    folder.get(&node, "docs/a").expect(200);
}

#[test]
fn a_cursor_is_good_after_a_restart() {
    let mut node = Node::new();
    let session = open(&node);
    for key in ["a", "b", "c"] {
        session.put(&node, key, key).expect(200);
    }
    let list = || session.invoke(LIST, "").header("x-tinycloud-limit", 2);
    let answer = node.ask(&list());
    let cursor = answer.header("x-tinycloud-next-cursor").expect("there is more");
    node.kill();
    node.start();
    assert_eq!(node.ask(&list().header("x-tinycloud-cursor", cursor)).keys(), ["c"]);
}
