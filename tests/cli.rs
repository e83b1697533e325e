//! The command line as its README tells it, against a running node.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Stdio},
};

use serde_json::{Value, json};

use crate::harness::{
    Node,
    cli::Cli,
    process::{DEADLINE, files, lines, run},
    tokens::etag_of,
};

/// A node, and a user with a key and a space.
fn world() -> (Node, Cli) {
    let node = Node::new();
    let cli = Cli::of(&node);
    cli.ok(&["key", "new"]);
    cli.ok(&["space", "create", "notes"]);
    (node, cli)
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("it is there").permissions().mode() & 0o777
}

/// Runs a command that has to fail so; its words, and with `--json` the same as an object.
#[track_caller]
fn fails(cli: &Cli, arguments: &[&str], code: i32) -> String {
    let ran = cli.run(arguments);
    assert_eq!(ran.code, code, "{arguments:?}: {ran:?}");
    assert!(ran.out.is_empty() && ran.error.starts_with("kvspace: "), "{ran:?}");
    let json = cli.run(&[&["--json"], arguments].concat());
    assert_eq!((json.code, json.error.as_str()), (code, ""), "{json:?}");
    let object: Value = serde_json::from_slice(&json.out).expect("one JSON object");
    assert_eq!(object["error"]["exit"], code);
    let message = object["error"]["message"].as_str().expect("words");
    assert!(!message.is_empty());
    ran.error
}

#[test]
fn the_first_two_minutes() {
    let node = Node::new();
    let cli = Cli::of(&node);
    let key = cli.ok(&["key", "new"]);
    assert!(key.starts_with("default\ted25519\tdid:key:z6Mk"), "{key}");
    assert_eq!(cli.ok(&["key", "show", "default"]), key);
    let space = cli.ok(&["space", "create", "notes"]);
    assert!(space.starts_with("tinycloud:key:z6Mk") && space.ends_with(":notes\n"), "{space}");
    let put = cli.run_with(&["put", "notes", "greeting", "--content-type", "text/plain"], b"hello\n");
    assert_eq!(put.text(), format!("stored\tgreeting\t{}\n", etag_of(b"hello\n")), "{put:?}");
    assert_eq!(cli.ok(&["get", "notes", "greeting"]), "hello\n");
    let head = cli.ok(&["head", "notes", "greeting"]);
    for line in [&format!("etag\t{}\n", etag_of(b"hello\n")), "size\t6\n", "content-type\ttext/plain\n"] {
        assert!(head.contains(line), "{line} {head}");
    }
    assert!(head.contains("integrity\tclient-signed\n"), "{head}");
    assert_eq!(cli.ok(&["ls", "notes"]), "greeting\n");
    let removed = cli.ok(&["rm", "notes", "greeting"]);
    assert_eq!(removed, format!("deleted\tgreeting\t{}\n", etag_of(b"hello\n")));
    assert_eq!(cli.ok(&["ls", "notes"]), "");
    fails(&cli, &["get", "notes", "greeting"], 3);
    let status = cli.ok(&["status"]);
    assert!(status.contains(node.did().as_str()) && status.contains(space.trim()), "{status}");
}

