//! `kvspace revoke`: ends a delegation, after saying which writes would lose their effect.

use std::{
    io::{IsTerminal as _, Write as _},
    path::Path,
};

use clap::Args;
use kvspace_client::{Address, After, EpochId, OwnerKey, RefusalKind, Space, hosts::Preview};
use serde_json::json;

use super::{
    error::{CliError, FAILED, USAGE},
    output::Output,
    target::{SpaceTarget, read_token},
    transfer::some,
};

/// Writes that are shown one by one.
const SHOWN_MAX: usize = 20;

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  kvspace revoke notes delegation.txt")]
pub(crate) struct RevokeArgs {
    #[command(flatten)]
    space: SpaceTarget,
    /// The delegation: its CID, or the file that holds it
    #[arg(value_name = "CID|FILE")]
    revoked: String,
    /// What these epochs have seen stays; may be given again [default: all that the node holds]
    #[arg(long, value_name = "EPOCH")]
    after: Vec<EpochId>,
    /// Does not ask, whatever loses its effect
    #[arg(long)]
    yes: bool,
}

/// Whether a person is asked before writes lose their effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ask {
    /// When some would.
    IfVoided,
    /// Never.
    Never,
}

impl RevokeArgs {
    pub(crate) async fn run(self, out: &Output) -> Result<(), CliError> {
        let target = target(&self.revoked)?;
        let after = if self.after.is_empty() { After::NodeFrontier } else { After::Epochs(self.after) };
        let (space, owner) = (self.space.open().await?, self.space.owner()?);
        let ask = if self.yes { Ask::Never } else { Ask::IfVoided };
        let voided = revoke(out, &space, &owner, &target, after, ask).await?;
        let voided: Vec<_> = voided.map(|preview| preview.voided).unwrap_or_default();
        let mut object = json!({ "revoked": true, "cid": target });
        if !voided.is_empty() {
            object["voided"] = json!(voided);
        }
        out.result(&format!("revoked\t{target}\n"), &object)
    }
}

/// Revokes with what the node holds as what stays, and says first what would lose its effect. By the owner's own
/// signature where it is the owner that asks, else by the session's.
pub(super) async fn revoke(
    out: &Output,
    space: &Space,
    owner: &OwnerKey,
    target: &Address,
    after: After,
    ask: Ask,
) -> Result<Option<Preview>, CliError> {
    let owns = *space.id().owner() == owner.did();
    let after = match after {
        After::NodeFrontier => space.frontier().await?,
        After::Epochs(epochs) => epochs,
    };
    let previewed = match owns {
        true => space.preview_revocation_as_owner(owner, target, &after).await,
        false => space.preview_revocation(target, &after).await,
    };
    let preview = match previewed {
        Ok(preview) => Some(preview),
        Err(kvspace_client::Error::Refused(refusal)) if refusal.kind == RefusalKind::NotFound => {
            out.note("this node cannot say which writes lose their effect");
            None
        }
        Err(error) => return Err(error.into()),
    };
    if let Some(preview) = preview.as_ref().filter(|preview| ask == Ask::IfVoided && !preview.voided.is_empty()) {
        out.note(&words(preview));
        confirm(out, preview)?;
    }
    let after = After::Epochs(after);
    match owns {
        true => space.revoke_as_owner(owner, target, after).await?,
        false => space.revoke(target, after).await?,
    }
    Ok(preview)
}

/// What would be lost, for people.
fn words(preview: &Preview) -> String {
    let mut lines = vec![format!("{} will have no effect any more:", count(preview))];
    for voided in preview.voided.iter().take(SHOWN_MAX) {
        let wins = if voided.wins { "  (what the key holds now)" } else { "" };
        lines.push(format!("  {}  {}{wins}", voided.key, voided.version));
    }
    if preview.voided.len() > SHOWN_MAX || preview.has_more {
        lines.push("  …".to_owned());
    }
    lines.join("\n")
}

fn count(preview: &Preview) -> String {
    let more = if preview.has_more { "more than " } else { "" };
    format!("{more}{}", some(preview.voided.len() as u64, "write"))
}

/// Asks a person; where there is none, that is an error.
fn confirm(out: &Output, preview: &Preview) -> Result<(), CliError> {
    let refused =
        |message: String| CliError::new(FAILED, message).advise("give --yes, or keep more with --after EPOCH");
    if out.is_json() || !std::io::stdin().is_terminal() {
        return Err(refused(format!(
            "not revoked: {} would have no effect any more, and nobody can be asked",
            count(preview)
        )));
    }
    let mut stderr = std::io::stderr();
    write!(stderr, "Revoke? [y/N] ").and_then(|()| stderr.flush())?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    match answer.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(refused("not revoked".to_owned())),
    }
}

/// The address of a delegation: given as CID, or of the token in a file.
fn target(text: &str) -> Result<Address, CliError> {
    if let Ok(address) = Address::from_proof(text) {
        return Ok(address);
    }
    if !Path::new(text).exists() {
        let message = format!("`{text}` is neither the CID of a delegation nor a file");
        return Err(CliError::new(USAGE, message));
    }
    Ok(read_token(&text.into())?.address())
}

#[cfg(test)]
mod tests {
    use kvspace_client::hosts::Voided;

    use super::*;

    #[test]
    fn a_delegation_is_named_by_its_cid_or_file() {
        let address = Address::of(b"token");
        assert_eq!(target(&address.to_string()).expect("a CID"), address);
        assert_eq!(target("/nowhere/file").expect_err("neither").exit, USAGE);
    }

    #[test]
    fn what_would_be_lost_is_counted_and_named() {
        let voided = |key: &str, wins| Voided { key: key.into(), version: "1.0.x".into(), wins };
        let preview = Preview { voided: vec![voided("a", true), voided("b", false)], has_more: false };
        let text = words(&preview);
        assert!(text.starts_with("2 writes will"), "{text}");
        assert!(text.contains("  a  1.0.x  (what the key holds now)") && text.ends_with("  b  1.0.x"), "{text}");
        let many = Preview { voided: vec![voided("a", false); SHOWN_MAX + 1], has_more: true };
        let text = words(&many);
        assert!(text.starts_with("more than 21 writes") && text.ends_with('…'), "{text}");
    }
}
