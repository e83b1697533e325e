//! Epochs that peers bring, through the actor: durable before they are answered and before anybody hears of them.

use kvspace_protocol::{
    epoch::{Epoch, Event, Header, SignedEpoch},
    id::{BlobHash, BodyId, Incarnation},
    space::{Arrived, CheckedEpoch, Taken},
};
use tokio::sync::mpsc;

use super::*;
use crate::{
    hosted::Hosted,
    messages::{Call, DurableCommit, Held, WaitingRoom},
    verify::{self, IndexWish},
};

/// The owner's own key as a host: its epochs need no proof.
struct Peer {
    last: Option<(EpochId, u64)>,
    incarnation: Incarnation,
}

impl Peer {
    fn new(seed: u8) -> Self {
        Self { last: None, incarnation: Incarnation([seed; 8]) }
    }

    fn put(&mut self, world: &World, path: &str, bytes: &[u8]) -> SignedEpoch {
        let token = world.sign(None, &format!("{}/kv/{path}", world.space), "tinycloud.kv/put", 77);
        let (blob, size) = (BlobHash::of(bytes), bytes.len() as u64);
        let values = vec![kvspace_protocol::kv::Value { blob, size, meta: BTreeMap::new() }];
        let n = self.last.map_or(0, |(_, n)| n + 1);
        let header = Header {
            v: 1,
            space: world.space.clone(),
            host: HostKey(world.key.verifying_key().to_bytes()),
            proof: None,
            incarnation: self.incarnation,
            n,
            prev: self.last.map(|(id, _)| id),
            parents: vec![],
            seq: (u64::try_from(clock::now().0).expect("after 1970") << 16) + n,
            body: BodyId([0; 32]),
        };
        let event = Event { token: token.bytes().to_vec(), values };
        let epoch = Epoch::sign(header, vec![event], &world.key).expect("well formed");
        self.last = Some((epoch.id, n));
        epoch.signed
    }
}

