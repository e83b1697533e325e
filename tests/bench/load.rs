//! The load generator behind `scripts/bench.sh`: one node, 1, 16 and 64 clients, values of 1 KiB.
//!
//! Tokens are signed before the clock starts. Beside each figure stand the limits of the machine in the same run; trust
//! the CPU per operation and the ratios, not a single time.
#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "a benchmark prints and reads the clock")]

use std::{
    collections::BTreeMap,
    error::Error,
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::FileExt,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use ed25519_dalek::{Signer, SigningKey};
use kvspace_protocol::{
    capability::{
        Token,
        build::{Claims, ucan},
    },
    id::{Did, Millis, SpaceId},
};
use rand::{RngExt, seq::SliceRandom};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

const VALUE_BYTES: usize = 1024;
const CLIENTS: [usize; 3] = [1, 16, 64];
/// Far enough that tokens signed beforehand stay in force.
const TOKENS_UNTIL: Millis = Millis(4_000_000_000_000);

fn main() -> Result<()> {
    let quick = std::env::var_os("KVSPACE_BENCH_QUICK").is_some();
    let dir = tempfile::tempdir_in(std::env::var_os("KVSPACE_BENCH_DIR").unwrap_or_else(|| ".".into()))?;
    println!("limits of this machine, one core:");
    println!("  verify_strict   {:>9.0} /s", verify_strict());
    println!("  fdatasync 4 KiB {:>9.0} /s", fdatasync(dir.path())?);
    let node = Node::start(dir.path())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(measure(&node, if quick { 1000 } else { 20_000 }))
}

async fn measure(node: &Node, most: usize) -> Result<()> {
    let owner = Owner::new(node);
    owner.create_space(node).await?;
    println!("\n{:>7} {:>6} {:>9} {:>9} {:>9} {:>13}", "clients", "what", "per s", "p50 us", "p99 us", "server us/op");
    for clients in CLIENTS {
        let count = if clients == 1 { most / 5 } else { most };
        let info = (0..count).map(|_| b"GET /info HTTP/1.1\r\nhost: n\r\n\r\n".to_vec()).collect();
        print_line(clients, "info", run(node, clients, info, 200).await?);
        let mut keys: Vec<_> = (0..count).map(|n| format!("bench/c{clients}/{n:08}")).collect();
        keys.shuffle(&mut rand::rng());
        let puts = keys.iter().map(|key| owner.put(key)).collect();
        print_line(clients, "put", run(node, clients, puts, 200).await?);
        keys.shuffle(&mut rand::rng());
        let gets = keys.iter().map(|key| owner.invoke(key, "get", "", b"")).collect();
        print_line(clients, "get", run(node, clients, gets, 200).await?);
        let path = format!("bench/c{clients}/");
        let lists = (0..count / 10).map(|_| owner.invoke(&path, "list", "x-tinycloud-limit: 100\r\n", b"")).collect();
        print_line(clients, "list", run(node, clients, lists, 200).await?);
    }
    println!("\na list returns 100 keys; memory of the node at the end: {} MB", node.resident_mb()?);
    Ok(())
}

fn print_line(clients: usize, what: &str, figures: Figures) {
    let Figures { per_second, p50_us, p99_us, cpu_us } = figures;
    println!("{clients:>7} {what:>6} {per_second:>9.0} {p50_us:>9.0} {p99_us:>9.0} {cpu_us:>13.1}");
}

struct Figures {
    per_second: f64,
    p50_us: f64,
    p99_us: f64,
    cpu_us: f64,
}

/// Sends the requests over `clients` connections, each one after the other's answer.
async fn run(node: &Node, clients: usize, requests: Vec<Vec<u8>>, expect: u16) -> Result<Figures> {
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
struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    end: usize,
}

impl Connection {
    async fn open(address: &str) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: vec![0; 256 * 1024], end: 0 })
    }

    async fn ask(&mut self, request: &[u8]) -> Result<u16> {
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
        let read = self.stream.read(&mut self.buffer[self.end..]).await?;
        if read == 0 {
            return Err("the node closed the connection".into());
        }
        self.end += read;
        Ok(())
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.buffer[..self.end]).into_owned()
    }
}

