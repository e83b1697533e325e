//! Writing: authority, then the space's actor, then the answer once it is durable.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, atomic::Ordering},
};

use kvspace_protocol::{
    authority::{Access, Denied, Proof, Purpose, chain, spaces_to_host},
    capability::{Role, Token},
    id::{Address, Did, Millis, SpaceId},
    space::{NewValue, Reply, Write, Written},
};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::{Admit, Body, Delegated, Node, NodeError, WriteRequest};
use crate::{
    blobs::Upload,
    disk::is_full,
    hosted::Hosted,
    messages::{Answer, Call, Held, Request},
};

impl Node {
    /// A file to stage a large value in.
    ///
    /// # Errors
    /// [`NodeError::DiskFull`], [`NodeError::Storage`].
    pub async fn upload(&self) -> Result<Upload, NodeError> {
        self.check_room()?;
        self.inner.storage.blobs.upload().await.map_err(NodeError::from)
    }

    /// Writes and waits until it is durable.
    ///
    /// # Errors
    /// [`NodeError`]; nothing was changed.
    pub async fn write(&self, request: WriteRequest) -> Result<Written, NodeError> {
        let WriteRequest { space, token, authorized, body, meta, condition } = request;
        if body.is_some() {
            self.check_room()?;
        }
        let hosted = self.hosted(&space).await?;
        self.caught_up(&hosted).await?;
        self.hold(&hosted, &token).await?;
        let mut held = Held::default();
        let value = body.map(|body| match body {
            Body::Inline { hash, bytes, permit } => {
                held.bytes = Some(permit);
                NewValue { blob: hash, size: bytes.len() as u64, meta, inline: Some(bytes) }
            }
            Body::Staged(file) => {
                let value = NewValue { blob: file.hash, size: file.size, meta, inline: None };
                held.file = Some(file);
                value
            }
        });
        let (authorized_at, borrowed) = (authorized.generation, authorized.borrowed);
        let write = Write { token, authorized_at, borrowed, value, condition };
        match self.call(&hosted, held, |answer| Call::Write(write, answer)).await? {
            Reply::Written(written) => Ok(written),
            Reply::Taken(_) | Reply::Held => Err(NodeError::Storage("a write was answered as a delegation".into())),
        }
    }

    /// What `delegate` answers for a delegation that every hosted space it names holds already; nothing is checked again.
    ///
    /// # Errors
    /// [`NodeError::Storage`].
    pub fn delegated(&self, token: &Token) -> Result<Option<Delegated>, NodeError> {
        let address = token.address();
        let (mut hosted, mut skipped) = (0_usize, Vec::new());
        // The index is asked and no space is opened: nobody has looked at the signature yet.
        for space in named(token) {
            match self.inner.storage.index.space(space)? {
                Some(index) if index.holds(&address)? => hosted += 1,
                Some(_) => return Ok(None),
                None => skipped.push(space.clone()),
            }
        }
        Ok((hosted > 0).then(|| Delegated { cid: address, activated: Vec::new(), skipped }))
    }

    /// Takes a delegation in; its time and signature are the caller's part.
    ///
    /// # Errors
    /// [`NodeError`].
    pub async fn delegate(&self, token: Proof, now: Millis) -> Result<Delegated, NodeError> {
        if token.role() != Role::Delegation {
            return Err(Denied::Delegator(token.issuer().clone()).into());
        }
        // The pool holds what every log holds, so this is the whole question, but for revocations.
        let judge = |others: &_| chain(&token, Purpose::Delegate, others).map(drop);
        self.with_proofs(named(&token).first().copied(), now, judge).await?;
        self.check_room()?;
        let address = token.address();
        let (hosted, mut unhosted) = self.named(&token).await?;
        let mut activated = Vec::new();
        for hosted in hosted {
            if self.take(&hosted, &token, now).await? {
                activated.push(hosted.id.clone());
            }
        }
        let to_create: Vec<_> = unhosted.extract_if(.., |space| self.is_to_host(&token, space)).collect();
        for space in to_create {
            if !self.admits(space.owner()) {
                return Err(NodeError::NotAdmitted(space.owner().clone()));
            }
            self.create(&space, &token, now).await?;
            activated.push(space);
        }
        for space in unhosted.iter().filter(|space| space.owner() == token.issuer()) {
            self.inner.pool.park(space, &token, now);
        }
        activated.sort();
        Ok(Delegated { cid: address, activated, skipped: unhosted })
    }

