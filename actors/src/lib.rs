//! The node's parts that do IO: the log, the blobs and the data folder they lie in.
#![warn(missing_docs)]

pub mod blobs;
pub mod disk;
pub mod log;
