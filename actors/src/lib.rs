//! The parts of a kvspace node that do IO: log, index, blobs, and one actor for each active space.
#![warn(missing_docs)]

pub mod blobs;
pub mod clock;
pub mod disk;
pub mod log;
pub mod node;
