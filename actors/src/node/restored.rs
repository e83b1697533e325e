//! A node on a folder that was made of a backup: what it wrote since the backup may be held by other hosts only. A space is
//! caught up with one of them before this node writes to it again, so that no condition is judged by old state.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

use kvspace_protocol::id::{Millis, SpaceId};

use super::{Node, NodeError};
use crate::{clock, hosted::Hosted};

/// How long other hosts are waited for after the start. Then this node writes without them: they may be gone for good.
const ALONE_AFTER_MS: i64 = 60_000;

/// Which spaces are caught up.
#[derive(Debug)]
pub(super) struct Restored {
    started: Millis,
    caught_up: Mutex<BTreeSet<SpaceId>>,
}

impl Default for Restored {
    fn default() -> Self {
        Self { started: clock::now(), caught_up: Mutex::default() }
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
        let is_known = |space: &SpaceId| restored.lock().contains(space);
        if is_known(&hosted.id) {
            return Ok(());
        }
        let now = clock::now();
        let is_alone = self.other_hosts(hosted).is_empty();
        if !is_alone && !replication.catch_up(self, hosted).await {
            if now.0 - restored.started.0 < ALONE_AFTER_MS {
                return Err(NodeError::CatchingUp);
            }
            tracing::warn!(space = %hosted.id, "no other host was reached since the backup was restored: writing without them");
        }
        restored.lock().insert(hosted.id.clone());
        Ok(())
    }
}

impl Restored {
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeSet<SpaceId>> {
        self.caught_up.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
