//! A node that is killed while it works: what it acknowledged is there, and nothing is half there.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
    time::Duration,
};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use crate::harness::{
    Connection, Node, Owner, Request, Session, is_long,
    process::DEADLINE,
    tokens::{DEL, GET, LIST, PUT, etag_of},
};

const WRITERS: u64 = 6;
/// So few that most writes are overwrites.
const KEYS_PER_WRITER: u64 = 5;
/// A round ends after so many answers at the latest.
const ANSWERS_MAX: u64 = 120;

/// What a writer did to a key: put the value of this number, or deleted it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    Put(u64),
    Delete,
}

/// What is known of a key from outside.
#[derive(Debug, Clone, Default)]
struct Known {
    /// The last act that was acknowledged.
    acknowledged: Option<Act>,
    /// An act that was sent after it and never answered, and the request it was sent with.
    open: Option<(Act, Request)>,
}

impl Known {
    /// The values that may be there now; `None` is no value.
    fn possible(&self) -> Vec<Option<u64>> {
        let value = |act: Option<Act>| match act {
            Some(Act::Put(number)) => Some(number),
            Some(Act::Delete) | None => None,
        };
        let mut possible = vec![value(self.acknowledged)];
        possible.extend(self.open.as_ref().map(|(act, _)| value(Some(*act))));
        possible
    }
}

/// One writer, its keys, and what it knows of them. It waits for each answer, so at most one of its acts is open.
struct Writer {
    random: StdRng,
    session: Session,
    id: u64,
    next: u64,
    keys: BTreeMap<String, Known>,
}

/// The value of a number: it says what it is, so that no part of another can pass for it.
fn value(number: u64) -> Vec<u8> {
    let mut random = StdRng::seed_from_u64(number);
    let length = match random.random_range(0..20) {
        0 => random.random_range(256 * 1024 + 1..600 * 1024),
        1..4 => random.random_range(10_000..256 * 1024),
        _ => random.random_range(0..2000),
    };
    let mut value = format!("value {number};").into_bytes();
    let start = value.len();
    value.resize(start + length, 0);
    blake3::Hasher::new().update(&number.to_be_bytes()).finalize_xof().fill(&mut value[start..]);
    value
}

impl Writer {
    fn new(id: u64, seed: u64, session: Session) -> Self {
        Self { random: StdRng::seed_from_u64(seed ^ id), session, id, next: 0, keys: BTreeMap::new() }
    }

    /// Writes until the node is gone.
    fn work(&mut self, mut connection: Connection, answers: &SyncSender<()>) {
        loop {
            let key = format!("w{}/{}", self.id, self.random.random_range(0..KEYS_PER_WRITER));
            let known = self.keys.entry(key.clone()).or_default();
            let (act, request) = if known.acknowledged.is_some() && self.random.random_range(0..5) == 0 {
                (Act::Delete, self.session.invoke(DEL, &key))
            } else {
                self.next += 1;
                let number = self.id << 32 | self.next;
                (Act::Put(number), self.session.invoke(PUT, &key).body(value(number)))
            };
            known.open = Some((act, request.clone()));
            let Ok(answer) = connection.try_ask(&request) else { return };
            assert_eq!(answer.status, 200, "{key} {act:?}: {answer:?}");
            *known = Known { acknowledged: Some(act), open: None };
            // Nobody counts any more once the node is killed.
            let _counted = answers.send(());
        }
    }

    /// Compares what the node has with what is known, and settles what is open by sending it again.
    fn check(&mut self, connection: &mut Connection) {
        for (key, known) in &mut self.keys {
            let found = read(connection, &self.session, key);
            assert!(known.possible().contains(&found), "{key} holds {found:x?}, known is {known:x?}");
            let Some((act, request)) = known.open.take() else { continue };
            let answer = connection.ask(&request);
            let outcome = match act {
                Act::Put(number) => {
                    assert_eq!((answer.status, answer.etag()), (200, Some(&*etag_of(&value(number)))), "{answer:?}");
                    Some(number)
                }
                Act::Delete => {
                    assert_eq!(answer.status, 200, "{answer:?}");
                    None
                }
            };
            assert_eq!(read(connection, &self.session, key), outcome, "{key}");
            known.acknowledged = Some(act);
        }
        let list = self.session.invoke(LIST, &format!("w{}/", self.id));
        let is_put = |known: &Known| matches!(known.acknowledged, Some(Act::Put(_)));
        let live: Vec<_> = self.keys.iter().filter(|(_, known)| is_put(known)).map(|(key, _)| key.clone()).collect();
        assert_eq!(connection.ask(&list).keys(), live);
    }
}

/// The number of the value at a key, which must be whole.
fn read(connection: &mut Connection, session: &Session, key: &str) -> Option<u64> {
    let answer = connection.ask(&session.invoke(GET, key));
    if answer.status == 404 {
        return None;
    }
    assert_eq!((answer.status, answer.etag()), (200, Some(&*etag_of(&answer.body))), "{key}: {answer:?}");
    let words = String::from_utf8_lossy(&answer.body[..answer.body.len().min(40)]).into_owned();
    let number = words.strip_prefix("value ").and_then(|rest| rest.split(';').next()?.parse().ok());
    let number = number.unwrap_or_else(|| panic!("{key} holds what nobody sent: {words}"));
    assert!(answer.body == value(number), "{key} holds a part of {number:x}");
    Some(number)
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
    let rounds = if is_long() { 100 } else { 8 };
    let seed = std::env::var("KVSPACE_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| rand::rng().random_range(0..u64::from(u32::MAX)));
    eprintln!("to repeat: KVSPACE_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut node = Node::new();
    let owner = Owner::wallet(7);
    let (one, two) = (owner.open(&node, "one"), owner.open(&node, "two"));
    let session = |id: u64| if id.is_multiple_of(2) { one.clone() } else { two.clone() };
    let writers: Vec<_> = (0..WRITERS).map(|id| Mutex::new(Writer::new(id, seed, session(id)))).collect();
    for round in 0..rounds {
        let count = random.random_range(0..ANSWERS_MAX);
        let moment = Duration::from_micros(random.random_range(1..5000));
        let (sender, answers) = sync_channel(ANSWERS_MAX as usize * 2);
        thread::scope(|scope| {
            for writer in &writers {
                let (connection, sender) = (node.connect(), sender.clone());
                scope.spawn(move || writer.lock().expect("no writer failed").work(connection, &sender));
            }
            wait_for(&answers, count, moment);
            node.kill();
            drop(answers);
        });
        node.start();
        assert!(node.staging().is_empty(), "round {round}: {:?}", node.staging());
        thread::scope(|scope| {
            for writer in &writers {
                let mut connection = node.connect();
                scope.spawn(move || writer.lock().expect("no writer failed").check(&mut connection));
            }
        });
    }
    node.stop();
}
