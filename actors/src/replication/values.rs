//! Large values, and small ones that did not come with their epoch: from peers and to peers.

use std::{fs::Metadata, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::future::BoxFuture;
use kvspace_protocol::{
    id::{BlobHash, EpochId, HostKey, SpaceId},
    sync::blob::Request,
};
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

    fn is_host(&self, space: &SpaceId, peer: &HostKey) -> bool {
        self.node.upgrade().is_some_and(|node| node.is_named_host(space, peer))
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

    fn rotten(&self, request: &Request, file: &Metadata) {
        let Some(node) = self.node.upgrade() else { return };
        let (space, epoch) = (request.space.clone(), request.epoch);
        let value = PendingValue { space, epoch, hash: request.hash, size: request.size };
        self.replication.replace(&node, value, file);
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
    /// The bytes of this file are wrong: the value is fetched again, if another host is there that may have it. Blocks.
    pub(crate) fn replace(&self, node: &Node, value: PendingValue, rotten: &Metadata) {
        let PendingValue { space, epoch, hash, size } = value;
        let has_others = self.shared.network.connected().iter().any(|peer| node.is_named_host(&space, peer));
        if !has_others {
            return;
        }
        match node.blobs().set_aside(&hash, rotten) {
            Ok(true) => {
                tracing::warn!(%space, %hash, "a damaged value is fetched again");
                self.shared.fetcher.want(&Occurrence { space, epoch }, hash, size, Urgency::Soon);
            }
            Ok(false) => {}
            Err(error) => tracing::warn!(%hash, %error, "cannot set a damaged file aside"),
        }
    }

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
            let pause = walk(&mut after, page.last().map(|wanted| wanted.name.clone()), page.len());
            for wanted in page {
                let at = Occurrence { space: wanted.space, epoch: wanted.epoch };
                // What does not fit has its turn when the walk is here again; others behind it may fit now.
                self.shared.fetcher.want(&at, wanted.hash, wanted.size, Urgency::Soon);
            }
            tokio::time::sleep(pause).await;
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

/// Where the walk goes on after a page of so many values, and when: always behind the last one, and from the start when there
/// are no more.
fn walk(after: &mut Option<Vec<u8>>, last: Option<Vec<u8>>, page_len: usize) -> Duration {
    let is_end = page_len < LOOK_MAX;
    *after = last.filter(|_| !is_end);
    if is_end { LOOK_INTERVAL } else { LOOK_PAUSE }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_walk_comes_to_every_value_before_it_begins_anew() {
        let mut after = None;
        assert_eq!(walk(&mut after, Some(vec![1]), LOOK_MAX), LOOK_PAUSE);
        assert_eq!(after, Some(vec![1]));
        assert_eq!((walk(&mut after, Some(vec![2]), LOOK_MAX - 1), after), (LOOK_INTERVAL, None));
    }
}
