//! A host that was not there.

use super::{bytes, fill, is_filled};
use crate::harness::{Cluster, cluster::epoch, is_long};

#[test]
fn a_host_that_was_away_for_thousands_of_writes_catches_up() {
    let count = if is_long() { 10_000 } else { 2_000 };
    let mut cluster = Cluster::of(3);
    cluster.hosts[2].stop();
    let session = cluster.session.clone();
    fill(&cluster.hosts[0], &session, "zero", count / 2);
    fill(&cluster.hosts[1], &session, "one", count / 2);
    session.put(&cluster.hosts[0], "large", bytes(1_000_000, 1)).expect(200);
    cluster.hosts[2].start();
    // Some writes come while it catches up, at the host that does.
    for number in 0..20 {
        session.put(&cluster.hosts[2], &format!("two/{number}"), "x").expect(200);
    }
    let heads = cluster.converge();
    for host in &cluster.hosts {
        is_filled(host, &session, "zero", count / 2);
        is_filled(host, &session, "one", count / 2);
        assert!(session.get(host, "large").expect(200).body == bytes(1_000_000, 1));
        assert_eq!(session.list(host, "two/").len(), 20);
    }
    // All at once: what was known of each other is found again.
    cluster.hosts.iter_mut().for_each(crate::harness::Node::stop);
    cluster.hosts.iter_mut().for_each(crate::harness::Node::start);
    assert_eq!(cluster.converge(), heads);
    for from in 0..3 {
        let written = session.put(&cluster.hosts[from], "again", from.to_string()).expect(200);
        for to in 0..3 {
            assert_eq!(cluster.get_after(to, "again", &epoch(&written)).expect(200).text(), from.to_string());
        }
    }
    cluster.hosts.iter_mut().for_each(crate::harness::Node::stop);
}
