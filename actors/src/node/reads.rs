//! Reading: never through a mailbox. What is read was acknowledged.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
use futures::future::BoxFuture;
use kvspace_protocol::{
    authority::{Denied, Grants, Proof},
    capability::lies_beneath,
    id::{Address, BlobHash, EpochId, Key, Millis, SpaceId},
    kv::{Effect, Operation},
    limits::{INLINE_BYTES_MAX, PROOFS_MAX},
};
use tokio::{
    io::AsyncReadExt as _,
    sync::{OwnedSemaphorePermit, Semaphore},
};

use super::{Authorized, Content, Found, ListQuery, Lookup, Node, NodeError, Page, SMALL_BODY_BYTES_MAX};
use crate::{
    clock,
    hosted::Hosted,
    index::{PageQuery, Stored},
    log::ReadError,
};

/// Entries that a list passes before others get their turn: a few milliseconds.
const LOOK_MAX: usize = 1024;

/// Proofs of one token that other hosts are asked for.
const PROOFS_ASKED_MAX: usize = 4;

/// A value whose bytes are not here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PendingValue {
    pub(crate) space: SpaceId,
    /// The epoch that put it there.
    pub(crate) epoch: EpochId,
    pub(crate) hash: BlobHash,
    pub(crate) size: u64,
}

/// Whoever fetches values from other hosts.
pub(crate) trait Pending: Send + Sync {
    /// Waits for the file of a value that somebody wants to read; false when it will not come soon. Who waits goes away
    /// after [`super::Options::pending_wait`].
    fn wait(&self, value: PendingValue) -> BoxFuture<'_, bool>;
}

impl Node {
    /// Whether this node hosts the space.
    ///
    /// # Errors
    /// [`NodeError::Storage`].
    pub fn hosts(&self, space: &SpaceId) -> Result<bool, NodeError> {
        Ok(self.inner.spaces.is_active(space) || self.inner.storage.index.space(space)?.is_some())
    }

    /// Judges an invocation on one of its spaces; time, lifetime and signature are the caller's part.
    ///
    /// # Errors
    /// [`NodeError::NotHosted`] or [`NodeError::Denied`].
    pub async fn authorize(&self, space: &SpaceId, token: &Proof, now: Millis) -> Result<Authorized, NodeError> {
        let hosted = self.hosted(space).await?;
        let judge = |others: &_| hosted.access().invocation(token, now, others);
        let allowed = self.with_proofs(Some(space), now, judge).await?;
        Ok(Authorized { generation: allowed.generation, grants: allowed.grants, borrowed: allowed.borrowed })
    }

    /// The last acknowledged state of a key.
    ///
    /// # Errors
    /// [`NodeError::NotHosted`], [`NodeError::Storage`].
    pub async fn lookup(&self, space: &SpaceId, key: &str) -> Result<Lookup, NodeError> {
        let Some(Stored { operation, at, .. }) = self.hosted(space).await?.index.find(key)? else {
            return Ok(Lookup::Never);
        };
        let Operation { key, version, integrity, effect, .. } = operation;
        Ok(match effect {
            Effect::Delete => Lookup::Deleted(version),
            Effect::Put(value) => Lookup::Live(Found { version, value, integrity, key, at }),
        })
    }

    /// The bytes of a found value.
    ///
    /// # Errors
    /// [`NodeError::Busy`] when memory stays short, [`NodeError::BlobPending`], [`NodeError::BlobGone`],
    /// [`NodeError::Storage`].
    pub async fn read(&self, space: &SpaceId, found: &Found) -> Result<Content, NodeError> {
        let (hash, size) = (found.value.blob, found.value.size);
        if size > INLINE_BYTES_MAX {
            return Ok(Content::File(tokio::fs::File::from_std(self.file(space, found).await?), size));
        }
        let permit = self.share(&self.inner.bytes_out, size).await?;
        let in_log = match found.at.map(|at| self.inner.storage.log.read_blob(at)) {
            Some(Ok(bytes)) => Some(bytes),
            None | Some(Err(ReadError::Freed(_))) => None,
            Some(Err(error)) => return Err(NodeError::Storage(error.to_string())),
        };
        let (bytes, metadata) = match in_log {
            Some(bytes) => (bytes, None),
            None => {
                let file = self.file(space, found).await?;
                let metadata = file.metadata().ok();
                (whole(file, size).await?, metadata)
            }
        };
        if BlobHash::of(&bytes) != hash {
            self.replace(space, found, metadata).await;
            tracing::error!(%space, %hash, "the bytes of a value are not what they should be");
            return Err(NodeError::Storage("the value's bytes are damaged".into()));
        }
        Ok(Content::Whole(bytes, permit))
    }