#[test]
fn machines_get_one_object_each() {
    let node = Node::new();
    let cli = Cli::of(&node);
    let key = cli.json(&["key", "new", "wallet", "--kind", "ethereum"]);
    assert_eq!((&key["name"], &key["kind"]), (&json!("wallet"), &json!("ethereum")));
    let did = key["did"].as_str().expect("a DID");
    assert!(did.starts_with("did:pkh:eip155:1:0x"), "{key}");
    assert!(key.get("secret").is_none());
    assert_eq!(cli.json(&["key", "show"]), json!({ "keys": [key] }));
    let secret = cli.json(&["key", "show", "wallet", "--secret"])["secret"].as_str().expect("a secret").to_owned();
    assert_eq!(secret.len(), 64);
    let space = cli.json(&["space", "create", "notes", "--key", "wallet"]);
    let id = format!("tinycloud:{}:notes", did.trim_start_matches("did:"));
    assert_eq!((&space["space"], &space["node"]), (&json!(id), &json!(format!("{}/", node.url()))));
    assert!(space["session_expires"].as_str().is_some_and(|until| until.ends_with('Z')), "{space}");
    let with = |arguments: &[&str]| cli.json(&[arguments, &["--key", "wallet"]].concat());
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("value");
    fs::write(&file, b"\xff\0binary").expect("written");
    let path = file.to_str().expect("text");
    let put = with(&["put", "notes", "Zoë/1 2", path, "--meta", "colour=red"]);
    assert_eq!((&put["space"], &put["key"], &put["path"]), (&json!(id), &json!("Zoë/1 2"), &json!("Zo%C3%AB/1%202")));
    assert_eq!(put["etag"], etag_of(b"\xff\0binary"));
    assert!(put["version"].is_string() && put["frontier"].is_string(), "{put}");
    let got = with(&["get", "notes", "Zoë/1 2"]);
    assert_eq!((&got["base64"], &got["size"]), (&json!("/wBiaW5hcnk="), &json!(8)));
    assert_eq!(got["meta"], json!({ "x-tinycloud-meta-colour": "red" }));
    let head = with(&["head", "notes", "Zoë/1 2"]);
    assert_eq!(
        (&head["size"], &head["integrity"], &head["version"]),
        (&json!(8), &json!("client-signed"), &put["version"])
    );
    assert_eq!(with(&["ls", "notes"]), json!({ "space": id, "keys": ["Zoë/1 2"], "cursor": null }));
    assert_eq!(with(&["ls", "notes", "--encoded"])["keys"], json!(["Zo%C3%AB/1%202"]));
    let removed = with(&["rm", "notes", "Zo%C3%AB/1%202", "--encoded"]);
    assert_eq!((&removed["key"], &removed["etag"]), (&json!("Zoë/1 2"), &put["etag"]));
    let status = cli.json(&["status"]);
    assert_eq!((&status["did"], &status["spaces"][0]["space"]), (&json!(node.did().as_str()), &json!(id)));
    assert_eq!((&status["spaces"][0]["keys"], &status["parked"]), (&json!(0), &json!(0)));
}

#[test]
fn files_of_any_size_go_in_and_out() {
    let (_node, cli) = world();
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).to_str().expect("text").to_owned();
    for length in [0_usize, 5, 256 * 1024, 3_000_000] {
        let mut value = vec![0; length];
        blake3::Hasher::new().finalize_xof().fill(&mut value);
        fs::write(path("in"), &value).expect("written");
        cli.ok(&["put", "notes", "big", &path("in")]);
        cli.ok(&["get", "notes", "big", "-o", &path("out")]);
        assert!(fs::read(path("out")).expect("there") == value, "{length}");
        let piped = cli.run_with(&["put", "notes", "piped"], &value);
        assert_eq!(piped.code, 0, "{piped:?}");
        let got = cli.run(&["get", "notes", "piped"]);
        assert!(got.code == 0 && got.out == value, "{length}");
    }
    // A value that cannot be had leaves no file.
    fails(&cli, &["get", "notes", "none", "-o", &path("none")], 3);
    assert!(!Path::new(&path("none")).exists());
    assert_eq!(files(folder.path()).len(), 2, "no temporary file is left");
}

#[test]
fn a_long_list_comes_whole_or_in_pages() {
    let (_node, cli) = world();
    for key in ["a", "b/1", "b/2", "b2", "c"] {
        assert_eq!(cli.run_with(&["put", "notes", key], b"x").code, 0);
    }
    assert_eq!(cli.ok(&["ls", "notes"]), "a\nb/1\nb/2\nb2\nc\n");
    assert_eq!(cli.ok(&["ls", "notes", "b"]), "b/1\nb/2\n");
    let page = cli.json(&["ls", "notes", "--limit", "3"]);
    assert_eq!(page["keys"], json!(["a", "b/1", "b/2"]));
    let cursor = page["cursor"].as_str().expect("there is more");
    let rest = cli.json(&["ls", "notes", "--limit", "3", "--cursor", cursor]);
    assert_eq!((&rest["keys"], &rest["cursor"]), (&json!(["b2", "c"]), &Value::Null));
    fails(&cli, &["ls", "notes", "--limit", "2", "--cursor", cursor], 1);
}

