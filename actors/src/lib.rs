//! The parts of a kvspace node that do IO: log, index, blobs, and one actor for each active space.
#![warn(missing_docs)]

pub mod backup;
pub mod blobs;
pub mod clock;
pub mod disk;
pub mod failpoint;
mod fetch;
mod hosted;
mod incarnation;
mod index;
pub mod log;
mod messages;
mod net;
pub mod node;
mod pool;
pub mod records;
mod registry;
mod replication;
mod serve;
mod shared_spaces;
mod space;
mod spaces;
pub mod verify;

pub use node::StartError;
