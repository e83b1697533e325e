//! Capability tokens: who may do what, where, said by whom.
//!
//! A [`Token`] is parsed from a CACAO (a wallet's SIWE message with a ReCap) or from a UCAN JWT, strictly: one meaning
//! has one accepted spelling, apart from the signature bytes, which no [`Identity`](crate::id::Identity) depends on.
//! [`Token::verify`] checks the signature and needs no network; whether the chain of proofs reaches the owner is
//! judged elsewhere, with [`Capability::covers`] as the rule for one link.

use serde_json::{Map, Value};

mod ability;
pub mod build;
mod cacao;
mod error;
mod facts;
mod json;
mod recap;
mod resource;
mod signature;
mod siwe;
mod time;
mod token;
mod ucan;

pub use ability::{Ability, AbilityError};
pub use error::{InvalidSignature, TokenError};
pub use facts::{Content, TERMINAL};
pub use resource::{Resource, SpaceResource, lies_beneath};
pub use signature::KnownKeys;
pub use token::{Role, Token, Verified};

/// One thing a token grants or asks for: an ability on a resource, under caveats.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capability {
    /// Where.
    pub resource: Resource,
    /// What.
    pub ability: Ability,
    /// Under which conditions.
    pub caveats: Caveats,
}

impl Capability {
    /// Whether a grant of this capability suffices for `required`: resource, ability and caveats each do.
    #[must_use]
    pub fn covers(&self, required: &Self) -> bool {
        self.resource.covers(&required.resource)
            && self.ability.covers(&required.ability)
            && self.caveats.covers(&required.caveats)
    }
}

/// The conditions of a capability, as the array of objects they were written as. `[{}]` is none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Caveats(Vec<Map<String, Value>>);

impl Caveats {
    pub(crate) fn new(objects: Vec<Map<String, Value>>) -> Self {
        if objects.iter().all(Map::is_empty) { Self::default() } else { Self(objects) }
    }

    /// Whether there is no condition.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The objects in the order they were written; empty when there is no condition.
    #[must_use]
    pub fn objects(&self) -> &[Map<String, Value>] {
        &self.0
    }

    /// Whether a grant under these conditions suffices under `child`'s: there are none, or they are the same.
    #[must_use]
    pub fn covers(&self, child: &Self) -> bool {
        self.is_empty() || self == child
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caveats(json: Value) -> Caveats {
        Caveats::new(serde_json::from_value(json).expect("an array of objects"))
    }

    #[test]
    fn caveats_are_inherited_as_they_are_or_not_at_all() {
        let none = caveats(serde_json::json!([{}]));
        let some = caveats(serde_json::json!([{"limit": 1}]));
        let other = caveats(serde_json::json!([{"limit": 2}]));
        assert!(none.is_empty() && none.covers(&some) && none.covers(&none));
        assert!(some.covers(&some) && !some.covers(&none) && !some.covers(&other));
    }

    #[test]
    fn an_unconditional_alternative_is_still_a_condition() {
        assert!(!caveats(serde_json::json!([{}, {"limit": 1}])).is_empty());
    }
}
