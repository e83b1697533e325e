//! Sessions at hand, kept beside the keys, and the commands for them.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use kvspace_client::{Client, Grants, OwnerKey, Session, SpaceId, Token, clock};
use serde_json::json;

use super::{
    error::{CliError, FAILED},
    home::{Home, Replace, read_private, write_private},
    output::Output,
    target::{SpaceTarget, Target, read_token},
};

/// A session of an owner is good for a day; a new one is opened when it ends.
const OWN_SESSION_MS: i64 = 24 * 60 * 60 * 1000;
/// A session beneath a delegation lives as long as that, at most a year.
const RECEIVED_SESSION_MS: i64 = 365 * 24 * 60 * 60 * 1000;
/// A session that ends within this time is not begun with.
const MARGIN_MS: i64 = 60_000;

#[derive(Debug, Subcommand)]
pub(crate) enum SessionCommand {
    /// Opens a new session in a space of your own. Commands do so by themselves when they need one
    #[command(after_help = "Example:\n  kvspace session open notes")]
    Open(OpenArgs),
    /// Takes a received delegation, so that commands find it
    #[command(after_help = "Example:\n  kvspace session import delegation.txt --key bob")]
    Import(ImportArgs),
}

#[derive(Debug, Args)]
pub(crate) struct OpenArgs {
    #[command(flatten)]
    space: SpaceTarget,
}

#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// The file with the delegation
    file: PathBuf,
    #[command(flatten)]
    target: Target,
}

impl SessionCommand {
    pub(crate) async fn run(self, out: &Output) -> Result<(), CliError> {
        let sessions = Sessions::new(Home::find()?);
        let session = match self {
            Self::Open(OpenArgs { space }) => {
                let owner = space.owner()?;
                sessions.open(&space.client()?, &owner, &space.id(&owner)?).await?
            }
            Self::Import(ImportArgs { file, target }) => {
                sessions.import(&target.client()?, &target.owner()?, &read_token(&file)?).await?
            }
        };
        show(out, &session)
    }
}

fn show(out: &Output, session: &Session) -> Result<(), CliError> {
    let until = session.expiry().map(clock::to_rfc3339);
    let lines = format!("{}\nuntil\t{}\n", session.space(), until.as_deref().unwrap_or("revoked"));
    out.result(&lines, &json!({ "space": session.space(), "session": session.did().as_str(), "expires": until }))
}

/// The sessions in the home folder: one for each key, space and node.
pub(crate) struct Sessions(PathBuf);

impl Sessions {
    pub(crate) fn new(home: Home) -> Self {
        Self(home.folder("sessions"))
    }

    /// The session at hand; of an owner, a new one where there is none.
    pub(crate) async fn session(
        &self,
        client: &Client,
        owner: &OwnerKey,
        space: &SpaceId,
    ) -> Result<Session, CliError> {
        if let Some(session) = self.stored(&self.path(client, owner, space, None))? {
            return Ok(session);
        }
        if *space.owner() != owner.did() {
            let message = format!("{} does not own {space}, and there is no delegation to it", owner.did());
            return Err(CliError::new(FAILED, message)
                .advise("use the owner's key (--key), or get a delegation for yours: kvspace session import FILE"));
        }
        self.open(client, owner, space).await
    }

    /// A new session of an owner.
    pub(crate) async fn open(&self, client: &Client, owner: &OwnerKey, space: &SpaceId) -> Result<Session, CliError> {
        let session = client.open_session(owner, space, Grants::everything(space), OWN_SESSION_MS).await?;
        self.store(&self.path(client, owner, space, None), &session)?;
        Ok(session)
    }

    /// The session beneath this delegation; a new one where there is none.
    pub(crate) async fn beneath(
        &self,
        client: &Client,
        own: &OwnerKey,
        received: &Token,
        space: &SpaceId,
    ) -> Result<Session, CliError> {
        let path = self.path(client, own, space, Some(received));
        if let Some(session) = self.stored(&path)? {
            return Ok(session);
        }
        let session = client.open_session_beneath(own, received, RECEIVED_SESSION_MS).await?;
        if session.space() != space {
            return Err(CliError::new(FAILED, format!("the delegation is for {}, not for {space}", session.space())));
        }
        self.store(&path, &session)?;
        Ok(session)
    }

    /// A new session beneath this delegation, found by commands that name its space.
    async fn import(&self, client: &Client, own: &OwnerKey, received: &Token) -> Result<Session, CliError> {
        let session = client.open_session_beneath(own, received, RECEIVED_SESSION_MS).await?;
        self.store(&self.path(client, own, session.space(), None), &session)?;
        Ok(session)
    }

    fn stored(&self, path: &Path) -> Result<Option<Session>, CliError> {
        if !path.exists() {
            return Ok(None);
        }
        let session = Session::from_text(&read_private(path)?)?;
        let soon = clock::now().plus(MARGIN_MS);
        Ok(session.expiry().is_none_or(|expiry| expiry > soon).then_some(session))
    }

    fn store(&self, path: &Path, session: &Session) -> Result<(), CliError> {
        write_private(path, &session.to_text(), Replace::Yes).map_err(|error| CliError::file("write", path, &error))
    }

    fn path(&self, client: &Client, owner: &OwnerKey, space: &SpaceId, received: Option<&Token>) -> PathBuf {
        let address = received.map(|token| token.address().to_string()).unwrap_or_default();
        let what = format!("{}\n{space}\n{}\n{address}", owner.did(), client.node());
        let hash = blake3::hash(what.as_bytes()).to_hex();
        self.0.join(format!("{}.json", &hash[..32]))
    }
}

#[cfg(test)]
mod tests {
    use kvspace_client::KeyKind;

    use super::*;

    #[test]
    fn a_session_at_hand_is_used_until_it_is_about_to_end() {
        let dir = tempfile::tempdir().expect("a folder");
        let sessions = Sessions::new(Home::at(dir.path()));
        let client = Client::new("http://127.0.0.1:1").expect("an address");
        let owner = OwnerKey::generate(KeyKind::Ed25519).expect("a key");
        let space = SpaceId::new(&owner.did(), "notes").expect("a space");
        let path = sessions.path(&client, &owner, &space, None);
        let now = clock::now();
        for (lifetime_ms, is_used) in [(MARGIN_MS / 2, false), (10 * MARGIN_MS, true)] {
            let expiry = now.plus(lifetime_ms);
            let session = Session::sign(&owner, &space, Grants::everything(&space), now, expiry).expect("signed");
            sessions.store(&path, &session).expect("stored");
            let found = sessions.stored(&path).expect("read");
            assert_eq!(found.map(|found| found.did()), is_used.then(|| session.did()));
        }
        let other = Client::new("http://127.0.0.1:2").expect("an address");
        assert_ne!(sessions.path(&other, &owner, &space, None), path);
    }
}
