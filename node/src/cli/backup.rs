//! `kvspace backup`.

use std::{
    fs::{self, File},
    io::{self, BufWriter, IsTerminal as _, Read, Write},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args;
use kvspace_actors::{
    backup::{BackupError, Copied, FolderTarget, Part, Source, Target, write},
    disk::create_durable,
};
use serde_json::json;

use super::{
    data::{DataArgs, Steps},
    error::{CliError, FAILED, USAGE},
    output::Output,
    transfer::{bytes, some},
};

const HELP: &str = "Works while the node runs and when it does not. The backup holds the log, the files of large values and the node's key:
keep it as secret as the key. The index is left out; the log makes it anew.

Example:
  kvspace backup /backups/monday --data-dir ./data
  kvspace backup - --data-dir ./data | gzip > monday.tar.gz";

/// Written at a time.
const BUFFER_BYTES: usize = 1024 * 1024;

#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct BackupArgs {
    /// A new or empty folder; `-` writes a tar archive to standard output
    #[arg(value_name = "FOLDER")]
    to: PathBuf,
    #[command(flatten)]
    data: DataArgs,
}

impl BackupArgs {
    pub(crate) fn run(self, out: &Output) -> Result<ExitCode, CliError> {
        let config = self.data.config()?;
        let source = Source { data_dir: config.node.data_dir, key_file: config.node.key_file };
        let is_stream = self.to == Path::new("-");
        let copied = if is_stream { to_stream(&source, out)? } else { to_folder(&source, &self.to)? };
        let Copied { has_key, segments, log_bytes, files, file_bytes, damaged } = &copied;
        let key = if *has_key {
            "the node's key is in it: keep it as secret as the key"
        } else {
            "the node has no key yet, so there is none in it"
        };
        let mut lines = format!(
            "copied {} of {} and {} of {}; {key}",
            some(*segments, "segment"),
            bytes(*log_bytes),
            some(*files, "file"),
            bytes(*file_bytes)
        );
        let damaged: Vec<String> = damaged.iter().map(|hash| Part::Blob(*hash).path()).collect();
        for path in &damaged {
            lines += &format!("\n{path} is damaged, and was copied as it is");
        }
        if !damaged.is_empty() {
            lines += "\nthe backup is complete; `kvspace verify` tells which values are lost";
        }
        let object = json!({
            "to": self.to.display().to_string(), "has_key": has_key, "segments": segments, "log_bytes": log_bytes,
            "files": files, "file_bytes": file_bytes, "damaged": damaged,
        });
        if is_stream {
            out.result_beside(&lines, &object)?
        } else {
            out.result(&lines, &object)?
        }
        Ok(if damaged.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
    }
}

fn to_stream(source: &Source, out: &Output) -> Result<Copied, CliError> {
    let stdout = out.stream();
    if stdout.is_terminal() {
        return Err(CliError::new(USAGE, "standard output is a terminal").advise("send it to a file or a pipe"));
    }
    let mut target = TarTarget(tar::Builder::new(BufWriter::with_capacity(BUFFER_BYTES, stdout)));
    let copied = copy(source, &mut target)?;
    target.0.into_inner()?.flush()?;
    Ok(copied)
}

/// Writes to a folder of another name, which gets its own when all is there.
fn to_folder(source: &Source, to: &Path) -> Result<Copied, CliError> {
    let new = NewFolder::begin(to)?;
    let mut target = FolderTarget::new(new.path());
    let copied = copy(source, &mut target)?;
    target.sync()?;
    new.end()?;
    Ok(copied)
}

fn copy(source: &Source, target: &mut dyn Target) -> Result<Copied, CliError> {
    let mut steps = Steps::new();
    Ok(write(source, target, &mut |bytes| steps.tell("copied", bytes, None))?)
}

/// A folder that nobody sees before it is whole.
pub(crate) struct NewFolder {
    temporary: tempfile::TempDir,
    to: PathBuf,
    parent: PathBuf,
}

impl NewFolder {
    /// For a folder that is not there, or is empty.
    pub(crate) fn begin(to: &Path) -> Result<Self, CliError> {
        let parent = to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        check_place(to, parent)?;
        match fs::read_dir(to).map(|mut entries| entries.next().is_some()) {
            Ok(true) => {
                return Err(CliError::new(FAILED, format!("{} is not empty", to.display())));
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(CliError::file("use", to, &error)),
            Ok(false) | Err(_) => {}
        }
        create_durable(parent).map_err(|error| CliError::file("make", parent, &error))?;
        let name = to.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let temporary = tempfile::Builder::new()
            .prefix(&format!(".{name}."))
            .suffix(".unfinished")
            .permissions(fs::Permissions::from_mode(0o700))
            .tempdir_in(parent);
        let temporary = temporary.map_err(|error| CliError::file("make a folder in", parent, &error))?;
        Ok(Self { temporary, to: to.to_owned(), parent: parent.to_owned() })
    }

    pub(crate) fn path(&self) -> &Path {
        self.temporary.path()
    }

    /// Gives it its name, durably. Everything in it is durable.
    pub(crate) fn end(self) -> Result<(), CliError> {
        let Self { temporary, to, parent } = self;
        fs::rename(temporary.path(), &to).map_err(|error| CliError::file("put in place", &to, &error))?;
        // Nothing of that name is left to be removed.
        let _path = temporary.keep();
        File::open(&parent).and_then(|folder| folder.sync_all())?;
        Ok(())
    }
}

/// Refuses a folder that no other can take the place of: better now than when all is written.
fn check_place(to: &Path, parent: &Path) -> Result<(), CliError> {
    let refused = |why: &str| {
        let refused =
            CliError::new(FAILED, format!("{} {why}, so no finished folder can take its place", to.display()));
        refused.advise("name a new folder below it")
    };
    let Some(name) = to.file_name() else {
        return Err(refused("has no name of its own"));
    };
    if parent.join(name).is_symlink() {
        return Err(refused("is a link"));
    }
    match (fs::metadata(to), fs::metadata(parent)) {
        (Ok(to), Ok(parent)) if to.dev() != parent.dev() => Err(refused("is a mount point")),
        _ => Ok(()),
    }
}

/// Parts as entries of a tar archive.
struct TarTarget<W: Write>(tar::Builder<W>);

impl<W: Write> Target for TarTarget<W> {
    fn put(&mut self, part: &Part, size_bytes: u64, bytes: &mut dyn Read) -> io::Result<()> {
        let mut header = tar::Header::new_ustar();
        header.set_size(size_bytes);
        header.set_mode(0o600);
        header.set_mtime(0);
        self.0.append_data(&mut header, part.path(), bytes)
    }
}

impl From<BackupError> for CliError {
    fn from(error: BackupError) -> Self {
        Self::new(FAILED, error.to_string())
    }
}
