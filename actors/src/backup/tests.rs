//! Backups that are whole, and those that are not.

use std::path::Path;

use super::*;
use crate::disk::DataDir;

/// Parts in memory.
#[derive(Default)]
struct Parts(Vec<(String, Vec<u8>)>);

impl Target for Parts {
    fn put(&mut self, part: &Part, _size_bytes: u64, bytes: &mut dyn Read) -> io::Result<()> {
        let mut all = Vec::new();
        bytes.read_to_end(&mut all)?;
        self.0.push((part.path(), all));
        Ok(())
    }
}

fn backup() -> (tempfile::TempDir, Parts) {
    let dir = tempfile::tempdir().expect("a folder");
    drop(DataDir::open(dir.path()).expect("new"));
    let key_file = dir.path().join("node.key");
    std::fs::write(&key_file, "a key").expect("written");
    for value in [&b"one"[..], b"two"] {
        let path = blobs::file_of(&dir.path().join("blobs"), &BlobHash::of(value));
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        std::fs::write(path, value).expect("written");
    }
    let mut parts = Parts::default();
    let source = Source { data_dir: dir.path().to_owned(), key_file };
    let copied = write(&source, &mut parts, &mut |_| ()).expect("copied");
    assert_eq!(copied, Copied { has_key: true, files: 2, file_bytes: 6, ..Copied::default() });
    (dir, parts)
}

fn restore(parts: &[(String, Vec<u8>)], key: KeyWish, dir: &Path) -> Result<Restored, RestoreError> {
    let mut restoring = Restoring::new(dir, key);
    for (path, bytes) in parts {
        restoring.take(path, bytes.len() as u64, &mut &bytes[..])?;
    }
    restoring.finish()
}

fn refused(parts: &[(String, Vec<u8>)]) -> RestoreError {
    let dir = tempfile::tempdir().expect("a folder");
    restore(parts, KeyWish::Keep, dir.path()).expect_err("refused")
}

#[test]
fn a_backup_holds_what_a_node_needs_and_nothing_else() {
    let (_source, Parts(parts)) = backup();
    let names: Vec<_> = parts.iter().map(|(path, _)| path.split('/').next().unwrap_or_default()).collect();
    assert_eq!(names, ["format", "node.key", "blobs", "blobs", "backup-complete"]);
    let dir = tempfile::tempdir().expect("a folder");
    let restored = restore(&parts, KeyWish::Keep, dir.path()).expect("restored");
    assert_eq!(restored, Restored { has_key: true, segments: 0, files: 2, bytes: restored.bytes });
    assert_eq!(std::fs::read(dir.path().join("node.key")).expect("there"), b"a key");
    assert!(!dir.path().join("backup-complete").exists());
    drop(DataDir::open(dir.path()).expect("a data folder"));
    let dir = tempfile::tempdir().expect("a folder");
    assert!(!restore(&parts, KeyWish::Leave, dir.path()).expect("restored").has_key);
    assert!(!dir.path().join("node.key").exists());
}

#[test]
fn what_is_not_whole_is_refused() {
    let (_source, Parts(parts)) = backup();
    for length in 0..parts.len() {
        assert!(matches!(refused(&parts[..length]), RestoreError::Incomplete(_)), "{length} parts");
    }
    for missing in 1..parts.len() - 1 {
        let mut parts = parts.clone();
        parts.remove(missing);
        assert!(matches!(refused(&parts), RestoreError::Damaged));
    }
    for changed in 0..parts.len() {
        let mut parts = parts.clone();
        parts[changed].1[1] ^= 1;
        assert!(matches!(refused(&parts), RestoreError::Damaged), "part {changed}");
    }
}

#[test]
fn what_is_out_of_place_is_refused() {
    let (_source, Parts(parts)) = backup();
    let mut twice = parts.clone();
    twice.insert(3, parts[2].clone());
    assert!(matches!(refused(&twice), RestoreError::Order(_)));
    let mut behind = parts.clone();
    behind.push(parts[3].clone());
    assert!(matches!(refused(&behind), RestoreError::Order(_)));
    let mut foreign = parts.clone();
    foreign.insert(2, ("../node.key".to_owned(), b"x".to_vec()));
    assert!(matches!(refused(&foreign), RestoreError::Foreign(_)));
}

#[test]
fn a_key_out_of_reach_is_not_left_out() {
    let (source, _) = backup();
    let (beneath_a_file, link) = (source.path().join("format/node.key"), source.path().join("link"));
    std::os::unix::fs::symlink(source.path().join("nowhere"), &link).expect("linked");
    for key_file in [beneath_a_file, link] {
        let from = Source { data_dir: source.path().to_owned(), key_file: key_file.clone() };
        let refused = write(&from, &mut Parts::default(), &mut |_| ()).expect_err("no backup");
        assert!(matches!(&refused, BackupError::Read { path, .. } if *path == key_file), "{refused}");
    }
}

#[test]
fn a_file_that_is_damaged_is_copied_and_named() {
    let (source, _) = backup();
    let hash = BlobHash::of(b"one");
    std::fs::write(blobs::file_of(&source.path().join("blobs"), &hash), "uno").expect("written");
    let from = Source { data_dir: source.path().to_owned(), key_file: source.path().join("none") };
    let mut parts = Parts::default();
    let copied = write(&from, &mut parts, &mut |_| ()).expect("copied");
    assert_eq!((copied.has_key, copied.files, copied.damaged), (false, 2, vec![hash]));
    let dir = tempfile::tempdir().expect("a folder");
    restore(&parts.0, KeyWish::Keep, dir.path()).expect("as good as the original");
}
