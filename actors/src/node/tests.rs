//! What only the inside can bring about: an actor that fails, a disk that does.

mod epochs;
mod full;
mod lost;
mod model;
mod power;
mod restored;
mod scribbles;

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    path::Path,
    sync::Arc,
    time::Duration,
};

use ed25519_dalek::SigningKey;
use kvspace_protocol::{
    authority::Proof,
    capability::build::{Claims, ucan},
    id::{Did, EpochId, HostKey, Millis, SpaceId},
    kv::Condition,
    space::Written,
};

use super::{Admit, Body, Content, Lookup, Node, NodeError, Options, WriteRequest, start::StorageOptions};
use crate::{
    clock,
    disk::fake::{FakeDisk, Fault},
    log::{Append, Done, Log, LogOptions, Replayed},
    messages::{Panic, Rest},
    space::COMMITS_MAX,
};

mod collecting;
mod verified;

const SEGMENT_BYTES: u32 = 4 << 20;

struct World {
    node: Node,
    key: SigningKey,
    space: SpaceId,
    dir: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        Self::with_log(LogOptions { segment_bytes: SEGMENT_BYTES, ..LogOptions::default() }).await
    }

    async fn with_log(log: LogOptions) -> Self {
        Self::with_storage(StorageOptions { log, ..StorageOptions::default() }).await
    }

    async fn with_storage(storage: StorageOptions) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let key = SigningKey::from_bytes(&[1; 32]);
        let owner = Did::from_ed25519(&key.verifying_key().to_bytes());
        let space = SpaceId::new(&owner, "default").expect("a space id");
        let node = Node::start_on(Self::options(dir.path()), storage).await.expect("starts");
        let world = Self { node, key, space, dir };
        let host = world.node.did().clone();
        let token = world.sign(Some(host), &format!("{}/space", world.space), "tinycloud.space/host", 0);
        world.node.delegate(token, clock::now()).await.expect("the space is made");
        world
    }

    fn options(dir: &Path) -> Options {
        Options {
            data_dir: dir.to_owned(),
            key: [2; 32],
            admit: Admit::Any,
            body_bytes_max: 1 << 20,
            permit_wait: Duration::from_secs(5),
            active_spaces_max: 10,
            segment_bytes: SEGMENT_BYTES,
            index_cache_bytes: 8 << 20,
            reserve_free_bytes: 128 << 20,
            retention: Duration::from_secs(3600),
            collect_interval: Duration::from_secs(3600),
            network: None,
            pending_wait: Duration::from_secs(5),
        }
    }

    fn sign(&self, audience: Option<Did>, resource: &str, ability: &str, nonce: u64) -> Proof {
        let mut claims = Claims::until(Millis(4_000_000_000_000));
        claims.audience = audience;
        claims.nonce = Some(nonce.to_string());
        claims.capabilities.insert(resource.to_owned(), vec![ability.to_owned()]);
        Arc::new(ucan(&claims, &self.key).expect("a token").verify().expect("signed just now"))
    }

    async fn put(&self, key: &str, nonce: u64) -> Result<Written, NodeError> {
        let bytes = bytes::Bytes::from_static(b"value");
        let permit = self.node.body_permit(5).await?;
        let hash = kvspace_protocol::id::BlobHash::of(&bytes);
        self.put_body(key, nonce, Body::Inline { hash, bytes, permit }).await
    }

    async fn put_body(&self, key: &str, nonce: u64, body: Body) -> Result<Written, NodeError> {
        let token = self.sign(None, &format!("{}/kv/{key}", self.space), "tinycloud.kv/put", nonce);
        let authorized = self.node.authorize(&self.space, &token, clock::now()).await?;
        let (space, meta, condition) = (self.space.clone(), BTreeMap::new(), Condition::Always);
        self.node.write(WriteRequest { space, token, authorized, body: Some(body), meta, condition }).await
    }

    /// A guest's key, and the owner's delegation to it.
    fn delegation(&self) -> (SigningKey, Proof) {
        let guest = SigningKey::from_bytes(&[3; 32]);
        let did = Did::from_ed25519(&guest.verifying_key().to_bytes());
        let delegation = self.sign(Some(did), &format!("{}/kv", self.space), "tinycloud.kv/get", 0);
        (guest, delegation)
    }

    fn invoke_as(&self, guest: &SigningKey, delegation: &Proof) -> Proof {
        let mut claims = Claims::until(Millis(4_000_000_000_000));
        claims.proofs = vec![delegation.address()];
        claims.capabilities.insert(format!("{}/kv/a", self.space), vec!["tinycloud.kv/get".into()]);
        Arc::new(ucan(&claims, guest).expect("a token").verify().expect("signed just now"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_panic_the_space_goes_on_in_a_new_incarnation_with_all_it_had() {
    let world = World::new().await;
    let before = world.put("a", 1).await.expect("written");
    let hosted = world.node.space(&world.space).await.expect("readable").expect("hosted");
    let generation = hosted.access().generation();
    let addr = hosted.actor.lock().await.clone().expect("an actor runs");
    assert!(addr.send(Panic).await.is_err(), "the actor is gone");
    let after = world.put("b", 2).await.expect("written by the next actor");
    assert!(after.version > before.version);
    assert!(
        hosted.access().generation() > generation,
        "what was judged by the former actor's authority is judged anew"
    );
    assert_eq!(
        world.node.frontier(&world.space).await.expect("hosted"),
        [after.version.epoch],
        "one head: nothing was lost"
    );
    let again = world.put("a", 1).await.expect("the first outcome again");
    assert_eq!(again.version, before.version);
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_space_that_rested_goes_on_with_its_chain_and_after_a_failed_commit_with_another() {
    let disk = FakeDisk::default();
    let log = LogOptions { segment_bytes: SEGMENT_BYTES, disk: Arc::new(disk.clone()), ..LogOptions::default() };
    let world = World::with_log(log).await;
    let chains = async || {
        let hosted = world.node.space(&world.space).await.expect("readable").expect("hosted");
        hosted.index.held().expect("readable").branches.len()
    };
    for nonce in 1..4 {
        world.put("a", nonce).await.expect("written");
        let hosted = world.node.space(&world.space).await.expect("readable").expect("hosted");
        let addr = hosted.actor.lock().await.clone().expect("an actor runs");
        addr.send(Rest).await.expect("it rests");
        while addr.connected() {
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(chains().await, 1);
    disk.fail_next(Fault::Sync(".seg"));
    assert!(matches!(world.put("a", 9).await, Err(NodeError::Storage(_))));
    world.put("a", 10).await.expect("written");
    assert_eq!(chains().await, 2, "the lost commit may be on the disk: its number is not used again");
    world.node.stop().await;
}

/// The epochs in the log of a node, as it would find them on this disk.
fn epochs_on(disk: &FakeDisk, log_dir: &Path) -> BTreeSet<EpochId> {
    let options = LogOptions { segment_bytes: SEGMENT_BYTES, disk: Arc::new(disk.clone()), ..LogOptions::default() };
    let mut epochs = BTreeSet::new();
    let log = Log::open(log_dir, options, |_, replayed| {
        match replayed {
            Replayed::Commit(commit) => {
                epochs.extend(commit.epochs.iter().map(|(record, _)| EpochId::of(&record.header)));
            }
            Replayed::Damage(damage) => panic!("{damage:?}"),
        }
        Ok::<_, Infallible>(())
    });
    log.expect("the log opens").close();
    epochs
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_answered_survives_a_power_cut_in_that_moment() {
    let disk = FakeDisk::default();
    let log_options =
        LogOptions { segment_bytes: SEGMENT_BYTES, disk: Arc::new(disk.clone()), ..LogOptions::default() };
    let world = Arc::new(World::with_log(log_options).await);
    let log_dir = world.dir.path().join("log");
    let writers = (0..8_u64).map(|writer| {
        let (world, disk, log_dir) = (world.clone(), disk.clone(), log_dir.clone());
        tokio::spawn(async move {
            for n in 0..8 {
                let written = world.put(&format!("{writer}"), writer << 32 | n).await.expect("written");
                // Of what is not synced nothing is left.
                let left = disk.power_cut(|| false);
                let epochs = epochs_on(&left, &log_dir);
                assert!(epochs.contains(&written.version.epoch), "{n} of {writer} was answered too early");
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.expect("no writer failed");
    }
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_durable_is_there_and_known_even_if_the_actor_fails_during_its_commit() {
    let world = Arc::new(World::new().await);
    world.put("a", 1).await.expect("written");
    let hosted = world.node.space(&world.space).await.expect("readable").expect("hosted");
    let let_go = hold_log(&world.node).await;

    let (guest, delegation) = world.delegation();
    let posting = tokio::spawn({
        let (world, delegation) = (world.clone(), delegation.clone());
        async move { world.node.delegate(delegation, clock::now()).await }
    });
    while Arc::strong_count(&hosted.committing) == 1 {
        tokio::task::yield_now().await;
    }
    let addr = hosted.actor.lock().await.clone().expect("an actor runs");
    assert!(addr.send(Panic).await.is_err(), "the actor is gone");
    assert!(posting.await.expect("no panic").is_err(), "nothing is acknowledged");

    let next = world.put("b", 2);
    tokio::pin!(next);
    let meanwhile = tokio::time::timeout(Duration::from_millis(300), next.as_mut()).await;
    assert!(meanwhile.is_err(), "the next actor waits until the index shows the commit");
    let_go.send(()).expect("the log waits");
    let after = next.await.expect("written by the next actor");
    assert_eq!(
        world.node.frontier(&world.space).await.expect("hosted"),
        [after.version.epoch],
        "it stands on the lost commit"
    );
    assert!(world.node.delegated(&delegation).expect("readable").is_some(), "what the log holds is known");
    let invocation = world.invoke_as(&guest, &delegation);
    assert!(world.node.authorize(&world.space, &invocation, clock::now()).await.is_ok());
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_value_whose_commit_outlives_its_actor_keeps_its_file() {
    let world = Arc::new(World::new().await);
    let hosted = world.node.space(&world.space).await.expect("readable").expect("hosted");
    let large = vec![7; 300_000];
    let mut upload = world.node.upload().await.expect("staged");
    upload.write(&large).await.expect("staged");
    let staged = upload.finish().await.expect("durable");
    let let_go = hold_log(&world.node).await;
    let putting = tokio::spawn({
        let world = world.clone();
        async move { world.put_body("large", 1, Body::Staged(staged)).await }
    });
    while Arc::strong_count(&hosted.committing) == 1 {
        tokio::task::yield_now().await;
    }
    let addr = loop {
        if let Some(addr) = hosted.actor.lock().await.clone() {
            break addr;
        }
    };
    assert!(addr.send(Panic).await.is_err(), "the actor is gone");
    assert!(putting.await.expect("no panic").is_err(), "nothing is acknowledged");
    let_go.send(()).expect("the log waits");
    world.put("b", 2).await.expect("written by the next actor");
    let Lookup::Live(found) = world.node.lookup(&world.space, "large").await.expect("hosted") else {
        panic!("it is durable")
    };
    assert!(matches!(world.node.read(&world.space, &found).await, Ok(Content::File(_, 300_000))));
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_space_is_made_once_even_if_who_asked_goes_away() {
    let mut world = World::new().await;
    let (key, host) = (SigningKey::from_bytes(&[7; 32]), world.node.did().clone());
    let space = SpaceId::new(&Did::from_ed25519(&key.verifying_key().to_bytes()), "default").expect("a space id");
    (world.key, world.space) = (key, space.clone());
    let token = world.sign(Some(host), &format!("{space}/space"), "tinycloud.space/host", 0);
    let let_go = hold_log(&world.node).await;
    let asking = tokio::spawn({
        let (node, token) = (world.node.clone(), token.clone());
        async move { node.delegate(token, clock::now()).await }
    });
    while world.node.inner.storage.commits.available_permits() == COMMITS_MAX as usize {
        tokio::task::yield_now().await;
    }
    asking.abort();
    assert!(asking.await.expect_err("aborted").is_cancelled());
    let again = world.node.delegate(token, clock::now());
    tokio::pin!(again);
    let meanwhile = tokio::time::timeout(Duration::from_millis(300), again.as_mut()).await;
    assert!(meanwhile.is_err(), "it waits for the first one");
    let_go.send(()).expect("the log waits");
    again.await.expect("the space is there");
    world.put("a", 1).await.expect("written");
    world.node.stop().await;
    let mut epochs = 0;
    let options = LogOptions { segment_bytes: SEGMENT_BYTES, ..LogOptions::default() };
    let count = |_: &_, replayed| {
        if let Replayed::Commit(commit) = replayed {
            epochs += commit.epochs.iter().filter(|(record, _)| record.space == space).count();
        }
        Ok::<_, Infallible>(())
    };
    Log::open(&world.dir.path().join("log"), options, count).expect("the log opens").close();
    assert_eq!(epochs, 2, "the space was made once, and written to once");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_waits_for_commits_whose_callers_are_gone() {
    let world = Arc::new(World::new().await);
    let let_go = hold_log(&world.node).await;
    let putting = tokio::spawn({
        let world = world.clone();
        async move { world.put("a", 1).await }
    });
    while world.node.inner.storage.commits.available_permits() == COMMITS_MAX as usize {
        tokio::task::yield_now().await;
    }
    putting.abort();
    assert!(putting.await.expect_err("aborted").is_cancelled());
    let stopping = world.node.stop();
    tokio::pin!(stopping);
    let meanwhile = tokio::time::timeout(Duration::from_millis(300), stopping.as_mut()).await;
    assert!(meanwhile.is_err(), "a commit is on its way");
    let_go.send(()).expect("the log waits");
    stopping.await;
    let state = std::fs::read_to_string(world.dir.path().join("index/state")).expect("a state file");
    assert!(state.contains("closed"), "{state}");
}

#[tokio::test(flavor = "multi_thread")]
async fn generations_of_authority_never_come_back() {
    let world = World::new().await;
    let hosted = world.node.space(&world.space).await.expect("readable").expect("hosted");
    let mut last = hosted.access().generation();
    for _ in 0..3 {
        let core = world.node.inner.registry.open_core(hosted.index.clone()).await.expect("it opens");
        assert!(core.access().generation() > last + 1_000_000, "beyond all that the former one may still reach");
        last = core.access().generation();
    }
    world.node.stop().await;
}

/// Holds the log's writer until the sender is used; gives it back when the writer stands still.
async fn hold_log(node: &Node) -> std::sync::mpsc::SyncSender<()> {
    let (let_go, held) = std::sync::mpsc::sync_channel(1);
    let (tell, told) = tokio::sync::oneshot::channel();
    let done: Done = Box::new(move |_| {
        tell.send(()).expect("the test waits");
        held.recv().expect("the test lets go");
    });
    let append = Append { blobs: vec![], epochs: vec![], done };
    assert!(node.inner.storage.log.append(append).is_ok(), "the queue has room");
    told.await.expect("the writer answers");
    let_go
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_for_bodies_is_bounded_and_given_back() {
    let world = World::new().await;
    // Three eighths of the whole are for values on their way in that are not small.
    let all = world.node.body_permit(3 << 17).await.expect("free");
    let waiting = world.node.body_permit(1 << 17);
    tokio::pin!(waiting);
    assert!(futures_poll(waiting.as_mut()).await.is_none(), "none is free");
    assert!(world.put("a", 1).await.is_ok(), "a small value has a share of its own");
    drop(all);
    assert!(waiting.await.is_ok());
    assert!(world.node.body_permit(3 << 17).await.is_ok(), "all is given back");
    let small = world.node.body_permit(1 << 14).await.expect("the write gave its share back");
    drop(small);
    world.node.stop().await;
}

/// One look at a future.
async fn futures_poll<F: Future + Unpin>(mut future: F) -> Option<F::Output> {
    std::future::poll_fn(|context| match std::pin::Pin::new(&mut future).poll(context) {
        std::task::Poll::Ready(output) => std::task::Poll::Ready(Some(output)),
        std::task::Poll::Pending => std::task::Poll::Ready(None),
    })
    .await
}
