//! Sessions: a key of its own that an owner, or another member, lets act in a space for a while.

use kvspace_protocol::{
    capability::{Capability, Resource, Token},
    id::{Did, Millis, SpaceId},
};
use serde::{Deserialize, Serialize};

use crate::{
    Error,
    grants::Grants,
    keys::{Ed25519Key, OwnerKey},
    token::{self, Window},
};

/// An Ed25519 key and the delegation that lets it act in one space.
///
/// The owner's key signs once, when the session is opened, and can then be put away. A session says in its delegation
/// what it may do and until when; the node checks that, the session only knows it.
#[derive(Debug, Clone)]
pub struct Session {
    key: Ed25519Key,
    space: SpaceId,
    delegation: Token,
}

/// A session as text, secret included.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Saved {
    space: SpaceId,
    secret: String,
    delegation: String,
}

impl Session {
    /// A new session key, and the owner's delegation to it. Nothing is sent.
    ///
    /// # Errors
    /// [`Error::Token`] when the grants make no token, [`Error::Randomness`].
    pub fn sign(owner: &OwnerKey, space: &SpaceId, grants: Grants, now: Millis, expiry: Millis) -> Result<Self, Error> {
        let window = Window::delegation(now, Some(expiry), []);
        Self::signed(owner, space, grants, window, &[])
    }

    /// A new session of a member: `own` is the key that `received` was delegated to. It reaches as far as that
    /// delegation in its space, no longer than until `expiry`. Nothing is sent.
    ///
    /// # Errors
    /// [`Error::Session`] when the delegation is for another key or for no space, or for several.
    pub fn beneath(own: &OwnerKey, received: &Token, now: Millis, expiry: Millis) -> Result<Self, Error> {
        if received.audience_did() != Some(&own.did()) {
            let to = received.audience();
            return Err(Error::Session(format!(
                "cannot rest on this delegation: it is for {to}, not for {}",
                own.did()
            )));
        }
        let space = the_space_of(received)?;
        let window = Window::delegation(now, Some(expiry), [received]);
        Self::signed(own, &space, Grants::of(received, &space), window, &[received])
    }

    fn signed(own: &OwnerKey, space: &SpaceId, grants: Grants, window: Window, on: &[&Token]) -> Result<Self, Error> {
        let key = Ed25519Key::generate()?;
        let proofs = on.iter().map(|proof| proof.address()).collect();
        let delegation = token::by_owner(own, &key.did(), grants, window, proofs)?;
        Ok(Self { key, space: space.clone(), delegation })
    }

    /// A session of a key that a delegation names directly.
    ///
    /// # Errors
    /// [`Error::Session`] when the delegation is for another key, or not for exactly one space.
    pub fn from_delegation(key: Ed25519Key, delegation: Token) -> Result<Self, Error> {
        if delegation.audience_did() != Some(&key.did()) {
            return Err(Error::Session(format!("key {} is not whom the delegation names", key.did())));
        }
        let space = the_space_of(&delegation)?;
        Ok(Self { key, space, delegation })
    }

    /// The space it acts in.
    #[must_use]
    pub fn space(&self) -> &SpaceId {
        &self.space
    }

    /// The session key's DID.
    #[must_use]
    pub fn did(&self) -> Did {
        self.key.did()
    }

    /// What lets it act. A node has to have seen it: [`crate::Client::delegate`].
    #[must_use]
    pub fn delegation(&self) -> &Token {
        &self.delegation
    }

    /// Until when it is good; `None` is for ever.
    #[must_use]
    pub fn expiry(&self) -> Option<Millis> {
        self.delegation.expiry()
    }

    /// Whether the delegation covers this.
    #[must_use]
    pub fn allows(&self, resource: &Resource, ability: &str) -> bool {
        let Ok(ability) = ability.parse() else { return false };
        let required = Capability { resource: resource.clone(), ability, caveats: Default::default() };
        self.delegation.capabilities().iter().any(|held| held.covers(&required))
    }

