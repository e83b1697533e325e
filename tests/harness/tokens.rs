//! Owners, sessions, and what they sign: right, and wrong in every way.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ed25519_dalek::{Signer as _, SigningKey};
use kvspace_client::{Address, Did, EthereumKey, Millis, SpaceId, Token};
use kvspace_protocol::capability::{
    Content,
    build::{Claims, Siwe, ucan},
};
use serde_json::Value;

use super::{Node, Request, Response, get, post};

pub(crate) const GET: &str = "tinycloud.kv/get";
pub(crate) const PUT: &str = "tinycloud.kv/put";
pub(crate) const DEL: &str = "tinycloud.kv/del";
pub(crate) const LIST: &str = "tinycloud.kv/list";
pub(crate) const METADATA: &str = "tinycloud.kv/metadata";
pub(crate) const HOST: &str = "tinycloud.space/host";
pub(crate) const REVOKE: &str = "tinycloud.delegation/revoke";
pub(crate) const ALL: [&str; 5] = [GET, PUT, DEL, LIST, METADATA];

const MINUTE_MS: i64 = 60_000;

/// The time.
pub(crate) fn now() -> Millis {
    kvspace_client::clock::now()
}

fn nonce() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    format!("test{:08}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// What is signed, before it is: for both kinds of token.
#[derive(Debug, Clone)]
pub(crate) struct Statement {
    pub(crate) audience: Option<String>,
    pub(crate) capabilities: Vec<(String, Vec<String>)>,
    pub(crate) proofs: Vec<Address>,
    pub(crate) not_before: Option<Millis>,
    pub(crate) expiry: Option<Millis>,
    pub(crate) after: Vec<String>,
    /// What its puts store.
    pub(crate) content: Option<BTreeMap<String, Content>>,
}

impl Statement {
    /// Something that is good for a minute.
    pub(crate) fn new(capabilities: impl IntoIterator<Item = (String, Vec<String>)>) -> Self {
        Self {
            audience: None,
            capabilities: capabilities.into_iter().collect(),
            proofs: Vec::new(),
            not_before: None,
            expiry: Some(now().plus(MINUTE_MS)),
            after: Vec::new(),
            content: None,
        }
    }

    /// One ability, or several, on one resource.
    pub(crate) fn of(resource: impl Into<String>, abilities: &[&str]) -> Self {
        Self::new([(resource.into(), abilities.iter().map(ToString::to_string).collect())])
    }

    pub(crate) fn and(mut self, resource: impl Into<String>, ability: &str) -> Self {
        self.capabilities.push((resource.into(), vec![ability.into()]));
        self
    }

    pub(crate) fn to(self, audience: &Did) -> Self {
        Self { audience: Some(audience.as_str().to_owned()), ..self }
    }

    pub(crate) fn resting_on(mut self, proof: &Token) -> Self {
        self.proofs.push(proof.address());
        self
    }

    /// From and until when, from now, in milliseconds.
    pub(crate) fn within(self, from_ms: i64, until_ms: i64) -> Self {
        Self { not_before: Some(now().plus(from_ms)), ..self.until(until_ms) }
    }

    /// Until when, from now, in milliseconds.
    pub(crate) fn until(self, until_ms: i64) -> Self {
        Self { expiry: Some(now().plus(until_ms)), ..self }
    }

    /// A UCAN of it.
    pub(crate) fn sign(&self, key: &SigningKey) -> Token {
        let claims = Claims {
            audience: self.audience.as_ref().map(|audience| audience.parse().expect("a DID")),
            not_before: self.not_before,
            nonce: Some(nonce()),
            proofs: self.proofs.clone(),
            capabilities: self.capabilities.iter().cloned().collect(),
            after: self.after.clone(),
            content: self.content.clone(),
            ..Claims::until(self.expiry.expect("a UCAN ends"))
        };
        ucan(&claims, key).expect("claims make a token")
    }

    /// A CACAO of it.
    pub(crate) fn sign_in(&self, wallet: &EthereumKey) -> Token {
        let siwe = self.siwe(wallet);
        siwe.sign(wallet.sign_personal(&siwe.text())).expect("a message makes a token")
    }

    pub(crate) fn siwe(&self, wallet: &EthereumKey) -> Siwe {
        Siwe {
            domain: "app.example".into(),
            chain_id: wallet.chain(),
            address: wallet.address(),
            uri: self.audience.clone().expect("a message names whom it is for"),
            nonce: nonce(),
            issued_at: now(),
            expiration: self.expiry,
            not_before: self.not_before,
            statement: None,
            resources: self.after.clone(),
            capabilities: self.capabilities.iter().cloned().collect(),
            proofs: self.proofs.clone(),
        }
    }
}

/// Whom a space belongs to.
#[derive(Clone)]
pub(crate) enum Owner {
    /// An Ethereum account.
    Wallet(EthereumKey),
    /// A did:key.
    Key(SigningKey),
}

impl Owner {
    pub(crate) fn wallet(seed: u8) -> Self {
        Self::Wallet(EthereumKey::from_secret(&[seed; 32], 1).expect("a secret in range"))
    }

    pub(crate) fn key(seed: u8) -> Self {
        Self::Key(SigningKey::from_bytes(&[seed; 32]))
    }

    pub(crate) fn did(&self) -> Did {
        match self {
            Self::Wallet(wallet) => wallet.did(),
            Self::Key(key) => did(key),
        }
    }

    pub(crate) fn space(&self, name: &str) -> SpaceId {
        SpaceId::new(&self.did(), name).expect("a space id")
    }

    pub(crate) fn sign(&self, statement: &Statement) -> Token {
        match self {
            Self::Wallet(wallet) => statement.sign_in(wallet),
            Self::Key(key) => statement.sign(key),
        }
    }

    /// The word that a host serves a space.
    pub(crate) fn host(&self, space: &SpaceId, host: &Did) -> Token {
        self.sign(&Statement::of(format!("{space}/space"), &[HOST]).to(host).until(1000 * MINUTE_MS))
    }

    /// The end of a delegation.
    pub(crate) fn revocation(&self, target: &Token) -> Token {
        let cid = target.address();
        match self {
            Self::Wallet(wallet) => {
                let mut statement = Statement::new([]);
                statement.audience = Some(format!("ucan:{cid}"));
                statement.sign_in(wallet)
            }
            Self::Key(key) => revocation(key, target),
        }
    }

    /// The end of a delegation, which keeps what these epochs have seen.
    pub(crate) fn revocation_after(&self, space: &SpaceId, target: &Token, seen: &[String]) -> Token {
        let Self::Wallet(wallet) = self else { panic!("only wallets do so here") };
        let mut statement = Statement::new([]);
        statement.audience = Some(format!("ucan:{}", target.address()));
        statement.after = seen.iter().map(|epoch| format!("{space}/after/{epoch}")).collect();
        statement.sign_in(wallet)
    }

    /// Makes the node host a space, and opens a session that may do everything with its values.
    pub(crate) fn open(&self, node: &Node, name: &str) -> Session {
        let space = self.space(name);
        let answer = delegate(node, &self.host(&space, &node.did())).expect(200).json();
        assert_eq!(answer["activated"][0], space.as_str());
        self.session(node, &space, &format!("{space}/kv"), &ALL)
    }

    /// A session with these abilities on one resource.
    pub(crate) fn session(&self, node: &Node, space: &SpaceId, resource: &str, abilities: &[&str]) -> Session {
        let key = new_key();
        let statement = Statement::of(resource, abilities).to(&did(&key)).until(100 * MINUTE_MS);
        let delegation = self.sign(&statement);
        delegate(node, &delegation).expect(200);
        Session { key, space: space.clone(), delegation: Some(delegation) }
    }
}

/// A revocation by a key, as the SDK writes it, without a proof.
pub(crate) fn revocation(key: &SigningKey, target: &Token) -> Token {
    Statement::of(format!("urn:cid:{}", target.address()), &[REVOKE]).sign(key)
}

/// A key that nothing else has.
pub(crate) fn new_key() -> SigningKey {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    SigningKey::from_bytes(blake3::hash(format!("test key {number}").as_bytes()).as_bytes())
}

pub(crate) fn did(key: &SigningKey) -> Did {
    Did::from_ed25519(key.verifying_key().as_bytes())
}

/// Posts a delegation.
pub(crate) fn delegate(node: &Node, token: &Token) -> Response {
    node.ask(&post("/delegate").token(token.to_header()))
}

/// Posts a revocation.
pub(crate) fn revoke(node: &Node, token: &Token) -> Response {
    node.ask(&post("/revoke").token(token.to_header()))
}

/// A key that acts in a space: by a delegation, or as its owner.
#[derive(Clone)]
pub(crate) struct Session {
    pub(crate) key: SigningKey,
    pub(crate) space: SpaceId,
    pub(crate) delegation: Option<Token>,
}

impl Session {
    /// The owner itself, if that is a key.
    pub(crate) fn of_owner(owner: &Owner, space: &SpaceId) -> Self {
        let Owner::Key(key) = owner else { panic!("a wallet signs no invocations") };
        Self { key: key.clone(), space: space.clone(), delegation: None }
    }

    pub(crate) fn did(&self) -> Did {
        did(&self.key)
    }

    pub(crate) fn delegation(&self) -> &Token {
        self.delegation.as_ref().expect("a session rests on a delegation")
    }

    /// The resource of a value.
    pub(crate) fn kv(&self, path: &str) -> String {
        format!("{}/kv/{path}", self.space)
    }

    /// An invocation of one ability on one value, not signed yet.
    pub(crate) fn wants(&self, ability: &str, path: &str) -> Statement {
        let statement = Statement::of(self.kv(path), &[ability]);
        match &self.delegation {
            Some(delegation) => statement.resting_on(delegation),
            None => statement,
        }
    }

    /// The request of one ability on one value.
    pub(crate) fn invoke(&self, ability: &str, path: &str) -> Request {
        self.request(&self.wants(ability, path))
    }

    pub(crate) fn request(&self, statement: &Statement) -> Request {
        post("/invoke").token(statement.sign(&self.key).to_header())
    }

    /// Passes a part of what it may on to another key.
    pub(crate) fn pass_on(&self, node: &Node, path: &str, abilities: &[&str]) -> Self {
        let key = new_key();
        let mut statement = Statement::of(self.kv(path), abilities).to(&did(&key)).resting_on(self.delegation());
        statement.expiry = self.delegation().expiry();
        let delegation = statement.sign(&self.key);
        delegate(node, &delegation).expect(200);
        Self { key, space: self.space.clone(), delegation: Some(delegation) }
    }

    pub(crate) fn put(&self, node: &Node, path: &str, value: impl Into<Vec<u8>>) -> Response {
        node.ask(&self.invoke(PUT, path).body(value))
    }

    pub(crate) fn get(&self, node: &Node, path: &str) -> Response {
        node.ask(&self.invoke(GET, path))
    }

    pub(crate) fn del(&self, node: &Node, path: &str) -> Response {
        node.ask(&self.invoke(DEL, path))
    }

    pub(crate) fn list(&self, node: &Node, path: &str) -> Vec<String> {
        node.ask(&self.invoke(LIST, path)).keys()
    }

    /// The heads of the space's log.
    pub(crate) fn frontier(&self, node: &Node) -> Response {
        let token = self.wants(LIST, "").sign(&self.key);
        node.ask(&get(&format!("/v0/frontier?space={}", self.space)).token(token.to_header()))
    }
}

/// The entity tag of a value.
pub(crate) fn etag_of(value: &[u8]) -> String {
    format!("\"blake3-{}\"", blake3::hash(value))
}

/// A JWT put together by hand: any header, any payload, signed as it is.
pub(crate) fn jwt(header: &Value, payload: &Value, key: &SigningKey) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(header), part(payload));
    let signature = URL_SAFE_NO_PAD.encode(key.sign(signed.as_bytes()).to_bytes());
    format!("{signed}.{signature}")
}

/// Header and payload of a JWT.
pub(crate) fn parts(token: &Token) -> (Value, Value) {
    let text = token.to_header();
    let mut parts = text.split('.').map(|part| URL_SAFE_NO_PAD.decode(part).expect("base64"));
    let mut next = || serde_json::from_slice(&parts.next().expect("three parts")).expect("JSON");
    (next(), next())
}
