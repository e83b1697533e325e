//! Owner keys by name, and the commands for them.

use std::{
    fs,
    io::{ErrorKind, Read as _},
    path::PathBuf,
};

use clap::{Args, Subcommand, ValueEnum};
use kvspace_client::{KeyKind, OwnerKey};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{
    error::{CliError, FAILED, NOT_FOUND, USAGE},
    home::{Home, Replace, read_private, write_private},
    output::Output,
};

/// A file with a secret holds 64 digits; more is something else.
const SECRET_FILE_BYTES_MAX: u64 = 4096;
const NAME_BYTES_MAX: usize = 64;

#[derive(Debug, Subcommand)]
pub(crate) enum KeyCommand {
    /// Makes a new key
    #[command(after_help = "Example:\n  kvspace key new --kind ed25519")]
    New(NewArgs),
    /// Shows the owner's DID of a key, or of all keys
    #[command(after_help = "Example:\n  kvspace key show default")]
    Show(ShowArgs),
    /// Imports a secret key of 64 hex digits
    #[command(after_help = "Example:\n  kvspace key import wallet secret.txt --kind ethereum")]
    Import(ImportArgs),
}

#[derive(Debug, Args)]
pub(crate) struct NewArgs {
    /// Its name on this computer
    #[arg(default_value = "default")]
    name: String,
    #[command(flatten)]
    kind: KindArg,
    /// Replaces a key of this name, which is then lost
    #[arg(long)]
    force: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// Its name; without one, all keys are listed
    name: Option<String>,
    /// Shows the secret too: whoever has it owns the spaces of this key
    #[arg(long, requires = "name")]
    secret: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// Its name on this computer
    name: String,
    /// The file that holds the secret; `-` is standard input
    #[arg(default_value = "-")]
    file: PathBuf,
    #[command(flatten)]
    kind: KindArg,
    /// Replaces a key of this name, which is then lost
    #[arg(long)]
    force: bool,
}

#[derive(Debug, Args)]
struct KindArg {
    /// What kind of key
    #[arg(long, value_enum, default_value = "ed25519")]
    kind: Kind,
}

/// The kinds of key, as they are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    /// A did:key
    Ed25519,
    /// An Ethereum account, a did:pkh
    Ethereum,
}

impl From<Kind> for KeyKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Ed25519 => Self::Ed25519,
            Kind::Ethereum => Self::Ethereum,
        }
    }
}

/// A key as its file holds it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Saved {
    kind: Kind,
    did: String,
    secret: String,
}

impl KeyCommand {
    pub(crate) fn run(self, out: &Output) -> Result<(), CliError> {
        let keys = Keys::new(Home::find()?);
        match self {
            Self::New(args) => {
                let owner = OwnerKey::generate(args.kind.kind.into())?;
                keys.save(&args.name, &owner, replace(args.force))?;
                show(out, &args.name, &owner, Secret::Hidden)
            }
            Self::Import(args) => {
                let owner = OwnerKey::from_hex(args.kind.kind.into(), &secret(&args.file)?)?;
                keys.save(&args.name, &owner, replace(args.force))?;
                show(out, &args.name, &owner, Secret::Hidden)
            }
            Self::Show(ShowArgs { name: Some(name), secret }) => {
                let shown = if secret { Secret::Shown } else { Secret::Hidden };
                show(out, &name, &keys.load(&name)?, shown)
            }
            Self::Show(ShowArgs { name: None, .. }) => keys.show_all(out),
        }
    }
}

fn replace(force: bool) -> Replace {
    if force { Replace::Yes } else { Replace::Never }
}

fn secret(file: &PathBuf) -> Result<String, CliError> {
    let mut text = String::new();
    let read = if file.as_os_str() == "-" {
        std::io::stdin().take(SECRET_FILE_BYTES_MAX).read_to_string(&mut text)
    } else {
        fs::File::open(file).and_then(|file| file.take(SECRET_FILE_BYTES_MAX).read_to_string(&mut text))
    };
    read.map_err(|error| CliError::file("read", file, &error))?;
    Ok(text)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Secret {
    Hidden,
    Shown,
}

fn show(out: &Output, name: &str, owner: &OwnerKey, secret: Secret) -> Result<(), CliError> {
    let kind = kind_of(owner);
    let mut lines = format!("{name}\t{kind}\t{}\n", owner.did());
    let mut object = json!({ "name": name, "kind": kind, "did": owner.did().as_str() });
    if secret == Secret::Shown {
        lines += &format!("{}\n", owner.secret_hex());
        object["secret"] = owner.secret_hex().into();
    }
    out.result(&lines, &object)
}

fn kind_of(owner: &OwnerKey) -> &'static str {
    match owner.kind() {
        KeyKind::Ed25519 => "ed25519",
        KeyKind::Ethereum => "ethereum",
    }
}

/// The keys in the home folder.
pub(crate) struct Keys(PathBuf);

