//! What replication needs of a node.

use std::{collections::BTreeSet, sync::Arc};

use kvspace_protocol::{
    authority::Proof,
    id::{HostKey, SpaceId},
    space::{Arrived, Taken},
    sync::compare::Items,
};

use super::{Node, NodeError};
use crate::{blobs::Blobs, clock, hosted::Hosted, messages::Call};

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
        let shared = self.inner.shared_spaces.clone();
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

    /// The space of an item that [`Node::shared_items`] gave.
    pub(crate) fn space_of_item(&self, item: &[u8; 32]) -> Option<SpaceId> {
        self.inner.shared_spaces.space_of(item)
    }

    /// Whether the log names this peer a host of the space, its delegation in force or not.
    pub(crate) fn is_named_host(&self, space: &SpaceId, peer: &HostKey) -> bool {
        self.inner.storage.index.is_named_host(space, peer).unwrap_or(false)
    }

    /// The live hosts of the spaces in memory, without this one.
    pub(crate) fn hosts_of_active_spaces(&self) -> BTreeSet<HostKey> {
        let now = clock::now();
        let hosts = self.inner.spaces.all_active().into_iter().flat_map(|hosted| hosted.access().hosts(now));
        hosts.filter(|host| *host != self.inner.host).collect()
    }

    /// Has a space take in epochs of peers; the answer comes when all that was taken is durable.
    pub(crate) async fn take_epochs(&self, hosted: &Arc<Hosted>, epochs: Vec<Arrived>) -> Result<Taken, NodeError> {
        self.check_room()?;
        self.ask(hosted, |reply| Call::Epochs { epochs, reply }).await
    }

    /// Keeps delegations that a peer gave where proofs are looked for.
    pub(crate) fn borrow_proofs(&self, proofs: &[Proof]) {
        self.inner.pool.borrow(proofs);
    }
}
