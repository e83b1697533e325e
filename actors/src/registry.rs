//! Which actors run: lazily started, respawned after a fault, put to rest when too many are up.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    thread,
};

use actix::prelude::*;
use ed25519_dalek::SigningKey;
use kvspace_protocol::{
    epoch::SignedEpoch,
    id::{HostKey, Incarnation, SpaceId},
    space::{CheckedEpoch, Space},
};
use rand::Rng;

use crate::{
    blobs::Blobs,
    hosted::Hosted,
    log::{EpochRecord, Log},
    messages::{Deliver, Request, Rest},
    node::{NodeError, StartError},
    space::SpaceActor,
};

/// How often a request is given to a new actor when the one before ended without looking at it.
const TRIES_MAX: usize = 4;
/// Messages in a mailbox beyond the senders' own places.
const MAILBOX: usize = 1024;

/// Starts and finds actors. They run on threads of their own, one per core.
pub(crate) struct Registry {
    log: Log,
    blobs: Blobs,
    key: SigningKey,
    active_max: usize,
    active: Mutex<Vec<Arc<Hosted>>>,
    tick: AtomicU64,
    next_arbiter: AtomicUsize,
    threads: Threads,
}

/// The thread of actix and its arbiters.
struct Threads {
    arbiters: Vec<ArbiterHandle>,
    system: System,
    main: Mutex<Option<thread::JoinHandle<()>>>,
}

impl Threads {
    /// An actix system lives on a thread of its own: it owns a runtime, and ends when it is told.
    fn start() -> Result<Self, StartError> {
        let (tell, told) = std::sync::mpsc::sync_channel(1);
        let count = thread::available_parallelism().map_or(1, usize::from);
        let run = move || {
            let runner = System::new();
            let arbiters: Vec<_> = runner.block_on(async move { (0..count).map(|_| Arbiter::new()).collect() });
            let handles = arbiters.iter().map(Arbiter::handle).collect::<Vec<_>>();
            if tell.send((System::current(), handles)).is_ok() && runner.run().is_err() {
                tracing::error!("the actors' system ended with an error");
            }
            for arbiter in arbiters {
                arbiter.stop();
                drop(arbiter.join());
            }
        };
        let main = thread::Builder::new().name("actors".into()).spawn(run).map_err(StartError::Thread)?;
        let gone = |_| StartError::Thread(std::io::Error::other("the actors' thread ended at once"));
        let (system, arbiters) = told.recv().map_err(gone)?;
        Ok(Self { arbiters, system, main: Mutex::new(Some(main)) })
    }
}

impl Registry {
    pub(crate) fn start(log: Log, blobs: Blobs, key: SigningKey, active_max: usize) -> Result<Self, StartError> {
        Ok(Self {
            log,
            blobs,
            key,
            active_max,
            active: Mutex::default(),
            tick: AtomicU64::new(0),
            next_arbiter: AtomicUsize::new(0),
            threads: Threads::start()?,
        })
    }

    /// Gives a request to the space's actor, starting one if none runs.
    pub(crate) async fn deliver(&self, hosted: &Arc<Hosted>, request: Request) {
        hosted.touch(self.tick.fetch_add(1, Ordering::Relaxed));
        let message = Deliver::new(request);
        for _ in 0..TRIES_MAX {
            let addr = match self.actor(hosted).await {
                Ok(addr) => addr,
                Err(error) => return answer(&message, error),
            };
            // An actor that ended does not take the message out; then the next one gets it.
            if addr.send(message.clone()).await.is_err() {
                tracing::debug!(space = %hosted.id, "the actor had ended");
            }
            if !message.is_untouched() {
                return;
            }
            let mut slot = hosted.actor.lock().await;
            if slot.as_ref() == Some(&addr) {
                *slot = None;
            }
        }
        answer(&message, NodeError::Busy);
    }

