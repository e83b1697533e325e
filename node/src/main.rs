//! `kvspace`: a node for user-owned key-value spaces, and the command line to use one.

use std::process::ExitCode;

use clap::Parser as _;

mod cli;
mod http;
mod run;
mod telemetry;

fn main() -> ExitCode {
    cli::run(cli::Cli::parse())
}
