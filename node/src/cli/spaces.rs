//! The commands about spaces, and `kvspace space create`.

use clap::{Args, Subcommand};
use kvspace_client::clock;
use serde_json::json;

use super::{
    error::CliError,
    home::Home,
    hosts::{AddHostArgs, HostsArgs, RemoveHostArgs},
    output::Output,
    sessions::Sessions,
    target::Target,
};

#[derive(Debug, Subcommand)]
pub(crate) enum SpaceCommand {
    /// Creates a space of your own at a node, and opens a session in it
    #[command(after_help = "Example:\n  kvspace space create notes")]
    Create(CreateArgs),
    /// Shows who hosts a space, and how far each host is
    #[command(after_help = "Example:\n  kvspace space hosts notes")]
    Hosts(HostsArgs),
    /// Makes a node another host of a space of your own
    #[command(after_help = "Example:\n  kvspace space add-host notes https://kv.example.org")]
    AddHost(AddHostArgs),
    /// Takes a space of your own away from a host, when everything that it took in is at another
    #[command(after_help = "Example:\n  kvspace space remove-host notes https://kv.example.org --wait-s 300")]
    RemoveHost(RemoveHostArgs),
}

#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// Its short name
    name: String,
    #[command(flatten)]
    target: Target,
}

impl SpaceCommand {
    pub(crate) async fn run(self, out: &Output) -> Result<(), CliError> {
        match self {
            Self::Create(args) => args.run(out).await,
            Self::Hosts(args) => args.run(out).await,
            Self::AddHost(args) => args.run(out).await,
            Self::RemoveHost(args) => args.run(out).await,
        }
    }
}

impl CreateArgs {
    async fn run(self, out: &Output) -> Result<(), CliError> {
        let Self { name, target } = self;
        let (owner, client) = (target.owner()?, target.client()?);
        let space = client.create_space(&owner, &name).await?;
        let session = Sessions::new(Home::find()?).open(&client, &owner, &space).await?;
        let until = session.expiry().map(clock::to_rfc3339);
        let object = json!({ "space": space, "node": client.node(), "session_expires": until });
        out.result(&format!("{space}\n"), &object)
    }
}
