//! Fetching values from peers: those above 256 KiB, and smaller ones that did not come with their epoch.
//!
//! What is wanted is a set in memory; the durable list is the index, from which wants are offered again after a restart.
//! [`plan`] says which stripe to ask of whom, [`transfer`] does it, a [`Partial`](crate::blobs::Partial) file collects what was
//! verified, and in the end the file gets its name. [`serve`] is the other side.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures::future::BoxFuture;
use kvspace_protocol::{
    id::{BlobHash, EpochId, HostKey, Millis, SpaceId},
    limits::BLOB_BYTES_MAX,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{Notify, broadcast},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use crate::{
    blobs::{Blobs, Groups},
    clock,
};

mod outboards;
mod plan;
mod run;
mod serve;
#[cfg(test)]
mod tests;
mod transfer;
mod tree;

pub(crate) use plan::Settings;
pub(crate) use serve::{Server, Source, Values};

use plan::{BlobKey, Plan};

/// How long a peer may let a read or a write on a stream wait.
pub(crate) const IDLE: Duration = Duration::from_secs(15);
/// How long a request for a stripe, a mebibyte, may take: 280 kbit/s.
const STRIPE: Duration = Duration::from_secs(30);
/// Values told to those that wait, while these are slow: then they look again themselves.
const TOLD_MAX: usize = 256;
/// Partial files of a former process that are remembered.
const KEPT_MAX: usize = 10_000;

/// A stream to or from a peer.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + ?Sized> Stream for T {}

/// There is no stream to this peer.
#[derive(Debug, thiserror::Error)]
#[error("cannot open a stream: {0}")]
pub(crate) struct OpenError(pub(crate) String);

/// Where a value stands.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Occurrence {
    /// The space.
    pub(crate) space: SpaceId,
    /// An epoch that puts it there.
    pub(crate) epoch: EpochId,
}

/// The peers that values are fetched from.
pub(crate) trait Peers: Send + Sync + 'static {
    /// The connected hosts of a space. It is asked often and under a lock: it must be quick, and not call the fetcher.
    fn hosts(&self, space: &SpaceId) -> Vec<HostKey>;

    /// Whether this peer is a host of the space.
    fn is_host(&self, space: &SpaceId, peer: &HostKey) -> bool {
        self.hosts(space).contains(peer)
    }

    /// Opens a stream for `/kvspace/blob/1`.
    fn open(&self, peer: HostKey) -> BoxFuture<'_, Result<Box<dyn Stream>, OpenError>>;

    /// What to show so that a host of this space answers; nothing when it knows this node as one.
    fn shown(&self, _space: &SpaceId) -> Vec<Bytes> {
        Vec::new()
    }
}

/// How soon a value is wanted; what is wanted now comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Urgency {
    /// Somebody waits for it.
    Now,
    /// It should be here.
    Soon,
}

/// How to fetch. The default is what a node uses.
#[derive(Debug, Clone)]
pub(crate) struct FetchOptions {
    /// How much at once, and how long to wait.
    pub(crate) settings: Settings,
    /// How long a peer may let a read or a write wait.
    pub(crate) idle: Duration,
    /// How long one request may take.
    pub(crate) stripe: Duration,
}

impl Default for FetchOptions {
    fn default() -> Self {
        Self { settings: Settings::default(), idle: IDLE, stripe: STRIPE }
    }
}

/// What was fetched since the start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    /// Values that are whole.
    pub(crate) fetched: u64,
    /// Their bytes.
    pub(crate) bytes: u64,
    /// Ranges that were not what the hash names.
    pub(crate) bad: u64,
    /// By whom these came; each time the peer was banned for that value.
    pub(crate) culprits: BTreeMap<HostKey, u64>,
}

/// Fetches values. Clones are the same.
#[derive(Clone)]
pub(crate) struct Fetcher {
    shared: Arc<Shared>,
}

struct Shared {
    context: Arc<transfer::Context>,
    state: Mutex<State>,
    wake: Notify,
    stopped: CancellationToken,
    arrived: broadcast::Sender<BlobHash>,
    running: Mutex<Option<JoinHandle<()>>>,
}

struct State {
    plan: Plan,
    /// What partial files that are not open hold.
    kept: BTreeMap<BlobKey, Groups>,
    /// Values whose partial files are to be removed.
    unwanted: Vec<BlobHash>,
    fetched: u64,
    bytes: u64,
}