    /// The running actor of a space.
    async fn actor(&self, hosted: &Arc<Hosted>) -> Result<Addr<SpaceActor>, NodeError> {
        let mut slot = hosted.actor.lock().await;
        if let Some(addr) = slot.as_ref().filter(|addr| addr.connected()) {
            return Ok(addr.clone());
        }
        let quiet = hosted.committing.lock().await;
        let mut core = self.open(hosted).await?;
        core.outdate(hosted.access().generation());
        // What the last actor could not publish before it ended is published now.
        hosted.publish_all(&core);
        drop(quiet);
        let (log, blobs, space) = (self.log.clone(), self.blobs.clone(), hosted.clone());
        let arbiter = self.next_arbiter.fetch_add(1, Ordering::Relaxed) % self.threads.arbiters.len();
        let addr = SpaceActor::start_in_arbiter(&self.threads.arbiters[arbiter], move |ctx| {
            ctx.set_mailbox_capacity(MAILBOX);
            SpaceActor::new(core, space, log, blobs)
        });
        *slot = Some(addr.clone());
        drop(slot);
        self.note_active(hosted);
        Ok(addr)
    }

    /// A core with everything that is durable, in a new incarnation.
    async fn open(&self, hosted: &Arc<Hosted>) -> Result<Space, NodeError> {
        let ready = hosted.ready.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(core) = ready {
            return Ok(core);
        }
        let (log, hosted, core) = (self.log.clone(), hosted.clone(), new_core(&hosted.id, &self.key));
        let open = move || replay(&log, &hosted, core);
        let opened = tokio::task::spawn_blocking(open).await;
        opened.map_err(|error| NodeError::Storage(error.to_string()))?.map_err(NodeError::Storage)
    }

    /// Puts the actor that was idle longest to rest when there are too many.
    fn note_active(&self, hosted: &Arc<Hosted>) {
        let mut active = self.active.lock().unwrap_or_else(PoisonError::into_inner);
        active.retain(|other| !Arc::ptr_eq(other, hosted));
        active.push(hosted.clone());
        if active.len() <= self.active_max {
            return;
        }
        let Some((oldest, _)) = active.iter().enumerate().min_by_key(|(_, other)| other.used()) else { return };
        let resting = active.swap_remove(oldest);
        drop(active);
        // Held only by someone who is about to use the actor: then it does not rest.
        if let Ok(slot) = resting.actor.try_lock()
            && let Some(addr) = slot.as_ref()
        {
            drop(addr.try_send(Rest));
        }
    }

    /// Ends all actors. Calls under way must have been answered.
    pub(crate) fn stop(&self) {
        self.threads.system.stop();
        let main = self.threads.main.lock().unwrap_or_else(PoisonError::into_inner).take();
        if main.is_some_and(|main| main.join().is_err()) {
            tracing::error!("the actors' thread panicked");
        }
    }
}

/// An empty core of this host, in a new incarnation.
pub(crate) fn new_core(space: &SpaceId, key: &SigningKey) -> Space {
    Space::new(space.clone(), key.clone(), Incarnation(rand::rng().next_u64().to_be_bytes()))
}

fn answer(message: &Deliver, error: NodeError) {
    if let Some(request) = message.take() {
        drop(request.reply.send(Err(error)));
    }
}

/// Reads a space's epochs from the log into a core. The index holds what they bring already.
fn replay(log: &Log, hosted: &Hosted, mut core: Space) -> Result<Space, String> {
    let own = core.host();
    for at in hosted.index.epochs() {
        let record = log.read_epoch(at).map_err(|error| error.to_string())?;
        let checked = checked(record, own).map_err(|error| error.to_string())?;
        core.restore(hosted.view(), &checked).map_err(|error| error.to_string())?;
    }
    Ok(core)
}

/// An epoch of our own log.
pub(crate) fn checked(record: EpochRecord, own: HostKey) -> Result<CheckedEpoch, kvspace_protocol::epoch::Malformed> {
    let EpochRecord { header, body, signature, .. } = record;
    CheckedEpoch::trusted(SignedEpoch { header, body, signature }, own)
}
