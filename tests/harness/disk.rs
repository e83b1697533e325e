//! A small file system in memory, in a namespace of its own: it needs no rights, and is gone with its holder.

use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

/// The file system, and the process that holds its namespace.
pub(crate) struct SmallDisk {
    holder: Child,
}

/// Whether this machine lets a user make a namespace of its own.
pub(crate) fn is_possible() -> bool {
    let tried = Command::new("unshare").args(["-rm", "mount", "-t", "tmpfs", "tmpfs", "/tmp"]).output();
    let nsenter = Command::new("nsenter").arg("--version").output();
    tried.is_ok_and(|output| output.status.success()) && nsenter.is_ok()
}

impl SmallDisk {
    /// Mounts it there, which is a folder for nobody else.
    pub(crate) fn mount(at: &Path, bytes: u64) -> Self {
        let script = r#"mkdir -p "$1" && mount -t tmpfs -o "size=$2" tmpfs "$1" && echo mounted && exec cat"#;
        let mut holder = Command::new("unshare")
            .args(["-rm", "sh", "-c", script, "sh"])
            .arg(at)
            .arg(bytes.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare starts");
        let mut line = String::new();
        BufReader::new(holder.stdout.take().expect("it is piped")).read_line(&mut line).expect("a line");
        assert_eq!(line, "mounted\n");
        Self { holder }
    }

    /// A command that sees the file system.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.holder.id().to_string(), "-U", "-m", "--preserve-credentials", program]);
        command
    }

    /// A path on it, as everybody sees it.
    pub(crate) fn path(&self, path: &Path) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{}", self.holder.id(), path.display()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(self.holder.kill());
        drop(self.holder.wait());
    }
}
