//! Hosts that are cut off from each other while people write at each.

use kvspace_client::Millis;
use serde_json::Value;

use super::bytes;
use crate::harness::{
    Cluster,
    cluster::epoch,
    tokens::{self, etag_of},
};

/// Lets the clock go on, so that what is written now is later than what was.
fn tick() {
    let Millis(before) = tokens::now();
    while tokens::now() <= Millis(before + 2) {
        std::hint::spin_loop();
    }
}

fn operations(explained: &Value) -> Vec<(String, String, String)> {
    let of = |operation: &Value| {
        let text = |value: &Value| value.as_str().expect("text").to_owned();
        (text(&operation["standing"]["state"]), text(&operation["host"]), text(&operation["epoch"]))
    };
    explained["operations"].as_array().expect("a list").iter().map(of).collect()
}

#[test]
fn two_sides_that_wrote_apart_agree_and_the_later_clock_wins() {
    let cluster = Cluster::of(3);
    let [a, b, c] = &cluster.hosts[..] else { unreachable!("three were started") };
    let session = &cluster.session;
    for key in ["both", "deleted", "kept", "early"] {
        session.put(a, key, "before").expect(200);
    }
    cluster.converge();
    cluster.part(&[0], &[1, 2]);
    let lost = session.put(a, "both", "one side").expect(200);
    session.put(b, "early", "one side").expect(200);
    session.del(a, "kept").expect(200);
    session.put(a, "deleted", bytes(300_000, 1)).expect(200);
    for number in 0..50 {
        session.put(a, &format!("a/{number}"), bytes(100, number)).expect(200);
        session.put(b, &format!("b/{number}"), bytes(100, number)).expect(200);
        session.put(c, &format!("c/{number}"), bytes(100, number)).expect(200);
    }
    tick();
    let won = session.put(c, "both", "other side").expect(200);
    session.put(a, "early", "one side, later").expect(200);
    session.put(b, "kept", "kept").expect(200);
    session.del(c, "deleted").expect(200);
    assert_eq!(session.get(a, "both").expect(200).text(), "one side");
    assert_eq!(session.get(b, "kept").expect(200).text(), "kept");
    cluster.heal();
    let held = cluster.agree();
    assert_eq!(held.len(), 153, "{held:?}");
    for (key, value) in [("both", "other side"), ("early", "one side, later"), ("kept", "kept")] {
        assert_eq!(held[key], etag_of(value.as_bytes()), "{key}");
    }
    assert!(!held.contains_key("deleted"));
    // The write that lost is told everywhere, with who took it in.
    for node in &cluster.hosts {
        let found = operations(&cluster.explain(node, "both"));
        assert_eq!(found.len(), 3, "{found:?}");
        assert_eq!(found[0], ("wins".into(), c.did().as_str().into(), epoch(&won)));
        assert_eq!(found[1], ("superseded".into(), a.did().as_str().into(), epoch(&lost)));
    }
    // One more write brings the sides together in the log as well.
    let last = session.put(b, "last", "x").expect(200);
    assert_eq!(cluster.converge(), [epoch(&last)]);
}

#[test]
fn five_hosts_that_are_all_alone_agree_again() {
    let cluster = Cluster::of(5);
    for round in 0..2 {
        for n in 0..5 {
            let others: Vec<_> = (n + 1..5).collect();
            cluster.part(&[n], &others);
        }
        for (n, host) in cluster.hosts.iter().enumerate() {
            cluster.session.put(host, "contended", format!("{round} by {n}")).expect(200);
            cluster.session.put(host, &format!("{round}/{n}"), bytes(1000, n as u64)).expect(200);
            tick();
        }
        cluster.heal();
        let held = cluster.agree();
        assert_eq!(held["contended"], etag_of(format!("{round} by 4").as_bytes()));
        assert_eq!(held.len(), 1 + 5 * (round + 1));
    }
}

#[test]
fn what_two_hosts_cannot_tell_each_other_comes_through_a_third() {
    let cluster = Cluster::of(3);
    // The other side knows nothing of it.
    cluster.cut(0, 1);
    for from in [0, 1] {
        let key = format!("from/{from}");
        let written = cluster.session.put(&cluster.hosts[from], &key, bytes(300_000, from as u64)).expect(200);
        for to in 0..3 {
            assert_eq!(cluster.get_after(to, &key, &epoch(&written)).expect(200).body.len(), 300_000);
        }
    }
    assert_eq!(cluster.agree().len(), 2);
    cluster.heal();
    cluster.await_connected(0, 1);
    cluster.await_connected(1, 0);
}

#[test]
fn an_explanation_says_whose_epochs_are_missing() {
    let cluster = Cluster::of(2);
    cluster.session.put(&cluster.hosts[0], "a", "value").expect(200);
    cluster.converge();
    cluster.part(&[0], &[1]);
    let explained = cluster.explain(&cluster.hosts[1], "a");
    let hosts = explained["hosts"].as_array().expect("a list");
    let other = hosts.iter().find(|host| host["host"] == cluster.hosts[0].did().as_str()).expect("it is a host");
    assert_eq!((&other["is_here"], &other["is_connected"]), (&false.into(), &false.into()));
    assert!(other["heard"]["heads"].is_array(), "{other}");
    assert_eq!(hosts.len(), 2);
}
