//! A node in a process of its own, and the command line beside it.
#![allow(clippy::disallowed_methods, reason = "deadlines are of the real clock")]

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, RecvTimeoutError, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use kvspace_client::Did;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use super::{Connection, Request, Response, disk::SmallDisk, get};

/// Far beyond what anything here takes on a busy machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);
/// The smallest segments there are: a test writes little.
const SEGMENT_BYTES: &str = "13631488";

/// How a node is run.
#[derive(Clone, Default)]
pub(crate) struct Setup {
    environment: Vec<(String, String)>,
    key: Option<[u8; 32]>,
    /// The disk of the node's own, in bytes.
    disk_bytes: Option<u64>,
}

impl Setup {
    /// An option, `<section>.<key>`.
    pub(crate) fn option(mut self, name: &str, value: impl ToString) -> Self {
        let name = format!("KVSPACE_{}", name.replace('.', "__").to_uppercase());
        self.environment.push((name, value.to_string()));
        self
    }

    /// A variable of the environment as it is.
    pub(crate) fn variable(mut self, name: &str, value: impl ToString) -> Self {
        self.environment.push((name.to_owned(), value.to_string()));
        self
    }

    /// The node's own key.
    pub(crate) fn key(self, key: [u8; 32]) -> Self {
        Self { key: Some(key), ..self }
    }

    /// A file system of this size for the data, which only the node and its namespace see.
    pub(crate) fn disk(self, bytes: u64) -> Self {
        Self { disk_bytes: Some(bytes), ..self }
    }

    /// A node that does not run yet and has no data folder.
    pub(crate) fn rest(self) -> Node {
        let folder = tempfile::tempdir().expect("a folder for the node");
        Node { setup: self, folder: Arc::new(folder), running: None, failpoint: None, disk: None }
    }

    /// Runs a node on a new folder.
    pub(crate) fn start(self) -> Node {
        let folder = tempfile::tempdir().expect("a folder for the node");
        if let Some(key) = self.key {
            let data = folder.path().join("data");
            fs::create_dir(&data).expect("a data folder");
            write_private(&data.join("node.key"), &blake3::Hash::from_bytes(key).to_hex());
        }
        let disk = self.disk_bytes.map(|bytes| SmallDisk::mount(&folder.path().join("data"), bytes));
        let mut node = Node { setup: self, folder: Arc::new(folder), running: None, failpoint: None, disk };
        node.start();
        node
    }
}

fn write_private(path: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    fs::write(path, text).expect("written");
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("made private");
}

/// A node, its folder, and the process that runs on it. The process ends with this value; what it logged is shown when
/// the test fails.
pub(crate) struct Node {
    setup: Setup,
    folder: Arc<TempDir>,
    running: Option<Running>,
    /// Where the next process ends by itself.
    failpoint: Option<String>,
    disk: Option<SmallDisk>,
}

struct Running {
    process: Child,
    /// Ends when the process does.
    output: Mutex<Receiver<String>>,
    ready: Value,
}

impl Node {
    /// A node as it is without any option.
    pub(crate) fn new() -> Self {
        Setup::default().start()
    }

    /// The folder of its data.
    pub(crate) fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// A path on the disk of its own, as it is seen from here.
    pub(crate) fn on_disk(&self, name: &str) -> PathBuf {
        self.disk.as_ref().expect("it has a disk of its own").path(&self.data_dir().join(name))
    }

