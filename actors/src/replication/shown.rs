//! Tokens that hosts show each other: that one is a host, or may read.

use std::sync::Arc;

use bytes::Bytes;
use kvspace_protocol::{
    authority::{Proof, spaces_to_host},
    capability::{Role, Token},
    id::{HostKey, Millis, SpaceId},
    limits::{SHOWN_MAX, TOKEN_BYTES_MAX},
};

use super::Replication;
use crate::{clock, hosted::Hosted, node::Node};

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

    /// Takes host delegations of the space in, as if a client had posted them: one may name the peer, another this node.
    pub(super) async fn take_shown(&self, node: &Node, peer: &HostKey, space: &SpaceId, shown: &[Proof], now: Millis) {
        for proof in shown {
            let is_of_host = proof.role() == Role::Delegation && spaces_to_host(proof).any(|named| named == space);
            let hosts = [peer.did(), node.did().clone()];
            if !is_of_host
                || !proof.audience_did().is_some_and(|audience| hosts.contains(audience))
                || !proof.in_force(now)
            {
                continue;
            }
            let mut proofs = shown.to_vec();
            proofs.retain(|other| other.address() != proof.address());
            node.borrow_proofs(&proofs);
            match node.delegate(proof.clone(), now).await {
                Ok(delegated) if delegated.activated.is_empty() => {}
                Ok(_) => tracing::info!(%space, peer = %peer.did(), "took a host delegation in that a peer showed"),
                Err(error) => tracing::debug!(%space, peer = %peer.did(), %error, "a host delegation was not taken in"),
            }
        }
    }
}

/// The tokens that a peer sent; nobody has looked at their signatures yet.
pub(super) fn tokens(sent: &[Bytes]) -> Vec<Token> {
    let sent = sent.iter().take(SHOWN_MAX).filter(|bytes| bytes.len() <= TOKEN_BYTES_MAX);
    sent.filter_map(|bytes| Token::from_stored(bytes.clone()).ok()).collect()
}
