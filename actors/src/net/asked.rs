//! A request of a peer, and the way back for its answer.

use bytes::Bytes;
use kvspace_protocol::{id::HostKey, limits::MESSAGE_BYTES_MAX};
use libp2p::request_response::ResponseChannel;
use tokio::sync::mpsc;

use super::{
    Protocol,
    codec::{Message, Room},
};

/// A request of a peer. Dropped without an answer, it is refused.
#[derive(Debug)]
pub(crate) struct Asked {
    /// Who asks.
    pub(crate) peer: HostKey,
    /// What about.
    pub(crate) protocol: Protocol,
    /// The request.
    pub(crate) body: Bytes,
    back: Option<Back>,
    /// The body's share of the memory for requests.
    _room: Option<Room>,
}

/// The way back: a place in the queue of answers that was kept when the request came, so that answering never waits.
#[derive(Debug)]
pub(super) struct Back {
    pub(super) place: mpsc::OwnedPermit<Answer>,
    pub(super) channel: ResponseChannel<Message>,
}

/// An answer on its way to the swarm.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) protocol: Protocol,
    pub(super) channel: ResponseChannel<Message>,
    pub(super) bytes: Bytes,
}

impl Asked {
    pub(super) fn new(peer: HostKey, protocol: Protocol, request: Message, back: Back) -> Self {
        Self { peer, protocol, body: request.bytes, back: Some(back), _room: request.room }
    }

    /// Answers. An empty answer is a refusal, and one that is larger than a message may be becomes one.
    pub(crate) fn answer(mut self, bytes: Bytes) {
        if bytes.len() > MESSAGE_BYTES_MAX {
            tracing::warn!(peer = ?self.peer, bytes = bytes.len(), "an answer is too large to be sent");
            return;
        }
        self.reply(bytes);
    }

    fn reply(&mut self, bytes: Bytes) {
        if let Some(Back { place, channel }) = self.back.take() {
            place.send(Answer { protocol: self.protocol, channel, bytes });
        }
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.reply(Bytes::new());
    }
}
