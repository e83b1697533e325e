//! Who writes in these tests: owners, sessions and hosts by their keys.

use std::sync::Arc;

use ed25519_dalek::SigningKey;
use kvspace_protocol::{
    authority::Proof,
    capability::build::{Claims, ucan},
    id::{Did, EpochId, Millis, SpaceId},
};

pub(super) const START_MS: i64 = 1_700_000_000_000;

/// A key, and the space it owns.
pub(super) struct Party {
    pub(super) key: SigningKey,
    pub(super) space: SpaceId,
}

pub(super) fn owner_of(seed: u8) -> Party {
    Party::new(seed)
}

/// A revocation by `key`.
pub(super) fn revocation(key: &SigningKey, space: &SpaceId, target: &Proof, after: &[EpochId]) -> Proof {
    let mut claims = claims();
    claims.capabilities.insert(format!("urn:cid:{}", target.address()), vec!["tinycloud.delegation/revoke".into()]);
    claims.after = after.iter().map(|id| format!("{space}/after/{id}")).collect();
    sign(&claims, key)
}

impl Party {
    pub(super) fn new(seed: u8) -> Self {
        let key = SigningKey::from_bytes(&[seed; 32]);
        let space = SpaceId::new(&did(&key), "default").expect("a space id");
        Self { key, space }
    }

    pub(super) fn did(&self) -> Did {
        did(&self.key)
    }

    pub(super) fn host_delegation(&self, host: &Did) -> Proof {
        let mut claims = claims();
        claims.audience = Some(host.clone());
        claims.capabilities.insert(format!("{}/space", self.space), vec!["tinycloud.space/host".into()]);
        sign(&claims, &self.key)
    }

    /// A key that may do anything in this party's space, and the delegation that says so.
    pub(super) fn session(&self, seed: u8) -> (Party, Proof) {
        let session = Party { space: self.space.clone(), ..Party::new(seed) };
        let mut claims = claims();
        claims.audience = Some(session.did());
        let abilities = ["del", "get", "list", "metadata", "put"].map(|name| format!("tinycloud.kv/{name}"));
        claims.capabilities.insert(format!("{}/kv", self.space), abilities.into());
        (session, sign(&claims, &self.key))
    }

    pub(super) fn invoke(&self, key: &str, ability: &str, delegation: &Proof, nonce: u64) -> Proof {
        let mut claims = claims();
        claims.nonce = Some(nonce.to_string());
        claims.proofs = vec![delegation.address()];
        claims.capabilities.insert(format!("{}/kv/{key}", self.space), vec![format!("tinycloud.kv/{ability}")]);
        sign(&claims, &self.key)
    }
}

fn claims() -> Claims {
    Claims::until(Millis(START_MS + 86_400_000))
}

fn sign(claims: &Claims, key: &SigningKey) -> Proof {
    Arc::new(ucan(claims, key).expect("a token").verify().expect("signed just now"))
}

fn did(key: &SigningKey) -> Did {
    Did::from_ed25519(&key.verifying_key().to_bytes())
}
