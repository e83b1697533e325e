//! What people and operators type about hosts.

use std::process::Command;

use crate::harness::{
    Node, Place,
    cli::Cli,
    cluster::is_connected,
    process::{eventually, run},
};

/// Two nodes that know each other, and a user of the first with a space.
fn world() -> ([Node; 2], Cli) {
    let places = [Place::new(), Place::new()];
    let nodes = [places[0].setup(&[&places[1]]).start(), places[1].setup(&[&places[0]]).start()];
    let cli = Cli::of(&nodes[0]);
    cli.ok(&["key", "new"]);
    cli.ok(&["space", "create", "notes"]);
    eventually("they are connected", || is_connected(&nodes[0], &nodes[1].did()));
    (nodes, cli)
}

#[test]
fn the_demonstration_shows_what_it_says() {
    let (status, output, error) = run(Command::new(env!("CARGO_BIN_EXE_kvspace")).arg("demo"), b"");
    let output = String::from_utf8_lossy(&output);
    assert_eq!(status.code(), Some(0), "{output}\n{error}");
    assert!(output.contains("all that was read was right"), "{output}");
}

#[test]
fn a_host_is_added_and_removed_by_the_owner() {
    let ([one, two], cli) = world();
    cli.run_with(&["put", "notes", "greeting"], b"hello");
    let (url, did) = (two.url(), two.did());
    let added = cli.ok(&["space", "add-host", "notes", &url]);
    assert_eq!(added, format!("host\t{did}\n"));
    eventually("it has all", || {
        let hosts = cli.json(&["space", "hosts", "notes"]);
        let mut hosts = hosts["hosts"].as_array().expect("a list").iter();
        hosts.any(|host| host["host"] == did.as_str() && host["has_all"] == true && host["is_connected"] == true)
    });
    let hosts = cli.ok(&["space", "hosts", "notes"]);
    assert!(hosts.contains(&format!("{} here", one.did())) && hosts.contains(did.as_str()), "{hosts}");
    assert_eq!(cli.ok(&["get", "notes", "greeting", "--node", &url]), "hello");
    let put = cli.run_with(&["put", "notes", "answer", "--node", &url], b"hello too");
    assert_eq!(put.code, 0, "{put:?}");
    // Removing waits for what was just written there.
    let removed = cli.ok(&["space", "remove-host", "notes", did.as_str(), "--yes"]);
    assert!(removed.contains(&format!("removed\t{did}\n")), "{removed}");
    assert_eq!(cli.ok(&["get", "notes", "answer"]), "hello too");
    let hosts = cli.ok(&["space", "hosts", "notes"]);
    assert!(hosts.contains(&format!("{did} removed")), "{hosts}");
    assert_eq!(cli.run(&["space", "remove-host", "notes", did.as_str(), "--yes"]).code, 3, "it is none any more");
}

#[test]
fn a_user_is_told_why_and_an_operator_by_whom() {
    let ([one, two], cli) = world();
    cli.run_with(&["put", "notes", "greeting"], b"hello");
    cli.ok(&["space", "add-host", "notes", &two.url()]);
    eventually("it is there", || cli.run(&["get", "notes", "greeting", "--node", &two.url()]).code == 0);
    let why = cli.ok(&["why", "notes", "greeting", "--node", &two.url()]);
    for words in [format!("at {}", two.did()), "It holds 5 bytes".into(), format!("taken by   {}", one.did())] {
        assert!(why.contains(&words), "{words}: {why}");
    }
    assert!(cli.ok(&["why", "notes", "nothing"]).contains("It holds nothing"));
    let peers = cli.ok(&["peers"]);
    assert!(peers.contains(two.did().as_str()), "{peers}");
    assert_eq!(cli.ok(&["peers", "block", two.did().as_str()]), format!("blocked\t{}\n", two.did()));
    eventually("they are parted", || !is_connected(&one, &two.did()));
    cli.run_with(&["put", "notes", "greeting"], b"hello again");
    let why = cli.ok(&["why", "notes", "greeting", "--node", &two.url()]);
    assert!(why.contains("Not here yet") && why.contains("It holds 5 bytes"), "{why}");
    cli.ok(&["peers", "unblock", two.did().as_str()]);
    eventually("it is there", || cli.ok(&["get", "notes", "greeting", "--node", &two.url()]) == "hello again");
}
