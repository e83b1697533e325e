//! The token: what a signed statement says, whichever of the two forms it has.

use std::{collections::BTreeMap, ops::Deref};

use bytes::Bytes;
use serde_json::Value;

use super::{
    Capability, Content, InvalidSignature, TokenError, cacao,
    facts::Facts,
    signature::{KnownKeys, Signature},
    ucan,
};
use crate::id::{Address, Did, EpochId, Identity, Millis, SpaceId};

/// A parsed token whose signature has not been checked yet.
///
/// Both forms read into the same nouns: a CACAO (`eip4361`, signed by an Ethereum wallet) and a UCAN JWT (version
/// 0.10.0, signed by an Ed25519 did:key). Equality is equality of the stored bytes.
#[derive(Debug, Clone)]
pub struct Token {
    pub(super) form: Form,
    pub(super) bytes: Bytes,
    pub(super) identity: Identity,
    pub(super) role: Role,
    pub(super) signature: Signature,
    pub(super) issuer: Did,
    pub(super) audience: Audience,
    pub(super) capabilities: Vec<Capability>,
    pub(super) proofs: Vec<Address>,
    pub(super) not_before: Option<Millis>,
    pub(super) expiry: Option<Millis>,
    pub(super) facts: Facts,
}

/// Which of the two encodings a token has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Cacao,
    Ucan,
}

/// What a token is for. It follows from the token alone: the log keeps no kind beside it, and no host may take in as a
/// write what was signed as a delegation.
///
/// - A **revocation** is a CACAO whose audience is `ucan:<cid>`, or a UCAN addressed to its own issuer that has the
///   ability `tinycloud.delegation/revoke`. Its target is that CID; of a UCAN the first resource `urn:cid:<cid>` with
///   that ability, in byte order, and failing that the first proof. With neither it is an invocation.
/// - An **invocation** is any other UCAN addressed to its own issuer.
/// - A **delegation** is everything else.
///
/// Fragments of DID URLs do not count. Reads, which no log keeps, may be accepted with any audience.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Grants its capabilities to its audience.
    Delegation,
    /// Uses its capabilities.
    Invocation,
    /// Ends a delegation.
    Revocation {
        /// The delegation it ends.
        target: Address,
    },
}

/// Whom a token addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Audience {
    pub(super) text: String,
    pub(super) did: Option<Did>,
}

impl Audience {
    pub(super) fn of_did(did: Did) -> Self {
        Self { text: did.as_str().to_owned(), did: Some(did) }
    }

    pub(super) fn of_uri(uri: &str) -> Self {
        let text = uri.split_once('#').map_or(uri, |(before, _)| before);
        text.parse().map_or_else(|_| Self { text: text.to_owned(), did: None }, Self::of_did)
    }
}

/// The proofs in the order given, each once.
pub(super) fn distinct(proofs: Vec<Address>) -> Vec<Address> {
    let mut seen = std::collections::BTreeSet::new();
    proofs.into_iter().filter(|proof| seen.insert(*proof)).collect()
}

impl Token {
    /// Reads the value of an `Authorization` header: a JWT if there is a dot in it, else a CACAO in padded base64url.
    ///
    /// # Errors
    /// [`TokenError`] when it is not a token in its one accepted spelling.
    pub fn from_header(text: &str) -> Result<Self, TokenError> {
        if text.contains('.') { ucan::parse(Bytes::copy_from_slice(text.as_bytes())) } else { cacao::from_header(text) }
    }

    /// Reads a token as the log keeps it: the DAG-CBOR of a CACAO, or the ASCII of a JWT.
    ///
    /// # Errors
    /// [`TokenError`] when it is not a token in its one accepted encoding.
    pub fn from_stored(bytes: Bytes) -> Result<Self, TokenError> {
        if bytes.first() == Some(&cacao::FIRST_BYTE) { cacao::parse(bytes) } else { ucan::parse(bytes) }
    }

    /// Writes the value of an `Authorization` header.
    #[must_use]
    pub fn to_header(&self) -> String {
        match self.form {
            Form::Cacao => cacao::to_header(&self.bytes),
            Form::Ucan => String::from_utf8_lossy(&self.bytes).into_owned(),
        }
    }

