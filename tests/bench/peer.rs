//! A peer that is no node, and a bare stream between two of them.

use std::time::{Duration, Instant};

use ed25519_dalek::SigningKey;
use futures::{AsyncReadExt as _, AsyncWriteExt as _, StreamExt as _};
use kvspace_protocol::{
    id::Did,
    sync::{Request, Response, compare},
};
use libp2p::{
    Multiaddr, PeerId, StreamProtocol, Swarm, SwarmBuilder, identify,
    identity::Keypair,
    multiaddr::Protocol,
    noise, ping,
    swarm::{NetworkBehaviour, SwarmEvent},
    tcp, yamux,
};
use libp2p_stream::Control;
use tokio::sync::oneshot;

use crate::harness::Result;

const SYNC: StreamProtocol = StreamProtocol::new("/kvspace/sync/1");
const BARE: StreamProtocol = StreamProtocol::new("/bench/bare/1");
const PIECE_BYTES: usize = 64 * 1024;

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
    control: Control,
    node: PeerId,
}

/// What an exchange took: the bytes of its messages, with their lengths, in both directions.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cost {
    pub(crate) bytes: usize,
    pub(crate) time: Duration,
    pub(crate) rounds: usize,
}

/// The DID of a peer with this secret.
pub(crate) fn did(secret: [u8; 32]) -> Did {
    Did::from_ed25519(&SigningKey::from_bytes(&secret).verifying_key().to_bytes())
}

fn swarm(secret: [u8; 32]) -> Result<Swarm<Speaking>> {
    let builder = SwarmBuilder::with_existing_identity(Keypair::ed25519_from_bytes(secret)?).with_tokio();
    let builder = builder.with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, yamux::Config::default)?;
    let builder = builder.with_behaviour(Speaking::new)?;
    Ok(builder.with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(3600))).build())
}

/// Drives a swarm; says when it is connected.
fn drive(mut swarm: Swarm<Speaking>) -> oneshot::Receiver<()> {
    let (connected, is_connected) = oneshot::channel();
    tokio::spawn(async move {
        let mut connected = Some(connected);
        loop {
            if let SwarmEvent::ConnectionEstablished { .. } = swarm.select_next_some().await
                && let Some(connected) = connected.take()
            {
                // Who asked may have gone.
                let _told = connected.send(());
            }
        }
    });
    is_connected
}

impl Peer {
    /// Connects to the node at this multiaddress, which ends in the node's own `/p2p/…`.
    pub(crate) async fn connect(secret: [u8; 32], node: &str) -> Result<Self> {
        let address: Multiaddr = node.parse()?;
        let Some(Protocol::P2p(node)) = address.iter().last() else { return Err("it names no peer".into()) };
        let mut swarm = swarm(secret)?;
        swarm.dial(address)?;
        let control = swarm.behaviour().streams.new_control();
        drive(swarm).await?;
        Ok(Self { control, node })
    }

    /// Asks as hosts do.
    pub(crate) async fn ask(&self, request: &Request, cost: &mut Cost) -> Result<Response> {
        let began = Instant::now();
        let mut stream = self.control.clone().open_stream(self.node, SYNC).await?;
        let message = request.encode();
        stream.write_all(&u32::try_from(message.len())?.to_be_bytes()).await?;
        stream.write_all(&message).await?;
        stream.flush().await?;
        let mut length = [0; 4];
        stream.read_exact(&mut length).await?;
        let mut answer = vec![0; u32::from_be_bytes(length) as usize];
        stream.read_exact(&mut answer).await?;
        cost.time += began.elapsed();
        cost.bytes += 8 + message.len() + answer.len();
        cost.rounds += 1;
        if answer.is_empty() {
            return Err("the node did not answer".into());
        }
        Ok(Response::decode(&answer)?)
    }

    /// Compares spaces to the end; how many of ours the node has not.
    pub(crate) async fn compare(&self, items: &compare::Items, cost: &mut Cost) -> Result<usize> {
        let (mut comparison, mut message) = compare::Comparison::begin(items);
        loop {
            let answer = self.ask(&Request::Compare(message), cost).await?;
            let Response::Compare(answer) = answer else { return Err(format!("it answers {answer:?}").into()) };
            match comparison.step(&answer)? {
                compare::Step::Send(next) => message = next,
                compare::Step::Done(ours) => return Ok(ours.len()),
            }
        }
    }
}

/// How long a bare stream over loopback takes for so many bytes.
pub(crate) async fn bare_stream(size_bytes: usize) -> Result<Duration> {
    let mut listening = swarm([1; 32])?;
    let dialling = swarm([2; 32])?;
    let to = *listening.local_peer_id();
    listening.listen_on("/ip4/127.0.0.1/tcp/0".parse()?)?;
    let address = loop {
        if let SwarmEvent::NewListenAddr { address, .. } = listening.select_next_some().await {
            break address;
        }
    };
    let mut accepting = listening.behaviour().streams.new_control().accept(BARE)?;
    drop(drive(listening));
    let mut control = dialling.behaviour().streams.new_control();
    let mut dialling = dialling;
    dialling.dial(address.with(Protocol::P2p(to)))?;
    drive(dialling).await?;
    let reading = tokio::spawn(async move {
        let Some((_, mut stream)) = accepting.next().await else { return 0 };
        let (mut piece, mut read) = (vec![0; PIECE_BYTES], 0);
        while let Ok(length @ 1..) = stream.read(&mut piece).await {
            read += length;
        }
        read
    });
    let mut stream = control.open_stream(to, BARE).await?;
    let piece = vec![7; PIECE_BYTES];
    let began = Instant::now();
    for _ in 0..size_bytes / PIECE_BYTES {
        stream.write_all(&piece).await?;
    }
    stream.close().await?;
    let read = reading.await?;
    if read != size_bytes / PIECE_BYTES * PIECE_BYTES {
        return Err(format!("{read} of {size_bytes} bytes came").into());
    }
    Ok(began.elapsed())
}
