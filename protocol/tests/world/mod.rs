//! Owners, sessions and hosts without IO: real cores over views in memory, for the tests of this crate.
#![allow(dead_code, reason = "each test binary uses its own part")]
#![allow(unreachable_pub, reason = "a module shared by test binaries")]
#![allow(clippy::unwrap_in_result, reason = "a test may panic")]

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use kvspace_protocol::{
    authority::{AccessChange, Proof},
    capability::build::{Claims, ucan},
    dag::Place,
    epoch::{Epoch, Event, Header, SignedEpoch},
    id::{Address, BlobHash, BodyId, Did, EpochId, HostKey, Incarnation, Millis, SpaceId},
    kv::{Condition, Operation, Value, Version},
    space::{
        Arrived, CallId, CheckedEpoch, Commit, Held, Invalid, Logged, MemoryView, NewValue, Output, Preview, Refusal,
        Reply, Space, Taken, View, Write,
    },
};

/// When every test begins.
pub const START_MS: i64 = 1_700_000_000_000;

pub fn hash(bytes: &[u8]) -> BlobHash {
    BlobHash::of(bytes)
}

pub fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

pub fn did(key: &SigningKey) -> Did {
    Did::from_ed25519(&key.verifying_key().to_bytes())
}

pub fn verified(claims: &Claims, key: &SigningKey) -> Proof {
    Arc::new(ucan(claims, key).expect("claims make a token").verify().expect("signed just now"))
}

/// The owner of one space.
pub struct Owner {
    pub key: SigningKey,
    pub space: SpaceId,
}

/// A session key with its delegation.
#[derive(Clone)]
pub struct Session {
    pub key: SigningKey,
    pub space: SpaceId,
    pub delegation: Proof,
    pub nonce: std::rc::Rc<std::cell::Cell<u64>>,
}

impl Owner {
    pub fn new(seed: u8) -> Self {
        let key = key(seed);
        let space = SpaceId::new(&did(&key), "default").expect("a space id");
        Self { key, space }
    }

    pub fn claims(&self) -> Claims {
        Claims::until(Millis(START_MS + 86_400_000))
    }

    pub fn host_delegation(&self, host: &Did) -> Proof {
        let mut claims = self.claims();
        claims.audience = Some(host.clone());
        claims.capabilities.insert(format!("{}/space", self.space), vec!["tinycloud.space/host".into()]);
        verified(&claims, &self.key)
    }

    pub fn session(&self, seed: u8) -> Session {
        let key = key(seed);
        let mut claims = self.claims();
        claims.audience = Some(did(&key));
        let abilities = ["del", "get", "list", "metadata", "put"].map(|name| format!("tinycloud.kv/{name}"));
        claims.capabilities.insert(format!("{}/kv", self.space), abilities.into());
        let delegation = verified(&claims, &self.key);
        Session { key, space: self.space.clone(), delegation, nonce: std::rc::Rc::default() }
    }

    pub fn revoke(&self, target: &Proof, after: &[EpochId]) -> Proof {
        revocation(&self.key, &self.space, target, after, vec![])
    }
}

/// A revocation signed by `key`.
pub fn revocation(key: &SigningKey, space: &SpaceId, target: &Proof, after: &[EpochId], proofs: Vec<Address>) -> Proof {
    let mut claims = Claims::until(Millis(START_MS + 86_400_000));
    claims.capabilities.insert(format!("urn:cid:{}", target.address()), vec!["tinycloud.delegation/revoke".into()]);
    claims.after = after.iter().map(|id| format!("{space}/after/{id}")).collect();
    claims.proofs = proofs;
    verified(&claims, key)
}

impl Session {
    /// Hands the session's whole access on to another key.
    pub fn delegate(&self, seed: u8) -> Session {
        let key = key(seed);
        let mut claims = Claims::until(Millis(START_MS + 86_400_000));
        claims.audience = Some(did(&key));
        claims.capabilities.insert(format!("{}/kv", self.space), vec!["tinycloud.kv/put".into()]);
        claims.proofs = vec![self.delegation.address()];
        let delegation = verified(&claims, &self.key);
        Session { key, delegation, ..self.clone() }
    }

    pub fn invocation(&self, path: &str, ability: &str, expiry_ms: i64, after: &[EpochId]) -> Proof {
        self.nonce.set(self.nonce.get() + 1);
        let mut claims = Claims::until(Millis(expiry_ms));
        claims.nonce = Some(format!("n{}", self.nonce.get()));
        claims.proofs = vec![self.delegation.address()];
        claims.capabilities.insert(format!("{}/kv/{path}", self.space), vec![format!("tinycloud.kv/{ability}")]);
        claims.after = after.iter().map(|id| format!("{}/after/{id}", self.space)).collect();
        verified(&claims, &self.key)
    }

