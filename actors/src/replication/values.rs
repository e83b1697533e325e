//! Large values, and small ones that did not come with their epoch: from peers and to peers.

use std::{sync::Weak, time::Duration};

use kvspace_protocol::{
    id::{BlobHash, HostKey, SpaceId},
    kv::Value,
};
use tokio::sync::mpsc;

use super::Replication;
use crate::{
    fetch::{self, OpenError, Peers, Urgency},
    net::{Network, Stream},
    node::{Node, WeakNode},
};

/// How often the index is looked through for values that are wanted: what did not fit in memory, and what a fetch gave up.
const LOOK_INTERVAL: Duration = Duration::from_secs(600);
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
        self.network.connected().into_iter().filter(|peer| node.is_named_host(space, peer)).collect()
    }
}

impl Replication {
    /// Wants the values of new winners that are not here.
    pub(super) fn want(&self, space: &SpaceId, values: Vec<Value>) {
        for value in values {
            self.shared.fetcher.want(space, value.blob, value.size, Urgency::Soon);
        }
    }
}
