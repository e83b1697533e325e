//! Several nodes that host the same space, and the operator who cuts them off from each other.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU32, Ordering},
};

use ed25519_dalek::SigningKey;
use kvspace_client::{Did, SpaceId, Token};
use libp2p::{PeerId, identity};
use serde_json::Value;

use super::{
    Node, Owner, Request, Response, Session, Setup, get, post,
    process::eventually,
    tokens::{ALL, GET, LIST, delegate, did, new_key},
};

/// How long a read waits for what it names: far beyond what anything here takes.
const WAIT_MS: u64 = 30_000;

/// Where a node is to be among others: its key and its address are known before it runs, and stay.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) key: SigningKey,
    address: String,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self::of(new_key())
    }

    /// The same for a node with this key. Loopback is sixteen million addresses: no two nodes share one, so that a node
    /// that is started again finds its port free.
    pub(crate) fn of(key: SigningKey) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let (process, number) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let ip = format!("127.{}.{}.{}", 1 + process % 250, 1 + number / 250, 1 + number % 250);
        Self { key, address: format!("/ip4/{ip}/tcp/{}", 10_000 + process % 20_000) }
    }

    pub(crate) fn did(&self) -> Did {
        did(&self.key)
    }

    /// The multiaddress that others dial.
    pub(crate) fn multiaddress(&self) -> String {
        format!("{}/p2p/{}", self.address, peer_id(&self.key))
    }

    /// A node that is there, and stays connected to these.
    pub(crate) fn setup(&self, peers: &[&Self]) -> Setup {
        let peers: Vec<_> = peers.iter().map(|peer| peer.multiaddress()).collect();
        Setup::default()
            .key(self.key.to_bytes())
            .option("network.listen", &self.address)
            .option("network.peers", peers.join(","))
            .option("network.compare_interval_s", 1)
    }
}

/// The same key as libp2p spells it.
pub(crate) fn peer_id(key: &SigningKey) -> PeerId {
    let key = identity::ed25519::PublicKey::try_from_bytes(key.verifying_key().as_bytes()).expect("a key");
    identity::PublicKey::from(key).to_peer_id()
}

/// Nodes, and a space that all of them host.
pub(crate) struct Cluster {
    pub(crate) hosts: Vec<Node>,
    pub(crate) places: Vec<Place>,
    pub(crate) owner: Owner,
    pub(crate) space: SpaceId,
    /// The owner's word for each.
    pub(crate) words: Vec<Token>,
    /// May do everything with the values.
    pub(crate) session: Session,
}

impl Cluster {
    /// So many hosts, each of which knows all others.
    pub(crate) fn of(count: usize) -> Self {
        Self::with(count, |_, setup| setup)
    }

    /// The same with options of their own.
    pub(crate) fn with(count: usize, options: impl Fn(usize, Setup) -> Setup) -> Self {
        let links: Vec<Vec<usize>> = (0..count).map(|n| (0..count).filter(|other| *other != n).collect()).collect();
        Self::linked(&links, options)
    }

    /// One host for each entry, which says whom it knows.
    pub(crate) fn linked(links: &[Vec<usize>], options: impl Fn(usize, Setup) -> Setup) -> Self {
        let places: Vec<_> = links.iter().map(|_| Place::new()).collect();
        let start = |(n, known): (usize, &Vec<usize>)| {
            let peers: Vec<_> = known.iter().map(|peer| &places[*peer]).collect();
            options(n, places[n].setup(&peers)).start()
        };
        let hosts: Vec<_> = links.iter().enumerate().map(start).collect();
        let owner = Owner::wallet(7);
        let space = owner.space("default");
        let words: Vec<_> = places.iter().map(|place| owner.host(&space, &place.did())).collect();
        delegate(&hosts[0], &words[0]).expect(200);
        let session = owner.session(&hosts[0], &space, &format!("{space}/kv"), &ALL);
        let cluster = Self { hosts, places, owner, space, words, session };
        for (n, known) in links.iter().enumerate() {
            known.iter().for_each(|peer| cluster.await_connected(n, *peer));
        }
        for (host, word) in cluster.hosts.iter().zip(&cluster.words).skip(1) {
            cluster.add(host, word);
        }
        cluster.converge();
        cluster
    }

    /// Another node, which knows these.
    pub(crate) fn newcomer(&self, known: &[usize]) -> Node {
        let peers: Vec<_> = known.iter().map(|peer| &self.places[*peer]).collect();
        Place::new().setup(&peers).start()
    }

    /// Makes a node a host of the space by the owner's word: it is told, and so is the first.
    pub(crate) fn add(&self, node: &Node, word: &Token) {
        delegate(&self.hosts[0], word).expect(200);
        delegate(node, word).expect(200);
    }

    /// Waits until these two are connected, seen from the first.
    pub(crate) fn await_connected(&self, from: usize, to: usize) {
        let peer = self.hosts[to].did();
        eventually("they are connected", || is_connected(&self.hosts[from], &peer));
    }

    /// Cuts the connection between two, by a word to the first alone.
    pub(crate) fn cut(&self, from: usize, to: usize) {
        block(&self.hosts[from], &self.places[to].did());
    }

    /// Cuts every connection between the two sides.
    pub(crate) fn part(&self, one: &[usize], other: &[usize]) {
        for (a, b) in one.iter().flat_map(|a| other.iter().map(move |b| (*a, *b))) {
            self.cut(a, b);
            self.cut(b, a);
        }
        for (a, b) in one.iter().flat_map(|a| other.iter().map(move |b| (*a, *b))) {
            eventually("they are parted", || !is_connected(&self.hosts[a], &self.places[b].did()));
            eventually("they are parted", || !is_connected(&self.hosts[b], &self.places[a].did()));
        }
    }

