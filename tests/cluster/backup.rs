//! A host that comes back from a copy of what it was.

use std::fs;

use super::bytes;
use crate::harness::{
    Cluster, Node, Place,
    cluster::{converge, epoch},
    process::{eventually, run},
};

/// Runs the command line on a data folder.
fn kvspace(arguments: &[&str], node: &Node) {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_kvspace"));
    command.args(arguments).arg("--data-dir").arg(node.data_dir());
    let (status, _, error) = run(&mut command, b"");
    assert_eq!(status.code(), Some(0), "{error}");
}

/// No host sees a chain that is two.
fn is_one_chain(cluster: &Cluster, nodes: &[&Node]) {
    for node in nodes {
        assert_eq!(cluster.explain(node, "a")["forks"], serde_json::json!([]));
    }
}

#[test]
fn a_host_restored_from_an_older_backup_gets_its_own_epochs_back() {
    let mut cluster = Cluster::of(3);
    let session = cluster.session.clone();
    for number in 0..20 {
        session.put(&cluster.hosts[2], &format!("before/{number}"), bytes(1000, number)).expect(200);
    }
    cluster.converge();
    let folder = tempfile::tempdir().expect("a folder");
    let backup = folder.path().join("backup");
    kvspace(&["backup", backup.to_str().expect("text")], &cluster.hosts[2]);
    for number in 0..20 {
        session.put(&cluster.hosts[2], &format!("after/{number}"), bytes(1000, number)).expect(200);
    }
    session.put(&cluster.hosts[2], "after/large", bytes(400_000, 1)).expect(200);
    session.del(&cluster.hosts[2], "before/0").expect(200);
    let before = cluster.converge();
    let held = cluster.held(&cluster.hosts[0]);
    cluster.hosts[2].stop();
    fs::remove_dir_all(cluster.hosts[2].data_dir()).expect("removed");
    kvspace(&["restore", backup.to_str().expect("text")], &cluster.hosts[2]);
    cluster.hosts[2].start();
    // It is written to at once, and takes nothing before it knows again what it has forgotten of itself.
    eventually("it is caught up", || {
        let answer = session.put(&cluster.hosts[2], "restored", "x");
        assert!(matches!(answer.status, 200 | 503), "{answer:?}");
        answer.status == 200
    });
    assert_eq!(session.list(&cluster.hosts[2], "after/").len(), 21, "it has written before it knew");
    cluster.converge();
    let now = cluster.agree();
    assert_eq!(now.len(), held.len() + 1);
    assert!(held.iter().all(|(key, tag)| now.get(key) == Some(tag)), "{now:?}");
    is_one_chain(&cluster, &cluster.hosts.iter().collect::<Vec<_>>());
    let last = session.put(&cluster.hosts[0], "last", "x").expect(200);
    assert_eq!(cluster.converge(), [epoch(&last)]);
    assert!(!before.contains(&epoch(&last)));
}

#[test]
fn a_host_that_runs_twice_loses_nothing() {
    let mut cluster = Cluster::of(3);
    let session = cluster.session.clone();
    session.put(&cluster.hosts[2], "before", "x").expect(200);
    cluster.converge();
    cluster.hosts[2].stop();
    // The same key and the same data elsewhere.
    let place = Place::of(cluster.places[2].key.clone());
    let mut twin = place.setup(&[&cluster.places[0], &cluster.places[1]]).rest();
    copy(&cluster.hosts[2].data_dir(), &twin.data_dir());
    cluster.hosts[2].start();
    twin.start();
    assert_eq!(twin.did(), cluster.hosts[2].did());
    for number in 0..10 {
        session.put(&cluster.hosts[2], &format!("one/{number}"), bytes(100, number)).expect(200);
        session.put(&twin, &format!("two/{number}"), bytes(100, number)).expect(200);
    }
    let all: Vec<_> = cluster.hosts.iter().chain([&twin]).collect();
    converge(&all, &cluster.space);
    for node in &all {
        assert_eq!((session.list(node, "one/").len(), session.list(node, "two/").len()), (10, 10));
    }
    is_one_chain(&cluster, &all);
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    fs::create_dir_all(to).expect("made");
    fs::set_permissions(to, fs::metadata(from).expect("there").permissions()).expect("set");
    for entry in fs::read_dir(from).expect("there").map(|entry| entry.expect("there").path()) {
        let name = to.join(entry.file_name().expect("a name"));
        if entry.is_dir() {
            copy(&entry, &name);
        } else {
            fs::copy(&entry, &name).expect("copied");
        }
    }
}
