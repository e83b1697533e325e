//! The network: one swarm that connects this node with its peers and moves bytes between them.
//!
//! Nothing here knows what the bytes mean or who may have them; a peer of any key is let in. A task of its own drives the
//! swarm and only moves values through bounded channels: where one is full, it refuses and counts, and never waits.
//! Requests and streams go to connected peers only; connecting is the [dialler's](dial).
#![allow(clippy::wildcard_enum_match_arm, reason = "the library's enums have many variants and get more")]

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use bytes::Bytes;
use kvspace_protocol::{
    id::{HostKey, Millis},
    limits::MESSAGE_BYTES_MAX,
};
use libp2p::identity::Keypair;
use tokio::{
    sync::{TryAcquireError, mpsc, oneshot, watch},
    time::timeout,
};

mod asked;
mod behaviour;
mod codec;
mod dial;
mod door;
mod error;
mod identity;
mod listen;
mod outbox;
mod state;
mod stream;
mod task;
#[cfg(test)]
mod tests;

pub(crate) use asked::Asked;
use behaviour::{BLOB, Mdns};
use dial::Dialler;
pub(crate) use error::{AskError, NetError};
use identity::{host_key, peer_id};
use state::{Session, Shared, State};
pub(crate) use stream::Stream;
use task::{Ask, Task};

/// Requests that wait for the swarm's task.
const COMMANDS_MAX: usize = 64;
/// Requests and streams of peers that wait for the node.
const INCOMING_MAX: usize = 256;
/// Events that wait for the node; more of them stay in the task.
const EVENTS_MAX: usize = 64;
/// How long binding the addresses may take.
const LISTEN_DEADLINE: Duration = Duration::from_secs(10);

/// How a node takes part.
#[derive(Clone)]
pub(crate) struct NetOptions {
    /// The secret of the node's Ed25519 key.
    pub(crate) key: [u8; 32],
    /// Addresses to listen on, such as `/ip4/0.0.0.0/tcp/4001`.
    pub(crate) listen: Vec<String>,
    /// Peers to be connected to, such as `/ip4/192.0.2.1/tcp/4001`, with or without `/p2p/<id>` at the end.
    pub(crate) peers: Vec<String>,
    /// Whether to look for nodes in the local network.
    pub(crate) mdns: bool,
}

/// What a request is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Protocol {
    /// Asking for what a peer has.
    Sync,
    /// Bringing what a peer lacks.
    Push,
}

/// Whether a peer is cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Blocked {
    /// It is: no connection in either direction.
    Yes,
    /// It is not.
    No,
}

/// A peer came or went. Told once a peer, whatever the number of connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// The first connection to it is there.
    Connected(HostKey),
    /// The last one is gone, and with it the requests on their way.
    Disconnected(HostKey),
}

/// What comes from peers. All three are to be read.
#[derive(Debug)]
pub(crate) struct Incoming {
    /// Who came and went.
    pub(crate) events: mpsc::Receiver<Event>,
    /// What peers ask.
    pub(crate) requests: mpsc::Receiver<Asked>,
    /// Streams that peers opened.
    pub(crate) streams: mpsc::Receiver<(HostKey, Stream)>,
}

/// A peer as the operator sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PeerInfo {
    /// The peer.
    pub(crate) peer: HostKey,
    /// Since when it is connected.
    pub(crate) connected: Option<Millis>,
    /// Where it is, as far as known.
    pub(crate) addresses: Vec<String>,
    /// Whether the operator cut it off.
    pub(crate) is_blocked: bool,
    /// Whether the configuration names it.
    pub(crate) is_configured: bool,
    /// When it is dialled next.
    pub(crate) next_dial: Option<Millis>,
    /// What went wrong last.
    pub(crate) last_error: Option<String>,
}

/// What was dropped because the node did not keep up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Dropped {
    /// Requests of peers, which were refused.
    pub(crate) requests: u64,
    /// Answers that came too late, or when peers had too many to read.
    pub(crate) answers: u64,
    /// Streams of peers.
    pub(crate) streams: u64,
}

/// The network, as its users hold it. It ends with [`Self::stop`], or when the last of its clones is dropped.
#[derive(Clone)]
pub(crate) struct Network {
    key: HostKey,
    shared: Arc<Shared>,
    asks: mpsc::Sender<Ask>,
    control: libp2p_stream::Control,
    stop: Arc<watch::Sender<bool>>,
    /// Never changes; it closes when the task has ended.
    ended: watch::Receiver<()>,
}

impl Network {
    /// Starts the network and returns when all addresses are bound. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`NetError`] names the address or what else is to be changed.
    pub(crate) async fn start(options: NetOptions) -> Result<(Self, Incoming), NetError> {
        let keypair = Keypair::ed25519_from_bytes(options.key).expect("any 32 bytes are a secret key");
        let key = host_key(&keypair.public().to_peer_id()).expect("the id of an Ed25519 key has the key in it");
        let mut configured = listen::read(&options.peers)?;
        configured.retain(|(_, peer)| *peer != Some(key));
        let shared = Arc::new(Shared::new(Dialler::new(configured, rand::random())));
        let mut swarm = behaviour::swarm(keypair, if options.mdns { Mdns::On } else { Mdns::Off }, &shared)?;

        let mut control = swarm.behaviour().streams.new_control();
        let accepting = control.accept(BLOB).expect("this is the only one who accepts these streams");
        let listeners = listen::begin(&mut swarm, &options.listen)?;

        let (asks, to_ask) = mpsc::channel(COMMANDS_MAX);
        let (events, to_events) = mpsc::channel(EVENTS_MAX);
        let (requests, to_requests) = mpsc::channel(INCOMING_MAX);
        let (streams, to_streams) = mpsc::channel(INCOMING_MAX);
        let (stop, stopped) = watch::channel(false);
        let (end, ended) = watch::channel(());

        let mut task = Task::new(swarm, Arc::clone(&shared), task::Queues { asks: to_ask, events, requests });
        match timeout(LISTEN_DEADLINE, task.bind(listeners.clone())).await {
            Ok(bound) => bound?,
            Err(_) => return Err(listen::late(&listeners)),
        }
        let accepting = tokio::spawn(stream::accept(Arc::clone(&shared), accepting, streams));
        tokio::spawn(async move {
            task.run(stopped).await;
            accepting.abort();
            drop(end);
        });
        let network = Self { key, shared, asks, control, stop: Arc::new(stop), ended };
        Ok((network, Incoming { events: to_events, requests: to_requests, streams: to_streams }))
    }

