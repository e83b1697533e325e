//! The task that drives the swarm: it moves values between the swarm and the channels, and decides nothing else.

use std::{collections::BTreeMap, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::StreamExt as _;
use kvspace_protocol::id::{HostKey, Millis};
use libp2p::{
    Multiaddr, PeerId, Swarm,
    core::{ConnectedPoint, transport::ListenerId},
    identify, mdns, ping,
    request_response::{self, OutboundFailure, OutboundRequestId},
    swarm::{
        ConnectionId, DialError, StreamUpgradeError, SwarmEvent,
        dial_opts::{DialOpts, PeerCondition},
    },
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch},
    time::{Sleep, sleep},
};

use super::{
    AskError, Asked, Blocked, Event, NetError, Protocol,
    asked::{Answer, Back},
    behaviour::{Behaviour, BehaviourEvent, VERSION},
    codec::{Codec, Message},
    dial::{Dial, Failure, Found, Target},
    identity::{host_key, own_place, peer_id, split, told_places},
    outbox::Outbox,
    state::{Session, Shared, count},
};

mod events;

/// Requests of peers that wait for an answer.
const UNANSWERED_MAX: usize = 1024;
/// Bytes of answers that peers have not taken yet. Beyond it, a request is refused: who asks much must read it too.
const SENDING_BYTES_MAX: usize = 128 * 1024 * 1024;
/// The longest sleep between looks at the dialler, in case the clock is set.
const SLEEP_MAX: Duration = Duration::from_secs(60);

/// A request on its way to the swarm.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) peer: PeerId,
    pub(super) protocol: Protocol,
    pub(super) request: Bytes,
    /// Held until the exchange is over, which may be later than who asks has waited.
    pub(super) turn: OwnedSemaphorePermit,
    pub(super) reply: oneshot::Sender<Result<Bytes, AskError>>,
}

/// The ends of the channels that the task holds.
pub(super) struct Queues {
    pub(super) asks: mpsc::Receiver<Ask>,
    pub(super) events: mpsc::Sender<Event>,
    pub(super) requests: mpsc::Sender<Asked>,
}

/// The swarm with all that belongs to it.
pub(super) struct Task {
    swarm: Swarm<Behaviour>,
    shared: Arc<Shared>,
    queues: Queues,
    answers: (mpsc::Sender<Answer>, mpsc::Receiver<Answer>),
    /// Room for answers that are being sent.
    to_send: Arc<Semaphore>,
    outbox: Outbox,
    asks: BTreeMap<(Protocol, OutboundRequestId), Waiting>,
    dials: BTreeMap<ConnectionId, Target>,
    /// The connections of each peer, with the other end's address.
    links: BTreeMap<HostKey, BTreeMap<ConnectionId, Multiaddr>>,
    timer: Pin<Box<Sleep>>,
}

/// Who waits for an answer.
struct Waiting {
    reply: oneshot::Sender<Result<Bytes, AskError>>,
    _turn: OwnedSemaphorePermit,
}

impl Task {
    pub(super) fn new(swarm: Swarm<Behaviour>, shared: Arc<Shared>, queues: Queues) -> Self {
        Self {
            swarm,
            shared,
            queues,
            answers: mpsc::channel(UNANSWERED_MAX),
            to_send: Arc::new(Semaphore::new(SENDING_BYTES_MAX)),
            outbox: Outbox::default(),
            asks: BTreeMap::new(),
            dials: BTreeMap::new(),
            links: BTreeMap::new(),
            timer: Box::pin(sleep(Duration::ZERO)),
        }
    }

    /// Waits until each of these listeners has an address.
    pub(super) async fn bind(&mut self, mut listeners: Vec<(ListenerId, String)>) -> Result<(), NetError> {
        while !listeners.is_empty() {
            let event = self.swarm.select_next_some().await;
            if let SwarmEvent::NewListenAddr { listener_id, .. } = &event {
                listeners.retain(|(id, _)| id != listener_id);
            }
            if let SwarmEvent::ListenerClosed { listener_id, reason: Err(error), .. } = &event
                && let Some((_, address)) = listeners.iter().find(|(id, _)| id == listener_id)
            {
                return Err(NetError::Listen { address: address.clone(), reason: error.to_string() });
            }
            self.on_event(event);
        }
        Ok(())
    }

    /// Runs until it is told to stop, or nobody is left to tell it.
    pub(super) async fn run(mut self, mut stop: watch::Receiver<bool>) {
        loop {
            tokio::select! {
                event = self.swarm.select_next_some() => self.on_event(event),
                ask = self.queues.asks.recv() => match ask {
                    Some(ask) => self.on_ask(ask),
                    None => break,
                },
                Some(answer) = self.answers.1.recv() => self.on_answer(answer),
                () = self.shared.orders.notified() => self.on_orders(),
                () = self.timer.as_mut() => self.dial(),
                () = self.outbox.tell(&self.queues.events) => {}
                _ = stop.wait_for(|is_stopped| *is_stopped) => break,
            }
        }
        let sessions = {
            let mut state = self.shared.lock();
            state.is_stopped = true;
            std::mem::take(&mut state.sessions)
        };
        sessions.values().for_each(Session::close);
    }

