//! `kvspace space create`.

use clap::{Args, Subcommand};
use kvspace_client::clock;
use serde_json::json;

use super::{error::CliError, home::Home, output::Output, sessions::Sessions, target::Target};

#[derive(Debug, Subcommand)]
pub(crate) enum SpaceCommand {
    /// Creates a space of your own at a node, and opens a session in it
    #[command(after_help = "Example:\n  kvspace space create notes")]
    Create(CreateArgs),
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
        let Self::Create(CreateArgs { name, target }) = self;
        let (owner, client) = (target.owner()?, target.client()?);
        let space = client.create_space(&owner, &name).await?;
        let session = Sessions::new(Home::find()?).open(&client, &owner, &space).await?;
        let until = session.expiry().map(clock::to_rfc3339);
        let object = json!({ "space": space, "node": client.node(), "session_expires": until });
        out.result(&format!("{space}\n"), &object)
    }
}
