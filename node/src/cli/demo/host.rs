//! A host of the demonstration: a process of this program, on a folder that goes away with it.

use std::{
    env,
    fs::File,
    io::{BufRead as _, BufReader},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use kvspace_client::{Client, ClientOptions, Did, ReadYourWrites};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{sync::oneshot, time::timeout};

use crate::cli::error::{CliError, FAILED};

/// How long a host may take until it is ready.
const READY: Duration = Duration::from_secs(30);
/// How long a host waits until it has what a read names.
const WAIT_MS: u64 = 60_000;
/// The smallest segments there are: little is written.
const SEGMENT_BYTES: &str = "13631488";
/// Lines of a log that are shown when something fails.
const LOG_LINES: usize = 5;

/// A host and its process, which ends with this value.
pub(super) struct DemoHost {
    pub(super) name: &'static str,
    folder: TempDir,
    p2p_port: u16,
    process: Option<Child>,
    /// What it said of itself when it was ready.
    ready: Value,
}

impl DemoHost {
    /// A host that does not run yet.
    pub(super) fn new(name: &'static str) -> Result<Self, CliError> {
        let folder = tempfile::tempdir()?;
        Ok(Self { name, folder, p2p_port: free_port()?, process: None, ready: Value::Null })
    }

    /// Where other hosts find it.
    pub(super) fn address(&self) -> String {
        format!("/ip4/127.0.0.1/tcp/{}", self.p2p_port)
    }

    /// Runs it, and waits until it is ready.
    pub(super) async fn start(&mut self, peers: &[String]) -> Result<(), CliError> {
        let program = env::current_exe()?;
        let mut command = Command::new(&program);
        let log = File::options().create(true).append(true).open(self.log())?;
        command
            .args(["serve", "--json", "--http", "127.0.0.1:0", "--operator", "127.0.0.1:0"])
            .args(["--listen", &self.address()])
            .args(peers.iter().flat_map(|peer| ["--peer", peer]))
            .arg("--data-dir")
            .arg(self.folder.path().join("data"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log);
        // What was set for another node is not meant for this one.
        for (name, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("KVSPACE_")) {
            command.env_remove(name);
        }
        command.env("KVSPACE_STORAGE__SEGMENT_BYTES", SEGMENT_BYTES);
        let mut process = command.spawn().map_err(|error| CliError::file("run", &program, &error))?;
        let output = process.stdout.take();
        self.process = Some(process);
        let (told, line) = oneshot::channel();
        thread::spawn(move || {
            let mut text = String::new();
            let mut lines = output.map(BufReader::new);
            if let Some(lines) = &mut lines {
                // An end without a line is told as well.
                let _ = lines.read_line(&mut text);
            }
            let _ = told.send(text);
        });
        let line = timeout(READY, line).await.ok().and_then(Result::ok).unwrap_or_default();
        let ready: Option<Value> = serde_json::from_str(&line).ok();
        self.ready = ready.filter(|ready| ready["did"].is_string()).ok_or_else(|| {
            CliError::new(FAILED, format!("host {} did not start", self.name)).advise(self.last_words())
        })?;
        Ok(())
    }

    /// Ends it at once (SIGKILL on Unix).
    pub(super) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    pub(super) fn did(&self) -> Result<Did, CliError> {
        let did = self.ready["did"].as_str().and_then(|did| did.parse().ok());
        did.ok_or_else(|| CliError::new(FAILED, format!("host {} has no DID", self.name)))
    }

    /// A client of it, whose reads wait for what was written before.
    pub(super) fn client(&self) -> Result<Client, CliError> {
        let read_your_writes = ReadYourWrites::Within { wait_ms: WAIT_MS };
        let options = ClientOptions { read_your_writes, idle_timeout_ms: 2 * WAIT_MS, ..ClientOptions::default() };
        Ok(Client::with_options(self.ready["http"].as_str().unwrap_or_default(), options)?)
    }

    /// The end of its log.
    pub(super) fn last_words(&self) -> String {
        let text = std::fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].join("\n  ")
    }

    fn log(&self) -> PathBuf {
        Path::new(self.folder.path()).join("log")
    }
}

impl Drop for DemoHost {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A port of the loopback address that was free a moment ago.
fn free_port() -> Result<u16, CliError> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
