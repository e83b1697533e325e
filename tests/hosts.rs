//! What one node says of hosts, of why a key reads as it does, and of what a revocation would do.

use std::process::Command;

use kvspace_client::{Did, EpochId, Token};
use serde_json::{Value, json};

use crate::harness::{
    Connection, Node, Owner, Request, Response, Session, Setup, Statement,
    cli::Cli,
    get, post,
    process::run,
    tokens::{DEL, GET, LIST, METADATA, PUT, REVOKE, did, new_key},
};

/// A node, and a session of the owner of a space in it.
fn world() -> (Node, Session) {
    let node = Node::new();
    let session = Owner::key(7).open(&node, "default");
    (node, session)
}

/// A write's epoch.
fn written(answer: Response) -> String {
    answer.expect(200).header("x-kvspace-frontier").expect("an epoch").to_owned()
}

/// A request under `/v0/` about the session's space.
fn asks(session: &Session, what: &str, statement: &Statement) -> Request {
    get(&format!("/v0/{what}space={}", session.space)).token(statement.sign(&session.key).to_header())
}

fn explains(session: &Session, key: &str, ability: &str) -> Request {
    asks(session, &format!("explain?key={key}&"), &session.wants(ability, key))
}

/// Every kind of read.
fn reads(session: &Session) -> [Request; 6] {
    [
        session.invoke(GET, "a"),
        session.invoke(METADATA, "a"),
        session.invoke(LIST, ""),
        asks(session, "frontier?", &session.wants(LIST, "")),
        explains(session, "a", GET),
        explains(session, "a", METADATA),
    ]
}

#[test]
fn a_read_is_answered_once_what_it_names_is_here() {
    let (node, session) = world();
    let first = written(session.put(&node, "a", "1"));
    let last = written(session.put(&node, "a", "2"));
    for read in reads(&session) {
        let read = read.header("x-kvspace-after", format!("{first}, {last}")).header("x-kvspace-wait-ms", 0);
        node.ask(&read).expect(200);
    }
    let deleted = written(session.del(&node, "a"));
    node.ask(&session.invoke(GET, "a").header("x-kvspace-after", deleted)).expect(404);
}

#[test]
fn a_read_of_what_is_not_here_says_what_is_missing() {
    let (node, session) = world();
    let known = written(session.put(&node, "a", "1"));
    let unknown = EpochId::of(b"elsewhere").to_string();
    for read in reads(&session) {
        let read = read.header("x-kvspace-after", format!("{known},{unknown}")).header("x-kvspace-wait-ms", 50);
        let answer = node.ask(&read).expect(425);
        assert_eq!(answer.code(), Some("frontier_behind"), "{answer:?}");
        assert!(answer.text().contains(&unknown) && !answer.text().contains(&known), "{answer:?}");
        assert!(answer.header("retry-after").is_some(), "{answer:?}");
    }
}

#[test]
fn what_a_read_names_is_read_or_refused_and_only_after_its_right() {
    let (node, session) = world();
    session.put(&node, "a", "1").expect(200);
    for read in reads(&session) {
        let answer = node.ask(&read.clone().header("x-kvspace-after", "x")).expect(400);
        assert_eq!(answer.code(), Some("after_malformed"));
        let answer = node.ask(&read.header("x-kvspace-wait-ms", "soon")).expect(400);
        assert_eq!(answer.code(), Some("wait_malformed"));
    }
    let stranger = Session { key: new_key(), delegation: None, space: session.space.clone() };
    for read in reads(&stranger) {
        node.ask(&read.header("x-kvspace-after", EpochId::of(b"elsewhere"))).expect(401);
    }
}