    /// The command that runs a node on this folder.
    pub(crate) fn command(&self) -> Command {
        let mut command = match &self.disk {
            None => Command::new(env!("CARGO_BIN_EXE_kvspace")),
            Some(disk) => disk.command(env!("CARGO_BIN_EXE_kvspace")),
        };
        command
            .args(["serve", "--json", "--http", "127.0.0.1:0", "--operator", "127.0.0.1:0", "--data-dir"])
            .arg(self.data_dir())
            .env("KVSPACE_STORAGE__SEGMENT_BYTES", SEGMENT_BYTES)
            // A node alone has no use for a network.
            .env("KVSPACE_NETWORK__LISTEN", "")
            .env("KVSPACE_DISCOVERY__MDNS", "false")
            .envs(self.failpoint.iter().map(|failpoint| ("KVSPACE_FAILPOINT", failpoint)))
            .envs(self.setup.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Starts a process that ends at this failpoint, when it is there for the n-th time.
    pub(crate) fn start_to_end_at(&mut self, name: &str, times: u64) {
        self.failpoint = Some(format!("{name}:{times}"));
        self.start();
        self.failpoint = None;
    }

    /// The same for a process that ends while it starts; `None` if it does not.
    pub(crate) fn start_until(&mut self, name: &str, times: u64) -> Option<ExitStatus> {
        self.failpoint = Some(format!("{name}:{times}"));
        let mut process = self.command().stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the node starts");
        self.failpoint = None;
        ended_within(&mut process, DEADLINE)
    }

    /// A variable of the environment for the processes to come.
    pub(crate) fn set_variable(&mut self, name: &str, value: impl ToString) {
        self.setup.environment.push((name.to_owned(), value.to_string()));
    }

    /// Whether its process is there.
    pub(crate) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Asks it to end (SIGTERM).
    pub(crate) fn terminate(&mut self) {
        self.signal(Signal::TERM);
    }

    /// How it ended by itself; `None` if it still runs.
    pub(crate) fn ended_by_itself(&mut self) -> Option<ExitStatus> {
        let Running { mut process, .. } = self.running.take()?;
        ended_within(&mut process, Duration::from_secs(5))
    }

    /// Starts the process again, on the same folder.
    pub(crate) fn start(&mut self) {
        assert!(self.running.is_none(), "it runs");
        let log = fs::File::options().create(true).append(true).open(self.log_path()).expect("a file for the log");
        let mut process =
            self.command().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).spawn().expect("the node starts");
        let output = lines(process.stdout.take().expect("it is piped"));
        let line = output.recv_timeout(DEADLINE);
        let ready = serde_json::from_str(line.as_deref().unwrap_or_default()).ok();
        let Some(ready) = ready.filter(|ready: &Value| ready["did"].is_string()) else {
            drop(process.kill());
            drop(process.wait());
            panic!("the node did not start: {line:?}\n{}", self.log());
        };
        self.running = Some(Running { process, output: Mutex::new(output), ready });
    }

    /// Asks it to end (SIGTERM), and takes nothing but a clean end.
    pub(crate) fn stop(&mut self) {
        self.signal(Signal::TERM);
        let status = self.ended();
        assert_eq!(status.code(), Some(0), "the node ended with {status}\n{}", self.log());
    }

    /// Ends it at once (SIGKILL).
    pub(crate) fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.ended();
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.running().process), signal).expect("the process is there");
    }

    /// Waits until the process has ended.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        let Running { mut process, output, .. } = self.running.take().expect("it runs");
        wait_for_end(&mut process, &output.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    fn running(&self) -> &Running {
        self.running.as_ref().expect("it runs")
    }

    /// The line that it printed when it was ready.
    pub(crate) fn ready(&self) -> &Value {
        &self.running().ready
    }

    /// Its DID.
    pub(crate) fn did(&self) -> Did {
        self.ready()["did"].as_str().expect("a DID").parse().expect("a DID")
    }

    /// The URL for clients.
    pub(crate) fn url(&self) -> String {
        self.ready()["http"].as_str().expect("a URL").to_owned()
    }

    /// The URL for the operator.
    pub(crate) fn operator_url(&self) -> String {
        self.ready()["operator"].as_str().expect("a URL").to_owned()
    }

    /// The address and port for clients.
    pub(crate) fn address(&self) -> String {
        authority(&self.url())
    }

    /// A connection to it.
    pub(crate) fn connect(&self) -> Connection {
        Connection::open(&self.address())
    }

    /// Sends a request over a connection of its own.
    pub(crate) fn ask(&self, request: &Request) -> Response {
        self.connect().ask(request)
    }

    /// Asks as its operator.
    pub(crate) fn operate(&self, request: &Request) -> Response {
        Connection::open(&authority(&self.operator_url())).ask(request)
    }

    /// What its operator sees, apart from which spaces are awake.
    pub(crate) fn status(&self) -> Value {
        let answer = self.operate(&get("/status"));
        let mut status: Value = serde_json::from_slice(&answer.body).expect("the status is JSON");
        for space in status["spaces"].as_array_mut().expect("spaces") {
            space["active"].take();
        }
        status
    }

    /// All that a request could change: the logs of the spaces, what is parked, and the files of values.
    pub(crate) fn state(&self) -> (Value, Vec<PathBuf>) {
        let mut status = self.status();
        // What is free on the disk changes by others' doing, and what is in memory is no part of the state.
        let status_members = status.as_object_mut().expect("an object");
        status_members.retain(|member, _| member != "storage" && member != "active");
        for space in status_members["spaces"].as_array_mut().expect("a list") {
            space.as_object_mut().expect("an object").remove("active");
        }
        (status, files(&self.data_dir().join("blobs")))
    }

    /// The uploads that are not done.
    pub(crate) fn staging(&self) -> Vec<PathBuf> {
        files(&self.data_dir().join("blobs/staging"))
    }

    /// What it logged so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    fn log_path(&self) -> PathBuf {
        self.folder.path().join("stderr")
    }

    /// A line of the process's state in the kernel, in kB.
    pub(crate) fn memory_kb(&self, line: &str) -> u64 {
        let path = format!("/proc/{}/status", self.running().process.id());
        let status = fs::read_to_string(path).expect("the kernel tells of a running process");
        let value = status.lines().find_map(|found| found.strip_prefix(line)).expect("such a line");
        value.trim_matches([':', ' ', '\t']).trim_end_matches(" kB").parse().expect("a number")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut running) = self.running.take() {
            drop(running.process.kill());
            drop(running.process.wait());
        }
        if thread::panicking() {
            eprintln!("the node logged:\n{}", self.log());
        }
    }
}

