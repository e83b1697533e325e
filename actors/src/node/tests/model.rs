//! Clients of a node in this process, and what they know of it: for each key the last state that was acknowledged, and
//! the later ones that were asked for.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use kvspace_protocol::{
    authority::{Grants, Proof},
    capability::build::{Claims, ucan},
    id::{BlobHash, Did, Millis, SpaceId},
    kv::Condition,
    limits::INLINE_BYTES_MAX,
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use super::super::{Admit, Body, Content, ListQuery, Lookup, Node, NodeError, Options, WriteRequest};
use crate::clock;

pub(super) const CLIENTS: u64 = 6;
/// So few that most writes are overwrites.
const KEYS_PER_CLIENT: u64 = 5;
const FAR: Millis = Millis(4_000_000_000_000);

/// A node that frees what has lost at once, in small segments.
pub(super) fn options(dir: &Path) -> Options {
    Options {
        data_dir: dir.to_owned(),
        key: [2; 32],
        admit: Admit::Any,
        body_bytes_max: 16 << 20,
        permit_wait: Duration::from_secs(20),
        active_spaces_max: 10,
        segment_bytes: 1 << 20,
        index_cache_bytes: 4 << 20,
        reserve_free_bytes: 4 << 20,
        retention: Duration::ZERO,
        collect_interval: Duration::from_millis(2),
        network: None,
        pending_wait: Duration::from_secs(5),
    }
}

/// What is known of a key: the number of its value, `None` for no value.
#[derive(Debug, Clone, Default)]
pub(super) struct Known {
    acknowledged: Option<u64>,
    open: Option<Option<u64>>,
}

/// What is known of somebody that a client lets read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Guest {
    Asked,
    May,
    Ending,
    Ended,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Model {
    keys: BTreeMap<(usize, String), Known>,
    guests: BTreeMap<u64, Guest>,
}

/// An owner with two spaces, and what its clients know.
pub(super) struct Load {
    key: SigningKey,
    pub(super) spaces: [SpaceId; 2],
    model: Arc<Mutex<Model>>,
    next: AtomicU64,
    stopped: AtomicBool,
    /// Whether a refusal because the disk is full, or broken, is an answer like others.
    pub(super) may_fail: AtomicBool,
    /// Whether a delete may find no room either.
    pub(super) has_no_reserve: AtomicBool,
    /// Answers that said that the disk is full.
    pub(super) full: AtomicU64,
    pub(super) acknowledged: AtomicU64,
}

/// The value of a number: it says what it is, so that no part of another can pass for it.
pub(super) fn value(number: u64) -> Vec<u8> {
    let mut random = StdRng::seed_from_u64(number);
    let length = match random.random_range(0..16) {
        0 => random.random_range(INLINE_BYTES_MAX as usize + 1..300 * 1024),
        1..5 => random.random_range(10_000..100_000),
        _ => random.random_range(0..2000),
    };
    let mut value = format!("value {number};").into_bytes();
    let start = value.len();
    value.resize(start + length, 0);
    blake3::Hasher::new().update(&number.to_be_bytes()).finalize_xof().fill(&mut value[start..]);
    value
}

impl Load {
    pub(super) fn new() -> Self {
        let key = SigningKey::from_bytes(&[1; 32]);
        let owner = Did::from_ed25519(&key.verifying_key().to_bytes());
        let spaces = ["one", "two"].map(|name| SpaceId::new(&owner, name).expect("a space id"));
        let (model, next) = (Arc::default(), AtomicU64::new(1));
        Self {
            key,
            spaces,
            model,
            next,
            stopped: false.into(),
            may_fail: false.into(),
            has_no_reserve: false.into(),
            full: 0.into(),
            acknowledged: 0.into(),
        }
    }

    pub(super) fn model(&self) -> MutexGuard<'_, Model> {
        self.model.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the model is.
    pub(super) fn shared(&self) -> Arc<Mutex<Model>> {
        self.model.clone()
    }

    /// Makes both spaces.
    pub(super) async fn create(&self, node: &Node) {
        for space in &self.spaces {
            let host = self.sign(Some(node.did().clone()), &format!("{space}/space"), "tinycloud.space/host");
            node.delegate(host, clock::now()).await.expect("the space is made");
        }
    }

    fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    fn sign(&self, audience: Option<Did>, resource: &str, ability: &str) -> Proof {
        let mut claims = Claims::until(FAR);
        claims.audience = audience;
        claims.nonce = Some(self.number().to_string());
        claims.capabilities.insert(resource.to_owned(), vec![ability.to_owned()]);
        Arc::new(ucan(&claims, &self.key).expect("a token").verify().expect("signed just now"))
    }

    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// Lets clients work until [`Load::stop`].
    pub(super) fn work(self: &Arc<Self>, node: &Node, seed: u64) -> Vec<tokio::task::JoinHandle<()>> {
        self.stopped.store(false, Ordering::Relaxed);
        let client = |id| {
            let (load, node) = (self.clone(), node.clone());
            tokio::spawn(async move {
                let mut random = StdRng::seed_from_u64(seed << 8 | id);
                while !load.is_stopped() {
                    load.act(&node, id, &mut random).await;
                }
            })
        };
        (0..CLIENTS).map(client).collect()
    }

