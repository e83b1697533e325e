//! The client against a small node, and against nodes that break.

use std::{
    io::Write as _,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use futures::TryStreamExt as _;
use kvspace_client::{
    After, Client, ClientOptions, Condition, EpochId, Error, Fault, Grants, Integrity, KeyKind, KeyPath, KvAbility,
    Meta, OwnerKey, Progress, RefusalKind, Session, Space, SpaceId, clock,
};
use kvspace_protocol::capability::Role;

mod support;

use support::{HOST, Node, Trouble, troubled};

async fn opened(node: &Node, kind: KeyKind) -> (OwnerKey, Space) {
    let client = Client::new(&node.url()).expect("an address");
    let owner = OwnerKey::generate(kind).expect("a key");
    let id = client.create_space(&owner, "default").await.expect("created");
    let session = client.open_session(&owner, &id, Grants::everything(&id), 60_000).await.expect("opened");
    (owner, client.space(session))
}

/// A space at a node that need not answer.
fn unopened(url: &str, idle_timeout_ms: u64) -> Space {
    let options = ClientOptions { idle_timeout_ms, ..ClientOptions::default() };
    let client = Client::with_options(url, options).expect("an address");
    let owner = OwnerKey::generate(KeyKind::Ed25519).expect("a key");
    let id = SpaceId::new(&owner.did(), "default").expect("a space");
    let now = clock::now();
    client.space(Session::sign(&owner, &id, Grants::everything(&id), now, now.plus(60_000)).expect("a session"))
}

fn kind(error: &Error) -> Option<RefusalKind> {
    error.refusal().map(|refusal| refusal.kind)
}

#[tokio::test]
async fn a_value_goes_to_the_node_and_comes_back_with_its_headers() {
    for owner in [KeyKind::Ed25519, KeyKind::Ethereum] {
        let node = Node::start().await;
        let (_, space) = opened(&node, owner).await;
        let meta = Meta::new().with_content_type("text/plain").expect("stored").with_own("tag", "x").expect("stored");
        let written = space.put("notes/Zoë 1", "hello", meta.clone(), Condition::Always).await.expect("written");
        assert!(
            written.version.is_some() && Vec::from_iter(written.frontier) == space.seen() && !space.seen().is_empty()
        );
        let value = space.get("notes/Zoë 1").await.expect("read");
        assert_eq!((&value.bytes[..], &value.head.meta, &value.head.etag), (&b"hello"[..], &meta, &written.etag));
        assert_eq!(value.head.integrity, Some(Integrity::ClientSigned));
        assert!(node.held.lock().expect("no panic").values.contains_key("notes/Zo%C3%AB%201"));
        assert_eq!(space.head("notes/Zoë 1").await.expect("read").content_type(), Some("text/plain"));
        space.delete("notes/Zoë 1", Condition::Always).await.expect("deleted");
        for error in [
            space.get("notes/Zoë 1").await.expect_err("gone"),
            space.head("notes/Zoë 1").await.expect_err("gone"),
            space.delete("notes/Zoë 1", Condition::Always).await.expect_err("gone"),
        ] {
            assert_eq!(kind(&error), Some(RefusalKind::KeyNotFound));
        }
    }
}

#[tokio::test]
async fn a_write_says_what_its_writer_had_seen_and_a_read_does_not() {
    let node = Node::start().await;
    let (_, space) = opened(&node, KeyKind::Ethereum).await;
    let first = space.put("a", "1", Meta::new(), Condition::Always).await.expect("written");
    space.put("b", "2", Meta::new(), Condition::Always).await.expect("written");
    space.get("a").await.expect("read");
    let held = node.held.lock().expect("no panic");
    let invoked: Vec<_> = held.tokens.iter().filter(|(path, _)| path == "/invoke").map(|(_, token)| token).collect();
    assert_eq!(invoked[0].after(space.id()), None);
    assert_eq!(invoked[1].after(space.id()), Some([first.frontier.expect("an epoch")].as_slice()));
    assert_eq!(invoked[2].after(space.id()), None);
    assert!(invoked.iter().all(|token| token.not_before().is_some()));
}

#[tokio::test]
async fn conditions_reach_the_node() {
    let node = Node::start().await;
    let (_, space) = opened(&node, KeyKind::Ed25519).await;
    space.put("a", "1", Meta::new(), Condition::IfAbsent).await.expect("written");
    let error = space.put("a", "2", Meta::new(), Condition::IfAbsent).await.expect_err("there is one");
    assert_eq!((kind(&error), error.fault()), (Some(RefusalKind::PreconditionFailed), Fault::Caller));
    assert!(error.advice().is_some());
}

#[tokio::test]
async fn a_large_file_goes_both_ways_in_pieces() {
    let node = Node::start().await;
    let (_, space) = opened(&node, KeyKind::Ed25519).await;
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    let bytes: Vec<u8> = (0..3_000_000u32).map(|i| (i / 7) as u8).collect();
    file.write_all(&bytes).expect("written");
    let told = Arc::new(AtomicU64::new(0));
    let tell = Arc::clone(&told);
    let progress = Progress::new(move |done, total| {
        assert_eq!(total, Some(3_000_000));
        tell.store(done, Ordering::Relaxed);
    });
    space.put_file("big", file.path(), Meta::new(), Condition::Always, progress).await.expect("written");
    assert_eq!(told.load(Ordering::Relaxed), 3_000_000);
    let mut back = Vec::new();
    let head = space.get_to("big", &mut back, Progress::none()).await.expect("read");
    assert_eq!((back == bytes, head.size), (true, Some(3_000_000)));
    let nothing = tempfile::NamedTempFile::new().expect("a file");
    space.put_file("none", nothing.path(), Meta::new(), Condition::Always, Progress::none()).await.expect("written");
    assert!(space.get("none").await.expect("read").bytes.is_empty());
}

#[tokio::test]
async fn a_list_goes_through_all_pages_and_decodes_nothing_by_itself() {
    let node = Node::start().await;
    let (_, space) = opened(&node, KeyKind::Ed25519).await;
    for key in ["docs/a", "docs/b c", "docs/d", "other"] {
        space.put(key, key.to_owned(), Meta::new(), Condition::Always).await.expect("written");
    }
    let docs = KeyPath::from_text("docs").expect("a key");
    let page = space.list(Some(&docs), 2, None).await.expect("listed");
    assert_eq!(page.keys.iter().map(KeyPath::text).collect::<Vec<_>>(), ["docs/a", "docs/b c"]);
    let rest = space.list(Some(&docs), 2, page.cursor.as_deref()).await.expect("listed");
    assert_eq!((rest.keys.len(), rest.cursor), (1, None));
    let all: Vec<KeyPath> = space.list_all(None).try_collect().await.expect("listed");
    assert_eq!(all.len(), 4);
    assert_eq!(space.get(&all[1]).await.expect("read").bytes, "docs/b c");
}

#[tokio::test]
async fn a_damaged_value_is_not_given_out() {
    let node = Node::start().await;
    let (_, space) = opened(&node, KeyKind::Ed25519).await;
    space.put("a", "true", Meta::new(), Condition::Always).await.expect("written");
    node.held.lock().expect("no panic").damaged = Some("fake".into());
    assert!(matches!(space.get("a").await, Err(Error::Corrupt { .. })));
    let mut out = Vec::new();
    assert!(matches!(space.get_to("a", &mut out, Progress::none()).await, Err(Error::Corrupt { .. })));
}

#[tokio::test]
async fn a_value_over_the_bound_is_not_taken_into_memory() {
    let node = Node::start().await;
    let (_, space) = opened(&node, KeyKind::Ed25519).await;
    space.put("a", vec![0; 2000], Meta::new(), Condition::Always).await.expect("written");
    let options = ClientOptions { value_bytes_max: 1999, ..ClientOptions::default() };
    let small = Client::with_options(&node.url(), options).expect("an address").space(space.session().clone());
    assert!(matches!(small.get("a").await, Err(Error::ValueTooLarge { limit: 1999 })));
}

#[tokio::test]
async fn somebody_else_is_let_in_and_out_again() {
    for owner_kind in [KeyKind::Ed25519, KeyKind::Ethereum] {
        let node = Node::start().await;
        let (owner, space) = opened(&node, owner_kind).await;
        let bob = OwnerKey::generate(KeyKind::Ethereum).expect("a key");
        let docs = KeyPath::from_text("docs").expect("a key");
        let expiry = clock::now().plus(30_000);
        let token = space.delegate(&bob.did(), Some(&docs), &[KvAbility::Get], expiry).await.expect("delegated");
        let client = Client::new(&node.url()).expect("an address");
        let session = client.open_session_beneath(&bob, &token, 1_000_000).await.expect("opened");
        let his = client.space(session);
        space.put("docs/a", "1", Meta::new(), Condition::Always).await.expect("written");
        assert_eq!(his.get("docs/a").await.expect("read").bytes, "1");
        let error = his.put("docs/a", "2", Meta::new(), Condition::Always).await.expect_err("not delegated");
        assert!(matches!(error, Error::Session(_)), "{error}");
        assert!(his.delegate(&owner.did(), None, &[KvAbility::Get], expiry).await.is_err());

        space.revoke(&token.address(), After::NodeFrontier).await.expect("revoked");
        space.revoke_as_owner(&owner, &token.address(), After::Epochs(vec![EpochId::of(b"x")])).await.expect("revoked");
        let held = node.held.lock().expect("no panic");
        let revoked: Vec<_> =
            held.tokens.iter().filter(|(path, _)| path == "/revoke").map(|(_, token)| token).collect();
        let role = Role::Revocation { target: token.address() };
        assert_eq!(revoked.iter().map(|token| token.role()).collect::<Vec<_>>(), [role, role]);
        assert_eq!(revoked[0].after(space.id()), Some([EpochId::of(b"head")].as_slice()));
        assert_eq!(revoked[0].proofs(), [space.session().delegation().address()]);
        assert_eq!(revoked[1].after(space.id()), Some([EpochId::of(b"x")].as_slice()));
        assert_eq!(revoked[1].issuer(), &owner.did());
    }
}

#[tokio::test]
async fn a_node_says_who_it_is() {
    let node = Node::start().await;
    let client = Client::new(&node.url()).expect("an address");
    let info = client.info().await.expect("answered");
    assert_eq!((info.protocol, info.features.len()), (1, 1));
    let owner = OwnerKey::generate(KeyKind::Ed25519).expect("a key");
    let space = SpaceId::new(&owner.did(), "default").expect("a space");
    assert_eq!(client.host_did(&space).await.expect("answered").as_str(), HOST);
}

#[tokio::test]
async fn a_space_that_the_node_leaves_out_is_not_called_created() {
    let node = Node::start().await;
    node.held.lock().expect("no panic").skips = true;
    let client = Client::new(&node.url()).expect("an address");
    let owner = OwnerKey::generate(KeyKind::Ed25519).expect("a key");
    let error = client.create_space(&owner, "default").await.expect_err("left out");
    assert!(matches!(error, Error::NotCreated(_)) && error.fault() == Fault::Node);
}

#[tokio::test]
async fn an_expired_session_asks_for_nothing() {
    let node = Node::start().await;
    let client = Client::new(&node.url()).expect("an address");
    let owner = OwnerKey::generate(KeyKind::Ed25519).expect("a key");
    let id = client.create_space(&owner, "default").await.expect("created");
    let session = client.open_session(&owner, &id, Grants::everything(&id), -1).await.expect("opened");
    assert!(matches!(client.space(session).get("a").await, Err(Error::Session(_))));
}

#[tokio::test]
async fn nobody_there_is_told_from_a_refusal() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    drop(listener);
    let error = unopened(&url, 1000).get("a").await.expect_err("nobody there");
    assert!(matches!(error, Error::Unreachable { .. }) && error.fault() == Fault::Network, "{error}");
    for url in ["", "localhost:1", "ftp://a", "http://", "http://a?b"] {
        assert!(matches!(Client::new(url), Err(Error::NodeUrl(_))), "{url}");
    }
}

