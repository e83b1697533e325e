//! A node on a folder that was made of a backup: what it wrote since the backup may be held by other hosts only. A space is
//! caught up with one of them before this node writes to it again, so that no condition is judged by old state.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
};

use kvspace_protocol::id::SpaceId;
use tokio::sync::watch;

use super::{Node, NodeError};
use crate::{
    clock,
    hosted::Hosted,
    index::IndexError,
    replication::{CATCH_UP_WAIT, Replication},
};

/// How long other hosts are waited for after the start. Then this node writes without them as long as none is connected:
/// they may be gone for good.
const ALONE_AFTER_MS: i64 = 60_000;

/// Which spaces are caught up.
#[derive(Debug)]
pub(super) struct Restored {
    started: AtomicI64,
    spaces: Mutex<Spaces>,
}

#[derive(Debug, Default)]
struct Spaces {
    caught_up: BTreeSet<SpaceId>,
    /// Being caught up; each tells when its end is near.
    under_way: BTreeMap<SpaceId, watch::Receiver<()>>,
}

impl Default for Restored {
    fn default() -> Self {
        Self { started: clock::now().0.into(), spaces: Mutex::default() }
    }
}

impl Node {
    /// Lets writes to a space go on once it holds what another host has of it.
    ///
    /// # Errors
    /// [`NodeError::CatchingUp`] while that is not so.
    pub(super) async fn caught_up(&self, hosted: &Arc<Hosted>) -> Result<(), NodeError> {
        let (Some(restored), Some(replication)) = (&self.inner.restored, self.inner.replication.get()) else {
            return Ok(());
        };
        if restored.is_caught_up(&hosted.id) {
            return Ok(());
        }
        if self.other_hosts(hosted).is_empty() {
            restored.lock().caught_up.insert(hosted.id.clone());
            return Ok(());
        }
        if replication.hosts_to_ask(self, &hosted.id).is_empty() {
            let is_over = clock::now().0 - restored.started.load(Ordering::Relaxed) >= ALONE_AFTER_MS;
            return if is_over { Ok(()) } else { Err(NodeError::CatchingUp) };
        }
        let mut ended = self.catch_up(restored, replication, hosted);
        // The channel closes when it has ended.
        drop(tokio::time::timeout(CATCH_UP_WAIT, ended.changed()).await);
        if restored.is_caught_up(&hosted.id) { Ok(()) } else { Err(NodeError::CatchingUp) }
    }

    /// Has a space caught up, however long it takes, if that is not under way.
    fn catch_up(&self, restored: &Restored, replication: &Replication, hosted: &Arc<Hosted>) -> watch::Receiver<()> {
        let mut spaces = restored.lock();
        // One that has ended without a word was ended from outside.
        let under_way = spaces.under_way.get(&hosted.id).filter(|ended| ended.has_changed().is_ok());
        if let Some(ended) = under_way {
            return ended.clone();
        }
        let (ending, ended) = watch::channel(());
        spaces.under_way.insert(hosted.id.clone(), ended.clone());
        let (node, hosted, asking) = (self.clone(), hosted.clone(), replication.clone());
        replication.spawn(async move {
            let is_caught_up = asking.catch_up_to_the_end(&node, &hosted).await;
            if let Some(restored) = &node.inner.restored {
                let mut spaces = restored.lock();
                spaces.under_way.remove(&hosted.id);
                if is_caught_up {
                    spaces.caught_up.insert(hosted.id.clone());
                }
            }
            drop(ending);
        });
        ended
    }
}

impl Restored {
    /// Whether nothing is left to be caught up. Of a space that nobody has used nobody knows.
    pub(super) fn is_done(&self, node: &Node) -> Result<bool, IndexError> {
        for index in node.inner.storage.index.spaces(None) {
            let space = index?.id().clone();
            let in_memory = node.inner.spaces.if_in_memory(&space);
            let is_alone = || in_memory.is_some_and(|hosted| node.other_hosts(&hosted).is_empty());
            if !self.is_caught_up(&space) && !is_alone() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// As if the node had started then.
    #[cfg(test)]
    pub(super) fn set_started(&self, at: kvspace_protocol::id::Millis) {
        self.started.store(at.0, Ordering::Relaxed);
    }

    fn is_caught_up(&self, space: &SpaceId) -> bool {
        self.lock().caught_up.contains(space)
    }

    fn lock(&self) -> MutexGuard<'_, Spaces> {
        self.spaces.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
