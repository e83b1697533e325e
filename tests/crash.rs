//! A node that is killed while it works: what it acknowledged is there, and nothing is half there.
#![allow(clippy::disallowed_methods, reason = "deadlines are of the real clock")]

use std::{
    fs,
    sync::{
        Mutex,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use self::load::Writer;
use crate::harness::{Node, Owner, Session, Setup, is_long, process::DEADLINE};

mod failpoints;
pub(crate) mod load;

const WRITERS: u64 = 6;
/// A round ends after so many answers at the latest.
const ANSWERS_MAX: u64 = 150;

/// A node that frees what has lost at once, and those who write to it.
pub(crate) struct World {
    pub(crate) node: Node,
    pub(crate) writers: Vec<Mutex<Writer>>,
    pub(crate) session: Session,
}

impl World {
    fn new(seed: u64) -> Self {
        let setup = Setup::default().option("retention.superseded_s", 0).option("retention.interval_s", 1);
        Self::of(setup.start(), seed)
    }

    pub(crate) fn of(node: Node, seed: u64) -> Self {
        let owner = Owner::wallet(7);
        let (one, two) = (owner.open(&node, "one"), owner.open(&node, "two"));
        let session = |id: u64| if id.is_multiple_of(2) { one.clone() } else { two.clone() };
        let writers = (0..WRITERS).map(|id| Mutex::new(Writer::new(id, seed, session(id)))).collect();
        Self { node, writers, session: one }
    }

    /// Has all writers work until the node is gone, or until then; meanwhile does something to the node.
    pub(crate) fn work(&mut self, until: Instant, answers: &SyncSender<()>, meanwhile: impl FnOnce(&mut Node)) {
        let Self { node, writers, .. } = self;
        thread::scope(|scope| {
            for writer in &*writers {
                let (connection, answers) = (node.connect(), answers.clone());
                scope.spawn(move || writer.lock().expect("no writer failed").work(connection, &answers, until));
            }
            meanwhile(node);
        });
    }

    /// Compares what the node has with what the writers know.
    pub(crate) fn check(&self) {
        assert!(self.node.staging().is_empty(), "{:?}", self.node.staging());
        thread::scope(|scope| {
            for writer in &self.writers {
                let mut connection = self.node.connect();
                scope.spawn(move || writer.lock().expect("no writer failed").check(&mut connection));
            }
        });
        for space in self.node.status()["spaces"].as_array().expect("spaces") {
            assert_eq!(space["frontier"].as_array().map(Vec::len), Some(1), "one head: {space}");
        }
    }

    /// All answers, from the index that is there and from one made anew.
    fn answers_with_and_without_index(&mut self) {
        let with = self.answers();
        self.node.kill();
        fs::remove_dir_all(self.node.data_dir().join("index")).expect("removed");
        self.node.start();
        assert_eq!(self.answers(), with);
    }

    fn answers(&self) -> Vec<String> {
        let mut connection = self.node.connect();
        let answers =
            self.writers.iter().flat_map(|writer| writer.lock().expect("no writer failed").answers(&mut connection));
        let mut answers: Vec<_> = answers.collect();
        for space in self.node.status()["spaces"].as_array().expect("spaces") {
            answers.push(format!("{} {} {}", space["space"], space["frontier"], space["keys"]));
        }
        answers
    }
}

/// Lets so many answers come, and a moment more.
fn wait_for(answers: &Receiver<()>, count: u64, moment: Duration) {
    for _ in 0..count {
        answers.recv_timeout(DEADLINE).expect("the writers go on");
    }
    thread::park_timeout(moment);
}

#[test]
fn a_killed_node_has_all_that_it_acknowledged_and_nothing_by_halves() {
    let rounds = if is_long() { 100 } else { 10 };
    let seed = std::env::var("KVSPACE_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| rand::rng().random_range(0..u64::from(u32::MAX)));
    eprintln!("to repeat: KVSPACE_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut world = World::new(seed);
    for round in 1..=rounds {
        let count = random.random_range(0..ANSWERS_MAX);
        let moment = Duration::from_micros(random.random_range(1..5000));
        let (sender, answers) = sync_channel(ANSWERS_MAX as usize * 2);
        world.work(Instant::now() + DEADLINE, &sender, |node| {
            wait_for(&answers, count, moment);
            node.kill();
        });
        world.node.start();
        world.check();
        if round % 5 == 0 {
            world.answers_with_and_without_index();
        }
    }
    world.node.stop();
}
