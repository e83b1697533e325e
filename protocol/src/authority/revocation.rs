//! Whose revocation counts, and what it rests on.

use std::collections::BTreeSet;

use super::{Chain, Denied, Proof, Proofs, Purpose, chain};
use crate::{
    capability::{Resource, Role, Token},
    id::{Did, Identity, SpaceId},
};

const REVOKE: &str = "tinycloud.delegation/revoke";
const SERVICE: &str = "delegation";

/// What a revocation is worth in one space.
#[derive(Debug, Clone)]
pub struct Standing {
    /// The delegation it ends.
    pub target: Proof,
    /// Whether it voids what was written under the delegation: its principal is the delegator or the space's owner.
    /// A delegatee giving up its own delegation only stops hosts from accepting it.
    pub counts: bool,
    /// The identities of what it rests on: its own proofs and, where its principal is the delegator, the target's.
    pub rests_on: BTreeSet<Identity>,
    /// Its own proofs.
    pub proofs: Chain,
    /// The target's proofs.
    pub target_proofs: Chain,
}

/// Judges a revocation in a space by what is known of its proofs and its target.
///
/// # Errors
/// [`Denied`] when the target or a proof is missing, or the signer has no right to end the target.
pub fn judge(token: &Token, space: &SpaceId, proofs: &impl Proofs) -> Result<Standing, Denied> {
    let Role::Revocation { target: address } = token.role() else { return Err(Denied::Revoker) };
    let target = proofs.find(&address).filter(|target| target.role() == Role::Delegation);
    let target = target.ok_or(Denied::MissingParent(Some(address)))?;
    let target_proofs = chain(target, Purpose::Delegate, proofs)?;
    let (principal, own_proofs) = principal(token, &address.to_string(), space, proofs)?;
    let is_delegator = principal == *target.issuer();
    let is_owner = principal == *space.owner();
    if !is_delegator && !is_owner && target.audience_did() != Some(&principal) {
        return Err(Denied::Revoker);
    }
    let mut rests_on = own_proofs.identities();
    if is_delegator {
        rests_on.extend(target_proofs.identities());
    }
    Ok(Standing {
        target: target.clone(),
        counts: is_delegator || is_owner,
        rests_on,
        proofs: own_proofs,
        target_proofs,
    })
}

/// The signer itself, or who gave it the right to revoke.
fn principal(token: &Token, target: &str, space: &SpaceId, proofs: &impl Proofs) -> Result<(Did, Chain), Denied> {
    let [address] = token.proofs() else {
        return if token.proofs().is_empty() {
            Ok((token.issuer().clone(), Chain::default()))
        } else {
            Err(Denied::Revoker)
        };
    };
    let proof = proofs.find(address).ok_or(Denied::MissingParent(Some(*address)))?;
    if proof.role() != Role::Delegation || proof.audience_did() != Some(token.issuer()) {
        return Err(Denied::Revoker);
    }
    let own = Chain::beneath(proof, proofs)?;
    if proof.capabilities().iter().any(|held| held.ability.as_str() == REVOKE && names(&held.resource, target, space)) {
        return Ok((proof.issuer().clone(), own));
    }
    // The signer revokes what it delegated itself: the proof is its session, which need not name the right.
    Ok((token.issuer().clone(), own))
}

fn names(resource: &Resource, target: &str, space: &SpaceId) -> bool {
    if resource.space() == Some(space) {
        return resource.service() == Some(SERVICE) && resource.path().is_none_or(str::is_empty);
    }
    resource.text().strip_prefix("urn:cid:") == Some(target)
}
