//! The command line: arguments, and which command does what.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod backup;
mod data;
mod demo;
mod error;
mod home;
mod hosts;
mod keys;
mod output;
mod peers;
mod restore;
mod revoke;
mod serve;
mod sessions;
mod share;
mod spaces;
mod status;
mod target;
mod transfer;
mod values;
mod verify;
mod why;

pub(crate) use serve::ServeArgs;

use error::CliError;
use output::Output;

const EXIT_CODES: &str = "Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 3 not found, 4 node unreachable.
Environment: KVSPACE_NODE (address of the node), KVSPACE_KEY (name of the key), KVSPACE_HOME (where keys and sessions
lie; ~/.config/kvspace), KVSPACE_<SECTION>__<KEY> (options of `serve`).

Example:
  kvspace serve &
  kvspace key new
  kvspace space create notes
  echo hello | kvspace put notes greeting
  kvspace get notes greeting";

/// A node for user-owned key-value spaces, and the command line to use one.
#[derive(Debug, Parser)]
#[command(name = "kvspace", version, after_help = EXIT_CODES, max_term_width = 100)]
pub(crate) struct Cli {
    /// Writes one JSON object to standard output, for machines
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs a node
    Serve(ServeArgs),
    /// Makes, shows and imports the keys that own spaces
    #[command(subcommand)]
    Key(keys::KeyCommand),
    /// Creates spaces, says who hosts them
    #[command(subcommand)]
    Space(spaces::SpaceCommand),
    /// Opens sessions, imports delegations
    #[command(subcommand)]
    Session(sessions::SessionCommand),
    /// Stores a value
    Put(values::PutArgs),
    /// Reads a value
    Get(values::GetArgs),
    /// Shows what is stored under a key, without the value
    Head(values::HeadArgs),
    /// Lists keys
    Ls(values::LsArgs),
    /// Deletes a value
    Rm(values::RmArgs),
    /// Lets somebody else into a space
    Delegate(share::DelegateArgs),
    /// Ends a delegation and all that rests on it
    Revoke(revoke::RevokeArgs),
    /// Says why a key reads as it does at a node
    Why(why::WhyArgs),
    /// Shows the nodes that a running node speaks to, cuts one off
    Peers(peers::PeersArgs),
    /// Shows three hosts of one space on this machine, one of which fails and comes back
    Demo(demo::DemoArgs),
    /// Shows the state of a running node
    Status(status::StatusArgs),
    /// Looks a data folder through for damage
    Verify(verify::VerifyArgs),
    /// Copies a data folder, while a node runs on it or not
    Backup(backup::BackupArgs),
    /// Makes a data folder of a backup
    Restore(restore::RestoreArgs),
}

/// Does what the command line says, and reports what went wrong.
pub(crate) fn run(cli: Cli) -> ExitCode {
    let out = Output::new(cli.json);
    cli.command.run(&out).unwrap_or_else(|error| out.failed(&error))
}

impl Command {
    fn run(self, out: &Output) -> Result<ExitCode, CliError> {
        match self {
            Self::Serve(args) => return Ok(crate::run::serve(args.with_json(out.is_json()))?),
            Self::Verify(args) => return args.run(out),
            Self::Backup(args) => return args.run(out),
            Self::Restore(args) => return args.run(out),
            Self::Key(command) => command.run(out),
            Self::Space(command) => wait(command.run(out)),
            Self::Session(command) => wait(command.run(out)),
            Self::Put(args) => wait(args.run(out)),
            Self::Get(args) => wait(args.run(out)),
            Self::Head(args) => wait(args.run(out)),
            Self::Ls(args) => wait(args.run(out)),
            Self::Rm(args) => wait(args.run(out)),
            Self::Delegate(args) => wait(args.run(out)),
            Self::Revoke(args) => wait(args.run(out)),
            Self::Why(args) => wait(args.run(out)),
            Self::Peers(args) => wait(args.run(out)),
            Self::Demo(args) => wait(args.run(out)),
            Self::Status(args) => wait(args.run(out)),
        }?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Runs a command that talks to a node.
fn wait(command: impl Future<Output = Result<(), CliError>>) -> Result<(), CliError> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(command)
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, error::ErrorKind};

    use super::*;

    fn parse(line: &str) -> Result<Cli, ErrorKind> {
        Cli::try_parse_from(line.split_whitespace()).map_err(|error| error.kind())
    }

    #[test]
    fn the_definition_holds_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_shows_an_example() {
        fn check(command: &clap::Command, name: &str) {
            if command.has_subcommands() {
                command.get_subcommands().for_each(|sub| check(sub, &format!("{name} {}", sub.get_name())));
                return;
            }
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("Example:\n") && help.contains(name), "{name}: {help}");
            assert!(command.get_about().is_some(), "{name}");
            for arg in command.get_arguments() {
                assert!(arg.get_help().is_some(), "{name} {}", arg.get_id());
            }
        }
        check(&Cli::command(), "kvspace");
    }

    #[test]
    fn the_examples_of_the_help_texts_parse() {
        fn examples(command: &clap::Command, into: &mut Vec<String>) {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let lines = help.split_once("Example:\n").map_or("", |(_, lines)| lines).lines();
            for line in lines {
                let line = line.rsplit("| ").next().unwrap_or(line).trim().trim_end_matches('&').trim();
                into.extend(line.starts_with("kvspace").then(|| line.to_owned()));
            }
            command.get_subcommands().for_each(|sub| examples(sub, into));
        }
        let mut found = Vec::new();
        examples(&Cli::command(), &mut found);
        assert!(found.len() > 15, "{found:?}");
        for line in found {
            assert!(parse(&line).is_ok(), "{line}: {:?}", parse(&line).err());
        }
    }

    #[test]
    fn serve_takes_what_scripts_rely_on() {
        let line = "kvspace serve --config f --data-dir d --http 127.0.0.1:0 --operator 127.0.0.1:0 \
                    --listen /ip4/127.0.0.1/tcp/0 --listen /ip4/127.0.0.1/udp/0/quic-v1 --peer /ip4/127.0.0.1/tcp/1 --json";
        let cli = parse(line).expect("the fixed arguments");
        assert!(cli.json && matches!(cli.command, Command::Serve(_)));
        assert!(parse("kvspace serve").is_ok());
    }

    #[test]
    fn wrong_usage_is_told() {
        assert_eq!(parse("kvspace put notes").expect_err("no key"), ErrorKind::MissingRequiredArgument);
        assert_eq!(parse("kvspace serve --http nowhere").expect_err("no address"), ErrorKind::ValueValidation);
        assert_eq!(
            parse("kvspace put notes a --if-absent --if-match x").expect_err("both"),
            ErrorKind::ArgumentConflict
        );
        assert_eq!(parse("kvspace delegate notes").expect_err("to whom?"), ErrorKind::MissingRequiredArgument);
        assert_eq!(parse("kvspace delegate notes --to bob").expect_err("no DID"), ErrorKind::ValueValidation);
        assert_eq!(parse("kvspace ls notes --limit 0").expect_err("no key"), ErrorKind::ValueValidation);
    }
}
