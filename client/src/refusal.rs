//! The node's refusals: status, machine code and text.

use std::fmt;

use http::{HeaderMap, StatusCode, header};

use crate::error::Fault;

const CODE: &str = "x-kvspace-error";

/// What a node answered instead of doing it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What it means.
    pub kind: RefusalKind,
    /// The HTTP status.
    pub status: u16,
    /// The node's stable code, absent on nodes that have none.
    pub code: Option<String>,
    /// The node's words.
    pub message: String,
    /// When the node wants to be asked again, in seconds.
    pub retry_after_s: Option<u64>,
}

/// What a refusal means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalKind {
    /// 400: the request is malformed.
    Malformed,
    /// 401: the token is not good for this: expired, widened, revoked, or not signed by whom it says.
    Unauthorized,
    /// 402: the space has used up its quota.
    QuotaUsedUp,
    /// 403: not allowed here, whoever asks.
    Forbidden,
    /// 404: there is no such key.
    KeyNotFound,
    /// 404: the node does not host the space.
    SpaceNotHosted,
    /// 404 of something else.
    NotFound,
    /// 409: the token was used already.
    Replayed,
    /// 410: the key is there, its bytes are gone on all known hosts.
    Gone,
    /// 412: the precondition does not hold.
    PreconditionFailed,
    /// 413: the value is larger than the node or the quota takes.
    TooLarge,
    /// 425: the node has not seen yet what the token rests on.
    TooEarly,
    /// 429: too many requests.
    TooMany,
    /// 501: the node cannot do this.
    NotSupported,
    /// 503: not now.
    Busy,
    /// 507: the node's disk is full.
    DiskFull,
    /// Another 5xx.
    NodeFailed,
    /// Any other status.
    Other,
}

impl Refusal {
    /// Reads a refusal from the parts of an answer.
    pub(crate) fn parse(status: StatusCode, headers: &HeaderMap, body: &str) -> Self {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let html = text(header::CONTENT_TYPE.as_str()).is_some_and(|kind| kind.starts_with("text/html"));
        let said = if html { "" } else { body.trim() };
        let message: String = said.chars().filter(|c| !c.is_control() || *c == '\n').collect();
        Self {
            kind: RefusalKind::of(status, body),
            status: status.as_u16(),
            code: text(CODE).map(str::to_owned),
            message,
            retry_after_s: text(header::RETRY_AFTER.as_str()).and_then(|value| value.parse().ok()),
        }
    }
}

impl RefusalKind {
    fn of(status: StatusCode, body: &str) -> Self {
        match status.as_u16() {
            400 => Self::Malformed,
            401 => Self::Unauthorized,
            402 => Self::QuotaUsedUp,
            403 => Self::Forbidden,
            404 if body.to_ascii_lowercase().contains("space not found") => Self::SpaceNotHosted,
            404 => Self::NotFound,
            409 => Self::Replayed,
            410 => Self::Gone,
            412 => Self::PreconditionFailed,
            413 => Self::TooLarge,
            425 => Self::TooEarly,
            429 => Self::TooMany,
            501 => Self::NotSupported,
            503 => Self::Busy,
            507 => Self::DiskFull,
            500..=599 => Self::NodeFailed,
            _ => Self::Other,
        }
    }

    /// Who can mend it.
    #[must_use]
    pub fn fault(self) -> Fault {
        match self {
            Self::NotSupported | Self::Busy | Self::DiskFull | Self::NodeFailed | Self::TooEarly | Self::Gone => {
                Fault::Node
            }
            Self::Malformed
            | Self::Unauthorized
            | Self::QuotaUsedUp
            | Self::Forbidden
            | Self::KeyNotFound
            | Self::SpaceNotHosted
            | Self::NotFound
            | Self::Replayed
            | Self::PreconditionFailed
            | Self::TooLarge
            | Self::TooMany
            | Self::Other => Fault::Caller,
        }
    }

    pub(crate) fn advice(self) -> Option<&'static str> {
        match self {
            Self::Unauthorized => {
                Some("open a new session or ask for a delegation that covers it; check this computer's clock")
            }
            Self::QuotaUsedUp => Some("delete something, or ask the node's operator for more"),
            Self::Forbidden => Some("use another key or node, or ask the node's operator"),
            Self::SpaceNotHosted => Some("create the space at this node first"),
            Self::PreconditionFailed => Some("read the value again and decide anew"),
            Self::TooLarge => Some("store less at once"),
            Self::TooEarly | Self::TooMany | Self::Busy => Some("try again in a moment"),
            Self::DiskFull | Self::NodeFailed => Some("the node's operator has to look; its log says more"),
            Self::NotSupported => Some("this node cannot do that"),
            Self::Malformed | Self::KeyNotFound | Self::NotFound | Self::Replayed | Self::Gone | Self::Other => None,
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Malformed => "the node does not understand the request",
            Self::Unauthorized => "the node does not accept the authorization",
            Self::QuotaUsedUp => "the space has used up its quota",
            Self::Forbidden => "the node does not allow this",
            Self::KeyNotFound => "no such key",
            Self::SpaceNotHosted => "the node does not host this space",
            Self::NotFound => "not found",
            Self::Replayed => "the token was used already",
            Self::Gone => "the bytes of the value are gone",
            Self::PreconditionFailed => "the value is not in the state that was asked for",
            Self::TooLarge => "the value is too large",
            Self::TooEarly => "the node has not received yet what this rests on",
            Self::TooMany => "too many requests",
            Self::NotSupported => "the node does not support this",
            Self::Busy => "the node is busy",
            Self::DiskFull => "the node's disk is full",
            Self::NodeFailed => "the node failed",
            Self::Other => "the node refused",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.kind.words())?;
        if !self.message.is_empty() {
            write!(f, ": {}", self.message)?;
        }
        let code = self.code.as_deref().map_or_else(String::new, |code| format!(" {code}"));
        write!(f, " ({}{code})", self.status)
    }
}

impl std::error::Error for Refusal {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_keeps_code_and_words() {
        let mut headers = HeaderMap::new();
        headers.insert(CODE, "not_admitted".parse().expect("a header"));
        headers.insert(header::RETRY_AFTER, "3".parse().expect("a header"));
        let refusal = Refusal::parse(StatusCode::FORBIDDEN, &headers, "this node does not host you\n");
        assert_eq!(refusal.kind, RefusalKind::Forbidden);
        assert_eq!(refusal.retry_after_s, Some(3));
        assert_eq!(refusal.to_string(), "the node does not allow this: this node does not host you (403 not_admitted)");
    }

    #[test]
    fn a_missing_space_is_told_from_other_missing_things_and_html_is_not_shown() {
        let headers = HeaderMap::new();
        let space = Refusal::parse(StatusCode::NOT_FOUND, &headers, "Space not found");
        assert_eq!(space.kind, RefusalKind::SpaceNotHosted);
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, "text/html; charset=utf-8".parse().expect("a header"));
        let page = Refusal::parse(StatusCode::NOT_FOUND, &headers, "<html>404</html>");
        assert_eq!((page.kind, page.message.as_str()), (RefusalKind::NotFound, ""));
    }
}
