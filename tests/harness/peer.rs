//! A peer that is no node: it says over libp2p what a test tells it, right or wrong.

use std::{io, time::Duration};

use ed25519_dalek::SigningKey;
use futures::{AsyncReadExt as _, AsyncWriteExt as _, StreamExt as _};
use kvspace_protocol::sync::{Request, Response, blob};
use libp2p::{
    Multiaddr, PeerId, Stream, StreamProtocol, SwarmBuilder, identify,
    identity::Keypair,
    noise, ping,
    swarm::{NetworkBehaviour, SwarmEvent},
    tcp, yamux,
};
use libp2p_stream::Control;
use tokio::{runtime::Runtime, sync::watch, time::timeout};

use super::process::DEADLINE;

/// Asking for what a node has.
pub(crate) const SYNC: StreamProtocol = StreamProtocol::new("/kvspace/sync/1");
/// Bringing what a node lacks.
pub(crate) const PUSH: StreamProtocol = StreamProtocol::new("/kvspace/push/1");
/// Ranges of values.
pub(crate) const BLOB: StreamProtocol = StreamProtocol::new("/kvspace/blob/1");

/// As much as makes a peer one of this kind.
#[derive(NetworkBehaviour)]
#[behaviour(prelude = "libp2p::swarm::derive_prelude")]
struct Speaking {
    identify: identify::Behaviour,
    ping: ping::Behaviour,
    streams: libp2p_stream::Behaviour,
}

impl Speaking {
    fn new(key: &Keypair) -> Self {
        let config = identify::Config::new("/kvspace/1".into(), key.public());
        let (identify, ping) = (identify::Behaviour::new(config), ping::Behaviour::default());
        Self { identify, ping, streams: libp2p_stream::Behaviour::new() }
    }
}

/// A peer that is connected to one node.
pub(crate) struct Peer {
    runtime: Runtime,
    control: Control,
    node: PeerId,
    is_connected: watch::Receiver<bool>,
}

impl Peer {
    /// Connects a peer with this key to the node at this multiaddress, which ends in the node's own `/p2p/…`.
    pub(crate) fn connect(key: &SigningKey, node: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let address: Multiaddr = node.parse().expect("a multiaddress");
        let Some(libp2p::multiaddr::Protocol::P2p(node)) = address.iter().last() else { panic!("it names no peer") };
        let (connected, mut is_connected) = watch::channel(false);
        let control = runtime.block_on(async {
            let mut swarm = SwarmBuilder::with_existing_identity(
                Keypair::ed25519_from_bytes(key.to_bytes()).expect("any 32 bytes are a key"),
            )
            .with_tokio()
            .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, yamux::Config::default)
            .expect("a transport")
            .with_behaviour(Speaking::new)
            .expect("a behaviour")
            .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(3600)))
            .build();
            swarm.dial(address).expect("an address to dial");
            let control = swarm.behaviour().streams.new_control();
            tokio::spawn(async move {
                loop {
                    let event = swarm.select_next_some().await;
                    if matches!(event, SwarmEvent::ConnectionEstablished { .. }) {
                        connected.send_replace(true);
                    } else if matches!(event, SwarmEvent::ConnectionClosed { num_established: 0, .. }) {
                        connected.send_replace(false);
                    }
                }
            });
            timeout(DEADLINE, is_connected.wait_for(|connected| *connected)).await.expect("in time").expect("it runs");
            control
        });
        Self { runtime, control, node, is_connected }
    }

    /// Whether the node has closed the connection.
    pub(crate) fn is_cut_off(&self) -> bool {
        !*self.is_connected.borrow()
    }

    /// Sends these bytes as one message, and reads the answer.
    pub(crate) fn exchange(&self, protocol: StreamProtocol, message: &[u8]) -> io::Result<Vec<u8>> {
        let length = u32::try_from(message.len()).map_err(io::Error::other)?.to_be_bytes();
        self.send(protocol, &[&length, message].concat(), ThenRead::Message)
    }

    /// Asks as hosts do; `None` when the node does not answer at all, or with an empty message.
    pub(crate) fn ask(&self, request: &Request) -> Option<Response> {
        let protocol = if matches!(request, Request::Push(_)) { PUSH } else { SYNC };
        let answer = self.exchange(protocol, &request.encode());
        let answer = answer.inspect_err(|error| eprintln!("no answer: {error}")).ok()?;
        (!answer.is_empty()).then(|| Response::decode(&answer).expect("a node answers with a message"))
    }

    /// Asks for a range of a value; the status, if there is one.
    pub(crate) fn ask_for(&self, request: &blob::Request) -> Option<blob::Status> {
        let message = request.encode();
        let length = u32::try_from(message.len()).expect("a request is small").to_be_bytes();
        let answer = self.send(BLOB, &[&length, &message[..]].concat(), ThenRead::Byte).ok()?;
        blob::Status::from_byte(*answer.first()?)
    }

    /// Sends bytes as they are on a new stream and reads what comes.
    pub(crate) fn send(&self, protocol: StreamProtocol, bytes: &[u8], then: ThenRead) -> io::Result<Vec<u8>> {
        self.within(async {
            let mut stream = self.open(protocol).await?;
            stream.write_all(bytes).await?;
            stream.flush().await?;
            match then {
                ThenRead::Message => {
                    let mut length = [0; 4];
                    stream.read_exact(&mut length).await?;
                    let mut answer = vec![0; u32::from_be_bytes(length) as usize];
                    stream.read_exact(&mut answer).await?;
                    Ok(answer)
                }
                ThenRead::Byte => {
                    let mut byte = [0];
                    stream.read_exact(&mut byte).await?;
                    Ok(byte.to_vec())
                }
                ThenRead::End => {
                    stream.close().await?;
                    let mut answer = Vec::new();
                    stream.read_to_end(&mut answer).await?;
                    Ok(answer)
                }
            }
        })
    }

    /// Sends bytes and keeps the streams open, as one who stalls does.
    pub(crate) fn stall(&self, protocol: &StreamProtocol, bytes: &[u8], count: usize) -> Vec<Stream> {
        let stalled = async {
            let mut streams = Vec::new();
            for _ in 0..count {
                let Ok(mut stream) = self.open(protocol.clone()).await else { break };
                if stream.write_all(bytes).await.is_err() || stream.flush().await.is_err() {
                    break;
                }
                streams.push(stream);
            }
            Ok(streams)
        };
        self.within(stalled).expect("it gives what it has")
    }

    async fn open(&self, protocol: StreamProtocol) -> io::Result<Stream> {
        self.control.clone().open_stream(self.node, protocol).await.map_err(io::Error::other)
    }

    fn within<T>(&self, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
        self.runtime.block_on(async { timeout(DEADLINE, work).await.expect("the node leaves nobody waiting") })
    }
}

/// What is read after sending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ThenRead {
    /// One message.
    Message,
    /// One byte.
    Byte,
    /// Nothing more is sent; all that comes.
    End,
}