/// The lines that a process prints; the channel ends with its output.
pub(crate) fn lines(output: ChildStdout) -> Receiver<String> {
    let (sender, lines) = sync_channel(16);
    thread::spawn(move || {
        let mut output = BufReader::new(output);
        let mut line = String::new();
        while output.read_line(&mut line).is_ok_and(|bytes| bytes > 0) {
            drop(sender.send(std::mem::take(&mut line)));
        }
    });
    lines
}

fn wait_for_end(process: &mut Child, output: &Receiver<String>) -> ExitStatus {
    let until = Instant::now() + DEADLINE;
    loop {
        match output.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(_) => {}
            Err(RecvTimeoutError::Disconnected) => return process.wait().expect("it is ours"),
            Err(RecvTimeoutError::Timeout) => {
                drop(process.kill());
                drop(process.wait());
                panic!("the process does not end");
            }
        }
    }
}

/// How a process ended within this time; otherwise it is ended.
fn ended_within(process: &mut Child, time: Duration) -> Option<ExitStatus> {
    let until = Instant::now() + time;
    while Instant::now() < until {
        if let Some(status) = process.try_wait().expect("it is ours") {
            return Some(status);
        }
        thread::park_timeout(Duration::from_millis(2));
    }
    drop(process.kill());
    drop(process.wait());
    None
}

/// Runs a command that ends by itself; its output and error.
pub(crate) fn run(command: &mut Command, input: &[u8]) -> (ExitStatus, Vec<u8>, String) {
    use std::io::Write as _;
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut process = piped.spawn().expect("the command starts");
    let mut stdin = process.stdin.take().expect("it is piped");
    let input = input.to_owned();
    // It may end without reading.
    let writing = thread::spawn(move || drop(stdin.write_all(&input)));
    let output = drain(process.stdout.take().expect("it is piped"));
    let error = drain(process.stderr.take().expect("it is piped"));
    let Ok(output) = output.recv_timeout(DEADLINE) else {
        drop(process.kill());
        drop(process.wait());
        panic!("{command:?} does not end");
    };
    let status = process.wait().expect("it is ours");
    drop(writing.join());
    let error = error.recv_timeout(DEADLINE).expect("it has ended");
    (status, output, String::from_utf8_lossy(&error).into_owned())
}

fn drain(mut stream: impl Read + Send + 'static) -> Receiver<Vec<u8>> {
    let (sender, whole) = sync_channel(1);
    thread::spawn(move || {
        let mut bytes = Vec::new();
        drop(stream.read_to_end(&mut bytes));
        drop(sender.send(bytes));
    });
    whole
}

/// Waits for what has no event of its own.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < until, "it never came true: {what}");
        thread::park_timeout(Duration::from_millis(2));
    }
}

/// Every file beneath a folder.
pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let Ok(entries) = fs::read_dir(folder) else { return found };
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn authority(url: &str) -> String {
    url.trim_start_matches("http://").trim_end_matches('/').to_owned()
}
