//! What has to hold in a run, and what would be seen by other rules.

use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

use kvspace_protocol::{
    epoch::SignedEpoch,
    id::{BlobHash, EpochId, SpaceId},
    kv::Version,
    limits::NOT_FOUND_INTERVALS,
    space::View,
    sync::{Request, Response},
};

use super::{BOUND_MS, Cluster};
use crate::{
    node::INTERVAL_MS,
    oracle::{self, Truth},
    world,
};

impl Cluster {
    /// What keeps the hosts of a space from being equal.
    pub(crate) fn difference(&self) -> Option<String> {
        for owner in &self.owners {
            let hosts = self.nodes.iter().enumerate().filter(|(_, node)| !self.removed.contains(&node.key));
            let mut hosts = hosts.filter_map(|(number, node)| Some((number, node.spaces.get(&owner.space)?)));
            let Some((_, first)) = hosts.next() else { continue };
            for (number, hosted) in hosts {
                if hosted.is_busy() || first.is_busy() {
                    return Some(format!("{} at 0 or {number} still commits", owner.space));
                }
                let (host, first) = (&hosted.host, &first.host);
                if host.frontier() != first.frontier() {
                    return Some(format!(
                        "{} at 0 and {number}: {:?} and {:?}",
                        owner.space,
                        first.frontier(),
                        host.frontier()
                    ));
                }
            }
        }
        None
    }

    /// What holds after every step: what was acknowledged is there, and the state is what the rules say of the log.
    pub(super) fn check(&mut self, number: usize) {
        let node = &self.nodes[number];
        for (space, hosted) in &node.spaces {
            let log = &hosted.host.log;
            let now = (self.generations[number], log.len());
            if self.seen.insert((number, space.clone()), now) == Some(now) {
                continue;
            }
            for id in &hosted.acknowledged {
                let held = hosted.host.view.epoch(id).expect("the view reads");
                assert!(held.is_some(), "an acknowledged write is lost at {number}");
            }
            if !self.dice.chance(self.check_percent) || hosted.host.out.is_some() {
                continue;
            }
            let truth = truth(&mut self.truths, space, log);
            assert_is(&hosted.host, &truth);
        }
    }

    /// The same for all hosts, at the end.
    pub(crate) fn check_all(&mut self) {
        for node in &self.nodes {
            for (space, hosted) in node.spaces.iter().filter(|(_, hosted)| hosted.host.out.is_none()) {
                assert_is(&hosted.host, &truth(&mut self.truths, space, &hosted.host.log));
            }
        }
    }

    /// Spaces to be pulled from honest hosts and epochs to be pushed to them. A host that was removed asks in vain for ever.
    fn to_do(&self) -> usize {
        let nodes = self.nodes.iter().filter(|node| !self.removed.contains(&node.key));
        let peers = nodes.flat_map(|node| node.replicator.peers());
        let honest = peers.filter(|peer| self.liar.as_ref().is_none_or(|liar| liar.key != peer.peer));
        honest.map(|peer| peer.behind + peer.to_push).sum()
    }

    /// What a host sends of a space goes to those that it knows as its hosts.
    pub(super) fn assert_may_tell(&self, from: usize, to: usize, request: &[u8]) {
        let Ok(Request::Push(pushed)) = Request::decode(request) else { return };
        for pushed in pushed {
            let may = self.nodes[from].may_tell(self.now_ms, &pushed.space, &self.key(to));
            assert!(may, "{from} pushes to {to}, which is no host");
        }
    }

    pub(super) fn assert_may_answer(&self, from: usize, to: usize, request: &[u8], answer: &[u8]) {
        let Ok(Response::Epochs { .. }) = Response::decode(answer) else { return };
        let space = match Request::decode(request) {
            Ok(Request::Pull { space, .. } | Request::Get { space, .. }) => space,
            other => panic!("epochs in answer to {other:?}"),
        };
        assert!(self.nodes[from].may_tell(self.now_ms, &space, &self.key(to)), "{from} answers {to}, which is no host");
    }

