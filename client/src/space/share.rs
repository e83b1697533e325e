//! Letting others in, and out again.

use kvspace_protocol::{
    capability::{Ability, Resource, Token},
    id::{Address, Did, EpochId, Millis},
};
use serde::Deserialize;

use super::Space;
use crate::{
    Error, Grants, KeyPath, KvAbility, OwnerKey,
    client::escaped,
    clock,
    grants::SPACE_INFO,
    http::Call,
    token::{self, Ending, Window},
};

/// What of a revoked delegation's work stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum After {
    /// All that the node holds when it is asked.
    #[default]
    NodeFrontier,
    /// What these epochs have seen.
    Epochs(Vec<EpochId>),
}

impl Space {
    /// Delegates abilities on the values beneath a path, or on all, to somebody until `expiry` (held within the
    /// session's own), and makes it known to the node. The token is for its receiver, who may pass it on in part.
    ///
    /// # Errors
    /// [`Error::Session`] when the session itself does not reach so far; else [`Error`] as of any call.
    pub async fn delegate(
        &self,
        to: &Did,
        path: Option<&KeyPath>,
        abilities: &[KvAbility],
        expiry: Millis,
    ) -> Result<Token, Error> {
        let token = self.sign_delegation(to, path, abilities, expiry)?;
        self.client.delegate(&token).await?;
        Ok(token)
    }

    /// The same, without a word to the node; the receiver gives it to the node instead.
    ///
    /// # Errors
    /// [`Error::Session`] when the session itself does not reach so far.
    pub fn sign_delegation(
        &self,
        to: &Did,
        path: Option<&KeyPath>,
        abilities: &[KvAbility],
        expiry: Millis,
    ) -> Result<Token, Error> {
        let resource = Resource::in_space(self.id(), "kv", path.map(KeyPath::as_str));
        if let Some(ability) = abilities.iter().find(|ability| !self.session.allows(&resource, ability.as_str())) {
            return Err(Error::Session(format!("does not reach {ability} on {resource}")));
        }
        let own = self.session.delegation();
        let window = Window::delegation(clock::now(), Some(expiry), [own]);
        let grants = Grants::kv(self.id(), path, abilities);
        token::by_key(self.session.key(), to, grants, window, vec![own.address()])
    }

    /// Delegates with the owner's own signature, so that the delegation outlives this session.
    ///
    /// # Errors
    /// [`Error`] as of any call.
    pub async fn delegate_as_owner(
        &self,
        owner: &OwnerKey,
        to: &Did,
        path: Option<&KeyPath>,
        abilities: &[KvAbility],
        expiry: Millis,
    ) -> Result<Token, Error> {
        let grants = Grants::kv(self.id(), path, abilities);
        let window = Window::delegation(clock::now(), Some(expiry), []);
        let token = token::by_owner(owner, to, grants, window, Vec::new())?;
        self.client.delegate(&token).await?;
        Ok(token)
    }

    /// Revokes a delegation and all that rests on it: one that this session made, or, where the session holds the right
    /// to revoke, any of the space.
    ///
    /// # Errors
    /// [`Error`] as of any call.
    pub async fn revoke(&self, target: &Address, after: After) -> Result<(), Error> {
        let after = self.resolve(after).await?;
        let own = self.session.delegation();
        let holds = self.session.allows(&Resource::in_space(self.id(), "delegation", None), Ability::REVOKE);
        let proofs: &[&Token] = if holds { &[own] } else { &[] };
        let ending = Ending { space: self.id(), target, after: &after };
        self.client.revoke(&token::revocation_by_key(self.session.key(), &ending, proofs, clock::now())?).await
    }

    /// Revokes a delegation of the space with the owner's own signature, which no session's end can touch.
    ///
    /// # Errors
    /// [`Error`] as of any call.
    pub async fn revoke_as_owner(&self, owner: &OwnerKey, target: &Address, after: After) -> Result<(), Error> {
        let after = self.resolve(after).await?;
        let ending = Ending { space: self.id(), target, after: &after };
        self.client.revoke(&token::revocation_by_owner(owner, &ending, clock::now())?).await
    }

    /// The heads of the space's log at this node (`GET /v0/frontier`). Whoever may do anything in the space may ask.
    ///
    /// # Errors
    /// [`Error`] as of any call.
    pub async fn frontier(&self) -> Result<Vec<EpochId>, Error> {
        #[derive(Deserialize)]
        struct Frontier {
            frontier: Vec<EpochId>,
        }
        let (resource, ability) = self.any_right();
        let token = self.sign(&resource, ability, None, clock::now())?;
        let path = format!("v0/frontier?space={}", escaped(self.id().as_str()));
        let call = Call::new(http::Method::GET, path).authorized(&token.to_header())?;
        let answer: Frontier = self.client.json(call).await?;
        Ok(answer.frontier)
    }

    /// Something that this session may do: to ask for the space's state, or else what it may do with values.
    fn any_right(&self) -> (Resource, &'static str) {
        let info = Resource::in_space(self.id(), "space", None);
        let held = self.session.delegation().capabilities().iter();
        let inside =
            held.filter(|held| !self.session.allows(&info, SPACE_INFO) && held.resource.space() == Some(self.id()));
        let mut values = inside.filter_map(|held| {
            let ability = KvAbility::ALL.into_iter().find(|ability| ability.as_str() == held.ability.canonical())?;
            Some((held.resource.clone(), ability.as_str()))
        });
        values.next().unwrap_or((info, SPACE_INFO))
    }

    async fn resolve(&self, after: After) -> Result<Vec<EpochId>, Error> {
        match after {
            After::NodeFrontier => self.frontier().await,
            After::Epochs(epochs) => Ok(epochs),
        }
    }
}
