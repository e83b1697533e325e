//! The data folder: one process at a time, one format.

use std::{
    fs::{self, DirBuilder, File, TryLockError},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

/// The format of the data folder that this program writes and reads.
const FORMAT: u32 = 1;
/// What stands before the number in the format file.
const FORMAT_WORDS: &str = "kvspace data ";

/// The file that says that a data folder was made of a backup: its spaces may have gone on elsewhere since.
const RESTORED: &str = "restored";

/// A data folder that this process has for itself until the value is dropped.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: File,
}

/// Why a data folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process holds it.
    #[error("the data folder {} is in use by another kvspace process", .0.display())]
    InUse(PathBuf),
    /// A later release wrote it.
    #[error("the data folder {} has format {found}, this kvspace reads format {known}; use a newer release", .path.display())]
    Newer {
        /// The folder.
        path: PathBuf,
        /// The format it says.
        found: u32,
        /// The format of this program.
        known: u32,
    },
    /// The folder holds something else.
    #[error("{} is no kvspace data folder: {what}", .path.display())]
    Foreign {
        /// The folder.
        path: PathBuf,
        /// What was found instead.
        what: &'static str,
    },
    /// The file system refused.
    #[error("cannot use {}: {source}", .path.display())]
    Io {
        /// The file or folder in question.
        path: PathBuf,
        /// The reason it gave.
        source: io::Error,
    },
}

impl DataDir {
    /// Takes the data folder at `path`, creating it (mode 0700) and its parts if they are missing.
    ///
    /// # Errors
    /// [`OpenError`], a sentence for the operator.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, OpenError> {
        let path = path.into();
        let at = |path: &Path| {
            let path = path.to_owned();
            move |source| OpenError::Io { path, source }
        };
        create_durable(&path).map_err(at(&path))?;
        let lock_path = path.join("lock");
        let lock = File::options().create(true).truncate(false).write(true).open(&lock_path).map_err(at(&lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(OpenError::InUse(path)),
            Err(TryLockError::Error(source)) => return Err(OpenError::Io { path: lock_path, source }),
        }
        check_format(&path)?;
        for part in ["log", "blobs", "index"] {
            let part = path.join(part);
            create_durable(&part).map_err(at(&part))?;
        }
        let folder = Self { path, _lock: lock };
        let scratch = folder.scratch();
        match fs::remove_dir_all(&scratch) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at(&scratch)(error)),
            _ => Ok(folder),
        }
    }

    /// The folder itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the log's segments lie.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.path.join("log")
    }

    /// Where the large blobs lie.
    #[must_use]
    pub fn blobs(&self) -> PathBuf {
        self.path.join("blobs")
    }

    /// Where the index lies.
    #[must_use]
    pub fn index(&self) -> PathBuf {
        self.path.join("index")
    }

    /// Whether the folder was made of a backup, and no process has ended since that had its spaces caught up.
    #[must_use]
    pub fn is_restored(&self) -> bool {
        self.path.join(RESTORED).exists()
    }

    /// Forgets that the folder was made of a backup.
    ///
    /// # Errors
    /// As the file system reports them.
    pub fn forget_restored(&self) -> io::Result<()> {
        match fs::remove_file(self.path.join(RESTORED)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }

    /// A folder for what nobody needs afterwards. Not there at first: what a process left in it is removed by the next.
    #[must_use]
    pub fn scratch(&self) -> PathBuf {
        self.path.join("scratch")
    }
}

/// Notes that this folder was made of a backup; durable once its names are.
///
/// # Errors
/// As the file system reports them.
pub fn mark_restored(path: &Path) -> io::Result<()> {
    File::options().create(true).truncate(false).write(true).open(path.join(RESTORED))?.sync_all()
}

/// Checks that there is a data folder of this program's format, and makes none.
///
/// # Errors
/// [`OpenError`], a sentence for the operator.
pub fn require_format(path: &Path) -> Result<(), OpenError> {
    if path.join("format").exists() {
        return check_format(path);
    }
    Err(OpenError::Foreign { path: path.to_owned(), what: "it has no format file" })
}