    /// The file of a value, if need be after it has come.
    async fn file(&self, space: &SpaceId, found: &Found) -> Result<std::fs::File, NodeError> {
        let (hash, size) = (&found.value.blob, found.value.size);
        let open = async || {
            let opened = self.inner.storage.blobs.open_blob(hash).await;
            opened.map_err(|error| NodeError::Storage(error.to_string()))
        };
        let mut opened = open().await?;
        if opened.is_none() {
            self.note_file(space, found).await?;
        }
        if opened.is_none() && self.pending(space, found).await {
            opened = open().await?;
        }
        let Some((file, found_bytes)) = opened else { return Err(self.missing(space, hash).await?) };
        if found_bytes != size {
            tracing::error!(%space, %hash, size, found_bytes, "the file of a value has not the value's size");
            self.replace(space, found, file.metadata().ok()).await;
            return Err(NodeError::Storage("the value's bytes are damaged".into()));
        }
        Ok(file)
    }

    /// Has a file whose bytes are wrong fetched again, if it can be.
    async fn replace(&self, space: &SpaceId, found: &Found, rotten: Option<std::fs::Metadata>) {
        let (Some(replication), Some(rotten)) = (self.inner.replication.get(), rotten) else { return };
        let (replication, node, value) = (replication.clone(), self.clone(), pending_value(space, found));
        tokio::task::spawn_blocking(move || replication.replace(&node, value, &rotten)).await.ok();
    }

    /// Has the index say that a value is wanted whose file is not here.
    async fn note_file(&self, space: &SpaceId, found: &Found) -> Result<(), NodeError> {
        let (hosted, key, version) = (self.hosted(space).await?, found.key.clone(), found.version);
        let noted = tokio::task::spawn_blocking(move || hosted.index.note_file(&key, &version)).await;
        Ok(noted.map_err(|error| NodeError::Storage(error.to_string()))??)
    }

    /// Waits for the bytes of a value that are not here; true when they may have come.
    async fn pending(&self, space: &SpaceId, found: &Found) -> bool {
        let Some(pending) = self.inner.pending.get().filter(|_| !self.inner.room.is_short()) else { return false };
        let value = pending_value(space, found);
        tokio::time::timeout(self.inner.options.pending_wait, pending.wait(value)).await.unwrap_or(false)
    }

    /// What a value is whose bytes are not here: on its way while there is somebody to get it from.
    async fn missing(&self, space: &SpaceId, hash: &BlobHash) -> Result<NodeError, NodeError> {
        let hosted = self.hosted(space).await?;
        let mut hosts = hosted.access().hosts(clock::now());
        // Nobody names the owner, who may host by the owner's own key.
        let owner = space.owner().ed25519().filter(|_| *space.owner() != self.inner.did);
        let dag = hosted.dag();
        let owner_hosts = owner.is_some_and(|key| dag.branches().iter().any(|branch| branch.host.0 == key));
        hosts.remove(&self.inner.host);
        hosts.retain(|host| owner.is_none_or(|owner| host.0 != owner) || owner_hosts);
        // A host that is connected and said that it does not have it is nobody to get it from.
        if let Some(replication) = self.inner.replication.get() {
            let missing = replication.fetcher().missing_at(hash, space);
            hosts.retain(|host| !missing.contains(host) || !replication.network().is_connected(host));
        }
        Ok(if hosts.is_empty() { NodeError::BlobGone } else { NodeError::BlobPending })
    }

    /// Keys with a live value.
    ///
    /// # Errors
    /// [`NodeError::NotHosted`].
    pub async fn list(&self, space: &SpaceId, query: &ListQuery) -> Result<Page, NodeError> {
        let hosted = self.hosted(space).await?;
        let after = query.after.as_deref();
        let wanted = |key: &str| {
            let listed = query.path.is_empty() || lies_beneath(&query.path, key);
            listed && after.is_none_or(|after| key > after) && is_granted(&query.grants, key)
        };
        let take_max = query.limit.unwrap_or(usize::MAX);
        let mut from = after.map_or(&*query.path, |after| after.max(&query.path)).to_owned();
        let mut keys: Vec<Key> = Vec::new();
        loop {
            let page = hosted.index.page(&PageQuery {
                from: &from,
                prefix: &query.path,
                wanted: &wanted,
                take_max: take_max - keys.len(),
                look_max: LOOK_MAX,
            })?;
            keys.extend(page.keys);
            match page.next {
                Some(next) => from = next.to_string(),
                None => return Ok(Page { keys, truncated: page.has_more }),
            }
            // Nobody else waits for a long list.
            tokio::task::yield_now().await;
        }
    }

