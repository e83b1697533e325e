//! Copies, and what is made of them.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use super::{Verified, kvspace, world, world::bytes};
use crate::harness::{Node, Setup, process::eventually};

/// A node on what was restored.
fn restored(from: &Path, input: &[u8], more: &[&str]) -> Node {
    let node = Setup::default().rest();
    let from = from.to_str().expect("text");
    let ran = kvspace(&[&["restore", from], more].concat(), &node.data_dir(), input);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.text().contains("the next start makes the index"), "{ran:?}");
    node
}

/// What is refused leaves nothing behind.
#[track_caller]
fn refused(from: &Path, input: &[u8], why: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let ran = kvspace(&["restore", from.to_str().expect("text")], &folder.path().join("data"), input);
    assert!(ran.code == 1 && ran.error.contains(why), "{ran:?}");
    assert_eq!(fs::read_dir(folder.path()).expect("there").count(), 0, "nothing is left");
}

fn stream(data_dir: &Path) -> Vec<u8> {
    let ran = kvspace(&["backup", "-"], data_dir, b"");
    assert_eq!(ran.code, 0, "{}", ran.error);
    ran.out
}

/// An archive of these entries.
fn archive(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (path, bytes) in entries {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        // By hand: the library refuses to write such names.
        header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
        header.set_cksum();
        archive.append(&header, *bytes).expect("in memory");
    }
    archive.into_inner().expect("in memory")
}

#[test]
fn a_backup_under_load_holds_all_that_was_acknowledged_before() {
    let world = world();
    let mut node = world.copy();
    node.start();
    let put = |node: &Node, number: usize, i: usize, size: usize| {
        world.sessions[number].put(node, &format!("load/{i}"), bytes(size, i)).expect(200);
    };
    let (stop, folder) = (AtomicBool::new(false), tempfile::tempdir().expect("a folder"));
    let to = folder.path().join("new/backup");
    let (acknowledged, tar) = std::thread::scope(|scope| {
        let (node, stop, put) = (&node, &stop, &put);
        let writers: Vec<_> = (0..2)
            .map(|number| {
                scope.spawn(move || {
                    let mut i = 0;
                    while !stop.load(Ordering::Relaxed) {
                        let size = if i % 5 == 0 { 300_000 } else { 2_000 };
                        put(node, number, i, size);
                        i += 1;
                    }
                })
            })
            .collect();
        for i in 0..10 {
            put(node, 0, 10_000 + i, 1000);
            put(node, 1, 10_000 + i, 400_000);
        }
        let ran = kvspace(&["backup", to.to_str().expect("text")], &node.data_dir(), b"");
        let tar = stream(&node.data_dir());
        stop.store(true, Ordering::Relaxed);
        writers.into_iter().for_each(|writer| writer.join().expect("every write is acknowledged"));
        (ran, tar)
    });
    assert_eq!(acknowledged.code, 0, "{acknowledged:?}");
    assert!(acknowledged.text().contains("keep it as secret"), "{acknowledged:?}");
    let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!((mode(&to), mode(&to.join("node.key"))), (0o700, 0o600));
    assert_eq!(mode(&folder.path().join("new")), 0o700, "made as a data folder is: durably, for its owner");
    let did = node.did();
    node.stop();
    for (from, input) in [(to.as_path(), &b""[..]), (Path::new("-"), &tar)] {
        let mut copy = restored(from, input, &[]);
        assert_eq!(mode(&copy.data_dir().join("node.key")), 0o600);
        Verified::of(&copy.data_dir(), &[]).is_sound();
        copy.start();
        assert_eq!(copy.did(), did);
        world.check(&copy, |_, _| false);
        for i in 10_000..10_010 {
            for (number, size) in [(0, 1000), (1, 400_000)] {
                let answer = world.sessions[number].get(&copy, &format!("load/{i}")).expect(200);
                assert!(answer.body == bytes(size, i), "{number} {i}");
            }
        }
        world.sessions[0].put(&copy, "after", "x").expect(200);
        copy.stop();
        Verified::of(&copy.data_dir(), &[]).is_sound();
    }
}

#[test]
fn nothing_is_collected_while_a_backup_is_made() {
    let world = world();
    let node = world.copy();
    let replaced = blake3::hash(&bytes(600_000, 2)).to_hex();
    let data_dir = node.data_dir();
    let lock = fs::File::create(data_dir.join("collect.lock")).expect("made");
    lock.lock_shared().expect("held");
    let options = Setup::default().option("retention.superseded_s", 0).option("retention.interval_s", 1);
    let mut node = options.option("log.level", "info,kvspace_actors=debug").rest();
    fs::rename(&data_dir, node.data_dir()).expect("moved");
    let file = node.data_dir().join("blobs").join(&replaced[..2]).join(replaced.as_str());
    node.start();
    let passes = || node.log().matches("nothing is collected").count();
    eventually("the collector finds the lock taken, twice", || passes() > 1);
    assert!(file.exists(), "it was taken away under the lock");
    drop(lock);
    eventually("what nobody needs is freed", || !file.exists());
    let segment = node.data_dir().join("log/00000001.seg");
    let size = || fs::metadata(&segment).expect("there").len();
    let before = size();
    for i in 0..50 {
        world.sessions[0].put(&node, &format!("first/{i}"), "short").expect(200);
    }
    eventually("the first segment is written anew", || size() < before / 2);
    node.stop();
    // What was freed is missing in the index, and that is no fault.
    Verified::of(&node.data_dir(), &[]).is_sound();
}

