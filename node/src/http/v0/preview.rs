//! `/v0/revoke/preview`: what a revocation would do.

use kvspace_actors::clock;
use kvspace_client::hosts::{Preview, Voided};
use kvspace_protocol::capability::Role;
use warp::{http::HeaderMap, reply::Response};

use super::document;
use crate::http::{
    Context, auth,
    error::{Call, HttpError},
};

/// Writes in one answer.
const VOIDED_MAX: usize = 256;

/// The writes that a signed revocation would void, for whom `/revoke` would obey. Nothing is taken in.
pub(super) async fn preview(context: &Context, headers: &HeaderMap) -> Result<Response, HttpError> {
    let token = auth::token(headers)?;
    let now = clock::now();
    if !matches!(token.role(), Role::Revocation { .. }) {
        return Err(HttpError::wrong_role(Call::Revoke, "Unauthorized Revoker"));
    }
    let proof = auth::verified(Call::Revoke, token, now)?;
    let previewed = context.node.preview(proof, now, VOIDED_MAX).await;
    let (voided, has_more) = previewed.map_err(|error| HttpError::node(Call::Revoke, &error))?;
    let voided = voided.into_iter().map(|voided| Voided {
        key: voided.key.to_string(),
        version: voided.version.to_string(),
        wins: voided.wins,
    });
    Ok(document(&Preview { voided: voided.collect(), has_more }))
}
