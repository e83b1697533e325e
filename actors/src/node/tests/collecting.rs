//! What is freed and what stays: two values of each kind, small ones in the log and large ones in files.

use bytes::Bytes;
use kvspace_protocol::id::BlobHash;

use super::*;
use crate::node::collect::Collector;

mod at_hand;

/// Below the bound of what lies in the log.
const SMALL: usize = 200_000;
const LARGE: usize = 300_000;

struct Collecting {
    world: World,
    nonce: std::cell::Cell<u64>,
}

impl Collecting {
    async fn new() -> Self {
        Self { world: World::new().await, nonce: 1.into() }
    }

    fn nonce(&self) -> u64 {
        self.nonce.set(self.nonce.get() + 1);
        self.nonce.get()
    }

    async fn put(&self, key: &str, byte: u8, size: usize) {
        let value = vec![byte; size];
        let body = if size > SMALL {
            let mut upload = self.world.node.upload().await.expect("staged");
            upload.write(&value).await.expect("staged");
            Body::Staged(upload.finish().await.expect("durable"))
        } else {
            let permit = self.world.node.body_permit(size as u64).await.expect("room");
            Body::Inline { hash: BlobHash::of(&value), bytes: Bytes::from(value), permit }
        };
        self.world.put_body(key, self.nonce(), body).await.expect("written");
    }

    async fn put_as(&self, guest: &SigningKey, delegation: &Proof, key: &str, byte: u8, size: usize) {
        let World { node, space, .. } = &self.world;
        let mut claims = Claims::until(Millis(4_000_000_000_000));
        claims.proofs = vec![delegation.address()];
        claims.nonce = Some(self.nonce().to_string());
        claims.capabilities.insert(format!("{space}/kv/{key}"), vec!["tinycloud.kv/put".into()]);
        let token: Proof = Arc::new(ucan(&claims, guest).expect("a token").verify().expect("signed just now"));
        let value = vec![byte; size];
        let permit = node.body_permit(size as u64).await.expect("room");
        let body = Some(Body::Inline { hash: BlobHash::of(&value), bytes: value.into(), permit });
        let authorized = node.authorize(space, &token, clock::now()).await.expect("allowed");
        let (space, meta, condition) = (space.clone(), BTreeMap::new(), Condition::Always);
        node.write(WriteRequest { space, token, authorized, body, meta, condition }).await.expect("written");
    }

    async fn delete(&self, key: &str) {
        let World { node, space, .. } = &self.world;
        let token = self.world.sign(None, &format!("{space}/kv/{key}"), "tinycloud.kv/del", self.nonce());
        let authorized = node.authorize(space, &token, clock::now()).await.expect("allowed");
        let (space, meta, condition) = (space.clone(), BTreeMap::new(), Condition::Always);
        node.write(WriteRequest { space, token, authorized, body: None, meta, condition }).await.expect("deleted");
    }

    /// The first byte and the size of a key's value.
    async fn get(&self, key: &str) -> Result<(u8, usize), NodeError> {
        let World { node, space, .. } = &self.world;
        let Lookup::Live(found) = node.lookup(space, key).await? else { panic!("{key} is not there") };
        match node.read(space, &found).await? {
            Content::Whole(bytes, _) => Ok((bytes[0], bytes.len())),
            Content::File(mut file, size) => {
                let mut first = [0];
                tokio::io::AsyncReadExt::read_exact(&mut file, &mut first).await.expect("readable");
                Ok((first[0], usize::try_from(size).expect("small")))
            }
        }
    }

    /// Fills segments, so that all there is lies in sealed ones.
    async fn seal(&self) {
        for filler in 0..2 * SEGMENT_BYTES as usize / SMALL {
            self.put(&format!("filler/{filler}"), 0, SMALL - filler).await;
        }
    }

    /// Looks at every sealed segment and every file once.
    async fn collect(&self, retention: Duration) {
        let storage = self.world.node.inner.storage.clone();
        storage.index.records().settle().expect("applied");
        let collector =
            Collector::new(storage.clone(), self.world.dir.path().to_owned(), retention, Duration::from_secs(1));
        let pass = move || {
            collector.files().expect("the index reads");
            for info in storage.log.segments().into_iter().filter(|info| info.is_sealed) {
                collector.segment(info.segment).expect("looked at");
            }
        };
        tokio::task::spawn_blocking(pass).await.expect("no panic");
    }

