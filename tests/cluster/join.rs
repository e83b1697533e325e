//! A host that comes later.

use std::sync::atomic::{AtomicBool, Ordering};

use super::{fill, is_filled};
use crate::harness::{
    Cluster, Node,
    cluster::{converge, epoch},
    is_long,
    process::eventually,
    tokens::{GET, delegate, revoke},
};

/// Two hosts with so many keys, and a third node that knows the second of them.
fn filled(count: u64) -> (Cluster, Node) {
    let cluster = Cluster::of(2);
    fill(&cluster.hosts[0], &cluster.session, "k", count);
    let newcomer = cluster.newcomer(&[1]);
    cluster.session.get(&newcomer, "k/000000").expect(404);
    (cluster, newcomer)
}

fn joined(cluster: &Cluster, newcomer: &Node) {
    converge(&[&cluster.hosts[0], &cluster.hosts[1], newcomer], &cluster.space);
}

#[test]
fn a_host_that_joins_while_writes_go_on_has_all() {
    let count = if is_long() { 100_000 } else { 3_000 };
    let (cluster, newcomer) = filled(count);
    let has_joined = AtomicBool::new(false);
    let meanwhile = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut written = 0;
            while !has_joined.load(Ordering::Relaxed) {
                let host = &cluster.hosts[written % 2];
                cluster.session.put(host, &format!("meanwhile/{written:06}"), written.to_string()).expect(200);
                written += 1;
            }
            written
        });
        cluster.add(&newcomer, &cluster.owner.host(&cluster.space, &newcomer.did()));
        let epoch = epoch(&cluster.session.put(&cluster.hosts[0], "mark", "x").expect(200));
        let read = cluster.session.invoke(GET, "mark");
        eventually("the newcomer has what was there before", || {
            let read = read.clone().header("x-kvspace-after", &epoch).header("x-kvspace-wait-ms", 5_000);
            newcomer.ask(&read).status == 200
        });
        has_joined.store(true, Ordering::Relaxed);
        writer.join().expect("every write is taken")
    });
    joined(&cluster, &newcomer);
    is_filled(&newcomer, &cluster.session, "k", count);
    let keys: Vec<_> = (0..meanwhile).map(|number| format!("meanwhile/{number:06}")).collect();
    assert_eq!(cluster.session.list(&newcomer, "meanwhile/"), keys);
    // It is a host like the others.
    let written = cluster.session.put(&newcomer, "by-the-newcomer", "x").expect(200);
    for host in 0..2 {
        assert_eq!(cluster.get_after(host, "by-the-newcomer", &epoch(&written)).expect(200).text(), "x");
    }
}

#[test]
fn a_host_joins_by_the_delegation_that_it_shows() {
    let (cluster, newcomer) = filled(100);
    // No other host was told of it.
    delegate(&newcomer, &cluster.owner.host(&cluster.space, &newcomer.did())).expect(200);
    joined(&cluster, &newcomer);
    is_filled(&newcomer, &cluster.session, "k", 100);
}

#[test]
fn a_host_joins_by_the_delegation_that_another_host_has() {
    let (cluster, newcomer) = filled(100);
    // The newcomer itself was told nothing.
    delegate(&cluster.hosts[0], &cluster.owner.host(&cluster.space, &newcomer.did())).expect(200);
    joined(&cluster, &newcomer);
    is_filled(&newcomer, &cluster.session, "k", 100);
}

#[test]
fn a_removed_host_gets_nothing_new() {
    let cluster = Cluster::of(3);
    let leaving = &cluster.hosts[2];
    cluster.session.put(leaving, "a", "by the leaving").expect(200);
    let revocation = cluster.owner.revocation_after(&cluster.space, &cluster.words[2], &cluster.converge());
    revoke(&cluster.hosts[0], &revocation).expect(200);
    converge(&[&cluster.hosts[0], &cluster.hosts[1]], &cluster.space);
    let written = cluster.session.put(&cluster.hosts[0], "b", "new").expect(200);
    assert_eq!(cluster.get_after(1, "b", &epoch(&written)).expect(200).text(), "new");
    assert_eq!(cluster.session.get(&cluster.hosts[1], "a").expect(200).text(), "by the leaving");
    let read = cluster.session.invoke(GET, "b").header("x-kvspace-after", epoch(&written));
    let answer = leaving.ask(&read.header("x-kvspace-wait-ms", 2_000));
    assert_ne!(answer.status, 200, "{answer:?}");
}