    /// Takes back every cut.
    pub(crate) fn heal(&self) {
        for (n, host) in self.hosts.iter().enumerate().filter(|(_, host)| host.is_running()) {
            for place in self.places.iter().enumerate().filter(|(other, _)| *other != n).map(|(_, place)| place) {
                host.operate(&post(&format!("/peers/{}/unblock", place.did()))).expect(200);
            }
        }
    }

    /// The heads of the space at a node.
    pub(crate) fn heads(&self, node: &Node) -> Vec<String> {
        heads(node, &self.space)
    }

    /// Waits until all hosts that run hold the same epochs; nobody writes meanwhile.
    pub(crate) fn converge(&self) -> Vec<String> {
        let running: Vec<_> = self.hosts.iter().filter(|host| host.is_running()).collect();
        converge(&running, &self.space)
    }

    /// Waits until all hosts hold the same epochs, and fails unless they then answer the same; what they answer.
    pub(crate) fn agree(&self) -> BTreeMap<String, String> {
        self.converge();
        let held = self.held(&self.hosts[0]);
        for host in &self.hosts[1..] {
            assert_eq!(self.held(host), held);
        }
        held
    }

    /// The keys of a node and the entity tags of their values, which are read to the end.
    pub(crate) fn held(&self, node: &Node) -> BTreeMap<String, String> {
        held(node, &self.session)
    }

    /// Reads at a host what it holds once it has this epoch.
    pub(crate) fn get_after(&self, host: usize, key: &str, epoch: &str) -> Response {
        self.hosts[host].ask(&after(self.session.invoke(GET, key), epoch))
    }

    /// The keys beneath a path once a host has this epoch.
    pub(crate) fn list_after(&self, host: usize, path: &str, epoch: &str) -> Vec<String> {
        self.hosts[host].ask(&after(self.session.invoke(LIST, path), epoch)).keys()
    }

    /// Another session that may do everything with the values, made known at one host.
    pub(crate) fn open_session(&self, host: usize) -> Session {
        self.owner.session(&self.hosts[host], &self.space, &format!("{}/kv", self.space), &ALL)
    }

    /// Why a key reads as it does at a node.
    pub(crate) fn explain(&self, node: &Node, key: &str) -> Value {
        explain(node, &self.session, key).expect(200).json()
    }
}

/// Lets a request wait for an epoch.
pub(crate) fn after(request: Request, epoch: &str) -> Request {
    request.header("x-kvspace-after", epoch).header("x-kvspace-wait-ms", WAIT_MS)
}

/// The epoch of a write.
#[track_caller]
pub(crate) fn epoch(written: &Response) -> String {
    written.header("x-kvspace-frontier").expect("a write names its epoch").to_owned()
}

/// What the operator of a node sees of its peers.
pub(crate) fn peers(node: &Node) -> Vec<Value> {
    let answer = node.operate(&get("/peers")).expect(200).json();
    answer["peers"].as_array().expect("a list of peers").clone()
}

/// What the operator of a node sees of one peer.
pub(crate) fn peer(node: &Node, did: &Did) -> Option<Value> {
    peers(node).into_iter().find(|peer| peer["peer"] == did.as_str())
}

pub(crate) fn is_connected(node: &Node, did: &Did) -> bool {
    peer(node, did).is_some_and(|peer| peer["connected_ms"].is_i64())
}

/// Cuts a peer off.
pub(crate) fn block(node: &Node, did: &Did) {
    node.operate(&post(&format!("/peers/{did}/block"))).expect(200);
}

/// A figure of `/metrics`, the sum over all labels that contain these words.
pub(crate) fn metric(node: &Node, name: &str, labels: &[&str]) -> f64 {
    let text = node.operate(&get("/metrics")).expect(200).text().to_owned();
    let lines = text.lines().filter(|line| line.starts_with(name) && labels.iter().all(|label| line.contains(label)));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

/// The heads of a space at a node.
pub(crate) fn heads(node: &Node, space: &SpaceId) -> Vec<String> {
    let status = node.status();
    let mut spaces = status["spaces"].as_array().expect("spaces").iter();
    let found = spaces.find(|found| found["space"] == space.as_str()).map(|found| found["frontier"].clone());
    found.map(|frontier| serde_json::from_value(frontier).expect("a list of ids")).unwrap_or_default()
}

/// Waits until these hold the same epochs.
pub(crate) fn converge(nodes: &[&Node], space: &SpaceId) -> Vec<String> {
    let mut found = Vec::new();
    eventually("all hold the same", || {
        found = heads(nodes[0], space);
        !found.is_empty() && nodes[1..].iter().all(|node| heads(node, space) == found)
    });
    found
}

/// The keys of a space and the entity tags of their values, which are read to the end.
pub(crate) fn held(node: &Node, session: &Session) -> BTreeMap<String, String> {
    let mut connection = node.connect();
    let keys = connection.ask(&session.invoke(LIST, "")).keys();
    let read = |key: String| {
        let answer = connection.ask(&session.invoke(GET, &key)).expect(200);
        let tag = super::tokens::etag_of(&answer.body);
        assert_eq!(answer.etag(), Some(&*tag), "{key}");
        (key, tag)
    };
    keys.into_iter().map(read).collect()
}

/// Asks why a key reads as it does.
pub(crate) fn explain(node: &Node, session: &Session, key: &str) -> Response {
    let token = session.wants(GET, key).sign(&session.key);
    node.ask(&get(&format!("/v0/explain?space={}&key={key}", session.space)).token(token.to_header()))
}
