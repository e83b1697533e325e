//! What can go wrong, and whose fault it is.

use std::io;

use super::identity::AddressError;

/// Why the network did not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NetError {
    /// A configured address is none.
    #[error("{address:?} cannot be used: {error}")]
    Address {
        /// The address as configured.
        address: String,
        /// What is wrong with it.
        error: AddressError,
    },
    /// An address to listen on cannot be bound.
    #[error("cannot listen on {address}: {reason}; free it or configure another one")]
    Listen {
        /// The address as configured.
        address: String,
        /// What the system says.
        reason: String,
    },
    /// Names cannot be resolved on this machine.
    #[error("cannot read how names are resolved ({0}); check /etc/resolv.conf")]
    Names(String),
    /// The local network cannot be searched.
    #[error("cannot look for nodes in the local network ({0}); turn mdns off or free UDP port 5353")]
    Mdns(io::Error),
    /// The transports cannot be set up.
    #[error("cannot set up the transports: {0}")]
    Transport(String),
}

/// Why there is no answer, or no stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AskError {
    /// The peer is not connected, or went away before it answered.
    #[error("the peer is not connected")]
    NotConnected,
    /// The peer did not answer in time.
    #[error("the peer did not answer in time")]
    TimedOut,
    /// The request or the answer is larger than a message may be.
    #[error("the message is too large")]
    TooLarge,
    /// The peer does not answer this.
    #[error("the peer refused")]
    Refused,
    /// Too much is asked of this peer already.
    #[error("too many requests wait for this peer")]
    Busy,
    /// The network has stopped.
    #[error("the network has stopped")]
    Closed,
}
