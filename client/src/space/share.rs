//! Letting others in, and out again.

use super::Space;
use crate::{
    Error, Grants, KeyPath, KvAbility, OwnerKey, clock,
    hosts::Preview,
    token::{self, Ending, Window},
};
use kvspace_protocol::{
    capability::{Ability, Resource, Token},
    id::{Address, Did, EpochId, Millis},
};

/// Who signs a revocation.
#[derive(Clone, Copy)]
enum Revoker<'a> {
    Session,
    Owner(&'a OwnerKey),
}

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
    /// to revoke, any of the space. What was written under it stays as far as `after` says.
    ///
    /// # Errors
    /// [`Error`] as of any call.
    pub async fn revoke(&self, target: &Address, after: After) -> Result<(), Error> {
        let after = self.resolve(after).await?;
        self.client.revoke(&self.revocation(Revoker::Session, target, &after)?).await
    }

    /// Revokes a delegation of the space with the owner's own signature, which no session's end can touch.
    ///
    /// # Errors
    /// [`Error`] as of any call.
    pub async fn revoke_as_owner(&self, owner: &OwnerKey, target: &Address, after: After) -> Result<(), Error> {
        let after = self.resolve(after).await?;
        self.client.revoke(&self.revocation(Revoker::Owner(owner), target, &after)?).await
    }

    /// The writes that [`Space::revoke`] would take the effect from, as far as the node knows them. Nothing is changed.
    ///
    /// # Errors
    /// [`Error`] as of revoking.
    pub async fn preview_revocation(&self, target: &Address, after: &[EpochId]) -> Result<Preview, Error> {
        self.client.preview(&self.revocation(Revoker::Session, target, after)?).await
    }

    /// The same for [`Space::revoke_as_owner`].
    ///
    /// # Errors
    /// [`Error`] as of revoking.
    pub async fn preview_revocation_as_owner(
        &self,
        owner: &OwnerKey,
        target: &Address,
        after: &[EpochId],
    ) -> Result<Preview, Error> {
        self.client.preview(&self.revocation(Revoker::Owner(owner), target, after)?).await
    }

    fn revocation(&self, revoker: Revoker<'_>, target: &Address, after: &[EpochId]) -> Result<Token, Error> {
        let ending = Ending { space: self.id(), target, after };
        match revoker {
            Revoker::Owner(owner) => token::revocation_by_owner(owner, &ending, clock::now()),
            Revoker::Session => {
                let own = self.session.delegation();
                let holds = self.session.allows(&Resource::in_space(self.id(), "delegation", None), Ability::REVOKE);
                let proofs: &[&Token] = if holds { &[own] } else { &[] };
                token::revocation_by_key(self.session.key(), &ending, proofs, clock::now())
            }
        }
    }

    async fn resolve(&self, after: After) -> Result<Vec<EpochId>, Error> {
        match after {
            After::NodeFrontier => self.frontier().await,
            After::Epochs(epochs) => Ok(epochs),
        }
    }
}
