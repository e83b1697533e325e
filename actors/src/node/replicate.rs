//! What replication needs of a node.

use std::{collections::BTreeSet, sync::Arc};

use kvspace_protocol::{
    authority::Proof,
    id::{BlobHash, EpochId, HostKey, SpaceId},
    space::{Arrived, Taken},
    sync::compare::Items,
};

use super::{Node, NodeError};
use crate::{
    blobs::Blobs,
    clock,
    fetch::Source,
    hosted::Hosted,
    index::{IndexError, Wanted},
    messages::{Call, Held, WantedValue},
};

impl Node {
    pub(crate) fn blobs(&self) -> &Blobs {
        &self.inner.storage.blobs
    }

    /// A hosted space; `None` if it is not hosted here.
    pub(crate) async fn hosted_here(&self, space: &SpaceId) -> Result<Option<Arc<Hosted>>, NodeError> {
        self.space(space).await
    }

    /// The items of the spaces shared with a peer; `None` when they cannot be read.
    pub(crate) async fn shared_items(&self, peer: HostKey) -> Option<Items> {
        let shared = self.inner.storage.shared.clone();
        let items = tokio::task::spawn_blocking(move || shared.items(&peer)).await;
        match items {
            Ok(Ok(items)) => Some(items),
            Ok(Err(error)) => {
                tracing::error!(%error, "cannot read which spaces are shared");
                None
            }
            Err(error) => {
                tracing::error!(%error, "looking for shared spaces failed");
                None
            }
        }
    }

    /// Whether the log names this peer a host of the space, its delegation in force or not.
    pub(crate) fn is_named_host(&self, space: &SpaceId, peer: &HostKey) -> bool {
        self.inner.storage.index.is_named_host(space, peer).unwrap_or(false)
    }

    /// Whether proofs and values of a space are asked of this peer: a live host, as far as can be told without opening the
    /// space.
    pub(crate) fn is_host_to_ask(&self, space: &SpaceId, peer: &HostKey) -> bool {
        match self.inner.spaces.if_in_memory(space) {
            Some(hosted) => hosted.access().is_host(peer, clock::now()),
            None => self.is_named_host(space, peer),
        }
    }

    /// Forgets what is kept about a peer that is gone.
    pub(crate) fn forget_peer(&self, peer: &HostKey) {
        self.inner.storage.shared.forget(peer);
    }

    /// Whether this peer may be a host of the space, as far as can be told without opening it.
    pub(crate) fn may_be_host(&self, space: &SpaceId, peer: &HostKey) -> bool {
        self.is_named_host(space, peer) || peer.did() == *space.owner()
    }

    /// Whether any log here names this peer a host.
    pub(crate) fn is_host_of_some(&self, peer: &HostKey) -> bool {
        self.inner.storage.index.hosted_by(*peer).next().is_some()
    }

    /// The spaces in memory.
    pub(crate) fn spaces_in_memory(&self) -> Vec<Arc<Hosted>> {
        self.inner.spaces.in_memory()
    }

    /// Those of them of which no other host is known.
    pub(crate) fn spaces_alone(&self) -> Vec<SpaceId> {
        let mut spaces = self.inner.spaces.in_memory();
        spaces.retain(|hosted| *self.did() != *hosted.id.owner() && self.other_hosts(hosted).is_empty());
        spaces.into_iter().map(|hosted| hosted.id.clone()).collect()
    }

    /// The live hosts of a space, without this one. The owner's own key is one only if a node has it.
    pub(crate) fn other_hosts(&self, hosted: &Hosted) -> BTreeSet<HostKey> {
        let (mut hosts, dag) = (hosted.access().hosts(clock::now()), hosted.dag());
        let is_node = |host: &HostKey| dag.branches().iter().any(|branch| branch.host == *host);
        hosts.retain(|host| *host != self.inner.host && (host.did() != *hosted.id.owner() || is_node(host)));
        hosts
    }

    /// The live hosts of the spaces in memory, without this one.
    pub(crate) fn hosts_of_active_spaces(&self) -> BTreeSet<HostKey> {
        let now = clock::now();
        let hosts = self.inner.spaces.in_memory().into_iter().flat_map(|hosted| hosted.access().hosts(now));
        hosts.filter(|host| *host != self.inner.host).collect()
    }

