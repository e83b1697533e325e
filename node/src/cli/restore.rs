//! `kvspace restore`.

use std::{
    fs::{self, File},
    io::{self, BufReader, Read},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args;
use kvspace_actors::backup::{KeyWish, Part, RestoreError, Restored, Restoring};
use serde_json::json;

use super::{
    backup::NewFolder,
    data::{DataArgs, Steps},
    error::{CliError, FAILED},
    output::Output,
    transfer::{bytes, some},
};

const HELP: &str =
    "The data folder must be missing or empty. A backup that is not complete, or not as it was written, is refused.

Example:
  kvspace restore /backups/monday --data-dir ./restored
  gunzip -c monday.tar.gz | kvspace restore - --data-dir ./restored";

/// Read at a time.
const BUFFER_BYTES: usize = 1024 * 1024;

#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct RestoreArgs {
    /// The folder of a backup; `-` reads a tar archive from standard input
    #[arg(value_name = "FOLDER")]
    from: PathBuf,
    #[command(flatten)]
    data: DataArgs,
    /// Leaves the node's key out: the node gets a new one, and has to be made a host again
    #[arg(long)]
    new_key: bool,
}

impl RestoreArgs {
    pub(crate) fn run(self, out: &Output) -> Result<ExitCode, CliError> {
        let node = self.data.config()?.node;
        let new = NewFolder::begin(&node.data_dir)?;
        let key = if self.new_key { KeyWish::Leave } else { KeyWish::Keep };
        let mut restoring = Restoring::new(new.path(), key);
        if self.from == Path::new("-") {
            from_stream(&mut restoring, io::stdin().lock())?;
        } else {
            from_folder(&mut restoring, &self.from)?;
        }
        let restored = restoring.finish()?;
        new.end()?;
        let Restored { has_key, segments, files, bytes: size_bytes } = &restored;
        let data_dir = node.data_dir.display();
        let mut lines = format!(
            "restored {} to {data_dir}: {} of the log, {}\n\
             the next start makes the index\n",
            bytes(*size_bytes),
            some(*segments, "segment"),
            some(*files, "file"),
        );
        lines += if *has_key {
            "the node goes on as the same host, in a new chain of epochs: never run it beside the original with the same key"
        } else {
            "the node gets a new key at the next start, and has to be made a host of its spaces again"
        };
        if *has_key && node.key_file != node.data_dir.join("node.key") {
            lines += &format!("\nthe key is in {data_dir}/node.key; move it to {}", node.key_file.display());
        }
        let object = json!({
            "data_dir": data_dir.to_string(), "has_key": has_key, "segments": segments, "files": files, "bytes": size_bytes,
        });
        out.result(&lines, &object)?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Reads a tar archive. Nothing but plain files is taken, and of those only parts of a backup. No header that extends the
/// next one is obeyed: such a header may be of any size, and would be read into memory.
fn from_stream(restoring: &mut Restoring, stream: impl Read) -> Result<(), CliError> {
    let mut steps = Steps::new();
    let mut read_bytes = 0;
    let mut archive = tar::Archive::new(BufReader::with_capacity(BUFFER_BYTES, stream));
    for entry in archive.entries()?.raw(true) {
        let mut entry = entry.map_err(|error| unreadable(&error))?;
        let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        if entry.header().entry_type() != tar::EntryType::Regular {
            return Err(RestoreError::Foreign(path).into());
        }
        let size_bytes = entry.size();
        restoring.take(&path, size_bytes, &mut entry)?;
        read_bytes += size_bytes;
        steps.tell("restored", read_bytes, None);
    }
    Ok(())
}

fn from_folder(restoring: &mut Restoring, folder: &Path) -> Result<(), CliError> {
    let mut parts = Vec::new();
    collect(folder, "", &mut parts)?;
    parts.sort();
    let mut steps = Steps::new();
    let mut read_bytes = 0;
    for part in parts {
        let path = folder.join(part.path());
        let opened = File::open(&path).and_then(|file| Ok((file.metadata()?.len(), file)));
        let (size_bytes, mut file) = opened.map_err(|error| CliError::file("read", &path, &error))?;
        restoring.take(&part.path(), size_bytes, &mut file)?;
        read_bytes += size_bytes;
        steps.tell("restored", read_bytes, None);
    }
    Ok(())
}

/// The parts that lie in a folder, by their paths within the backup.
fn collect(folder: &Path, within: &str, parts: &mut Vec<Part>) -> Result<(), CliError> {
    let failed = |error: io::Error| CliError::file("read", folder, &error);
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let path = format!("{within}{}", entry.file_name().to_string_lossy());
        let kind = entry.file_type().map_err(failed)?;
        if kind.is_dir() {
            collect(&entry.path(), &format!("{path}/"), parts)?;
            continue;
        }
        let part = Part::parse(&path).filter(|_| kind.is_file());
        parts.push(part.ok_or(RestoreError::Foreign(path))?);
    }
    Ok(())
}

fn unreadable(error: &io::Error) -> CliError {
    CliError::new(FAILED, format!("this is no tar archive, or it is incomplete: {error}"))
}

impl From<RestoreError> for CliError {
    fn from(error: RestoreError) -> Self {
        let advice = match &error {
            RestoreError::Damaged => Some("copy its files by hand, and ask `kvspace verify` what is lost"),
            RestoreError::Incomplete(_) => Some("take another backup: something of this one is missing"),
            RestoreError::Foreign(_)
            | RestoreError::Order(_)
            | RestoreError::OtherFormat
            | RestoreError::DataDir(_)
            | RestoreError::Io { .. } => None,
        };
        let failed = Self::new(FAILED, error.to_string());
        match advice {
            Some(advice) => failed.advise(advice),
            None => failed,
        }
    }
}
