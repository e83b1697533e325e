//! Answering peers: who may ask, and what is given.

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;
use kvspace_protocol::{
    authority::{PUBLIC, Proof, Proofs as _, is_host_delegation},
    capability::Token,
    id::{Address, HostKey, Millis, SpaceId},
    limits::PULL_BYTES,
    space::ViewError,
    sync::{Refused, Request, Response, Verdict, message::Pushed, serve_get, serve_pull},
};
use tokio::sync::mpsc;

use super::{Replication, places::Standing, shown::tokens};
use crate::{clock, hosted::Hosted, net::Asked, node::Node, serve::SpaceSource};

impl Replication {
    /// Answers every request, a bounded number at a time.
    pub(super) async fn answer_all(self, node: Node, mut requests: mpsc::Receiver<Asked>) {
        while let Some(asked) = requests.recv().await {
            let standing = if node.is_host_of_some(&asked.peer) { Standing::Host } else { Standing::Stranger };
            let Some(place) = self.shared.answers.take(asked.peer, standing) else {
                asked.answer(Response::Refused(Refused::Busy).encode());
                self.shared.counters.answered("any", "busy");
                continue;
            };
            let (this, node) = (self.clone(), node.clone());
            self.spawn(async move {
                let peer = asked.peer;
                let (kind, response) = match Request::decode(&asked.body) {
                    Ok(request) => (kind(&request), this.answer(&node, &peer, request).await),
                    Err(error) => {
                        tracing::debug!(peer = %peer.did(), %error, "a request that is none");
                        ("broken", Response::Refused(Refused::Malformed))
                    }
                };
                this.shared.counters.answered(kind, outcome(&response));
                asked.answer(response.encode());
                drop(place);
            });
        }
    }

    pub(super) async fn answer(&self, node: &Node, peer: &HostKey, request: Request) -> Response {
        match request {
            Request::Compare(message) => match node.shared_items(*peer).await.map(|items| items.answer(&message)) {
                Some(Ok(answer)) => Response::Compare(answer),
                Some(Err(_)) => Response::Refused(Refused::Malformed),
                None => Response::Refused(Refused::Busy),
            },
            Request::Pull { space, have, after, shown } => match self.readable(node, peer, &space, shown).await {
                Ok(hosted) => serve(hosted, move |source| serve_pull(source, &have, after, PULL_BYTES)).await,
                Err(refused) => Response::Refused(refused),
            },
            Request::Get { space, epochs, shown } => match self.readable(node, peer, &space, shown).await {
                Ok(hosted) => serve(hosted, move |source| serve_get(source, &epochs, PULL_BYTES)).await,
                Err(refused) => Response::Refused(refused),
            },
            Request::Proofs { space, addresses, shown } => match self.readable(node, peer, &space, shown).await {
                Ok(hosted) => Response::Proofs(proofs(&hosted, &addresses)),
                Err(refused) => Response::Refused(refused),
            },
            Request::Push(pushed) => {
                let mut verdicts = Vec::with_capacity(pushed.len());
                for pushed in pushed {
                    verdicts.push(
                        self.take_push(node, peer, pushed).await.map_or_else(Verdict::Refused, |()| Verdict::Taken),
                    );
                }
                Response::Push(verdicts)
            }
        }
    }

    /// The space, if this peer may read it. What costs little is asked first: a stranger opens no space, and has no signature
    /// checked that could not help.
    pub(super) async fn readable(
        &self,
        node: &Node,
        peer: &HostKey,
        space: &SpaceId,
        shown: Vec<Bytes>,
    ) -> Result<Arc<Hosted>, Refused> {
        let now = clock::now();
        let busy = |_| Refused::Busy;
        let is_here = node.hosts(space).map_err(busy)?;
        if is_here && (node.may_be_host(space, peer) || space.name() == PUBLIC) {
            let hosted = node.hosted_here(space).await.map_err(busy)?.ok_or(Refused::NotFound)?;
            if is_readable(&hosted, peer, &[], now) {
                return Ok(hosted);
            }
        }
        let shown = may_help(node, peer, space, &shown, is_here, now).ok_or(Refused::NotFound)?;
        let shown = {
            let _turn = self.shared.showing.of(peer).await;
            let shown = self.read_shown(shown).await;
            self.take_shown(node, peer, space, &shown, now).await;
            shown
        };
        let hosted = node.hosted_here(space).await.map_err(busy)?.ok_or(Refused::NotFound)?;
        if is_readable(&hosted, peer, &shown, now) { Ok(hosted) } else { Err(Refused::NotFound) }
    }

