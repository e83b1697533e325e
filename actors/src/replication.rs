//! Replication: drives the [`Replicator`] with the network and the spaces of this node.
//!
//! Whoever has news locks the replicator, tells it, and performs what it asks for in tasks of their own; each task tells its
//! outcome the same way. So there is no task that everything waits for, and nothing is awaited under the lock.

mod answer;
mod ask;
mod counters;
mod places;
mod proofs;
mod shown;
mod take;
#[cfg(test)]
mod tests;
mod values;

use std::{
    collections::BTreeSet,
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use kvspace_protocol::{
    id::{HostKey, Millis},
    sync::{Committed, New, Output, Replicator, Settings},
};
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub(crate) use self::{ask::CATCH_UP_WAIT, counters::Counters, proofs::Proofs};
use crate::{
    clock,
    fetch::{FetchOptions, Fetcher},
    messages::{CommittedEpoch, DurableCommit},
    net::{Event, Incoming, Network},
    node::Node,
};

/// Commits that wait to be passed on; further ones are left to comparing.
const COMMITS_MAX: usize = 1024;
/// Spaces without another host of which a peer is told when it is connected.
const INTRODUCED_MAX: usize = 64;
/// How often the hosts of the spaces here are told to the network, which dials those it knows an address of.
const WANTED_INTERVAL: Duration = Duration::from_secs(30);

/// How much at once; how often is configured.
pub(crate) const SETTINGS: Settings = Settings {
    compare_interval_ms: 30_000,
    pulls_per_peer_max: 4,
    pulls_max: 16,
    push_bytes_max: 16 * 1024 * 1024,
    push_batch_bytes: 1024 * 1024,
};

/// The replication of one node. Clones are the same.
#[derive(Clone)]
pub(crate) struct Replication {
    shared: Arc<Shared>,
}

struct Shared {
    network: Network,
    replicator: Mutex<Replicator>,
    /// The replicator's timeout may have changed.
    turned: Notify,
    fetcher: Fetcher,
    proofs: Proofs,
    counters: Counters,
    /// Places for requests under answer.
    answers: places::Places,
    /// Whose shown tokens are looked at.
    showing: places::Turns,
    /// The spaces that it made.
    made: shown::Made,
    /// Places for checking signatures: one a core.
    checks: Arc<Semaphore>,
    tasks: TaskTracker,
    ending: CancellationToken,
}

/// Where the parts of a node meet replication before it runs.
pub(crate) fn commits() -> (mpsc::Sender<DurableCommit>, mpsc::Receiver<DurableCommit>) {
    mpsc::channel(COMMITS_MAX)
}

impl Replication {
    /// Begins to speak with peers.
    pub(crate) fn start(
        node: &Node,
        network: Network,
        incoming: Incoming,
        commits: mpsc::Receiver<DurableCommit>,
        settings: Settings,
    ) -> io::Result<Self> {
        let peers = Arc::new(values::HostsOfSpaces::new(node, network.clone()));
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let shared = Arc::new(Shared {
            fetcher: Fetcher::start(node.blobs().clone(), peers, FetchOptions::default())?,
            network,
            replicator: Mutex::new(Replicator::new(settings, rand::random())),
            turned: Notify::new(),
            proofs: Proofs::default(),
            counters: Counters::default(),
            answers: places::Places::default(),
            showing: places::Turns::default(),
            made: shown::Made::default(),
            checks: Arc::new(Semaphore::new(cores)),
            tasks: TaskTracker::new(),
            ending: CancellationToken::new(),
        });
        let replication = Self { shared };
        let Incoming { events, requests, streams } = incoming;
        replication.spawn(replication.clone().keep_time(node.clone()));
        replication.spawn(replication.clone().watch(node.clone(), events));
        replication.spawn(replication.clone().answer_all(node.clone(), requests));
        replication.spawn(replication.clone().serve_values(node.clone(), streams));
        replication.spawn(replication.clone().push(node.clone(), commits));
        replication.spawn(replication.clone().want_values(node.clone()));
        replication.spawn(replication.clone().want_hosts(node.clone()));
        Ok(replication)
    }

    pub(crate) fn network(&self) -> &Network {
        &self.shared.network
    }

    pub(crate) fn fetcher(&self) -> &Fetcher {
        &self.shared.fetcher
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    /// Asks the replicator, which must not be told anything meanwhile.
    pub(crate) fn question<T>(&self, ask: impl FnOnce(&Replicator) -> T) -> T {
        ask(&self.shared.replicator.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Ends all that is under way with peers; what was not brought comes after the next start.
    pub(crate) async fn stop(&self) {
        self.shared.ending.cancel();
        self.shared.network.stop().await;
        self.shared.fetcher.stop().await;
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }

    /// Runs a task until it ends or the node does.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let ending = self.shared.ending.clone();
        self.shared.tasks.spawn(async move {
            tokio::select! {
                () = ending.cancelled() => {}
                () = task => {}
            }
        });
    }

    /// Tells the replicator something and performs what it asks for.
    fn tell(&self, node: &Node, news: impl FnOnce(&mut Replicator, Millis)) {
        let mut outputs = Vec::new();
        {
            let mut replicator = self.shared.replicator.lock().unwrap_or_else(PoisonError::into_inner);
            news(&mut replicator, clock::now());
            outputs.extend(std::iter::from_fn(|| replicator.poll_output()));
        }
        self.shared.turned.notify_one();
        for output in outputs {
            self.perform(node, output);
        }
    }

    fn perform(&self, node: &Node, output: Output) {
        let (this, node) = (self.clone(), node.clone());
        match output {
            Output::Compare(call, peer) => self.spawn(async move {
                let outcome = this.compare(&node, &peer).await;
                this.tell(&node, |replicator, now| replicator.handle_compared(now, call, outcome));
            }),
            Output::Pull(call, pull) => self.spawn(async move {
                let outcome = this.pull(&node, &pull).await;
                this.tell(&node, |replicator, now| replicator.handle_pulled(now, call, outcome));
            }),
            Output::Push(call, peer, pushed) => self.spawn(async move {
                let verdicts = this.send_push(&peer, pushed).await;
                this.tell(&node, |replicator, now| replicator.handle_pushed(now, call, verdicts));
            }),
            Output::Renew(peer) => {
                tracing::info!(peer = %peer.did(), "pushes do not arrive: the connection is renewed");
                self.shared.network.renew(peer);
            }
        }
    }

    /// Wakes the replicator when it wants to.
    async fn keep_time(self, node: Node) {
        loop {
            let at = self.question(Replicator::poll_timeout);
            let due = async {
                match at {
                    Some(at) => tokio::time::sleep(wait(at)).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.shared.turned.notified() => {}
                () = due => self.tell(&node, Replicator::handle_timeout),
            }
        }
    }

    /// Peers come and go.
    async fn watch(self, node: Node, mut events: mpsc::Receiver<Event>) {
        while let Some(event) = events.recv().await {
            match event {
                Event::Connected(peer) => {
                    tracing::info!(peer = %peer.did(), "a peer is connected");
                    self.tell(&node, |replicator, now| replicator.handle_connected(now, peer));
                    if self.shared.network.is_configured(&peer) {
                        let alone = node.spaces_alone().into_iter().take(INTRODUCED_MAX);
                        alone.for_each(|space| self.introduce(&node, &space, &[peer]));
                    }
                    self.shared.fetcher.handle_peer(&peer);
                }
                Event::Disconnected(peer) => {
                    tracing::info!(peer = %peer.did(), "a peer is gone");
                    self.tell(&node, |replicator, now| replicator.handle_disconnected(now, &peer));
                    node.forget_peer(&peer);
                }
            }
        }
    }

    /// Hands what was committed to the other hosts, and wants the values that are not here.
    async fn push(self, node: Node, mut commits: mpsc::Receiver<DurableCommit>) {
        while let Some(DurableCommit { space, epochs, hosts, named, wanted }) = commits.recv().await {
            self.want(&node, &space, wanted).await;
            named.iter().for_each(|peer| self.shared.fetcher.handle_peer(peer));
            let epochs = epochs.into_iter().map(|CommittedEpoch { sent, told }| New { sent, told }).collect();
            self.tell(&node, |replicator, now| {
                // Two hosts that have just heard of each other tell what they have.
                for peer in named {
                    replicator.handle_behind(now, peer, space.clone());
                }
                replicator.handle_committed(now, Committed { space, epochs, hosts });
            });
        }
    }

    /// Tells the network whom to stay connected with.
    async fn want_hosts(self, node: Node) {
        loop {
            let hosts: BTreeSet<HostKey> = node.hosts_of_active_spaces();
            self.shared.network.wanted(hosts);
            tokio::time::sleep(WANTED_INTERVAL).await;
        }
    }
}

/// How long it is until then.
fn wait(at: Millis) -> Duration {
    Duration::from_millis(u64::try_from(at.0.saturating_sub(clock::now().0)).unwrap_or_default())
}