    /// Nothing is still to be asked for, or waits for an answer. Only the liar may bring up something that nobody has had.
    pub(crate) fn assert_at_rest(&mut self) {
        let end_ms = self.now_ms + 20_000;
        self.run_until(end_ms, |_| false);
        if self.liar.is_some() {
            self.run_until(end_ms + BOUND_MS, |cluster| cluster.difference().is_none());
        }
        assert_eq!(self.difference(), None, "they part again");
        // A host that was not known rests longest.
        let end_ms = self.now_ms + (NOT_FOUND_INTERVALS + 1) * INTERVAL_MS;
        let is_done = |cluster: &Self| cluster.to_do() == 0 && !cluster.is_owed();
        self.run_until(end_ms, is_done);
        assert_eq!(self.to_do(), 0, "something is still to be done");
        assert!(!self.is_owed(), "something is missing that somebody has");
    }

    /// Whether a host misses what another has. What only a host has had that came back from a backup is lost.
    fn is_owed(&self) -> bool {
        let hosts = || self.nodes.iter().filter(|node| !self.removed.contains(&node.key));
        let of = |space: &SpaceId| hosts().filter_map(|host| host.spaces.get(space)).collect::<Vec<_>>();
        self.owners.iter().map(|owner| of(&owner.space)).any(|hosted| {
            let held: BTreeSet<EpochId> =
                hosted.iter().flat_map(|hosted| hosted.host.log.iter().map(world::id)).collect();
            hosted.iter().any(|hosted| hosted.host.core.missing().iter().any(|id| held.contains(id)))
        })
    }

    /// The winners that each host sees.
    pub(crate) fn winners(&self) -> Vec<BTreeMap<String, (Version, Option<BlobHash>)>> {
        let space = &self.owners[0].space;
        let nodes = self.nodes.iter().filter(|node| !self.removed.contains(&node.key));
        nodes.filter_map(|node| node.spaces.get(space)).map(|hosted| hosted.host.winners()).collect()
    }

    /// The winners that each host would see if the last write to arrive won.
    pub(crate) fn winners_by_arrival(&self) -> Vec<BTreeMap<String, Version>> {
        let space = &self.owners[0].space;
        let nodes = self.nodes.iter().filter(|node| !self.removed.contains(&node.key));
        let hosts = nodes.filter_map(|node| node.spaces.get(space)).map(|hosted| &hosted.host);
        hosts
            .map(|host| {
                let arrival: BTreeMap<EpochId, usize> = host.log.iter().map(world::id).zip(0..).collect();
                let mut winners: BTreeMap<String, (usize, Version)> = BTreeMap::new();
                for ((key, version), _) in host.operations().into_iter().filter(|(_, void)| !void) {
                    let at = arrival[&version.epoch];
                    let winner = winners.entry(key).or_insert((at, version));
                    *winner = (*winner).max((at, version));
                }
                winners.into_iter().map(|(key, (_, version))| (key, version)).collect()
            })
            .collect()
    }

    /// The winners that each host would see if what a revocation takes away was decided when a write arrives.
    pub(crate) fn winners_judged_at_arrival(&self) -> Vec<BTreeMap<String, Version>> {
        let space = &self.owners[0].space;
        let nodes = self.nodes.iter().filter(|node| !self.removed.contains(&node.key));
        let hosts = nodes.filter_map(|node| node.spaces.get(space)).map(|hosted| &hosted.host);
        hosts
            .map(|host| {
                let mut winners: BTreeMap<String, Version> = BTreeMap::new();
                let mut counted: BTreeSet<(String, Version)> = BTreeSet::new();
                for end in 1..=host.log.len() {
                    let id = world::id(&host.log[end - 1]);
                    let truth = oracle::truth(space, &host.log[..end]);
                    counted.extend(
                        truth
                            .operations
                            .into_iter()
                            .filter(|((_, version), void)| version.epoch == id && !void)
                            .map(|(operation, _)| operation),
                    );
                }
                for (key, version) in counted {
                    let winner = winners.entry(key).or_insert(version);
                    *winner = (*winner).max(version);
                }
                winners
            })
            .collect()
    }
}

fn truth(truths: &mut BTreeMap<BTreeSet<EpochId>, Rc<Truth>>, space: &SpaceId, log: &[SignedEpoch]) -> Rc<Truth> {
    let ids: BTreeSet<EpochId> = log.iter().map(world::id).collect();
    truths.entry(ids).or_insert_with(|| Rc::new(oracle::truth(space, log))).clone()
}

fn assert_is(host: &world::Host, truth: &Truth) {
    let winners: BTreeMap<String, (Version, Option<BlobHash>)> = host.winners();
    assert_eq!(host.frontier(), truth.heads);
    assert_eq!(host.operations(), truth.operations);
    assert_eq!(winners, truth.winners);
}