    async fn act(&self, node: &Node, id: u64, random: &mut StdRng) {
        if random.random_range(0..12) == 0 {
            return self.change_guest(node, id).await;
        }
        let space = (id % 2) as usize;
        let key = format!("c{id}/{}", random.random_range(0..KEYS_PER_CLIENT));
        let known = self.model().keys.entry((space, key.clone())).or_default().clone();
        let next = (known.acknowledged.is_none() || random.random_range(0..5) > 0).then(|| self.number());
        if let Some(Known { open: open @ None, .. }) = self.model().keys.get_mut(&(space, key.clone())) {
            *open = Some(next);
        }
        let condition = match known.acknowledged {
            _ if random.random() => Condition::Always,
            None => Condition::Absent,
            Some(number) => Condition::Matches(BlobHash::of(&value(number))),
        };
        match self.write(node, &self.spaces[space], &key, next, condition).await {
            Ok(()) => {
                self.acknowledged.fetch_add(1, Ordering::Relaxed);
                self.model().keys.insert((space, key), Known { acknowledged: next, open: None });
            }
            // Nothing was changed, they say.
            Err(NodeError::DiskFull) if self.may_fail.load(Ordering::Relaxed) => {
                self.full.fetch_add(1, Ordering::Relaxed);
                let may = next.is_some() || self.has_no_reserve.load(Ordering::Relaxed);
                assert!(may, "a delete of {key} found the disk full");
                if let Some(known) = self.model().keys.get_mut(&(space, key)) {
                    known.open = None;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            // It may come out later, but nothing else is known until somebody reads it.
            Err(NodeError::Storage(_)) if self.may_fail.load(Ordering::Relaxed) => {
                tokio::time::sleep(Duration::from_millis(1)).await;
                if let Ok(found) = self.read(node, space, &key).await {
                    self.model().keys.insert((space, key), Known { acknowledged: found, open: None });
                }
            }
            Err(error) => panic!("{key}: {error}"),
        }
    }

    async fn write(
        &self,
        node: &Node,
        space: &SpaceId,
        key: &str,
        number: Option<u64>,
        condition: Condition,
    ) -> Result<(), NodeError> {
        let ability = if number.is_some() { "tinycloud.kv/put" } else { "tinycloud.kv/del" };
        let token = self.sign(None, &format!("{space}/kv/{key}"), ability);
        let authorized = node.authorize(space, &token, clock::now()).await?;
        let body = match number.map(value) {
            None => None,
            Some(value) if value.len() as u64 > INLINE_BYTES_MAX => {
                let mut upload = node.upload().await?;
                upload.write(&value).await?;
                Some(Body::Staged(upload.finish().await?))
            }
            Some(value) => {
                let permit = node.body_permit(value.len() as u64).await?;
                Some(Body::Inline { hash: BlobHash::of(&value), bytes: Bytes::from(value), permit })
            }
        };
        let (space, meta) = (space.clone(), BTreeMap::new());
        node.write(WriteRequest { space, token, authorized, body, meta, condition }).await.map(drop)
    }

    /// Lets somebody read, or nobody any more.
    async fn change_guest(&self, node: &Node, id: u64) {
        let found = self.model().guests.iter().rev().find(|(guest, _)| **guest % CLIENTS == id).map(|(g, s)| (*g, *s));
        let (guest, before, after) = match found {
            Some((guest, Guest::Asked)) => (guest, Guest::Asked, Guest::May),
            Some((guest, Guest::May | Guest::Ending)) => (guest, Guest::Ending, Guest::Ended),
            Some((guest, Guest::Ended)) => (guest + CLIENTS, Guest::Asked, Guest::May),
            None => (id, Guest::Asked, Guest::May),
        };
        self.model().guests.insert(guest, before);
        let delegation = self.delegation(guest);
        let answer = if after == Guest::May {
            node.delegate(delegation, clock::now()).await.map(drop)
        } else {
            let target = delegation.address();
            let revocation = self.sign(None, &format!("urn:cid:{target}"), "tinycloud.delegation/revoke");
            node.revoke(revocation, clock::now()).await.map(drop)
        };
        match answer {
            Ok(()) => drop(self.model().guests.insert(guest, after)),
            Err(NodeError::DiskFull) if before == Guest::Asked && self.may_fail.load(Ordering::Relaxed) => {}
            Err(NodeError::DiskFull) if self.has_no_reserve.load(Ordering::Relaxed) => {}
            Err(NodeError::Storage(_)) if self.may_fail.load(Ordering::Relaxed) => {}
            Err(error) => panic!("guest {guest}: {error}"),
        }
    }

    fn guest(guest: u64) -> SigningKey {
        SigningKey::from_bytes(blake3::hash(format!("guest {guest}").as_bytes()).as_bytes())
    }

    fn delegation(&self, guest: u64) -> Proof {
        let mut claims = Claims::until(FAR);
        claims.audience = Some(Did::from_ed25519(&Self::guest(guest).verifying_key().to_bytes()));
        let resource = format!("{}/kv", self.spaces[(guest % 2) as usize]);
        claims.capabilities.insert(resource, vec!["tinycloud.kv/get".into()]);
        Arc::new(ucan(&claims, &self.key).expect("a token").verify().expect("signed just now"))
    }

    async fn guest_may(&self, node: &Node, guest: u64) -> bool {
        let space = &self.spaces[(guest % 2) as usize];
        let mut claims = Claims::until(FAR);
        claims.proofs = vec![self.delegation(guest).address()];
        claims.capabilities.insert(format!("{space}/kv/a"), vec!["tinycloud.kv/get".into()]);
        let token = ucan(&claims, &Self::guest(guest)).expect("a token").verify().expect("signed just now");
        match node.authorize(space, &Arc::new(token), clock::now()).await {
            Ok(_) => true,
            Err(NodeError::Denied(_)) => false,
            Err(error) => panic!("guest {guest}: {error}"),
        }
    }

    /// The number of the value at a key, which must be whole.
    pub(super) async fn read(&self, node: &Node, space: usize, key: &str) -> Result<Option<u64>, NodeError> {
        let Lookup::Live(found) = node.lookup(&self.spaces[space], key).await? else { return Ok(None) };
        let bytes = match node.read(&self.spaces[space], &found).await? {
            Content::Whole(bytes, _) => bytes.to_vec(),
            Content::File(mut file, size) => {
                let mut bytes = Vec::new();
                tokio::io::AsyncReadExt::read_to_end(&mut file, &mut bytes).await.expect("readable");
                assert_eq!(bytes.len() as u64, size);
                bytes
            }
        };
        let words = String::from_utf8_lossy(&bytes[..bytes.len().min(40)]).into_owned();
        let number = words.strip_prefix("value ").and_then(|rest| rest.split(';').next()?.parse().ok());
        let number = number.unwrap_or_else(|| panic!("{key} holds what nobody sent: {words}"));
        assert!(bytes == value(number), "{key} holds a part of {number}");
        assert_eq!(found.value.blob, BlobHash::of(&bytes));
        Ok(Some(number))
    }

    /// Compares what the node has with what is known, and takes over what it has of what was open.
    pub(super) async fn check(&self, node: &Node) {
        let mut model = self.model().clone();
        for ((space, key), known) in &mut model.keys {
            let found = self.read(node, *space, key).await.unwrap_or_else(|error| panic!("{key}: {error}"));
            let is_possible = found == known.acknowledged || known.open == Some(found);
            assert!(is_possible, "{key} holds {found:?}, known is {known:?}");
            *known = Known { acknowledged: found, open: None };
        }
        for (at, space) in self.spaces.iter().enumerate() {
            let is_live = |(key, known): (&(usize, String), &Known)| {
                (key.0 == at && known.acknowledged.is_some()).then(|| key.1.clone())
            };
            let live: Vec<_> = model.keys.iter().filter_map(is_live).collect();
            assert_eq!(list(node, space).await, live);
            assert_eq!(node.frontier(space).await.expect("hosted").len(), 1, "one head");
        }
        for (guest, standing) in &mut model.guests {
            let may = self.guest_may(node, *guest).await;
            *standing = match (*standing, may) {
                (Guest::Asked | Guest::May | Guest::Ending, true) => Guest::May,
                (Guest::Ending | Guest::Ended, false) => Guest::Ended,
                (Guest::Asked, false) => Guest::Asked,
                (Guest::May, false) | (Guest::Ended, true) => panic!("guest {guest}: {standing:?}, but {may}"),
            };
        }
        *self.model() = model;
    }

    /// All that a client could ask, as text.
    pub(super) async fn answers(&self, node: &Node) -> Result<Vec<String>, NodeError> {
        let mut answers = Vec::new();
        for space in node.status(None, 10)?.spaces {
            answers.push(format!("{} {:?} {:?}", space.space, space.summary, space.frontier));
        }
        let (keys, guests): (Vec<_>, Vec<_>) = {
            let model = self.model();
            (model.keys.keys().cloned().collect(), model.guests.keys().copied().collect())
        };
        for (space, key) in keys {
            answers.push(format!("{key} {:?}", node.lookup(&self.spaces[space], &key).await?));
            answers.push(format!("{:?}", self.read(node, space, &key).await?));
        }
        for space in &self.spaces {
            answers.push(format!("{:?}", list(node, space).await));
        }
        for guest in guests {
            answers.push(format!("{guest} {}", self.guest_may(node, guest).await));
        }
        Ok(answers)
    }
}

async fn list(node: &Node, space: &SpaceId) -> Vec<String> {
    let query = ListQuery { path: String::new(), grants: Grants::Owner, after: None, limit: None };
    let page = node.list(space, &query).await.expect("listed");
    page.keys.iter().map(ToString::to_string).collect()
}

/// Fails the test at the first difference.
pub(super) fn same(found: &[String], expected: &[String]) {
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!(found, expected);
    }
    assert_eq!(found.len(), expected.len());
}
