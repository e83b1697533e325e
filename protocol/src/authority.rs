//! Who may do what in a space: chains of delegations from a signer up to the owner, and what revocations take away.

mod access;
mod chain;
mod peers;
mod revocation;

pub use access::{Access, AccessChange, Allowed, Grants, is_host_delegation, spaces_to_host};
pub(crate) use chain::identities_beneath;
pub use chain::{Chain, Purpose, chain, within};
pub use peers::{NamedHost, PUBLIC};
pub use revocation::{Standing as RevocationStanding, judge as judge_revocation};

use std::sync::Arc;

use crate::{
    capability::{Capability, Token, Verified},
    id::{Address, Did},
};

/// A delegation as authority keeps it: verified, shared.
pub type Proof = Arc<Verified<Token>>;

/// Finds a delegation by its address.
pub trait Proofs {
    /// The verified delegation at `address`, if it is known.
    fn find(&self, address: &Address) -> Option<&Proof>;
}

/// Why authority is refused. The words are those that TinyCloud clients parse.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// A cited proof is not known here, or none is cited.
    #[error("Cannot find parent delegation")]
    MissingParent(Option<Address>),
    /// A cited proof is for somebody else.
    #[error("Unauthorized Delegator: {0}")]
    Delegator(Did),
    /// No proof covers a delegated capability.
    #[error("Unauthorized Capability: {resource}, {ability}")]
    Capability {
        /// The resource asked for.
        resource: String,
        /// The ability asked for.
        ability: String,
    },
    /// No proof covers an invoked capability.
    #[error("Unauthorized Action: {resource} / {ability}")]
    Action {
        /// The resource asked for.
        resource: String,
        /// The ability asked for.
        ability: String,
    },
    /// A delegation outlives its parents.
    #[error("Child delegation expiry exceeds parent expiry")]
    ExpiryExceedsParent,
    /// A delegation begins before its parents.
    #[error("Child delegation not_before precedes parent not_before")]
    NotBeforePrecedesParent,
    /// A parent forbids delegating further.
    #[error("terminal-parent-cannot-redelegate")]
    TerminalParent,
    /// More than 64 delegations beneath one token.
    #[error("delegation-chain-traversal-limit-exceeded")]
    TooManyProofs,
    /// A capability carries fewer caveats than its parent.
    #[error("child-caveats-not-subset-of-parent: {resource}, {ability}")]
    Caveats {
        /// The resource asked for.
        resource: String,
        /// The ability asked for.
        ability: String,
    },
    /// A proof of a delegation is revoked.
    #[error("delegation-parent-revoked: {0}")]
    ParentRevoked(Address),
    /// What a proof of a delegation rests on is revoked.
    #[error("delegation-ancestor-revoked: ancestor={ancestor} parent={parent}")]
    ParentAncestorRevoked {
        /// The revoked one.
        ancestor: Address,
        /// The cited one.
        parent: Address,
    },
    /// A proof of an invocation is revoked.
    #[error("delegation-revoked: {0}")]
    Revoked(Address),
    /// What a proof of an invocation rests on is revoked.
    #[error("delegation-ancestor-revoked: ancestor={ancestor} invoked={invoked}")]
    AncestorRevoked {
        /// The revoked one.
        ancestor: Address,
        /// The cited one.
        invoked: Address,
    },
    /// The signer of a revocation has no right to it.
    #[error("Unauthorized Revoker")]
    Revoker,
}

impl Denied {
    fn not_covered(purpose: Purpose, wanted: &Capability) -> Self {
        let (resource, ability) = (wanted.resource.text().to_owned(), wanted.ability.as_str().to_owned());
        match purpose {
            Purpose::Delegate => Self::Capability { resource, ability },
            Purpose::Invoke => Self::Action { resource, ability },
        }
    }
}
