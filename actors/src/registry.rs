//! Which actors run: started when there is something to do, and again after a fault.

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
    id::{Incarnation, SpaceId},
    space::Space,
};

use crate::{
    hosted::Hosted,
    index::{IndexError, SpaceIndex},
    messages::{Deliver, Request},
    node::{NodeError, StartError},
    space::{SpaceActor, Storage},
};

/// How often a request is given to a new actor when the one before ended without looking at it.
const TRIES_MAX: usize = 4;
/// Messages in a mailbox beyond the senders' own places.
const MAILBOX: usize = 1024;

/// Starts and finds actors. They run on threads of their own, one per core.
pub(crate) struct Registry {
    storage: Storage,
    key: SigningKey,
    next_arbiter: AtomicUsize,
    /// Grows with each core that is opened: generations of authority never come back.
    opened: AtomicU64,
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
    pub(crate) fn start(storage: Storage, key: SigningKey) -> Result<Self, StartError> {
        Ok(Self {
            storage,
            key,
            next_arbiter: AtomicUsize::new(0),
            opened: AtomicU64::new(0),
            threads: Threads::start()?,
        })
    }

    /// Gives a request to the space's actor, starting one if none runs.
    pub(crate) async fn deliver(&self, hosted: &Arc<Hosted>, request: Request) {
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
        let (storage, space) = (self.storage.clone(), hosted.clone());
        let arbiter = self.next_arbiter.fetch_add(1, Ordering::Relaxed) % self.threads.arbiters.len();
        let addr = SpaceActor::start_in_arbiter(&self.threads.arbiters[arbiter], move |ctx| {
            ctx.set_mailbox_capacity(MAILBOX);
            SpaceActor::new(core, space, storage)
        });
        *slot = Some(addr.clone());
        Ok(addr)
    }

    /// A core with everything that is durable.
    async fn open(&self, hosted: &Arc<Hosted>) -> Result<Space, NodeError> {
        let ready = hosted.ready.lock().unwrap_or_else(PoisonError::into_inner).take();
        match ready {
            Some(core) => Ok(core),
            None => self.open_core(hosted.index.clone()).await,
        }
    }

    /// A core with everything that this index shows. Nothing may be on its way to it.
    pub(crate) async fn open_core(&self, index: SpaceIndex) -> Result<Space, NodeError> {
        let (key, incarnation) = (self.key.clone(), self.storage.incarnations.current());
        let opened = tokio::task::spawn_blocking(move || open_core(&index, &key, incarnation)).await;
        let mut core = opened.map_err(|error| NodeError::Storage(error.to_string()))??;
        core.outdate(self.first_generation());
        Ok(core)
    }

    /// A core of a space of which nothing is held.
    pub(crate) fn new_core(&self, space: &SpaceId) -> Space {
        let mut core = Space::new(space.clone(), self.key.clone(), self.storage.incarnations.current());
        core.outdate(self.first_generation());
        core
    }

    /// A generation that no core of this process has reached: what was judged before a space rested is judged anew.
    fn first_generation(&self) -> u64 {
        self.opened.fetch_add(1, Ordering::Relaxed) << 32
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

/// Reads what the index keeps of a space into a core.
pub(crate) fn open_core(index: &SpaceIndex, key: &SigningKey, incarnation: Incarnation) -> Result<Space, IndexError> {
    let held = index.held()?;
    let opened = Space::reopen(index.id().clone(), key.clone(), incarnation, held, index);
    opened.map_err(|error| IndexError::new(error.to_string()))
}

fn answer(message: &Deliver, error: NodeError) {
    if let Some(request) = message.take() {
        request.call.fail(error);
    }
}