    pub fn put_write(&self, host: &Host, path: &str, bytes: &[u8]) -> Write {
        let token = self.invocation(path, "put", host.now_ms + 60_000, &[]);
        write(token, Some(bytes))
    }

    pub fn del_write(&self, host: &Host, path: &str) -> Write {
        write(self.invocation(path, "del", host.now_ms + 60_000, &[]), None)
    }
}

pub fn write(token: Proof, bytes: Option<&[u8]>) -> Write {
    let value = bytes.map(|bytes| NewValue {
        blob: hash(bytes),
        size: bytes.len() as u64,
        meta: BTreeMap::new(),
        inline: Some(Bytes::copy_from_slice(bytes)),
    });
    Write { token, authorized_at: u64::MAX, borrowed: vec![], value, condition: Condition::Always }
}

/// One host of one space. A commit is durable at once, unless the disk is slow.
pub struct Host {
    pub key: SigningKey,
    pub core: Space,
    pub view: MemoryView,
    /// What is durable, in log order.
    pub log: Vec<SignedEpoch>,
    pub now_ms: i64,
    /// Commits stay out until `finish`.
    pub slow: bool,
    /// The commit that is out.
    pub out: Option<Commit>,
    space: SpaceId,
    incarnations: u64,
    calls: u64,
    replies: BTreeMap<CallId, Result<Reply, Refusal>>,
    pub refused: Vec<(EpochId, Invalid)>,
    /// The answers to deliveries.
    pub taken: BTreeMap<CallId, Taken>,
    /// What became durable with each commit.
    pub commits: Vec<Vec<Logged>>,
    /// What was published.
    pub published: Vec<AccessChange>,
}

impl Host {
    pub fn new(owner: &Owner, seed: u8) -> Self {
        Self::with_key(owner, key(seed), seed)
    }

    /// The owner's own key as a host.
    pub fn owner(owner: &Owner) -> Self {
        Self::with_key(owner, owner.key.clone(), 0xff)
    }

    fn with_key(owner: &Owner, key: SigningKey, seed: u8) -> Self {
        Self {
            core: Space::new(owner.space.clone(), key.clone(), Incarnation([seed; 8])),
            key,
            view: MemoryView::default(),
            log: Vec::new(),
            now_ms: START_MS,
            slow: false,
            out: None,
            space: owner.space.clone(),
            incarnations: u64::from(seed) << 32,
            calls: 0,
            replies: BTreeMap::new(),
            refused: Vec::new(),
            taken: BTreeMap::new(),
            commits: Vec::new(),
            published: Vec::new(),
        }
    }

    /// A host that the owner names and whose space is created.
    pub fn hosting(owner: &Owner, seed: u8) -> Self {
        let mut host = Self::new(owner, seed);
        host.take_token(owner.host_delegation(&host.did())).expect("the space is created");
        host
    }

    pub fn did(&self) -> Did {
        did(&self.key)
    }

    pub fn host_key(&self) -> HostKey {
        HostKey(self.key.verifying_key().to_bytes())
    }

    pub fn now(&self) -> Millis {
        Millis(self.now_ms)
    }

    fn call(&mut self) -> CallId {
        self.calls += 1;
        CallId(self.calls)
    }

    /// Does what the core asks for until it asks for nothing more.
    pub fn settle(&mut self) {
        while let Some(output) = self.core.poll_output() {
            match output {
                Output::Commit(commit) => {
                    assert!(self.out.replace(commit).is_none(), "one commit is out at a time");
                    if !self.slow {
                        self.finish();
                    }
                }
                Output::Reply(call, reply) => {
                    assert!(reply.is_err() || self.out.is_none(), "nothing is acknowledged before it is durable");
                    assert!(self.replies.insert(call, reply).is_none(), "a call is answered once");
                }
                Output::Refused(id, why) => self.refused.push((id, why)),
                Output::Access(change) => self.published.push(change),
                Output::Taken(call, taken) => {
                    assert!(self.taken.insert(call, taken).is_none(), "a delivery is answered once");
                }
            }
        }
    }

    /// The commit that is out becomes durable.
    pub fn finish(&mut self) {
        let commit = self.out.take().expect("a commit is out");
        self.log.extend(commit.epochs.iter().map(|logged| logged.signed.clone()));
        self.commits.push(commit.epochs);
        commit.changes.iter().for_each(|change| self.view.absorb(change));
        self.core.handle_committed(self.now(), &self.view).expect("the batch is sound");
        self.settle();
    }

    /// Lets the disk be fast again and everything become durable.
    pub fn finish_all(&mut self) {
        self.slow = false;
        if self.out.is_some() {
            self.finish();
        }
        self.settle();
    }

