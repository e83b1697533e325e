//! Making tokens: who signs what, for how long.

use std::collections::BTreeMap;

use kvspace_protocol::{
    capability::{
        Ability, Content, Resource, Token,
        build::{Claims, Siwe, ucan},
    },
    id::{Address, Did, EpochId, Millis, SpaceId},
};

use crate::{
    Error,
    grants::Grants,
    keys::{Ed25519Key, EthereumKey, OwnerKey},
    random,
};

/// How long an invocation is good: enough for a slow request, too short to be worth stealing.
const INVOCATION_MS: i64 = 60_000;
/// How far back an invocation reaches, for nodes whose clock is behind.
const INVOCATION_BACK_MS: i64 = 5_000;
/// The same for delegations, which live longer.
const DELEGATION_BACK_MS: i64 = 60_000;
/// The last second of the year 9999: a UCAN must end, the owner's word for a host should not.
const FOR_EVER: Millis = Millis(253_402_300_799_000);
/// Who asks an Ethereum account to sign.
const SIWE_DOMAIN: &str = "kvspace";

/// From when until when a token is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) not_before: Millis,
    pub(crate) expiry: Option<Millis>,
}

impl Window {
    /// From just before now until `expiry`, inside the windows of all proofs: nodes drop a proof that does not enclose
    /// what rests on it.
    pub(crate) fn delegation<'a>(
        now: Millis,
        expiry: Option<Millis>,
        proofs: impl IntoIterator<Item = &'a Token>,
    ) -> Self {
        Self { not_before: now.plus(-DELEGATION_BACK_MS), expiry }.within(proofs)
    }

    fn invocation<'a>(now: Millis, proofs: impl IntoIterator<Item = &'a Token>) -> Self {
        Self { not_before: now.plus(-INVOCATION_BACK_MS), expiry: Some(now.plus(INVOCATION_MS)) }.within(proofs)
    }

    fn within<'a>(mut self, proofs: impl IntoIterator<Item = &'a Token>) -> Self {
        for proof in proofs {
            self.not_before = self.not_before.max(proof.not_before().unwrap_or(self.not_before));
            self.expiry = match (self.expiry, proof.expiry()) {
                (Some(own), Some(proofs)) => Some(own.min(proofs)),
                (own, proofs) => own.or(proofs),
            };
        }
        self
    }
}

/// A delegation by an owner, or by whom an owner's key stands for: CACAO for an Ethereum account, else UCAN.
pub(crate) fn by_owner(
    owner: &OwnerKey,
    to: &Did,
    grants: Grants,
    window: Window,
    proofs: Vec<Address>,
) -> Result<Token, Error> {
    match owner {
        OwnerKey::Ed25519(key) => by_key(key, to, grants, window, proofs),
        OwnerKey::Ethereum(key) => {
            let mut siwe = siwe(key, to.as_str().to_owned(), window)?;
            siwe.capabilities = grants.into_map();
            siwe.proofs = proofs;
            signed(key, &siwe)
        }
    }
}

/// A delegation by an Ed25519 key.
pub(crate) fn by_key(
    key: &Ed25519Key,
    to: &Did,
    grants: Grants,
    window: Window,
    proofs: Vec<Address>,
) -> Result<Token, Error> {
    let claims = Claims { audience: Some(to.clone()), proofs, capabilities: grants.into_map(), ..claims(window)? };
    sign(key, &claims)
}

/// The owner's word that a host serves a space. It does not end.
pub(crate) fn host(owner: &OwnerKey, space: &SpaceId, host: &Did, now: Millis) -> Result<Token, Error> {
    let grants = Grants::default().and(Resource::in_space(space, "space", None), Ability::HOST);
    let window = Window::delegation(now, None, []);
    by_owner(owner, host, grants, window, Vec::new())
}

/// What an invocation does.
pub(crate) struct Intent {
    pub(crate) resource: Resource,
    pub(crate) ability: &'static str,
    /// What it stores.
    pub(crate) content: Option<Content>,
    /// What its signer has seen.
    pub(crate) after: Vec<EpochId>,
}

/// The use of one capability, good for a minute.
pub(crate) fn invocation(
    key: &Ed25519Key,
    space: &SpaceId,
    intent: Intent,
    proofs: &[&Token],
    now: Millis,
) -> Result<Token, Error> {
    let resource = intent.resource.text().to_owned();
    let claims = Claims {
        proofs: addresses(proofs),
        capabilities: BTreeMap::from([(resource.clone(), vec![intent.ability.to_owned()])]),
        content: intent.content.map(|content| BTreeMap::from([(resource, content)])),
        after: marks(space, &intent.after),
        ..claims(Window::invocation(now, proofs.iter().copied()))?
    };
    sign(key, &claims)
}