fn arrived(signed: &SignedEpoch, values: &[&'static [u8]], told: &[u8]) -> Arrived {
    Arrived {
        checked: CheckedEpoch::check(signed.clone()).expect("well formed"),
        values: values.iter().map(|bytes| bytes::Bytes::from_static(bytes)).collect(),
        told: told.iter().map(|host| HostKey([*host; 32])).collect(),
    }
}

impl World {
    async fn hosted(&self) -> Arc<Hosted> {
        self.node.space(&self.space).await.expect("readable").expect("hosted")
    }

    async fn deliver(&self, epochs: Vec<Arrived>) -> Result<Taken, NodeError> {
        let from = Some(HostKey([9; 32]));
        let hosted = self.hosted().await;
        self.node.call(&hosted, Held::default(), |answer| Call::Epochs { from, epochs, answer }).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn epochs_from_a_peer_are_durable_before_they_are_answered() {
    let disk = FakeDisk::default();
    let log = LogOptions { segment_bytes: SEGMENT_BYTES, disk: Arc::new(disk.clone()), ..LogOptions::default() };
    let world = World::with_log(log).await;
    let mut peer = Peer::new(7);
    for number in 0..8 {
        let epochs = [(); 3].map(|()| peer.put(&world, &format!("k{number}"), b"value"));
        let taken = world.deliver(epochs.iter().map(|epoch| arrived(epoch, &[b"value"], &[])).collect()).await;
        assert_eq!(taken.expect("taken in"), Taken { taken: 3, ..Taken::default() });
        let left = epochs_on(&disk.power_cut(|| false), &world.dir.path().join("log"));
        assert!(
            epochs.iter().all(|epoch| left.contains(&EpochId::of(&epoch.header))),
            "{number} was answered too early"
        );
    }
    let Lookup::Live(found) = world.node.lookup(&world.space, "k7").await.expect("readable") else {
        panic!("not there")
    };
    assert!(found.at.is_some(), "the value is in the log");
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_commit_answers_the_delivery_with_an_error_and_it_may_be_repeated() {
    let disk = FakeDisk::default();
    let log = LogOptions { segment_bytes: SEGMENT_BYTES, disk: Arc::new(disk.clone()), ..LogOptions::default() };
    let (committed, mut commits) = mpsc::channel(16);
    let world =
        World::with_storage(StorageOptions { log, committed: Some(committed), ..StorageOptions::default() }).await;
    assert!(commits.recv().await.is_some(), "the space is made");
    let epoch = Peer::new(7).put(&world, "k", b"value");
    disk.fail_next(Fault::Sync(".seg"));
    assert!(matches!(world.deliver(vec![arrived(&epoch, &[], &[])]).await, Err(NodeError::Storage(_))));
    assert!(commits.try_recv().is_err(), "nobody hears of what is not durable");
    assert_eq!(world.deliver(vec![arrived(&epoch, &[], &[])]).await.expect("taken in").taken, 1);
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_durable_is_handed_on_with_its_values_and_who_has_it() {
    let (committed, mut commits) = mpsc::channel::<DurableCommit>(16);
    let log = LogOptions { segment_bytes: SEGMENT_BYTES, ..LogOptions::default() };
    let world =
        World::with_storage(StorageOptions { log, committed: Some(committed), ..StorageOptions::default() }).await;
    let made = commits.recv().await.expect("the space is made");
    assert!(made.epochs.iter().all(|epoch| epoch.told.is_empty()));
    let epoch = Peer::new(7).put(&world, "k", b"value");
    world.deliver(vec![arrived(&epoch, &[b"value"], &[5, 6])]).await.expect("taken in");
    let commit = commits.recv().await.expect("a commit");
    let [handed] = &commit.epochs[..] else { panic!("one epoch") };
    assert_eq!((&handed.sent.epoch, &handed.sent.values[..]), (&epoch, &[bytes::Bytes::from_static(b"value")][..]));
    assert_eq!(handed.told, [HostKey([5; 32]), HostKey([6; 32])].into());
    assert_eq!(commit.space, world.space);
    world.put("own", 1).await.expect("written");
    let own = commits.recv().await.expect("a commit");
    assert!(own.epochs.len() == 1 && own.epochs[0].told.is_empty() && own.epochs[0].sent.values == ["value"]);
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_for_which_there_is_no_room_is_counted_and_holds_nobody_up() {
    let (committed, mut commits) = mpsc::channel(1);
    let log = LogOptions { segment_bytes: SEGMENT_BYTES, ..LogOptions::default() };
    let world =
        World::with_storage(StorageOptions { log, committed: Some(committed), ..StorageOptions::default() }).await;
    for nonce in 0..5 {
        world.put("a", nonce).await.expect("written");
    }
    let addr = world.hosted().await.actor.lock().await.clone().expect("an actor runs");
    // It looks at this after all that came before.
    addr.send(Rest).await.expect("it answers");
    assert!(commits.recv().await.is_some() && commits.try_recv().is_err());
    assert_eq!(world.node.inner.storage.missed.load(std::sync::atomic::Ordering::Relaxed), 5);
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_epochs_are_remembered_with_who_brought_them_up_to_a_number() {
    let world = World::new().await;
    let mut elsewhere = Peer::new(7);
    let other = World { space: SpaceId::new(world.space.owner(), "other").expect("an id"), ..World::new().await };
    let epochs: Vec<_> = (0..70).map(|number| elsewhere.put(&other, &format!("k{number}"), b"x")).collect();
    let taken = world.deliver(epochs.iter().map(|epoch| arrived(epoch, &[], &[])).collect()).await.expect("answered");
    assert_eq!((taken.taken, taken.refused.len()), (0, 70));
    let refused = world.hosted().await.refused();
    let newest: Vec<_> = epochs.iter().rev().map(|epoch| EpochId::of(&epoch.header)).take(64).collect();
    assert_eq!(refused.iter().map(|refused| refused.epoch).collect::<Vec<_>>(), newest);
    assert!(
        refused.iter().all(|refused| refused.from == Some(HostKey([9; 32])) && refused.reason == "of another space")
    );
    other.node.stop().await;
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_actor_tells_what_waits_and_what_an_operation_is_worth() {
    let world = World::new().await;
    let mut peer = Peer::new(7);
    let (first, second) = (peer.put(&world, "k", b"x"), peer.put(&world, "k", b"y"));
    let taken = world.deliver(vec![arrived(&second, &[], &[])]).await.expect("answered");
    let id = |signed: &SignedEpoch| EpochId::of(&signed.header);
    assert_eq!((taken.missing, taken.waiting), (vec![id(&first)], 1));
    let hosted = world.hosted().await;
    let room: WaitingRoom = world.node.call(&hosted, Held::default(), Call::Waiting).await.expect("answered");
    assert_eq!((room.waiting.len(), room.waiting[0].epoch), (1, id(&second)));
    assert_eq!((room.missing, room.forks), (vec![id(&first)], vec![]));
    world.deliver(vec![arrived(&first, &[], &[])]).await.expect("answered");
    let newest = |max| hosted.index.newest("k", max).expect("readable");
    assert_eq!((newest(1).len(), newest(1)[0].version.epoch), (1, id(&second)));
    let explain = |answer| Call::Explain(newest(9), answer);
    assert_eq!(world.node.call(&hosted, Held::default(), explain).await.expect("answered").len(), 2);
    let (_, token) = world.delegation();
    world.node.delegate(token.clone(), clock::now()).await.expect("taken in");
    let revocation = world.sign(None, &format!("urn:cid:{}", token.address()), "tinycloud.delegation/revoke", 1);
    let preview = |answer| Call::Preview { token: revocation, borrowed: vec![], max: 10, answer };
    let preview = world.node.call(&hosted, Held::default(), preview).await.expect("answered");
    assert!(preview.voided.is_empty() && !preview.has_more, "nothing was written under it");
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_somebody_else_went_on_with_the_own_chain_the_next_actor_begins_another() {
    let world = World::new().await;
    let hosted = world.hosted().await;
    let own_key = SigningKey::from_bytes(&[2; 32]);
    let own = HostKey(own_key.verifying_key().to_bytes());
    let [branch] = &hosted.index.held().expect("readable").branches[..] else { panic!("one chain") };
    let token = world.sign(None, &format!("{}/kv/k", world.space), "tinycloud.kv/del", 5);
    let delegation = *hosted.access().delegations().next().expect("the host's").0;
    let header = Header {
        v: 1,
        space: world.space.clone(),
        host: own,
        proof: Some(delegation),
        incarnation: branch.incarnation,
        n: branch.tip_n + 1,
        prev: Some(branch.tip),
        parents: vec![],
        seq: branch.tip_seq + 1,
        body: BodyId([0; 32]),
    };
    let event = Event { token: token.bytes().to_vec(), values: vec![] };
    let clone = Epoch::sign(header, vec![event], &own_key).expect("well formed");
    assert_eq!(world.deliver(vec![arrived(&clone.signed, &[], &[])]).await.expect("answered").taken, 1);
    let addr = hosted.actor.lock().await.clone().expect("an actor runs");
    addr.send(Rest).await.expect("it rests");
    while addr.connected() {
        tokio::task::yield_now().await;
    }
    world.put("k", 1).await.expect("written");
    let branches = hosted.index.held().expect("readable").branches;
    assert!(branches.len() == 2 && branches[1].first_n == 0 && branches[1].incarnation != branch.incarnation);
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_long_question_about_a_space_is_worked_on_at_a_time() {
    let world = World::new().await;
    world.put("a", 1).await.expect("written");
    let hosted = world.hosted().await;
    let question = hosted.questions.clone().try_acquire_owned().expect("nobody asks");
    assert!(matches!(world.node.explain(&world.space, "a").await, Err(NodeError::Busy)));
    let (_, delegation) = world.delegation();
    world.node.delegate(delegation.clone(), clock::now()).await.expect("taken in");
    let resource = format!("urn:cid:{}", delegation.address());
    let revocation = world.sign(None, &resource, "tinycloud.delegation/revoke", 1);
    assert!(matches!(world.node.preview(revocation.clone(), clock::now(), 10).await, Err(NodeError::Busy)));
    drop(question);
    assert_eq!(world.node.explain(&world.space, "a").await.expect("answered").operations.len(), 1);
    assert!(world.node.preview(revocation, clock::now(), 10).await.is_ok());
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_disk_that_is_nearly_full_epochs_are_taken_in_without_their_values() {
    let disk = FakeDisk::default();
    let log = LogOptions { segment_bytes: SEGMENT_BYTES, disk: Arc::new(disk.clone()), ..LogOptions::default() };
    let world = World::with_log(log).await;
    let (hosted, mut peer) = (world.hosted().await, Peer::new(7));
    // Less than the operator wants to stay free.
    disk.set_capacity(Some(100 << 20));
    assert!(world.put("own", 1).await.is_err());
    let epoch = arrived(&peer.put(&world, "k", b"value"), &[b"value"], &[]);
    let taken = world.node.take_epochs(&hosted, HostKey([9; 32]), vec![epoch]).await;
    assert_eq!(taken.expect("taken in").taken, 1);
    let Lookup::Live(found) = world.node.lookup(&world.space, "k").await.expect("readable") else {
        panic!("not there")
    };
    assert!(found.at.is_none(), "there is no room for the value");
    assert_eq!(world.node.wanted_values(None, 10).await, [], "nor for its file");
    disk.set_capacity(None);
    assert_eq!(world.node.wanted_values(None, 10).await.len(), 1);
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_of_another_host_that_has_not_come_is_no_fault_of_the_data_folder() {
    let world = World::new().await;
    let mut peer = Peer::new(7);
    let epochs = [peer.put(&world, "k", b"value"), peer.put(&world, "come", b"other")];
    let epochs = vec![arrived(&epochs[0], &[], &[]), arrived(&epochs[1], &[b"other"], &[])];
    assert_eq!(world.deliver(epochs).await.expect("taken in").taken, 2);
    world.node.stop().await;
    let World { node, dir, .. } = world;
    drop(node);
    let looked = move || {
        let (index, index_cache_bytes) = (IndexWish::Leave, 8 << 20);
        let verify = |key| {
            let options = verify::Options { data_dir: dir.path().to_owned(), key, index_cache_bytes, index };
            verify::verify(&options, &mut |_| ()).expect("readable")
        };
        [verify(Some([2; 32])), verify(Some([1; 32]))].map(|report| (report.counts.pending, report.left()))
    };
    let looked = tokio::task::spawn_blocking(looked).await.expect("no panic");
    assert_eq!(looked, [(1, 0), (0, 1)], "of another host, and of the host itself");
}