    /// Takes in what a host has just committed.
    async fn take_push(&self, node: &Node, peer: &HostKey, pushed: Pushed) -> Result<(), Refused> {
        let Pushed { space, epochs, told } = pushed;
        if !node.may_be_host(&space, peer) {
            return Err(Refused::NotFound);
        }
        let hosted = node.hosted_here(&space).await.map_err(|_| Refused::Busy)?.ok_or(Refused::NotFound)?;
        if !hosted.access().is_host(peer, clock::now()) {
            return Err(Refused::NotFound);
        }
        let mut told: BTreeSet<HostKey> = told.into_iter().collect();
        told.insert(*peer);
        let taken = self.take(node, &hosted, peer, epochs.clone(), &told).await.ok_or(Refused::Busy)?;
        self.tell(node, |replicator, now| {
            if taken.refused == 0 {
                replicator.handle_brought(now, peer, &space, &epochs);
            }
            if taken.missing.is_empty() {
                replicator.handle_heard(peer);
            } else {
                replicator.handle_behind(now, *peer, space);
            }
        });
        Ok(())
    }
}

/// The tokens that a peer shows, if one of them could help when it holds: one that makes the peer or this node a host of the
/// space, or lets the peer read it.
fn may_help(
    node: &Node,
    peer: &HostKey,
    space: &SpaceId,
    shown: &[Bytes],
    is_here: bool,
    now: Millis,
) -> Option<Vec<Token>> {
    let shown = tokens(shown);
    let did = peer.did();
    let helps = |token: &Token| {
        let is_to_host = |host| is_host_delegation(token, space, host);
        let is_to_peer = token.audience_did() == Some(&did);
        let names_space = || token.capabilities().iter().any(|held| held.resource.space() == Some(space));
        let may_come = is_here || node.admits(space.owner());
        token.in_force(now) && may_come && (is_to_host(node.did()) || (is_here && is_to_peer && names_space()))
    };
    shown.iter().any(helps).then_some(shown)
}

fn is_readable(hosted: &Hosted, peer: &HostKey, shown: &[Proof], now: Millis) -> bool {
    let access = hosted.access();
    access.is_host(peer, now) || access.may_read(shown, &peer.did(), now)
}

/// Reads on a thread that may block.
async fn serve(
    hosted: Arc<Hosted>,
    answer: impl FnOnce(&SpaceSource) -> Result<Response, ViewError> + Send + 'static,
) -> Response {
    let served = tokio::task::spawn_blocking(move || answer(&hosted.source())).await;
    match served {
        Ok(Ok(response)) => response,
        Ok(Err(error)) => {
            tracing::error!(%error, "cannot read what a peer asks for");
            Response::Refused(Refused::Busy)
        }
        Err(error) => {
            tracing::error!(%error, "answering a peer failed");
            Response::Refused(Refused::Busy)
        }
    }
}

/// Delegations with all they rest on, ancestors first, as many as fit.
fn proofs(hosted: &Hosted, addresses: &[Address]) -> Vec<Bytes> {
    let access = hosted.access();
    let mut found: Vec<Proof> = Vec::new();
    let mut bytes = 0;
    for address in addresses {
        let Some(proof) = access.find(address) else { continue };
        for proof in access.with_ancestors(proof) {
            if found.iter().all(|known| known.address() != proof.address()) {
                bytes += proof.bytes().len();
                found.push(proof);
            }
        }
        if bytes > PULL_BYTES {
            break;
        }
    }
    found.into_iter().map(|proof| Bytes::copy_from_slice(proof.bytes())).collect()
}

fn kind(request: &Request) -> &'static str {
    match request {
        Request::Compare(_) => "compare",
        Request::Pull { .. } => "pull",
        Request::Get { .. } => "get",
        Request::Proofs { .. } => "proofs",
        Request::Push(_) => "push",
    }
}

fn outcome(response: &Response) -> &'static str {
    match response {
        Response::Compare(_) | Response::Epochs { .. } | Response::Proofs(_) | Response::Push(_) => "answered",
        Response::Refused(Refused::NotFound) => "not found",
        Response::Refused(Refused::Busy) => "busy",
        Response::Refused(Refused::Malformed) => "malformed",
    }
}
