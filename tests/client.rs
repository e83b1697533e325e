//! The client library against a running node: what the command line does not show of it.

use std::sync::{Arc, Mutex};

use futures::{StreamExt as _, TryStreamExt as _};
use kvspace_client::{
    After, Client, ClientOptions, Condition, EpochId, Error, Fault, Grants, Integrity, KeyKind, KeyPath, KvAbility,
    Meta, OwnerKey, Progress, ReadYourWrites, RefusalKind, Session, Space, clock,
};

use crate::harness::{Node, Setup};

const HOUR_MS: i64 = 3_600_000;

/// A space of a new owner.
async fn open(node: &Node, kind: KeyKind) -> (OwnerKey, Space) {
    let client = Client::new(&node.url()).expect("an address");
    let owner = OwnerKey::generate(kind).expect("a key");
    let id = client.create_space(&owner, "default").await.expect("the space is made");
    let session = client.open_session(&owner, &id, Grants::everything(&id), HOUR_MS).await.expect("a session");
    (owner, client.space(session))
}

fn kind<T: std::fmt::Debug>(result: Result<T, Error>) -> RefusalKind {
    match result {
        Err(Error::Refused(refusal)) => refusal.kind,
        other => panic!("it was to be refused: {other:?}"),
    }
}

#[tokio::test]
async fn what_is_put_is_signed_and_comes_back_whole() {
    let node = Node::new();
    for kind in [KeyKind::Ed25519, KeyKind::Ethereum] {
        let (_, space) = open(&node, kind).await;
        let meta =
            Meta::new().with_content_type("text/plain").expect("a type").with_own("colour", "red").expect("a header");
        let written = space.put("Zoë/1 2", "value", meta.clone(), Condition::Always).await.expect("written");
        assert_eq!(space.seen(), Vec::from_iter(written.frontier));
        let value = space.get("Zoë/1 2").await.expect("found");
        assert_eq!((&value.bytes[..], &value.head.etag, &value.head.meta), (&b"value"[..], &written.etag, &meta));
        assert_eq!(value.head.integrity, Some(Integrity::ClientSigned));
        let head = space.head("Zoë/1 2").await.expect("found");
        assert_eq!((head.size, &head.meta, &head.version), (Some(5), &meta, &written.version));
        // The next write rests on what was seen.
        space.put("Zoë/1 2", "other", Meta::new(), Condition::Always).await.expect("written");
        assert_eq!(space.frontier().await.expect("told"), space.seen());
    }
}

#[tokio::test]
async fn refusals_say_what_they_mean() {
    let node = Setup::default().option("http.body_bytes_max", 1000).start();
    let (_, space) = open(&node, KeyKind::Ed25519).await;
    assert_eq!(kind(space.get("none").await), RefusalKind::KeyNotFound);
    assert_eq!(kind(space.delete("none", Condition::Always).await), RefusalKind::KeyNotFound);
    let written = space.put("a", "1", Meta::new(), Condition::IfAbsent).await.expect("written");
    let etag = written.etag.expect("a tag");
    assert_eq!(kind(space.put("a", "2", Meta::new(), Condition::IfAbsent).await), RefusalKind::PreconditionFailed);
    space.put("a", "2", Meta::new(), Condition::IfMatch(etag.clone())).await.expect("written");
    let late = space.put("a", "3", Meta::new(), Condition::IfMatch(etag.clone())).await;
    assert_eq!(kind(late), RefusalKind::PreconditionFailed);
    assert_eq!(kind(space.delete("a", Condition::IfMatch(etag)).await), RefusalKind::PreconditionFailed);
    let large = space.put("b", vec![0; 1001], Meta::new(), Condition::Always).await;
    assert_eq!(kind(large), RefusalKind::TooLarge);
    let unhosted = OwnerKey::generate(KeyKind::Ed25519).expect("a key");
    let id = kvspace_client::SpaceId::new(&unhosted.did(), "default").expect("an id");
    let client = Client::new(&node.url()).expect("an address");
    let session = client.open_session(&unhosted, &id, Grants::everything(&id), HOUR_MS).await;
    assert!(matches!(session, Err(Error::NotCreated(space)) if space == id));
    let now = clock::now();
    let session = Session::sign(&unhosted, &id, Grants::everything(&id), now, now.plus(HOUR_MS)).expect("a session");
    assert_eq!(kind(client.space(session).get("a").await), RefusalKind::SpaceNotHosted);
}

#[tokio::test]
async fn a_node_that_is_gone_is_the_networks_fault_and_back_it_is_used_again() {
    let mut node = Node::new();
    let (_, space) = open(&node, KeyKind::Ed25519).await;
    space.put("a", "value", Meta::new(), Condition::Always).await.expect("written");
    node.stop();
    // First on a connection that was kept, which ends; then there is no new one.
    let error = space.get("a").await.expect_err("nobody is there");
    assert_eq!(error.fault(), Fault::Network, "{error:?}");
    let error = space.get("a").await.expect_err("nobody is there");
    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
    node.start();
    let space = Client::new(&node.url()).expect("an address").space(space.session().clone());
    assert_eq!(space.get("a").await.expect("found").bytes, "value");
}

