//! What can go wrong over HTTP: one table of statuses, codes and words.
//!
//! The code in `x-kvspace-error` is stable; the words are for people, apart from those that TinyCloud clients parse.

use std::borrow::Cow;

use kvspace_actors::{disk::is_full, node::NodeError};
use kvspace_protocol::{
    authority::Denied,
    capability::{InvalidSignature, TokenError},
    id::EpochId,
    space::Refusal,
};
use warp::{
    http::{HeaderValue, StatusCode, header},
    reply::{Reply, Response},
};

use super::headers::{X_KVSPACE_ERROR, text};

/// An answer that says no.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HttpError {
    status: StatusCode,
    code: &'static str,
    words: Cow<'static, str>,
    retry_after_s: Option<u32>,
    connection: Connection,
}

/// What becomes of the connection after an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Connection {
    Kept,
    Closed,
}

/// What a token was sent for. It decides the words, and whether a lack of authority is 401 or 403.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    Invoke,
    Delegate,
    Revoke,
}

impl Call {
    fn expired(self) -> &'static str {
        match self {
            Self::Invoke => "Invocation expired or not yet valid",
            Self::Delegate => "Delegation expired or not yet valid",
            Self::Revoke => "Revocation expired or not yet valid",
        }
    }

    fn unauthorized(self) -> StatusCode {
        match self {
            Self::Invoke | Self::Delegate => StatusCode::UNAUTHORIZED,
            Self::Revoke => StatusCode::FORBIDDEN,
        }
    }
}

impl HttpError {
    fn new(status: StatusCode, code: &'static str, words: impl Into<Cow<'static, str>>) -> Self {
        Self { status, code, words: words.into(), retry_after_s: None, connection: Connection::Kept }
    }

    fn retry_after_s(self, seconds: u32) -> Self {
        Self { retry_after_s: Some(seconds), ..self }
    }

    /// 400 for a request that does not say what it should.
    pub(crate) fn bad_request(code: &'static str, words: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, words)
    }

    /// 401 without a token.
    pub(crate) fn missing_token() -> Self {
        let words = "this needs a token: send it in the header Authorization, without a scheme before it";
        Self::new(StatusCode::UNAUTHORIZED, "token_missing", words)
    }