#[test]
fn conditions_hold_or_nothing_happens() {
    let (_node, cli) = world();
    let put = |value: &str, condition: &[&str]| {
        cli.run_with(&[&["put", "notes", "a"], condition].concat(), value.as_bytes()).code
    };
    assert_eq!(put("1", &["--if-absent"]), 0);
    assert_eq!(put("2", &["--if-absent"]), 1);
    assert_eq!(put("2", &["--if-match", &etag_of(b"1")]), 0);
    assert_eq!(put("3", &["--if-match", &etag_of(b"1")]), 1);
    assert_eq!(cli.ok(&["get", "notes", "a"]), "2");
    fails(&cli, &["rm", "notes", "a", "--if-match", &etag_of(b"1")], 1);
    cli.ok(&["rm", "notes", "a", "--if-match", &etag_of(b"2")]);
}

#[test]
fn another_key_is_let_in_and_out_again() {
    let (_node, cli) = world();
    for key in ["docs/a", "docs/b", "secret"] {
        assert_eq!(cli.run_with(&["put", "notes", key], key.as_bytes()).code, 0);
    }
    let space = cli.json(&["ls", "notes"])["space"].as_str().expect("an id").to_owned();
    for (name, kind) in [("bob", "ed25519"), ("carol", "ethereum")] {
        let did = cli.json(&["key", "new", name, "--kind", kind])["did"].as_str().expect("a DID").to_owned();
        let file = cli.home().join(format!("{name}.txt"));
        let file = file.to_str().expect("text");
        let delegate =
            ["delegate", "notes", "--to", &did, "--path", "docs", "--ability", "get,list", "--expires", "2h"];
        let given = cli.json(&[&delegate[..], &["--out", file]].concat());
        assert_eq!((&given["to"], &given["file"]), (&json!(did), &json!(file)));
        fails(&cli, &["get", &space, "docs/a", "--key", name], 1);
        let imported = cli.json(&["session", "import", file, "--key", name]);
        assert_eq!((&imported["space"], &imported["expires"]), (&json!(space), &given["expires"]));
        assert_eq!(cli.ok(&["get", &space, "docs/a", "--key", name]), "docs/a");
        assert_eq!(cli.ok(&["ls", &space, "docs", "--key", name]), "docs/a\ndocs/b\n");
        fails(&cli, &["get", &space, "secret", "--key", name], 1);
        fails(&cli, &["rm", &space, "docs/a", "--key", name], 1);
        // By the file, without an import.
        assert_eq!(cli.ok(&["get", &space, "docs/b", "--key", name, "--delegation", file]), "docs/b");
        let cid = given["cid"].as_str().expect("a CID");
        assert_eq!(cli.json(&["revoke", "notes", cid]), json!({ "revoked": true, "cid": cid }));
        let words = fails(&cli, &["get", &space, "docs/a", "--key", name], 1);
        assert!(words.contains("revoked"), "{words}");
        cli.ok(&["revoke", "notes", file]);
    }
    assert_eq!(cli.ok(&["get", "notes", "docs/a"]), "docs/a");
}

