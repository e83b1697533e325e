//! What can be wrong with a configuration.

use std::path::PathBuf;

/// Why a configuration is refused. All of it is for the operator to mend; each message names the place.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("{origin} is not valid TOML: {message}")]
    Syntax {
        /// The file.
        origin: String,
        /// Line, column and reason.
        message: String,
    },
    /// An option or section that does not exist.
    #[error("{origin}: there is no option `{key}`; {hint}")]
    Unknown {
        /// The file, variable or flag.
        origin: String,
        /// `section.key`, as written.
        key: String,
        /// The nearest section or option.
        hint: String,
    },
    /// A value of the wrong kind or out of range.
    #[error("{origin}: `{key}` is not usable: {message}")]
    Invalid {
        /// The file, variable or flag.
        origin: String,
        /// `section.key`.
        key: String,
        /// What is wrong with it.
        message: String,
    },
}
