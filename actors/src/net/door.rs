//! Who is let in: a part of the places is kept for expected peers, and each peer gets its account of memory.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    fmt,
    sync::{Arc, Mutex, PoisonError, Weak},
    task::{Context, Poll},
};

use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent,
        ToSwarm, dummy,
    },
};

use super::{codec::Account, identity::host_key, state::Shared};

/// The account of the peer whose connection is being made. The swarm makes one at a time.
pub(super) type Entering = Arc<Mutex<Option<Arc<Account>>>>;

/// No more strangers are let in.
#[derive(Debug)]
struct TooManyStrangers;

impl fmt::Display for TooManyStrangers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("too many unexpected peers are connected")
    }
}

impl std::error::Error for TooManyStrangers {}

/// Stands before the protocols.
pub(super) struct Door {
    shared: Arc<Shared>,
    entering: Entering,
    accounts: BTreeMap<PeerId, Weak<Account>>,
    /// How many connections each peer made.
    incoming: BTreeMap<PeerId, usize>,
    /// Connections that strangers may make.
    strangers_max: usize,
}

impl Door {
    pub(super) fn new(shared: Arc<Shared>, entering: Entering, strangers_max: usize) -> Self {
        Self { shared, entering, accounts: BTreeMap::new(), incoming: BTreeMap::new(), strangers_max }
    }

    fn is_expected(&self, peer: &PeerId) -> bool {
        host_key(peer).is_some_and(|key| self.shared.lock().dialler.is_expected(&key))
    }

    fn strangers(&self) -> usize {
        self.incoming.iter().filter(|(peer, _)| !self.is_expected(peer)).map(|(_, count)| count).sum()
    }

    /// The protocols, which come next, take the account from there.
    fn enter(&mut self, peer: PeerId) {
        self.accounts.retain(|_, account| account.strong_count() > 0);
        let account = self.accounts.get(&peer).and_then(Weak::upgrade).unwrap_or_else(|| {
            let account = Arc::new(Account::new(Arc::clone(&self.shared), host_key(&peer)));
            self.accounts.insert(peer, Arc::downgrade(&account));
            account
        });
        *self.entering.lock().unwrap_or_else(PoisonError::into_inner) = Some(account);
    }
}

impl NetworkBehaviour for Door {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        if !self.is_expected(&peer) && self.strangers() >= self.strangers_max {
            return Err(ConnectionDenied::new(TooManyStrangers));
        }
        self.enter(peer);
        Ok(dummy::ConnectionHandler)
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.enter(peer);
        Ok(dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(made) if made.endpoint.is_listener() => {
                *self.incoming.entry(made.peer_id).or_default() += 1;
            }
            FromSwarm::ConnectionClosed(closed) if closed.endpoint.is_listener() => {
                if let Some(count) = self.incoming.get_mut(&closed.peer_id) {
                    *count -= 1;
                }
                self.incoming.retain(|_, count| *count > 0);
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use kvspace_protocol::id::HostKey;
    use libp2p::{core::ConnectedPoint, swarm::behaviour::ConnectionEstablished};

    use super::*;
    use crate::net::{dial::Dialler, identity::peer_id};

    fn key(seed: u8) -> HostKey {
        HostKey(ed25519_dalek::SigningKey::from_bytes(&[seed; 32]).verifying_key().to_bytes())
    }

    fn comes(door: &mut Door, seed: u8) -> bool {
        let (peer, at) = (peer_id(&key(seed)), Multiaddr::empty());
        let connection_id = ConnectionId::new_unchecked(usize::from(seed));
        if door.handle_established_inbound_connection(connection_id, peer, &at, &at).is_err() {
            return false;
        }
        let endpoint = ConnectedPoint::Listener { local_addr: at.clone(), send_back_addr: at };
        let (failed_addresses, other_established) = (&[][..], 0);
        let made = ConnectionEstablished {
            peer_id: peer,
            connection_id,
            endpoint: &endpoint,
            failed_addresses,
            other_established,
        };
        door.on_swarm_event(FromSwarm::ConnectionEstablished(made));
        true
    }

    #[test]
    fn strangers_do_not_take_the_places_of_expected_peers() {
        let shared = Arc::new(Shared::new(Dialler::new(Vec::new(), 0)));
        let mut door = Door::new(Arc::clone(&shared), Entering::default(), 2);
        shared.lock().dialler.set_wanted(BTreeSet::from([key(9)]));
        assert_eq!([1, 2, 3, 9].map(|seed| comes(&mut door, seed)), [true, true, false, true]);
        shared.lock().dialler.set_wanted(BTreeSet::from([key(9), key(1)]));
        assert!(comes(&mut door, 3), "who is expected by now is no stranger");
    }
}
