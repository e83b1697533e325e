//! The configuration of a node: typed options, their defaults, and how they are read.
//!
//! `config/kvspace.toml` lists every option with its default ([`EXAMPLE`]); [`load()`] reads file, environment and flags.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

mod admit;
mod error;
mod load;
mod multiaddr;
mod validate;

pub use admit::Admit;
pub use error::ConfigError;
pub use load::{Sources, load};
/// The value of a flag.
pub use toml::Value;

/// The commented file that holds every option with its default.
pub const EXAMPLE: &str = include_str!("../kvspace.toml");

const DATA_DIR: &str = "~/.local/share/kvspace";
const DATA_DIR_WITHOUT_HOME: &str = "./kvspace-data";

/// All options. What each one means stands in [`EXAMPLE`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The process itself.
    pub node: Node,
    /// The interface for clients.
    pub http: Http,
    /// The interface for the operator.
    pub operator: Operator,
    /// Other nodes.
    pub network: Network,
    /// How other nodes are found.
    pub discovery: Discovery,
    /// Which spaces are served.
    pub spaces: Spaces,
    /// What tokens are taken.
    pub tokens: Tokens,
    /// What may be held in memory.
    pub memory: Memory,
    /// What lies on disk.
    pub storage: Storage,
    /// What is freed, and when.
    pub retention: Retention,
    /// What is logged.
    pub log: Log,
}

/// `[node]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Node {
    pub data_dir: PathBuf,
    pub key_file: PathBuf,
}

/// `[http]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Http {
    pub listen: SocketAddr,
    pub cors: bool,
    pub header_timeout_ms: u64,
    pub body_idle_timeout_ms: u64,
    pub connections_max: usize,
    pub connections_per_ip_max: usize,
    pub body_bytes_max: u64,
    pub stop_timeout_ms: u64,
}

/// `[operator]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Operator {
    pub listen: SocketAddr,
}

/// `[network]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Network {
    pub listen: Vec<String>,
    pub peers: Vec<String>,
    pub compare_interval_s: u64,
    pub pending_wait_ms: u64,
}

/// `[discovery]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Discovery {
    pub mdns: bool,
}

/// `[spaces]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Spaces {
    pub admit: Admit,
    pub active_max: usize,
}

/// `[tokens]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tokens {
    pub lifetime_max_s: u64,
}

/// `[memory]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Memory {
    pub body_bytes_max: u64,
    pub permit_wait_ms: u64,
}

/// `[storage]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Storage {
    pub segment_bytes: u64,
    pub index_cache_bytes: u64,
    pub reserve_free_bytes: u64,
}

/// `[retention]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Retention {
    pub superseded_s: u64,
    pub interval_s: u64,
}

/// `[log]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    pub level: String,
    pub format: LogFormat,
}

/// How a log line is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Node {
    /// The paths as they are on disk: `~` is `home`, and the key file lies in the data folder unless it is absolute.
    fn resolve(&mut self, home: Option<&Path>) {
        if home.is_none() && self.data_dir == Path::new(DATA_DIR) {
            self.data_dir = DATA_DIR_WITHOUT_HOME.into();
        }
        for path in [&mut self.data_dir, &mut self.key_file] {
            if let (Some(home), Ok(rest)) = (home, path.strip_prefix("~")) {
                *path = home.join(rest);
            }
        }
        self.key_file = self.data_dir.join(&self.key_file);
    }
}

impl Default for Node {
    fn default() -> Self {
        Self { data_dir: DATA_DIR.into(), key_file: "node.key".into() }
    }
}

impl Default for Http {
    fn default() -> Self {
        Self {
            listen: loopback(8420),
            cors: true,
            header_timeout_ms: 10_000,
            body_idle_timeout_ms: 30_000,
            connections_max: 4_096,
            connections_per_ip_max: 1_024,
            body_bytes_max: 2_000_000_000,
            stop_timeout_ms: 10_000,
        }
    }
}

impl Default for Operator {
    fn default() -> Self {
        Self { listen: loopback(8421) }
    }
}

impl Default for Network {
    fn default() -> Self {
        Self {
            listen: vec!["/ip4/127.0.0.1/tcp/8422".into(), "/ip4/127.0.0.1/udp/8422/quic-v1".into()],
            peers: Vec::new(),
            compare_interval_s: 30,
            pending_wait_ms: 5_000,
        }
    }
}

impl Default for Discovery {
    fn default() -> Self {
        Self { mdns: true }
    }
}

impl Default for Spaces {
    fn default() -> Self {
        Self { admit: Admit::Any, active_max: 1_000 }
    }
}

impl Default for Tokens {
    fn default() -> Self {
        Self { lifetime_max_s: 300 }
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self { body_bytes_max: 64 * 1024 * 1024, permit_wait_ms: 5_000 }
    }
}

impl Default for Storage {
    fn default() -> Self {
        Self {
            segment_bytes: 64 * 1024 * 1024,
            index_cache_bytes: 64 * 1024 * 1024,
            reserve_free_bytes: 512 * 1024 * 1024,
        }
    }
}

impl Default for Retention {
    fn default() -> Self {
        Self { superseded_s: 30 * 24 * 60 * 60, interval_s: 600 }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { level: "info".into(), format: LogFormat::Text }
    }
}

fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}