    fn on_ask(&mut self, ask: Ask) {
        let Ask { peer, protocol, request, turn, reply } = ask;
        let exchange = self.exchange(protocol);
        if !exchange.is_connected(&peer) {
            reply.send(Err(AskError::NotConnected)).ok();
            return;
        }
        let id = exchange.send_request(&peer, Message::ours(request));
        self.asks.insert((protocol, id), Waiting { reply, _turn: turn });
    }

    fn on_answer(&mut self, answer: Answer) {
        let Answer { protocol, channel, bytes } = answer;
        let message = match self.to_send.clone().try_acquire_many_owned(u32::try_from(bytes.len()).unwrap_or(u32::MAX))
        {
            Ok(room) => Message::holding(bytes, vec![room]),
            Err(_) => Message::ours(Bytes::new()),
        };
        let is_refused = message.room.is_none();
        let is_late = self.exchange(protocol).send_response(channel, message).is_err();
        if is_refused || is_late {
            count(&self.shared.dropped.answers);
        }
    }

    fn on_orders(&mut self) {
        let (renewed, blocked) = {
            let mut state = self.shared.lock();
            (std::mem::take(&mut state.renewed), std::mem::take(&mut state.blocked))
        };
        for peer in renewed {
            self.close(peer_id(&peer));
        }
        for (peer, is_blocked) in blocked {
            let peer = peer_id(&peer);
            match is_blocked {
                Blocked::Yes => self.swarm.behaviour_mut().blocked.block_peer(peer),
                Blocked::No => self.swarm.behaviour_mut().blocked.unblock_peer(peer),
            };
        }
        self.dial();
    }

    fn exchange(&mut self, protocol: Protocol) -> &mut request_response::Behaviour<Codec> {
        match protocol {
            Protocol::Sync => &mut self.swarm.behaviour_mut().sync,
            Protocol::Push => &mut self.swarm.behaviour_mut().push,
        }
    }

    /// Closes all connections to a peer. There may be none.
    fn close(&mut self, peer: PeerId) {
        self.swarm.disconnect_peer_id(peer).ok();
    }

    /// Makes the dials that are due, and sets the timer for the next.
    fn dial(&mut self) {
        let now = crate::clock::now();
        let dials = self.shared.lock().dialler.poll(now);
        for dial in dials {
            self.dial_one(now, dial);
        }
        let next = self.shared.lock().dialler.poll_timeout();
        let delay = next.map_or(SLEEP_MAX, |next| delay(now, next).min(SLEEP_MAX));
        self.timer = Box::pin(sleep(delay));
    }

    fn dial_one(&mut self, now: Millis, dial: Dial) {
        let options = match (dial.target, dial.addresses.first()) {
            // A port of its own for each dial: two nodes that dial each other from the ports they listen on would
            // meet in one connection with two dialling ends, and a port that was just used cannot be used again.
            (Target::Peer(peer), _) => DialOpts::peer_id(peer_id(&peer))
                .condition(PeerCondition::DisconnectedAndNotDialing)
                .addresses(dial.addresses)
                .allocate_new_port()
                .build(),
            (Target::Seed(_), Some(address)) => {
                DialOpts::unknown_peer_id().address(address.clone()).allocate_new_port().build()
            }
            (Target::Seed(_), None) => return,
        };
        let id = options.connection_id();
        self.dials.insert(id, dial.target);
        if let Err(error) = self.swarm.dial(options) {
            self.on_dial_failed(now, id, error);
        }
    }

    fn on_dial_failed(&mut self, now: Millis, id: ConnectionId, error: DialError) {
        let Some(target) = self.dials.remove(&id) else { return };
        match target {
            Target::Seed(_) => tracing::warn!(%error, "a configured address does not answer"),
            Target::Peer(peer) => tracing::debug!(?peer, %error, "a dial failed"),
        }
        let mut failure = Failure { error: error.to_string(), ..Failure::default() };
        match error {
            DialError::Transport(failed) => {
                failure.addresses = failed.into_iter().map(|(address, _)| split(address).0).collect();
            }
            DialError::WrongPeerId { address, .. } => {
                let (address, _) = split(address);
                failure.addresses.push(address.clone());
                failure.stranger_at = Some(address);
            }
            _ => {}
        }
        self.shared.lock().dialler.handle_failed(now, target, failure);
        self.dial_soon();
    }

    fn dial_soon(&mut self) {
        self.timer = Box::pin(sleep(Duration::ZERO));
    }
}

fn delay(now: Millis, next: Millis) -> Duration {
    Duration::from_millis(u64::try_from(next.0.saturating_sub(now.0)).unwrap_or_default())
}