    fn files(&self) -> usize {
        let folders = std::fs::read_dir(self.world.dir.path().join("blobs")).expect("a folder");
        let folders = folders.map(|folder| folder.expect("an entry").path());
        folders.map(|folder| std::fs::read_dir(folder).expect("a folder").count()).sum()
    }

    fn log_bytes(&self) -> u64 {
        self.world.node.inner.storage.log.segments().iter().map(|info| info.record_bytes).sum()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_lost_is_freed_and_the_equal_value_of_another_key_stays() {
    let test = Collecting::new().await;
    for size in [SMALL, LARGE] {
        for key in ["a", "b"] {
            test.put(&format!("{key}/{size}"), 7, size).await;
        }
        for byte in 0..10 {
            test.put(&format!("over/{size}"), byte, size).await;
        }
        test.delete(&format!("a/{size}")).await;
    }
    test.seal().await;
    let (before, files) = (test.log_bytes(), test.files());
    test.collect(Duration::ZERO).await;
    for size in [SMALL, LARGE] {
        assert_eq!(test.get(&format!("b/{size}")).await.expect("readable"), (7, size));
        assert_eq!(test.get(&format!("over/{size}")).await.expect("readable"), (9, size));
    }
    let freed = before - test.log_bytes();
    assert!((9 * SMALL as u64..11 * SMALL as u64).contains(&freed), "{freed} bytes of nine small values are freed");
    assert_eq!((files, test.files()), (10, 2), "of ten large values, one of them under three keys, two are needed");
    test.delete("b/300000").await;
    test.collect(Duration::ZERO).await;
    assert_eq!(test.files(), 1);
    test.world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_revocation_may_bring_back_stays_for_the_retention_time() {
    for (retention, kept) in [(Duration::from_secs(3600), true), (Duration::ZERO, false)] {
        let test = Collecting::new().await;
        let World { node, space, .. } = &test.world;
        let guest = SigningKey::from_bytes(&[3; 32]);
        let did = Did::from_ed25519(&guest.verifying_key().to_bytes());
        let delegation = test.world.sign(Some(did), &format!("{space}/kv"), "tinycloud.kv/put", 0);
        node.delegate(delegation.clone(), clock::now()).await.expect("delegated");
        let before = node.frontier(space).await.expect("hosted");
        test.put("large", 1, LARGE).await;
        test.put_as(&guest, &delegation, "large", 2, 1_000).await;
        // As many that a segment is worth writing anew.
        for key in ["small", "small/1", "small/2", "small/3", "small/4", "small/5", "small/6"] {
            test.put(key, 1, SMALL).await;
            test.put_as(&guest, &delegation, key, 2, 1_000).await;
        }
        test.seal().await;
        test.collect(retention).await;
        assert_eq!(test.get("small").await.expect("readable"), (2, 1_000));
        let mut claims = Claims::until(Millis(4_000_000_000_000));
        let target = format!("urn:cid:{}", delegation.address());
        claims.capabilities.insert(target, vec!["tinycloud.delegation/revoke".into()]);
        claims.after = before.iter().map(|id| format!("{space}/after/{id}")).collect();
        let revocation = ucan(&claims, &test.world.key).expect("a token").verify().expect("signed just now");
        node.revoke(Arc::new(revocation), clock::now()).await.expect("revoked");
        for (key, size) in [("small", SMALL), ("large", LARGE)] {
            match test.get(key).await {
                Ok(found) => assert!(kept && found == (1, size), "{key}: {found:?}"),
                Err(error) => assert!(!kept && matches!(error, NodeError::BlobGone), "{key}: {error}"),
            }
        }
        // What counts again is needed again.
        test.put("again", 1, LARGE).await;
        test.delete("again").await;
        test.collect(Duration::ZERO).await;
        assert!(test.get("large").await.is_ok(), "the same bytes are here again, and needed");
        test.world.node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_freed_value_reads_the_same_after_the_index_is_made_anew() {
    let test = Collecting::new().await;
    for byte in 0..10 {
        test.put("k", byte, SMALL).await;
    }
    test.seal().await;
    test.collect(Duration::ZERO).await;
    let World { node, space, dir, .. } = &test.world;
    let frontier = node.frontier(space).await.expect("hosted");
    let options = node.inner.options.clone();
    node.stop().await;
    std::fs::remove_dir_all(dir.path().join("index")).expect("removed");
    let Collecting { world, nonce } = test;
    let World { node, key, space, dir } = world;
    drop(node);
    let node = Node::start(options).await.expect("starts");
    assert_eq!(node.frontier(&space).await.expect("hosted"), frontier);
    let test = Collecting { world: World { node, key, space, dir }, nonce };
    assert_eq!(test.get("k").await.expect("readable"), (9, SMALL));
    test.put("k", 10, SMALL).await;
    assert_eq!(test.get("k").await.expect("readable"), (10, SMALL));
    test.world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_nobody_names_is_removed_unless_the_log_has_lost_something() {
    for (damage, left) in [(0, 1), (1, 2)] {
        let test = Collecting::new().await;
        test.put("large", 1, LARGE).await;
        let mut upload = test.world.node.upload().await.expect("staged");
        upload.write(&[9; LARGE]).await.expect("staged");
        upload.finish().await.expect("durable").keep();
        assert_eq!(test.files(), 2);
        let storage = test.world.node.inner.storage.clone();
        let dir = test.world.dir.path().to_owned();
        let sweep = move || {
            if damage > 0 {
                storage.index.note_damage(damage).expect("noted");
            }
            Collector::new(storage, dir, Duration::ZERO, Duration::ZERO).sweep().expect("swept");
        };
        tokio::task::spawn_blocking(sweep).await.expect("no panic");
        assert_eq!(test.files(), left);
        test.world.node.stop().await;
    }
}

/// Values that lost to a guest's, and the revocation that brings them back.
async fn overwritten(test: &Collecting) -> Proof {
    let World { node, space, .. } = &test.world;
    let guest = SigningKey::from_bytes(&[3; 32]);
    let did = Did::from_ed25519(&guest.verifying_key().to_bytes());
    let delegation = test.world.sign(Some(did), &format!("{space}/kv"), "tinycloud.kv/put", 0);
    node.delegate(delegation.clone(), clock::now()).await.expect("delegated");
    let before = node.frontier(space).await.expect("hosted");
    test.put("large", 1, LARGE).await;
    test.put_as(&guest, &delegation, "large", 2, 1_000).await;
    let mut claims = Claims::until(Millis(4_000_000_000_000));
    let target = format!("urn:cid:{}", delegation.address());
    claims.capabilities.insert(target, vec!["tinycloud.delegation/revoke".into()]);
    claims.after = before.iter().map(|id| format!("{space}/after/{id}")).collect();
    Arc::new(ucan(&claims, &test.world.key).expect("a token").verify().expect("signed just now"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_wins_again_while_it_is_being_freed_is_wanted() {
    let test = Collecting::new().await;
    let revocation = overwritten(&test).await;
    let storage = test.world.node.inner.storage.clone();
    let hash = BlobHash::of(&[1; LARGE]);
    let found = storage.index.file_uses().map(|found| found.expect("readable")).find(|found| found.hash == hash);
    let found = found.expect("the value that lost has its file");
    test.world.node.revoke(revocation, clock::now()).await.expect("revoked");
    let collector = Collector::new(storage.clone(), test.world.dir.path().to_owned(), Duration::ZERO, Duration::ZERO);
    tokio::task::spawn_blocking(move || collector.free(found).expect("looked at")).await.expect("no panic");
    assert!(storage.index.needs_file(&hash).expect("readable"), "it is needed again");
    assert_eq!(test.get("large").await.expect("readable"), (1, LARGE));
    test.world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_of_a_winner_whose_bytes_are_gone_has_them_wanted() {
    let test = Collecting::new().await;
    test.put("large", 1, LARGE).await;
    let storage = test.world.node.inner.storage.clone();
    let hash = BlobHash::of(&[1; LARGE]);
    let lose = {
        let storage = storage.clone();
        move || {
            let found =
                storage.index.file_uses().map(|found| found.expect("readable")).find(|found| found.hash == hash);
            storage.index.forget(&found.expect("it has its file")).expect("forgotten");
            storage.blobs.remove(&hash, || true).expect("removed");
        }
    };
    tokio::task::spawn_blocking(lose).await.expect("no panic");
    // The write's own lease on the file may end a moment after its answer, and the file with it.
    let gone = async {
        while storage.blobs.exists(&hash) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), gone).await.expect("the file goes");
    assert_eq!(test.world.node.wanted_values(None, 10).await, []);
    assert!(test.get("large").await.is_err());
    assert_eq!(test.world.node.wanted_values(None, 10).await.len(), 1);
    test.world.node.stop().await;
}