#[tokio::test]
async fn a_node_that_stands_still_is_given_up() {
    for trouble in [Trouble::Stalls, Trouble::StallsInBody] {
        let space = unopened(&troubled(trouble).await, 100);
        assert!(matches!(space.get("a").await, Err(Error::Stalled { idle_ms: 100 })));
    }
    // An upload that nobody reads stands still as soon as the buffers are full.
    let file = tempfile::NamedTempFile::new().expect("a file");
    file.as_file().set_len(64 * 1024 * 1024).expect("a hole");
    let space = unopened(&troubled(Trouble::Stalls).await, 200);
    let result = space.put_file("a", file.path(), Meta::new(), Condition::Always, Progress::none()).await;
    assert!(matches!(result, Err(Error::Stalled { .. })), "{result:?}");
}

#[tokio::test]
async fn a_connection_that_ends_early_is_no_value() {
    for trouble in [Trouble::Closes, Trouble::CutsBody] {
        let space = unopened(&troubled(trouble).await, 5000);
        assert!(matches!(space.get("a").await, Err(Error::Interrupted(_))));
        let mut out = Vec::new();
        assert!(matches!(space.get_to("a", &mut out, Progress::none()).await, Err(Error::Interrupted(_))));
    }
    let space = unopened(&troubled(Trouble::Closes).await, 5000);
    let result = space.put("a", "1", Meta::new(), Condition::Always).await;
    assert!(matches!(result, Err(Error::Interrupted(_))), "{result:?}");
}