    /// Asks a connected peer, and gives its answer.
    ///
    /// # Errors
    /// [`AskError::NotConnected`] at once if it is not connected; the others say why there is no answer.
    pub(crate) async fn ask(
        &self,
        peer: &HostKey,
        protocol: Protocol,
        request: Bytes,
        deadline: Duration,
    ) -> Result<Bytes, AskError> {
        if request.len() > MESSAGE_BYTES_MAX {
            return Err(AskError::TooLarge);
        }
        let session = self.shared.lock().session(peer)?.clone();
        match timeout(deadline, self.ask_in(&session, peer, protocol, request)).await {
            Ok(answer) => answer,
            Err(_) => Err(AskError::TimedOut),
        }
    }

    async fn ask_in(
        &self,
        session: &Session,
        peer: &HostKey,
        protocol: Protocol,
        request: Bytes,
    ) -> Result<Bytes, AskError> {
        let _waiting = session.waiting.try_acquire().map_err(|error| match error {
            TryAcquireError::NoPermits => AskError::Busy,
            TryAcquireError::Closed => self.gone(),
        })?;
        let turn = session.asks(protocol).acquire_owned().await.map_err(|_| self.gone())?;
        let (reply, answer) = oneshot::channel();
        let ask = Ask { peer: peer_id(peer), protocol, request, turn, reply };
        self.asks.send(ask).await.map_err(|_| AskError::Closed)?;
        answer.await.map_err(|_| AskError::Closed)?
    }

    /// Opens a stream to a connected peer, within ten seconds.
    ///
    /// # Errors
    /// [`AskError::NotConnected`] at once if it is not connected; the others say why there is no stream.
    pub(crate) async fn open_stream(&self, peer: &HostKey) -> Result<Stream, AskError> {
        stream::open(&self.shared, self.control.clone(), peer).await
    }

    /// Who is connected.
    pub(crate) fn connected(&self) -> Vec<HostKey> {
        self.shared.lock().sessions.keys().copied().collect()
    }

    /// Whether this peer is connected.
    pub(crate) fn is_connected(&self, peer: &HostKey) -> bool {
        self.shared.lock().sessions.contains_key(peer)
    }

    /// Whether the configuration names this peer.
    pub(crate) fn is_configured(&self, peer: &HostKey) -> bool {
        self.peers().iter().any(|info| info.peer == *peer && info.is_configured)
    }

    /// Closes the connection to a peer and dials it again at once.
    pub(crate) fn renew(&self, peer: HostKey) {
        self.order(|state| {
            state.dialler.redial(crate::clock::now(), peer);
            state.renewed.insert(peer);
        });
    }

    /// Cuts a peer off until it is taken back. Then it is dialled at once, if an address is known.
    pub(crate) fn block(&self, peer: HostKey, is_blocked: Blocked) {
        self.order(|state| {
            state.dialler.set_blocked(crate::clock::now(), peer, is_blocked);
            state.blocked.insert(peer, is_blocked);
        });
    }

    /// The hosts of the spaces here: they are dialled too as soon as an address is known.
    pub(crate) fn wanted(&self, mut peers: BTreeSet<HostKey>) {
        peers.remove(&self.key);
        self.order(|state| state.dialler.set_wanted(peers));
    }

    /// The addresses it listens on, with this node's id at the end.
    pub(crate) fn addresses(&self) -> Vec<String> {
        let id = peer_id(&self.key);
        self.shared.lock().listening.iter().map(|address| format!("{address}/p2p/{id}")).collect()
    }

    /// All peers that are known.
    pub(crate) fn peers(&self) -> Vec<PeerInfo> {
        self.shared.lock().dialler.infos()
    }

    /// What was dropped so far.
    pub(crate) fn dropped(&self) -> Dropped {
        self.shared.dropped.read()
    }

    /// Ends the network and returns when it has ended. Requests on their way fail.
    pub(crate) async fn stop(&self) {
        self.stop.send_replace(true);
        let mut ended = self.ended.clone();
        while ended.changed().await.is_ok() {}
    }

    fn order(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.shared.lock());
        self.shared.orders.notify_one();
    }

    fn gone(&self) -> AskError {
        if self.shared.lock().is_stopped { AskError::Closed } else { AskError::NotConnected }
    }
}

impl State {
    /// The session of a peer that may be asked.
    fn session(&self, peer: &HostKey) -> Result<&Session, AskError> {
        if self.is_stopped {
            return Err(AskError::Closed);
        }
        self.sessions.get(peer).filter(|_| !self.dialler.is_blocked(peer)).ok_or(AskError::NotConnected)
    }
}