#[tokio::test]
async fn a_large_file_goes_both_ways_and_tells_how_far_it_is() {
    let node = Node::new();
    let (_, space) = open(&node, KeyKind::Ethereum).await;
    let size = 5_000_000_u64;
    let mut bytes = vec![0; 5_000_000];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    let told = Arc::new(Mutex::new(Vec::new()));
    let progress = || {
        let told = told.clone();
        told.lock().expect("no panic").clear();
        Progress::new(move |done, total| told.lock().expect("no panic").push((done, total)))
    };
    let source = std::io::Cursor::new(bytes.clone());
    let written = space.put_from("large", source, Meta::new(), Condition::IfAbsent, progress()).await.expect("written");
    let ends = |told: &[(u64, Option<u64>)]| {
        assert!(told.len() > 3 && told.is_sorted(), "{told:?}");
        assert_eq!(told.last(), Some(&(size, Some(size))));
    };
    ends(&told.lock().expect("no panic"));
    let mut sink = Vec::new();
    let head = space.get_to("large", &mut sink, progress()).await.expect("found");
    ends(&told.lock().expect("no panic"));
    assert!(sink == bytes && head.etag == written.etag && head.size == Some(size));
    assert_eq!(head.integrity, Some(Integrity::ClientSigned));
}

#[tokio::test]
async fn all_keys_come_page_by_page() {
    let node = Node::new();
    let (_, space) = open(&node, KeyKind::Ed25519).await;
    let mut keys: Vec<_> = (0..1100).map(|n| format!("k/{:04}", n * 7919 % 10_000)).collect();
    let puts = keys.iter().map(|key| space.put(key, "x", Meta::new(), Condition::Always));
    let written = futures::stream::iter(puts).buffer_unordered(32).try_collect::<Vec<_>>().await;
    assert_eq!(written.expect("written").len(), keys.len());
    space.put("other", "x", Meta::new(), Condition::Always).await.expect("written");
    keys.sort_unstable();
    let prefix = KeyPath::from_text("k").expect("a key");
    let listed: Vec<KeyPath> = space.list_all(Some(prefix.clone())).try_collect().await.expect("listed");
    assert_eq!(listed.iter().map(KeyPath::as_str).collect::<Vec<_>>(), keys);
    let page = space.list(Some(&prefix), 600, None).await.expect("a page");
    let rest = space.list(Some(&prefix), 600, page.cursor.as_deref()).await.expect("a page");
    assert_eq!((page.keys.len(), rest.keys.len(), rest.cursor), (600, 500, None));
    let all: Vec<KeyPath> = space.list_all(None).try_collect().await.expect("listed");
    assert_eq!(all.len(), 1101);
}

#[tokio::test]
async fn a_revocation_keeps_what_the_revoker_had_seen() {
    let node = Node::new();
    let (owner, space) = open(&node, KeyKind::Ethereum).await;
    let bob = OwnerKey::generate(KeyKind::Ed25519).expect("a key");
    let docs = KeyPath::from_text("docs").expect("a key");
    let expiry = clock::now().plus(HOUR_MS / 2);
    let given = space.delegate(&bob.did(), Some(&docs), &KvAbility::ALL, expiry).await.expect("given");
    let client = Client::new(&node.url()).expect("an address");
    let session = client.open_session_beneath(&bob, &given, HOUR_MS).await.expect("a session");
    let bobs = client.space(session);
    bobs.put("docs/a", "seen", Meta::new(), Condition::Always).await.expect("written");
    let seen = space.frontier().await.expect("told");
    bobs.put("docs/b", "unseen", Meta::new(), Condition::Always).await.expect("written");
    space.revoke_as_owner(&owner, &given.address(), After::Epochs(seen)).await.expect("revoked");
    assert_eq!(kind(bobs.get("docs/a").await), RefusalKind::Unauthorized);
    assert_eq!(space.get("docs/a").await.expect("found").bytes, "seen");
    assert_eq!(kind(space.get("docs/b").await), RefusalKind::KeyNotFound);
    // Beyond its grant a session does not even ask.
    let beyond = bobs.put("secret", "x", Meta::new(), Condition::Always).await;
    assert!(matches!(beyond, Err(Error::Session(_))), "{beyond:?}");
}

#[tokio::test]
async fn many_writers_share_one_space() {
    let node = Node::new();
    let (_, space) = open(&node, KeyKind::Ed25519).await;
    let write = async |n: usize| {
        for round in 0..10 {
            let key = format!("w/{n}");
            let value = format!("{n} {round}");
            space.put(&key, value.clone(), Meta::new(), Condition::Always).await.expect("written");
            assert_eq!(space.get(&key).await.expect("found").bytes, value);
        }
    };
    futures::future::join_all((0..32).map(write)).await;
    let keys: Vec<KeyPath> = space.list_all(None).try_collect().await.expect("listed");
    assert_eq!(keys.len(), 32);
}

#[tokio::test]
async fn a_read_waits_for_what_was_seen_whichever_host_is_asked() {
    let node = Node::new();
    let (_, space) = open(&node, KeyKind::Ed25519).await;
    space.put("a", "value", Meta::new(), Condition::Always).await.expect("written");
    let waiting = |read_your_writes| {
        Client::with_options(&node.url(), ClientOptions { read_your_writes, ..ClientOptions::default() })
            .expect("an address")
    };
    let other = space.at(&waiting(ReadYourWrites::Within { wait_ms: 50 }));
    assert_eq!(other.seen(), space.seen());
    assert_eq!(other.get("a").await.expect("it has what was written").bytes, "value");
    // What one of them saw, the other waits for.
    space.see(EpochId::of(b"elsewhere"));
    assert_eq!(kind(other.get("a").await), RefusalKind::TooEarly);
    assert_eq!(kind(other.head("a").await), RefusalKind::TooEarly);
    assert_eq!(kind(other.list(None, 10, None).await), RefusalKind::TooEarly);
    assert_eq!(kind(other.frontier().await), RefusalKind::TooEarly);
    let off = space.at(&waiting(ReadYourWrites::Off));
    assert_eq!(off.get("a").await.expect("it does not wait").bytes, "value");
}