#[test]
fn a_key_is_explained_to_whoever_may_read_it() {
    let (node, session) = world();
    session.put(&node, "docs/a", "old").expect(200);
    let epoch = written(session.put(&node, "docs/a", "value"));
    session.put(&node, "secret", "value").expect(200);
    let bob = session.pass_on(&node, "docs", &[METADATA]);
    for asker in [explains(&session, "docs/a", GET), explains(&bob, "docs/a", METADATA)] {
        let document = node.ask(&asker).expect(200).json();
        let (now, then) = (&document["operations"][0], &document["operations"][1]);
        assert_eq!((&now["epoch"], &now["standing"]), (&json!(epoch), &json!({ "state": "wins" })), "{document}");
        assert_eq!((&now["signer"], &now["host"]), (&json!(session.did()), &json!(node.did())), "{document}");
        assert_eq!((&now["integrity"], &now["bytes"]), (&json!("host-attested"), &json!({ "state": "here" })));
        assert_eq!((&now["value"]["size_bytes"], &then["value"]["size_bytes"]), (&json!(5), &json!(3)), "{document}");
        assert_eq!(then["standing"], json!({ "state": "superseded" }), "{document}");
        assert_eq!((&document["key"], &document["node"]), (&json!("docs/a"), &json!(node.did())), "{document}");
        for nothing in ["missing", "waiting", "refused", "forks"] {
            assert_eq!(document[nothing], json!([]), "{document}");
        }
    }
    node.ask(&explains(&bob, "secret", METADATA)).expect(401);
    for ability in [PUT, DEL, LIST] {
        node.ask(&explains(&session, "docs/a", ability)).expect(401);
    }
    // A token for one key says nothing about another.
    node.ask(&asks(&session, "explain?key=secret&", &session.wants(GET, "docs/a"))).expect(401);
    let answer = node.ask(&asks(&session, "explain?", &session.wants(GET, "docs/a"))).expect(400);
    assert_eq!(answer.code(), Some("key_missing"));
    let never = node.ask(&explains(&session, "never", GET)).expect(200).json();
    assert_eq!(never["operations"], json!([]));
}

#[test]
fn what_a_revocation_took_away_is_explained() {
    let (node, session) = world();
    let owner = Owner::key(7);
    session.put(&node, "docs/a", "by the owner").expect(200);
    let bob = session.pass_on(&node, "docs", &[GET, PUT]);
    let known = written(session.put(&node, "docs/b", "known"));
    session.put(&node, "docs/a", "by the owner").expect(200);
    bob.put(&node, "docs/a", "by bob").expect(200);
    let revocation = ending(&owner, &session, bob.delegation(), &known);
    node.ask(&post("/revoke").token(revocation.to_header())).expect(200);
    let document = node.ask(&explains(&session, "docs/a", GET)).expect(200).json();
    let lost = &document["operations"][0];
    assert_eq!(lost["signer"], json!(bob.did()), "{document}");
    assert_eq!(lost["standing"]["state"], "void", "{document}");
    assert_eq!(lost["standing"]["delegation"], json!(bob.delegation().address()), "{document}");
    assert!(lost["standing"]["revocation"].is_string() && lost["standing"]["rule"].is_string(), "{document}");
    assert_eq!(document["operations"][1]["standing"]["state"], "wins", "{document}");
}

/// An owner's revocation that lets stand what `after` has seen.
fn ending(owner: &Owner, session: &Session, target: &Token, after: &str) -> Token {
    let mut statement = Statement::of(format!("urn:cid:{}", target.address()), &[REVOKE]);
    statement.after = vec![format!("{}/after/{after}", session.space)];
    owner.sign(&statement)
}

#[test]
fn a_revocation_shows_beforehand_what_it_would_void_and_to_whom_it_obeys() {
    let (node, session) = world();
    let owner = Owner::key(7);
    let bob = session.pass_on(&node, "docs", &[GET, PUT]);
    let known = written(bob.put(&node, "docs/a", "seen"));
    bob.put(&node, "docs/b", "unseen").expect(200);
    bob.put(&node, "docs/c", "unseen").expect(200);
    session.put(&node, "docs/c", "by the owner").expect(200);
    let preview = |token: &Token| node.ask(&post("/v0/revoke/preview").token(token.to_header()));
    let token = ending(&owner, &session, bob.delegation(), &known);
    for _ in 0..2 {
        let answer = preview(&token).expect(200).json();
        let mut voided: Vec<_> = answer["voided"].as_array().expect("a list").clone();
        voided.sort_by_key(|voided| voided["key"].to_string());
        let shown: Vec<_> = voided.iter().map(|voided| (&voided["key"], &voided["wins"])).collect();
        assert_eq!(shown, [(&json!("docs/b"), &json!(true)), (&json!("docs/c"), &json!(false))], "{answer}");
        assert_eq!(answer["has_more"], false);
    }
    // It was a question.
    assert_eq!(bob.get(&node, "docs/b").expect(200).text(), "unseen");
    let stranger = Owner::key(9);
    preview(&ending(&stranger, &session, bob.delegation(), &known)).expect(403);
    preview(bob.delegation()).expect(403);
    node.ask(&post("/v0/revoke/preview")).expect(401);
    node.ask(&post("/revoke").token(token.to_header())).expect(200);
    assert_eq!(session.get(&node, "docs/a").expect(200).text(), "seen");
    session.get(&node, "docs/b").expect(404);
}