/// What a revocation says beside its signer.
pub(crate) struct Ending<'a> {
    pub(crate) space: &'a SpaceId,
    /// The delegation that ends.
    pub(crate) target: &'a Address,
    /// What stays: the Past of these epochs.
    pub(crate) after: &'a [EpochId],
}

/// A revocation by an Ed25519 key, resting on `proofs` where they hold the right to revoke.
pub(crate) fn revocation_by_key(
    key: &Ed25519Key,
    ending: &Ending<'_>,
    proofs: &[&Token],
    now: Millis,
) -> Result<Token, Error> {
    let resource = format!("urn:cid:{}", ending.target);
    let claims = Claims {
        proofs: addresses(proofs),
        capabilities: BTreeMap::from([(resource, vec![Ability::REVOKE.to_owned()])]),
        after: marks(ending.space, ending.after),
        ..claims(Window::invocation(now, proofs.iter().copied()))?
    };
    sign(key, &claims)
}

/// A revocation by an owner.
pub(crate) fn revocation_by_owner(owner: &OwnerKey, ending: &Ending<'_>, now: Millis) -> Result<Token, Error> {
    match owner {
        OwnerKey::Ed25519(key) => revocation_by_key(key, ending, &[], now),
        OwnerKey::Ethereum(key) => {
            let window = Window::invocation(now, []);
            let mut siwe = siwe(key, format!("ucan:{}", ending.target), window)?;
            siwe.resources = marks(ending.space, ending.after);
            signed(key, &siwe)
        }
    }
}

fn claims(window: Window) -> Result<Claims, Error> {
    Ok(Claims {
        not_before: Some(window.not_before),
        nonce: Some(random::uuid_urn()?),
        ..Claims::until(window.expiry.unwrap_or(FOR_EVER))
    })
}

fn siwe(key: &EthereumKey, uri: String, window: Window) -> Result<Siwe, Error> {
    Ok(Siwe {
        domain: SIWE_DOMAIN.into(),
        chain_id: key.chain(),
        address: key.address(),
        uri,
        nonce: random::word()?,
        issued_at: window.not_before,
        expiration: window.expiry,
        not_before: Some(window.not_before),
        statement: None,
        resources: Vec::new(),
        capabilities: BTreeMap::new(),
        proofs: Vec::new(),
    })
}

fn sign(key: &Ed25519Key, claims: &Claims) -> Result<Token, Error> {
    ucan(claims, key.signing_key()).map_err(|error| Error::Token(error.to_string()))
}

fn signed(key: &EthereumKey, siwe: &Siwe) -> Result<Token, Error> {
    siwe.sign(key.sign_personal(&siwe.text())).map_err(|error| Error::Token(error.to_string()))
}

fn addresses(proofs: &[&Token]) -> Vec<Address> {
    proofs.iter().map(|proof| proof.address()).collect()
}

fn marks(space: &SpaceId, after: &[EpochId]) -> Vec<String> {
    after.iter().map(|epoch| format!("{space}/after/{epoch}")).collect()
}

#[cfg(test)]
mod tests {
    use kvspace_protocol::{capability::Role, id::BlobHash};

    use super::*;
    use crate::{KeyKind, KvAbility};

    const NOW: Millis = Millis(1_800_000_000_123);

    fn owners() -> [(OwnerKey, SpaceId); 2] {
        [KeyKind::Ed25519, KeyKind::Ethereum].map(|kind| {
            let owner = OwnerKey::from_secret(kind, &[7; 32]).expect("a key");
            let space = SpaceId::new(&owner.did(), "default").expect("a space");
            (owner, space)
        })
    }

    fn member() -> Ed25519Key {
        Ed25519Key::from_secret(&[9; 32])
    }

    fn capabilities(token: &Token) -> Vec<(String, String)> {
        let text = |held: &kvspace_protocol::capability::Capability| {
            (held.resource.text().to_owned(), held.ability.as_str().to_owned())
        };
        token.capabilities().iter().map(text).collect()
    }

    #[test]
    fn an_owner_names_a_host_for_ever() {
        for (owner, space) in owners() {
            let token = host(&owner, &space, &member().did(), NOW).expect("a token").verify().expect("signed");
            assert_eq!(token.role(), Role::Delegation);
            assert_eq!((token.issuer(), token.audience_did()), (&owner.did(), Some(&member().did())));
            assert_eq!(capabilities(&token), [(format!("{space}/space"), Ability::HOST.to_owned())]);
            assert!(token.in_force(NOW) && token.in_force(Millis(250_000_000_000_000)));
            assert!(!token.in_force(NOW.plus(-DELEGATION_BACK_MS - 1)));
        }
    }

