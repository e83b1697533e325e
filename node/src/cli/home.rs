//! The folder where keys and sessions lie, and files that only their owner reads.

use std::{
    env, fs,
    io::{ErrorKind, Write as _},
    path::{Path, PathBuf},
};

use tempfile::NamedTempFile;

use super::error::{CliError, FAILED};

/// Whether a file that is there may be replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Replace {
    Never,
    Yes,
}

/// The folder for keys and sessions: `$KVSPACE_HOME`, else `~/.config/kvspace`.
#[derive(Debug, Clone)]
pub(crate) struct Home(PathBuf);

impl Home {
    pub(crate) fn find() -> Result<Self, CliError> {
        let set = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        set("KVSPACE_HOME").or_else(|| set("HOME").map(|home| home.join(".config/kvspace"))).map(Self).ok_or_else(
            || CliError::new(FAILED, "there is no home folder for keys").advise("set KVSPACE_HOME to a folder"),
        )
    }

    #[cfg(test)]
    pub(crate) fn at(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// A folder in it, which need not be there yet.
    pub(crate) fn folder(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

/// Writes a file of mode 0600 in one step: it is there whole or not at all. Its folder is made with mode 0700.
///
/// # Errors
/// [`ErrorKind::AlreadyExists`] when there is one that may not be replaced.
pub(crate) fn write_private(path: &Path, text: &str, replace: Replace) -> std::io::Result<()> {
    let folder = path.parent().ok_or(ErrorKind::InvalidInput)?;
    make_private_folder(folder)?;
    // A temporary file is made with mode 0600.
    let mut file = NamedTempFile::new_in(folder)?;
    file.write_all(text.as_bytes())?;
    file.as_file().sync_all()?;
    match replace {
        Replace::Never => file.persist_noclobber(path).map(drop)?,
        Replace::Yes => file.persist(path).map(drop)?,
    }
    fs::File::open(folder)?.sync_all()
}

/// Reads a file, unless others could have read it as well.
pub(crate) fn read_private(path: &Path) -> Result<String, CliError> {
    let text = fs::read_to_string(path).map_err(|error| CliError::file("read", path, &error))?;
    if is_open_to_others(path).map_err(|error| CliError::file("read", path, &error))? {
        let message = format!("{} holds a secret and can be read by others", path.display());
        return Err(CliError::new(FAILED, message).advise(format!("run: chmod 600 {}", path.display())));
    }
    Ok(text)
}

#[cfg(unix)]
fn make_private_folder(folder: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

#[cfg(not(unix))]
fn make_private_folder(folder: &Path) -> std::io::Result<()> {
    fs::create_dir_all(folder)
}

#[cfg(unix)]
fn is_open_to_others(path: &Path) -> std::io::Result<bool> {
    use std::os::unix::fs::PermissionsExt as _;
    Ok(fs::metadata(path)?.permissions().mode() & 0o077 != 0)
}

#[cfg(not(unix))]
fn is_open_to_others(_path: &Path) -> std::io::Result<bool> {
    Ok(false)
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("there").permissions().mode() & 0o777
    }

    #[test]
    fn a_secret_is_for_its_owner_only_and_never_replaced_by_accident() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("home/keys/default.json");
        write_private(&path, "one", Replace::Never).expect("written");
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(path.parent().expect("a folder")), 0o700);
        let error = write_private(&path, "two", Replace::Never).expect_err("there is one");
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        assert_eq!(read_private(&path).expect("read"), "one");
        write_private(&path, "two", Replace::Yes).expect("written");
        assert_eq!((read_private(&path).expect("read").as_str(), mode(&path)), ("two", 0o600));
        assert_eq!(
            fs::read_dir(path.parent().expect("a folder")).expect("a folder").count(),
            1,
            "nothing is left behind"
        );
    }

    #[test]
    fn a_secret_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("key.json");
        write_private(&path, "one", Replace::Never).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("changed");
        assert!(read_private(&path).is_err());
    }
}
