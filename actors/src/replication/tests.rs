//! What a node does for peers, and what not.

use std::{path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use kvspace_protocol::{
    authority::Proof,
    capability::build::{Claims, ucan},
    id::{Did, EpochId, HostKey, Millis, SpaceId},
    sync::{Have, Refused, Request, Response, Verdict, message::Pushed},
};

use super::{Replication, values};
use crate::{
    clock,
    fetch::Peers as _,
    net::{Event, NetOptions, Network},
    node::{Admit, NetworkOptions, Node, NodeError, Options},
};

/// A failure instead of a hang.
const LONG: Duration = Duration::from_secs(20);
const STRANGER: u8 = 99;

fn options(dir: &Path, key: u8) -> Options {
    let network = NetworkOptions {
        listen: vec!["/ip4/127.0.0.1/tcp/0".into()],
        peers: Vec::new(),
        mdns: false,
        compare_interval: Duration::from_secs(30),
    };
    Options {
        data_dir: dir.to_owned(),
        key: [key; 32],
        admit: Admit::Any,
        body_bytes_max: 1 << 20,
        permit_wait: Duration::from_secs(5),
        active_spaces_max: 10,
        segment_bytes: 4 << 20,
        index_cache_bytes: 8 << 20,
        reserve_free_bytes: 1 << 20,
        retention: Duration::from_secs(3600),
        collect_interval: Duration::from_secs(3600),
        network: Some(network),
        // Who waits for what nobody has does so for longer than a test takes.
        pending_wait: Duration::from_secs(3600),
    }
}

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

fn host(seed: u8) -> HostKey {
    HostKey(key(seed).verifying_key().to_bytes())
}

fn space(owner: u8, name: &str) -> SpaceId {
    SpaceId::new(&host(owner).did(), name).expect("a space id")
}

/// A token of this signer.
fn sign(signer: u8, audience: &Did, capabilities: &[(String, &str)], proofs: &[&Proof]) -> Proof {
    let mut claims = Claims::until(Millis(4_000_000_000_000));
    claims.audience = Some(audience.clone());
    claims.proofs = proofs.iter().map(|proof| proof.address()).collect();
    for (resource, ability) in capabilities {
        claims.capabilities.insert(resource.clone(), vec![(*ability).to_owned()]);
    }
    Arc::new(ucan(&claims, &key(signer)).expect("a token").verify().expect("signed just now"))
}

/// That somebody is a host of these spaces of the owner.
fn to_host(owner: u8, audience: &Did, spaces: &[SpaceId]) -> Proof {
    let capabilities: Vec<_> = spaces.iter().map(|space| (format!("{space}/space"), "tinycloud.space/host")).collect();
    sign(owner, audience, &capabilities, &[])
}

fn bytes(proof: &Proof) -> Bytes {
    Bytes::copy_from_slice(proof.bytes())
}

/// A node on a folder of its own, with a space of owner 1.
struct Home {
    dir: tempfile::TempDir,
    node: Node,
    space: SpaceId,
}

impl Home {
    async fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let node = Node::start(options(dir.path(), 2)).await.expect("starts");
        let space = space(1, "default");
        let token = to_host(1, node.did(), std::slice::from_ref(&space));
        node.delegate(token, clock::now()).await.expect("the space is made");
        Self { dir, node, space }
    }

    /// All spaces are at rest then.
    async fn restart(&mut self) {
        self.node.stop().await;
        let dir = self.dir.path().to_owned();
        // The data folder is free when the last handle is gone.
        let empty = tempfile::tempdir().expect("a folder");
        let other = Node::start(options(empty.path(), 3)).await.expect("starts");
        drop(std::mem::replace(&mut self.node, other.clone()));
        let again = tokio::time::timeout(LONG, async {
            loop {
                match Node::start(options(&dir, 2)).await {
                    Ok(node) => return node,
                    Err(_) => tokio::task::yield_now().await,
                }
            }
        });
        self.node = again.await.expect("it starts again");
        other.stop().await;
    }

    fn replication(&self) -> Replication {
        self.node.replication().expect("it has a network")
    }

    async fn answer(&self, peer: u8, request: Request) -> Response {
        let (replication, peer) = (self.replication(), host(peer));
        let answered = tokio::time::timeout(LONG, replication.answer(&self.node, &peer, request));
        answered.await.expect("an answer at once")
    }

    async fn pull(&self, peer: u8, space: &SpaceId, shown: &[Proof]) -> Response {
        let shown = shown.iter().map(bytes).collect();
        self.answer(peer, Request::Pull { space: space.clone(), have: Have::Heads(Vec::new()), after: None, shown })
            .await
    }
}

