//! All that the command line prints.
#![allow(clippy::print_stdout, reason = "the one module that writes to standard output")]

use std::{
    io::{self, ErrorKind, IsTerminal as _, Write as _},
    process::ExitCode,
};

use serde_json::{Value, json};
use tokio::io::AsyncWrite;

use super::error::CliError;

/// How results are written: for people, or as one JSON object.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    json: bool,
}

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        Self { json }
    }

    /// Whether a machine reads along.
    pub(crate) fn is_json(self) -> bool {
        self.json
    }

    /// The result of a command: lines for people, or an object for machines.
    pub(crate) fn result(self, lines: &str, object: &Value) -> Result<(), CliError> {
        let text = if self.json { object.to_string() } else { lines.trim_end().to_owned() };
        if text.is_empty() {
            return Ok(());
        }
        self.raw(&format!("{text}\n"))
    }

    /// Text as it is, for results that come bit by bit.
    pub(crate) fn raw(self, text: &str) -> Result<(), CliError> {
        let mut stdout = io::stdout().lock();
        match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
            // Whoever reads has seen enough.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => std::process::exit(0),
            result => Ok(result?),
        }
    }

    /// Standard output for the bytes of a value.
    pub(crate) fn bytes(self) -> impl AsyncWrite + Unpin {
        tokio::io::stdout()
    }

    /// Standard output for a stream of bytes, for who writes without a runtime.
    pub(crate) fn stream(self) -> io::Stdout {
        io::stdout()
    }

    /// The result of a command whose standard output is a stream: it goes to standard error.
    pub(crate) fn result_beside(self, lines: &str, object: &Value) -> Result<(), CliError> {
        let text = if self.json { object.to_string() } else { lines.trim_end().to_owned() };
        Ok(writeln!(io::stderr(), "{text}")?)
    }

    /// A remark beside the result.
    pub(crate) fn note(self, text: &str) {
        if !self.json {
            let _ = writeln!(io::stderr(), "{text}");
        }
    }

    /// Reports an error and gives its exit code.
    pub(crate) fn failed(self, error: &CliError) -> ExitCode {
        if self.json {
            let object = json!({
                "error": {
                    "message": error.message, "advice": error.advice, "exit": error.exit,
                    "status": error.status, "code": error.code,
                }
            });
            let _ = writeln!(io::stdout(), "{object}");
        } else {
            let _ = writeln!(io::stderr(), "kvspace: {error}");
            if let Some(advice) = &error.advice {
                let _ = writeln!(io::stderr(), "  {advice}");
            }
        }
        ExitCode::from(error.exit)
    }
}

/// Overwrites the progress line; an empty text removes it.
pub(crate) fn progress_line(text: &str) {
    let _ = write!(io::stderr(), "\r\x1b[K{text}");
    let _ = io::stderr().flush();
}

/// Whether a person watches.
pub(crate) fn is_watched() -> bool {
    io::stderr().is_terminal()
}
