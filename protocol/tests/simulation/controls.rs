//! Runs that have to fail, so that those that do not are worth something.

use kvspace_protocol::id::HostKey;

use crate::{
    ALL_ON, Knobs,
    cluster::{Cluster, START_OF_PEACE_MS},
};

const HONEST: Knobs = Knobs { liar: false, check_percent: 0, ..ALL_ON };

/// How many of these runs end with all hosts equal.
fn equal(seeds: std::ops::Range<u64>, knobs: Knobs) -> usize {
    seeds.filter(|seed| Cluster::new(*seed, knobs).run().equal_after_ms.is_some()).count()
}

#[test]
fn pushes_alone_do_not_make_hosts_equal() {
    assert_eq!(equal(0..4, Knobs { compares: false, repairs: false, ..HONEST }), 0);
}

#[test]
fn without_comparing_only_the_repair_of_missing_ancestors_makes_hosts_equal() {
    let after_a_write_each = |repairs: bool| {
        let ends = (0..4).filter(|seed| {
            let mut cluster = Cluster::new(*seed, Knobs { compares: false, repairs, ..HONEST });
            cluster.run();
            cluster.write_everywhere();
            let end_ms = START_OF_PEACE_MS + 2_000_000;
            cluster.run_until(end_ms, |cluster| cluster.difference().is_none());
            cluster.difference().is_none()
        });
        ends.count()
    };
    assert_eq!(after_a_write_each(true), 4, "with it they are");
    assert_eq!(after_a_write_each(false), 0, "without it they are not");
}

/// Hosts of equal logs, with what each would make of it.
fn disagree<T: PartialEq>(views: impl Fn(&Cluster) -> Vec<T>) -> usize {
    let disagrees = |seed: &u64| {
        let mut cluster = Cluster::new(*seed, HONEST);
        assert!(cluster.run().equal_after_ms.is_some());
        let views = views(&cluster);
        views.iter().any(|view| *view != views[0])
    };
    let number = (0..12).filter(disagrees).count();
    eprintln!("{number} of 12 disagree");
    number
}

#[test]
fn if_the_last_to_arrive_won_hosts_would_disagree() {
    assert!(disagree(Cluster::winners_by_arrival) > 0);
    assert_eq!(disagree(Cluster::winners), 0, "by the rules they agree");
}

#[test]
fn if_revocations_were_judged_at_arrival_hosts_would_disagree() {
    assert!(disagree(Cluster::winners_judged_at_arrival) > 0);
}

#[test]
fn the_peers_of_a_node_are_all_connected_in_the_end() {
    let mut cluster = Cluster::new(1, HONEST);
    cluster.run();
    let peers: Vec<Vec<HostKey>> =
        cluster.nodes.iter().map(|node| node.replicator.peers().map(|peer| peer.peer).collect()).collect();
    assert!(peers.iter().all(|peers| peers.len() == cluster.nodes.len() - 1));
}
