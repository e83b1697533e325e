//! A node in a process of its own, and clients that do no more than they must.
#![allow(dead_code, reason = "each benchmark uses its own part")]

use std::{
    collections::BTreeMap,
    error::Error,
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use ed25519_dalek::SigningKey;
use kvspace_protocol::{
    capability::{
        Token,
        build::{Claims, ucan},
    },
    id::{Did, Millis, SpaceId},
};
use rand::RngExt;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

pub(crate) type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Far enough that tokens signed beforehand stay in force.
const TOKENS_UNTIL: Millis = Millis(4_000_000_000_000);

pub(crate) struct Figures {
    pub(crate) per_second: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) cpu_us: f64,
}

/// Sends the requests over `clients` connections, each one after the other's answer.
pub(crate) async fn run(node: &Node, clients: usize, requests: Vec<Vec<u8>>, expect: u16) -> Result<Figures> {
    let count = requests.len();
    let mut shares: Vec<Vec<Vec<u8>>> = vec![Vec::new(); clients];
    requests.into_iter().enumerate().for_each(|(n, request)| shares[n % clients].push(request));
    let mut connections = Vec::new();
    for _ in 0..clients {
        connections.push(Connection::open(&node.address).await?);
    }
    let (cpu_before, began) = (node.cpu()?, Instant::now());
    let tasks: Vec<_> = connections
        .into_iter()
        .zip(shares)
        .map(|(mut connection, share)| {
            tokio::spawn(async move {
                let mut times = Vec::with_capacity(share.len());
                for request in share {
                    let sent = Instant::now();
                    let status = connection.ask(&request).await?;
                    if status != expect {
                        return Err(format!("answered {status}: {}", connection.text()).into());
                    }
                    times.push(sent.elapsed());
                }
                Result::Ok(times)
            })
        })
        .collect();
    let mut times: Vec<Duration> = Vec::with_capacity(count);
    for task in tasks {
        times.extend(task.await??);
    }
    let (elapsed, cpu) = (began.elapsed(), node.cpu()?.saturating_sub(cpu_before));
    times.sort_unstable();
    let micros = |time: Duration| time.as_secs_f64() * 1e6;
    Ok(Figures {
        per_second: count as f64 / elapsed.as_secs_f64(),
        p50_us: micros(times[count / 2]),
        p99_us: micros(times[count * 99 / 100]),
        cpu_us: micros(cpu) / count as f64,
    })
}

/// An HTTP/1.1 connection that does no more than it must.
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    end: usize,
}

impl Connection {
    pub(crate) async fn open(address: &str) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: vec![0; 256 * 1024], end: 0 })
    }

    pub(crate) async fn ask(&mut self, request: &[u8]) -> Result<u16> {
        self.stream.write_all(request).await?;
        self.end = 0;
        let head = loop {
            self.fill().await?;
            if let Some(at) = self.buffer[..self.end].windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
        };
        let text = std::str::from_utf8(&self.buffer[..head])?;
        let status = text.split(' ').nth(1).ok_or("no status")?.parse()?;
        let length = text.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>())
        });
        let whole = head + length.ok_or("no content-length")??;
        while self.end < whole {
            self.fill().await?;
        }
        Ok(status)
    }

    async fn fill(&mut self) -> Result<()> {
        if self.end == self.buffer.len() {
            self.buffer.resize(self.end * 2, 0);
        }
        let read = self.stream.read(&mut self.buffer[self.end..]).await?;
        if read == 0 {
            return Err("the node closed the connection".into());
        }
        self.end += read;
        Ok(())
    }

    /// A header of the last answer.
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        let text = self.text();
        let mut headers = text.split("\r\n\r\n").next()?.lines().filter_map(|line| line.split_once(':'));
        let (_, value) = headers.find(|(found, _)| found.eq_ignore_ascii_case(name))?;
        Some(value.trim().to_owned())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.buffer[..self.end]).into_owned()
    }
}

pub(crate) struct Owner {
    key: SigningKey,
    space: SpaceId,
}

impl Owner {
    pub(crate) fn new() -> Self {
        let key = SigningKey::from_bytes(&[42; 32]);
        let space = SpaceId::new(&Did::from_ed25519(&key.verifying_key().to_bytes()), "bench").expect("a space id");
        Self { key, space }
    }

    /// One of many.
    pub(crate) fn numbered(number: u64) -> Self {
        let mut seed = [1; 32];
        seed[..8].copy_from_slice(&number.to_be_bytes());
        let key = SigningKey::from_bytes(&seed);
        let space = SpaceId::new(&Did::from_ed25519(&key.verifying_key().to_bytes()), "bench").expect("a space id");
        Self { key, space }
    }

    /// The request that makes the space.
    pub(crate) fn host_delegation(&self, node: &Node) -> Vec<u8> {
        self.host_delegation_to(&node.did)
    }

