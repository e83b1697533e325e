//! Making tokens: for clients, hosts and tests. Time and randomness are arguments.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use ed25519_dalek::{Signer, SigningKey};
use serde::Serialize;
use serde_json::{Value, json, value::RawValue};

use super::{
    Content, Token, TokenError, cacao,
    facts::{AFTER, CONTENT},
    recap::{self, Recap},
    signature::eip191_digest,
    siwe::Message,
    time, ucan as jwt,
};
use crate::id::{Address, Did, Millis};

/// What a UCAN says.
#[derive(Debug, Clone)]
pub struct Claims {
    /// Whom it addresses; `None` is the issuer itself, as in an invocation.
    pub audience: Option<Did>,
    /// From when on it holds.
    pub not_before: Option<Millis>,
    /// Until when it holds.
    pub expiry: Millis,
    /// What makes it differ from another with the same claims.
    pub nonce: Option<String>,
    /// The delegations it rests on.
    pub proofs: Vec<Address>,
    /// Abilities by resource.
    pub capabilities: BTreeMap<String, Vec<String>>,
    /// What its puts store, by the text of the resource.
    pub content: Option<BTreeMap<String, Content>>,
    /// The frontier the signer has seen, as `<space>/after/<epoch cid>`.
    pub after: Vec<String>,
    /// Further facts.
    pub facts: Vec<Value>,
}

impl Claims {
    /// Claims that only say until when they hold.
    #[must_use]
    pub fn until(expiry: Millis) -> Self {
        Self {
            audience: None,
            not_before: None,
            expiry,
            nonce: None,
            proofs: Vec::new(),
            capabilities: BTreeMap::new(),
            content: None,
            after: Vec::new(),
            facts: Vec::new(),
        }
    }

    fn all_facts(&self) -> Option<Vec<Value>> {
        let mut facts = self.facts.clone();
        facts.extend(self.content.as_ref().map(|content| json!({ CONTENT: content })));
        if !self.after.is_empty() {
            facts.push(json!({ AFTER: self.after }));
        }
        (!facts.is_empty()).then_some(facts)
    }
}

/// The payload, its members in the order the SDK writes them.
#[derive(Serialize)]
struct Payload<'a> {
    iss: String,
    aud: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    nbf: Option<Box<RawValue>>,
    exp: Box<RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nnc: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fct: Option<Vec<Value>>,
    prf: Vec<String>,
    att: BTreeMap<&'a str, BTreeMap<&'a str, Value>>,
}

impl Payload<'_> {
    fn encode(&self) -> String {
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).expect("maps with text keys are JSON"))
    }
}

/// Signs a UCAN.
///
/// # Errors
/// [`TokenError`] when the claims make no token: an ability that is none, facts in the wrong shape, or too much.
pub fn ucan(claims: &Claims, key: &SigningKey) -> Result<Token, TokenError> {
    let public = key.verifying_key().to_bytes();
    let issuer = Did::from_ed25519(&public);
    let fragment = issuer.as_str().strip_prefix("did:key:").expect("it was made as one");
    let payload = Payload {
        iss: format!("{issuer}#{fragment}"),
        aud: claims.audience.as_ref().unwrap_or(&issuer).as_str(),
        nbf: claims.not_before.map(seconds),
        exp: seconds(claims.expiry),
        nnc: claims.nonce.as_deref(),
        fct: claims.all_facts(),
        prf: claims.proofs.iter().map(Address::to_string).collect(),
        att: claims.capabilities.iter().map(|(resource, names)| (resource.as_str(), abilities(names))).collect(),
    };
    let x = URL_SAFE_NO_PAD.encode(public);
    let header = format!(
        r#"{{"alg":"EdDSA","jwk":{{"alg":"EdDSA","kty":"OKP","crv":"Ed25519","x":"{x}"}},"typ":"JWT","ucv":"0.10.0"}}"#
    );
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), payload.encode());
    let signature = URL_SAFE_NO_PAD.encode(key.sign(signed.as_bytes()).to_bytes());
    jwt::parse(Bytes::from(format!("{signed}.{signature}")))
}

fn abilities(names: &[String]) -> BTreeMap<&str, Value> {
    names.iter().map(|name| (name.as_str(), json!([{}]))).collect()
}

fn seconds(at: Millis) -> Box<RawValue> {
    RawValue::from_string(time::to_seconds(at)).expect("a decimal number is JSON")
}

/// A SIWE message with capabilities, for a wallet to sign.
#[derive(Debug, Clone)]
pub struct Siwe {
    /// Who asks for the signature: an authority such as `app.example:3000`.
    pub domain: String,
    /// The chain of the account; part of the owner's DID.
    pub chain_id: u64,
    /// The account.
    pub address: [u8; 20],
    /// Whom it addresses: a DID, or `ucan:<cid>` to revoke.
    pub uri: String,
    /// At least 8 letters and digits.
    pub nonce: String,
    /// When it was made.
    pub issued_at: Millis,
    /// Until when it holds.
    pub expiration: Option<Millis>,
    /// From when on it holds.
    pub not_before: Option<Millis>,
    /// What stands before the words of the capabilities.
    pub statement: Option<String>,
    /// Resources before the ReCap: `<space>/after/<epoch cid>` for the frontier the signer has seen.
    pub resources: Vec<String>,
    /// Abilities by resource.
    pub capabilities: BTreeMap<String, Vec<String>>,
    /// The delegations it rests on.
    pub proofs: Vec<Address>,
}

impl Siwe {
    /// The text for the wallet to show and sign.
    #[must_use]
    pub fn text(&self) -> String {
        let did = self.did();
        let address = did.as_str().rsplit_once(':').map_or("", |(_, address)| address);
        self.message().text(self.chain_id, address)
    }

    /// What the wallet signs: the EIP-191 digest of the text.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        eip191_digest(&self.text())
    }

    /// Puts message and signature together.
    ///
    /// # Errors
    /// [`TokenError`] when a field does not hold what it should.
    pub fn sign(&self, signature: [u8; 65]) -> Result<Token, TokenError> {
        cacao::parse(cacao::encode(self.message(), signature))
    }

    fn did(&self) -> Did {
        Did::from_eip155(self.chain_id, &self.address)
    }

    fn message(&self) -> Message {
        let recap = Recap::new(&self.capabilities, &self.proofs);
        let is_bare = self.capabilities.is_empty() && self.proofs.is_empty();
        // Abilities that are none have no words; the message is then refused when it is put together.
        let words = (!is_bare).then(|| recap::words(&recap.capabilities().unwrap_or_default()));
        let statement: Vec<String> = self.statement.iter().cloned().chain(words).collect();
        let mut resources = self.resources.clone();
        resources.extend((!is_bare).then(|| recap.to_resource()));
        Message {
            aud: self.uri.clone(),
            exp: self.expiration.map(time::to_rfc3339),
            iat: time::to_rfc3339(self.issued_at),
            iss: self.did().as_str().to_owned(),
            nbf: self.not_before.map(time::to_rfc3339),
            nonce: self.nonce.clone(),
            domain: self.domain.clone(),
            scheme: None,
            version: 1,
            resources,
            statement: (!statement.is_empty()).then(|| statement.join(" ")),
            request_id: None,
        }
    }
}
