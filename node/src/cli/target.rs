//! Which node, which key, which space.

use std::{env, path::PathBuf};

use clap::Args;
use kvspace_client::{Client, ClientOptions, EpochId, KeyPath, OwnerKey, ReadYourWrites, Space, SpaceId, Token};

use super::{
    error::{CliError, FAILED, USAGE},
    home::Home,
    keys::Keys,
    sessions::Sessions,
};

const NODE: &str = "http://127.0.0.1:8420";
const OPERATOR: &str = "http://127.0.0.1:8421";
const KEY: &str = "default";

/// Options of all commands that speak to a node.
#[derive(Debug, Clone, Args)]
pub(crate) struct Target {
    /// Name of the key to act with [default: $KVSPACE_KEY, else default]
    #[arg(id = "own_key", long = "key", value_name = "NAME")]
    key: Option<String>,
    /// Address of the node [default: $KVSPACE_NODE, else http://127.0.0.1:8420]
    #[arg(long, value_name = "URL")]
    node: Option<String>,
}

/// The space a command is about.
#[derive(Debug, Clone, Args)]
pub(crate) struct SpaceTarget {
    /// The space: its full id (tinycloud:…), or the short name of one of your own
    space: String,
    /// Acts by this received delegation
    #[arg(long, value_name = "FILE")]
    delegation: Option<PathBuf>,
    #[command(flatten)]
    target: Target,
}

/// A key, as text or as it stands in a URI.
#[derive(Debug, Clone, Args)]
pub(crate) struct KeyArg {
    /// The key. What a URI path may not hold is percent-encoded for the node
    key: String,
    /// The key is percent-encoded already
    #[arg(long)]
    encoded: bool,
}

impl KeyArg {
    /// The key as a path.
    pub(crate) fn path(&self) -> Result<KeyPath, CliError> {
        read_key(&self.key, self.encoded)
    }

    /// As it was given.
    pub(crate) fn text(&self) -> &str {
        &self.key
    }
}

/// A key, as text or percent-encoded.
pub(crate) fn read_key(key: &str, encoded: bool) -> Result<KeyPath, CliError> {
    Ok(if encoded { KeyPath::from_path(key)? } else { KeyPath::from_text(key)? })
}

/// What a node has to have before it answers.
#[derive(Debug, Clone, Args)]
pub(crate) struct AfterArg {
    /// Waits until the node has this epoch, the frontier that `put --json` shows; may be given again
    #[arg(long, value_name = "EPOCH")]
    after: Vec<EpochId>,
    /// How long the node waits
    #[arg(long, value_name = "MS", default_value_t = 5_000, value_parser = clap::value_parser!(u64).range(0..=60_000))]
    wait_ms: u64,
}

impl AfterArg {
    /// The space, whose reads wait.
    pub(crate) async fn open(&self, target: &SpaceTarget) -> Result<Space, CliError> {
        let space = target.open().await?;
        if self.after.is_empty() {
            return Ok(space);
        }
        let wait = ReadYourWrites::Within { wait_ms: self.wait_ms };
        let options = ClientOptions { read_your_writes: wait, ..ClientOptions::default() };
        let space = space.at(&Client::with_options(space.client().node(), options)?);
        self.after.iter().for_each(|epoch| space.see(*epoch));
        Ok(space)
    }
}

/// The operator's interface of a node.
#[derive(Debug, Clone, Args)]
pub(crate) struct Operator {
    /// Address of the node's operator interface [default: $KVSPACE_OPERATOR, else http://127.0.0.1:8421]
    #[arg(long, value_name = "URL")]
    operator: Option<String>,
}

impl Operator {
    pub(crate) fn client(&self) -> Result<Client, CliError> {
        let operator = self.operator.clone().or_else(|| set("KVSPACE_OPERATOR")).unwrap_or_else(|| OPERATOR.into());
        Ok(Client::new(&operator)?)
    }
}

impl Target {
    /// The key to act with.
    pub(crate) fn owner(&self) -> Result<OwnerKey, CliError> {
        let name = self.key.clone().or_else(|| set("KVSPACE_KEY")).unwrap_or_else(|| KEY.into());
        Keys::new(Home::find()?).load(&name)
    }

    pub(crate) fn client(&self) -> Result<Client, CliError> {
        let node = self.node.clone().or_else(|| set("KVSPACE_NODE")).unwrap_or_else(|| NODE.into());
        Ok(Client::new(&node)?)
    }
}

impl SpaceTarget {
    /// The space as this key reaches it: by the session at hand, or a new one.
    pub(crate) async fn open(&self) -> Result<Space, CliError> {
        let (owner, client) = (self.owner()?, self.client()?);
        let sessions = Sessions::new(Home::find()?);
        let session = match &self.delegation {
            Some(file) => sessions.beneath(&client, &owner, &read_token(file)?, &self.id(&owner)?).await?,
            None => sessions.session(&client, &owner, &self.id(&owner)?).await?,
        };
        Ok(client.space(session))
    }

    pub(crate) fn owner(&self) -> Result<OwnerKey, CliError> {
        self.target.owner()
    }

    pub(crate) fn client(&self) -> Result<Client, CliError> {
        self.target.client()
    }

    /// As it was given.
    pub(crate) fn text(&self) -> &str {
        &self.space
    }

    /// The id, a short name being one of the key's own spaces.
    pub(crate) fn id(&self, owner: &OwnerKey) -> Result<SpaceId, CliError> {
        space_id(&self.space, owner)
    }
}

fn space_id(text: &str, owner: &OwnerKey) -> Result<SpaceId, CliError> {
    let id = if text.starts_with("tinycloud:") { text.parse() } else { SpaceId::new(&owner.did(), text) };
    id.map_err(|error| {
        CliError::new(USAGE, format!("`{text}` is not a space: {error}"))
            .advise("give a full id, or a short name of letters, digits, `-`, `_` and `.`")
    })
}

/// A token from a file.
pub(crate) fn read_token(file: &PathBuf) -> Result<Token, CliError> {
    let text = std::fs::read_to_string(file).map_err(|error| CliError::file("read", file, &error))?;
    Token::from_header(text.trim()).map_err(|error| {
        CliError::new(FAILED, format!("{} does not hold a token: {error}", file.display()))
            .advise("give the file that `kvspace delegate --out FILE` wrote")
    })
}

fn set(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use kvspace_client::KeyKind;

    use super::*;

    #[test]
    fn a_short_name_is_one_of_the_keys_own_spaces() {
        let owner = OwnerKey::generate(KeyKind::Ethereum).expect("a key");
        let id = space_id("notes", &owner).expect("a space");
        assert_eq!((id.owner(), id.name()), (&owner.did(), "notes"));
        assert_eq!(space_id(id.as_str(), &owner).expect("a space"), id);
        let other = "tinycloud:key:z6MkneMkZqwqRiU5mJzSG3kDwzt9P8C59N4NGTfBLfSGE7c7:a";
        assert_eq!(space_id(other, &owner).expect("a space").as_str(), other);
        for text in ["", "a b", "a/b", "a:b", "tinycloud:x"] {
            assert_eq!(space_id(text, &owner).expect_err("no space").exit, USAGE, "{text}");
        }
    }
}