#[tokio::test]
async fn a_small_write_is_sent_once_more_when_the_connection_breaks() {
    let space = unopened(&troubled(Trouble::ClosesOnce).await, 5000);
    space.put("a", "1", Meta::new(), Condition::Always).await.expect("written at the second attempt");
    let space = unopened(&troubled(Trouble::ClosesOnce).await, 5000);
    space.delete("a", Condition::Always).await.expect("deleted at the second attempt");
}

#[tokio::test]
async fn a_refusal_in_the_middle_of_an_upload_is_heard() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    file.as_file().set_len(64 * 1024 * 1024).expect("a hole");
    let space = unopened(&troubled(Trouble::RefusesEarly).await, 5000);
    let error = space
        .put_file("a", file.path(), Meta::new(), Condition::Always, Progress::none())
        .await
        .expect_err("too large");
    assert_eq!(kind(&error), Some(RefusalKind::TooLarge), "{error}");
    assert_eq!(error.refusal().and_then(|refusal| refusal.code.as_deref()), Some("too_large"));
}

#[tokio::test]
async fn a_file_that_is_not_there_is_the_callers_fault() {
    let space = unopened("http://127.0.0.1:1", 1000);
    let result = space.put_file("a", "/nowhere/file", Meta::new(), Condition::Always, Progress::none()).await;
    assert!(matches!(&result, Err(error @ Error::Local(_)) if error.fault() == Fault::Caller));
}