    /// Takes in a host delegation that a peer showed, for this space alone, if it holds with these others; true when it was
    /// new. A space is made for it only if `may_make` says so.
    ///
    /// # Errors
    /// [`NodeError`]; nothing was kept.
    pub(crate) async fn take_shown(
        &self,
        token: &Proof,
        space: &SpaceId,
        others: &BTreeMap<Address, Proof>,
        may_make: &(dyn Fn() -> bool + Sync),
        now: Millis,
    ) -> Result<bool, NodeError> {
        let hosted = self.space(space).await?;
        if hosted.as_ref().is_some_and(|hosted| hosted.access().holds(&token.address())) {
            return Ok(false);
        }
        let known = |found: &BTreeMap<Address, Proof>| {
            let mut known = others.clone();
            known.extend(found.iter().map(|(address, proof)| (*address, proof.clone())));
            known
        };
        let chain = self.with_pool(now, |found| chain(token, Purpose::Delegate, &known(found)))?;
        self.check_room()?;
        if hosted.is_none() {
            if !self.is_to_host(token, space) {
                return Err(NodeError::NotHosted);
            }
            if !self.admits(space.owner()) {
                return Err(NodeError::NotAdmitted(space.owner().clone()));
            }
            if !may_make() {
                return Err(NodeError::Busy);
            }
        }
        self.inner.pool.borrow(&chain.members().map(|(_, proof)| proof.clone()).collect::<Vec<_>>());
        match hosted {
            Some(hosted) => self.take(&hosted, token, now).await,
            None => self.create(space, token, now).await.map(|()| true),
        }
    }

    /// Takes a revocation in; its time and signature are the caller's part. Gives back what it ended.
    ///
    /// # Errors
    /// [`NodeError`].
    pub async fn revoke(&self, token: Proof, now: Millis) -> Result<Address, NodeError> {
        let Role::Revocation { target: address } = token.role() else { return Err(Denied::Revoker.into()) };
        let target = self.revoked_by(&token, &address, now).await?;
        let (hosted, _) = self.named(&target).await?;
        let mut refusal: NodeError = Denied::MissingParent(Some(address)).into();
        let mut taken = false;
        for hosted in hosted {
            match self.judged_twice(&hosted, &token, now, async || self.see_all(&hosted, &token).await).await {
                Ok(borrowed) => {
                    self.take_token(&hosted, token.clone(), borrowed).await?;
                    taken = true;
                }
                Err(error) => refusal = error,
            }
        }
        if taken { Ok(address) } else { Err(refusal) }
    }

    /// What a revocation rests on and the space's log does not hold, if it may be taken in. It is judged before anybody waits
    /// for it, and again afterwards.
    pub(super) async fn judged_twice(
        &self,
        hosted: &Arc<Hosted>,
        token: &Proof,
        now: Millis,
        wait: impl AsyncFnOnce() -> Result<(), NodeError>,
    ) -> Result<Vec<Proof>, NodeError> {
        let judge = |others: &_| hosted.access().revocation(token, others);
        self.with_proofs(Some(&hosted.id), now, judge).await?;
        wait().await?;
        Ok(self.with_proofs(Some(&hosted.id), now, judge).await?.1)
    }

    /// Waits for what a revocation has seen. Without `after` it voids what its carrier has not seen, so this host sees first
    /// what the others have.
    async fn see_all(&self, hosted: &Arc<Hosted>, token: &Token) -> Result<(), NodeError> {
        self.hold(hosted, token).await?;
        if let Some(replication) = self.inner.replication.get()
            && token.after(&hosted.id).is_none()
            && !replication.catch_up(self, hosted).await
        {
            tracing::debug!(space = %hosted.id, "a revocation is taken in without the other hosts");
        }
        Ok(())
    }

    /// The delegation that a revocation ends; the hosts of the spaces that it names are asked if need be.
    pub(super) async fn revoked_by(&self, token: &Token, address: &Address, now: Millis) -> Result<Proof, NodeError> {
        let found = |pool: &crate::pool::Pool| pool.find(address, now);
        if let (None, Some(replication)) = (found(&self.inner.pool)?, self.inner.replication.get()) {
            for space in token.after_spaces().filter(|space| self.hosts(space).unwrap_or(false)).take(1) {
                replication.find_proof(self, space, address).await;
            }
        }
        let missing = || Denied::MissingParent(Some(*address));
        Ok(found(&self.inner.pool)?.ok_or_else(missing)?)
    }