/// Makes a folder and what is missing above it (mode 0700), and makes each new name durable.
///
/// # Errors
/// As the file system reports them.
pub fn create_durable(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    create_durable(parent)?;
    match DirBuilder::new().mode(0o700).create(path) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists || !path.is_dir() => return Err(e),
        _ => {}
    }
    File::open(parent)?.sync_all()
}

/// Reads the format file, or writes it when the folder is new.
fn check_format(path: &Path) -> Result<(), OpenError> {
    let file = path.join("format");
    let text = match fs::read_to_string(&file) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return write_format(path),
        Err(source) => return Err(OpenError::Io { path: file, source }),
    };
    let number = text.strip_prefix(FORMAT_WORDS).and_then(|rest| rest.trim_end().parse::<u32>().ok());
    match number {
        Some(FORMAT) => Ok(()),
        Some(found) if found > FORMAT => Err(OpenError::Newer { path: path.to_owned(), found, known: FORMAT }),
        _ => Err(OpenError::Foreign { path: path.to_owned(), what: "its format file says something unknown" }),
    }
}

fn write_format(path: &Path) -> Result<(), OpenError> {
    if path.join("log").exists() {
        return Err(OpenError::Foreign { path: path.to_owned(), what: "there is a log but no format file" });
    }
    let (new, file) = (path.join("format.new"), path.join("format"));
    let write = || {
        fs::write(&new, format!("{FORMAT_WORDS}{FORMAT}\n"))?;
        File::open(&new)?.sync_all()?;
        fs::rename(&new, &file)?;
        File::open(path)?.sync_all()
    };
    write().map_err(|source| OpenError::Io { path: file.clone(), source })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_folder_is_made_for_its_owner_only_and_opened_again() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("deep/data");
        drop(DataDir::open(&path).expect("new"));
        let mode = fs::metadata(&path).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        let again = DataDir::open(&path).expect("again");
        assert!(again.log().is_dir() && again.blobs().is_dir() && again.index().is_dir());
    }

    #[test]
    fn a_second_holder_is_refused_until_the_first_is_gone() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let first = DataDir::open(dir.path()).expect("first");
        let refused = DataDir::open(dir.path()).expect_err("held");
        assert!(refused.to_string().ends_with("is in use by another kvspace process"), "{refused}");
        drop(first);
        DataDir::open(dir.path()).expect("free again");
    }

    #[test]
    fn what_the_last_process_left_in_scratch_is_gone() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let scratch = DataDir::open(dir.path()).expect("new").scratch();
        fs::create_dir_all(scratch.join("index")).expect("made");
        fs::write(scratch.join("index/state"), "x").expect("written");
        drop(DataDir::open(dir.path()).expect("again"));
        assert!(!scratch.exists());
    }

    #[test]
    fn a_folder_without_format_is_not_taken_for_one() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        assert!(matches!(require_format(dir.path()), Err(OpenError::Foreign { .. })));
        drop(DataDir::open(dir.path()).expect("new"));
        require_format(dir.path()).expect("one of ours");
    }

    #[test]
    fn a_newer_format_is_refused_with_both_numbers() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        fs::write(dir.path().join("format"), "kvspace data 7\n").expect("written");
        let refused = DataDir::open(dir.path()).expect_err("newer").to_string();
        assert!(refused.contains("has format 7, this kvspace reads format 1"), "{refused}");
    }

    #[test]
    fn a_folder_of_something_else_is_refused() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        fs::write(dir.path().join("format"), "PG_VERSION 16").expect("written");
        assert!(matches!(DataDir::open(dir.path()), Err(OpenError::Foreign { .. })));
        let dir = tempfile::tempdir().expect("a temporary folder");
        fs::create_dir(dir.path().join("log")).expect("made");
        assert!(matches!(DataDir::open(dir.path()), Err(OpenError::Foreign { .. })));
    }
}
