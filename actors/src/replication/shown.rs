//! Tokens that hosts show each other: that one is a host, or may read.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use kvspace_protocol::{
    authority::{Proof, is_host_delegation},
    capability::{Role, Token},
    id::{Address, HostKey, Millis, SpaceId},
    limits::{SHOWN_MAX, TOKEN_BYTES_MAX},
};

use super::Replication;
use crate::{clock, hosted::Hosted, node::Node};

/// Spaces that are made because of what one peer shows, in [`MADE_MS`].
const MADE_MAX: usize = 16;
/// One hour.
const MADE_MS: i64 = 3_600_000;
/// Peers whose spaces are counted at one time; others make none.
const MAKERS_MAX: usize = 1_024;

impl Replication {
    /// What shows a peer that this node is a host of the space, and that the peer is one: ancestors first.
    pub(super) fn to_show(&self, node: &Node, hosted: &Hosted, peer: &HostKey) -> Vec<Bytes> {
        let (now, access) = (clock::now(), hosted.access());
        let mut shown: Vec<Proof> = Vec::new();
        for host in [node.did(), &peer.did()] {
            let Some(proof) = access.host_proof(host, now, &|_| true) else { continue };
            for proof in access.with_ancestors(&proof) {
                if shown.iter().all(|known| known.address() != proof.address()) {
                    shown.push(proof);
                }
            }
        }
        shown.truncate(SHOWN_MAX);
        shown.into_iter().map(|proof| Bytes::copy_from_slice(proof.bytes())).collect()
    }

    /// The tokens whose signature holds.
    pub(super) async fn read_shown(&self, shown: Vec<Token>) -> Vec<Proof> {
        if shown.is_empty() {
            return Vec::new();
        }
        let Ok(_place) = self.shared.checks.clone().acquire_owned().await else { return Vec::new() };
        let read = || shown.into_iter().filter_map(|token| token.verify().ok().map(Arc::new)).collect();
        tokio::task::spawn_blocking(read).await.unwrap_or_default()
    }

    /// Takes host delegations of this space in: one may name the peer, another this node. Nobody else is asked for what they
    /// rest on, and nothing is kept that does not hold.
    pub(super) async fn take_shown(&self, node: &Node, peer: &HostKey, space: &SpaceId, shown: &[Proof], now: Millis) {
        let known: BTreeMap<Address, Proof> = shown.iter().map(|proof| (proof.address(), proof.clone())).collect();
        let hosts = [peer.did(), node.did().clone()];
        let names_host = |proof: &Proof| hosts.iter().any(|host| is_host_delegation(proof, space, host));
        for proof in shown {
            if proof.role() != Role::Delegation || !names_host(proof) || !proof.in_force(now) {
                continue;
            }
            let may_make = || self.shared.made.count(peer, now);
            match node.take_shown(proof, space, &known, &may_make, now).await {
                Ok(false) => {}
                Ok(true) => tracing::info!(%space, peer = %peer.did(), "took a host delegation in that a peer showed"),
                Err(error) => tracing::debug!(%space, peer = %peer.did(), %error, "a host delegation was not taken in"),
            }
        }
    }
}

/// How many spaces were made because of what each peer showed.
#[derive(Debug, Default)]
pub(super) struct Made(Mutex<BTreeMap<HostKey, (usize, Millis)>>);

impl Made {
    /// Counts one more for this peer; false when it has had its share.
    fn count(&self, peer: &HostKey, now: Millis) -> bool {
        let mut made = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        made.retain(|_, (_, since)| now.0 - since.0 < MADE_MS);
        if made.len() >= MAKERS_MAX && !made.contains_key(peer) {
            return false;
        }
        let (spaces, _) = made.entry(*peer).or_insert((0, now));
        *spaces += 1;
        *spaces <= MADE_MAX
    }
}

/// The tokens that a peer sent; nobody has looked at their signatures yet.
pub(super) fn tokens(sent: &[Bytes]) -> Vec<Token> {
    let sent = sent.iter().take(SHOWN_MAX).filter(|bytes| bytes.len() <= TOKEN_BYTES_MAX);
    sent.filter_map(|bytes| Token::from_stored(bytes.clone()).ok()).collect()
}