    /// Has a space take in epochs of peers; the answer comes when all that was taken is durable. When the disk is nearly full
    /// their values are left out, which are fetched later: revocations and deletes go on as long as the log has room.
    pub(crate) async fn take_epochs(
        &self,
        hosted: &Arc<Hosted>,
        from: HostKey,
        mut epochs: Vec<Arrived>,
    ) -> Result<Taken, NodeError> {
        if self.inner.room.is_short() {
            epochs.iter_mut().for_each(|arrived| arrived.values = Vec::new());
        }
        self.call(hosted, Held::default(), |answer| Call::Epochs { from: Some(from), epochs, answer }).await
    }

    /// Keeps delegations that a peer gave where proofs are looked for.
    pub(crate) fn borrow_proofs(&self, proofs: &[Proof]) {
        self.inner.pool.borrow(proofs);
    }

    /// Of these values those whose bytes are neither in the log nor in a file; none while there is no room for them.
    pub(crate) async fn lacking_values(&self, space: &SpaceId, wanted: Vec<WantedValue>) -> Vec<WantedValue> {
        if self.inner.room.is_short() {
            return Vec::new();
        }
        let (index, blobs) = (self.inner.storage.index.clone(), self.blobs().clone());
        let space = space.clone();
        let lacking = move || -> Result<Vec<WantedValue>, IndexError> {
            let Some(index) = index.space(&space)? else { return Ok(Vec::new()) };
            let mut lacking = Vec::new();
            for wanted in wanted {
                let winner = index.winning(&wanted.key)?;
                let is_lacking =
                    winner.is_some_and(|winner| winner.operation.version.epoch == wanted.epoch && winner.at.is_none());
                if is_lacking && !blobs.exists(&wanted.value.blob) {
                    lacking.push(wanted);
                }
            }
            Ok(lacking)
        };
        self.look(lacking).await
    }

    /// The next values whose files are wanted, behind the one of this name; none while there is no room for them.
    pub(crate) async fn wanted_values(&self, after: Option<Vec<u8>>, max: usize) -> Vec<Wanted> {
        if self.inner.room.is_short() {
            return Vec::new();
        }
        let (index, blobs) = (self.inner.storage.index.clone(), self.blobs().clone());
        self.look(move || index.wanted(&blobs, after.as_deref()).take(max).collect()).await
    }

    /// Of these values those that no winning operation needs any more.
    pub(crate) async fn unneeded_values(&self, values: Vec<BlobHash>) -> Vec<BlobHash> {
        let index = self.inner.storage.index.clone();
        let unneeded = move || -> Result<Vec<BlobHash>, IndexError> {
            let mut unneeded = Vec::new();
            for value in values {
                if !index.wins_with_file(&value)? {
                    unneeded.push(value);
                }
            }
            Ok(unneeded)
        };
        self.look(unneeded).await
    }

    /// A value of this epoch for a peer that may read it, if its bytes are here.
    pub(crate) async fn value_for_peer(&self, space: &SpaceId, hash: &BlobHash, epoch: &EpochId) -> Option<Source> {
        let hosted = self.hosted_here(space).await.ok()??;
        let (storage, hash, epoch) = (self.inner.storage.clone(), *hash, *epoch);
        let open = move || -> Result<Vec<Source>, IndexError> {
            let Some(stored) = hosted.index.value_of(&epoch, &hash)? else { return Ok(Vec::new()) };
            if let Some(bytes) = stored.at.and_then(|at| storage.log.read_blob(at).ok()) {
                return Ok(vec![Source::Bytes(bytes)]);
            }
            let file = storage.blobs.open_file(&hash);
            if file.is_none() {
                hosted.index.note_file(&stored.operation.key, &stored.operation.version)?;
            }
            Ok(file.map(Source::File).into_iter().collect())
        };
        self.look(open).await.pop()
    }

    /// Reads the index where nobody waits for it; nothing when it cannot be read.
    async fn look<T: Send + 'static>(
        &self,
        read: impl FnOnce() -> Result<Vec<T>, IndexError> + Send + 'static,
    ) -> Vec<T> {
        match tokio::task::spawn_blocking(read).await {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => {
                tracing::error!(%error, "cannot read the index for a peer");
                Vec::new()
            }
            Err(error) => {
                tracing::error!(%error, "reading the index failed");
                Vec::new()
            }
        }
    }
}

#[cfg(test)]
impl Node {
    /// Whether a delegation is known here.
    pub(crate) fn finds(&self, proof: &Proof) -> bool {
        self.inner.pool.find(&proof.address(), clock::now()).expect("readable").is_some()
    }

    /// The replication, if this node speaks to others.
    pub(crate) fn replication(&self) -> Option<crate::replication::Replication> {
        self.inner.replication.get().cloned()
    }
}
