//! What the swarm does on each connection, and how it is built.

use std::{sync::Arc, time::Duration};

use libp2p::{
    StreamProtocol, Swarm, SwarmBuilder,
    allow_block_list::{self, BlockedPeers},
    connection_limits::{self, ConnectionLimits},
    identify,
    identity::Keypair,
    mdns, noise, ping,
    request_response::{self, ProtocolSupport},
    swarm::{NetworkBehaviour, behaviour::toggle::Toggle},
    tcp, yamux,
};

use super::{
    NetError,
    codec::Codec,
    door::{Door, Entering},
    state::Shared,
};

/// The version that every node of this kind tells.
pub(super) const VERSION: &str = "/kvspace/1";
const AGENT: &str = concat!("kvspace/", env!("CARGO_PKG_VERSION"));
const SYNC: StreamProtocol = StreamProtocol::new("/kvspace/sync/1");
const PUSH: StreamProtocol = StreamProtocol::new("/kvspace/push/1");
/// The protocol of streams with the bytes of values.
pub(super) const BLOB: StreamProtocol = StreamProtocol::new("/kvspace/blob/1");

/// Connections that are being let in.
const PENDING_INCOMING_MAX: u32 = 64;
/// Connections that others made: the rest is for those that we make.
const INCOMING_MAX: u32 = 192;
/// Those of peers that are neither configured nor hosts of the spaces here: half, the other half is kept for who is.
const STRANGERS_MAX: usize = 96;
/// Connections to one peer: both sides may have dialled at once.
const PER_PEER_MAX: u32 = 2;
/// Connections in all.
const CONNECTIONS_MAX: u32 = 256;
/// Streams of one connection over TCP: two protocols with [`EXCHANGES_MAX`], values, and the swarm's own.
const STREAMS_MAX: usize = 128;
/// Requests in both directions, of one protocol on one connection.
pub(super) const EXCHANGES_MAX: usize = 32;
/// The longest exchange. Who asks has a deadline of its own.
const EXCHANGE_DEADLINE: Duration = Duration::from_secs(60);
/// A connection without streams is closed then. A wanted one is dialled again.
const IDLE: Duration = Duration::from_secs(600);

/// Everything the swarm does.
///
/// The limits, the block list and the door come first, for they alone deny a connection, and others keep what they were told of one
/// that is denied later. The search for strangers who host a space (Kademlia, behind a mode of its own), the ways
/// through NAT (relay, hole punching, reachability) and gossip of public spaces have their place at the end.
#[derive(NetworkBehaviour)]
#[behaviour(prelude = "libp2p::swarm::derive_prelude")]
pub(super) struct Behaviour {
    limits: connection_limits::Behaviour,
    pub(super) blocked: allow_block_list::Behaviour<BlockedPeers>,
    /// Before the protocols, which take the accounts of peers from it.
    door: Door,
    identify: identify::Behaviour,
    ping: ping::Behaviour,
    pub(super) mdns: Toggle<mdns::tokio::Behaviour>,
    pub(super) sync: request_response::Behaviour<Codec>,
    pub(super) push: request_response::Behaviour<Codec>,
    pub(super) streams: libp2p_stream::Behaviour,
}

/// The swarm of a node with this key. It does not listen yet.
pub(super) fn swarm(keypair: Keypair, has_mdns: Mdns, shared: &Arc<Shared>) -> Result<Swarm<Behaviour>, NetError> {
    let behaviour = behaviour(&keypair, has_mdns, shared)?;
    let transport = |error: &dyn std::fmt::Display| NetError::Transport(error.to_string());
    let tcp = tcp::Config::default().nodelay(true);
    let multiplexing = || {
        let mut config = yamux::Config::default();
        config.set_max_num_streams(STREAMS_MAX);
        config
    };
    let builder = SwarmBuilder::with_existing_identity(keypair)
        .with_tokio()
        .with_tcp(tcp, noise::Config::new, multiplexing)
        .map_err(|error| transport(&error))?
        .with_quic()
        .with_dns()
        .map_err(|error| NetError::Names(error.to_string()))?;
    let Ok(builder) = builder.with_behaviour(|_| behaviour);
    let swarm = builder.with_swarm_config(|config| config.with_idle_connection_timeout(IDLE).with_smart_dial()).build();
    Ok(swarm)
}

/// Whether nodes of the local network are looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mdns {
    On,
    Off,
}

fn behaviour(keypair: &Keypair, has_mdns: Mdns, shared: &Arc<Shared>) -> Result<Behaviour, NetError> {
    let id = keypair.public().to_peer_id();
    let limits = ConnectionLimits::default()
        .with_max_pending_incoming(Some(PENDING_INCOMING_MAX))
        .with_max_established_incoming(Some(INCOMING_MAX))
        .with_max_established_per_peer(Some(PER_PEER_MAX))
        .with_max_established(Some(CONNECTIONS_MAX));
    let mdns = match has_mdns {
        Mdns::On => Some(mdns::tokio::Behaviour::new(mdns::Config::default(), id).map_err(NetError::Mdns)?),
        Mdns::Off => None,
    };
    // Addresses are kept by our own dialler: what identify remembered, nobody could make it forget.
    let identify = identify::Config::new(VERSION.to_owned(), keypair.public())
        .with_agent_version(AGENT.to_owned())
        .with_cache_size(0);
    // The two protocols share a budget of bytes.
    let entering = Entering::default();
    let codec = Codec::new(Arc::clone(&entering));
    let exchange = request_response::Config::default()
        .with_request_timeout(EXCHANGE_DEADLINE)
        .with_max_concurrent_streams(EXCHANGES_MAX);
    let asking = |protocol| {
        request_response::Behaviour::with_codec(codec.clone(), [(protocol, ProtocolSupport::Full)], exchange.clone())
    };
    Ok(Behaviour {
        limits: connection_limits::Behaviour::new(limits),
        blocked: allow_block_list::Behaviour::default(),
        door: Door::new(Arc::clone(shared), entering, STRANGERS_MAX),
        identify: identify::Behaviour::new(identify),
        ping: ping::Behaviour::default(),
        mdns: mdns.into(),
        sync: asking(SYNC),
        push: asking(PUSH),
        streams: libp2p_stream::Behaviour::new(),
    })
}
