//! Connections that say nothing, half of something, or are too many.

use super::World;
use crate::harness::{Connection, Setup, get, process::eventually};

#[test]
fn a_head_that_never_ends() {
    let world = World::with(Setup::default().option("http.header_timeout_ms", 300));
    world.unchanged(|| {
        for start in [&b"POST /inv"[..], b"POST /invoke HTTP/1.1\r\nauthorization: abc", b""] {
            let mut connection = world.node.connect();
            connection.send(start);
            drop(connection.answer());
            connection.is_closed();
        }
    });
}

#[test]
fn a_kept_connection_that_falls_silent() {
    let world = World::with(Setup::default().option("http.header_timeout_ms", 300));
    let mut connection = world.node.connect();
    connection.ask(&get("/info")).expect(200);
    connection.is_closed();
}

#[test]
fn what_is_no_http() {
    let world = World::new();
    world.unchanged(|| {
        for nonsense in [&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..], b"HELO\r\n\r\n", b"\0\0\0\0\r\n\r\n"] {
            let mut connection = world.node.connect();
            connection.send(nonsense);
            if let Ok(answer) = connection.answer() {
                assert_eq!(answer.status, 400, "{answer:?}");
            }
            connection.is_closed();
        }
    });
}

#[test]
fn a_length_and_chunks_at_once() {
    let world = World::new();
    world.unchanged(|| {
        let mut connection = world.node.connect();
        let head = "POST /invoke HTTP/1.1\r\nhost: n\r\ncontent-length: 4\r\ncontent-length: 5\r\n\r\nabcd";
        connection.send(head.as_bytes());
        assert_eq!(connection.answer().expect("an answer").status, 400);
    });
}

#[test]
fn too_many_connections_of_one_address() {
    let world = World::with(Setup::default().option("http.connections_per_ip_max", 8));
    let address = world.node.address();
    let open = || {
        let mut connection = Connection::try_open(&address).ok()?;
        connection.try_ask(&get("/info")).ok().map(|answer| (connection, answer.status))
    };
    let mut held = Vec::new();
    eventually("eight connections are served", || {
        held.extend(open());
        held.len() == 8
    });
    assert!(held.iter().all(|(_, status)| *status == 200));
    for _ in 0..4 {
        assert!(open().is_none(), "a ninth connection is not served");
    }
    drop(held.pop());
    eventually("a place is free again", || open().is_some());
}

#[test]
fn connections_beyond_all_places_wait_for_one() {
    let world = World::with(Setup::default().option("http.connections_max", 2));
    let served = |connection: &mut Connection| connection.ask(&get("/info")).status == 200;
    let (mut first, mut second) = (world.node.connect(), world.node.connect());
    assert!(served(&mut first) && served(&mut second));
    let mut third = world.node.connect();
    third.send(&get("/info").head());
    assert!(served(&mut first));
    drop(first);
    assert_eq!(third.answer().expect("an answer").status, 200);
}
