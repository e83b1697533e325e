//! `delegate`.

use std::path::PathBuf;

use clap::Args;
use kvspace_client::{Did, KeyPath, KvAbility, Token, clock};
use serde_json::json;

use super::{error::CliError, output::Output, target::SpaceTarget};

#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  kvspace delegate notes --to did:key:z6MkneMkZqwqRiU5mJzSG3kDwzt9P8C59N4NGTfBLfSGE7c7 --path docs --ability get,list --expires 7d --out delegation.txt"
)]
pub(crate) struct DelegateArgs {
    #[command(flatten)]
    space: SpaceTarget,
    /// Whom to let in (their `kvspace key show`)
    #[arg(long, value_name = "DID")]
    to: Did,
    /// Only this key and what lies beneath it at a `/`
    #[arg(long, value_name = "KEY")]
    path: Option<String>,
    /// What they may do: get, put, delete, list, head
    #[arg(long, value_name = "NAMES", value_delimiter = ',', default_value = "get,list,head")]
    ability: Vec<KvAbility>,
    /// For how long: 90s, 15m, 1h, 7d
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = duration_ms)]
    expires: i64,
    /// Writes the delegation to this file
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

impl DelegateArgs {
    pub(crate) async fn run(self, out: &Output) -> Result<(), CliError> {
        let path = self.path.as_deref().map(KeyPath::from_text).transpose()?;
        let space = self.space.open().await?;
        let (owner, expiry) = (self.space.owner()?, clock::now().plus(self.expires));
        let token = if *space.id().owner() == owner.did() {
            space.delegate_as_owner(&owner, &self.to, path.as_ref(), &self.ability, expiry).await?
        } else {
            space.delegate(&self.to, path.as_ref(), &self.ability, expiry).await?
        };
        let until = token.expiry();
        if until.is_some_and(|until| until < expiry) {
            out.note("it ends sooner than asked: it rests on a delegation that ends then");
        }
        self.write(out, &token, until.map(clock::to_rfc3339).as_deref())
    }

    fn write(&self, out: &Output, token: &Token, until: Option<&str>) -> Result<(), CliError> {
        let (text, cid) = (token.to_header(), token.address().to_string());
        let mut object = json!({ "cid": cid, "token": text, "to": self.to.as_str(), "expires": until });
        let Some(file) = &self.out else { return out.result(&format!("{text}\n"), &object) };
        std::fs::write(file, format!("{text}\n")).map_err(|error| CliError::file("write", file, &error))?;
        object["file"] = file.display().to_string().into();
        out.result(&format!("{cid}\nuntil\t{}\n", until.unwrap_or("revoked")), &object)
    }
}

/// Reads a number with its unit: s, m, h or d.
fn duration_ms(text: &str) -> Result<i64, String> {
    let wrong = || format!("`{text}` is not a time; write 90s, 15m, 1h or 7d");
    let at = text.len().checked_sub(1).filter(|at| text.is_char_boundary(*at)).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(at);
    let unit_ms = match unit {
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(wrong()),
    };
    let number: i64 = number.parse().ok().filter(|number| *number > 0).ok_or_else(wrong)?;
    number.checked_mul(unit_ms).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_unit() {
        assert_eq!(duration_ms("90s"), Ok(90_000));
        assert_eq!(duration_ms("7d"), Ok(604_800_000));
        for text in ["", "h", "1", "-1h", "0s", "1w", "1é", "9999999999999999999d", "9223372036854775807d"] {
            assert!(duration_ms(text).is_err(), "{text}");
        }
    }
}
