//! A node that ends, one way or another, and comes back.

use serde_json::json;

use super::{KIB_256, bytes, open};
use crate::harness::{
    Connection, Node, Owner,
    tokens::{GET, PUT, etag_of, revoke},
};

/// Everything there is in a node: values of each kind, keys that are gone, people that are in and out.
#[test]
fn all_is_there_after_a_restart() {
    let owner = Owner::wallet(7);
    let mut node = Node::new();
    let session = owner.open(&node, "default");
    let other = Owner::key(3).open(&node, "other");
    let large = bytes(2 * KIB_256, 1);
    let put = session.invoke(PUT, "small").header("x-tinycloud-meta-a", "1").body("old");
    node.ask(&put).expect(200);
    session.put(&node, "large", large.clone()).expect(200);
    session.put(&node, "gone", "x").expect(200);
    session.del(&node, "gone").expect(200);
    other.put(&node, "a", "other").expect(200);
    let (bob, carol) = (session.pass_on(&node, "small", &[GET]), session.pass_on(&node, "small", &[GET]));
    revoke(&node, &owner.revocation(carol.delegation())).expect(200);
    let (state, did) = (node.state(), node.did());
    for round in 0..3 {
        if round == 1 {
            node.kill()
        } else {
            node.stop()
        }
        node.start();
        assert_eq!((node.state(), node.did()), (state.clone(), did.clone()));
        let answer = bob.get(&node, "small").expect(200);
        assert_eq!((answer.text(), answer.header("x-tinycloud-meta-a")), ("old", Some("1")));
        carol.get(&node, "small").expect(401);
        let answer = session.get(&node, "large").expect(200);
        assert!(answer.body == large && answer.etag() == Some(&etag_of(&large)));
        session.get(&node, "gone").expect(404);
        assert_eq!(session.list(&node, ""), ["large", "small"]);
        assert_eq!(other.get(&node, "a").expect(200).text(), "other");
        // A retry finds its first outcome across the restart.
        assert_eq!(node.ask(&put).expect(200).etag(), Some(&*etag_of(b"old")));
        assert_eq!(node.state(), state);
    }
    session.put(&node, "small", "new").expect(200);
    assert_eq!(session.get(&node, "small").expect(200).text(), "new");
}

#[test]
fn a_node_that_is_asked_to_end_lets_requests_end() {
    let mut node = Node::new();
    let session = open(&node);
    let value = bytes(KIB_256, 1);
    let mut connection = node.connect();
    connection.send(&session.invoke(PUT, "a").announcing(value.len() as u64).head());
    connection.send(&value[..1000]);
    // The request is under way once the node has answered another one that came later.
    session.get(&node, "none").expect(404);
    let address = node.address();
    std::thread::scope(|scope| {
        let stopping = scope.spawn(|| node.stop());
        crate::harness::process::eventually("no new connection is taken", || Connection::try_open(&address).is_err());
        connection.send(&value[1000..]);
        assert_eq!(connection.answer().expect("an answer").expect(200).etag(), Some(&*etag_of(&value)));
        connection.is_closed();
        stopping.join().expect("it ends well");
    });
    node.start();
    assert!(session.get(&node, "a").expect(200).body == value);
}

#[test]
fn a_node_that_is_asked_to_end_does_not_wait_for_ever() {
    let mut node = crate::harness::Setup::default().option("http.stop_timeout_ms", 200).start();
    let session = open(&node);
    let mut connection = node.connect();
    connection.send(&session.invoke(PUT, "a").announcing(1000).head());
    let idle = node.connect();
    node.stop();
    drop((connection, idle));
    node.start();
    session.get(&node, "a").expect(404);
}

#[test]
fn what_an_upload_left_behind_is_gone_after_a_restart() {
    let mut node = Node::new();
    let session = open(&node);
    let mut connection = node.connect();
    connection.send(&session.invoke(PUT, "a").announcing(8 << 20).head());
    connection.send(&bytes(4 << 20, 1));
    crate::harness::process::eventually("the upload has begun", || !node.staging().is_empty());
    node.kill();
    assert_eq!(node.staging().len(), 1);
    node.start();
    assert_eq!((node.staging(), node.state().1), (vec![], vec![]));
    assert_eq!(node.status()["spaces"][0]["keys"], json!(0));
}