    /// 401 for what is no token.
    pub(crate) fn malformed_token(words: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "token_malformed", words)
    }

    /// A token of another role than its route takes.
    pub(crate) fn wrong_role(call: Call, words: &'static str) -> Self {
        Self::new(call.unauthorized(), "token_role", words)
    }

    /// A token outside its time.
    pub(crate) fn expired(call: Call) -> Self {
        Self::new(call.unauthorized(), "token_expired", call.expired())
    }

    /// A signature that is not the issuer's.
    pub(crate) fn signature(call: Call) -> Self {
        Self::new(call.unauthorized(), "token_signature", InvalidSignature.to_string())
    }

    /// An invocation that would live too long.
    pub(crate) fn lifetime() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "token_lifetime", "Invocation lifetime exceeds server maximum")
    }

    /// A write by a token that is addressed to somebody else.
    pub(crate) fn audience(resource: &str, ability: &str) -> Self {
        let words = format!("Unauthorized Action: {resource} / {ability}");
        Self::new(StatusCode::UNAUTHORIZED, "audience_mismatch", words)
    }

    /// A capability that no node can grant.
    pub(crate) fn unauthorized(resource: &str, ability: &str) -> Self {
        let words = format!("Unauthorized Action: {resource} / {ability}");
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized_action", words)
    }

    /// A token that says nothing about the space it is shown for.
    pub(crate) fn elsewhere() -> Self {
        let words = "the token names no capability in this space";
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized_action", words)
    }

    /// Several capabilities in one invocation.
    pub(crate) fn batch() -> Self {
        let words = "Multiple invocation outcomes require a homogeneous KV get or metadata batch";
        Self::new(StatusCode::NOT_IMPLEMENTED, "batch_unsupported", words)
    }

    /// A form with several values.
    pub(crate) fn multipart() -> Self {
        let words = "this node takes no multipart/form-data: put each value with a request of its own";
        Self::new(StatusCode::NOT_IMPLEMENTED, "batch_unsupported", words)
    }

    /// A key without a value.
    pub(crate) fn key_not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "key_not_found", "Key not found")
    }

    /// A value above what the client takes.
    pub(crate) fn response_too_large(size: u64, limit: u64) -> Self {
        let words = format!("KV response is {size} bytes, exceeding the requested limit of {limit} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "response_too_large", words)
    }

    /// A body above what the node takes.
    pub(crate) fn body_too_large(limit: u64) -> Self {
        let words = format!("the value is larger than this node takes: at most {limit} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", words)
    }

    /// A body that stood still.
    pub(crate) fn body_timeout() -> Self {
        let words = "the body stood still for too long; nothing was stored";
        let error = Self::new(StatusCode::REQUEST_TIMEOUT, "body_timeout", words);
        Self { connection: Connection::Closed, ..error }
    }

    /// A body that ended before its time.
    pub(crate) fn body_incomplete() -> Self {
        let error = Self::bad_request("body_incomplete", "the body ended half-way; nothing was stored");
        Self { connection: Connection::Closed, ..error }
    }

    /// A path that leads nowhere.
    pub(crate) fn no_route() -> Self {
        Self::new(StatusCode::NOT_FOUND, "no_route", "there is nothing at this path")
    }

    /// A path that is there for another method.
    pub(crate) fn method() -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "this path is for another method")
    }

    /// A fault of ours.
    pub(crate) fn internal() -> Self {
        let words = "the node failed; its log says why";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", words)
    }

    fn storage(why: &str) -> Self {
        tracing::error!(why, "storage failed");
        let words = "storage failed, the node's log says why; nothing was changed";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "storage_failed", words)
    }

    fn disk_full() -> Self {
        let words = "the disk is full; nothing was stored. Deletes and reads go on";
        Self::new(StatusCode::INSUFFICIENT_STORAGE, "disk_full", words)
    }

    /// What stands in the way of staging a body.
    pub(crate) fn staging(error: &std::io::Error) -> Self {
        if is_full(error) { Self::disk_full() } else { Self::storage(&error.to_string()) }
    }

    /// Why a token could not be read.
    pub(crate) fn token(error: &TokenError) -> Self {
        Self::malformed_token(error.to_string())
    }

    /// Why the node did not do it.
    pub(crate) fn node(call: Call, error: &NodeError) -> Self {
        match error {
            NodeError::Denied(denied) => Self::denied(call, denied),
            NodeError::Refused(refusal) => Self::refused(call, refusal),
            NodeError::NotHosted => Self::new(StatusCode::NOT_FOUND, "space_not_found", "Space not found"),
            NodeError::NotAdmitted(_) => Self::new(StatusCode::FORBIDDEN, "not_admitted", error.to_string()),
            NodeError::Busy => {
                let words = "the node is busy; try again in a moment";
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "busy", words).retry_after_s(1)
            }
            NodeError::DiskFull => Self::disk_full(),
            NodeError::Storage(why) => Self::storage(why),
            NodeError::Behind(missing) => Self::behind(&error.to_string(), missing),
            NodeError::BlobPending => {
                let words = "the value's bytes are on their way to this node; try again";
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "blob_pending", words).retry_after_s(2)
            }
            NodeError::BlobGone => {
                let words = "the value's bytes were freed after another value had taken its place; write it again";
                Self::new(StatusCode::GONE, "blob_gone", words)
            }
            NodeError::CatchingUp => {
                let words = format!("{error}; try again in a moment, or write at another host");
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "catching_up", words).retry_after_s(2)
            }
            NodeError::Stopping => {
                let words = "the node is stopping; try again or ask another host";
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "stopping", words).retry_after_s(5)
            }
        }
    }

    fn behind(what: &str, missing: &[EpochId]) -> Self {
        let ids: Vec<_> = missing.iter().map(ToString::to_string).collect();
        let words = format!("{what}; try again, or ask another host. Missing: {}", ids.join(" "));
        Self::new(StatusCode::TOO_EARLY, "frontier_behind", words).retry_after_s(1)
    }

    fn denied(call: Call, denied: &Denied) -> Self {
        let code = match denied {
            Denied::MissingParent(_) => "proof_missing",
            Denied::Delegator(_) => "unauthorized_delegator",
            Denied::Capability { .. } => "unauthorized_capability",
            Denied::Action { .. } => "unauthorized_action",
            Denied::ExpiryExceedsParent | Denied::NotBeforePrecedesParent => "outside_parent_time",
            Denied::TerminalParent => "terminal_parent",
            Denied::TooManyProofs => "too_many_proofs",
            Denied::Caveats { .. } => "caveats_widened",
            Denied::ParentRevoked(_)
            | Denied::ParentAncestorRevoked { .. }
            | Denied::Revoked(_)
            | Denied::AncestorRevoked { .. } => "delegation_revoked",
            Denied::Revoker => "unauthorized_revoker",
        };
        Self::new(call.unauthorized(), code, denied.to_string())
    }

    fn refused(call: Call, refusal: &Refusal) -> Self {
        let (status, code) = match refusal {
            Refusal::Denied(denied) => return Self::denied(call, denied),
            Refusal::Expired => return Self::expired(call),
            Refusal::Behind(missing) => {
                return Self::behind(&refusal.to_string(), missing);
            }
            Refusal::Clock => {
                let words = format!("{refusal}; its operator has to set it");
                return Self::new(StatusCode::SERVICE_UNAVAILABLE, "clock", words).retry_after_s(60);
            }
            Refusal::Duplicate => (StatusCode::CONFLICT, "duplicate"),
            Refusal::Precondition => (StatusCode::PRECONDITION_FAILED, "precondition_failed"),
            Refusal::NoSuchKey(_) => (StatusCode::NOT_FOUND, "key_not_found"),
            Refusal::Content => (StatusCode::BAD_REQUEST, "content_mismatch"),
            Refusal::NoKey => (StatusCode::BAD_REQUEST, "no_key"),
            Refusal::NotHost => (StatusCode::FORBIDDEN, "not_host"),
            Refusal::Full => (StatusCode::INSUFFICIENT_STORAGE, "space_full"),
        };
        Self::new(status, code, refusal.to_string())
    }

    /// The answer.
    pub(crate) fn into_response(self) -> Response {
        let mut response = text(self.words.into_owned());
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(X_KVSPACE_ERROR, HeaderValue::from_static(self.code));
        if let Some(seconds) = self.retry_after_s {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if self.connection == Connection::Closed {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

impl Reply for HttpError {
    fn into_response(self) -> Response {
        Self::into_response(self)
    }
}

#[cfg(test)]
mod tests {
    use kvspace_protocol::id::{Address, EpochId};

    use super::*;

    fn of(call: Call, error: NodeError) -> (u16, &'static str, String) {
        let error = HttpError::node(call, &error);
        (error.status.as_u16(), error.code, error.words.into_owned())
    }

    #[test]
    fn the_words_that_clients_parse_are_kept() {
        let action = || {
            let (resource, ability) = ("tinycloud:key:z6Mk:default/kv/a".into(), "tinycloud.kv/get".into());
            NodeError::Denied(Denied::Action { resource, ability })
        };
        let words = "Unauthorized Action: tinycloud:key:z6Mk:default/kv/a / tinycloud.kv/get";
        assert_eq!(of(Call::Invoke, action()), (401, "unauthorized_action", words.into()));
        let missing = || NodeError::Denied(Denied::MissingParent(None));
        let words = "Cannot find parent delegation";
        assert_eq!(of(Call::Delegate, missing()), (401, "proof_missing", words.into()));
        assert_eq!(of(Call::Revoke, missing()), (403, "proof_missing", words.into()));
        let revoked = Address::of(b"token");
        let (status, code, words) = of(Call::Invoke, NodeError::Denied(Denied::Revoked(revoked)));
        assert_eq!((status, code, words), (401, "delegation_revoked", format!("delegation-revoked: {revoked}")));
    }

    #[test]
    fn each_refusal_has_its_status_and_code() {
        for (refusal, status, code) in [
            (Refusal::Duplicate, 409, "duplicate"),
            (Refusal::Precondition, 412, "precondition_failed"),
            (Refusal::NoSuchKey("a".into()), 404, "key_not_found"),
            (Refusal::Content, 400, "content_mismatch"),
            (Refusal::NotHost, 403, "not_host"),
            (Refusal::Full, 507, "space_full"),
            (Refusal::Clock, 503, "clock"),
            (Refusal::Expired, 401, "token_expired"),
            (Refusal::Behind(vec![EpochId::of(b"e")]), 425, "frontier_behind"),
        ] {
            let (found, name, _) = of(Call::Invoke, NodeError::Refused(refusal));
            assert_eq!((found, name), (status, code));
        }
    }

    #[test]
    fn a_host_that_lags_names_what_it_lacks() {
        let epoch = EpochId::of(b"e");
        let (_, _, words) = of(Call::Invoke, NodeError::Refused(Refusal::Behind(vec![epoch])));
        assert!(words.contains(&epoch.to_string()), "{words}");
    }

    #[test]
    fn faults_of_the_node_are_5xx_and_never_401() {
        for (error, status, code) in [
            (NodeError::DiskFull, 507, "disk_full"),
            (NodeError::Storage("/data/log: Input/output error".into()), 503, "storage_failed"),
            (NodeError::Busy, 503, "busy"),
            (NodeError::BlobPending, 503, "blob_pending"),
            (NodeError::Stopping, 503, "stopping"),
            (NodeError::CatchingUp, 503, "catching_up"),
        ] {
            for call in [Call::Invoke, Call::Delegate, Call::Revoke] {
                let (found, name, words) = of(call, error_like(&error));
                assert_eq!((found, name), (status, code));
                assert!(!words.contains("/data"), "{words}");
            }
        }
    }

    fn error_like(error: &NodeError) -> NodeError {
        match error {
            NodeError::Storage(why) => NodeError::Storage(why.clone()),
            NodeError::DiskFull => NodeError::DiskFull,
            NodeError::BlobPending => NodeError::BlobPending,
            NodeError::Stopping => NodeError::Stopping,
            NodeError::CatchingUp => NodeError::CatchingUp,
            NodeError::Denied(_)
            | NodeError::Refused(_)
            | NodeError::NotHosted
            | NodeError::NotAdmitted(_)
            | NodeError::BlobGone
            | NodeError::Behind(_)
            | NodeError::Busy => NodeError::Busy,
        }
    }

    #[test]
    fn a_missing_key_is_not_mistaken_for_a_missing_space() {
        assert!(!HttpError::key_not_found().words.to_lowercase().contains("space not found"));
        assert!(!HttpError::no_route().words.to_lowercase().contains("space not found"));
    }

    #[test]
    fn an_answer_carries_code_and_retry() {
        let response = HttpError::node(Call::Invoke, &NodeError::Busy).into_response();
        assert_eq!(response.headers()[X_KVSPACE_ERROR], "busy");
        assert_eq!(response.headers()[header::RETRY_AFTER], "1");
        let response = HttpError::body_timeout().into_response();
        assert_eq!(response.headers()[header::CONNECTION], "close");
    }
}
