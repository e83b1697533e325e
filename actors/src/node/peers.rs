//! The other nodes, as the operator sees them.

use std::time::Duration;

use kvspace_protocol::{
    id::{Did, EpochId, HostKey, SpaceId},
    sync::PeerState,
};

use super::{
    Node, NodeError,
    replicas::{Metrics, PeerStatus, WAIT_EPOCHS_MAX, WAIT_MAX},
};
use crate::{
    hosted::Hosted,
    net::{Blocked, Dropped, PeerInfo},
};

/// What was refused before anybody looked at it, as answers.
fn dropped(dropped: Dropped) -> [(String, String, u64); 3] {
    let Dropped { requests, answers, streams } = dropped;
    [("request", requests), ("answer", answers), ("stream", streams)]
        .map(|(kind, n)| (kind.into(), "dropped".into(), n))
}

/// Before other hosts are asked for an epoch, it is awaited for so long.
const PUSHED_WITHIN: Duration = Duration::from_millis(50);

impl Node {
    /// Waits until these epochs are held here, at most for `wait`; peers are asked for them.
    ///
    /// # Errors
    /// [`NodeError::Behind`] with those that are still missing; at once when more than [`WAIT_EPOCHS_MAX`] are named.
    /// [`NodeError::NotHosted`].
    pub async fn wait_for(&self, space: &SpaceId, epochs: &[EpochId], wait: Duration) -> Result<(), NodeError> {
        let hosted = self.hosted(space).await?;
        self.wait_in(&hosted, epochs, wait).await
    }

    pub(super) async fn wait_in(&self, hosted: &Hosted, epochs: &[EpochId], wait: Duration) -> Result<(), NodeError> {
        let Err(missing) = hosted.wait_for(epochs, Duration::ZERO).await? else { return Ok(()) };
        if missing.len() > WAIT_EPOCHS_MAX || wait.is_zero() {
            return Err(NodeError::Behind(missing));
        }
        // Most of what a request names is being pushed to this host already.
        let soon = wait.min(PUSHED_WITHIN);
        let Err(missing) = hosted.wait_for(&missing, soon).await? else { return Ok(()) };
        if let Some(replication) = self.inner.replication.get() {
            replication.hurry(self, &hosted.id);
        }
        let waited = hosted.wait_for(&missing, wait.min(WAIT_MAX).saturating_sub(soon)).await?;
        waited.map_err(NodeError::Behind)
    }

    /// The peers of this node.
    #[must_use]
    pub fn peers(&self) -> Vec<PeerStatus> {
        let Some(replication) = self.inner.replication.get() else { return Vec::new() };
        let states: Vec<PeerState> = replication.question(|replicator| replicator.peers().collect());
        let status = |info: PeerInfo| {
            let state = states.iter().find(|state| state.peer == info.peer);
            PeerStatus {
                peer: info.peer.did(),
                connected: info.connected,
                addresses: info.addresses,
                is_blocked: info.is_blocked,
                next_dial: info.next_dial,
                last_error: info.last_error,
                compared: state.and_then(|state| state.compared),
                behind: state.map_or(0, |state| state.behind),
                to_push: state.map_or((0, 0), |state| (state.to_push, state.to_push_bytes)),
                refused: state.map_or(0, |state| state.refused),
            }
        };
        replication.network().peers().into_iter().map(status).collect()
    }

    /// Cuts a peer off, or lets it come back. Lasts until the process ends.
    pub fn block(&self, peer: &Did, is_blocked: bool) {
        let (Some(replication), Some(key)) = (self.inner.replication.get(), peer.ed25519()) else { return };
        replication.network().block(HostKey(key), if is_blocked { Blocked::Yes } else { Blocked::No });
    }

    /// Figures for the operator.
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        let Some(replication) = self.inner.replication.get() else { return Metrics::default() };
        let (counters, fetcher) = (replication.counters(), replication.fetcher());
        let fetched = fetcher.counters();
        Metrics {
            epochs_taken: counters.epochs_taken(),
            epochs_refused: counters.epochs_refused(),
            answered: counters
                .requests_answered()
                .into_iter()
                .chain(dropped(replication.network().dropped()))
                .collect(),
            blobs_fetched: (fetched.fetched, fetched.bytes),
            blobs_wanted: fetcher.wanted() as u64,
            blobs_bad: fetched.bad,
            epochs_waiting: self.inner.spaces.in_memory().iter().map(|hosted| hosted.waiting()).sum(),
        }
    }

    /// Where this node listens for peers, as multiaddresses that end in its own `/p2p/…`.
    #[must_use]
    pub fn p2p_addresses(&self) -> Vec<String> {
        self.inner.replication.get().map(|replication| replication.network().addresses()).unwrap_or_default()
    }
}
