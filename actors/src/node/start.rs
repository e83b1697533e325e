//! From an empty process to a running node and back.

use std::{
    path::Path,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use ed25519_dalek::SigningKey;
use kvspace_protocol::{
    id::{Did, HostKey, SpaceId},
    sync::Settings,
};
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinHandle,
};

use super::{
    NetworkOptions, Node, Options, SpaceStatus, StartError, Status, StorageStatus, collect::Collector, reads::Pending,
    recover::Recovery, restored::Restored, room::DiskRoom,
};
use crate::{
    blobs::{BlobOptions, Blobs},
    disk::DataDir,
    failpoint,
    hosted::Hosted,
    incarnation::Incarnations,
    index::{self, Index, IndexError},
    log::{Log, LogError, LogOptions},
    messages::DurableCommit,
    net::{NetOptions, Network},
    pool::Pool,
    records::{Records, RecordsOptions},
    registry::Registry,
    replication::{self, Replication},
    shared_spaces::SharedSpaces,
    space::{COMMITS_MAX, Storage},
    spaces::Spaces,
};

/// Calls under way in the whole node; ending waits until all of them are answered.
pub(super) const CALLS_MAX: u32 = 16 * 1024;

/// Everything a node has.
pub(super) struct Inner {
    pub(super) options: Options,
    pub(super) did: Did,
    pub(super) host: HostKey,
    pub(super) spaces: Spaces,
    pub(super) pool: Pool,
    pub(super) registry: Registry,
    /// Set once if the node speaks to others at all.
    pub(super) replication: OnceLock<Replication>,
    /// Set while the spaces have to be caught up before they are written: the folder was made of a backup.
    pub(super) restored: Option<Restored>,
    pub(super) storage: Storage,
    pub(super) room: DiskRoom,
    /// The memory for values on their way out, in bytes.
    pub(super) bytes_out: Arc<Semaphore>,
    /// The memory for small values on their way in.
    pub(super) small_bytes_in: Arc<Semaphore>,
    /// The memory for other inline values on their way in.
    pub(super) bytes_in: Arc<Semaphore>,
    pub(super) calls: Arc<Semaphore>,
    pub(super) stopping: AtomicBool,
    /// Places in the log that were found broken.
    damaged: u64,
    /// Who fetches values that are not here; set once the network is there.
    pub(super) pending: OnceLock<Arc<dyn Pending>>,
    collecting: std::sync::Mutex<Option<(Collector, JoinHandle<()>)>>,
    data_dir: DataDir,
}

/// What the tests replace.
#[derive(Debug, Clone, Default)]
pub(crate) struct StorageOptions {
    pub(crate) log: LogOptions,
    pub(crate) blobs: BlobOptions,
    pub(crate) records: RecordsOptions,
    /// Who hears of each commit.
    pub(crate) committed: Option<mpsc::Sender<DurableCommit>>,
}

impl Node {
    /// Opens the data folder, takes what the log holds beyond the index into it, and is ready.
    ///
    /// # Errors
    /// [`StartError`], a sentence that says what stands in the way.
    pub async fn start(options: Options) -> Result<Self, StartError> {
        let network = options.network.clone();
        let (commits, committed) = replication::commits();
        let storage = StorageOptions { committed: network.is_some().then_some(commits), ..StorageOptions::default() };
        let node = Self::start_on(options, storage).await?;
        let Some(network) = network else { return Ok(node) };
        if let Err(error) = node.join(network, committed).await {
            node.stop().await;
            return Err(error);
        }
        Ok(node)
    }

    /// Begins to speak to other nodes.
    async fn join(&self, network: NetworkOptions, committed: mpsc::Receiver<DurableCommit>) -> Result<(), StartError> {
        let NetworkOptions { listen, peers, mdns, compare_interval } = network;
        let options = NetOptions { key: self.inner.options.key, listen, peers, mdns };
        let (network, incoming) =
            Network::start(options).await.map_err(|error| StartError::Network(error.to_string()))?;
        let settings = Settings {
            compare_interval_ms: i64::try_from(compare_interval.as_millis()).unwrap_or(i64::MAX),
            ..replication::SETTINGS
        };
        let replication =
            Replication::start(self, network, incoming, committed, settings).map_err(StartError::Blobs)?;
        drop(self.inner.pending.set(Arc::new(replication.clone())));
        drop(self.inner.replication.set(replication));
        Ok(())
    }

