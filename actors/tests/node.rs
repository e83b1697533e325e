//! A whole node without HTTP: spaces, writes and reads over a real data folder.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use kvspace_actors::node::{Admit, Body, Content, ListQuery, Lookup, Node, NodeError, Options, WriteRequest};
use kvspace_protocol::{
    authority::{Grants, Proof},
    capability::build::{Claims, ucan},
    id::{BlobHash, Did, Millis, SpaceId},
    kv::Condition,
    space::{Refusal, Written},
};

const FAR: Millis = Millis(4_000_000_000_000);

fn now() -> Millis {
    kvspace_actors::clock::now()
}

fn options(dir: &Path) -> Options {
    Options {
        data_dir: dir.to_owned(),
        key: [9; 32],
        admit: Admit::Any,
        body_bytes_max: 64 * 1024 * 1024,
        permit_wait: Duration::from_secs(5),
        active_spaces_max: 100,
        segment_bytes: 4 * 1024 * 1024,
        index_cache_bytes: 8 * 1024 * 1024,
        reserve_free_bytes: 128 * 1024 * 1024,
        retention: Duration::from_secs(3600),
        collect_interval: Duration::from_secs(3600),
        network: None,
        pending_wait: Duration::from_secs(5),
    }
}

struct Owner {
    key: SigningKey,
    space: SpaceId,
}

impl Owner {
    fn new(seed: u8) -> Self {
        let key = SigningKey::from_bytes(&[seed; 32]);
        let space = SpaceId::new(&did(&key), "default").expect("a space id");
        Self { key, space }
    }

    fn sign(&self, claims: &Claims) -> Proof {
        Arc::new(ucan(claims, &self.key).expect("claims make a token").verify().expect("signed just now"))
    }

    fn host_delegation(&self, host: &Did) -> Proof {
        let mut claims = Claims::until(FAR);
        claims.audience = Some(host.clone());
        claims.capabilities.insert(format!("{}/space", self.space), vec!["tinycloud.space/host".into()]);
        self.sign(&claims)
    }

    fn invoke(&self, key: &str, ability: &str, nonce: u64) -> Proof {
        let mut claims = Claims::until(now().plus(60_000));
        claims.nonce = Some(nonce.to_string());
        claims.capabilities.insert(format!("{}/kv/{key}", self.space), vec![format!("tinycloud.kv/{ability}")]);
        self.sign(&claims)
    }

    async fn create(&self, node: &Node) {
        let made = node.delegate(self.host_delegation(node.did()), now()).await.expect("the space is made");
        assert_eq!(made.activated, std::slice::from_ref(&self.space));
    }

    async fn put(&self, node: &Node, key: &str, bytes: &[u8], nonce: u64) -> Result<Written, NodeError> {
        let token = self.invoke(key, "put", nonce);
        self.put_with(node, token, bytes, Condition::Always).await
    }

    async fn put_with(
        &self,
        node: &Node,
        token: Proof,
        bytes: &[u8],
        condition: Condition,
    ) -> Result<Written, NodeError> {
        let authorized = node.authorize(&self.space, &token, now()).await?;
        let permit = node.body_permit(bytes.len() as u64).await?;
        let body = Body::Inline { hash: BlobHash::of(bytes), bytes: Bytes::copy_from_slice(bytes), permit };
        let (space, meta) = (self.space.clone(), BTreeMap::new());
        node.write(WriteRequest { space, token, authorized, body: Some(body), meta, condition }).await
    }

    async fn get(&self, node: &Node, key: &str) -> Option<Bytes> {
        let Lookup::Live(found) = node.lookup(&self.space, key).await.expect("hosted") else { return None };
        match node.read(&self.space, &found).await.expect("readable") {
            Content::Whole(bytes, _) => Some(bytes),
            Content::File(mut file, size) => {
                let mut bytes = Vec::new();
                tokio::io::AsyncReadExt::read_to_end(&mut file, &mut bytes).await.expect("readable");
                assert_eq!(bytes.len() as u64, size);
                Some(bytes.into())
            }
        }
    }
}