    /// The bytes as the log keeps them.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Under which proofs find this token: the hash of its bytes.
    #[must_use]
    pub fn address(&self) -> Address {
        Address::of(&self.bytes)
    }

    /// What was signed, by its hash: the same for every spelling of the signature.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// What the token is for.
    #[must_use]
    pub fn role(&self) -> Role {
        self.role
    }

    /// Who signs it.
    #[must_use]
    pub fn issuer(&self) -> &Did {
        &self.issuer
    }

    /// Whom it addresses, without fragment: a DID in its canonical spelling, or the URI of a SIWE message, which is
    /// `ucan:<cid>` in a revocation.
    #[must_use]
    pub fn audience(&self) -> &str {
        &self.audience.text
    }

    /// Whom it addresses, if that is a DID.
    #[must_use]
    pub fn audience_did(&self) -> Option<&Did> {
        self.audience.did.as_ref()
    }

    /// What it grants or asks for, ascending by the bytes of resource and ability as they were written.
    #[must_use]
    pub fn capabilities(&self) -> &[Capability] {
        &self.capabilities
    }

    /// The delegations it rests on, in the order given, each once.
    #[must_use]
    pub fn proofs(&self) -> &[Address] {
        &self.proofs
    }

    /// From when on it holds.
    #[must_use]
    pub fn not_before(&self) -> Option<Millis> {
        self.not_before
    }

    /// Until when it holds. A UCAN always says so.
    #[must_use]
    pub fn expiry(&self) -> Option<Millis> {
        self.expiry
    }

    /// Whether it holds at this time. A UCAN does from its not-before to its expiry, both included; a CACAO does not
    /// yet at its not-before, and still does at its expiry.
    #[must_use]
    pub fn in_force(&self, now: Millis) -> bool {
        let begun = |from: Millis| match self.form {
            Form::Cacao => from < now,
            Form::Ucan => from <= now,
        };
        self.not_before.is_none_or(begun) && self.expiry.is_none_or(|expiry| now <= expiry)
    }

    /// Whether its audience may not delegate further.
    #[must_use]
    pub fn is_terminal(&self) -> bool {
        self.facts.is_terminal
    }

    /// The epochs of this space that its signer had seen, ascending; `None` when it names none of this space.
    #[must_use]
    pub fn after(&self, space: &SpaceId) -> Option<&[EpochId]> {
        self.facts.after.get(space).map(Vec::as_slice)
    }

    /// The spaces of which it says what its signer had seen.
    pub fn after_spaces(&self) -> impl Iterator<Item = &SpaceId> {
        self.facts.after.keys()
    }

    /// What its puts store, by the text of the resource; `None` when it does not say.
    #[must_use]
    pub fn content(&self) -> Option<&BTreeMap<String, Content>> {
        self.facts.content.as_ref()
    }

    /// All facts, as they were written.
    #[must_use]
    pub fn facts(&self) -> &[Value] {
        &self.facts.values
    }

    /// Checks the signature.
    ///
    /// # Errors
    /// [`InvalidSignature`] when it is not the issuer's over this token, or not in an accepted spelling.
    pub fn verify(self) -> Result<Verified<Self>, InvalidSignature> {
        self.verify_with(&())
    }

    /// As [`Token::verify`], with keys kept from token to token.
    ///
    /// # Errors
    /// As [`Token::verify`].
    pub fn verify_with(self, keys: &impl KnownKeys) -> Result<Verified<Self>, InvalidSignature> {
        self.signature.verify(ucan::signed(&self.bytes), keys)?;
        Ok(Verified(self))
    }
}

impl PartialEq for Token {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for Token {}

/// Something whose signature holds. Only [`Token::verify`] makes it, and [`Verified::assume`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified<T>(T);

impl Verified<Token> {
    /// Takes the signature for good: for tokens that come from this node's own log, which verified them before they
    /// went in.
    #[must_use]
    pub fn assume(token: Token) -> Self {
        Self(token)
    }
}

impl<T> Verified<T> {
    /// Gives it back without the proof.
    #[must_use]
    pub fn into_inner(self) -> T {
        self.0
    }
}

impl<T> Deref for Verified<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}