    /// The same on other files.
    pub(super) async fn start_on(options: Options, storage: StorageOptions) -> Result<Self, StartError> {
        let opened = tokio::task::spawn_blocking(move || open(options, storage)).await;
        let inner = Arc::new(opened.map_err(|error| StartError::Failed(error.to_string()))??);
        let collector = Collector::new(
            inner.storage.clone(),
            inner.options.data_dir.clone(),
            inner.options.retention,
            inner.options.collect_interval,
        );
        let task = tokio::spawn(collector.clone().run());
        *inner.collecting.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some((collector, task));
        Ok(Self { inner })
    }

    /// The node's did:key.
    #[must_use]
    pub fn did(&self) -> &Did {
        &self.inner.did
    }

    /// What this node holds, with `spaces_max` spaces from `after` on.
    ///
    /// # Errors
    /// [`super::NodeError::Storage`].
    pub fn status(&self, after: Option<&SpaceId>, spaces_max: usize) -> Result<Status, super::NodeError> {
        let inner = &self.inner;
        let mut spaces = Vec::new();
        let mut all = inner.storage.index.spaces(after);
        for index in all.by_ref().take(spaces_max) {
            let index = index?;
            spaces.push(SpaceStatus {
                space: index.id().clone(),
                summary: index.summary()?,
                frontier: index.frontier()?,
                active: inner.spaces.is_active(index.id()),
            });
        }
        let segments = inner.storage.log.segments();
        let storage = StorageStatus {
            segments: segments.len(),
            log_bytes: segments.iter().map(|segment| segment.file_bytes).sum(),
            free_bytes: inner.room.free_bytes(),
            is_short: inner.room.is_short(),
            index_failure: inner.storage.index.records().failure().map(|error| error.to_string()),
            damaged: inner.damaged,
        };
        let (active, parked) = (inner.spaces.active_count(), inner.pool.parked());
        Ok(Status { spaces, has_more: all.next().is_some(), active, parked, storage })
    }

    /// Takes no more writes, waits until those under way are answered, and ends the actors, the log and the index.
    pub async fn stop(&self) {
        self.inner.stopping.store(true, Ordering::SeqCst);
        if let Some(replication) = self.inner.replication.get() {
            replication.stop().await;
        }
        let all_answered = self.inner.calls.acquire_many(CALLS_MAX).await;
        // Who asked may be gone and the commit still on its way.
        let all_durable = self.inner.storage.commits.acquire_many(COMMITS_MAX).await;
        let collecting = self.inner.collecting.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        if let Some((collector, task)) = collecting {
            collector.stop();
            if task.await.is_err() {
                tracing::error!("collecting ended with a panic");
            }
        }
        let (node, inner) = (self.clone(), self.inner.clone());
        let end = move || {
            let is_done = inner.restored.as_ref().map(|restored| restored.is_done(&node));
            inner.registry.stop();
            inner.storage.log.close();
            if let Err(error) = inner.storage.index.records().close() {
                tracing::warn!(%error, "the index is made anew at the next start");
            }
            let forgotten = match is_done {
                Some(Ok(true)) => inner.data_dir.forget_restored(),
                Some(Ok(false)) | None => Ok(()),
                Some(Err(error)) => Err(std::io::Error::other(error)),
            };
            if let Err(error) = forgotten {
                tracing::warn!(%error, "the next start takes the folder for one just restored");
            }
        };
        if let Err(error) = tokio::task::spawn_blocking(end).await {
            tracing::error!(%error, "the node did not end cleanly");
        }
        drop((all_answered, all_durable));
    }

    pub(super) async fn space(&self, space: &SpaceId) -> Result<Option<Arc<Hosted>>, super::NodeError> {
        self.inner.spaces.get(space, &self.inner.registry).await
    }
}

