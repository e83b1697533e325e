//! `kvspace serve`: configuration, node, HTTP and signals put together.

use std::{
    error::Error,
    io::{self, Write as _},
    net::SocketAddr,
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use kvspace_actors::{
    StartError,
    node::{Admit, Node, Options},
};
use kvspace_config::Config;
use serde_json::json;
use tokio::{
    net::TcpListener,
    signal::unix::{Signal, SignalKind, signal},
};
use tokio_util::sync::CancellationToken;

use crate::{
    cli::ServeArgs,
    http::{
        self, Context,
        cors::Cors,
        operator,
        server::{Limits, Server},
    },
    telemetry,
};

mod network;
pub(crate) mod node_key;

use self::node_key::KeyError;

/// Why the node does not run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServeError {
    #[error("cannot start the threads of the HTTP side: {0}")]
    Runtime(io::Error),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("cannot listen on {address} ({option}): {source}; name another address, port 0 takes a free one")]
    Listen { address: SocketAddr, option: &'static str, source: io::Error },
    #[error("cannot watch for signals: {0}")]
    Signals(io::Error),
    #[error("cannot write to standard output: {0}")]
    Output(io::Error),
}

/// Runs a node until it is told to stop.
///
/// # Errors
/// What keeps it from starting.
pub(crate) fn serve(args: ServeArgs) -> Result<ExitCode, Box<dyn Error + Send + Sync>> {
    let config = args.config()?;
    telemetry::start(&config.log)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(ServeError::Runtime)?;
    runtime.block_on(run(config, args.is_json()))?;
    Ok(ExitCode::SUCCESS)
}

async fn run(config: Config, json: bool) -> Result<(), ServeError> {
    let mut signals = Signals::watch()?;
    let key = node_key::load_or_create(&config.node.key_file)?;
    let http = bind(config.http.listen, "http.listen").await?;
    let operator = bind(config.operator.listen, "operator.listen").await?;
    let node = Box::pin(Node::start(options(&config, key))).await?;
    let addresses = Addresses { http: address(&http)?, operator: address(&operator)?, p2p: node.p2p_addresses() };
    let closing = CancellationToken::new();
    let serving = tokio::spawn(listen(node.clone(), config.clone(), http, operator, closing.clone()));
    addresses.announce(node.did().as_str(), &config, json).map_err(ServeError::Output)?;
    signals.wait().await;
    tracing::info!("stopping; a second signal ends the process at once");
    closing.cancel();
    let stopped = async {
        if let Err(error) = serving.await {
            tracing::error!(%error, "the HTTP side failed");
        }
        node.stop().await;
    };
    tokio::select! {
        () = stopped => tracing::info!("stopped"),
        () = signals.wait() => {
            tracing::warn!("stopped at once; the log says the rest at the next start");
            std::process::exit(130);
        }
    }
    Ok(())
}

fn options(config: &Config, key: [u8; 32]) -> Options {
    let admit = match &config.spaces.admit {
        kvspace_config::Admit::Any => Admit::Any,
        kvspace_config::Admit::None => Admit::None,
        kvspace_config::Admit::Owners(owners) => Admit::Owners(owners.iter().cloned().collect()),
    };
    Options {
        data_dir: config.node.data_dir.clone(),
        key,
        admit,
        body_bytes_max: usize::try_from(config.memory.body_bytes_max).unwrap_or(usize::MAX),
        permit_wait: Duration::from_millis(config.memory.permit_wait_ms),
        active_spaces_max: config.spaces.active_max,
        segment_bytes: u32::try_from(config.storage.segment_bytes).unwrap_or(u32::MAX),
        index_cache_bytes: config.storage.index_cache_bytes,
        reserve_free_bytes: config.storage.reserve_free_bytes,
        retention: Duration::from_secs(config.retention.superseded_s),
        collect_interval: Duration::from_secs(config.retention.interval_s),
        network: network::options(&config.network, &config.discovery),
        pending_wait: Duration::from_millis(config.network.pending_wait_ms),
    }
}

