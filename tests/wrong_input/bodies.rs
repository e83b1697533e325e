//! Bodies that are too long, too slow, or end half-way.

use super::World;
use crate::harness::{
    Connection, Request, Setup,
    http::chunk_of,
    process::eventually,
    tokens::{GET, PUT},
};

const MIB: usize = 1 << 20;

/// A node that takes a mebibyte and does not wait long.
fn strict() -> World {
    World::with(Setup::default().option("http.body_bytes_max", MIB).option("http.body_idle_timeout_ms", 300))
}

fn put(world: &World) -> Request {
    world.session.invoke(PUT, "docs/b")
}

/// Sends the head of a put of `length` bytes and the first `sent` of them.
fn begin(world: &World, length: usize, sent: usize) -> Connection {
    let mut connection = world.node.connect();
    connection.send(&put(world).announcing(length as u64).head());
    connection.send(&vec![7; sent]);
    connection
}

#[test]
fn a_body_over_the_limit_by_its_length() {
    let world = strict();
    world.refuses(&put(&world).body(vec![7; MIB + 1]), 413, "body_too_large");
    world.refuses(&put(&world).body(vec![7; 8 * MIB]), 413, "body_too_large");
    world.node.ask(&put(&world).body(vec![7; MIB])).expect(200);
}

#[test]
fn a_body_over_the_limit_is_refused_before_it_is_sent() {
    let world = strict();
    let answer = world.unchanged(|| begin(&world, MIB + 1, 0).answer());
    assert_eq!(answer.expect("an answer").status, 413);
}

#[test]
fn a_body_over_the_limit_in_chunks() {
    let world = strict();
    world.refuses(&put(&world).chunked().body(vec![7; MIB + 1]), 413, "body_too_large");
    world.refuses(&put(&world).chunked().body(vec![7; 8 * MIB]), 413, "body_too_large");
    world.node.ask(&put(&world).chunked().body(vec![7; MIB])).expect(200);
}

#[test]
fn a_small_limit_counts_for_values_in_memory_too() {
    let world = World::with(Setup::default().option("http.body_bytes_max", 1000));
    world.refuses(&put(&world).body(vec![7; 1001]), 413, "body_too_large");
    world.refuses(&put(&world).chunked().body(vec![7; 1001]), 413, "body_too_large");
    world.node.ask(&put(&world).chunked().body(vec![7; 1000])).expect(200);
}

/// The node says why, or just closes.
fn is_given_up(connection: &mut Connection) {
    if let Ok(answer) = connection.answer() {
        assert!(matches!(answer.status, 400 | 408), "{answer:?}");
        assert!(matches!(answer.code(), Some("body_timeout" | "body_incomplete")), "{answer:?}");
    }
    connection.is_closed();
}

#[test]
fn a_small_body_that_stands_still() {
    let world = strict();
    world.unchanged(|| is_given_up(&mut begin(&world, 1000, 500)));
    world.unchanged(|| is_given_up(&mut begin(&world, 1000, 0)));
}

#[test]
fn a_large_body_that_stands_still() {
    let world = strict();
    world.unchanged(|| is_given_up(&mut begin(&world, MIB, MIB / 2)));
}

#[test]
fn a_small_body_that_ends_half_way() {
    let world = World::new();
    world.unchanged(|| {
        let mut connection = begin(&world, 1000, 500);
        connection.finish();
        is_given_up(&mut connection);
    });
}

#[test]
fn a_large_body_that_ends_half_way() {
    let world = World::new();
    world.unchanged(|| {
        let mut connection = begin(&world, 4 * MIB, 3 * MIB);
        connection.finish();
        is_given_up(&mut connection);
    });
}

#[test]
fn chunks_that_end_half_way() {
    let world = World::new();
    world.unchanged(|| {
        let mut connection = world.node.connect();
        connection.send(&put(&world).chunked().head());
        connection.send(&chunk_of(&vec![7; MIB]));
        connection.finish();
        is_given_up(&mut connection);
    });
}

#[test]
fn chunks_that_are_none() {
    let world = World::new();
    world.unchanged(|| {
        let mut connection = world.node.connect();
        connection.send(&put(&world).chunked().head());
        connection.send(b"zz\r\nnonsense\r\n");
        is_given_up(&mut connection);
    });
}

#[test]
fn a_client_that_goes_away_while_it_sends() {
    let world = World::new();
    for (length, sent) in [(1000, 500), (4 * MIB, 3 * MIB)] {
        world.unchanged(|| {
            let connection = begin(&world, length, sent);
            if sent > MIB {
                eventually("the upload has begun", || !world.node.staging().is_empty());
            }
            drop(connection);
        });
    }
}

#[test]
fn many_clients_that_stand_still_hold_up_nobody() {
    let world = strict();
    world.unchanged(|| {
        let mut stalled: Vec<_> = (0..32).map(|_| begin(&world, MIB, MIB / 2)).collect();
        world.session.get(&world.node, super::KEY).expect(200);
        stalled.iter_mut().for_each(is_given_up);
    });
    world.node.ask(&put(&world).body(vec![7; MIB])).expect(200);
}

#[test]
fn clients_that_send_slowly_hold_nobody_else_up() {
    let setup = Setup::default().option("memory.body_bytes_max", MIB).option("memory.permit_wait_ms", 300);
    let world = World::with(setup);
    // Two of them have all the memory there is for values on their way in, small ones apart.
    let length = MIB * 3 / 16;
    let _slow: Vec<_> = (0..16).map(|_| begin(&world, length, 1)).collect();
    let _slower: Vec<_> = (0..16).map(|_| begin(&world, length, MIB / 16)).collect();
    // Nothing tells when the node has come to all of them, so what others do is done for a while.
    for _ in 0..100 {
        world.node.ask(&put(&world).body(vec![7; 1000])).expect(200);
        let answer = world.node.ask(&world.session.invoke(GET, "docs/b"));
        assert_eq!(answer.body.len(), 1000);
    }
}