    /// The request that makes this one a host of the space.
    pub(crate) fn host_delegation_to(&self, host: &Did) -> Vec<u8> {
        let mut claims = Claims::until(TOKENS_UNTIL);
        claims.audience = Some(host.clone());
        claims.capabilities.insert(format!("{}/space", self.space), vec!["tinycloud.space/host".into()]);
        request("/delegate", &ucan(&claims, &self.key).expect("claims make a token"), "", b"")
    }

    pub(crate) fn space(&self) -> &SpaceId {
        &self.space
    }

    pub(crate) async fn create_space(&self, node: &Node) -> Result<()> {
        let request = self.host_delegation(node);
        let mut connection = Connection::open(&node.address).await?;
        match connection.ask(&request).await? {
            200 => Ok(()),
            status => Err(format!("the space was not made: {status} {}", connection.text()).into()),
        }
    }

    pub(crate) fn put(&self, key: &str, size_bytes: usize) -> Vec<u8> {
        let mut value = vec![0_u8; size_bytes];
        rand::rng().fill(&mut value[..]);
        self.invoke(key, "put", "content-type: application/octet-stream\r\n", &value)
    }

    pub(crate) fn invoke(&self, path: &str, ability: &str, headers: &str, body: &[u8]) -> Vec<u8> {
        let mut claims = Claims::until(TOKENS_UNTIL);
        claims.nonce = Some(format!("urn:uuid:{:032x}", rand::rng().random::<u128>()));
        claims.capabilities.insert(format!("{}/kv/{path}", self.space), vec![format!("tinycloud.kv/{ability}")]);
        request("/invoke", &ucan(&claims, &self.key).expect("claims make a token"), headers, body)
    }
}

fn request(path: &str, token: &Token, headers: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: n\r\nauthorization: {}\r\n{headers}content-length: {length}\r\n\r\n",
        token.to_header()
    );
    [head.as_bytes(), body].concat()
}

/// A node in a process of its own, ended with this one.
pub(crate) struct Node {
    process: Child,
    pub(crate) address: String,
    operator: String,
    pub(crate) did: Did,
    /// Where peers find it.
    pub(crate) p2p: Vec<String>,
}

impl Node {
    /// A node on this folder, with these options as environment variables.
    pub(crate) fn start(dir: &Path, options: &[(&str, &str)]) -> Result<Self> {
        let mut process = Command::new(env!("CARGO_BIN_EXE_kvspace"))
            .args(["serve", "--json", "--http", "127.0.0.1:0", "--operator", "127.0.0.1:0", "--data-dir"])
            .arg(dir)
            .env("KVSPACE_NETWORK__LISTEN", "")
            .env("KVSPACE_DISCOVERY__MDNS", "false")
            .envs(options.iter().copied())
            .env("KVSPACE_TOKENS__LIFETIME_MAX_S", "10000000000")
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        BufReader::new(process.stdout.take().ok_or("no output")?).read_line(&mut line)?;
        let ready: BTreeMap<String, serde_json::Value> = serde_json::from_str(&line)?;
        let text = |name: &str| ready.get(name).and_then(|value| value.as_str()).unwrap_or_default().to_owned();
        let host = |name: &str| text(name).trim_start_matches("http://").trim_end_matches('/').to_owned();
        let p2p = ready.get("p2p").cloned().map(serde_json::from_value).transpose()?.unwrap_or_default();
        Ok(Self { process, address: host("http"), operator: host("operator"), did: text("did").parse()?, p2p })
    }

    /// User and system time of the node so far.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.process.id()))?;
        let fields: Vec<_> = stat.rsplit(')').next().ok_or("no stat")?.split_whitespace().collect();
        let ticks: u64 = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
        // The kernel counts in hundredths of a second on every platform that has /proc.
        Ok(Duration::from_millis(ticks * 10))
    }

    pub(crate) fn resident_mb(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").trim().parse::<u64>()? / 1024)
    }
}

impl Node {
    /// Ends it with a signal and waits.
    pub(crate) fn end(mut self, signal: rustix::process::Signal) -> Result<()> {
        let pid = rustix::process::Pid::from_child(&self.process);
        rustix::process::kill_process(pid, signal)?;
        self.process.wait()?;
        Ok(())
    }

    /// What `GET /status` of the operator says.
    pub(crate) async fn status(&self) -> Result<serde_json::Value> {
        Ok(serde_json::from_str(&self.operate("GET /status").await?)?)
    }

    /// What the operator is answered.
    pub(crate) async fn operate(&self, what: &str) -> Result<String> {
        let mut connection = Connection::open(&self.operator).await?;
        let request = format!("{what} HTTP/1.1\r\nhost: n\r\ncontent-length: 0\r\n\r\n");
        connection.ask(request.as_bytes()).await?;
        Ok(connection.text().split_once("\r\n\r\n").ok_or("no body")?.1.to_owned())
    }

    /// A figure of `/metrics`, the sum over all labels.
    pub(crate) async fn metric(&self, name: &str) -> Result<f64> {
        let text = self.operate("GET /metrics").await?;
        let lines = text.lines().filter(|line| line.starts_with(name));
        Ok(lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}
