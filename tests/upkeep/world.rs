//! A data folder in which a node has worked for a while.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use crate::harness::{
    Node, Owner, Session, Setup, Statement,
    tokens::{GET, PUT, revoke},
};

/// Values that fill a segment and more.
const FILLING: usize = 60;

/// The folder, and what is in it. Tests work on copies.
pub(super) struct World {
    node: Node,
    /// Of the space `one`, which begins in the first segment, and of `two`, which begins in the second.
    pub(super) sessions: [Session; 2],
    /// By space and key.
    pub(super) live: BTreeMap<(usize, String), Vec<u8>>,
    pub(super) gone: Vec<(usize, String)>,
}

/// The one that is there, or a new one; it goes away with the last test that looks at it.
pub(super) fn world() -> Arc<World> {
    static WORLD: Mutex<Weak<World>> = Mutex::new(Weak::new());
    let mut world = WORLD.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(there) = world.upgrade() {
        return there;
    }
    let new = Arc::new(World::new());
    *world = Arc::downgrade(&new);
    new
}

/// Bytes that are like no others.
pub(super) fn bytes(length: usize, seed: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&seed.to_be_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

impl World {
    fn new() -> Self {
        let mut node = Node::new();
        let wallet = Owner::wallet(7);
        let one = wallet.open(&node, "one");
        let (mut live, mut gone) = (BTreeMap::new(), Vec::new());
        let before = one.put(&node, "shared/a", "before").expect(200);
        let before = before.header("x-kvspace-frontier").expect("an epoch").to_owned();
        live.insert((0, "shared/a".to_owned()), b"before".to_vec());
        let bob = one.pass_on(&node, "shared", &[PUT, GET]);
        bob.put(&node, "shared/a", "what bob wrote").expect(200);
        bob.put(&node, "shared/b", bytes(400_000, 99)).expect(200);
        // What he wrote is void.
        let mut statement = Statement::new([]);
        statement.audience = Some(format!("ucan:{}", bob.delegation().address()));
        statement.after = vec![format!("{}/after/{before}", one.space)];
        revoke(&node, &wallet.sign(&statement)).expect(200);
        gone.push((0, "shared/b".to_owned()));
        let mut put = |session: &Session, space: usize, key: String, value: Vec<u8>| {
            session.put(&node, &key, value.clone()).expect(200);
            live.insert((space, key), value);
        };
        for i in 0..FILLING {
            put(&one, 0, format!("first/{i}"), bytes(240_000, i));
        }
        let two = Owner::key(3).open(&node, "two");
        for i in 0..FILLING {
            put(&two, 1, format!("second/{i}"), bytes(240_000, 1000 + i));
        }
        for i in 0..10 {
            put(&one, 0, format!("third/{i}"), bytes(100_000, 2000 + i));
            put(&two, 1, format!("small/{i}"), bytes(100, 3000 + i));
        }
        put(&one, 0, "large/kept".into(), bytes(500_000, 1));
        put(&one, 0, "large/replaced".into(), bytes(600_000, 2));
        put(&one, 0, "large/replaced".into(), bytes(700_000, 3));
        put(&two, 1, "large/other".into(), bytes(300_000, 4));
        for i in 0..5 {
            put(&one, 0, format!("small/{i}"), bytes(200, 4000 + i));
            put(&one, 0, format!("small/{i}"), bytes(300, 5000 + i));
        }
        one.del(&node, "small/0").expect(200);
        live.remove(&(0, "small/0".to_owned()));
        gone.push((0, "small/0".to_owned()));
        node.stop();
        Self { node, sessions: [one, two], live, gone }
    }

    /// A node at rest on a copy of the folder.
    pub(super) fn copy(&self) -> Node {
        let node = Setup::default().rest();
        copy_dir(&self.node.data_dir(), &node.data_dir());
        node
    }

    /// The id of a space.
    pub(super) fn id(&self, space: usize) -> String {
        self.sessions[space].space.to_string()
    }

    /// Reads everything but one key from a running node.
    #[track_caller]
    pub(super) fn check_others(&self, node: &Node, but: &str) {
        for ((space, key), value) in self.live.iter().filter(|((_, key), _)| key != but) {
            let answer = self.sessions[*space].get(node, key);
            assert!(answer.status == 200 && answer.body == *value, "{space} {key}: {answer:?}");
        }
    }

    /// Reads everything from a running node; what is lost answers with an error of the node's, and never with anything else.
    #[track_caller]
    pub(super) fn check(&self, node: &Node, lost: impl Fn(usize, &str) -> bool) {
        for ((space, key), value) in &self.live {
            let answer = self.sessions[*space].get(node, key);
            if lost(*space, key) {
                assert!(answer.status >= 400, "{space} {key}: {answer:?}");
            } else {
                assert!(answer.status == 200 && answer.body == *value, "{space} {key}: {answer:?}");
            }
        }
        for (space, key) in self.gone.iter().filter(|(space, key)| !lost(*space, key)) {
            self.sessions[*space].get(node, key).expect(404);
        }
    }
}

fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir(to).expect("made");
    for entry in fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let to = to.join(entry.file_name());
        if entry.file_type().expect("a kind").is_dir() {
            copy_dir(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).expect("copied");
        }
    }
}
