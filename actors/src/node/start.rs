//! From an empty process to a running node and back.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
};

use ed25519_dalek::SigningKey;
use kvspace_protocol::{
    id::{BlobHash, Did, HostKey, SpaceId},
    space::Space,
};
use tokio::sync::{Mutex as AsyncMutex, Semaphore};

use super::{Node, Options, SpaceStatus, StartError, Status};
use crate::{
    blobs::Blobs,
    disk::DataDir,
    hosted::Hosted,
    index::{Durable, MemoryIndex},
    log::{Damage, EpochRecord, Log, LogOptions, Position, Replayed},
    pool::Pool,
    registry::{self, Registry},
};

/// Calls under way in the whole node; ending waits until all of them are answered.
pub(super) const CALLS_MAX: u32 = 16 * 1024;

/// Everything a node has.
pub(super) struct Inner {
    pub(super) options: Options,
    pub(super) did: Did,
    pub(super) spaces: RwLock<BTreeMap<SpaceId, Arc<Hosted>>>,
    pub(super) pool: Arc<Pool>,
    pub(super) registry: Registry,
    pub(super) log: Log,
    pub(super) blobs: Blobs,
    /// The memory for values on their way out, in bytes.
    pub(super) bytes_out: Arc<Semaphore>,
    /// The memory for small values on their way in.
    pub(super) small_bytes_in: Arc<Semaphore>,
    /// The memory for other inline values on their way in.
    pub(super) bytes_in: Arc<Semaphore>,
    pub(super) calls: Arc<Semaphore>,
    /// Held while a space is made, so that it is made once.
    pub(super) creating: AsyncMutex<()>,
    pub(super) stopping: AtomicBool,
    _data_dir: DataDir,
}

impl Node {
    /// Opens the data folder, replays the log and is ready.
    ///
    /// # Errors
    /// [`StartError`], a sentence that says what stands in the way.
    pub async fn start(options: Options) -> Result<Self, StartError> {
        let log_options = LogOptions { segment_bytes: options.segment_bytes, ..LogOptions::default() };
        Self::start_on(options, log_options).await
    }

