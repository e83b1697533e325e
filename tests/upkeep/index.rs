//! Damage to the index: the log has everything.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use super::{
    Verified,
    world::{World, world},
};
use crate::harness::{Node, process::files};

fn index(node: &Node) -> PathBuf {
    node.data_dir().join("index")
}

/// Up to where something is written.
fn used(path: &Path) -> u64 {
    let bytes = fs::read(path).expect("there");
    bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last as u64)
}

/// The index is made anew, and everything is as before.
fn repairs(world: &World, mut node: Node) {
    let repaired = Verified::of(&node.data_dir(), &["--repair"]);
    assert_eq!((repaired.code, repaired.index()), (0, "made_anew"), "{:#}", repaired.report);
    let again = Verified::of(&node.data_dir(), &[]);
    again.is_sound();
    assert_eq!(again.index(), "sound");
    node.start();
    assert!(!node.log().contains("made anew"), "the repaired index is believed: {}", node.log());
    world.check(&node, |_, _| false);
    world.sessions[0].put(&node, "after", "x").expect(200);
    node.stop();
}

#[test]
fn an_index_that_is_gone_is_no_damage() {
    let world = world();
    let node = world.copy();
    fs::remove_dir_all(index(&node)).expect("removed");
    let verified = Verified::of(&node.data_dir(), &[]);
    verified.is_sound();
    assert_eq!(verified.index(), "made_at_next_start");
    repairs(&world, node);
}

#[test]
fn an_index_of_which_nothing_says_how_it_was_left_is_no_damage() {
    let world = world();
    let node = world.copy();
    fs::remove_file(index(&node).join("state")).expect("removed");
    let verified = Verified::of(&node.data_dir(), &[]);
    verified.is_sound();
    assert_eq!(verified.index(), "made_at_next_start");
}

#[test]
fn a_shorter_index_is_found() {
    let world = world();
    let node = world.copy();
    let path = index(&node).join("db/db");
    let file = File::options().write(true).open(&path).expect("there");
    file.set_len(used(&path) / 2).expect("cut");
    let verified = Verified::of(&node.data_dir(), &[]);
    assert_eq!(verified.code, 1, "{:#}", verified.report);
    assert!(["differs", "made_at_next_start"].contains(&verified.index()));
    repairs(&world, node);
}

#[test]
fn a_scribbled_index_is_found_and_made_anew() {
    let world = world();
    for seed in 0..4 {
        let mut random = StdRng::seed_from_u64(seed);
        let node = world.copy();
        let path = index(&node).join("db/db");
        let used = used(&path);
        let file = File::options().write(true).open(&path).expect("there");
        for _ in 0..20 {
            let at = random.random_range(0..used);
            file.write_all_at(&random.random::<u64>().to_be_bytes(), at).expect("written");
        }
        let verified = Verified::of(&node.data_dir(), &[]);
        assert_eq!(verified.code, 1, "seed {seed}: {:#}", verified.report);
        repairs(&world, node);
    }
}

/// An index that is whole, and wrong.
#[test]
fn an_index_of_another_time_is_told_apart() {
    let world = world();
    let mut node = world.copy();
    node.start();
    world.sessions[0].put(&node, "later", "x").expect(200);
    node.stop();
    // The log of before, the index of after.
    let newer = world.copy();
    fs::remove_dir_all(index(&newer)).expect("removed");
    fs::rename(index(&node), index(&newer)).expect("moved");
    let verified = Verified::of(&newer.data_dir(), &[]);
    assert_eq!((verified.code, verified.index()), (1, "made_at_next_start"));
    assert_eq!(verified.faults("log_end").len(), 1, "{:#}", verified.report);
    assert!(files(&newer.data_dir().join("index")).len() > 2);
}
