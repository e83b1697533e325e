//! Logs: to standard error, as text or JSON.

use std::io;

use kvspace_config::{Log, LogFormat};
use tracing_subscriber::EnvFilter;

/// The variable that holds a filter, before the configuration.
const VARIABLE: &str = "KVSPACE_LOG";

/// Why there are no logs.
#[derive(Debug, thiserror::Error)]
#[error("{origin} is no log filter: {source}; write a level such as \"info\", or \"info,kvspace_actors=debug\"")]
pub(crate) struct FilterError {
    origin: &'static str,
    source: tracing_subscriber::filter::ParseError,
}

/// Begins to log, once in a process; later calls change nothing.
pub(crate) fn start(log: &Log) -> Result<(), FilterError> {
    let filter = filter(std::env::var(VARIABLE).ok().filter(|text| !text.is_empty()).as_deref(), &log.level)?;
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    // A subscriber that is there already is a test's or an embedder's.
    match log.format {
        LogFormat::Text => subscriber.with_ansi(io::IsTerminal::is_terminal(&io::stderr())).try_init().ok(),
        LogFormat::Json => subscriber.json().flatten_event(true).try_init().ok(),
    };
    Ok(())
}

fn filter(variable: Option<&str>, level: &str) -> Result<EnvFilter, FilterError> {
    let (origin, text) = variable.map_or(("log.level", level), |text| (VARIABLE, text));
    EnvFilter::builder().parse(text).map_err(|source| FilterError { origin, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_wins_over_the_configuration() {
        assert_eq!(filter(None, "info").expect("a filter").to_string(), "info");
        let both = filter(Some("warn,kvspace=debug"), "info").expect("a filter").to_string();
        assert!(both.contains("warn") && both.contains("kvspace=debug"), "{both}");
    }

    #[test]
    fn a_bad_filter_is_named_with_its_origin() {
        let error = filter(None, "loud=maybe=").expect_err("no filter").to_string();
        assert!(error.starts_with("log.level"), "{error}");
    }
}
