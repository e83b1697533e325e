//! Every message between the parts of a node.

use std::sync::{Arc, Mutex, PoisonError};

use actix::Message;
use kvspace_protocol::{
    authority::Proof,
    space::{Reply, Write},
};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::{blobs::Staged, node::NodeError};

/// What a space is asked to do.
#[derive(Debug)]
pub(crate) enum Call {
    /// Put or delete a key.
    Write(Write),
    /// Take in a delegation or revocation, and before it what it rests on.
    Token { token: Proof, borrowed: Vec<Proof> },
}

/// A call, whom to answer, and what it holds until then.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) call: Call,
    pub(crate) reply: oneshot::Sender<Result<Reply, NodeError>>,
    pub(crate) held: Held,
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