    /// Waits for the epochs of a space that a token has seen, and that are not held here. The space says later which are
    /// still missing.
    pub(super) async fn hold(&self, hosted: &Arc<Hosted>, token: &Token) -> Result<(), NodeError> {
        let after = token.after(&hosted.id).unwrap_or_default();
        match self.wait_in(hosted, after, self.inner.options.pending_wait).await {
            Ok(()) | Err(NodeError::Behind(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The spaces that a token names: those hosted here, and the others.
    pub(super) async fn named(&self, token: &Token) -> Result<(Vec<Arc<Hosted>>, Vec<SpaceId>), NodeError> {
        let (mut hosted, mut others) = (Vec::new(), Vec::new());
        for space in named(token) {
            match self.space(space).await? {
                Some(here) => hosted.push(here),
                None => others.push(space.clone()),
            }
        }
        Ok((hosted, others))
    }

    /// Whether this delegation makes the node a host of a space it does not host yet.
    fn is_to_host(&self, token: &Token, space: &SpaceId) -> bool {
        let owner = space.owner();
        let owned_by_node = *owner == self.inner.did && owner == token.issuer();
        let names_node =
            token.audience_did() == Some(&self.inner.did) && spaces_to_host(token).any(|named| named == space);
        names_node || owned_by_node
    }

    /// Whether spaces of this owner are taken.
    pub(crate) fn admits(&self, owner: &Did) -> bool {
        match &self.inner.options.admit {
            Admit::Any => true,
            Admit::None => false,
            Admit::Owners(owners) => owners.contains(owner),
        }
    }

    /// Takes a delegation into the log of a hosted space; false when it was there.
    async fn take(&self, hosted: &Arc<Hosted>, token: &Proof, now: Millis) -> Result<bool, NodeError> {
        if hosted.access().holds(&token.address()) {
            return Ok(false);
        }
        let allowed = self.with_pool(now, |others| hosted.access().delegation(token, others))?;
        Ok(matches!(self.take_token(hosted, token.clone(), allowed.borrowed).await?, Reply::Taken(_)))
    }

    /// Begins to host a space: its first epoch holds the host delegation. Then comes what was parked for it.
    ///
    /// A task of its own: who asked may go away meanwhile, and the space is still made once.
    async fn create(&self, space: &SpaceId, token: &Proof, now: Millis) -> Result<(), NodeError> {
        let (node, space, token) = (self.clone(), space.clone(), token.clone());
        let made = tokio::spawn(async move { node.make(&space, &token, now).await });
        made.await.unwrap_or_else(|error| Err(NodeError::Storage(error.to_string())))
    }

    async fn make(&self, space: &SpaceId, token: &Proof, now: Millis) -> Result<(), NodeError> {
        let spaces = &self.inner.spaces;
        let lane = spaces.lane(space).await;
        if let Some(hosted) = spaces.open(&lane, space, &self.inner.registry).await? {
            drop(lane);
            return self.take(&hosted, token, now).await.map(drop);
        }
        let unknown = Access::new(space.clone());
        let allowed = self.with_pool(now, |others| unknown.delegation(token, others))?;
        let index = self.inner.storage.index.new_space(space);
        let hosted = Arc::new(Hosted::opened(index, self.inner.registry.new_core(space)));
        if let Err(error) = self.take_token(&hosted, token.clone(), allowed.borrowed).await {
            // The actor and its space hold each other: nobody else knows of them, so that ends here.
            drop(hosted.actor.lock().await.take());
            return Err(error);
        }
        spaces.insert(hosted.clone());
        drop(lane);
        tracing::info!(%space, "hosting a new space");
        for parked in self.inner.pool.unpark(space, now) {
            if let Err(error) = self.take(&hosted, &parked, now).await {
                tracing::debug!(%space, %error, "a parked delegation was not taken in");
            }
        }
        if let Some(replication) = self.inner.replication.get() {
            let mut peers = replication.network().connected();
            peers.retain(|peer| replication.network().is_configured(peer));
            replication.introduce(self, space, &peers);
        }
        Ok(())
    }

    async fn take_token(&self, hosted: &Arc<Hosted>, token: Proof, borrowed: Vec<Proof>) -> Result<Reply, NodeError> {
        self.call(hosted, Held::default(), |answer| Call::Token { token, borrowed, answer }).await
    }

    /// Asks a space's actor and waits for the answer.
    pub(super) async fn call<T>(
        &self,
        hosted: &Arc<Hosted>,
        mut held: Held,
        call: impl FnOnce(Answer<T>) -> Call,
    ) -> Result<T, NodeError> {
        held.under_way = Some(self.under_way().await?);
        held.place = Some(self.within_wait(hosted.places.clone()).await?);
        let (answer, answered) = oneshot::channel();
        self.inner.registry.deliver(hosted, Request { call: call(answer), held }).await;
        let gone = || NodeError::Storage("the space's actor failed; repeat the request".into());
        answered.await.unwrap_or_else(|_| Err(gone()))
    }

    /// Refuses what would take room that is to stay free.
    pub(super) fn check_room(&self) -> Result<(), NodeError> {
        if self.inner.room.is_short() { Err(NodeError::DiskFull) } else { Ok(()) }
    }

    async fn under_way(&self) -> Result<OwnedSemaphorePermit, NodeError> {
        if self.inner.stopping.load(Ordering::SeqCst) {
            return Err(NodeError::Stopping);
        }
        self.within_wait(self.inner.calls.clone()).await
    }

    async fn within_wait(&self, places: Arc<tokio::sync::Semaphore>) -> Result<OwnedSemaphorePermit, NodeError> {
        let waited = tokio::time::timeout(self.inner.options.permit_wait, places.acquire_owned()).await;
        waited.ok().and_then(Result::ok).ok_or(NodeError::Busy)
    }
}

/// The spaces that a token names.
fn named(token: &Token) -> BTreeSet<&SpaceId> {
    token.capabilities().iter().filter_map(|held| held.resource.space()).collect()
}

impl From<std::io::Error> for NodeError {
    fn from(error: std::io::Error) -> Self {
        if is_full(&error) { Self::DiskFull } else { Self::Storage(error.to_string()) }
    }
}