impl Fetcher {
    /// Starts fetching, inside an async runtime. Looks at what a former process left, and so blocks for a moment.
    ///
    /// # Errors
    /// As the file system reports them.
    pub(crate) fn start(blobs: Blobs, peers: Arc<dyn Peers>, options: FetchOptions) -> io::Result<Self> {
        let FetchOptions { settings, idle, stripe } = options;
        let partials = blobs.partials()?.into_iter().take(KEPT_MAX);
        let kept = partials.map(|(hash, size, groups)| (BlobKey { hash, size }, groups)).collect();
        let plan = Plan::new(settings);
        let shared = Arc::new(Shared {
            context: Arc::new(transfer::Context { blobs, peers, idle, stripe }),
            state: Mutex::new(State { plan, kept, unwanted: Vec::new(), fetched: 0, bytes: 0 }),
            wake: Notify::new(),
            stopped: CancellationToken::new(),
            arrived: broadcast::Sender::new(TOLD_MAX),
            running: Mutex::default(),
        });
        let running = tokio::spawn(run::run(Arc::clone(&shared)));
        *shared.running.lock().unwrap_or_else(PoisonError::into_inner) = Some(running);
        Ok(Self { shared })
    }

    /// This value is wanted; an operation of this epoch refers to it, and the index says so already. Says no when too many
    /// are: then it is to be offered again.
    pub(crate) fn want(&self, at: &Occurrence, hash: BlobHash, size: u64, urgency: Urgency) -> bool {
        let shared = &self.shared;
        let key = BlobKey { hash, size };
        if size > BLOB_BYTES_MAX {
            return true; // no such value can be
        }
        shared.context.blobs.want(&hash);
        let mut state = shared.state();
        if !state.plan.contains(&key) && shared.context.blobs.exists(&hash) {
            return true;
        }
        let had = state.kept.get(&key).cloned().unwrap_or_default();
        let is_taken = state.plan.want(clock::now(), key, at, urgency, &had);
        if is_taken {
            state.kept.remove(&key);
        }
        drop(state);
        shared.wake.notify_one();
        is_taken
    }

    /// The values that are wanted.
    pub(crate) fn all_wanted(&self) -> Vec<BlobHash> {
        self.shared.state().plan.all_wanted()
    }

    /// No operation refers to this value any more.
    pub(crate) fn forget(&self, hash: &BlobHash) {
        let mut state = self.shared.state();
        state.plan.forget(hash);
        state.kept.retain(|key, _| key.hash != *hash);
        if !state.unwanted.contains(hash) {
            state.unwanted.push(*hash);
        }
        drop(state);
        self.shared.wake.notify_one();
    }

    /// Waits until the file of this value is here, at most so long. Says whether it is.
    pub(crate) async fn wait(&self, hash: &BlobHash, at_most: Duration) -> bool {
        let mut arrivals = self.shared.arrived.subscribe();
        let blobs = &self.shared.context.blobs;
        let arrived = async {
            while !blobs.exists(hash) {
                // Who is too slow to hear of each looks again.
                while arrivals.recv().await.is_ok_and(|other| other != *hash) {}
            }
        };
        tokio::time::timeout(at_most, arrived).await.is_ok() || blobs.exists(hash)
    }

    /// A peer has come: what it may have is asked for at once. One that hosts nothing that is wanted changes nothing.
    pub(crate) fn handle_peer(&self, peer: &HostKey) {
        let mut spaces = self.shared.state().plan.spaces();
        spaces.retain(|space| self.shared.context.peers.is_host(space, peer));
        if !spaces.is_empty() {
            self.shared.state().plan.handle_peer(peer, &spaces);
            self.shared.wake.notify_one();
        }
    }

    /// Who was asked for a value that is wanted, and when last.
    pub(crate) fn asked(&self, hash: &BlobHash) -> Vec<(HostKey, Millis)> {
        self.shared.state().plan.asked(hash).into_iter().collect()
    }

    /// Who said, since it has come, that it does not have this value in this space.
    pub(crate) fn missing_at(&self, hash: &BlobHash, space: &SpaceId) -> BTreeSet<HostKey> {
        self.shared.state().plan.missing_at(hash, space)
    }

    /// How many values are wanted.
    pub(crate) fn wanted(&self) -> usize {
        self.shared.state().plan.wanted()
    }

    /// What was fetched.
    pub(crate) fn counters(&self) -> Counters {
        let state = self.shared.state();
        let (bad, culprits) = (state.plan.bad(), state.plan.culprits().clone());
        Counters { fetched: state.fetched, bytes: state.bytes, bad, culprits }
    }

    /// Ends all requests, and makes what came of values durable.
    pub(crate) async fn stop(&self) {
        self.shared.stopped.cancel();
        let running = self.shared.running.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(running) = running {
            running.await.ok();
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
