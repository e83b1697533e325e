//! Epochs that a peer sent: checked on a pool, in order, and handed to their space.

use std::{collections::BTreeSet, sync::Arc};

use kvspace_protocol::{
    epoch::Malformed,
    id::{EpochId, HostKey},
    space::{Arrived, CheckedEpoch},
    sync::Sent,
};

use super::Replication;
use crate::{
    clock,
    hosted::{Hosted, RefusedEpoch},
    node::Node,
};

/// Epochs that one task checks.
const CHECKED_TOGETHER: usize = 16;

/// What became of what a peer sent.
#[derive(Debug, Default)]
pub(super) struct TakenIn {
    /// New in the log.
    pub(super) taken: usize,
    /// Held before.
    pub(super) held: usize,
    /// No epochs, or none of this space.
    pub(super) refused: usize,
    /// Ancestors that waiting epochs lack.
    pub(super) missing: Vec<EpochId>,
}

impl Replication {
    /// Checks epochs and has their space take them in; `None` when it could not, and they are to be asked for again.
    pub(super) async fn take(
        &self,
        node: &Node,
        hosted: &Arc<Hosted>,
        peer: &HostKey,
        epochs: Vec<Sent>,
        told: &BTreeSet<HostKey>,
    ) -> Option<TakenIn> {
        if epochs.is_empty() {
            return Some(TakenIn::default());
        }
        let (arrived, broken) = self.check(hosted, peer, epochs, told).await?;
        let taken = node.take_epochs(hosted, *peer, arrived).await;
        let taken = taken.inspect_err(|error| tracing::debug!(space = %hosted.id, %error, "epochs were not taken in"));
        let taken = taken.ok()?;
        for (epoch, why) in &taken.refused {
            tracing::warn!(space = %hosted.id, peer = %peer.did(), %epoch, %why, "epoch refused");
            self.shared.counters.refused(&why.to_string());
        }
        self.shared.counters.taken(taken.taken);
        hosted.note_waiting(taken.waiting);
        if taken.dropped > 0 {
            // They are asked for again, from where this began.
            tracing::debug!(space = %hosted.id, dropped = taken.dropped, "no room for epochs to wait in");
            return None;
        }
        Some(TakenIn {
            taken: taken.taken,
            held: taken.held,
            refused: taken.refused.len() + broken,
            missing: taken.missing,
        })
    }

    /// Form and signatures of epochs; those that do not hold are left out and counted.
    async fn check(
        &self,
        hosted: &Arc<Hosted>,
        peer: &HostKey,
        epochs: Vec<Sent>,
        told: &BTreeSet<HostKey>,
    ) -> Option<(Vec<Arrived>, usize)> {
        let mut tasks = Vec::new();
        let mut epochs = epochs.into_iter().peekable();
        while epochs.peek().is_some() {
            let some: Vec<_> = epochs.by_ref().take(CHECKED_TOGETHER).collect();
            let checks = self.shared.checks.clone();
            tasks.push(tokio::spawn(async move {
                let _place = checks.acquire_owned().await;
                tokio::task::spawn_blocking(move || some.into_iter().map(check).collect::<Vec<_>>()).await
            }));
        }
        let (mut arrived, mut broken) = (Vec::new(), 0);
        for task in tasks {
            for checked in task.await.ok()?.ok()? {
                match checked {
                    Ok((checked, values)) => arrived.push(Arrived { checked, values, told: told.clone() }),
                    // Neither stored nor remembered: a later release of this node will understand it.
                    Err((_, Malformed::UnknownVersion(version))) => {
                        tracing::warn!(space = %hosted.id, peer = %peer.did(), version, "an epoch of a later format");
                        self.shared.counters.refused("unknown version");
                    }
                    Err((epoch, error)) => {
                        tracing::warn!(space = %hosted.id, peer = %peer.did(), %epoch, %error, "epoch refused");
                        self.shared.counters.refused(&error.to_string());
                        hosted.refuse(RefusedEpoch {
                            epoch,
                            from: Some(*peer),
                            at: clock::now(),
                            reason: error.to_string(),
                        });
                        broken += 1;
                    }
                }
            }
        }
        Some((arrived, broken))
    }
}

fn check(sent: Sent) -> Result<(CheckedEpoch, Vec<bytes::Bytes>), (EpochId, Malformed)> {
    let Sent { epoch, values } = sent;
    let id = EpochId::of(&epoch.header);
    CheckedEpoch::check(epoch).map(|checked| (checked, values)).map_err(|error| (id, error))
}
