//! The arguments of `kvspace serve`.

use std::{net::SocketAddr, path::PathBuf};

use clap::Args;
use kvspace_config::{Config, ConfigError, Sources, Value};

const EXAMPLE: &str = "Every option stands in config/kvspace.toml. The file is overridden by the environment
(KVSPACE_HTTP__LISTEN=0.0.0.0:8420), the environment by these flags.

Example:
  kvspace serve --data-dir ./data --http 127.0.0.1:0 --json";

/// How a node is run.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLE)]
pub(crate) struct ServeArgs {
    /// Reads options from this file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Keeps all data here [default: ~/.local/share/kvspace]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Address for clients; port 0 takes a free one [default: 127.0.0.1:8420]
    #[arg(long, value_name = "ADDR:PORT")]
    http: Option<SocketAddr>,
    /// Address for the operator; port 0 takes a free one [default: 127.0.0.1:8421]
    #[arg(long, value_name = "ADDR:PORT")]
    operator: Option<SocketAddr>,
    /// Address for other nodes, like /ip4/0.0.0.0/tcp/8422; may be given again [default: 127.0.0.1, tcp and udp 8422]
    #[arg(long, value_name = "MULTIADDR")]
    listen: Vec<String>,
    /// Another node to stay connected to, like /dns/kv.example.org/tcp/8422; may be given again
    #[arg(long, value_name = "MULTIADDR")]
    peer: Vec<String>,
    #[arg(skip)]
    json: bool,
}

impl ServeArgs {
    pub(crate) fn with_json(self, json: bool) -> Self {
        Self { json, ..self }
    }

    /// Whether the first line on standard output is an object for machines.
    #[allow(dead_code, reason = "for whoever runs the node")]
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// The configuration: file, environment, these flags.
    ///
    /// # Errors
    /// [`ConfigError`] names the option that cannot be used.
    pub(crate) fn config(&self) -> Result<Config, ConfigError> {
        kvspace_config::load(Sources {
            file: self.config.clone(),
            environment: super::data::environment(),
            flags: self.flags(),
        })
    }

    fn flags(&self) -> Vec<(&'static str, Value)> {
        let list = |items: &[String]| {
            (!items.is_empty()).then(|| Value::Array(items.iter().cloned().map(Value::String).collect()))
        };
        let text = |address: Option<SocketAddr>| address.map(|address| Value::String(address.to_string()));
        let data_dir = self.data_dir.as_ref().map(|dir| Value::String(dir.to_string_lossy().into_owned()));
        let given = [
            ("node.data_dir", data_dir),
            ("http.listen", text(self.http)),
            ("operator.listen", text(self.operator)),
            ("network.listen", list(&self.listen)),
            ("network.peers", list(&self.peer)),
        ];
        given.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Alone {
        #[command(flatten)]
        args: ServeArgs,
    }

    #[test]
    fn flags_become_options() {
        const TCP: &str = "/ip4/127.0.0.1/tcp/0";
        const QUIC: &str = "/ip4/127.0.0.1/udp/0/quic-v1";
        let line = ["serve", "--data-dir", "/d", "--http", "127.0.0.1:0", "--listen", TCP, "--listen", QUIC];
        let args = Alone::parse_from(line).args;
        let config = kvspace_config::load(Sources { flags: args.flags(), ..Sources::default() }).expect("options");
        assert_eq!(config.node.key_file, PathBuf::from("/d/node.key"));
        assert_eq!((config.http.listen.port(), config.operator.listen.port()), (0, 8421));
        assert_eq!(config.network.listen, [TCP, QUIC]);
    }
}