#[test]
fn what_one_was_given_one_gives_on_and_takes_back() {
    let (_node, cli) = world();
    assert_eq!(cli.run_with(&["put", "notes", "docs/a"], b"value").code, 0);
    let space = cli.json(&["ls", "notes"])["space"].as_str().expect("an id").to_owned();
    let did = |name: &str| cli.json(&["key", "new", name])["did"].as_str().expect("a DID").to_owned();
    let (bob, carol) = (did("bob"), did("carol"));
    let file = |name: &str| cli.home().join(name).to_str().expect("text").to_owned();
    cli.ok(&["delegate", "notes", "--to", &bob, "--out", &file("bob.txt")]);
    cli.ok(&["session", "import", &file("bob.txt"), "--key", "bob"]);
    let give = ["delegate", &space, "--to", &carol, "--path", "docs", "--key", "bob", "--out", &file("carol.txt")];
    cli.ok(&give);
    cli.ok(&["session", "import", &file("carol.txt"), "--key", "carol"]);
    assert_eq!(cli.ok(&["get", &space, "docs/a", "--key", "carol"]), "value");
    cli.ok(&["revoke", &space, &file("carol.txt"), "--key", "bob"]);
    fails(&cli, &["get", &space, "docs/a", "--key", "carol"], 1);
    assert_eq!(cli.ok(&["get", &space, "docs/a", "--key", "bob"]), "value");
}

#[test]
fn secrets_are_for_their_owner_only() {
    let (node, cli) = world();
    cli.ok(&["ls", "notes"]);
    let kept = files(cli.home());
    assert!(kept.len() >= 2, "a key and a session: {kept:?}");
    for file in &kept {
        assert_eq!(mode(file), 0o600, "{}", file.display());
        assert_eq!(mode(file.parent().expect("a folder")), 0o700);
    }
    assert_eq!(mode(&node.data_dir().join("node.key")), 0o600);
    assert_eq!(mode(&node.data_dir()), 0o700);
    let key = cli.home().join("keys/default.json");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).expect("changed");
    let words = fails(&cli, &["ls", "notes"], 1);
    assert!(words.contains("chmod 600"), "{words}");
}

#[test]
fn a_key_goes_from_one_home_to_another() {
    let (node, cli) = world();
    assert_eq!(cli.run_with(&["put", "notes", "a"], b"value").code, 0);
    let secret = cli.json(&["key", "show", "default", "--secret"])["secret"].as_str().expect("a secret").to_owned();
    let other = Cli::of(&node);
    assert_eq!(other.run_with(&["key", "import", "default"], secret.as_bytes()).code, 0);
    assert_eq!(other.ok(&["get", "notes", "a"]), "value");
    assert_eq!(other.run_with(&["key", "import", "bad"], b"nonsense").code, 2);
    let words = fails(&cli, &["key", "new"], 1);
    assert!(words.contains("--force"), "{words}");
}

#[test]
fn exit_codes_say_whose_fault_it_is() {
    let (mut node, cli) = world();
    fails(&cli, &["get", "notes", "none"], 3);
    fails(&cli, &["head", "notes", "none"], 3);
    fails(&cli, &["rm", "notes", "none"], 3);
    fails(&cli, &["ls", "nowhere"], 3);
    fails(&cli, &["ls", "notes", "--key", "nobody"], 3);
    fails(&cli, &["put", "notes", "a/../b"], 2);
    fails(&cli, &["ls", "not a name"], 2);
    fails(&cli, &["put", "notes", "a", "/no/such/file"], 1);
    assert_eq!(cli.run(&["nonsense"]).code, 2);
    assert_eq!(cli.run(&["put", "notes"]).code, 2);
    assert_eq!(cli.run(&["ls", "notes", "--node", "nonsense"]).code, 2);
    node.stop();
    for arguments in [&["ls", "notes"][..], &["get", "notes", "a"], &["status"], &["space", "create", "more"]] {
        let words = fails(&cli, arguments, 4);
        assert!(words.contains("cannot reach the node"), "{words}");
    }
    let cli = cli.at("http://127.0.0.1:1");
    fails(&cli, &["ls", "notes"], 4);
}

