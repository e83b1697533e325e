//! `/peers`: the nodes this one speaks to, and cutting one off.

use std::sync::Arc;

use kvspace_actors::node::replicas::PeerStatus;
use kvspace_protocol::id::Did;
use serde_json::{Value, json};
use warp::{Filter, filters::BoxedFilter, reply::Response};

use crate::http::{Context, answer, error::HttpError, headers, with};

/// `GET /peers`, `POST /peers/<did>/block` and `POST /peers/<did>/unblock`
pub(super) fn routes(context: &Arc<Context>) -> BoxedFilter<(Response,)> {
    let list = warp::path!("peers")
        .and(warp::get())
        .and(with(context))
        .map(|context: Arc<Context>| headers::json(document(&context.node.peers()).to_string()))
        .boxed();
    let verb = |verb: &'static str, is_blocked: bool| {
        warp::path!("peers" / String / ..)
            .and(warp::path(verb))
            .and(warp::path::end())
            .and(warp::post())
            .and(with(context))
            .map(move |peer: String, context: Arc<Context>| answer(block(&context, &peer, is_blocked)))
            .boxed()
    };
    list.or(verb("block", true)).unify().or(verb("unblock", false)).unify().boxed()
}

fn block(context: &Context, peer: &str, is_blocked: bool) -> Result<Response, HttpError> {
    let peer = peer_did(peer)?;
    context.node.block(&peer, is_blocked);
    tracing::info!(%peer, is_blocked, "the operator cuts a peer off or lets it come back");
    Ok(headers::json(json!({ "peer": peer, "is_blocked": is_blocked }).to_string()))
}

/// A node's DID in a path, percent-encoded or as it is.
fn peer_did(text: &str) -> Result<Did, HttpError> {
    let did = text.replace("%3A", ":").replace("%3a", ":").parse::<Did>().ok();
    let words = "name a node by its did:key:z6Mk…, as kvspace peers shows it";
    did.filter(|did| did.ed25519().is_some()).ok_or_else(|| HttpError::bad_request("peer_malformed", words))
}

fn document(peers: &[PeerStatus]) -> Value {
    json!({ "peers": peers.iter().map(peer).collect::<Vec<_>>() })
}

fn peer(peer: &PeerStatus) -> Value {
    json!({
        "peer": peer.peer,
        "connected_ms": peer.connected,
        "addresses": peer.addresses,
        "is_blocked": peer.is_blocked,
        "next_dial_ms": peer.next_dial,
        "last_error": peer.last_error,
        "compared_ms": peer.compared,
        "spaces_behind": peer.behind,
        "epochs_to_push": peer.to_push.0,
        "bytes_to_push": peer.to_push.1,
        "epochs_refused": peer.refused,
    })
}

#[cfg(test)]
pub(super) mod tests {
    use kvspace_protocol::id::Millis;

    use super::*;

    /// A peer with a figure everywhere.
    pub(in crate::http::operator) fn some_peer() -> PeerStatus {
        PeerStatus {
            peer: Did::from_ed25519(&[2; 32]),
            connected: Some(Millis(1)),
            addresses: vec!["/ip4/127.0.0.1/tcp/1".into()],
            is_blocked: false,
            next_dial: None,
            last_error: Some("refused".into()),
            compared: Some(Millis(2)),
            behind: 3,
            to_push: (4, 5),
            refused: 6,
        }
    }

    #[test]
    fn a_peer_is_shown_with_all_its_figures() {
        let document = document(&[some_peer()]);
        let peer = &document["peers"][0];
        assert_eq!(peer["peer"], some_peer().peer.as_str());
        assert_eq!(
            (&peer["connected_ms"], &peer["next_dial_ms"], &peer["compared_ms"]),
            (&json!(1), &Value::Null, &json!(2))
        );
        assert_eq!(
            (&peer["spaces_behind"], &peer["epochs_to_push"], &peer["bytes_to_push"]),
            (&json!(3), &json!(4), &json!(5))
        );
        assert_eq!((&peer["epochs_refused"], &peer["last_error"]), (&json!(6), &json!("refused")));
    }

    #[test]
    fn only_a_node_is_a_peer() {
        let did = Did::from_ed25519(&[2; 32]);
        assert_eq!(peer_did(did.as_str()), Ok(did.clone()));
        assert_eq!(peer_did(&did.as_str().replace(':', "%3A")), Ok(did));
        for bad in ["", "x", "did:web:a", "did:pkh:eip155:1:0xf39fd6e51aad88f6f4ce6ab8827279cfffb92266"] {
            assert!(peer_did(bad).is_err(), "{bad}");
        }
    }
}
