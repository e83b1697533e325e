//! Errors of the command line, with their exit codes.

use std::{error::Error as StdError, fmt, path::Path};

use kvspace_client::{Error, RefusalKind};

/// Refused or failed.
pub(crate) const FAILED: u8 = 1;
/// Wrong usage.
pub(crate) const USAGE: u8 = 2;
/// There is no such value, space or key.
pub(crate) const NOT_FOUND: u8 = 3;
/// The node cannot be reached, or the connection broke.
pub(crate) const UNREACHABLE: u8 = 4;

/// Why a command failed, in words for people.
#[derive(Debug)]
pub(crate) struct CliError {
    /// The exit code.
    pub(crate) exit: u8,
    /// What failed.
    pub(crate) message: String,
    /// What to do.
    pub(crate) advice: Option<String>,
    /// The HTTP status of a refusal.
    pub(crate) status: Option<u16>,
    /// The node's code of a refusal.
    pub(crate) code: Option<String>,
}

impl CliError {
    pub(crate) fn new(exit: u8, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), advice: None, status: None, code: None }
    }

    /// The same with a word on what to do.
    pub(crate) fn advise(self, advice: impl Into<String>) -> Self {
        Self { advice: Some(advice.into()), ..self }
    }

    /// What the system said of a file.
    pub(crate) fn file(doing: &str, path: &Path, error: &std::io::Error) -> Self {
        Self::new(FAILED, format!("cannot {doing} {}: {error}", path.display()))
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<Error> for CliError {
    fn from(error: Error) -> Self {
        let refusal = error.refusal();
        Self {
            exit: exit(&error),
            message: error.to_string(),
            advice: error.advice().map(str::to_owned),
            status: refusal.map(|refusal| refusal.status),
            code: refusal.and_then(|refusal| refusal.code.clone()),
        }
    }
}

fn exit(error: &Error) -> u8 {
    match error {
        Error::Key(_) | Error::Meta(_) | Error::Space(_) | Error::NodeUrl(_) | Error::Secret => USAGE,
        Error::Unreachable { .. } | Error::Interrupted(_) | Error::Stalled { .. } => UNREACHABLE,
        Error::NotCreated(_) => NOT_FOUND,
        Error::Refused(refusal) => match refusal.kind {
            RefusalKind::KeyNotFound | RefusalKind::SpaceNotHosted | RefusalKind::NotFound => NOT_FOUND,
            RefusalKind::Malformed
            | RefusalKind::Unauthorized
            | RefusalKind::QuotaUsedUp
            | RefusalKind::Forbidden
            | RefusalKind::Replayed
            | RefusalKind::Gone
            | RefusalKind::PreconditionFailed
            | RefusalKind::TooLarge
            | RefusalKind::TooEarly
            | RefusalKind::TooMany
            | RefusalKind::NotSupported
            | RefusalKind::Busy
            | RefusalKind::DiskFull
            | RefusalKind::NodeFailed
            | RefusalKind::Other => FAILED,
        },
        Error::Token(_)
        | Error::Session(_)
        | Error::Randomness(_)
        | Error::Local(_)
        | Error::SourceChanged
        | Error::ValueTooLarge { .. }
        | Error::Answer(_)
        | Error::Corrupt { .. } => FAILED,
    }
}

impl From<std::io::Error> for CliError {
    fn from(error: std::io::Error) -> Self {
        Self::new(FAILED, error.to_string())
    }
}

impl From<kvspace_client::KeyPathError> for CliError {
    fn from(error: kvspace_client::KeyPathError) -> Self {
        Error::from(error).into()
    }
}

impl From<kvspace_client::MetaError> for CliError {
    fn from(error: kvspace_client::MetaError) -> Self {
        Error::from(error).into()
    }
}

impl From<Box<dyn StdError + Send + Sync>> for CliError {
    /// What kept a node from running; an unusable configuration is wrong usage.
    fn from(error: Box<dyn StdError + Send + Sync>) -> Self {
        let exit = if error.is::<kvspace_config::ConfigError>() { USAGE } else { FAILED };
        Self::new(exit, error.to_string())
    }
}
