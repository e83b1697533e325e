//! Values that count and whose bytes are not in the log.

use futures::future::BoxFuture;

use super::*;
use crate::{
    blobs::Blobs,
    index::Wanted,
    node::reads::{Pending, PendingValue},
};

/// Somebody who has the bytes of every value.
struct Fetching(Blobs);

impl Pending for Fetching {
    fn wait(&self, value: PendingValue) -> BoxFuture<'_, bool> {
        Box::pin(async move {
            let mut upload = self.0.upload().await.expect("begun");
            upload.write(&vec![1; usize::try_from(value.size).expect("small")]).await.expect("taken");
            let staged = upload.finish().await.expect("durable");
            assert_eq!(staged.hash, value.hash);
            staged.keep();
            true
        })
    }
}

impl Collecting {
    fn wanted(&self) -> Vec<Wanted> {
        let storage = &self.world.node.inner.storage;
        storage.index.wanted(&storage.blobs, None).map(|wanted| wanted.expect("the index reads")).collect()
    }

    async fn revoke(&self, delegation: &Proof, after: &[EpochId]) {
        let World { node, space, key, .. } = &self.world;
        let mut claims = Claims::until(Millis(4_000_000_000_000));
        let target = format!("urn:cid:{}", delegation.address());
        claims.capabilities.insert(target, vec!["tinycloud.delegation/revoke".into()]);
        claims.after = after.iter().map(|id| format!("{space}/after/{id}")).collect();
        let revocation = ucan(&claims, key).expect("a token").verify().expect("signed just now");
        node.revoke(Arc::new(revocation), clock::now()).await.expect("revoked");
    }

    /// The same on an index that is made anew.
    async fn restarted(self) -> Self {
        let Self { world: World { node, key, space, dir }, nonce } = self;
        let options = node.inner.options.clone();
        node.stop().await;
        drop(node);
        std::fs::remove_dir_all(dir.path().join("index")).expect("removed");
        let node = Node::start(options).await.expect("starts");
        Self { world: World { node, key, space, dir }, nonce }
    }
}

const KEYS: [&str; 7] = ["small", "small/1", "small/2", "small/3", "small/4", "small/5", "small/6"];

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_gone_come_back_as_a_file_that_lasts_as_long_as_they_count() {
    let test = Collecting::new().await;
    let World { node, space, .. } = &test.world;
    let guest = SigningKey::from_bytes(&[3; 32]);
    let did = Did::from_ed25519(&guest.verifying_key().to_bytes());
    let delegation = test.world.sign(Some(did), &format!("{space}/kv"), "tinycloud.kv/put", 0);
    node.delegate(delegation.clone(), clock::now()).await.expect("delegated");
    let before = node.frontier(space).await.expect("hosted");
    for key in KEYS {
        test.put(key, 1, SMALL).await;
        test.put_as(&guest, &delegation, key, 2, 1_000).await;
    }
    test.seal().await;
    test.collect(Duration::ZERO).await;
    assert_eq!(test.wanted(), []);
    test.revoke(&delegation, &before).await;
    let gone = BlobHash::of(&[1; SMALL]);
    let wanted = test.wanted();
    assert_eq!(wanted.len(), KEYS.len(), "{wanted:?}");
    assert!(wanted.iter().all(|wanted| (wanted.hash, wanted.size) == (gone, SMALL as u64)));
    assert!(matches!(test.get("small").await, Err(NodeError::BlobGone)), "nobody else has it");

    let other = Did::from_ed25519(&SigningKey::from_bytes(&[9; 32]).verifying_key().to_bytes());
    let named = test.world.sign(Some(other), &format!("{space}/space"), "tinycloud.space/host", 0);
    node.delegate(named, clock::now()).await.expect("delegated");
    assert!(matches!(test.get("small").await, Err(NodeError::BlobPending)), "the other host may have it");

    assert!(node.inner.pending.set(Arc::new(Fetching(node.inner.storage.blobs.clone()))).is_ok());
    assert_eq!(test.get("small").await.expect("fetched"), (1, SMALL));
    assert_eq!((test.wanted(), test.files()), (vec![], 1));

    let test = test.restarted().await;
    test.collect(Duration::ZERO).await;
    let collector = Collector::new(
        test.world.node.inner.storage.clone(),
        test.world.dir.path().to_owned(),
        Duration::ZERO,
        Duration::from_secs(1),
    );
    tokio::task::spawn_blocking(move || collector.sweep()).await.expect("no panic").expect("swept");
    assert_eq!(test.get("small/6").await.expect("it is kept"), (1, SMALL));

    for key in KEYS {
        test.delete(key).await;
    }
    test.collect(Duration::from_secs(3600)).await;
    assert_eq!(test.files(), 1, "for the retention time");
    test.collect(Duration::ZERO).await;
    assert_eq!(test.files(), 0);
    test.world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_with_other_bytes_is_not_given_out_for_a_small_value() {
    let test = Collecting::new().await;
    test.put("k", 1, 1_000).await;
    let World { node, space, dir, .. } = &test.world;
    let Lookup::Live(mut found) = node.lookup(space, "k").await.expect("hosted") else { panic!("it is there") };
    found.at = None;
    assert!(matches!(node.read(space, &found).await, Err(NodeError::BlobGone)));
    for (bytes, is_good) in [([1; 1_000], true), ([2; 1_000], false)] {
        std::fs::write(crate::blobs::file_of(&dir.path().join("blobs"), &found.value.blob), bytes).expect("written");
        assert_eq!(node.read(space, &found).await.is_ok(), is_good);
    }
    node.stop().await;
}
