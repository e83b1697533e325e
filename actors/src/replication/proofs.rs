//! Proofs that a token cites and this node does not hold: the other hosts of the space are asked, within bounds.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use kvspace_protocol::{
    authority::Proof,
    capability::Role,
    id::{Address, HostKey, Millis, SpaceId},
    sync::{Request, Response},
};

use super::Replication;
use crate::{clock, net::Protocol, node::Node};

/// Hosts asked for one proof, one after the other.
const HOSTS_MAX: usize = 4;
/// How long one request waits for a proof, all hosts together.
const WAIT: Duration = Duration::from_secs(3);
/// A proof that nobody had is not asked for again so soon.
const AGAIN_MS: i64 = 5_000;
/// Proofs that are remembered as asked for.
const ASKED_MAX: usize = 10_000;
/// Proofs asked for at one time.
const ASKING_MAX: usize = 64;

/// Which proofs were asked for, and when.
#[derive(Debug)]
pub(crate) struct Proofs {
    asked: Mutex<BTreeMap<Address, Arc<tokio::sync::Mutex<Option<Millis>>>>>,
    places: tokio::sync::Semaphore,
}

impl Default for Proofs {
    fn default() -> Self {
        Self { asked: Mutex::default(), places: tokio::sync::Semaphore::new(ASKING_MAX) }
    }
}

impl Proofs {
    fn turn(&self, address: &Address) -> Arc<tokio::sync::Mutex<Option<Millis>>> {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if asked.len() >= ASKED_MAX {
            asked.retain(|_, turn| Arc::strong_count(turn) > 1);
        }
        asked.entry(*address).or_default().clone()
    }
}

impl Replication {
    /// Looks for a delegation, and what it rests on, at the other hosts of a space. Whether it was found tells the pool.
    pub(crate) async fn find_proof(&self, node: &Node, space: &SpaceId, address: &Address) {
        let Ok(_place) = self.shared.proofs.places.try_acquire() else { return };
        let turn = self.shared.proofs.turn(address);
        let asking = async {
            let mut last = turn.lock().await;
            // Who waited for another's question has its answer now.
            if last.is_some_and(|last| clock::now().0 - last.0 < AGAIN_MS) {
                return;
            }
            for peer in self.hosts_to_ask(node, space).into_iter().take(HOSTS_MAX) {
                if self.ask_for_proof(node, &peer, space, address).await {
                    return;
                }
            }
            *last = Some(clock::now());
        };
        if tokio::time::timeout(WAIT, asking).await.is_err() {
            tracing::debug!(%space, %address, "no host gave a proof in time");
        }
    }

    /// The connected hosts of a space that are live.
    pub(crate) fn hosts_to_ask(&self, node: &Node, space: &SpaceId) -> Vec<HostKey> {
        let connected = self.shared.network.connected();
        connected.into_iter().filter(|peer| node.is_host_to_ask(space, peer)).collect()
    }

    async fn ask_for_proof(&self, node: &Node, peer: &HostKey, space: &SpaceId, address: &Address) -> bool {
        let request = Request::Proofs { space: space.clone(), addresses: vec![*address], shown: Vec::new() };
        let Some(Response::Proofs(tokens)) = self.ask(peer, Protocol::Sync, &request).await else { return false };
        let proofs: Vec<Proof> = self.read_shown(super::shown::tokens(&tokens)).await;
        let delegations: Vec<_> = proofs.into_iter().filter(|proof| proof.role() == Role::Delegation).collect();
        node.borrow_proofs(&delegations);
        delegations.iter().any(|proof| proof.address() == *address)
    }
}