#[test]
fn the_hosts_of_a_space_are_told_to_its_members() {
    let (node, session) = world();
    let other = did(&new_key());
    let token = Owner::key(7).host(&session.space, &other);
    node.ask(&post("/delegate").token(token.to_header())).expect(200);
    let hosts = |asker: &Session| node.ask(&asks(asker, "hosts?", &asker.wants(LIST, "docs")));
    let document = hosts(&session).expect(200).json();
    let told = document["hosts"].as_array().expect("a list");
    let found = |host: &Did| told.iter().find(|told| told["host"] == json!(host)).expect("it is told");
    assert_eq!(told.len(), 2, "{document}");
    assert_eq!((&found(&node.did())["is_here"], &found(&other)["is_here"]), (&json!(true), &json!(false)));
    assert_eq!(found(&other)["delegation"], json!(token.address()), "{document}");
    assert_eq!((&found(&other)["is_connected"], &found(&other)["heard"]), (&json!(false), &Value::Null), "{document}");
    let stranger = Session { key: new_key(), delegation: None, space: session.space.clone() };
    hosts(&stranger).expect(401);
}

/// A command line with a key and a space at a node.
fn user(node: &Node) -> Cli {
    let cli = Cli::of(node);
    cli.ok(&["key", "new"]);
    cli.ok(&["space", "create", "notes"]);
    cli
}

#[test]
fn the_command_line_says_why_a_key_reads_as_it_does() {
    let node = Node::new();
    let cli = user(&node);
    let words = cli.ok(&["why", "notes", "greeting"]);
    assert!(words.contains("no write to it has come here"), "{words}");
    assert_eq!(cli.run_with(&["put", "notes", "greeting"], b"hello").code, 0);
    let words = cli.ok(&["why", "notes", "greeting"]);
    assert!(words.contains("It holds 5 bytes") && words.contains(node.did().as_str()), "{words}");
    assert!(words.contains("client-signed") && words.contains("bytes      here"), "{words}");
    let document = cli.json(&["why", "notes", "greeting"]);
    assert_eq!(document["operations"][0]["standing"]["state"], "wins");
}

