//! A log that lost its end while nobody looked.

use super::*;
use crate::disk::Disk as _;

#[tokio::test(flavor = "multi_thread")]
async fn an_end_that_the_index_had_is_not_taken_for_a_torn_one() {
    for is_gone in [false, true] {
        let disk = FakeDisk::default();
        let log = LogOptions { segment_bytes: SEGMENT_BYTES, disk: Arc::new(disk.clone()), ..LogOptions::default() };
        let world = World::with_log(log.clone()).await;
        world.put("a", 1).await.expect("written");
        let path = world.dir.path().join("log/00000001.seg");
        let sound = disk.content(&path);
        world.put("b", 2).await.expect("written");
        world.node.stop().await;
        let World { node, dir, .. } = world;
        drop(node);

        let mut content = disk.content(&path);
        if is_gone {
            disk.remove(&path).expect("it was there");
        } else {
            let changed = sound.iter().zip(&content).position(|(before, now)| before != now).expect("a commit more");
            content[changed + 100] ^= 1;
            disk.put(&path, &content);
        }
        for _ in 0..2 {
            let storage = StorageOptions { log: log.clone(), ..StorageOptions::default() };
            let node = Node::start_on(World::options(dir.path()), storage).await.expect("starts");
            assert!(node.status(None, 1).expect("status").storage.damaged > 0, "nobody counts it");
            node.stop().await;
            assert!(is_gone || disk.content(&path) == content, "it was cut off");
            assert!(is_gone != disk.names().contains(&path), "its number was used again");
        }
    }
}
