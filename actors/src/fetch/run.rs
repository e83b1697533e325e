//! The task that does what the plan says.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use kvspace_protocol::id::{BlobHash, HostKey, SpaceId};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{
    Shared, Stream,
    plan::{Ask, BlobKey, Call},
    transfer::{Slot, Transferred, transfer},
};
use crate::{blobs::blocking, clock};

/// The longest sleep.
const SLEEP_MAX: Duration = Duration::from_secs(60);

/// What a task did.
enum Done {
    Transferred(Box<Transferred>),
    /// A whole value was to get its name.
    Placed(BlobKey, io::Result<()>),
    /// A partial file was closed.
    Closed(BlobKey, io::Result<()>),
    /// Partial files were removed.
    Removed,
}

/// What happens now.
struct Running {
    shared: Arc<Shared>,
    tasks: JoinSet<Done>,
    /// By request: how to end it.
    cancels: BTreeMap<Call, CancellationToken>,
    /// By value: its partial file, and how many tasks are at it.
    slots: BTreeMap<BlobKey, (Arc<Mutex<Slot>>, usize)>,
    /// Streams on which another request may follow at once.
    streams: BTreeMap<HostKey, Vec<Box<dyn Stream>>>,
}

/// Fetches until it is stopped.
pub(super) async fn run(shared: Arc<Shared>) {
    let (tasks, cancels, slots, streams) = (JoinSet::new(), BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    let mut running = Running { shared: Arc::clone(&shared), tasks, cancels, slots, streams };
    loop {
        let sleep = running.pump();
        tokio::select! {
            () = shared.stopped.cancelled() => break,
            () = shared.wake.notified() => {}
            () = tokio::time::sleep(sleep) => {}
            Some(done) = running.tasks.join_next() => running.take(done.ok()),
        }
    }
    running.stop().await;
}

impl Running {
    /// Begins everything that can be begun; says how long nothing is to do then.
    fn pump(&mut self) -> Duration {
        let shared = Arc::clone(&self.shared);
        let now = clock::now();
        let (mut asks, unwanted, timeout) = {
            let mut state = shared.state();
            while let Some(call) = state.plan.poll_cancel() {
                if let Some(cancel) = self.cancels.remove(&call) {
                    cancel.cancel();
                }
            }
            let known: RefCell<BTreeMap<SpaceId, Vec<HostKey>>> = RefCell::default();
            let hosts = |space: &SpaceId| {
                let find = || shared.context.peers.hosts(space);
                known.borrow_mut().entry(space.clone()).or_insert_with(find).clone()
            };
            let asks: Vec<Ask> = std::iter::from_fn(|| state.plan.poll(now, &hosts)).collect();
            (asks, std::mem::take(&mut state.unwanted), state.plan.poll_timeout())
        };
        for ask in asks.drain(..) {
            self.ask(ask);
        }
        self.streams.clear();
        self.remove(unwanted);
        self.close_idle();
        let sleep_ms = timeout.map_or(i64::MAX, |timeout| timeout.0.saturating_sub(now.0));
        Duration::from_millis(u64::try_from(sleep_ms).unwrap_or(0)).min(SLEEP_MAX)
    }

    fn ask(&mut self, ask: Ask) {
        let stream = self.streams.get_mut(&ask.peer).and_then(Vec::pop);
        let cancel = CancellationToken::new();
        self.cancels.insert(ask.call, cancel.clone());
        let slot = self.enter(ask.key);
        let context = Arc::clone(&self.shared.context);
        self.tasks.spawn(async move {
            let transferred = transfer(context, ask, slot, stream, cancel).await;
            Done::Transferred(Box::new(transferred))
        });
    }

    fn enter(&mut self, key: BlobKey) -> Arc<Mutex<Slot>> {
        let (slot, users) = self.slots.entry(key).or_insert_with(|| (Arc::new(Mutex::new(Slot::Closed)), 0));
        *users += 1;
        Arc::clone(slot)
    }

    fn leave(&mut self, key: BlobKey) {
        if let Some((_, users)) = self.slots.get_mut(&key) {
            *users -= 1;
        }
    }

    fn take(&mut self, done: Option<Done>) {
        let now = clock::now();
        match done {
            Some(Done::Transferred(transferred)) => {
                let Transferred { ask, got, end, stream } = *transferred;
                self.cancels.remove(&ask.call);
                self.leave(ask.key);
                if let Some(stream) = stream {
                    self.streams.entry(ask.peer).or_default().push(stream);
                }
                tracing::trace!(peer = ?ask.peer, hash = %ask.key.hash, ?got, ?end, "asked for a range of a value");
                let is_complete = self.shared.state().plan.handle_end(now, ask.call, got, end);
                if is_complete {
                    self.place(ask.key);
                }
            }
            Some(Done::Placed(key, placed)) => {
                self.leave(key);
                let mut state = self.shared.state();
                match placed {
                    Ok(()) => {
                        state.plan.handle_placed(key);
                        state.fetched += 1;
                        state.bytes += key.size;
                        drop(state);
                        self.shared.arrived.send(key.hash).ok();
                        tracing::debug!(hash = %key.hash, size = key.size, "fetched a value");
                    }
                    Err(error) => {
                        state.plan.handle_lost(now, key);
                        tracing::warn!(hash = %key.hash, %error, "a value that was fetched could not be kept");
                    }
                }
            }
            Some(Done::Closed(key, closed)) => {
                self.leave(key);
                if let Err(error) = closed {
                    self.shared.state().plan.handle_lost(now, key);
                    tracing::warn!(hash = %key.hash, %error, "what came of a value could not be kept");
                }
            }
            Some(Done::Removed) | None => {}
        }
    }

    /// Gives a whole value its name.
    fn place(&mut self, key: BlobKey) {
        let slot = self.enter(key);
        self.tasks.spawn(async move {
            let placed = blocking(move || {
                let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
                let Slot::Open(partial) = std::mem::replace(&mut *slot, Slot::Done) else {
                    *slot = Slot::Closed;
                    return Err(io::Error::other("there is no such file"));
                };
                // The index refers to it: the lease ends here, and the file stays unless it was to go meanwhile.
                let placed = partial.finish().map(drop);
                if placed.is_err() {
                    *slot = Slot::Closed;
                }
                placed
            });
            Done::Placed(key, placed.await)
        });
    }

    /// Closes the partial files at which nobody is; those of values that nobody wants go.
    fn close_idle(&mut self) {
        let idle: Vec<BlobKey> = self.slots.iter().filter(|(_, (_, users))| *users == 0).map(|(key, _)| *key).collect();
        for key in idle {
            let is_open = self
                .slots
                .get(&key)
                .is_some_and(|(slot, _)| matches!(*slot.lock().unwrap_or_else(PoisonError::into_inner), Slot::Open(_)));
            if !is_open {
                self.slots.remove(&key);
                continue;
            }
            let is_wanted = self.shared.state().plan.contains(&key);
            let slot = self.enter(key);
            self.tasks.spawn(async move { Done::Closed(key, blocking(move || close(&slot, is_wanted)).await) });
        }
    }

    /// Removes what is left of values that nobody wants any more and at which nobody is.
    fn remove(&mut self, unwanted: Vec<BlobHash>) {
        if unwanted.is_empty() {
            return;
        }
        let blobs = self.shared.context.blobs.clone();
        self.tasks.spawn(async move {
            let removed = blocking(move || unwanted.iter().try_for_each(|hash| blobs.forget_partial(hash))).await;
            if let Err(error) = removed {
                tracing::warn!(%error, "cannot remove partial files");
            }
            Done::Removed
        });
    }

    async fn stop(mut self) {
        self.cancels.values().for_each(CancellationToken::cancel);
        while let Some(done) = self.tasks.join_next().await {
            self.take(done.ok());
        }
        self.close_idle();
        while let Some(done) = self.tasks.join_next().await {
            self.take(done.ok());
        }
    }
}

/// Closes a partial file; what is in it is durable then.
fn close(slot: &Mutex<Slot>, is_wanted: bool) -> io::Result<()> {
    let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
    let Slot::Open(mut partial) = std::mem::replace(&mut *slot, Slot::Closed) else { return Ok(()) };
    let kept = if is_wanted { partial.checkpoint() } else { Ok(()) };
    if !is_wanted || kept.is_err() {
        partial.discard();
    }
    kept
}
