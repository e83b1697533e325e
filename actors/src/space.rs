//! The actor of one active space: one core, one mailbox, the only writer of its space.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use actix::prelude::*;
use bytes::Bytes;
use kvspace_protocol::{
    id::{BlobHash, EpochId, HostKey},
    kv::Effect,
    limits::INLINE_BYTES_MAX,
    space::{CallId, Change, Fault, Invalid, Logged, Output, Reply, Space, Taken},
    sync::Sent,
};
use tokio::sync::{OwnedMutexGuard, OwnedSemaphorePermit, Semaphore, mpsc};

use crate::{
    blobs::{Blobs, Staged},
    clock, failpoint,
    hosted::{Hosted, RefusedEpoch},
    incarnation::Incarnations,
    index::{Durable, Index, IndexError},
    log::{AppendError, Appended, Commit, EpochRecord, Log},
    messages::{Answer, Call, CommittedEpoch, Deliver, DurableCommit, Held, Request, Rest, WaitingRoom, WantedValue},
    node::NodeError,
    shared_spaces::SharedSpaces,
};

/// How long a commit waits for room in the index.
const ROOM_WAIT: Duration = Duration::from_secs(5);

/// Where commits go. Clones are the same.
#[derive(Clone)]
pub(crate) struct Storage {
    pub(crate) log: Log,
    pub(crate) blobs: Blobs,
    pub(crate) index: Index,
    pub(crate) shared: SharedSpaces,
    pub(crate) incarnations: Arc<Incarnations>,
    /// Places for commits under way; ending waits until all are free.
    pub(crate) commits: Arc<Semaphore>,
    /// Who passes on what is durable, if anybody does.
    pub(crate) committed: Option<mpsc::Sender<DurableCommit>>,
    /// Commits for which there was no room there: comparing with other hosts finds them.
    pub(crate) missed: Arc<AtomicU64>,
}

/// Commits under way in the whole node; each space has one at most.
pub(crate) const COMMITS_MAX: u32 = 1 << 20;

/// Takes calls, feeds the core, does what it asks for. Ends on any fault; the registry then starts a new one from what
/// is durable.
pub(crate) struct SpaceActor {
    core: Space,
    hosted: Arc<Hosted>,
    storage: Storage,
    waiting: BTreeMap<CallId, Waiting>,
    next_call: u64,
    /// Whether a commit is out.
    committing: bool,
    /// Whether somebody else was seen to go on with this core's chain.
    is_cloned: bool,
    wake: Option<SpawnHandle>,
}

struct Waiting {
    awaited: Awaited,
    held: Held,
}

/// Whom to answer what.
enum Awaited {
    Reply(Answer<Reply>),
    /// And who brought the epochs.
    Taken(Answer<Taken>, Option<HostKey>),
}

impl SpaceActor {
    pub(crate) fn new(core: Space, hosted: Arc<Hosted>, storage: Storage) -> Self {
        let (waiting, next_call) = (BTreeMap::new(), 0);
        Self { core, hosted, storage, waiting, next_call, committing: false, is_cloned: false, wake: None }
    }

    fn take(&mut self, request: Request, ctx: &mut Context<Self>) {
        let Request { call, held } = request;
        self.next_call += 1;
        let id = CallId(self.next_call);
        let (now, index) = (clock::now(), self.hosted.view());
        let (awaited, taken) = match call {
            Call::Write(write, answer) => (Awaited::Reply(answer), self.core.handle_invocation(now, index, id, write)),
            Call::Token { token, borrowed, answer } => {
                (Awaited::Reply(answer), self.core.handle_token(now, index, id, token, borrowed))
            }
            Call::Epochs { from, epochs, answer } => {
                (Awaited::Taken(answer, from), self.core.handle_epochs(now, index, id, from, epochs))
            }
            Call::Explain(operations, answer) => {
                let explained = self.core.explain(index, operations);
                return drop(answer.send(explained.map_err(|error| NodeError::Storage(error.to_string()))));
            }
            Call::Preview { token, borrowed, max, answer } => {
                let preview = self.core.preview(now, index, &token, borrowed, max);
                let preview = preview.map_err(|fault| NodeError::Storage(fault.to_string()));
                return drop(answer.send(preview.and_then(|preview| preview.map_err(NodeError::from))));
            }
            Call::Waiting(answer) => {
                let (waiting, missing) = (self.core.waiting(), self.core.missing());
                let forks = self.core.dag().forks().to_vec();
                return drop(answer.send(Ok(WaitingRoom { waiting, missing, forks })));
            }
        };
        self.waiting.insert(id, Waiting { awaited, held });
        self.go_on(taken, ctx);
    }

