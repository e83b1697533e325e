//! `/delegate` and `/revoke`: tokens that change who may do what.

use kvspace_actors::clock;
use kvspace_protocol::capability::Role;
use serde::Serialize;
use serde_json::json;
use warp::{http::HeaderMap, reply::Response};

use crate::http::{
    Context, auth,
    error::{Call, HttpError},
    headers,
};

/// What `/delegate` answers, in the order that clients compare.
#[derive(Serialize)]
struct Delegated<'a> {
    cid: String,
    activated: Vec<&'a str>,
    skipped: Vec<&'a str>,
}

/// Takes a delegation in.
pub(super) async fn delegate(context: &Context, headers: &HeaderMap) -> Result<Response, HttpError> {
    let token = auth::token(headers)?;
    let now = clock::now();
    match token.role() {
        Role::Delegation => {}
        Role::Invocation => {
            return Err(HttpError::wrong_role(
                Call::Delegate,
                "this token names its own issuer as audience: it delegates nothing",
            ));
        }
        Role::Revocation { .. } => {
            return Err(HttpError::wrong_role(Call::Delegate, "this token is a revocation: post it to /revoke"));
        }
    }
    let held = context.node.delegated(&token).map_err(|error| HttpError::node(Call::Delegate, &error))?;
    let done = match held {
        Some(held) => held,
        None => {
            let proof = auth::verified(Call::Delegate, token, now)?;
            let taken = context.node.delegate(proof, now).await;
            taken.map_err(|error| HttpError::node(Call::Delegate, &error))?
        }
    };
    let answer = Delegated {
        cid: done.cid.to_string(),
        activated: done.activated.iter().map(|space| space.as_str()).collect(),
        skipped: done.skipped.iter().map(|space| space.as_str()).collect(),
    };
    Ok(headers::json(serde_json::to_vec(&answer).expect("texts are JSON")))
}

/// Takes a revocation in.
pub(super) async fn revoke(context: &Context, headers: &HeaderMap) -> Result<Response, HttpError> {
    let token = auth::token(headers)?;
    let now = clock::now();
    if !matches!(token.role(), Role::Revocation { .. }) {
        return Err(HttpError::wrong_role(Call::Revoke, "Unauthorized Revoker"));
    }
    let proof = auth::verified(Call::Revoke, token, now)?;
    let revoked = context.node.revoke(proof, now).await.map_err(|error| HttpError::node(Call::Revoke, &error))?;
    Ok(headers::json(format!(r#"{{"revoked":true,"cid":{}}}"#, json!(revoked.to_string()))))
}