#[test]
fn the_command_line_waits_for_what_was_written_elsewhere() {
    let node = Node::new();
    let cli = user(&node);
    let put = cli.run_with(&["--json", "put", "notes", "a"], b"value");
    let put: Value = serde_json::from_slice(&put.out).expect("JSON");
    let frontier = put["frontier"].as_str().expect("an epoch");
    assert_eq!(cli.ok(&["get", "notes", "a", "--after", frontier, "--wait-ms", "0"]), "value");
    assert_eq!(cli.ok(&["ls", "notes", "--after", frontier]), "a\n");
    let unknown = EpochId::of(b"elsewhere").to_string();
    let ran = cli.run(&["get", "notes", "a", "--after", &unknown, "--wait-ms", "50"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.error.contains(&unknown), "{ran:?}");
}

#[test]
fn a_host_is_named_and_taken_away_by_the_owner() {
    let node = Node::new();
    let cli = user(&node);
    let other = did(&new_key());
    assert!(cli.ok(&["space", "hosts", "notes"]).contains(&format!("{} here", node.did())));
    let added = cli.json(&["space", "add-host", "notes", other.as_str()]);
    assert_eq!(added["host"], json!(other));
    let words = cli.ok(&["space", "hosts", "notes"]);
    assert!(words.contains(&format!("{other} not connected, never heard of")), "{words}");
    // It may have what nobody else has.
    let ran = cli.run(&["space", "remove-host", "notes", other.as_str(), "--wait-s", "0"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.error.contains("not removed") && ran.error.contains("--force"), "{ran:?}");
    let removed = cli.json(&["space", "remove-host", "notes", other.as_str(), "--force"]);
    assert_eq!(removed["revoked"], json!([added["delegation"]]));
    let words = cli.ok(&["space", "hosts", "notes"]);
    assert!(!words.contains(&format!("{other} not connected")), "{words}");
    let ran = cli.run(&["space", "remove-host", "notes", other.as_str(), "--force"]);
    assert_eq!(ran.code, 3, "{ran:?}");
}

#[test]
fn a_second_node_becomes_a_host_by_its_address() {
    let (first, second) = (Node::new(), Node::new());
    let cli = user(&first);
    let added = cli.json(&["space", "add-host", "notes", &second.url()]);
    assert_eq!(added["host"], json!(second.did()));
    assert_eq!(added["told"], json!([format!("{}/", second.url()), format!("{}/", first.url())]));
    let space = added["space"].as_str().expect("an id");
    assert_eq!(second.status()["spaces"][0]["space"], space);
}

#[test]
fn a_revocation_that_voids_writes_is_confirmed_or_refused() {
    let node = Node::new();
    let cli = user(&node);
    let bob = cli.json(&["key", "new", "bob"])["did"].as_str().expect("a DID").to_owned();
    let file = cli.home().join("grant.txt").to_str().expect("text").to_owned();
    cli.ok(&["delegate", "notes", "--to", &bob, "--ability", "get,put", "--out", &file]);
    let space = cli.json(&["session", "import", &file, "--key", "bob"])["space"].as_str().expect("an id").to_owned();
    let put = cli.run_with(&["--json", "put", "notes", "a"], b"by the owner");
    let put: Value = serde_json::from_slice(&put.out).expect("JSON");
    let known = put["frontier"].as_str().expect("an epoch");
    assert_eq!(cli.run_with(&["put", &space, "a", "--key", "bob"], b"by bob").code, 0);
    let ran = cli.run(&["revoke", "notes", &file, "--after", known]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.error.contains("1 write will have no effect") && ran.error.contains("--yes"), "{ran:?}");
    assert_eq!(cli.ok(&["get", "notes", "a"]), "by bob");
    let revoked = cli.json(&["revoke", "notes", &file, "--after", known, "--yes"]);
    assert_eq!((&revoked["voided"][0]["key"], &revoked["voided"][0]["wins"]), (&json!("a"), &json!(true)));
    assert_eq!(cli.ok(&["get", "notes", "a"]), "by the owner");
}

fn operator(node: &Node, request: &Request) -> Response {
    let address = node.operator_url();
    Connection::open(address.trim_start_matches("http://")).ask(request)
}

#[test]
fn an_operator_cuts_a_peer_off_and_lets_it_back() {
    let node = Node::new();
    let peer = did(&new_key());
    for (verb, is_blocked) in [("block", true), ("unblock", false)] {
        let answer = operator(&node, &post(&format!("/peers/{peer}/{verb}"))).expect(200);
        assert_eq!(answer.json(), json!({ "peer": peer, "is_blocked": is_blocked }));
        operator(&node, &get(&format!("/peers/{peer}/{verb}"))).expect(405);
    }
    let answer = operator(&node, &post("/peers/did:web:a/block")).expect(400);
    assert_eq!(answer.code(), Some("peer_malformed"));
    operator(&node, &post(&format!("/peers/{peer}/remove"))).expect(404);
    assert!(operator(&node, &get("/peers")).expect(200).json()["peers"].is_array());
    // Clients have no such route.
    node.ask(&get("/peers")).expect(404);
    node.ask(&post(&format!("/peers/{peer}/block"))).expect(404);
    let cli = Cli::of(&node);
    assert!(cli.ok(&["peers", "block", peer.as_str()]).starts_with("blocked"));
    assert!(cli.ok(&["peers", "unblock", peer.as_str()]).starts_with("unblocked"));
    assert!(cli.json(&["peers"])["peers"].is_array());
}

#[test]
fn the_figures_count_what_was_asked() {
    let (node, session) = world();
    session.put(&node, "a", "1").expect(200);
    session.get(&node, "none").expect(404);
    let answer = operator(&node, &get("/metrics")).expect(200);
    assert!(answer.header("content-type").is_some_and(|kind| kind.starts_with("application/openmetrics-text")));
    let lines: Vec<_> = answer.text().lines().collect();
    assert!(lines.iter().any(|line| line.starts_with("kvspace_log_bytes ")), "{}", answer.text());
    for line in [
        r#"kvspace_http_requests_total{route="invoke",status="2xx"} 1"#,
        r#"kvspace_http_requests_total{route="invoke",status="4xx"} 1"#,
        "kvspace_spaces_active 1",
        "kvspace_peers_connected 0",
        "# EOF",
    ] {
        assert!(lines.contains(&line), "{line}\n{}", answer.text());
    }
}

#[test]
fn a_node_says_where_other_nodes_find_it() {
    let node = Setup::default().option("network.listen", "/ip4/127.0.0.1/tcp/0").start();
    let address = node.ready()["p2p"][0].as_str().expect("an address").to_owned();
    assert!(address.starts_with("/ip4/127.0.0.1/tcp/") && address.contains("/p2p/12D3KooW"), "{address}");
    let taken = address.split("/p2p/").next().expect("what comes before");
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = Command::new(env!("CARGO_BIN_EXE_kvspace"));
    command.args(["serve", "--http", "127.0.0.1:0", "--operator", "127.0.0.1:0", "--listen", taken, "--data-dir"]);
    let (status, _, error) = run(command.arg(folder.path()), b"");
    assert_eq!(status.code(), Some(1));
    assert!(error.contains(taken), "{error}");
}
