//! What the swarm tells.

use super::*;

impl Task {
    pub(super) fn on_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::Behaviour(event) => self.on_behaviour(event),
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } => {
                self.on_connected(peer_id, connection_id, &endpoint);
            }
            SwarmEvent::ConnectionClosed { peer_id, connection_id, num_established, cause, .. } => {
                tracing::debug!(%peer_id, ?cause, num_established, "a connection is closed");
                self.on_closed(peer_id, connection_id);
            }
            SwarmEvent::OutgoingConnectionError { connection_id, error, .. } => {
                self.on_dial_failed(crate::clock::now(), connection_id, error);
            }
            SwarmEvent::IncomingConnectionError { send_back_addr, error, .. } => {
                tracing::debug!(%send_back_addr, %error, "a connection was not let in");
            }
            SwarmEvent::NewListenAddr { address, .. } => {
                tracing::info!(%address, "listening for peers");
                self.shared.lock().listening.insert(address);
            }
            SwarmEvent::ExpiredListenAddr { address, .. } => {
                self.shared.lock().listening.remove(&address);
            }
            SwarmEvent::ListenerClosed { addresses, reason, .. } => {
                tracing::error!(?addresses, ?reason, "no longer listening for peers");
                self.shared.lock().listening.retain(|address| !addresses.contains(address));
            }
            SwarmEvent::ListenerError { error, .. } => tracing::warn!(%error, "a listener has trouble"),
            _ => {}
        }
    }

    fn on_behaviour(&mut self, event: BehaviourEvent) {
        match event {
            BehaviourEvent::Sync(event) => self.on_exchange(Protocol::Sync, event),
            BehaviourEvent::Push(event) => self.on_exchange(Protocol::Push, event),
            BehaviourEvent::Identify(identify::Event::Received { peer_id, connection_id, info }) => {
                self.on_identified(peer_id, connection_id, info);
            }
            BehaviourEvent::Identify(identify::Event::Error {
                peer_id,
                error: StreamUpgradeError::NegotiationFailed,
                ..
            }) => self.on_foreign(peer_id),
            BehaviourEvent::Ping(ping::Event { peer, connection, result: Err(error) }) => {
                // Nothing else notices that the other end is gone without a word.
                tracing::debug!(%peer, %error, "closing a connection that does not answer");
                self.swarm.close_connection(connection);
            }
            BehaviourEvent::Mdns(mdns::Event::Discovered(found)) => self.on_discovered(found),
            BehaviourEvent::Mdns(mdns::Event::Expired(gone)) => {
                self.on_undiscovered(&gone);
            }
            BehaviourEvent::Identify(_) | BehaviourEvent::Ping(_) => {}
            _ => {}
        }
    }

    fn on_connected(&mut self, id: PeerId, connection: ConnectionId, endpoint: &ConnectedPoint) {
        let target = self.dials.remove(&connection);
        let Some(peer) = host_key(&id) else {
            tracing::debug!(%id, "closing a connection to a peer that has no Ed25519 key");
            if let Some(target) = target {
                let failure = Failure { error: "the peer has no Ed25519 key".to_owned(), ..Failure::default() };
                self.shared.lock().dialler.handle_failed(crate::clock::now(), target, failure);
            }
            self.close(id);
            return;
        };
        let address = split(endpoint.get_remote_address().clone()).0;
        let links = self.links.entry(peer).or_default();
        let is_first = links.is_empty();
        links.insert(connection, address.clone());
        let mut state = self.shared.lock();
        if let Some(target) = target {
            state.dialler.handle_reached(target, peer, address);
        }
        if is_first {
            tracing::info!(%id, "a peer is connected");
            state.dialler.handle_connected(crate::clock::now(), peer);
            state.sessions.insert(peer, Session::new());
            self.outbox.push(Event::Connected(peer));
        }
        drop(state);
        self.dial_soon();
    }

    fn on_closed(&mut self, id: PeerId, connection: ConnectionId) {
        let Some(peer) = host_key(&id) else { return };
        let Some(links) = self.links.get_mut(&peer) else { return };
        links.remove(&connection);
        if !links.is_empty() {
            return;
        }
        tracing::info!(%id, "a peer is no longer connected");
        self.links.remove(&peer);
        let session = {
            let mut state = self.shared.lock();
            state.dialler.handle_disconnected(crate::clock::now(), peer);
            state.sessions.remove(&peer)
        };
        session.iter().for_each(Session::close);
        self.outbox.push(Event::Disconnected(peer));
        self.dial_soon();
    }

    fn on_identified(&mut self, id: PeerId, connection: ConnectionId, info: identify::Info) {
        let Some(peer) = host_key(&id) else { return };
        if info.protocol_version != VERSION {
            tracing::debug!(%id, agent = %info.agent_version, "a peer is another kind of node");
            self.on_foreign(id);
            return;
        }
        let link = self.links.get(&peer).and_then(|links| links.get(&connection));
        let told = told_places(info.listen_addrs, id, link);
        self.shared.lock().dialler.handle_learnt(crate::clock::now(), peer, told, Found::Told);
    }

    /// A peer is no node like this one.
    fn on_foreign(&mut self, id: PeerId) {
        if let Some(peer) = host_key(&id) {
            let error = format!("it is no {VERSION} node");
            self.shared.lock().dialler.handle_foreign(peer, error);
        }
        self.close(id);
    }

    fn on_discovered(&mut self, found: Vec<(PeerId, Multiaddr)>) {
        let now = crate::clock::now();
        for (id, address) in found {
            let (Some(peer), Some(address)) = (host_key(&id), own_place(address, id)) else { continue };
            self.shared.lock().dialler.handle_learnt(now, peer, vec![address], Found::Discovered);
        }
        self.dial_soon();
    }

    fn on_undiscovered(&mut self, gone: &[(PeerId, Multiaddr)]) {
        let Some(mdns) = self.swarm.behaviour().mdns.as_ref() else { return };
        let is_there = |peer: &PeerId| mdns.discovered_nodes().any(|other| other == peer);
        for peer in gone.iter().filter(|(peer, _)| !is_there(peer)).filter_map(|(peer, _)| host_key(peer)) {
            self.shared.lock().dialler.handle_undiscovered(peer);
        }
    }

    fn on_exchange(&mut self, protocol: Protocol, event: request_response::Event<Message, Message>) {
        match event {
            request_response::Event::Message { peer, message, .. } => match message {
                request_response::Message::Request { request, channel, .. } => {
                    self.on_request(peer, protocol, request, channel);
                }
                request_response::Message::Response { request_id, response } => {
                    let answer = if response.bytes.is_empty() { Err(AskError::Refused) } else { Ok(response.bytes) };
                    self.on_asked(protocol, request_id, answer);
                }
            },
            request_response::Event::OutboundFailure { request_id, error, .. } => {
                self.on_asked(protocol, request_id, Err(ask_error(&error)));
            }
            request_response::Event::InboundFailure { peer, error, .. } => {
                tracing::debug!(%peer, %error, "a request of a peer failed");
            }
            request_response::Event::ResponseSent { .. } => {}
        }
    }

    fn on_request(
        &mut self,
        id: PeerId,
        protocol: Protocol,
        request: Message,
        channel: request_response::ResponseChannel<Message>,
    ) {
        let peer = host_key(&id).filter(|peer| !self.shared.lock().dialler.is_blocked(peer));
        let place = self.answers.0.clone().try_reserve_owned();
        let (Some(peer), Ok(place)) = (peer, place) else {
            count(&self.shared.dropped.requests);
            self.exchange(protocol).send_response(channel, Message::ours(Bytes::new())).ok();
            return;
        };
        let asked = Asked::new(peer, protocol, request, Back { place, channel });
        // One that is not taken is dropped, which refuses it.
        if self.queues.requests.try_send(asked).is_err() {
            count(&self.shared.dropped.requests);
        }
    }

    fn on_asked(&mut self, protocol: Protocol, id: OutboundRequestId, answer: Result<Bytes, AskError>) {
        if let Some(waiting) = self.asks.remove(&(protocol, id)) {
            waiting.reply.send(answer).ok();
        }
    }
}

fn ask_error(failure: &OutboundFailure) -> AskError {
    match failure {
        OutboundFailure::Timeout => AskError::TimedOut,
        OutboundFailure::UnsupportedProtocols => AskError::Refused,
        OutboundFailure::DialFailure | OutboundFailure::ConnectionClosed => AskError::NotConnected,
        OutboundFailure::Io(error) => match error.kind() {
            std::io::ErrorKind::InvalidData => AskError::TooLarge,
            std::io::ErrorKind::TimedOut => AskError::TimedOut,
            // The other end closed the stream: it has too many.
            std::io::ErrorKind::UnexpectedEof => AskError::Refused,
            _ => AskError::NotConnected,
        },
    }
}