async fn bind(address: SocketAddr, option: &'static str) -> Result<TcpListener, ServeError> {
    TcpListener::bind(address).await.map_err(|source| ServeError::Listen { address, option, source })
}

fn address(listener: &TcpListener) -> Result<SocketAddr, ServeError> {
    listener.local_addr().map_err(ServeError::Output)
}

/// Serves clients and the operator until `closing`.
async fn listen(node: Node, config: Config, http: TcpListener, operator: TcpListener, closing: CancellationToken) {
    let Config { http: options, tokens, memory, .. } = config;
    let ms = Duration::from_millis;
    let context = Arc::new(Context::new(
        node,
        http::Options {
            lifetime_max_ms: i64::try_from(tokens.lifetime_max_s).unwrap_or(i64::MAX).saturating_mul(1000),
            body_bytes_max: options.body_bytes_max,
            body_idle: ms(options.body_idle_timeout_ms),
            permit_wait: ms(memory.permit_wait_ms),
        },
    ));
    let limits = Limits {
        header_timeout: ms(options.header_timeout_ms),
        write_idle: ms(options.body_idle_timeout_ms),
        connections_max: options.connections_max,
        connections_per_ip_max: options.connections_per_ip_max,
        stop_timeout: ms(options.stop_timeout_ms),
    };
    let cors = if options.cors { Cors::Any } else { Cors::Off };
    let clients = Server { routes: http::routes(&context), cors, limits: limits.clone() };
    let operators = Server { routes: operator::routes(&context), cors: Cors::Off, limits };
    tokio::join!(clients.run(http, closing.clone()), operators.run(operator, closing));
}

/// Where the node answers.
struct Addresses {
    http: SocketAddr,
    operator: SocketAddr,
    /// Multiaddresses for other nodes; none without a network.
    p2p: Vec<String>,
}

impl Addresses {
    fn announce(&self, did: &str, config: &Config, json: bool) -> io::Result<()> {
        let words = if json { self.line(did) } else { self.greeting(did, config) };
        let mut out = io::stdout().lock();
        writeln!(out, "{words}")?;
        out.flush()
    }

    /// The line that programs read.
    fn line(&self, did: &str) -> String {
        let (http, operator) = (url(self.http), url(self.operator));
        json!({ "did": did, "http": http, "operator": operator, "p2p": self.p2p }).to_string()
    }

    fn greeting(&self, did: &str, config: &Config) -> String {
        let (http, operator) = (url(self.http), url(self.operator));
        let data = config.node.data_dir.display();
        let p2p: String = self.p2p.iter().map(|address| format!("\n  nodes     {address}")).collect();
        let flag = if self.http == Config::default().http.listen { String::new() } else { format!(" --node {http}") };
        format!(
            "kvspace is running

  node      {did}
  clients   {http}
  operator  {operator}{p2p}
  data      {data}

Try, in another terminal:

  kvspace key new
  kvspace space create notes{flag}
  echo hello | kvspace put notes greeting{flag}
"
        )
    }
}

fn url(address: SocketAddr) -> String {
    format!("http://{address}")
}

/// The signals that end the process.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn watch() -> Result<Self, ServeError> {
        let watch = |kind| signal(kind).map_err(ServeError::Signals);
        Ok(Self { terminate: watch(SignalKind::terminate())?, interrupt: watch(SignalKind::interrupt())? })
    }

    async fn wait(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_for_machines_has_its_four_members() {
        let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let p2p = vec!["/ip4/127.0.0.1/tcp/3/p2p/12D3".to_owned()];
        let line = Addresses { http: address(1), operator: address(2), p2p: p2p.clone() }.line("did:key:z6Mk");
        let document: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(document["did"], "did:key:z6Mk");
        assert_eq!(
            (&document["http"], &document["operator"]),
            (&json!("http://127.0.0.1:1"), &json!("http://127.0.0.1:2"))
        );
        assert_eq!(document["p2p"], json!(p2p));
        assert!(!line.contains('\n'));
    }
}
