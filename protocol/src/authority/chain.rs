//! The closure of a token's proofs, checked link by link: a function of the tokens alone, never of the clock.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::{Denied, Proof, Proofs};
use crate::{
    capability::{Capability, Role, Token},
    id::{Address, Identity, Millis},
    limits::PROOFS_MAX,
};

/// What a chain is checked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// The token hands its capabilities on.
    Delegate,
    /// The token uses them.
    Invoke,
}

/// The closure of a token's proofs: complete, and every link covers the next.
#[derive(Debug, Clone, Default)]
pub struct Chain {
    members: BTreeMap<Address, Proof>,
}

impl Chain {
    /// The closure that begins with `proof` itself.
    ///
    /// # Errors
    /// [`Denied`] as [`chain`].
    pub(crate) fn beneath(proof: &Proof, proofs: &impl Proofs) -> Result<Self, Denied> {
        let mut below = chain(proof, Purpose::Delegate, proofs)?;
        below.members.insert(proof.address(), proof.clone());
        if below.members.len() > PROOFS_MAX {
            return Err(Denied::TooManyProofs);
        }
        Ok(below)
    }

    /// The delegations in it; none when the token is rooted in its own signer.
    pub fn members(&self) -> impl ExactSizeIterator<Item = (&Address, &Proof)> {
        self.members.iter()
    }

    /// `cited` and what it rests on, nearest first.
    pub(crate) fn from(&self, cited: &Address) -> Vec<(Address, &Proof)> {
        let mut seen: Vec<(Address, &Proof)> = Vec::new();
        let mut open = VecDeque::from([*cited]);
        while let Some(address) = open.pop_front() {
            let Some(member) = self.members.get(&address) else { continue };
            if seen.iter().all(|(known, _)| *known != address) {
                seen.push((address, member));
                open.extend(cites(member));
            }
        }
        seen
    }

    /// The members, each after what it rests on. Proofs name each other by hash, so there is no cycle.
    pub(crate) fn ancestors_first(&self) -> Vec<Proof> {
        let mut ordered: Vec<Proof> = Vec::new();
        let mut left: BTreeMap<&Address, &Proof> = self.members.iter().collect();
        while !left.is_empty() {
            let free = |proof: &Proof| proof.proofs().iter().all(|parent| !left.contains_key(parent));
            let ready: Vec<_> = left.iter().filter(|(_, proof)| free(proof)).map(|(address, _)| **address).collect();
            for address in &ready {
                ordered.extend(left.remove(address).cloned());
            }
            if ready.is_empty() {
                break;
            }
        }
        ordered
    }

    /// Their identities.
    #[must_use]
    pub fn identities(&self) -> BTreeSet<Identity> {
        self.members.values().map(|proof| proof.identity()).collect()
    }

    /// Whether every member is in force at `now`, each given `grace_ms` after its expiry.
    #[must_use]
    pub fn in_force(&self, now: Millis, grace_ms: i64) -> bool {
        self.members.values().all(|proof| within(proof, now, grace_ms))
    }
}

/// Whether `now` lies in [not-before, expiry + grace] of a token.
#[must_use]
pub fn within(token: &Token, now: Millis, grace_ms: i64) -> bool {
    token.not_before().is_none_or(|start| start <= now) && token.expiry().is_none_or(|end| now <= end.plus(grace_ms))
}

/// The capabilities of `token` that its signer does not own: those need a proof.
pub(super) fn dependent(token: &Token) -> impl Iterator<Item = &Capability> {
    token.capabilities().iter().filter(|wanted| wanted.resource.root().as_ref() != Some(token.issuer()))
}

/// Collects and checks everything `token` rests on.
///
/// # Errors
/// [`Denied`] when a proof is missing or does not cover what rests on it.
pub fn chain(token: &Token, purpose: Purpose, proofs: &impl Proofs) -> Result<Chain, Denied> {
    let members = closure(token, proofs)?;
    link(token, purpose, &members)?;
    for member in members.values() {
        link(member, Purpose::Delegate, &members)?;
    }
    Ok(Chain { members })
}