    /// Does what the core asks for, until it asks for nothing more.
    fn go_on(&mut self, result: Result<(), Fault>, ctx: &mut Context<Self>) {
        if let Err(fault) = result {
            tracing::error!(space = %self.hosted.id, %fault, "the space starts anew");
            return self.fail(&|| NodeError::Storage(fault.to_string()), ctx);
        }
        while let Some(output) = self.core.poll_output() {
            match output {
                Output::Commit(commit) => self.commit(commit, ctx),
                Output::Access(change) => self.hosted.publish(change),
                Output::Reply(call, result) => self.reply(call, result.map_err(NodeError::from)),
                Output::Taken(call, taken) => self.taken(call, taken),
                Output::Refused(epoch, why) => self.refused(epoch, None, &why),
            }
        }
        self.mind_a_clone();
        self.schedule(ctx);
    }

    fn commit(&mut self, commit: kvspace_protocol::space::Commit, ctx: &mut Context<Self>) {
        let space = self.hosted.id.clone();
        let record = |epoch: kvspace_protocol::epoch::SignedEpoch| EpochRecord {
            space: space.clone(),
            header: epoch.header,
            body: epoch.body,
            signature: epoch.signature,
        };
        let Ok(not_to_be_opened) = self.hosted.committing.clone().try_lock_owned() else {
            return self.fail(&|| NodeError::Storage("two commits of one space at once".into()), ctx);
        };
        let Ok(under_way) = self.storage.commits.clone().try_acquire_owned() else {
            return self.fail(&|| NodeError::Busy, ctx);
        };
        self.committing = true;
        let bringing = Bringing {
            files: self.files_of(&commit.changes),
            changes: commit.changes.clone(),
            blobs: Vec::new(),
            _not_to_be_opened: not_to_be_opened,
            _under_way: under_way,
        };
        let durable = self.storage.committed.is_some().then(|| self.to_pass_on(&commit));
        // Of equal values in one commit the log needs one.
        let values = commit.epochs.iter().flat_map(|logged| logged.values.iter().cloned());
        let blobs: BTreeMap<BlobHash, Bytes> = values.collect();
        let epochs = commit.epochs.into_iter().map(|logged| record(logged.signed)).collect();
        let commit = Commit { blobs: blobs.into_iter().collect(), epochs };
        // A task of its own: what is durable reaches the index even if this actor ends meanwhile.
        let task = tokio::spawn(make_durable(self.hosted.clone(), self.storage.clone(), commit, bringing));
        ctx.spawn(task.into_actor(self).map(move |result, actor, ctx| {
            let result = result.unwrap_or_else(|error| Err(AppendError::Failed(error.to_string().into())));
            actor.committed(result, durable, ctx);
        }));
    }

    fn to_pass_on(&self, commit: &kvspace_protocol::space::Commit) -> DurableCommit {
        let epoch = |logged: &Logged| CommittedEpoch {
            sent: Arc::new(Sent {
                epoch: logged.signed.clone(),
                values: logged.values.iter().map(|(_, bytes)| bytes.clone()).collect(),
            }),
            told: logged.told.clone(),
        };
        let space = self.hosted.id.clone();
        DurableCommit {
            space,
            epochs: commit.epochs.iter().map(epoch).collect(),
            hosts: Vec::new(),
            named: named(commit),
            wanted: wanted(commit),
        }
    }

