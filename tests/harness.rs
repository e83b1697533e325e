//! What the tests of the whole system share: nodes in processes of their own, requests byte by byte, and tokens good
//! and bad.

pub(crate) mod cli;
pub(crate) mod cluster;
pub(crate) mod disk;
pub(crate) mod http;
pub(crate) mod peer;
pub(crate) mod process;
pub(crate) mod tokens;

pub(crate) use self::{
    cluster::{Cluster, Place},
    http::{Connection, Request, Response, get, post},
    process::{Node, Setup},
    tokens::{Owner, Session, Statement},
};

/// Whether this run has time for the long rounds.
pub(crate) fn is_long() -> bool {
    std::env::var_os("KVSPACE_LONG").is_some()
}