    pub fn reply(&mut self, call: CallId) -> Option<Result<Reply, Refusal>> {
        self.replies.remove(&call)
    }

    fn answer(&mut self, call: CallId) -> Result<Reply, Refusal> {
        self.reply(call).unwrap_or_else(|| panic!("call {call:?} is not answered"))
    }

    pub fn send_token(&mut self, token: Proof, borrowed: Vec<Proof>) -> CallId {
        let call = self.call();
        self.core.handle_token(self.now(), &self.view, call, token, borrowed).expect("the batch is sound");
        self.settle();
        call
    }

    pub fn send(&mut self, write: Write) -> CallId {
        let call = self.call();
        self.core.handle_invocation(self.now(), &self.view, call, write).expect("the batch is sound");
        self.settle();
        call
    }

    /// What a revocation would void.
    pub fn preview(&self, token: &Proof, max: usize) -> Result<Preview, Refusal> {
        self.core.preview(self.now(), &self.view, token, vec![], max).expect("the batch is sound")
    }

    pub fn take_token(&mut self, token: Proof) -> Result<Reply, Refusal> {
        let call = self.send_token(token, vec![]);
        self.answer(call)
    }

    pub fn write(&mut self, write: Write) -> Result<Reply, Refusal> {
        let call = self.send(write);
        self.answer(call)
    }

    pub fn put(&mut self, session: &Session, path: &str, bytes: &[u8]) -> Result<Reply, Refusal> {
        let write = session.put_write(self, path, bytes);
        self.write(write)
    }

    pub fn delete(&mut self, session: &Session, path: &str) -> Result<Reply, Refusal> {
        let write = session.del_write(self, path);
        self.write(write)
    }

    pub fn receive(&mut self, epochs: impl IntoIterator<Item = SignedEpoch>) {
        let checked = epochs.into_iter().map(|signed| CheckedEpoch::check(signed).expect("well formed"));
        self.receive_checked(checked.collect::<Vec<_>>());
    }

    pub fn receive_checked(&mut self, epochs: impl IntoIterator<Item = CheckedEpoch>) {
        let arrived = |checked| Arrived { checked, values: Vec::new(), told: BTreeSet::new() };
        let call = self.deliver(epochs.into_iter().map(arrived).collect());
        assert!(self.out.is_some() || self.taken.contains_key(&call), "a delivery is answered");
    }

    pub fn deliver(&mut self, epochs: Vec<Arrived>) -> CallId {
        self.deliver_from(None, epochs)
    }

    pub fn deliver_from(&mut self, from: Option<HostKey>, epochs: Vec<Arrived>) -> CallId {
        let call = self.call();
        self.core.handle_epochs(self.now(), &self.view, call, from, epochs).expect("the batch is sound");
        self.settle();
        call
    }

    /// Time passes.
    pub fn wait(&mut self, delay_ms: i64) {
        self.now_ms += delay_ms;
        self.core.handle_timeout(self.now(), &self.view).expect("the batch is sound");
        self.settle();
    }

    /// Ends the process: a new core from the log, in a new incarnation. What is out is lost.
    pub fn reopen(&mut self) {
        self.incarnations += 1;
        self.open(Incarnation(self.incarnations.to_be_bytes()));
    }

    pub fn open(&mut self, incarnation: Incarnation) {
        self.out = None;
        self.core = Space::new(self.space.clone(), self.key.clone(), incarnation);
        self.view = MemoryView::default();
        for signed in &self.log {
            let checked = CheckedEpoch::trusted(signed.clone()).expect("our own log");
            let replay = self.core.replay(&self.view, [&checked]).expect("the view reads");
            assert!(replay.passed_over.is_empty(), "our own log");
            replay.changes.iter().for_each(|change| self.view.absorb(change));
        }
        let reopened = self.reopened(incarnation);
        let replayed = std::mem::replace(&mut self.core, reopened);
        assert_eq!(replayed.dag().heads(), self.core.dag().heads());
        assert_eq!(replayed.dag().forks(), self.core.dag().forks());
        assert_eq!(replayed.dag().branches(), self.core.dag().branches());
        for key in self.view.keys() {
            for operation in self.view.history(key).expect("the view reads") {
                assert_eq!(replayed.is_void(&operation), self.core.is_void(&operation));
            }
        }
    }

