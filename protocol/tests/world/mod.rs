//! Owners, sessions and hosts without IO: real cores over views in memory, for the tests of this crate.
#![allow(dead_code, reason = "each test binary uses its own part")]
#![allow(unreachable_pub, reason = "a module shared by test binaries")]

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use kvspace_protocol::{
    authority::Proof,
    capability::build::{Claims, ucan},
    epoch::SignedEpoch,
    id::{BlobHash, Did, EpochId, HostKey, Incarnation, Millis, SpaceId},
    kv::Condition,
    space::{CallId, CheckedEpoch, MemoryView, NewValue, Output, Refusal, Reply, Space, View, Write},
};

/// When every test begins.
pub const START_MS: i64 = 1_700_000_000_000;

pub fn hash(bytes: &[u8]) -> BlobHash {
    BlobHash::of(bytes)
}

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

pub fn did(key: &SigningKey) -> Did {
    Did::from_ed25519(&key.verifying_key().to_bytes())
}

fn verified(claims: &Claims, key: &SigningKey) -> Proof {
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

    fn claims(&self) -> Claims {
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
pub fn revocation(
    key: &SigningKey,
    space: &SpaceId,
    target: &Proof,
    after: &[EpochId],
    proofs: Vec<kvspace_protocol::id::Address>,
) -> Proof {
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

/// One host of one space; every commit is durable at once.
pub struct Host {
    pub key: SigningKey,
    pub core: Space,
    pub view: MemoryView,
    /// What is durable, in log order.
    pub log: Vec<SignedEpoch>,
    pub now_ms: i64,
    space: SpaceId,
    incarnations: u64,
    calls: u64,
    replies: BTreeMap<CallId, Result<Reply, Refusal>>,
    pub refused: Vec<EpochId>,
}

impl Host {
    pub fn new(owner: &Owner, seed: u8) -> Self {
        let key = key(seed);
        Self {
            core: Space::new(owner.space.clone(), key.clone(), Incarnation([seed; 8])),
            key,
            view: MemoryView::default(),
            log: Vec::new(),
            now_ms: START_MS,
            space: owner.space.clone(),
            incarnations: u64::from(seed) << 32,
            calls: 0,
            replies: BTreeMap::new(),
            refused: Vec::new(),
        }
    }

    pub fn did(&self) -> Did {
        did(&self.key)
    }

    pub fn host_key(&self) -> HostKey {
        HostKey(self.key.verifying_key().to_bytes())
    }

    fn now(&self) -> Millis {
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
                    self.log.extend(commit.epochs);
                    commit.changes.iter().for_each(|change| self.view.absorb(change));
                    self.core.handle_committed(self.now(), &self.view).expect("the view reads");
                }
                Output::Reply(call, reply) => {
                    assert!(self.replies.insert(call, reply).is_none(), "a call is answered once");
                }
                Output::Refused(id, _) => self.refused.push(id),
                Output::Access(_) => {}
            }
        }
    }

    fn answer(&mut self, call: CallId) -> Result<Reply, Refusal> {
        self.settle();
        self.replies.remove(&call).expect("answered")
    }

    pub fn take_token(&mut self, token: Proof) -> Result<Reply, Refusal> {
        let call = self.call();
        self.core.handle_token(self.now(), &self.view, call, token, vec![]).expect("the view reads");
        self.answer(call)
    }

    pub fn write(&mut self, write: Write) -> Result<Reply, Refusal> {
        let call = self.call();
        self.core.handle_invocation(self.now(), &self.view, call, write).expect("the view reads");
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
        let checked: Vec<_> =
            epochs.into_iter().map(|signed| CheckedEpoch::check(signed).expect("well formed")).collect();
        self.core.handle_epochs(self.now(), &self.view, checked).expect("the view reads");
        self.settle();
    }

    /// Ends the process: a new core from the log, in a new incarnation.
    pub fn reopen(&mut self) {
        self.incarnations += 1;
        self.core = Space::new(self.space.clone(), self.key.clone(), Incarnation(self.incarnations.to_be_bytes()));
        self.view = MemoryView::default();
        for signed in &self.log {
            let checked = CheckedEpoch::trusted(signed.clone(), self.host_key()).expect("our own log");
            let changes = self.core.replay(&self.view, &checked).expect("our own log");
            changes.iter().for_each(|change| self.view.absorb(change));
        }
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
}
