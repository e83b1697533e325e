//! What the operator sees, on a listener of its own without authentication.

use std::sync::Arc;

use kvspace_actors::node::{SpaceStatus, Status};
use serde_json::{Value, json};
use warp::{Filter, filters::BoxedFilter, reply::Response};

use super::{Context, headers, healthz, rejected, with};

/// `GET /status` and `GET /healthz`
pub(crate) fn routes(context: &Arc<Context>) -> BoxedFilter<(Response,)> {
    let status =
        warp::path!("status").and(warp::get()).and(with(context)).map(|context: Arc<Context>| status(&context));
    healthz().or(status).unify().recover(rejected).unify().boxed()
}

fn status(context: &Context) -> Response {
    let status = context.node.status();
    headers::json(document(context.node.did().as_str(), &status).to_string())
}

fn document(did: &str, status: &Status) -> Value {
    json!({
        "did": did,
        "version": env!("CARGO_PKG_VERSION"),
        "spaces": status.spaces.iter().map(space).collect::<Vec<_>>(),
        "parked": status.parked,
    })
}

fn space(status: &SpaceStatus) -> Value {
    json!({
        "space": status.space,
        "epochs": status.epochs,
        "keys": status.keys,
        "live_bytes": status.live_bytes,
        "frontier": status.frontier,
        "active": status.active,
    })
}

#[cfg(test)]
mod tests {
    use kvspace_protocol::id::{Did, EpochId, SpaceId};

    use super::*;

    #[test]
    fn the_status_names_each_space_with_its_figures() {
        let owner = Did::from_ed25519(&[1; 32]);
        let space = SpaceId::new(&owner, "default").expect("a space");
        let frontier = vec![EpochId::of(b"epoch")];
        let active =
            SpaceStatus { space, epochs: 3, keys: 2, live_bytes: 10, frontier: frontier.clone(), active: true };
        let status = Status { spaces: vec![active], parked: 1 };
        let document = document(owner.as_str(), &status);
        assert_eq!(document["did"], owner.as_str());
        assert_eq!(document["spaces"][0]["frontier"][0], frontier[0].to_string());
        assert_eq!(document["parked"], 1);
    }
}
