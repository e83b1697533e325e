//! Hosts that do not agree about the time.

use crate::harness::{
    Cluster, Session,
    cluster::epoch,
    is_long,
    process::eventually,
    tokens::{PUT, etag_of},
};

const SKEW: &str = "KVSPACE_CLOCK_SKEW_MS";

/// A cluster whose last host is ahead.
fn ahead(count: usize, by_ms: i64) -> Cluster {
    Cluster::with(count, |n, setup| if n + 1 == count { setup.variable(SKEW, by_ms) } else { setup })
}

#[test]
fn hosts_half_a_minute_apart_converge() {
    let cluster = ahead(3, 30_000);
    let [a, _, c] = &cluster.hosts[..] else { unreachable!("three were started") };
    cluster.part(&[0, 1], &[2]);
    cluster.session.put(c, "apart", "by the one that is ahead").expect(200);
    cluster.session.put(a, "apart", "by the others, afterwards").expect(200);
    for number in 0..20 {
        cluster.session.put(&cluster.hosts[number % 3], &format!("k/{number}"), "x").expect(200);
    }
    cluster.heal();
    let held = cluster.agree();
    // Between writes that knew nothing of each other the later clock wins, even when it is wrong.
    assert_eq!(held["apart"], etag_of(b"by the one that is ahead"));
    assert_eq!(held.len(), 21);
    // Who has seen the write replaces it, whatever the clock says.
    let written = cluster.session.put(a, "apart", "having seen it").expect(200);
    for host in 0..3 {
        assert_eq!(cluster.get_after(host, "apart", &epoch(&written)).expect(200).text(), "having seen it");
    }
}

/// Puts something by a token that is long enough in force for the host that is ahead.
fn put_ahead(cluster: &Cluster, session: &Session, key: &str, value: &str) -> String {
    let statement = session.wants(PUT, key).until(200_000);
    let host = cluster.hosts.last().expect("there are hosts");
    epoch(&host.ask(&session.request(&statement).body(value)).expect(200))
}

#[test]
fn epochs_of_a_host_far_ahead_are_not_yet_and_then_taken() {
    let ahead_ms = if is_long() { 90_000 } else { 66_000 };
    let links = [vec![1], vec![0], vec![0, 1]];
    // It starts with the right time, so that all know each other; then its clock is set wrong.
    let mut cluster = Cluster::linked(&links, |_, setup| setup);
    let [a, b] = [0, 1];
    cluster.hosts[2].stop();
    cluster.hosts[2].set_variable(SKEW, ahead_ms);
    cluster.hosts[2].start();
    cluster.await_connected(2, 0);
    let far = put_ahead(&cluster, &cluster.session, "far", "from the future");
    for host in [a, b] {
        let node = &cluster.hosts[host];
        eventually("it waits, and is explained", || {
            let explained = cluster.explain(node, "far");
            let waiting = explained["waiting"].as_array().expect("a list").clone();
            waiting.iter().any(|waiting| waiting["epoch"] == *far && waiting["clock_ms"].is_i64())
        });
        cluster.session.get(node, "far").expect(404);
        let refused = cluster.explain(node, "far")["refused"].clone();
        assert_eq!(refused, serde_json::json!([]), "to be early is no offence");
    }
    // The others go on meanwhile.
    let written = cluster.session.put(&cluster.hosts[a], "near", "x").expect(200);
    assert_eq!(cluster.get_after(b, "near", &epoch(&written)).expect(200).text(), "x");
    for host in [a, b] {
        eventually("its time has come", || cluster.session.get(&cluster.hosts[host], "far").status == 200);
    }
    cluster.converge();
}
