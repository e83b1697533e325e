//! Asking peers: what differs, what is lacking, and telling them what is new.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use kvspace_protocol::{
    id::{EpochId, HostKey, SpaceId},
    limits::{NAMES_MAX, TIPS_MAX},
    space::View,
    sync::{
        Ask, Compared, Have, Pull, Pulled, Refused, Request, Response, Verdict,
        compare::{self, Comparison, Step},
        message::Pushed,
    },
};

use super::Replication;
use crate::{
    hosted::Hosted,
    net::{AskError, Protocol},
    node::Node,
};

/// How long a peer may take for one answer.
const ANSWER_WAIT: Duration = Duration::from_secs(30);
/// How long catching up may hold up a call.
pub(crate) const CATCH_UP_WAIT: Duration = Duration::from_secs(3);
/// Branches told at first when the heads are not known to the other.
const TIPS_FIRST: usize = 32;

impl Replication {
    /// One request and its answer; `None` when none came or it made no sense.
    pub(super) async fn ask(&self, peer: &HostKey, protocol: Protocol, request: &Request) -> Option<Response> {
        let asked = self.shared.network.ask(peer, protocol, request.encode(), ANSWER_WAIT).await;
        let answer = match asked {
            Ok(answer) => answer,
            Err(AskError::Refused) => return Some(Response::Refused(Refused::Busy)),
            Err(error) => {
                tracing::debug!(peer = %peer.did(), %error, "no answer");
                return None;
            }
        };
        let response = Response::decode(&answer);
        response.inspect_err(|error| tracing::debug!(peer = %peer.did(), %error, "an answer that is none")).ok()
    }

    /// Which of the spaces shared with a peer differ.
    pub(super) async fn compare(&self, node: &Node, peer: &HostKey) -> Compared {
        self.try_compare(node, peer).await.map_or(Compared::Failed, Compared::Differ)
    }

    async fn try_compare(&self, node: &Node, peer: &HostKey) -> Option<Vec<SpaceId>> {
        let mut news = self.not_heard(node, peer);
        let items = node.shared_items(*peer).await?;
        // What was committed between the two may not be among the items.
        news.retain(|(hosted, heads)| frontier(hosted) == *heads);
        let (mut comparison, mut message) = Comparison::begin(&items);
        loop {
            let Response::Compare(answer) = self.ask(peer, Protocol::Sync, &Request::Compare(message)).await? else {
                return None;
            };
            match comparison.step(&answer).ok()? {
                Step::Send(next) => message = next,
                Step::Done(ours) => {
                    news.retain(|(hosted, heads)| !ours.contains(&compare::item(&hosted.id, heads)));
                    self.tell(node, |replicator, now| {
                        news.drain(..)
                            .for_each(|(hosted, heads)| replicator.handle_equal(now, peer, &hosted.id, heads));
                    });
                    return Some(ours.iter().filter_map(|item| items.space_of(item).cloned()).collect());
                }
            }
        }
    }

    /// The spaces in memory that a peer hosts as well, and of which it was not heard that it has what is here: with the heads
    /// here.
    fn not_heard(&self, node: &Node, peer: &HostKey) -> Vec<(Arc<Hosted>, Vec<EpochId>)> {
        let mut news: Vec<_> = node.spaces_in_memory().into_iter().map(|hosted| (frontier(&hosted), hosted)).collect();
        self.question(|replicator| {
            news.retain(|(heads, hosted)| replicator.known(&hosted.id, peer).is_none_or(|known| known.heads != *heads));
        });
        news.retain(|(_, hosted)| node.is_named_host(&hosted.id, peer));
        news.into_iter().map(|(heads, hosted)| (hosted, heads)).collect()
    }

    /// Shows these peers that this node is a host of a space: one of them may be a host as well, of which this node has not
    /// heard yet.
    pub(crate) fn introduce(&self, node: &Node, space: &SpaceId, peers: &[HostKey]) {
        self.tell(node, |replicator, now| {
            peers.iter().for_each(|peer| replicator.handle_behind(now, *peer, space.clone()));
        });
    }

    /// One step of a pull: asks, and has the space take in what comes.
    pub(super) async fn pull(&self, node: &Node, pull: &Pull) -> Pulled {
        let hosted = match node.hosted_here(&pull.space).await {
            Ok(Some(hosted)) => hosted,
            Ok(None) => return Pulled::NotFound,
            Err(error) => {
                tracing::warn!(space = %pull.space, %error, "cannot open a space to pull it");
                return Pulled::Later;
            }
        };
        self.try_pull(node, &hosted, pull).await.unwrap_or(Pulled::Later)
    }