    /// The core as it is opened without the log's operations, from what the index has kept.
    fn reopened(&self, incarnation: Incarnation) -> Space {
        let checked = |signed: &SignedEpoch| CheckedEpoch::trusted(signed.clone()).expect("our own log");
        let mut held = Held { branches: self.view.branches().to_vec(), ..Held::default() };
        let at: BTreeMap<Place, &SignedEpoch> = self.log.iter().map(|signed| (self.place(signed), signed)).collect();
        for (address, places) in self.view.delegations() {
            let (first, event) = places[0];
            let token = checked(at[&first]).token(event).expect("it stands there").clone();
            assert_eq!(token.address(), *address);
            held.delegations.push((token, places.iter().map(|(place, _)| *place).collect()));
        }
        let revoking = self.log.iter().filter(|signed| self.view.revoking().contains(&id(signed)));
        held.revoking.extend(revoking.map(checked));
        Space::reopen(self.space.clone(), self.key.clone(), incarnation, held, &self.view).expect("index and log agree")
    }

    fn place(&self, signed: &SignedEpoch) -> Place {
        self.view.epoch(&id(signed)).expect("the view reads").expect("it is held").place
    }

    pub fn frontier(&self) -> Vec<EpochId> {
        self.core.dag().frontier().collect()
    }

    pub fn live(&self, path: &str) -> Option<BlobHash> {
        let winner = self.view.winner(path).expect("the view reads")?;
        winner.effect.value().map(|value| value.blob)
    }

    /// Every key with its live value.
    pub fn entries(&self) -> BTreeMap<String, BlobHash> {
        let live =
            self.view.entries(None).filter_map(|(key, winner)| Some((key.to_string(), winner.effect.value()?.blob)));
        live.collect()
    }

    /// Every key's winner, tombstones included.
    pub fn winners(&self) -> BTreeMap<String, (Version, Option<BlobHash>)> {
        let blob = |winner: &Operation| winner.effect.value().map(|value| value.blob);
        self.view.entries(None).map(|(key, winner)| (key.to_string(), (winner.version, blob(winner)))).collect()
    }

    /// Every operation that is not dead, and whether it is void.
    pub fn operations(&self) -> BTreeMap<(String, Version), bool> {
        let histories = self.view.keys().flat_map(|key| self.view.history(key).expect("the view reads"));
        histories.map(|op| ((op.key.to_string(), op.version), self.core.is_void(&op))).collect()
    }
}

/// Somebody who makes epochs by hand.
pub struct Forger {
    pub key: SigningKey,
    pub space: SpaceId,
    pub proof: Option<Address>,
}

/// An epoch to be made by hand.
#[derive(Clone, Default)]
pub struct Draft {
    pub incarnation: u64,
    pub n: u64,
    pub prev: Option<EpochId>,
    pub parents: Vec<EpochId>,
    pub seq: u64,
    pub events: Vec<Event>,
}

impl Forger {
    pub fn new(owner: &Owner, seed: u8) -> Self {
        let key = key(seed);
        let proof = owner.host_delegation(&did(&key)).address();
        Self { key, space: owner.space.clone(), proof: Some(proof) }
    }

    pub fn did(&self) -> Did {
        did(&self.key)
    }

    pub fn epoch(&self, draft: Draft) -> SignedEpoch {
        let mut parents = draft.parents;
        parents.sort_unstable();
        parents.dedup();
        parents.retain(|parent| Some(*parent) != draft.prev);
        let header = Header {
            v: 1,
            space: self.space.clone(),
            host: HostKey(self.key.verifying_key().to_bytes()),
            proof: self.proof,
            incarnation: Incarnation(draft.incarnation.to_be_bytes()),
            n: draft.n,
            prev: draft.prev,
            parents,
            seq: draft.seq,
            body: BodyId([0; 32]),
        };
        Epoch::sign(header, draft.events, &self.key).expect("well formed").signed
    }
}

pub fn id(signed: &SignedEpoch) -> EpochId {
    EpochId::of(&signed.header)
}

pub fn seq(signed: &SignedEpoch) -> u64 {
    Epoch::decode_unsigned(signed.clone()).expect("well formed").header.seq
}

/// The clock of an epoch made at this time.
pub fn clock(at_ms: i64) -> u64 {
    u64::try_from(at_ms).expect("after 1970") << 16
}

pub fn event(token: &Proof) -> Event {
    Event { token: token.bytes().to_vec(), values: vec![] }
}

pub fn put_event(token: &Proof, bytes: &[u8]) -> Event {
    let value = Value { blob: hash(bytes), size: bytes.len() as u64, meta: BTreeMap::new() };
    Event { token: token.bytes().to_vec(), values: vec![value] }
}

impl Host {
    /// Has a put of this key in flight, so that what follows is queued.
    pub fn put_and_wait(&mut self, session: &Session, path: &str) {
        let put = session.put_write(self, path, b"in flight");
        self.send(put);
        assert!(self.out.is_some());
    }
}
