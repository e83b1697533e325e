//! What TinyCloud's own SDK sent to its own node, sent to this one.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Deserialize;

use crate::harness::{Node, Request, Response, Setup};

/// A recorded exchange: 38 requests of the reference's SDK and what its node answered.
#[derive(Deserialize)]
struct Recording {
    node_static_secret_b64url: String,
    space_id: String,
    space_peer_did: String,
    steps: Vec<Step>,
}

#[derive(Deserialize)]
struct Step {
    name: String,
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    body_utf8: String,
    expect: Expected,
    reference: Reference,
}

/// What an answer must be. A body that is `null` was a page of the reference's framework: the status counts.
#[derive(Deserialize)]
struct Expected {
    status: u16,
    etag: Option<String>,
    body: Option<String>,
}

#[derive(Deserialize)]
struct Reference {
    default_cap: Answered,
}

#[derive(Deserialize)]
struct Answered {
    status: u16,
    body: String,
}

impl Recording {
    fn read() -> Self {
        serde_json::from_str(include_str!("vectors/tinycloud.json")).expect("the recording")
    }

    /// A node with the key that the recorded host delegation names.
    fn node(&self) -> Setup {
        let secret = URL_SAFE_NO_PAD.decode(&self.node_static_secret_b64url).expect("base64");
        let seed = blake3::Hasher::new().update(&secret).update(self.space_id.as_bytes()).finalize();
        Setup::default().key(*seed.as_bytes())
    }

    fn step(&self, name: &str) -> &Step {
        self.steps.iter().find(|step| step.name == name).expect("a recorded step")
    }
}

impl Step {
    fn request(&self) -> Request {
        let request = Request::new(&self.method, &self.path).body(self.body_utf8.as_bytes());
        self.headers.iter().fold(request, |request, (name, value)| request.header(name, value))
    }

    fn check(&self, answer: &Response, expected: &Expected) {
        let name = &self.name;
        assert_eq!(answer.status, expected.status, "{name}: {answer:?}");
        assert_eq!(answer.etag(), expected.etag.as_deref(), "{name}: {answer:?}");
        if let Some(body) = &expected.body {
            assert_eq!(answer.text(), body, "{name}");
        }
        assert_eq!(answer.code().is_some(), answer.status >= 400, "{name}: {answer:?}");
        assert!(!answer.text().starts_with('<'), "{name}: no pages of a framework");
    }
}

fn start(recording: &Recording, setup: Setup) -> Node {
    let node = setup.start();
    assert_eq!(node.did().as_str(), recording.space_peer_did);
    node
}

#[test]
fn the_recorded_exchange_is_answered_as_it_was() {
    let recording = Recording::read();
    assert_eq!(recording.steps.len(), 38);
    let node = start(&recording, recording.node().option("tokens.lifetime_max_s", u32::MAX));
    let put = recording.step("put");
    let mut connection = node.connect();
    for step in &recording.steps {
        let answer = connection.ask(&step.request());
        // The one difference on purpose: a retry with the same body is given the first outcome again.
        let expected = if step.name == "put_replay" { &put.expect } else { &step.expect };
        step.check(&answer, expected);
        if step.name == "put_replay" {
            let answer = connection.ask(&step.request().body("something else"));
            assert_eq!((answer.status, answer.text()), (409, "duplicate invocation"));
        }
    }
}

#[test]
fn without_a_raised_cap_the_recorded_invocations_live_too_long() {
    let recording = Recording::read();
    let node = start(&recording, recording.node());
    let mut capped = 0;
    for step in &recording.steps {
        let answer = node.ask(&step.request());
        let reference = &step.reference.default_cap;
        assert_eq!(answer.status, reference.status, "{}: {answer:?}", step.name);
        if !reference.body.starts_with('<') {
            assert_eq!(answer.text(), reference.body, "{}", step.name);
        }
        capped += usize::from(answer.text() == "Invocation lifetime exceeds server maximum");
    }
    assert!(capped > 15, "{capped}");
}

#[test]
fn the_recorded_state_is_there_after_a_restart() {
    let recording = Recording::read();
    let mut node = start(&recording, recording.node().option("tokens.lifetime_max_s", u32::MAX));
    let until = recording.steps.iter().position(|step| step.name == "tampered_signature").expect("a recorded step");
    recording.steps[..until].iter().for_each(|step| drop(node.ask(&step.request())));
    let state = node.state();
    node.stop();
    node.start();
    assert_eq!(node.state(), state);
    for name in ["get", "metadata", "list", "list_root", "bob_get_chain", "narrow_get"] {
        let step = recording.step(name);
        step.check(&node.ask(&step.request()), &step.expect);
    }
}
