//! Every message between the parts of a node.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

use actix::Message;
use kvspace_protocol::{
    authority::Proof,
    dag::Fork,
    id::{EpochId, HostKey, Key, SpaceId},
    kv::{Operation, Value},
    space::{Arrived, Explained, Preview, Reply, Taken, WaitingEpoch, Write},
    sync::Sent,
};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::{blobs::Staged, node::NodeError};

/// Where the answer to a call goes.
pub(crate) type Answer<T> = oneshot::Sender<Result<T, NodeError>>;

/// What a space is asked to do or to tell, and whom to answer.
#[derive(Debug)]
pub(crate) enum Call {
    /// Put or delete a key.
    Write(Write, Answer<Reply>),
    /// Take in a delegation or revocation, and before it what it rests on.
    Token { token: Proof, borrowed: Vec<Proof>, answer: Answer<Reply> },
    /// Take in epochs that a peer brought; answered when those that can be taken in are durable.
    Epochs { from: Option<HostKey>, epochs: Vec<Arrived>, answer: Answer<Taken> },
    /// What each of these operations is worth, newest first.
    Explain(Vec<Operation>, Answer<Vec<Explained>>),
    /// What a revocation would newly void.
    Preview { token: Proof, borrowed: Vec<Proof>, max: usize, answer: Answer<Preview> },
    /// What is not yet.
    Waiting(Answer<WaitingRoom>),
}

impl Call {
    /// Answers that it failed. A caller that has gone away needs no answer.
    pub(crate) fn fail(self, error: NodeError) {
        match self {
            Self::Write(_, answer) | Self::Token { answer, .. } => drop(answer.send(Err(error))),
            Self::Epochs { answer, .. } => drop(answer.send(Err(error))),
            Self::Explain(_, answer) => drop(answer.send(Err(error))),
            Self::Preview { answer, .. } => drop(answer.send(Err(error))),
            Self::Waiting(answer) => drop(answer.send(Err(error))),
        }
    }
}

/// A call and what it holds until it is answered.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) call: Call,
    pub(crate) held: Held,
}

/// What a space has that is not yet, and what was seen of forks.
#[derive(Debug, Clone, Default)]
pub(crate) struct WaitingRoom {
    /// Epochs that wait for an ancestor or the clock.
    pub(crate) waiting: Vec<WaitingEpoch>,
    /// Ancestors they lack.
    pub(crate) missing: Vec<EpochId>,
    /// Chains of which two epochs have one number.
    pub(crate) forks: Vec<Fork>,
}

/// A commit that is durable, for whoever passes it on.
#[derive(Debug)]
pub(crate) struct DurableCommit {
    pub(crate) space: SpaceId,
    /// Its epochs, ancestors first.
    pub(crate) epochs: Vec<CommittedEpoch>,
    /// The space's other hosts, those that it names among them.
    pub(crate) hosts: Vec<HostKey>,
    /// Hosts that a delegation in it names.
    pub(crate) named: BTreeSet<HostKey>,
    /// The values that win with it and did not come with it.
    pub(crate) wanted: Vec<WantedValue>,
}

/// A value whose bytes may have to be fetched.
#[derive(Debug, Clone)]
pub(crate) struct WantedValue {
    /// The key that holds it.
    pub(crate) key: Key,
    /// The epoch that put it there.
    pub(crate) epoch: EpochId,
    /// Hash, size and headers.
    pub(crate) value: Arc<Value>,
}

/// An epoch of a commit.
#[derive(Debug)]
pub(crate) struct CommittedEpoch {
    /// The epoch with the inline values that are at hand.
    pub(crate) sent: Arc<Sent>,
    /// Hosts that are known to have it; none for an own epoch.
    pub(crate) told: BTreeSet<HostKey>,
}

/// What a call keeps from others until it is answered.
#[derive(Debug, Default)]
pub(crate) struct Held {
    /// The node does not end meanwhile.
    pub(crate) under_way: Option<OwnedSemaphorePermit>,
    /// Its place among the calls of its space.
    pub(crate) place: Option<OwnedSemaphorePermit>,
    /// Its share of the memory for bodies.
    pub(crate) bytes: Option<OwnedSemaphorePermit>,
    /// The file of a large value.
    pub(crate) file: Option<Staged>,
}

/// A request on its way to an actor. If the actor is gone before it looks at it, the sender still has it.
#[derive(Clone)]
pub(crate) struct Deliver(Arc<Mutex<Option<Request>>>);

impl Message for Deliver {
    type Result = ();
}

impl Deliver {
    pub(crate) fn new(request: Request) -> Self {
        Self(Arc::new(Mutex::new(Some(request))))
    }

    /// Takes the request; the second taker finds nothing.
    pub(crate) fn take(&self) -> Option<Request> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Whether nobody has taken it.
    pub(crate) fn is_untouched(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }
}

/// Stop if there is nothing to do.
pub(crate) struct Rest;

impl Message for Rest {
    type Result = ();
}

/// Panic, as a fault in the code would.
#[cfg(test)]
pub(crate) struct Panic;

#[cfg(test)]
impl Message for Panic {
    type Result = ();
}
