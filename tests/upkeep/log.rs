//! Damage to the log.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt as _,
    path::PathBuf,
};

use super::{Verified, world};
use crate::harness::Node;

fn segment(node: &Node, number: u32) -> PathBuf {
    node.data_dir().join(format!("log/{number:08}.seg"))
}

fn scribble(path: &PathBuf, offset: u64) {
    let file = File::options().write(true).open(path).expect("there");
    file.write_all_at(&[0xa5; 100], offset).expect("written");
}

/// Where the records of a segment end.
fn end(path: &PathBuf) -> u64 {
    let bytes = fs::read(path).expect("there");
    bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last as u64 + 1)
}

/// The number of the last segment that holds something.
fn last(node: &Node) -> u32 {
    (1..)
        .take_while(|number| segment(node, *number).exists() && end(&segment(node, *number)) > 4096)
        .last()
        .expect("one")
}

#[test]
fn a_scribbled_place_costs_its_values_and_nothing_else() {
    let world = world();
    for (number, name) in [(1, "sealed"), (last(&world.copy()), "last")] {
        let mut node = world.copy();
        let path = segment(&node, number);
        scribble(&path, end(&path) / 2);
        let verified = Verified::of(&node.data_dir(), &[]);
        assert_eq!((verified.code, verified.index()), (1, "knows_more"), "{name} {:#}", verified.report);
        let faults = verified.faults("log");
        assert_eq!(faults.len(), 1, "{name}: {:#}", verified.report);
        let (from, length) = (faults[0]["offset"].as_u64().expect("a number"), faults[0]["length"].as_u64());
        assert!((from..from + length.expect("a number")).contains(&(end(&path) / 2)), "{name}: {:#}", faults[0]);
        assert_eq!(faults[0]["file"], format!("{number:08}.seg"));
        // The epoch itself was not hit, but one of its commit's values.
        let space = faults[0]["spaces"][0].as_str().expect("a space").to_owned();
        let lost = verified.lost();
        assert_eq!(lost.len(), 1, "{name}: {:#}", verified.report);
        assert_eq!(lost[0].0, space);
        assert!(!verified.faults("epoch").is_empty() || name == "last", "{name}: {:#}", verified.report);
        // A new index would know less: it is not made.
        let repaired = Verified::of(&node.data_dir(), &["--repair"]);
        assert_eq!((repaired.code, repaired.index()), (1, "knows_more"));
        node.start();
        world.check(&node, |number, key| (world.id(number), key) == (space.clone(), &lost[0].1));
        world.sessions[0].put(&node, "after", "x").expect(200);
        world.sessions[1].put(&node, "after", "x").expect(200);
    }
}

#[test]
fn a_missing_segment_costs_what_was_in_it() {
    let world = world();
    let mut node = world.copy();
    fs::remove_file(segment(&node, 2)).expect("removed");
    let verified = Verified::of(&node.data_dir(), &[]);
    assert_eq!((verified.code, verified.index()), (1, "knows_more"), "{:#}", verified.report);
    let faults = verified.faults("log");
    assert_eq!((faults.len(), &faults[0]["what"], &faults[0]["segment"]), (1, &faults[0]["what"], &2.into()));
    assert!(faults[0]["message"].as_str().expect("text").contains("missing"));
    let lost = verified.lost();
    assert!(lost.len() > 20, "{:#}", verified.report);
    node.start();
    let is_lost = |number: usize, key: &str| lost.contains(&(world.id(number), key.to_owned()));
    let of_one: Vec<_> = world.live.iter().filter(|((space, key), _)| *space == 0 && !is_lost(0, key)).collect();
    assert!(of_one.len() > 20);
    for ((_, key), value) in of_one {
        assert!(world.sessions[0].get(&node, key).expect(200).body == *value, "{key}");
    }
}

#[test]
fn a_log_that_ends_too_early_is_told_from_one_that_was_torn() {
    let world = world();
    let mut node = world.copy();
    let number = last(&node);
    let path = segment(&node, number);
    let cut = end(&path) - 1000;
    File::options().write(true).open(&path).and_then(|file| file.set_len(cut)).expect("cut");
    let verified = Verified::of(&node.data_dir(), &[]);
    assert_eq!((verified.code, verified.index()), (1, "made_at_next_start"), "{:#}", verified.report);
    assert_eq!(verified.faults("log_end").len(), 1, "{:#}", verified.report);
    let lost = verified.lost();
    node.start();
    // The deletion is lost: what was deleted is there again.
    for ((space, key), value) in
        world.live.iter().filter(|((space, key), _)| !lost.contains(&(world.id(*space), key.clone())))
    {
        let answer = world.sessions[*space].get(&node, key);
        assert!(answer.status == 200 && (answer.body == *value || key.starts_with("small/")), "{key}: {answer:?}");
    }
    node.stop();
    // The loss is still named, and nothing else.
    let verified = Verified::of(&node.data_dir(), &[]);
    let faults = verified.report["faults"].as_array().expect("a list");
    assert!(faults.iter().all(|fault| fault["kind"] == "log"), "{:#}", verified.report);
    assert_eq!((verified.code, verified.faults("log").len()), (1, 1), "{:#}", verified.report);
}
