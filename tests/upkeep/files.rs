//! Damage to the files of large values.

use std::{fs, path::PathBuf};

use super::{Verified, world, world::bytes};
use crate::harness::Node;

fn file_of(node: &Node, value: &[u8]) -> PathBuf {
    let hash = blake3::hash(value).to_hex();
    node.data_dir().join("blobs").join(&hash[..2]).join(hash.as_str())
}

/// Does something to the file of one large value; the others are served, and it is again once it was put again.
fn harm(what: &str, harm: impl Fn(&PathBuf)) {
    let world = world();
    let mut node = world.copy();
    harm(&file_of(&node, &bytes(500_000, 1)));
    // A value that another has replaced is no loss.
    fs::remove_file(file_of(&node, &bytes(600_000, 2))).expect("removed");
    let verified = Verified::of(&node.data_dir(), &[]);
    assert_eq!(verified.lost(), [(world.id(0), "large/kept".to_owned())], "{:#}", verified.report);
    assert_eq!((verified.code, verified.index()), (1, "sound"));
    assert!(verified.faults("value")[0]["what"].as_str().expect("text").contains(what), "{:#}", verified.report);
    node.start();
    if what.contains("do not match") {
        world.check_others(&node, "large/kept");
    } else {
        world.check(&node, |_, key| key == "large/kept");
    }
    world.sessions[0].put(&node, "large/kept", bytes(500_000, 1)).expect(200);
    world.check(&node, |_, _| false);
    node.stop();
    Verified::of(&node.data_dir(), &[]).is_sound();
}

#[test]
fn a_scribbled_file_is_named() {
    harm("do not match", |path| {
        let mut value = fs::read(path).expect("there");
        value[250_000] ^= 1;
        fs::write(path, value).expect("written");
    });
}

#[test]
fn a_missing_file_is_named() {
    harm("missing", |path| fs::remove_file(path).expect("removed"));
}

#[test]
fn a_shorter_file_is_named() {
    harm("499999 bytes", |path| {
        let value = fs::read(path).expect("there");
        fs::write(path, &value[..499_999]).expect("written");
    });
}

#[test]
fn what_nobody_needs_is_no_fault() {
    let world = world();
    let node = world.copy();
    let stray = file_of(&node, b"stray");
    fs::write(stray, "stray").expect("written");
    fs::write(node.data_dir().join("blobs/staging/0"), "half").expect("written");
    let verified = Verified::of(&node.data_dir(), &[]);
    verified.is_sound();
    let counts = &verified.report["counts"];
    assert_eq!((&counts["unneeded_files"], &counts["unfinished_uploads"]), (&1.into(), &1.into()), "{counts}");
}
