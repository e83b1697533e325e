//! What the swarm's task and its callers share: the dialler, who is connected, what was ordered.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use kvspace_protocol::id::HostKey;
use libp2p::Multiaddr;
use tokio::sync::{Notify, Semaphore};

use super::{Blocked, Dropped, Protocol, behaviour::EXCHANGES_MAX, dial::Dialler};

/// Requests of one protocol on their way to one peer. Both sides together leave a quarter of the exchanges of a connection
/// free, for one that is over here may not be over there.
pub(super) const ASKS_MAX: usize = EXCHANGES_MAX * 3 / 8;
/// Requests to one peer that are on their way or wait for their turn.
pub(super) const ASKS_WAITING_MAX: usize = 256;
/// Streams opened to one peer; as many are taken from it.
pub(super) const STREAMS_PER_PEER_MAX: usize = 16;

/// The shared part.
#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
    /// Says that there are orders.
    pub(super) orders: Notify,
    pub(super) dropped: Counters,
}

/// What is behind the lock. It is held for moments only.
#[derive(Debug)]
pub(super) struct State {
    pub(super) dialler: Dialler,
    pub(super) sessions: BTreeMap<HostKey, Session>,
    pub(super) listening: BTreeSet<Multiaddr>,
    /// Connections to close, so that new ones are made.
    pub(super) renewed: BTreeSet<HostKey>,
    /// Peers that were blocked or unblocked.
    pub(super) blocked: BTreeMap<HostKey, Blocked>,
    pub(super) is_stopped: bool,
}

/// The bounds of one connected peer. Closed when the last connection is gone.
#[derive(Debug, Clone)]
pub(super) struct Session {
    sync: Arc<Semaphore>,
    push: Arc<Semaphore>,
    pub(super) waiting: Arc<Semaphore>,
    pub(super) streams: Arc<Semaphore>,
}

impl Session {
    pub(super) fn new() -> Self {
        let bound = |max| Arc::new(Semaphore::new(max));
        Self {
            sync: bound(ASKS_MAX),
            push: bound(ASKS_MAX),
            waiting: bound(ASKS_WAITING_MAX),
            streams: bound(STREAMS_PER_PEER_MAX),
        }
    }

    /// The turns of requests of this protocol.
    pub(super) fn asks(&self, protocol: Protocol) -> Arc<Semaphore> {
        Arc::clone(match protocol {
            Protocol::Sync => &self.sync,
            Protocol::Push => &self.push,
        })
    }

    /// Ends it: who waits for a turn learns that there is none.
    pub(super) fn close(&self) {
        for bound in [&self.sync, &self.push, &self.waiting, &self.streams] {
            bound.close();
        }
    }
}

impl Shared {
    pub(super) fn new(dialler: Dialler) -> Self {
        let state = State {
            dialler,
            sessions: BTreeMap::new(),
            listening: BTreeSet::new(),
            renewed: BTreeSet::new(),
            blocked: BTreeMap::new(),
            is_stopped: false,
        };
        Self { state: Mutex::new(state), orders: Notify::new(), dropped: Counters::default() }
    }

    /// The state. A panic of who held it leaves nothing half done that matters.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What was dropped because a queue was full.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) requests: AtomicU64,
    pub(super) answers: AtomicU64,
    pub(super) streams: AtomicU64,
}

impl Counters {
    pub(super) fn read(&self) -> Dropped {
        Dropped {
            requests: self.requests.load(Ordering::Relaxed),
            answers: self.answers.load(Ordering::Relaxed),
            streams: self.streams.load(Ordering::Relaxed),
        }
    }
}

/// Counts one more.
pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