    #[test]
    fn a_session_reaches_no_further_than_it_says() {
        for (owner, space) in owners() {
            let window = Window::delegation(NOW, Some(NOW.plus(1000)), []);
            let token = by_owner(&owner, &member().did(), Grants::everything(&space), window, Vec::new());
            let token = token.expect("a token").verify().expect("signed");
            assert_eq!((token.role(), token.proofs()), (Role::Delegation, [].as_slice()));
            assert_eq!(token.capabilities().len(), 9);
            assert!(token.capabilities().iter().all(|held| held.resource.space() == Some(&space)));
            assert!(token.in_force(NOW.plus(1000)) && !token.in_force(NOW.plus(1001)));
        }
    }

    #[test]
    fn a_put_signs_its_content_and_what_it_has_seen() {
        for (owner, space) in owners() {
            let window = Window::delegation(NOW, Some(NOW.plus(30_000)), []);
            let session = by_owner(&owner, &member().did(), Grants::everything(&space), window, Vec::new());
            let session = session.expect("a token");
            let seen = EpochId::of(b"seen");
            let meta = BTreeMap::from([("content-type".to_owned(), "text/plain".to_owned())]);
            let content = Content { cid: BlobHash::of(b"hello"), size: 5, meta };
            let resource = Resource::in_space(&space, "kv", Some("a"));
            let intent = Intent {
                resource: resource.clone(),
                ability: Ability::PUT,
                content: Some(content.clone()),
                after: vec![seen],
            };
            let token = invocation(&member(), &space, intent, &[&session], NOW).expect("a token");
            let token = token.verify().expect("signed");
            assert_eq!((token.role(), token.issuer()), (Role::Invocation, &member().did()));
            assert_eq!(token.audience_did(), Some(&member().did()));
            assert_eq!(token.proofs(), [session.address()]);
            assert_eq!(token.content(), Some(&BTreeMap::from([(resource.text().to_owned(), content)])));
            assert_eq!(token.after(&space), Some([seen].as_slice()));
            assert_eq!(token.not_before(), Some(NOW.plus(-INVOCATION_BACK_MS)));
            assert_eq!(token.expiry(), Some(NOW.plus(30_000)), "no longer than the session");
            assert!(session.capabilities().iter().any(|held| held.covers(&token.capabilities()[0])));
        }
    }

    #[test]
    fn two_invocations_of_the_same_are_two() {
        let [(owner, space), _] = owners();
        let OwnerKey::Ed25519(key) = owner else { panic!("the first is Ed25519") };
        let intent = || Intent {
            resource: Resource::in_space(&space, "kv", Some("a")),
            ability: Ability::GET,
            content: None,
            after: Vec::new(),
        };
        let a = invocation(&key, &space, intent(), &[], NOW).expect("a token");
        let b = invocation(&key, &space, intent(), &[], NOW).expect("a token");
        assert_ne!(a.identity(), b.identity());
        assert_eq!((a.content(), a.after(&space)), (None, None));
    }

    #[test]
    fn a_revocation_names_its_target_and_what_stays() {
        for (owner, space) in owners() {
            let window = Window::delegation(NOW, Some(NOW.plus(90_000)), []);
            let grants = Grants::kv(&space, None, &[KvAbility::Get]);
            let target = by_owner(&owner, &member().did(), grants, window, Vec::new()).expect("a token").address();
            let after = [EpochId::of(b"a"), EpochId::of(b"b")];
            let ending = Ending { space: &space, target: &target, after: &after };
            let token = revocation_by_owner(&owner, &ending, NOW).expect("a token").verify().expect("signed");
            assert_eq!((token.role(), token.issuer()), (Role::Revocation { target }, &owner.did()));
            let mut sorted = after;
            sorted.sort_unstable();
            assert_eq!(token.after(&space), Some(sorted.as_slice()));
            assert!(token.not_before().is_some() && token.proofs().is_empty());
        }
    }

    #[test]
    fn what_rests_on_a_proof_stays_inside_its_window() {
        let [(owner, space), _] = owners();
        let late = Window { not_before: NOW.plus(10), expiry: Some(NOW.plus(20)) };
        let proof = by_owner(&owner, &member().did(), Grants::everything(&space), late, Vec::new()).expect("a token");
        let window = Window::delegation(NOW, None, [&proof]);
        assert_eq!(window, late);
    }
}