    async fn try_pull(&self, node: &Node, hosted: &Arc<Hosted>, pull: &Pull) -> Option<Pulled> {
        let mut response = self.ask(&pull.peer, Protocol::Sync, &request(hosted, pull, Vec::new())).await?;
        if response == Response::Refused(Refused::NotFound) {
            // Either side may not have heard of the other: the delegations say so.
            let shown = self.to_show(node, hosted, &pull.peer);
            if !shown.is_empty() {
                response = self.ask(&pull.peer, Protocol::Sync, &request(hosted, pull, shown)).await?;
            }
        }
        let (heads, epochs, next, tell_branches) = match response {
            Response::Epochs { heads, epochs, next, tell_branches } => (heads, epochs, next, tell_branches),
            Response::Refused(Refused::NotFound) => return Some(Pulled::NotFound),
            Response::Refused(_) | Response::Compare(_) | Response::Proofs(_) | Response::Push(_) => return None,
        };
        let told = [pull.peer].into();
        let taken = self.take(node, hosted, &pull.peer, epochs, &told).await?;
        let is_unknown = |id: &EpochId| matches!(hosted.index.epoch(id), Ok(None));
        let unknown = heads.iter().copied().filter(is_unknown).take(NAMES_MAX).collect();
        Some(Pulled::Answered {
            heads,
            unknown,
            taken: taken.taken,
            held: taken.held,
            refused: taken.refused,
            missing: taken.missing,
            next,
            tell_branches,
        })
    }

    /// As [`Self::catch_up_to_the_end`], for a bounded time.
    pub(crate) async fn catch_up(&self, node: &Node, hosted: &Arc<Hosted>) -> bool {
        self.catch_up_within(node, hosted, CATCH_UP_WAIT).await
    }

    /// Pulls what the connected live hosts of a space have, all at once; true when one of them has nothing more.
    pub(crate) async fn catch_up_to_the_end(&self, node: &Node, hosted: &Arc<Hosted>) -> bool {
        self.catch_up_within(node, hosted, Duration::MAX).await
    }

    async fn catch_up_within(&self, node: &Node, hosted: &Arc<Hosted>, wait: Duration) -> bool {
        let pulls = self.hosts_to_ask(node, &hosted.id).into_iter().map(|peer| self.catch_up_with(node, hosted, peer));
        let pulls = futures::future::join_all(pulls.map(|pull| tokio::time::timeout(wait, pull)));
        pulls.await.into_iter().any(|caught_up| caught_up == Ok(true))
    }

    async fn catch_up_with(&self, node: &Node, hosted: &Arc<Hosted>, peer: HostKey) -> bool {
        let space = hosted.id.clone();
        let mut pull = Pull { peer, space, ask: Ask::ByHeads(None) };
        let mut tips_max = TIPS_FIRST;
        loop {
            match self.pull(node, &pull).await {
                Pulled::Answered { unknown, next: None, tell_branches: false, .. } => return unknown.is_empty(),
                Pulled::Answered { tell_branches: true, .. } => {
                    pull.ask = Ask::ByBranches(tips_max, None);
                    if tips_max >= TIPS_MAX {
                        return false;
                    }
                    tips_max *= 4;
                }
                Pulled::Answered { next, .. } => {
                    pull.ask = match pull.ask {
                        Ask::ByBranches(tips_max, _) => Ask::ByBranches(tips_max, next),
                        Ask::ByHeads(_) | Ask::Epochs(_) => Ask::ByHeads(next),
                    };
                }
                Pulled::NotFound | Pulled::Later => return false,
            }
        }
    }

    /// Asks the connected hosts of a space for what is lacking, now; also one that is no longer a host, which may be the only
    /// one to have it.
    pub(crate) fn hurry(&self, node: &Node, space: &SpaceId) {
        let connected = self.shared.network.connected();
        for peer in connected.into_iter().filter(|peer| node.is_named_host(space, peer)) {
            self.tell(node, |replicator, now| replicator.handle_behind(now, peer, space.clone()));
        }
    }

    /// Tells a peer what is new.
    pub(super) async fn send_push(&self, peer: &HostKey, pushed: Vec<Pushed>) -> Option<Vec<Verdict>> {
        match self.ask(peer, Protocol::Push, &Request::Push(pushed)).await? {
            Response::Push(verdicts) => Some(verdicts),
            Response::Refused(_) | Response::Compare(_) | Response::Epochs { .. } | Response::Proofs(_) => None,
        }
    }
}

fn frontier(hosted: &Hosted) -> Vec<EpochId> {
    hosted.dag().frontier().collect()
}

fn request(hosted: &Hosted, pull: &Pull, shown: Vec<Bytes>) -> Request {
    let space = pull.space.clone();
    let have = |have: &dyn Fn(&kvspace_protocol::dag::Dag) -> Have| have(&hosted.dag());
    match &pull.ask {
        Ask::ByHeads(after) => Request::Pull { space, have: have(&Have::heads), after: *after, shown },
        Ask::ByBranches(tips_max, after) => {
            let tips_max = (*tips_max).min(TIPS_MAX);
            Request::Pull { space, have: have(&|dag| Have::branches(dag, tips_max)), after: *after, shown }
        }
        Ask::Epochs(epochs) => Request::Get { space, epochs: epochs.clone(), shown },
    }
}