    /// The ids of a space's heads.
    ///
    /// # Errors
    /// [`NodeError::NotHosted`].
    pub async fn frontier(&self, space: &SpaceId) -> Result<Vec<EpochId>, NodeError> {
        Ok(self.hosted(space).await?.frontier())
    }

    /// A share of the memory for bodies on their way in, given back when it is dropped.
    ///
    /// # Errors
    /// [`NodeError::Busy`] when none is free in time.
    pub async fn body_permit(&self, bytes: u64) -> Result<OwnedSemaphorePermit, NodeError> {
        let inner = &self.inner;
        self.share(if bytes <= SMALL_BODY_BYTES_MAX { &inner.small_bytes_in } else { &inner.bytes_in }, bytes).await
    }

    async fn share(&self, of: &Arc<Semaphore>, bytes: u64) -> Result<OwnedSemaphorePermit, NodeError> {
        let bytes = u32::try_from(bytes).map_err(|_| NodeError::Busy)?;
        if let Ok(permit) = of.clone().try_acquire_many_owned(bytes) {
            return Ok(permit);
        }
        let waited = tokio::time::timeout(self.inner.options.permit_wait, of.clone().acquire_many_owned(bytes)).await;
        waited.ok().and_then(Result::ok).ok_or(NodeError::Busy)
    }

    pub(super) async fn hosted(&self, space: &SpaceId) -> Result<Arc<Hosted>, NodeError> {
        self.space(space).await?.ok_or(NodeError::NotHosted)
    }

    /// As [`Node::with_pool`]; a proof that nobody here knows is asked of the other hosts of the space.
    pub(super) async fn with_proofs<T>(
        &self,
        space: Option<&SpaceId>,
        now: Millis,
        judge: impl Fn(&BTreeMap<Address, Proof>) -> Result<T, Denied>,
    ) -> Result<T, NodeError> {
        let mut asked = BTreeSet::new();
        loop {
            let judged = self.with_pool(now, &judge);
            let Err(NodeError::Denied(Denied::MissingParent(Some(missing)))) = &judged else { return judged };
            let (Some(space), Some(replication)) = (space, self.inner.replication.get()) else { return judged };
            // What comes brings all that it rests on, so this is asked once for each that the token cites itself.
            if asked.len() >= PROOFS_ASKED_MAX || !asked.insert(*missing) {
                return judged;
            }
            replication.find_proof(self, space, missing).await;
        }
    }

    /// Judges with the proofs that a space's own log holds, and looks for the missing ones among all this node knows.
    pub(super) fn with_pool<T>(
        &self,
        now: Millis,
        judge: impl Fn(&BTreeMap<Address, Proof>) -> Result<T, Denied>,
    ) -> Result<T, NodeError> {
        let mut found = BTreeMap::new();
        loop {
            let missing = match judge(&found) {
                Err(Denied::MissingParent(Some(address))) if found.len() < PROOFS_MAX => address,
                judged => return Ok(judged?),
            };
            match self.inner.pool.find(&missing, now)? {
                Some(proof) if !found.contains_key(&missing) => drop(found.insert(missing, proof)),
                Some(_) | None => return Err(Denied::MissingParent(Some(missing)).into()),
            }
        }
    }
}

fn pending_value(space: &SpaceId, found: &Found) -> PendingValue {
    let (space, epoch) = (space.clone(), found.version.epoch);
    PendingValue { space, epoch, hash: found.value.blob, size: found.value.size }
}

/// All of a small file.
async fn whole(file: std::fs::File, size: u64) -> Result<Bytes, NodeError> {
    let failed = |error: std::io::Error| NodeError::Storage(error.to_string());
    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or_default());
    let mut file = tokio::fs::File::from_std(file).take(size);
    file.read_to_end(&mut bytes).await.map_err(failed)?;
    Ok(bytes.into())
}

fn is_granted(grants: &Grants, key: &str) -> bool {
    match grants {
        Grants::Owner => true,
        Grants::Under(held) => held.iter().any(|held| held.resource.path().is_none_or(|base| lies_beneath(base, key))),
    }
}
