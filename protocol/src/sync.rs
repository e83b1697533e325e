//! How hosts bring each other up to date.
//!
//! Three protocols, each a request and its answer in canonical DAG-CBOR (see [`message`]): two hosts compare the spaces they
//! share ([`compare`]), one pulls from the other what it lacks ([`have`], [`serve_pull`]), and a host pushes what it has just
//! committed. The side that answers keeps no state about the other: the log is the cursor. Correctness never depends on a
//! push arriving.
//!
//! [`Replicator`] says when to ask whom for what; it holds no epochs and reads nothing. Whoever drives it makes the requests
//! from a [`Source`], sends them, hands what comes back to the [`Space`](crate::space::Space) and tells it the outcome.

pub mod blob;
pub mod compare;
pub mod have;
pub mod message;
#[cfg(test)]
mod play;
mod replicator;
mod serve;

pub use have::Have;
pub use message::{BrokenMessage, Cursor, Pushed, Refused, Request, Response, Sent, Verdict};
pub use replicator::{
    Ask, Asked, Call, Committed, Compared, Known, New, Output, PeerState, Pull, Pulled, Replicator, Settings,
};
pub use serve::{Source, serve_get, serve_pull};
