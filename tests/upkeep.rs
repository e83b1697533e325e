//! What an operator does with a data folder: look it through, copy it, bring a copy back.

mod backup;
mod files;
mod index;
mod log;
mod world;

use std::path::Path;

use serde_json::Value;

use self::world::world;
use crate::harness::{cli::Ran, process::run};

/// Runs a command on a data folder.
fn kvspace(arguments: &[&str], data_dir: &Path, input: &[u8]) -> Ran {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_kvspace"));
    command.args(arguments).arg("--data-dir").arg(data_dir);
    let (status, out, error) = run(&mut command, input);
    Ran { code: status.code().unwrap_or(-1), out, error }
}

/// What `verify` says.
struct Verified {
    code: i32,
    report: Value,
}

impl Verified {
    fn of(data_dir: &Path, more: &[&str]) -> Self {
        let ran = kvspace(&[&["--json", "verify"], more].concat(), data_dir, b"");
        let report = serde_json::from_slice(&ran.out).unwrap_or_else(|error| panic!("{error}: {ran:?}"));
        assert!(!data_dir.join("scratch").exists(), "nothing is left");
        Self { code: ran.code, report }
    }

    #[track_caller]
    fn is_sound(&self) {
        assert_eq!((self.code, &self.report["sound"]), (0, &Value::Bool(true)), "{:#}", self.report);
    }

    fn index(&self) -> &str {
        self.report["index"]["state"].as_str().expect("a state")
    }

    /// The faults of a kind.
    fn faults(&self, kind: &str) -> Vec<&Value> {
        let all = self.report["faults"].as_array().expect("a list");
        all.iter().filter(|fault| fault["kind"] == kind).collect()
    }

    /// The keys of the values that are lost, by space.
    fn lost(&self) -> Vec<(String, String)> {
        let text = |value: &Value| value.as_str().expect("text").to_owned();
        let mut lost: Vec<_> =
            self.faults("value").iter().map(|fault| (text(&fault["space"]), text(&fault["key"]))).collect();
        lost.sort();
        lost
    }
}

#[test]
fn a_folder_after_load_is_sound() {
    let world = world();
    let node = world.copy();
    let verified = Verified::of(&node.data_dir(), &[]);
    verified.is_sound();
    assert_eq!(verified.index(), "sound");
    let counts = &verified.report["counts"];
    assert_eq!((counts["spaces"].as_u64(), counts["keys"].as_u64()), (Some(2), Some(world.live.len() as u64)));
    assert!(counts["segments"].as_u64() >= Some(3), "{counts}");
    assert_eq!((counts["files"].as_u64(), counts["superseded_files"].as_u64()), (Some(5), Some(2)), "{counts}");
    let text = kvspace(&["verify"], &node.data_dir(), b"");
    assert!(text.code == 0 && text.text().contains(": sound\n"), "{text:?}");
}

#[test]
fn a_folder_of_a_killed_node_is_sound_and_verify_changes_nothing() {
    let world = world();
    let mut node = world.copy();
    node.start();
    world.sessions[0].put(&node, "late", "x").expect(200);
    node.kill();
    let before = contents(&node.data_dir());
    Verified::of(&node.data_dir(), &[]).is_sound();
    assert!(contents(&node.data_dir()) == before);
}

#[test]
fn a_folder_in_use_or_of_nobody_is_refused() {
    let mut node = world().copy();
    node.start();
    let refused = kvspace(&["verify"], &node.data_dir(), b"");
    assert_eq!(refused.code, 1);
    assert!(refused.error.contains("is in use") && refused.error.contains("stop the node first"), "{refused:?}");
    node.stop();
    let nowhere = node.data_dir().join("nowhere");
    let refused = kvspace(&["verify"], &nowhere, b"");
    assert!(refused.code == 1 && refused.error.contains("no kvspace data folder"), "{refused:?}");
    assert!(!nowhere.exists());
}

/// Every file of a folder and a digest of it.
fn contents(folder: &Path) -> Vec<(std::path::PathBuf, blake3::Hash)> {
    let files = crate::harness::process::files(folder);
    files.into_iter().map(|path| (path.clone(), blake3::hash(&std::fs::read(path).expect("readable")))).collect()
}