    /// The same with a log of these options.
    pub(super) async fn start_on(options: Options, log_options: LogOptions) -> Result<Self, StartError> {
        let opened = tokio::task::spawn_blocking(move || open(options, log_options)).await;
        let inner = opened.map_err(|error| StartError::Failed(error.to_string()))??;
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The node's did:key.
    #[must_use]
    pub fn did(&self) -> &Did {
        &self.inner.did
    }

    /// What this node holds.
    #[must_use]
    pub fn status(&self) -> Status {
        let spaces = self.spaces();
        let status = |hosted: &Arc<Hosted>| {
            let summary = hosted.index.summary();
            SpaceStatus {
                space: hosted.id.clone(),
                epochs: summary.epochs,
                keys: summary.keys,
                live_bytes: summary.live_bytes,
                frontier: hosted.frontier(),
                active: hosted.actor.try_lock().map_or(true, |slot| slot.as_ref().is_some_and(actix::Addr::connected)),
            }
        };
        Status { spaces: spaces.iter().map(status).collect(), parked: self.inner.pool.parked() }
    }

    /// Takes no more writes, waits until those under way are answered, and ends the actors and the log.
    pub async fn stop(&self) {
        self.inner.stopping.store(true, Ordering::SeqCst);
        let all_answered = self.inner.calls.acquire_many(CALLS_MAX).await;
        let inner = self.inner.clone();
        let end = move || {
            inner.registry.stop();
            inner.log.close();
        };
        if let Err(error) = tokio::task::spawn_blocking(end).await {
            tracing::error!(%error, "the node did not end cleanly");
        }
        drop(all_answered);
    }

    pub(super) fn space(&self, space: &SpaceId) -> Option<Arc<Hosted>> {
        self.inner.spaces.read().unwrap_or_else(PoisonError::into_inner).get(space).cloned()
    }

    fn spaces(&self) -> Vec<Arc<Hosted>> {
        self.inner.spaces.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }
}

fn open(options: Options, log_options: LogOptions) -> Result<Inner, StartError> {
    let data_dir = DataDir::open(&options.data_dir)?;
    let blobs = Blobs::open(&data_dir.blobs()).map_err(StartError::Blobs)?;
    let key = SigningKey::from_bytes(&options.key);
    let host = HostKey(key.verifying_key().to_bytes());
    let pool = Arc::new(Pool::default());
    let mut rebuild =
        Rebuild { key: key.clone(), host, pool: pool.clone(), spaces: BTreeMap::new(), blobs: Vec::new() };
    let log = Log::open(&data_dir.log(), log_options, |_, replayed| rebuild.take(replayed))?;
    let registry = Registry::start(log.clone(), blobs.clone(), key, options.active_spaces_max)?;
    let spaces = rebuild.finish(options.active_spaces_max);
    let removed = blobs.sweep(|hash| spaces.values().any(|hosted| hosted.index.needs_file(hash)));
    let removed = removed.map_err(StartError::Blobs)?;
    tracing::info!(spaces = spaces.len(), removed_files = removed, "the log is replayed");
    Ok(Inner {
        did: host.did(),
        spaces: RwLock::new(spaces),
        pool,
        registry,
        log,
        blobs,
        bytes_out: Arc::new(Semaphore::new(options.body_bytes_max / 2)),
        small_bytes_in: Arc::new(Semaphore::new(options.body_bytes_max / 8)),
        bytes_in: Arc::new(Semaphore::new(
            options.body_bytes_max - options.body_bytes_max / 2 - options.body_bytes_max / 8,
        )),
        calls: Arc::new(Semaphore::new(CALLS_MAX as usize)),
        creating: AsyncMutex::new(()),
        stopping: AtomicBool::new(false),
        options,
        _data_dir: data_dir,
    })
}

/// Makes the index of every space from the log.
struct Rebuild {
    key: SigningKey,
    host: HostKey,
    pool: Arc<Pool>,
    spaces: BTreeMap<SpaceId, (Arc<Hosted>, Space)>,
    /// The values before the next epoch.
    blobs: Vec<(BlobHash, Position)>,
}

impl Rebuild {
    fn take(&mut self, replayed: Replayed) -> Result<(), String> {
        match replayed {
            Replayed::Commit(commit) => {
                self.blobs.extend(commit.blobs.into_iter().map(|blob| (blob.hash, blob.at)));
                commit.epochs.into_iter().try_for_each(|(record, at)| self.take_epoch(record, at))
            }
            Replayed::Damage(Damage { segment, offset, length, what }) => {
                tracing::error!(segment, offset, length, what, "the log is damaged; what it held there is lost");
                Ok(())
            }
        }
    }

    fn take_epoch(&mut self, record: EpochRecord, at: Position) -> Result<(), String> {
        let space = record.space.clone();
        let checked = registry::checked(record, self.host).map_err(|error| error.to_string())?;
        let (hosted, core) = self.spaces.entry(space.clone()).or_insert_with(|| {
            let hosted = Hosted::new(space.clone(), Arc::new(MemoryIndex::default()), self.pool.clone());
            (Arc::new(hosted), registry::new_core(&space, &self.key))
        });
        let changes = core.replay(hosted.view(), &checked).map_err(|error| error.to_string())?;
        hosted.index.apply(Durable { changes: &changes, blobs: &self.blobs, epochs: &[at] });
        self.blobs.clear();
        Ok(())
    }

    /// The spaces; the first `ready_max` keep their core for the first call.
    fn finish(self, ready_max: usize) -> BTreeMap<SpaceId, Arc<Hosted>> {
        let mut spaces = BTreeMap::new();
        for (number, (id, (hosted, core))) in self.spaces.into_iter().enumerate() {
            hosted.publish_all(&core);
            if number < ready_max {
                *hosted.ready.lock().unwrap_or_else(PoisonError::into_inner) = Some(core);
            }
            spaces.insert(id, hosted);
        }
        spaces
    }
}