    /// The session as text, **secret key included**: keep it like a password.
    #[must_use]
    pub fn to_text(&self) -> String {
        let saved =
            Saved { space: self.space.clone(), secret: self.key.secret_hex(), delegation: self.delegation.to_header() };
        serde_json::to_string_pretty(&saved).expect("text is JSON")
    }

    /// Reads what [`Session::to_text`] wrote.
    ///
    /// # Errors
    /// [`Error::Session`] when it is something else.
    pub fn from_text(text: &str) -> Result<Self, Error> {
        let broken = |why: String| Error::Session(format!("cannot be read: {why}"));
        let saved: Saved = serde_json::from_str(text).map_err(|error| broken(error.to_string()))?;
        let key = Ed25519Key::from_hex(&saved.secret)?;
        let delegation = Token::from_header(&saved.delegation).map_err(|error| broken(error.to_string()))?;
        let session = Self::from_delegation(key, delegation)?;
        if session.space != saved.space {
            return Err(broken("its delegation is for another space".into()));
        }
        Ok(session)
    }

    pub(crate) fn key(&self) -> &Ed25519Key {
        &self.key
    }
}

/// The one space that a delegation is about.
fn the_space_of(delegation: &Token) -> Result<SpaceId, Error> {
    let mut spaces: Vec<&SpaceId> = delegation.capabilities().iter().filter_map(|held| held.resource.space()).collect();
    spaces.dedup();
    match spaces.as_slice() {
        [space] => Ok((*space).clone()),
        [] => Err(Error::Session("cannot rest on this delegation: it names no space".into())),
        _ => Err(Error::Session("cannot rest on this delegation: it names several spaces".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{KeyKind, KvAbility, clock};

    fn opened(kind: KeyKind) -> (OwnerKey, Session) {
        let owner = OwnerKey::generate(kind).expect("a key");
        let space = SpaceId::new(&owner.did(), "default").expect("a space");
        let now = clock::now();
        let session = Session::sign(&owner, &space, Grants::everything(&space), now, now.plus(60_000));
        (owner, session.expect("a session"))
    }

    #[test]
    fn a_session_survives_being_written_down() {
        for kind in [KeyKind::Ed25519, KeyKind::Ethereum] {
            let (_, session) = opened(kind);
            let read = Session::from_text(&session.to_text()).expect("a session");
            assert_eq!((read.did(), read.delegation()), (session.did(), session.delegation()));
            assert!(!format!("{session:?}").contains(&session.key.secret_hex()));
        }
    }

    #[test]
    fn a_session_knows_what_it_may_do() {
        let (_, session) = opened(KeyKind::Ethereum);
        let kv = |path| Resource::in_space(session.space(), "kv", Some(path));
        assert!(session.allows(&kv("a"), KvAbility::Put.as_str()));
        assert!(!session.allows(&Resource::in_space(session.space(), "space", None), "tinycloud.space/host"));
    }

    #[test]
    fn a_received_delegation_is_used_by_whom_it_names_only() {
        for kind in [KeyKind::Ed25519, KeyKind::Ethereum] {
            let (_, session) = opened(kind);
            let bob = OwnerKey::generate(kind).expect("a key");
            let now = clock::now();
            let path = crate::KeyPath::from_text("docs").expect("a key");
            let grants = Grants::kv(session.space(), Some(&path), &[KvAbility::Get]);
            let window = Window::delegation(now, Some(now.plus(30_000)), [session.delegation()]);
            let received =
                token::by_key(session.key(), &bob.did(), grants, window, vec![session.delegation().address()])
                    .expect("a token");
            let own = Session::beneath(&bob, &received, now, now.plus(i64::MAX)).expect("a session");
            assert_eq!(own.delegation().proofs(), [received.address()]);
            assert_eq!(own.expiry(), received.expiry());
            assert!(own.allows(&Resource::in_space(own.space(), "kv", Some("docs/a")), KvAbility::Get.as_str()));
            assert!(!own.allows(&Resource::in_space(own.space(), "kv", Some("docs2")), KvAbility::Get.as_str()));
            let other = OwnerKey::generate(kind).expect("a key");
            assert!(matches!(Session::beneath(&other, &received, now, now), Err(Error::Session(_))));
        }
    }
}
