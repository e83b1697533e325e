//! The parts of a kvspace node that do IO: log, index, blobs, and one actor for each active space.
#![warn(missing_docs)]

pub mod clock;
pub mod node;