    fn committed(&mut self, result: Result<(), AppendError>, durable: Option<DurableCommit>, ctx: &mut Context<Self>) {
        self.committing = false;
        if let Err(error) = result {
            tracing::error!(space = %self.hosted.id, %error, "a commit failed; the space starts anew");
            return self.fail(&|| NodeError::from(error.clone()), ctx);
        }
        let result = self.core.handle_committed(clock::now(), self.hosted.view());
        self.go_on(result, ctx);
        // The hosts that it names are known by now.
        if let Some((sender, durable)) = self.storage.committed.as_ref().zip(durable)
            && sender.try_send(DurableCommit { hosts: self.other_hosts(), ..durable }).is_err()
        {
            self.storage.missed.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn other_hosts(&self) -> Vec<HostKey> {
        let own = self.core.host();
        self.hosted.access().hosts(clock::now()).into_iter().filter(|host| *host != own).collect()
    }

    fn reply(&mut self, call: CallId, result: Result<Reply, NodeError>) {
        if let Some(Waiting { awaited: Awaited::Reply(answer), held }) = self.waiting.remove(&call) {
            // A caller that has gone away needs no answer.
            drop(answer.send(result));
            drop(held);
        }
    }

    fn taken(&mut self, call: CallId, taken: Taken) {
        if let Some(Waiting { awaited: Awaited::Taken(answer, from), held }) = self.waiting.remove(&call) {
            for (epoch, why) in &taken.refused {
                self.refused(*epoch, from, why);
            }
            drop(answer.send(Ok(taken)));
            drop(held);
        }
    }

    fn refused(&self, epoch: EpochId, from: Option<HostKey>, why: &Invalid) {
        tracing::debug!(space = %self.hosted.id, %epoch, ?from, %why, "epoch refused");
        self.hosted.refuse(RefusedEpoch { epoch, from, at: clock::now(), reason: why.to_string() });
    }

    /// Two that sign with one key on one chain would fork it for ever: the next core begins a chain of its own.
    fn mind_a_clone(&mut self) {
        if self.core.is_cloned() && !self.is_cloned {
            self.is_cloned = true;
            self.storage.incarnations.redraw();
            tracing::warn!(space = %self.hosted.id, "another process signs with this node's key");
        }
    }

    /// Leases on the files that these changes need, for as long as the commit takes.
    fn files_of(&self, changes: &[Change]) -> Vec<Staged> {
        let file = |change: &Change| match change {
            Change::Operation(operation) => {
                operation.effect.value().filter(|value| value.size > INLINE_BYTES_MAX).cloned()
            }
            Change::Epoch(_) | Change::Delegation { .. } | Change::Dead { .. } | Change::Winner { .. } => None,
        };
        changes.iter().filter_map(file).filter_map(|value| self.storage.blobs.hold(&value.blob)).collect()
    }

    /// Answers everybody and ends; the core is not used again.
    fn fail(&mut self, why: &dyn Fn() -> NodeError, ctx: &mut Context<Self>) {
        for (_, waiting) in std::mem::take(&mut self.waiting) {
            match waiting.awaited {
                Awaited::Reply(answer) => drop(answer.send(Err(why()))),
                Awaited::Taken(answer, _) => drop(answer.send(Err(why()))),
            }
        }
        ctx.stop();
    }

    fn schedule(&mut self, ctx: &mut Context<Self>) {
        if let Some(wake) = self.wake.take() {
            ctx.cancel_future(wake);
        }
        let Some(at) = self.core.poll_timeout() else { return };
        let delay_ms = u64::try_from(at.0.saturating_sub(clock::now().0)).unwrap_or_default();
        self.wake = Some(ctx.run_later(Duration::from_millis(delay_ms.max(1)), |actor, ctx| {
            let result = actor.core.handle_timeout(clock::now(), actor.hosted.view());
            actor.go_on(result, ctx);
        }));
    }
}

/// The hosts that the delegations of a commit name.
fn named(commit: &kvspace_protocol::space::Commit) -> BTreeSet<HostKey> {
    let named = |change: &Change| match change {
        Change::Delegation { hosts, .. } => *hosts,
        Change::Epoch(_) | Change::Operation(_) | Change::Dead { .. } | Change::Winner { .. } => None,
    };
    commit.changes.iter().filter_map(named).collect()
}

/// The winning values of a commit whose bytes are not in it.
fn wanted(commit: &kvspace_protocol::space::Commit) -> Vec<WantedValue> {
    let here: BTreeSet<BlobHash> =
        commit.epochs.iter().flat_map(|logged| &logged.values).map(|(hash, _)| *hash).collect();
    let winner = |change: &Change| match change {
        Change::Winner { key, winner } => {
            let winner = winner.as_ref()?;
            let Effect::Put(value) = &winner.effect else { return None };
            Some(WantedValue { key: key.clone(), epoch: winner.version.epoch, value: value.clone() })
        }
        Change::Epoch(_) | Change::Delegation { .. } | Change::Operation(_) | Change::Dead { .. } => None,
    };
    commit.changes.iter().filter_map(winner).filter(|wanted| !here.contains(&wanted.value.blob)).collect()
}

/// What a commit brings once it is durable, and what it holds until then. It belongs to the commit, not to the actor, which
/// may end meanwhile.
struct Bringing {
    changes: Arc<Vec<Change>>,
    blobs: Vec<BlobHash>,
    files: Vec<Staged>,
    /// Nobody opens the space's core anew before the index shows the commit.
    _not_to_be_opened: OwnedMutexGuard<()>,
    /// The node does not end before the commit is whole.
    _under_way: OwnedSemaphorePermit,
}

/// Log first, then the index.
async fn make_durable(
    hosted: Arc<Hosted>,
    storage: Storage,
    commit: Commit,
    mut bringing: Bringing,
) -> Result<(), AppendError> {
    let failed = |error: IndexError| AppendError::Failed(error.to_string().into());
    bringing.blobs = commit.blobs.iter().map(|(hash, _)| *hash).collect();
    let room = tokio::time::timeout(ROOM_WAIT, storage.index.room(&bringing.changes)).await;
    let room = room.map_err(|_| AppendError::Busy)?.map_err(failed)?;
    let index = storage.index.clone();
    let appended = storage.log.commit_with(commit, move |appended| index.begin(appended.end())).await;
    if matches!(appended, Err(AppendError::Failed(_))) {
        storage.incarnations.redraw();
    }
    if matches!(appended, Ok(_) | Err(AppendError::Failed(_))) {
        // After a failure the epoch may still be in the log after a restart, so its files stay until then.
        bringing.files.into_iter().for_each(Staged::keep);
    }
    let (Appended { blobs, epochs }, slot) = appended?;
    failpoint::reached("index.begun");
    let blobs: Vec<_> = bringing.blobs.into_iter().zip(blobs).collect();
    let ids = bringing.changes.iter().filter_map(|change| match change {
        Change::Epoch(new) => Some(new.id),
        Change::Delegation { .. } | Change::Operation(_) | Change::Dead { .. } | Change::Winner { .. } => None,
    });
    let epochs = ids.zip(epochs).collect();
    let durable = Durable { changes: &bringing.changes, blobs: &blobs, epochs: &epochs };
    // What the index cannot show must not be built upon: the slot stays empty, and that ends the index.
    let batches = hosted.index.batches(&durable).map_err(failed)?;
    slot.fill(room, batches).map_err(failed)?;
    hosted.advance(&bringing.changes);
    storage.shared.handle_committed(&hosted.index, &hosted.dag(), &bringing.changes);
    Ok(())
}

impl Actor for SpaceActor {
    type Context = Context<Self>;
}

impl Handler<Deliver> for SpaceActor {
    type Result = ();

    fn handle(&mut self, message: Deliver, ctx: &mut Context<Self>) {
        if ctx.state() != ActorState::Running {
            return;
        }
        if let Some(request) = message.take() {
            self.take(request, ctx);
        }
    }
}

impl Handler<Rest> for SpaceActor {
    type Result = ();

    fn handle(&mut self, _: Rest, ctx: &mut Context<Self>) {
        if self.waiting.is_empty() && !self.committing {
            ctx.stop();
        }
    }
}

#[cfg(test)]
impl Handler<crate::messages::Panic> for SpaceActor {
    type Result = ();

    fn handle(&mut self, _: crate::messages::Panic, _: &mut Context<Self>) {
        panic!("as asked");
    }
}