fn open(options: Options, storage: StorageOptions) -> Result<Inner, StartError> {
    let data_dir = DataDir::open(&options.data_dir)?;
    let committed = storage.committed;
    let disk = storage.log.disk.clone();
    let room = DiskRoom::new(options.data_dir.clone(), disk, options.reserve_free_bytes);
    let blob_options = BlobOptions { reserve_bytes: options.reserve_free_bytes, ..storage.blobs };
    let blobs = Blobs::open_with(&data_dir.blobs(), blob_options).map_err(StartError::Blobs)?;
    let key = SigningKey::from_bytes(&options.key);
    let host = HostKey(key.verifying_key().to_bytes());
    let incarnations = Arc::new(Incarnations::draw());
    let log_options = LogOptions {
        segment_bytes: options.segment_bytes,
        // Deletes and revocations go on when writes are refused.
        reserve_bytes: storage.log.reserve_bytes.min(options.reserve_free_bytes / 4),
        ..storage.log
    };
    let records = RecordsOptions {
        cache_bytes: options.index_cache_bytes,
        free_bytes_min: storage.records.free_bytes_min.min(options.reserve_free_bytes / 8),
        ..storage.records
    };
    let recovery = |records| Recovery::new(records, key.clone(), incarnations.current(), options.active_spaces_max);
    let recovered = recover(&data_dir.log(), &data_dir.index(), &log_options, &records, &recovery)?;
    let Recovered { log, index, damaged } = recovered;
    let commits = Arc::new(Semaphore::new(COMMITS_MAX as usize));
    let shared = SharedSpaces::new(index.clone());
    let missed = Arc::default();
    let storage = Storage { log, blobs, index: index.clone(), shared, incarnations, commits, committed, missed };
    let registry = Registry::start(storage.clone(), key)?;
    Ok(Inner {
        did: host.did(),
        host,
        replication: OnceLock::new(),
        restored: data_dir.is_restored().then(Restored::default),
        spaces: Spaces::new(index.clone(), options.active_spaces_max),
        pool: Pool::new(index),
        registry,
        storage,
        room,
        bytes_out: Arc::new(Semaphore::new(options.body_bytes_max / 2)),
        small_bytes_in: Arc::new(Semaphore::new(options.body_bytes_max / 8)),
        bytes_in: Arc::new(Semaphore::new(
            options.body_bytes_max - options.body_bytes_max / 2 - options.body_bytes_max / 8,
        )),
        calls: Arc::new(Semaphore::new(CALLS_MAX as usize)),
        stopping: AtomicBool::new(false),
        damaged,
        pending: OnceLock::new(),
        collecting: std::sync::Mutex::new(None),
        options,
        data_dir,
    })
}

/// Log and index, which agree.
struct Recovered {
    log: Log,
    index: Index,
    damaged: u64,
}

/// Opens the index, and has it hold what the log holds. An index that turns out broken, or that is of another log, is
/// begun anew.
fn recover(
    log_dir: &Path,
    index_dir: &Path,
    log_options: &LogOptions,
    records_options: &RecordsOptions,
    recovery: &dyn Fn(Records) -> Recovery,
) -> Result<Recovered, StartError> {
    let mut tries_left = 2;
    let mut known = None;
    loop {
        tries_left -= 1;
        let opened = Records::open(index_dir, records_options)?;
        let records = opened.records;
        let has_log = log_options.disk.list(log_dir).is_ok_and(|names| !names.is_empty());
        if let Some(reason) = opened.fresh.as_ref().filter(|_| has_log) {
            tracing::info!(%reason, "the index is made anew from the log");
        }
        let after = opened.covered.as_deref().map(index::covered).transpose();
        let result = after.map_err(StartError::from).and_then(|after| {
            let mut recovery = recovery(records.clone());
            let options = LogOptions { after, known, ..log_options.clone() };
            let log = Log::open(log_dir, options, |reader, replayed| recovery.take(reader, replayed))?;
            let (commits, damaged) = (recovery.commits, recovery.damaged);
            let index = recovery.finish(&log.reader())?;
            let damaged_ever = index.damaged()?;
            failpoint::reached("index.rebuilt");
            records.rebuilt()?;
            if has_log {
                tracing::info!(commits, damaged, "the index has what the log has");
            }
            Ok(Recovered { log, index, damaged: damaged_ever })
        });
        match result {
            Err(error) if tries_left > 0 && is_of_the_index(&error, &records) => {
                tracing::warn!(%error, "the index cannot be used");
                // The index takes in only what is durable: the log held this once.
                if let StartError::Log(LogError::NotInLog(at)) = error {
                    known = Some(at);
                }
                records.distrust();
            }
            result => return result,
        }
    }
}

/// Whether beginning the index anew helps.
fn is_of_the_index(error: &StartError, records: &Records) -> bool {
    match error {
        StartError::Index(_) | StartError::Log(LogError::NotInLog(_)) => true,
        StartError::Log(LogError::Stopped(reason)) => reason.is::<IndexError>() || records.failure().is_some(),
        StartError::Log(LogError::OtherFormat { .. } | LogError::Io { .. })
        | StartError::DataDir(_)
        | StartError::Blobs(_)
        | StartError::Thread(_)
        | StartError::Network(_)
        | StartError::Failed(_) => false,
    }
}