fn did(key: &SigningKey) -> Did {
    Did::from_ed25519(&key.verifying_key().to_bytes())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_written_is_there_after_a_restart() {
    let dir = tempfile::tempdir().expect("a folder");
    let owner = Owner::new(1);
    let node = Node::start(options(dir.path())).await.expect("starts");
    owner.create(&node).await;
    for n in 0..100 {
        owner.put(&node, &format!("k{n}"), format!("value {n}").as_bytes(), n).await.expect("written");
    }
    let large = vec![7_u8; 1_000_000];
    let mut upload = node.upload().await.expect("staged");
    upload.write(&large).await.expect("staged");
    let staged = upload.finish().await.expect("durable");
    let token = owner.invoke("large", "put", 1000);
    let authorized = node.authorize(&owner.space, &token, now()).await.expect("allowed");
    let (space, condition) = (owner.space.clone(), Condition::Always);
    let request =
        WriteRequest { space, token, authorized, body: Some(Body::Staged(staged)), meta: BTreeMap::new(), condition };
    node.write(request).await.expect("written");
    let frontier = node.frontier(&owner.space).await.expect("hosted");
    node.stop().await;
    assert!(matches!(owner.put(&node, "late", b"x", 1001).await, Err(NodeError::Stopping)));
    drop(node);

    let node = Node::start(options(dir.path())).await.expect("starts again");
    assert_eq!(node.frontier(&owner.space).await.expect("hosted"), frontier);
    assert_eq!(owner.get(&node, "k42").await.as_deref(), Some(&b"value 42"[..]));
    assert_eq!(owner.get(&node, "large").await, Some(large.into()));
    owner.put(&node, "k42", b"newer", 2000).await.expect("written");
    assert_eq!(owner.get(&node, "k42").await.as_deref(), Some(&b"newer"[..]));
    let query = ListQuery { path: String::new(), grants: Grants::Owner, after: None, limit: Some(10) };
    let page = node.list(&owner.space, &query).await.expect("hosted");
    assert_eq!((page.keys.len(), page.truncated, &*page.keys[0]), (10, true, "k0"));
    assert_eq!(node.status(None, 10).expect("readable").spaces[0].summary.keys, 101);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_writers_at_once_all_succeed_and_one_of_two_conditional_ones_wins() {
    let dir = tempfile::tempdir().expect("a folder");
    let owner = Arc::new(Owner::new(1));
    let node = Node::start(options(dir.path())).await.expect("starts");
    owner.create(&node).await;
    let tasks: Vec<_> = (0..200_u64)
        .map(|n| {
            let (owner, node) = (owner.clone(), node.clone());
            tokio::spawn(async move {
                owner.put(&node, &format!("k{}", n % 50), &n.to_be_bytes(), n).await.expect("written");
                let token = owner.invoke("once", "put", 10_000 + n);
                owner.put_with(&node, token, b"x", Condition::Absent).await.is_ok()
            })
        })
        .collect();
    let mut won = 0;
    for task in tasks {
        won += usize::from(task.await.expect("no panic"));
    }
    assert_eq!(won, 1, "put-if-absent of one key");
    assert_eq!(node.status(None, 10).expect("readable").spaces[0].summary.keys, 51);
    assert_eq!(node.frontier(&owner.space).await.expect("hosted").len(), 1);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_writers_of_the_largest_inline_values_fit_into_segments() {
    let dir = tempfile::tempdir().expect("a folder");
    let owner = Arc::new(Owner::new(1));
    let mut options = options(dir.path());
    options.segment_bytes = 16 * 1024 * 1024;
    let node = Node::start(options).await.expect("starts");
    owner.create(&node).await;
    let tasks: Vec<_> = (0..200_u64)
        .map(|n| {
            let (owner, node) = (owner.clone(), node.clone());
            tokio::spawn(async move {
                let value = vec![u8::try_from(n).expect("below 256"); 256 * 1024];
                owner.put(&node, &format!("k{n}"), &value, n).await.map(drop)
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("no panic").expect("written");
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn spaces_beyond_the_active_ones_rest_and_come_back() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut options = options(dir.path());
    options.active_spaces_max = 2;
    let node = Node::start(options).await.expect("starts");
    let owners: Vec<_> = (1..=6).map(Owner::new).collect();
    for round in 0..3 {
        for owner in &owners {
            if round == 0 {
                owner.create(&node).await;
            }
            owner.put(&node, "k", format!("round {round}").as_bytes(), round).await.expect("written");
        }
    }
    for owner in &owners {
        assert_eq!(owner.get(&node, "k").await.as_deref(), Some(&b"round 2"[..]));
        assert_eq!(node.frontier(&owner.space).await.expect("hosted").len(), 1);
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_spaces_only_those_in_use_are_in_memory() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut options = options(dir.path());
    options.active_spaces_max = 16;
    let node = Node::start(options.clone()).await.expect("starts");
    let owners: Vec<_> = (10..=209).map(Owner::new).collect();
    for owner in &owners {
        owner.create(&node).await;
        owner.put(&node, "k", b"v", 1).await.expect("written");
        let active = node.status(None, 0).expect("readable").active;
        assert!(active <= 32, "{active} in memory");
    }
    node.stop().await;
    drop(node);
    let node = Node::start(options).await.expect("starts again");
    let status = node.status(None, 300).expect("readable");
    assert_eq!((status.active, status.spaces.len(), status.has_more), (0, 200, false));
    let page = node.status(Some(&status.spaces[9].space), 10).expect("readable");
    assert_eq!((&page.spaces[0].space, page.has_more), (&status.spaces[10].space, true));
    for owner in owners.iter().step_by(7) {
        assert_eq!(owner.get(&node, "k").await.as_deref(), Some(&b"v"[..]));
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_large_value_leaves_no_file() {
    let dir = tempfile::tempdir().expect("a folder");
    let owner = Owner::new(1);
    let node = Node::start(options(dir.path())).await.expect("starts");
    owner.create(&node).await;
    owner.put(&node, "k", b"there", 1).await.expect("written");
    let mut upload = node.upload().await.expect("staged");
    upload.write(&vec![1; 500_000]).await.expect("staged");
    let staged = upload.finish().await.expect("durable");
    let token = owner.invoke("k", "put", 2);
    let authorized = node.authorize(&owner.space, &token, now()).await.expect("allowed");
    let (space, condition) = (owner.space.clone(), Condition::Absent);
    let request =
        WriteRequest { space, token, authorized, body: Some(Body::Staged(staged)), meta: BTreeMap::new(), condition };
    assert!(matches!(node.write(request).await, Err(NodeError::Refused(Refusal::Precondition))));
    let gone = async {
        while !walk(&dir.path().join("blobs")).is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), gone).await.expect("the file is removed");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_is_kept_out_and_an_owner_that_is_not_admitted_too() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut options = options(dir.path());
    options.admit = Admit::None;
    let node = Node::start(options.clone()).await.expect("starts");
    let second = Node::start(options).await.err().expect("kept out").to_string();
    assert!(second.contains("in use"), "{second}");
    let owner = Owner::new(1);
    let refused = node.delegate(owner.host_delegation(node.did()), now()).await;
    assert!(matches!(refused, Err(NodeError::NotAdmitted(_))));
    node.stop().await;
}

fn walk(dir: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(dir).expect("a folder").map(|entry| entry.expect("an entry").path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}