/// As [`chain`], from chains that were checked before; `None` when one of those that `token` cites is not among them.
pub(super) fn chain_over<'a>(
    token: &Token,
    purpose: Purpose,
    checked: impl Fn(&Address) -> Option<&'a Chain>,
) -> Option<Result<Chain, Denied>> {
    let mut members = BTreeMap::new();
    for cited in parents(token).ok()? {
        let beneath = checked(cited)?;
        if members.is_empty() {
            members.clone_from(&beneath.members);
        } else {
            members.extend(beneath.members.iter().map(|(address, proof)| (*address, proof.clone())));
        }
    }
    if members.len() > PROOFS_MAX {
        return Some(Err(Denied::TooManyProofs));
    }
    Some(link(token, purpose, &members).map(|()| Chain { members }))
}

/// Everything `token` rests on, unchecked.
pub(super) fn closure(token: &Token, proofs: &impl Proofs) -> Result<BTreeMap<Address, Proof>, Denied> {
    let mut members = BTreeMap::new();
    let mut open: VecDeque<Address> = parents(token)?.iter().copied().collect();
    while let Some(address) = open.pop_front() {
        if members.contains_key(&address) {
            continue;
        }
        if members.len() == PROOFS_MAX {
            return Err(Denied::TooManyProofs);
        }
        let missing = || Denied::MissingParent(Some(address));
        let proof = proofs.find(&address).filter(|proof| proof.role() == Role::Delegation).ok_or_else(missing)?;
        open.extend(parents(proof)?.iter().copied());
        members.insert(address, proof.clone());
    }
    Ok(members)
}

/// The identities of a delegation and of all it rests on; `None` when something of that is unknown.
pub(crate) fn identities_beneath(proof: &Proof, proofs: &impl Proofs) -> Option<BTreeSet<Identity>> {
    let members = closure(proof, proofs).ok()?;
    Some(members.values().chain([proof]).map(|member| member.identity()).collect())
}

/// The proofs that count: none when every capability is the signer's own.
fn cites(token: &Token) -> &[Address] {
    if dependent(token).next().is_none() { &[] } else { token.proofs() }
}

/// The proofs that count, of which a token that needs one has one.
fn parents(token: &Token) -> Result<&[Address], Denied> {
    let cited = cites(token);
    if cited.is_empty() && dependent(token).next().is_some() {
        return Err(Denied::MissingParent(None));
    }
    Ok(cited)
}

/// Checks `token` against the proofs it cites itself.
fn link(token: &Token, purpose: Purpose, members: &BTreeMap<Address, Proof>) -> Result<(), Denied> {
    let mut needs = dependent(token).peekable();
    let Some(first) = needs.peek() else { return Ok(()) };
    let mut parents = Vec::new();
    let (mut outlives, mut precedes) = (false, false);
    for address in token.proofs() {
        let parent = members.get(address).ok_or(Denied::MissingParent(Some(*address)))?;
        if parent.audience_did() != Some(token.issuer()) {
            return Err(match purpose {
                Purpose::Delegate => Denied::Delegator(token.issuer().clone()),
                Purpose::Invoke => Denied::not_covered(purpose, first),
            });
        }
        if purpose == Purpose::Delegate {
            if parent.is_terminal() {
                return Err(Denied::TerminalParent);
            }
            let ends_later = parent.expiry().is_some_and(|end| token.expiry().is_none_or(|own| own > end));
            let starts_earlier =
                parent.not_before().is_some_and(|start| token.not_before().is_none_or(|own| own < start));
            outlives |= ends_later;
            precedes |= starts_earlier;
            if ends_later || starts_earlier {
                continue;
            }
        }
        parents.push(parent);
    }
    if parents.is_empty() {
        return Err(match (outlives, precedes) {
            (true, _) => Denied::ExpiryExceedsParent,
            (false, true) => Denied::NotBeforePrecedesParent,
            (false, false) => Denied::MissingParent(None),
        });
    }
    needs.try_for_each(|wanted| covered(wanted, purpose, &parents))
}

fn covered(wanted: &Capability, purpose: Purpose, parents: &[&Proof]) -> Result<(), Denied> {
    let mut held = parents.iter().flat_map(|parent| parent.capabilities());
    if held.clone().any(|capability| capability.covers(wanted)) {
        return Ok(());
    }
    let but_for_caveats = |capability: &Capability| {
        capability.resource.covers(&wanted.resource) && capability.ability.covers(&wanted.ability)
    };
    if held.any(but_for_caveats) && purpose == Purpose::Delegate {
        let (resource, ability) = (wanted.resource.text().to_owned(), wanted.ability.as_str().to_owned());
        return Err(Denied::Caveats { resource, ability });
    }
    Err(Denied::not_covered(purpose, wanted))
}
