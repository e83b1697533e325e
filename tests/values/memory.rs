//! Large values pass through a node in pieces.

use crate::harness::{
    Node, is_long,
    tokens::{GET, PUT},
};

use super::{bytes, open};

const MIB: u64 = 1 << 20;
/// What a large value may cost a node beside what it takes anyway.
const EXTRA_KB_MAX: u64 = 64 * 1024;

#[test]
fn a_large_value_costs_little_memory_in_both_directions() {
    let size = if is_long() { 1_000_000_000 } else { 96 * MIB };
    let node = Node::new();
    let session = open(&node);
    let warm = bytes(MIB as usize, 0);
    session.put(&node, "warm", warm).expect(200);
    session.get(&node, "warm").expect(200);
    let before = node.memory_kb("VmHWM");
    let mut connection = node.connect();
    connection.send(&session.invoke(PUT, "large").announcing(size).head());
    let (mut hasher, mut left) = (blake3::Hasher::new(), size);
    let mut piece = bytes(MIB as usize, 1);
    while left > 0 {
        piece[..8].copy_from_slice(&left.to_be_bytes());
        let now = usize::try_from(left.min(MIB)).expect("a mebibyte");
        hasher.update(&piece[..now]);
        connection.send(&piece[..now]);
        left -= now as u64;
    }
    let hash = hasher.finalize();
    let answer = connection.answer().expect("an answer").expect(200);
    assert_eq!(answer.etag(), Some(&*format!("\"blake3-{hash}\"")));
    let received = node.memory_kb("VmHWM") - before;
    connection.send(&session.invoke(GET, "large").head());
    let (answer, length, found) = connection.digest();
    assert_eq!((answer.expect(200).etag(), length, found), (Some(&*format!("\"blake3-{hash}\"")), size, hash));
    let sent = node.memory_kb("VmHWM") - before;
    assert!(received <= EXTRA_KB_MAX && sent <= EXTRA_KB_MAX, "{received} kB in, {sent} kB in and out");
    assert!(node.staging().is_empty());
}
