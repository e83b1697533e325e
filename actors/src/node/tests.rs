//! What only the inside can bring about: an actor that fails.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use ed25519_dalek::SigningKey;
use kvspace_protocol::{
    authority::Proof,
    capability::build::{Claims, ucan},
    id::{Did, Millis, SpaceId},
    kv::Condition,
    space::Written,
};

use super::{Admit, Body, Node, NodeError, Options, WriteRequest};
use crate::{clock, messages::Panic};

struct World {
    node: Node,
    key: SigningKey,
    space: SpaceId,
    _dir: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let key = SigningKey::from_bytes(&[1; 32]);
        let owner = Did::from_ed25519(&key.verifying_key().to_bytes());
        let space = SpaceId::new(&owner, "default").expect("a space id");
        let options = Options {
            data_dir: dir.path().to_owned(),
            key: [2; 32],
            admit: Admit::Any,
            body_bytes_max: 1 << 20,
            permit_wait: Duration::from_secs(5),
            active_spaces_max: 10,
            segment_bytes: 4 << 20,
        };
        let node = Node::start(options).await.expect("starts");
        let world = Self { node, key, space, _dir: dir };
        let host = world.node.did().clone();
        let token = world.sign(Some(host), &format!("{}/space", world.space), "tinycloud.space/host", 0);
        world.node.delegate(token, clock::now()).await.expect("the space is made");
        world
    }

    fn sign(&self, audience: Option<Did>, resource: &str, ability: &str, nonce: u64) -> Proof {
        let mut claims = Claims::until(Millis(4_000_000_000_000));
        claims.audience = audience;
        claims.nonce = Some(nonce.to_string());
        claims.capabilities.insert(resource.to_owned(), vec![ability.to_owned()]);
        Arc::new(ucan(&claims, &self.key).expect("a token").verify().expect("signed just now"))
    }

    async fn put(&self, key: &str, nonce: u64) -> Result<Written, NodeError> {
        let token = self.sign(None, &format!("{}/kv/{key}", self.space), "tinycloud.kv/put", nonce);
        let authorized = self.node.authorize(&self.space, &token, clock::now())?;
        let bytes = bytes::Bytes::from_static(b"value");
        let permit = self.node.body_permit(5).await?;
        let hash = kvspace_protocol::id::BlobHash::of(&bytes);
        let (space, meta, condition) = (self.space.clone(), BTreeMap::new(), Condition::Always);
        let body = Some(Body::Inline { hash, bytes, permit });
        self.node.write(WriteRequest { space, token, authorized, body, meta, condition }).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_panic_the_space_goes_on_in_a_new_incarnation_with_all_it_had() {
    let world = World::new().await;
    let before = world.put("a", 1).await.expect("written");
    let hosted = world.node.space(&world.space).expect("hosted");
    let addr = hosted.actor.lock().await.clone().expect("an actor runs");
    assert!(addr.send(Panic).await.is_err(), "the actor is gone");
    let after = world.put("b", 2).await.expect("written by the next actor");
    assert!(after.version > before.version);
    assert_eq!(world.node.frontier(&world.space).expect("hosted"), [after.version.epoch], "one head: nothing was lost");
    let again = world.put("a", 1).await.expect("the first outcome again");
    assert_eq!(again.version, before.version);
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_for_bodies_is_bounded_and_given_back() {
    let world = World::new().await;
    let all = world.node.body_permit(1 << 20).await.expect("free");
    let waiting = world.node.body_permit(1);
    tokio::pin!(waiting);
    assert!(futures_poll(waiting.as_mut()).await.is_none(), "none is free");
    drop(all);
    assert!(waiting.await.is_ok());
    assert!(world.put("a", 1).await.is_ok());
    assert!(world.node.body_permit(1 << 20).await.is_ok(), "the write gave its share back");
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
