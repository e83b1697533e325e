//! The command line, as a user types it.

use std::{path::Path, process::Command};

use serde_json::Value;
use tempfile::TempDir;

use super::{Node, process::run};

/// A command line of its own home, against a node.
pub(crate) struct Cli {
    home: TempDir,
    node: String,
    operator: String,
}

/// What a command gave back.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: Vec<u8>,
    pub(crate) error: String,
}

impl Cli {
    pub(crate) fn of(node: &Node) -> Self {
        let home = tempfile::tempdir().expect("a folder");
        Self { home, node: node.url(), operator: node.operator_url() }
    }

    /// The folder of its keys and sessions.
    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }

    /// Another node for the same home.
    pub(crate) fn at(self, node: &str) -> Self {
        Self { node: node.to_owned(), ..self }
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Ran {
        self.run_with(arguments, b"")
    }

    pub(crate) fn run_with(&self, arguments: &[&str], input: &[u8]) -> Ran {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kvspace"));
        command
            .args(arguments)
            .env("KVSPACE_HOME", self.home.path())
            .env("KVSPACE_NODE", &self.node)
            .env("KVSPACE_OPERATOR", &self.operator)
            .env_remove("KVSPACE_KEY");
        let (status, out, error) = run(&mut command, input);
        Ran { code: status.code().unwrap_or(-1), out, error }
    }

    /// Runs a command that has to succeed; what it printed.
    #[track_caller]
    pub(crate) fn ok(&self, arguments: &[&str]) -> String {
        let ran = self.run(arguments);
        assert_eq!(ran.code, 0, "{arguments:?}: {ran:?}");
        ran.text().to_owned()
    }

    /// The same with `--json`.
    #[track_caller]
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let arguments = [&["--json"], arguments].concat();
        serde_json::from_str(&self.ok(&arguments)).expect("one JSON object")
    }
}

impl Ran {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.out).expect("text")
    }
}