#[test]
fn a_restored_node_may_have_a_new_identity() {
    let world = world();
    let tar = stream(&world.copy().data_dir());
    let mut node = restored(Path::new("-"), &tar, &["--new-key"]);
    assert!(!node.data_dir().join("node.key").exists());
    let mut original = world.copy();
    original.start();
    node.start();
    assert_ne!(node.did(), original.did());
    world.check(&node, |_, _| false);
}

#[test]
fn a_place_that_is_taken_is_left_alone() {
    let node = world().copy();
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("mine"), "x").expect("written");
    let to = folder.path().to_str().expect("text");
    let ran = kvspace(&["backup", to], &node.data_dir(), b"");
    assert!(ran.code == 1 && ran.error.contains("is not empty"), "{ran:?}");
    let tar = stream(&node.data_dir());
    let ran = kvspace(&["restore", "-"], folder.path(), &tar);
    assert!(ran.code == 1 && ran.error.contains("is not empty"), "{ran:?}");
    assert_eq!(fs::read_dir(folder.path()).expect("there").count(), 1);
}

#[test]
fn a_place_that_nothing_can_be_renamed_to_is_refused_at_once() {
    let node = world().copy();
    let tar = stream(&node.data_dir());
    let folder = tempfile::tempdir().expect("a folder");
    let (empty, link) = (folder.path().join("empty"), folder.path().join("link"));
    fs::create_dir(&empty).expect("made");
    std::os::unix::fs::symlink(&empty, &link).expect("linked");
    let unnamed = empty.join("..");
    for (to, why) in [(Path::new("/proc"), "a mount point"), (&link, "a link"), (&unnamed, "no name")] {
        let backup = kvspace(&["backup", to.to_str().expect("text")], &node.data_dir(), b"");
        let restore = kvspace(&["restore", "-"], to, &tar);
        for ran in [backup, restore] {
            assert!(ran.code == 1 && ran.error.contains(why) && ran.error.contains("below it"), "{ran:?}");
        }
    }
    assert_eq!(fs::read_dir(folder.path()).expect("there").count(), 2);
}

#[test]
fn a_backup_that_is_not_whole_is_refused() {
    let node = world().copy();
    let tar = stream(&node.data_dir());
    for length in [0, 100, 600, 2000, tar.len() / 2, tar.len() - 3000] {
        refused(Path::new("-"), &tar[..length], "incomplete");
    }
    let mut changed = tar.clone();
    changed[tar.len() / 2] ^= 1;
    refused(Path::new("-"), &changed, "damaged");
    let folder = tempfile::tempdir().expect("a folder");
    let to = folder.path().join("backup");
    let backup = || {
        drop(fs::remove_dir_all(&to));
        assert_eq!(kvspace(&["backup", to.to_str().expect("text")], &node.data_dir(), b"").code, 0);
    };
    backup();
    fs::remove_file(to.join("backup-complete")).expect("removed");
    refused(&to, b"", "incomplete");
    backup();
    fs::remove_file(to.join("log/00000002.seg")).expect("removed");
    refused(&to, b"", "damaged");
    backup();
    fs::write(to.join("log/notes.txt"), "x").expect("written");
    refused(&to, b"", "no backup");
    backup();
    std::os::unix::fs::symlink("/etc/hostname", to.join("node.key.new")).expect("linked");
    refused(&to, b"", "no backup");
}

#[test]
fn an_archive_of_something_else_is_refused() {
    let format: (&str, &[u8]) = ("format", b"kvspace data 1\n");
    for path in [
        "../evil",
        "/etc/evil",
        "log/../../evil",
        "index/state",
        "blobs/../node.key",
        "./format",
        "log/../00000009.seg",
    ] {
        refused(Path::new("-"), &archive(&[format, (path, b"x")]), "no backup");
    }
    refused(Path::new("-"), &archive(&[format, format]), "out of place");
    for kind in [tar::EntryType::Symlink, tar::EntryType::Link, tar::EntryType::Directory] {
        let mut archive = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_size(0);
        header.set_path("node.key").expect("a name");
        if kind != tar::EntryType::Directory {
            header.set_link_name("/etc/passwd").expect("a name");
        }
        header.set_cksum();
        archive.append(&header, &b""[..]).expect("in memory");
        refused(Path::new("-"), &archive.into_inner().expect("in memory"), "no backup");
    }
    // Headers that extend the next one: what they announce is never waited for, let alone kept.
    for kind in [tar::EntryType::GNULongName, tar::EntryType::GNULongLink, tar::EntryType::XHeader] {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(1 << 40);
        header.set_path("longer").expect("a name");
        header.set_cksum();
        refused(Path::new("-"), &[header.as_bytes(), &[b'a'; 4096][..]].concat(), "no backup");
    }
    refused(Path::new("-"), b"no archive at all", "incomplete");
}
