//! The node ends at each of its failpoints once, under a load that leads it there.
#![allow(clippy::disallowed_methods, reason = "deadlines are of the real clock")]

use std::{
    fs,
    os::unix::process::ExitStatusExt as _,
    process::ExitStatus,
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc::sync_channel,
    },
    thread,
    time::{Duration, Instant},
};

use kvspace_actors::failpoint::NAMES;
use kvspace_protocol::{
    capability::build::{Claims, ucan},
    id::Millis,
};

use super::World;
use crate::harness::{Connection, post, tokens::PUT};

/// Processes at a time.
const AT_ONCE: usize = 4;
/// Within this each moment comes.
const PATIENCE: Duration = Duration::from_secs(40);
/// More keys than go into one batch of the index.
const MANY: usize = 120;

/// What leads a node to a failpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Load.
    Load,
    /// A revocation of many writes.
    Many,
    /// A clean end.
    Stop,
    /// A start whose index is not believed.
    Start,
}

/// What leads there, and how many times before the process ends.
fn way(name: &str) -> (Way, u64) {
    match name {
        "index.batch.between" => (Way::Many, 1),
        "index.rebuild" => (Way::Start, 5),
        "index.rebuilt" | "index.aside.said" | "index.aside.moved" => (Way::Start, 1),
        "index.close.sync" | "index.close.state" => (Way::Stop, 1),
        "log.write" | "log.written" | "log.synced" | "index.begun" => (Way::Load, 40),
        "log.spare.half" => (Way::Load, 3),
        _ if name.starts_with("compact.") || name.starts_with("log.roll.") => (Way::Load, 1),
        _ => (Way::Load, 3),
    }
}

#[test]
fn a_node_that_ends_at_any_failpoint_has_all_that_it_acknowledged() {
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(name) = NAMES.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let started = Instant::now();
                    ends_at(name);
                    eprintln!("{name}: {} ms", started.elapsed().as_millis());
                }
            });
        }
    });
}

fn ends_at(name: &str) {
    let (way, times) = way(name);
    let mut world = World::new(u64::from(blake3::hash(name.as_bytes()).as_bytes()[0]));
    let (answers, _) = sync_channel(1);
    if way == Way::Start {
        world.work(Instant::now() + Duration::from_millis(300), &answers, |_| ());
        world.node.kill();
        fs::write(world.node.data_dir().join("index/state"), "scribble").expect("written");
        let status = world.node.start_until(name, times);
        killed(name, status);
    } else {
        world.node.stop();
        world.node.start_to_end_at(name, times);
        let wait = if way == Way::Load { PATIENCE } else { Duration::from_millis(200) };
        world.work(Instant::now() + wait, &answers, |_| ());
        match way {
            Way::Many => revoke_many(&world),
            Way::Stop => world.node.terminate(),
            Way::Load | Way::Start => {}
        }
        killed(name, world.node.ended_by_itself());
    }
    world.node.start();
    world.check();
    world.work(Instant::now() + Duration::from_millis(100), &answers, |_| ());
    world.check();
    world.node.stop();
}

fn killed(name: &str, status: Option<ExitStatus>) {
    assert_eq!(status.and_then(|status| status.signal()), Some(9), "{name} is never reached");
}

/// A revocation that changes more keys than one batch takes.
fn revoke_many(world: &World) {
    let World { node, session, .. } = world;
    let guest = session.pass_on(node, "many", &[PUT]);
    let status = node.status();
    let spaces = status["spaces"].as_array().expect("a list");
    let space = spaces.iter().find(|space| space["space"] == session.space.as_str()).expect("it is hosted");
    let seen = space["frontier"].as_array().expect("a list").iter();
    let after = seen.map(|epoch| format!("{}/after/{}", session.space, epoch.as_str().expect("a cid"))).collect();
    for number in 0..MANY {
        guest.put(node, &format!("many/{number}"), "value").expect(200);
    }
    let mut claims = Claims { after, ..Claims::until(Millis(4_000_000_000_000)) };
    let target = format!("urn:cid:{}", guest.delegation().address());
    claims.capabilities.insert(target, vec!["tinycloud.delegation/revoke".into()]);
    let token = ucan(&claims, &session.key).expect("a token");
    let mut connection = Connection::try_open(&node.address()).expect("it runs");
    connection.try_send(&post("/revoke").token(token.to_header()).head()).expect("it listens");
    // It may answer before it ends: the store comes later.
    drop(connection.answer());
}
