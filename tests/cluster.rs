//! Hosts that converge: processes that are cut off, killed, late, wrong about the time, or strangers.

mod away;
mod backup;
mod blobs;
mod clocks;
mod commands;
mod join;
mod kill;
mod partition;
mod revoked;
mod spread;
mod star;
mod stranger;

use crate::harness::{Node, Session, tokens::PUT};

/// Bytes that are like no others.
fn bytes(length: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&seed.to_be_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// Puts so many short values, `<prefix>/<number>`, over a few connections.
fn fill(node: &Node, session: &Session, prefix: &str, count: u64) {
    const CONNECTIONS: u64 = 8;
    std::thread::scope(|scope| {
        for part in 0..CONNECTIONS {
            let mut connection = node.connect();
            scope.spawn(move || {
                for number in (part..count).step_by(CONNECTIONS as usize) {
                    let key = format!("{prefix}/{number:06}");
                    connection.ask(&session.invoke(PUT, &key).body(format!("value of {key}"))).expect(200);
                }
            });
        }
    });
}

/// Fails unless a node has what [`fill`] put; of the values, it reads some.
fn is_filled(node: &Node, session: &Session, prefix: &str, count: u64) {
    let keys: Vec<_> = (0..count).map(|number| format!("{prefix}/{number:06}")).collect();
    assert!(session.list(node, &format!("{prefix}/")) == keys, "keys are missing");
    for key in keys.iter().step_by(keys.len() / 100 + 1) {
        assert_eq!(session.get(node, key).expect(200).text(), format!("value of {key}"));
    }
}