const NOT_FOUND: Response = Response::Refused(Refused::NotFound);

#[tokio::test(flavor = "multi_thread")]
async fn signatures_that_could_not_help_a_stranger_are_not_checked() {
    let home = Home::new().await;
    let replication = home.replication();
    let cores = u32::try_from(replication.shared.checks.available_permits()).expect("few");
    let all = replication.shared.checks.acquire_many(cores).await.expect("open");
    let (here, elsewhere) = (home.space.clone(), space(4, "default"));
    let of_others = to_host(1, &host(5).did(), &[here.clone(), elsewhere.clone()]);
    let of_peer = to_host(1, &host(STRANGER).did(), &[space(1, "third"), elsewhere.clone()]);
    assert_eq!(home.pull(STRANGER, &elsewhere, &[of_others.clone(), of_peer.clone()]).await, NOT_FOUND);
    assert_eq!(home.pull(STRANGER, &here, &[of_others, of_peer]).await, NOT_FOUND);
    drop(all);
    let of_peer = to_host(1, &host(STRANGER).did(), std::slice::from_ref(&here));
    assert!(matches!(home.pull(STRANGER, &here, &[of_peer]).await, Response::Epochs { .. }));
    home.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_space_is_opened_for_a_stranger() {
    let mut home = Home::new().await;
    home.restart().await;
    assert_eq!(home.node.spaces_in_memory().len(), 0);
    let pushed = Pushed { space: home.space.clone(), epochs: Vec::new(), told: Vec::new() };
    let refused = Response::Push(vec![Verdict::Refused(Refused::NotFound)]);
    assert_eq!(home.answer(STRANGER, Request::Push(vec![pushed.clone()])).await, refused);
    assert_eq!(home.pull(STRANGER, &home.space, &[]).await, NOT_FOUND);
    assert_eq!(home.node.spaces_in_memory().len(), 0, "nobody who may be a host has asked");
    assert_eq!(home.answer(1, Request::Push(vec![pushed])).await, Response::Push(vec![Verdict::Taken]));
    home.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_stranger_shows_makes_only_the_space_it_asks_for_and_parks_nothing() {
    let home = Home::new().await;
    let spaces: Vec<_> = (0..20).map(|n| space(4, &format!("space-{n}"))).collect();
    let for_node = to_host(4, home.node.did(), &spaces);
    let of_peer = to_host(4, &host(STRANGER).did(), &spaces);
    let shown = [for_node, of_peer];
    assert!(matches!(home.pull(STRANGER, &spaces[0], &shown).await, Response::Epochs { .. }));
    let status = home.node.status(None, 100).expect("readable");
    assert_eq!((status.spaces.len(), status.parked), (2, 0));
    for space in &spaces[1..] {
        home.pull(STRANGER, space, &shown).await;
    }
    assert_eq!(
        home.node.status(None, 100).expect("readable").spaces.len(),
        1 + 16,
        "as many as one peer may have made"
    );
    assert!(matches!(home.pull(STRANGER + 1, &spaces[19], &shown).await, Response::Refused(_)));
    assert_eq!(home.node.status(None, 100).expect("readable").spaces.len(), 1 + 17, "another one may");
    home.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_stranger_shows_in_vain_drives_nothing_out() {
    let home = Home::new().await;
    let borrowed = to_host(7, &host(8).did(), &[space(7, "default")]);
    home.node.borrow_proofs(std::slice::from_ref(&borrowed));
    for n in 0..20 {
        let elsewhere = space(4, &format!("space-{n}"));
        let others = (0..60).map(|m| to_host(5, &host(6).did(), &[space(5, &format!("space-{n}-{m}"))]));
        // Not the owner's, and no proof of it is shown.
        let broken = to_host(6, home.node.did(), std::slice::from_ref(&elsewhere));
        let shown: Vec<_> = [broken].into_iter().chain(others).collect();
        assert_eq!(home.pull(STRANGER, &elsewhere, &shown).await, NOT_FOUND);
    }
    assert!(home.node.finds(&borrowed), "it is still there");
    home.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_that_may_not_be_is_waited_for_by_nobody() {
    let home = Home::new().await;
    let delegation = sign(1, &host(5).did(), &[(format!("{}/kv", home.space), "tinycloud.kv/get")], &[]);
    home.node.delegate(delegation.clone(), clock::now()).await.expect("taken in");
    let mut claims = Claims::until(Millis(4_000_000_000_000));
    claims.capabilities =
        [(format!("urn:cid:{}", delegation.address()), vec!["tinycloud.delegation/revoke".into()])].into();
    // Nobody has it.
    claims.after = vec![format!("{}/after/{}", home.space, EpochId([7; 32]))];
    let revocation: Proof =
        Arc::new(ucan(&claims, &key(STRANGER)).expect("a token").verify().expect("signed just now"));
    assert!(revocation.after(&home.space).is_some());
    let revoked = tokio::time::timeout(LONG, home.node.revoke(revocation.clone(), clock::now())).await;
    assert!(matches!(revoked.expect("an answer at once"), Err(NodeError::Denied(_))));
    let previewed = tokio::time::timeout(LONG, home.node.preview(revocation, clock::now(), 10)).await;
    assert!(matches!(previewed.expect("an answer at once"), Err(NodeError::Denied(_))));
    home.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_no_longer_a_host_is_asked_for_nothing() {
    let home = Home::new().await;
    let replication = home.replication();
    let (listen, peers) = (vec!["/ip4/127.0.0.1/tcp/0".into()], replication.network().addresses());
    let (other, mut incoming) =
        Network::start(NetOptions { key: [5; 32], listen, peers, mdns: false }).await.expect("starts");
    assert!(matches!(incoming.events.recv().await, Some(Event::Connected(_))));
    while !replication.network().is_connected(&host(5)) {
        tokio::task::yield_now().await;
    }
    let delegation = to_host(1, &host(5).did(), std::slice::from_ref(&home.space));
    home.node.delegate(delegation.clone(), clock::now()).await.expect("taken in");
    assert_eq!(replication.hosts_to_ask(&home.node, &home.space), [host(5)]);
    let peers = values::HostsOfSpaces::new(&home.node, replication.network().clone());
    assert_eq!(peers.hosts(&home.space), [host(5)]);
    let mut claims = Claims::until(Millis(4_000_000_000_000));
    claims.capabilities =
        [(format!("urn:cid:{}", delegation.address()), vec!["tinycloud.delegation/revoke".into()])].into();
    claims.after = vec![format!("{}/after/{}", home.space, home.node.frontier(&home.space).await.expect("hosted")[0])];
    let revocation: Proof = Arc::new(ucan(&claims, &key(1)).expect("a token").verify().expect("signed just now"));
    home.node.revoke(revocation, clock::now()).await.expect("revoked");
    assert_eq!(replication.hosts_to_ask(&home.node, &home.space), []);
    assert_eq!(peers.hosts(&home.space), []);
    assert!(home.node.is_named_host(&home.space, &host(5)), "what it made before may still be missing");
    other.stop().await;
    home.node.stop().await;
}
