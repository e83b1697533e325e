//! The kvspace format and its rules.
//!
//! Pure: no clock, socket, file or thread. Time and randomness are arguments, effects are returned values.
#![warn(missing_docs)]

pub mod capability;
pub mod id;
pub mod limits;
pub mod uri;