impl Keys {
    pub(crate) fn new(home: Home) -> Self {
        Self(home.folder("keys"))
    }

    /// The key of this name.
    pub(crate) fn load(&self, name: &str) -> Result<OwnerKey, CliError> {
        let path = self.path(name)?;
        if !path.exists() {
            let advice = format!("make it: kvspace key new {name}; or import one: kvspace key import {name}");
            return Err(CliError::new(NOT_FOUND, format!("there is no key `{name}`")).advise(advice));
        }
        let broken = || CliError::new(FAILED, format!("{} does not hold a key", path.display()));
        let saved: Saved = serde_json::from_str(&read_private(&path)?).map_err(|_| broken())?;
        let owner = OwnerKey::from_hex(saved.kind.into(), &saved.secret)?;
        if owner.did().as_str() != saved.did {
            return Err(broken());
        }
        Ok(owner)
    }

    fn save(&self, name: &str, owner: &OwnerKey, replace: Replace) -> Result<(), CliError> {
        let path = self.path(name)?;
        let kind = match owner.kind() {
            KeyKind::Ed25519 => Kind::Ed25519,
            KeyKind::Ethereum => Kind::Ethereum,
        };
        let saved = Saved { kind, did: owner.did().as_str().to_owned(), secret: owner.secret_hex() };
        let text = serde_json::to_string_pretty(&saved).map_err(|error| CliError::new(FAILED, error.to_string()))?;
        write_private(&path, &text, replace).map_err(|error| {
            if error.kind() != ErrorKind::AlreadyExists {
                return CliError::file("write", &path, &error);
            }
            CliError::new(FAILED, format!("there is a key `{name}` already"))
                .advise("choose another name, or give --force: the key that is there is then lost")
        })
    }

    fn show_all(&self, out: &Output) -> Result<(), CliError> {
        let mut names = Vec::new();
        match fs::read_dir(&self.0) {
            Ok(entries) => {
                for entry in entries {
                    let file = entry?.file_name();
                    names.extend(file.to_str().and_then(|file| file.strip_suffix(".json")).map(str::to_owned));
                }
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(CliError::file("read", &self.0, &error)),
        }
        names.sort_unstable();
        let (mut lines, mut objects) = (String::new(), Vec::new());
        for name in names {
            let owner = self.load(&name)?;
            lines += &format!("{name}\t{}\t{}\n", kind_of(&owner), owner.did());
            objects.push(json!({ "name": name, "kind": kind_of(&owner), "did": owner.did().as_str() }));
        }
        if objects.is_empty() {
            out.note("there is no key yet; make one: kvspace key new");
        }
        out.result(&lines, &json!({ "keys": objects }))
    }

    fn path(&self, name: &str) -> Result<PathBuf, CliError> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if name.is_empty() || name.len() > NAME_BYTES_MAX || name.starts_with('.') || !name.chars().all(plain) {
            let message = format!("`{name}` is not the name of a key: letters, digits, `-`, `_` and `.`, not first");
            return Err(CliError::new(USAGE, message));
        }
        Ok(self.0.join(format!("{name}.json")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_again_by_its_name() {
        let dir = tempfile::tempdir().expect("a folder");
        let keys = Keys::new(Home::at(dir.path()));
        for (name, kind) in [("default", KeyKind::Ed25519), ("wallet", KeyKind::Ethereum)] {
            let owner = OwnerKey::generate(kind).expect("a key");
            keys.save(name, &owner, Replace::Never).expect("saved");
            assert_eq!(keys.load(name).expect("loaded").did(), owner.did());
            let other = OwnerKey::generate(kind).expect("a key");
            assert_eq!(keys.save(name, &other, Replace::Never).expect_err("there is one").exit, FAILED);
            assert_eq!(keys.load(name).expect("loaded").did(), owner.did());
            keys.save(name, &other, Replace::Yes).expect("replaced");
            assert_eq!(keys.load(name).expect("loaded").did(), other.did());
        }
    }

    #[test]
    fn a_name_cannot_leave_the_folder() {
        let dir = tempfile::tempdir().expect("a folder");
        let keys = Keys::new(Home::at(dir.path()));
        for name in ["", "../a", "a/b", ".a", "a b", &"a".repeat(65)] {
            assert_eq!(keys.load(name).expect_err("no name").exit, USAGE, "{name}");
        }
        assert_eq!(keys.load("nobody").expect_err("not there").exit, NOT_FOUND);
    }

    #[test]
    fn a_file_whose_key_is_another_is_refused() {
        let dir = tempfile::tempdir().expect("a folder");
        let keys = Keys::new(Home::at(dir.path()));
        let text = format!(r#"{{"kind":"ed25519","did":"did:key:z6Mk","secret":"{}"}}"#, "01".repeat(32));
        write_private(&keys.path("a").expect("a name"), &text, Replace::Never).expect("written");
        assert_eq!(keys.load("a").expect_err("another").exit, FAILED);
    }
}
