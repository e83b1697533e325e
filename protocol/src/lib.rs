//! The kvspace format and its rules.
//!
//! Pure: no clock, socket, file or thread. Time and randomness are arguments, effects are returned values.
#![warn(missing_docs)]

pub mod authority;
pub mod capability;
pub mod dag;
pub mod epoch;
pub mod id;
pub mod kv;
pub mod limits;
pub mod space;
pub mod sync;
pub mod uri;
