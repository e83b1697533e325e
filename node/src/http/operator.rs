//! What the operator sees, on a listener of its own without authentication.

use std::sync::Arc;

use kvspace_actors::node::{SpaceStatus, Status};
use kvspace_protocol::id::SpaceId;
use serde::Deserialize;
use serde_json::{Value, json};
use warp::{Filter, filters::BoxedFilter, reply::Response};

use super::{
    Context, answer,
    error::{Call, HttpError},
    headers, healthz, rejected, with,
};

mod metrics;
mod peers;

/// Spaces in one answer, if the operator does not say.
const SPACES: usize = 1_000;

/// Which spaces to show.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Which {
    /// Those after this one.
    after: Option<SpaceId>,
    /// At most so many.
    limit: Option<usize>,
}

/// `GET /status?after=<space>&limit=<n>`, `GET /metrics`, `GET /healthz`, and what there is beneath `/peers`
pub(crate) fn routes(context: &Arc<Context>) -> BoxedFilter<(Response,)> {
    let status = warp::path!("status")
        .and(warp::get())
        .and(with(context))
        .and(warp::query())
        .map(|context: Arc<Context>, which: Which| answer(status(&context, &which)));
    let others = peers::routes(context).or(metrics::routes(context)).unify();
    healthz().or(status).unify().or(others).unify().recover(rejected).unify().boxed()
}

fn status(context: &Context, which: &Which) -> Result<Response, HttpError> {
    let status = context.node.status(which.after.as_ref(), which.limit.unwrap_or(SPACES));
    let status = status.map_err(|error| HttpError::node(Call::Invoke, &error))?;
    let mut document = document(context.node.did().as_str(), &status);
    let peers = context.node.peers();
    let connected = peers.iter().filter(|peer| peer.connected.is_some()).count();
    document["p2p"] = json!(context.node.p2p_addresses());
    document["peers"] = json!({ "known": peers.len(), "connected": connected });
    Ok(headers::json(document.to_string()))
}

fn document(did: &str, status: &Status) -> Value {
    json!({
        "did": did,
        "version": env!("CARGO_PKG_VERSION"),
        "storage": {
            "segments": status.storage.segments,
            "log_bytes": status.storage.log_bytes,
            "free_bytes": status.storage.free_bytes,
            "is_short": status.storage.is_short,
            "index_failure": status.storage.index_failure,
            "damaged": status.storage.damaged,
        },
        "active": status.active,
        "parked": status.parked,
        "spaces": status.spaces.iter().map(space).collect::<Vec<_>>(),
        "has_more": status.has_more,
    })
}

fn space(status: &SpaceStatus) -> Value {
    json!({
        "space": status.space,
        "epochs": status.summary.epochs,
        "log_bytes": status.summary.epoch_bytes + status.summary.value_bytes,
        "epoch_bytes": status.summary.epoch_bytes,
        "keys": status.summary.keys,
        "live_bytes": status.summary.live_bytes,
        "frontier": status.frontier,
        "active": status.active,
    })
}

#[cfg(test)]
mod tests {
    use kvspace_actors::node::{StorageStatus, Summary};
    use kvspace_protocol::id::{Did, EpochId};

    use super::*;

    #[test]
    fn the_status_names_each_space_with_its_figures() {
        let owner = Did::from_ed25519(&[1; 32]);
        let space = SpaceId::new(&owner, "default").expect("a space");
        let frontier = vec![EpochId::of(b"epoch")];
        let summary = Summary { epochs: 3, keys: 2, live_bytes: 10, epoch_bytes: 300, value_bytes: 40 };
        let active = SpaceStatus { space, summary, frontier: frontier.clone(), active: true };
        let storage = StorageStatus { damaged: 7, ..StorageStatus::default() };
        let status = Status { spaces: vec![active], has_more: false, active: 1, parked: 1, storage };
        let document = document(owner.as_str(), &status);
        assert_eq!(document["did"], owner.as_str());
        assert_eq!(document["spaces"][0]["frontier"][0], frontier[0].to_string());
        assert_eq!(document["spaces"][0]["log_bytes"], 340);
        assert_eq!((&document["parked"], &document["storage"]["damaged"]), (&json!(1), &json!(7)));
    }
}
