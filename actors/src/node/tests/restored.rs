//! A node on a folder that was made of a backup, among hosts that may know more.

use super::*;
use crate::{
    disk::mark_restored,
    net::{Event, NetOptions, Network},
    node::NetworkOptions,
};

const OTHER: [u8; 32] = [9; 32];
const LOCAL: &str = "/ip4/127.0.0.1/tcp/0";

fn other() -> HostKey {
    HostKey(SigningKey::from_bytes(&OTHER).verifying_key().to_bytes())
}

/// A world on a restored folder; its space may have another host.
async fn world(has_other: bool, alone_for_ms: i64) -> World {
    let world = World::new().await;
    if has_other {
        let token = world.sign(Some(other().did()), &format!("{}/space", world.space), "tinycloud.space/host", 0);
        world.node.delegate(token, clock::now()).await.expect("taken in");
    }
    again(world, alone_for_ms).await
}

/// The same after another start.
async fn again(world: World, alone_for_ms: i64) -> World {
    let World { node, key, space, dir } = world;
    node.stop().await;
    drop(node);
    mark_restored(dir.path()).expect("marked");
    let peers = Vec::new();
    let compare_interval = Duration::from_secs(3600);
    let network = Some(NetworkOptions { listen: vec![LOCAL.into()], peers, mdns: false, compare_interval });
    let node = Node::start(Options { network, ..World::options(dir.path()) }).await.expect("starts");
    let restored = node.inner.restored.as_ref().expect("it was restored");
    restored.set_started(clock::now().plus(-alone_for_ms));
    World { node, key, space, dir }
}

impl World {
    fn is_marked(&self) -> bool {
        self.dir.path().join("restored").exists()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_space_that_was_not_caught_up_stays_marked_for_the_next_start() {
    let world = world(true, 0).await;
    assert!(matches!(world.put("a", 1).await, Err(NodeError::CatchingUp)));
    world.node.stop().await;
    assert!(world.is_marked());
}

#[tokio::test(flavor = "multi_thread")]
async fn spaces_without_another_host_are_not_marked_any_more() {
    let world = world(false, 0).await;
    world.put("a", 1).await.expect("nobody could know more");
    world.node.stop().await;
    assert!(!world.is_marked());
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_writes_alone_while_a_host_is_connected() {
    let world = world(true, 1_000_000).await;
    let replication = world.node.replication().expect("it has a network");
    let options =
        NetOptions { key: OTHER, listen: vec![LOCAL.into()], peers: replication.network().addresses(), mdns: false };
    // It answers nothing.
    let (network, mut incoming) = Network::start(options).await.expect("starts");
    assert!(matches!(incoming.events.recv().await, Some(Event::Connected(_))));
    while !replication.network().is_connected(&other()) {
        tokio::task::yield_now().await;
    }
    assert!(matches!(world.put("a", 1).await, Err(NodeError::CatchingUp)));
    network.stop().await;
    while replication.network().is_connected(&other()) {
        tokio::task::yield_now().await;
    }
    world.put("a", 1).await.expect("nobody is there");
    world.node.stop().await;
    assert!(world.is_marked(), "nothing was caught up");
}
