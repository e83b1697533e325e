//! `/v0/hosts`: who hosts a space, and how far each host is.

use kvspace_actors::{clock, node::replicas::Replica};
use kvspace_client::hosts::{Asked, Heard, Host, Hosts};
use warp::{http::HeaderMap, reply::Response};

use super::{document, member, refused};
use crate::http::{Context, error::HttpError};

/// The hosts of a space, for whoever may do anything in it.
pub(super) async fn hosts(context: &Context, headers: &HeaderMap, query: &str) -> Result<Response, HttpError> {
    let space = member(context, headers, query).await?;
    let frontier = context.node.frontier(&space).await.map_err(|error| refused(&error))?;
    let replicas = context.node.replicas(&space).await.map_err(|error| refused(&error))?;
    let hosts = replicas.into_iter().map(host).collect();
    Ok(document(&Hosts { space, now_ms: clock::now(), frontier, hosts }))
}

/// A host as clients see it.
pub(super) fn host(replica: Replica) -> Host {
    Host {
        host: replica.host,
        delegation: replica.delegation,
        until_ms: replica.until,
        is_revoked: replica.is_revoked,
        is_here: replica.is_here,
        is_connected: replica.is_connected,
        heard: replica.heard.map(|(heads, at_ms)| Heard { at_ms, heads }),
        missing: replica.missing,
        has_all: replica.has_all,
        asked: replica.asked.map(|(at_ms, what)| Asked { at_ms, what }),
    }
}
