//! Large values, and small ones that did not come with their epoch: from peers and to peers.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::future::BoxFuture;
use kvspace_protocol::id::{BlobHash, EpochId, HostKey, SpaceId};
use tokio::sync::mpsc;

use super::Replication;
use crate::{
    fetch::{self, Occurrence, OpenError, Peers, Server, Source, Urgency, Values},
    messages::WantedValue,
    net::{Network, Stream},
    node::{Node, Pending, PendingValue, WeakNode},
};

/// How often the index is looked through for values that are wanted: what did not fit in memory, and what a fetch gave up.
const LOOK_INTERVAL: Duration = Duration::from_secs(300);
/// How long the next look waits when this one has brought as much as fits.
const LOOK_PAUSE: Duration = Duration::from_secs(1);
/// Wanted values that one look at the index brings.
const LOOK_MAX: usize = 1_000;

/// The peers that a value may be asked of.
pub(super) struct HostsOfSpaces {
    node: WeakNode,
    network: Network,
}

impl HostsOfSpaces {
    pub(super) fn new(node: &Node, network: Network) -> Self {
        Self { node: node.downgrade(), network }
    }
}

impl Peers for HostsOfSpaces {
    fn hosts(&self, space: &SpaceId) -> Vec<HostKey> {
        let Some(node) = self.node.upgrade() else { return Vec::new() };
        self.network.connected().into_iter().filter(|peer| node.is_host_to_ask(space, peer)).collect()
    }

    fn open(&self, peer: HostKey) -> BoxFuture<'_, Result<Box<dyn fetch::Stream>, OpenError>> {
        Box::pin(async move {
            let opened = self.network.open_stream(&peer).await;
            let opened = opened.map_err(|error| OpenError(error.to_string()))?;
            Ok(Box::new(opened) as Box<dyn fetch::Stream>)
        })
    }
}

/// The values here, as peers may read them.
struct OwnValues {
    node: WeakNode,
    replication: Replication,
}

impl Values for OwnValues {
    fn may_read<'a>(&'a self, peer: HostKey, space: &'a SpaceId, shown: &'a [Bytes]) -> BoxFuture<'a, bool> {
        Box::pin(async move {
            let Some(node) = self.node.upgrade() else { return false };
            self.replication.readable(&node, &peer, space, shown.to_vec()).await.is_ok()
        })
    }

    fn open<'a>(&'a self, space: &'a SpaceId, hash: &'a BlobHash, epoch: &'a EpochId) -> BoxFuture<'a, Option<Source>> {
        Box::pin(async move { self.node.upgrade()?.value_for_peer(space, hash, epoch).await })
    }
}

impl Pending for Replication {
    fn wait(&self, value: PendingValue) -> BoxFuture<'_, bool> {
        Box::pin(async move {
            let PendingValue { space, hash, size, epoch } = value;
            let (fetcher, at) = (&self.shared.fetcher, Occurrence { space, epoch });
            fetcher.want(&at, hash, size, Urgency::Now) && fetcher.wait(&hash, Duration::MAX).await
        })
    }
}

impl Replication {
    /// Wants the values of new winners that are not here.
    pub(super) async fn want(&self, node: &Node, space: &SpaceId, wanted: Vec<WantedValue>) {
        if wanted.is_empty() {
            return;
        }
        let lacking = node.lacking_values(space, wanted).await;
        for WantedValue { epoch, value, .. } in lacking {
            // What does not fit now is found by the next look at the index.
            let at = Occurrence { space: space.clone(), epoch };
            self.shared.fetcher.want(&at, value.blob, value.size, Urgency::Soon);
        }
    }

    /// Looks through the index for what is wanted: after a start, and again and again.
    pub(super) async fn want_values(self, node: Node) {
        let mut after = None;
        loop {
            let fetcher = &self.shared.fetcher;
            for value in node.unneeded_values(fetcher.all_wanted()).await {
                fetcher.forget(&value);
            }
            let page = node.wanted_values(after.take(), LOOK_MAX).await;
            let is_last = page.len() < LOOK_MAX;
            let mut is_full = false;
            for wanted in page {
                after = Some(wanted.name);
                let at = Occurrence { space: wanted.space, epoch: wanted.epoch };
                if !self.shared.fetcher.want(&at, wanted.hash, wanted.size, Urgency::Soon) {
                    is_full = true;
                    break;
                }
            }
            if is_last || is_full {
                after = None;
            }
            tokio::time::sleep(if is_last || is_full { LOOK_INTERVAL } else { LOOK_PAUSE }).await;
        }
    }

    /// Serves the streams that peers open.
    pub(super) async fn serve_values(self, node: Node, mut streams: mpsc::Receiver<(HostKey, Stream)>) {
        let values = OwnValues { node: node.downgrade(), replication: self.clone() };
        drop(node);
        let server = Server::new(Arc::new(values), fetch::IDLE);
        while let Some((peer, stream)) = streams.recv().await {
            let server = server.clone();
            self.spawn(async move { server.serve_stream(stream, peer).await });
        }
    }
}