#[test]
fn a_node_says_when_it_is_ready_and_ends_when_it_is_told() {
    let mut node = Node::new();
    let ready = node.ready().clone();
    let names: Vec<_> = ready.as_object().expect("an object").keys().cloned().collect();
    assert_eq!(names, ["did", "http", "operator", "p2p"]);
    assert!(ready["did"].as_str().is_some_and(|did| did.starts_with("did:key:z6Mk")));
    for name in ["http", "operator"] {
        let url = ready[name].as_str().expect("a URL");
        assert!(url.starts_with("http://127.0.0.1:") && !url.ends_with(":0"), "{url}");
    }
    assert_eq!(ready["p2p"], json!([]));
    node.stop();
    node.start();
    assert_eq!(node.ready()["did"], ready["did"]);
    node.stop();
}

/// `kvspace serve` as people type it, on a folder.
fn serve(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kvspace"));
    command.args(["serve", "--http", "127.0.0.1:0", "--operator", "127.0.0.1:0", "--data-dir"]).arg(folder);
    command.env("KVSPACE_NETWORK__LISTEN", "");
    command
}

#[test]
fn a_node_tells_people_what_to_try() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = serve(&folder.path().join("deep/data"));
    let mut process = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("it starts");
    let output = lines(process.stdout.take().expect("it is piped"));
    let mut words = String::new();
    while !words.contains("kvspace put")
        && let Ok(line) = output.recv_timeout(DEADLINE)
    {
        words += &line;
    }
    drop((process.kill(), process.wait()));
    assert!(words.contains("did:key:z6Mk") && words.contains("http://127.0.0.1:"), "{words}");
    for command in ["kvspace key new", "kvspace space create", "kvspace put"] {
        assert!(words.contains(command), "{command}: {words}");
    }
}

#[test]
fn two_nodes_do_not_share_a_folder() {
    let mut node = Node::new();
    let (status, out, error) = run(&mut node.command(), b"");
    assert_eq!(status.code(), Some(1));
    assert!(out.is_empty() || out.starts_with(b"{\"error\""), "{}", String::from_utf8_lossy(&out));
    let words = format!("{error}{}", String::from_utf8_lossy(&out));
    assert!(words.contains("is in use by another kvspace process"), "{words}");
    node.stop();
    node.start();
}

#[test]
fn a_folder_of_a_later_release_is_left_alone() {
    let mut node = Node::new();
    node.stop();
    let format = node.data_dir().join("format");
    let known = fs::read_to_string(&format).expect("a format file");
    fs::write(&format, "kvspace data 2\n").expect("written");
    let before = files(&node.data_dir());
    let (status, out, error) = run(&mut node.command(), b"");
    assert_eq!(status.code(), Some(1));
    let words = format!("{error}{}", String::from_utf8_lossy(&out));
    assert!(words.contains("use a newer release"), "{words}");
    assert_eq!(files(&node.data_dir()), before);
    fs::write(&format, known).expect("written");
    node.start();
}

#[test]
fn an_option_that_cannot_be_used_is_named() {
    let node = Node::new();
    for (name, value, word) in [
        ("KVSPACE_HTTP__NO_SUCH", "1", "no_such"),
        ("KVSPACE_TOKENS__LIFETIME_MAX_S", "soon", "lifetime_max_s"),
        ("KVSPACE_STORAGE__SEGMENT_BYTES", "1", "segment_bytes"),
        ("KVSPACE_SPACES__ADMIT", "some", "admit"),
        ("KVSPACE_NETWORK__LISTEN", "127.0.0.1:8422", "network.listen"),
        ("KVSPACE_NETWORK__PEERS", "/ip4/127.0.0.1", "network.peers"),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        let (status, _, error) = run(serve(folder.path()).env(name, value), b"");
        assert_eq!(status.code(), Some(2), "{name}: {error}");
        assert!(error.contains(word), "{name}: {error}");
    }
    let taken = node.address();
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = Command::new(env!("CARGO_BIN_EXE_kvspace"));
    command.args(["serve", "--operator", "127.0.0.1:0", "--http", &taken, "--data-dir"]).arg(folder.path());
    command.env("KVSPACE_NETWORK__LISTEN", "");
    let (status, _, error) = run(&mut command, b"");
    assert_eq!(status.code(), Some(1));
    assert!(error.contains(&taken), "{error}");
}