struct Owner {
    key: SigningKey,
    space: SpaceId,
}

impl Owner {
    fn new(_: &Node) -> Self {
        let key = SigningKey::from_bytes(&[42; 32]);
        let space = SpaceId::new(&Did::from_ed25519(&key.verifying_key().to_bytes()), "bench").expect("a space id");
        Self { key, space }
    }

    async fn create_space(&self, node: &Node) -> Result<()> {
        let mut claims = Claims::until(TOKENS_UNTIL);
        claims.audience = Some(node.did.clone());
        claims.capabilities.insert(format!("{}/space", self.space), vec!["tinycloud.space/host".into()]);
        let request = request("/delegate", &ucan(&claims, &self.key)?, "", b"");
        let mut connection = Connection::open(&node.address).await?;
        match connection.ask(&request).await? {
            200 => Ok(()),
            status => Err(format!("the space was not made: {status} {}", connection.text()).into()),
        }
    }

    fn put(&self, key: &str) -> Vec<u8> {
        let mut value = vec![0_u8; VALUE_BYTES];
        rand::rng().fill(&mut value[..]);
        self.invoke(key, "put", "content-type: application/octet-stream\r\n", &value)
    }

    fn invoke(&self, path: &str, ability: &str, headers: &str, body: &[u8]) -> Vec<u8> {
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
struct Node {
    process: Child,
    address: String,
    did: Did,
}

impl Node {
    fn start(dir: &std::path::Path) -> Result<Self> {
        let mut process = Command::new(env!("CARGO_BIN_EXE_kvspace"))
            .args(["serve", "--json", "--http", "127.0.0.1:0", "--operator", "127.0.0.1:0", "--data-dir"])
            .arg(dir.join("node"))
            .env("KVSPACE_TOKENS__LIFETIME_MAX_S", "10000000000")
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        BufReader::new(process.stdout.take().ok_or("no output")?).read_line(&mut line)?;
        let ready: BTreeMap<String, serde_json::Value> = serde_json::from_str(&line)?;
        let text = |name: &str| ready.get(name).and_then(|value| value.as_str()).unwrap_or_default().to_owned();
        let address = text("http").trim_start_matches("http://").trim_end_matches('/').to_owned();
        Ok(Self { process, address, did: text("did").parse()? })
    }

    /// User and system time of the node so far.
    fn cpu(&self) -> Result<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.process.id()))?;
        let fields: Vec<_> = stat.rsplit(')').next().ok_or("no stat")?.split_whitespace().collect();
        let ticks: u64 = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
        // The kernel counts in hundredths of a second on every platform that has /proc.
        Ok(Duration::from_millis(ticks * 10))
    }

    fn resident_mb(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").trim().parse::<u64>()? / 1024)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

fn verify_strict() -> f64 {
    let key = SigningKey::from_bytes(&[1; 32]);
    let message = [7_u8; 700];
    let signature = key.sign(&message);
    let verifying = key.verifying_key();
    let count = 5000;
    let began = Instant::now();
    for _ in 0..count {
        assert!(verifying.verify_strict(&message, &signature).is_ok());
    }
    f64::from(count) / began.elapsed().as_secs_f64()
}

fn fdatasync(dir: &std::path::Path) -> Result<f64> {
    let file = fs::File::create(dir.join("sync"))?;
    file.write_all_at(&vec![0; 4 << 20], 0)?;
    file.sync_all()?;
    let count: u32 = 500;
    let began = Instant::now();
    for n in 0..count {
        file.write_all_at(&[1; 4096], u64::from(n) * 4096)?;
        file.sync_data()?;
    }
    Ok(f64::from(count) / began.elapsed().as_secs_f64())
}
