//! Running a node.

use std::{error::Error, process::ExitCode};

use crate::cli::ServeArgs;

/// Runs a node until it is told to stop.
///
/// # Errors
/// What keeps it from starting or made it stop.
pub(crate) fn serve(args: ServeArgs) -> Result<ExitCode, Box<dyn Error + Send + Sync>> {
    let config = args.config()?;
    Err(format!("this build cannot serve yet; it would keep {}", config.node.data_dir.display()).into())
}
