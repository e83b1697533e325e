//! A disk that fills up or does not sync, under load: who writes is refused, everything else goes on, and so do writes as
//! soon as they can.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use super::{
    super::{Node, NodeError},
    model::{Load, options},
    power::storage,
};
use crate::disk::cut::{CutDisk, Trouble};

struct World {
    load: Arc<Load>,
    disk: CutDisk,
    node: Node,
    dir: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        let (load, dir) = (Arc::new(Load::new()), tempfile::tempdir().expect("a folder"));
        let disk = CutDisk::new(dir.path()).expect("a disk");
        let node = Node::start_on(options(dir.path()), storage(&disk, 1)).await.expect("starts");
        load.create(&node).await;
        Self { load, disk, node, dir }
    }

    /// Lets clients work for a while, or until so many of them were refused.
    async fn work(&self, refused: u64) {
        let before = self.load.full.load(Ordering::Relaxed);
        let clients = self.load.work(&self.node, refused + 1);
        for _ in 0..if refused > 0 { 20_000 } else { 300 } {
            tokio::time::sleep(Duration::from_millis(1)).await;
            if refused > 0 && self.load.full.load(Ordering::Relaxed) - before >= refused {
                break;
            }
        }
        self.load.stop();
        for client in clients {
            client.await.expect("no client failed");
        }
        assert!(self.load.full.load(Ordering::Relaxed) - before >= refused, "the disk was never full");
    }

    /// Everything is there, now and after another start.
    async fn ends_well(self) {
        let Self { load, node, dir, .. } = self;
        load.check(&node).await;
        load.may_fail.store(false, Ordering::Relaxed);
        node.stop().await;
        drop(node);
        let disk = CutDisk::new(dir.path()).expect("a disk");
        let node = Node::start_on(options(dir.path()), storage(&disk, 2)).await.expect("starts");
        load.check(&node).await;
        assert_eq!(node.status(None, 1).expect("status").storage.damaged, 0);
        node.stop().await;
    }
}

/// A node whose disk has no room for more while its clients work.
async fn runs_full(is_hidden: bool) {
    let world = World::new().await;
    world.work(0).await;
    world.load.may_fail.store(true, Ordering::Relaxed);
    // Who does not hear that room gets short cannot keep some for deletes.
    world.load.has_no_reserve.store(is_hidden, Ordering::Relaxed);
    for _ in 0..2 {
        let room = if is_hidden { 64 << 10 } else { 3 << 20 };
        let capacity_bytes = Some(world.disk.used_bytes() + room);
        world.disk.set_trouble(Trouble { capacity_bytes, is_hidden, syncs_fail: false });
        world.work(50).await;
        // Reads go on meanwhile.
        world.load.check(&world.node).await;
        world.disk.set_trouble(Trouble::default());
        let (acknowledged, full) =
            (world.load.acknowledged.load(Ordering::Relaxed), world.load.full.load(Ordering::Relaxed));
        world.work(0).await;
        assert!(world.load.acknowledged.load(Ordering::Relaxed) > acknowledged + 20, "writes go on");
        assert_eq!(world.load.full.load(Ordering::Relaxed), full, "and nobody is refused");
    }
    world.ends_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_full_disk_refuses_puts_and_nothing_else() {
    runs_full(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_quota_that_nobody_hears_of_beforehand_refuses_puts_and_damages_nothing() {
    runs_full(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_disk_that_does_not_sync_gets_nothing_acknowledged() {
    let world = World::new().await;
    world.work(0).await;
    world.load.may_fail.store(true, Ordering::Relaxed);
    world.disk.set_trouble(Trouble { syncs_fail: true, ..Trouble::default() });
    let acknowledged = world.load.acknowledged.load(Ordering::Relaxed);
    world.work(0).await;
    assert_eq!(world.load.acknowledged.load(Ordering::Relaxed), acknowledged, "acknowledged without a sync");
    assert!(!matches!(world.load.read(&world.node, 0, "c0/0").await, Err(NodeError::Storage(_))), "reads go on");
    world.disk.set_trouble(Trouble::default());
    world.load.may_fail.store(false, Ordering::Relaxed);
    world.work(0).await;
    assert!(world.load.acknowledged.load(Ordering::Relaxed) > acknowledged + 20, "writes go on");
    world.ends_well().await;
}
