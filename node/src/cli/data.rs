//! Which data folder a command works on: decided as for `kvspace serve`.

use std::path::PathBuf;

use clap::Args;
use kvspace_actors::{StartError, disk::OpenError};
use kvspace_config::{Config, Sources, Value};

use super::{
    error::{CliError, FAILED, USAGE},
    output::{is_watched, progress_line},
    transfer::bytes,
};

/// The line is written again after so many bytes.
const STEP_BYTES: u64 = 8 * 1024 * 1024;

/// Where the data folder is.
#[derive(Debug, Clone, Args)]
pub(crate) struct DataArgs {
    /// Reads options from this file, as `kvspace serve` does
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The data folder [default: ~/.local/share/kvspace]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

impl DataArgs {
    /// The configuration: file, environment, these flags.
    pub(crate) fn config(&self) -> Result<Config, CliError> {
        let data_dir = self.data_dir.as_ref().map(|dir| Value::String(dir.to_string_lossy().into_owned()));
        let flags = data_dir.map(|dir| ("node.data_dir", dir)).into_iter().collect();
        let sources = Sources { file: self.config.clone(), environment: environment(), flags };
        kvspace_config::load(sources).map_err(|error| CliError::new(USAGE, error.to_string()))
    }
}

/// The variables of this process.
pub(crate) fn environment() -> Vec<(String, String)> {
    let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    std::env::vars_os().filter_map(text).collect()
}

/// Says how far a long run is, on standard error, when somebody watches. The line goes away with this.
pub(crate) struct Steps {
    is_watched: bool,
    told_bytes: u64,
}

impl Steps {
    pub(crate) fn new() -> Self {
        Self { is_watched: is_watched(), told_bytes: 0 }
    }

    pub(crate) fn tell(&mut self, what: &str, done_bytes: u64, total_bytes: Option<u64>) {
        if self.is_watched && done_bytes.abs_diff(self.told_bytes) >= STEP_BYTES {
            self.told_bytes = done_bytes;
            let of = total_bytes.map(|total| format!(" of {}", bytes(total))).unwrap_or_default();
            progress_line(&format!("{what}: {}{of}", bytes(done_bytes)));
        }
    }
}

impl Drop for Steps {
    fn drop(&mut self) {
        if self.is_watched && self.told_bytes > 0 {
            progress_line("");
        }
    }
}

impl From<StartError> for CliError {
    fn from(error: StartError) -> Self {
        let failed = Self::new(FAILED, error.to_string());
        if matches!(error, StartError::DataDir(OpenError::InUse(_))) {
            failed.advise("stop the node first")
        } else {
            failed
        }
    }
}
