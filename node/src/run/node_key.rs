//! The file that holds the node's key: 32 bytes in hex, readable by its owner only.

use std::{
    fs::{DirBuilder, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use rand::{TryRng as _, rngs::SysRng};

/// What others may not do with the file.
const OTHERS: u32 = 0o077;
/// The key in hex and a line feed, and one byte more to see whether there is more.
const READ_BYTES_MAX: u64 = 66;

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeyError {
    #[error("cannot use the key file {}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error(
        "the key file {} does not hold 64 hex digits; put the right file there, or move it away to start as a new node",
        .0.display()
    )]
    Malformed(PathBuf),
    #[error("the system gives no random numbers: {0}")]
    Random(String),
}

/// Reads the key, or makes one if the file is not there.
pub(crate) fn load_or_create(path: &Path) -> Result<[u8; 32], KeyError> {
    if let Some(key) = load(path)? {
        return Ok(key);
    }
    let mut key = [0; 32];
    SysRng.try_fill_bytes(&mut key).map_err(|error| KeyError::Random(error.to_string()))?;
    write(path, &key).map_err(|source| KeyError::Io { path: path.to_owned(), source })?;
    tracing::info!(path = %path.display(), "made a new key for this node");
    Ok(key)
}

/// Reads the key; `None` if the file is not there.
pub(crate) fn load(path: &Path) -> Result<Option<[u8; 32]>, KeyError> {
    match File::open(path) {
        Ok(file) => read(path, file).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(KeyError::Io { path: path.to_owned(), source }),
    }
}

fn read(path: &Path, file: File) -> Result<[u8; 32], KeyError> {
    let failed = |source| KeyError::Io { path: path.to_owned(), source };
    let mode = file.metadata().map_err(failed)?.permissions().mode();
    if mode & OTHERS != 0 {
        tracing::warn!(path = %path.display(), "others may read the node's key: chmod 600 it");
    }
    let mut text = Vec::new();
    file.take(READ_BYTES_MAX).read_to_end(&mut text).map_err(failed)?;
    let malformed = || KeyError::Malformed(path.to_owned());
    let hash = blake3::Hash::from_hex(text.trim_ascii()).map_err(|_| malformed())?;
    Ok(*hash.as_bytes())
}

/// Writes the key so that it is whole and durable under its name or not there at all.
fn write(path: &Path, key: &[u8; 32]) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    writeln!(file, "{}", blake3::Hash::from_bytes(*key))?;
    file.sync_all()?;
    std::fs::rename(&new, path)?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_and_for_its_owner_only() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("deep/node.key");
        let key = load_or_create(&path).expect("a new key");
        assert_ne!(key, [0; 32]);
        assert_eq!(load_or_create(&path).expect("the same key"), key);
        let mode = std::fs::metadata(&path).expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(path.parent().expect("a folder")).expect("a folder").count(), 1);
    }

    #[test]
    fn a_file_of_something_else_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("node.key");
        for text in ["", "abc", &"g".repeat(64), &"a".repeat(65), &format!("{}\nmore", "a".repeat(64))] {
            std::fs::write(&path, text).expect("written");
            assert!(matches!(load_or_create(&path), Err(KeyError::Malformed(_))), "{text}");
            assert_eq!(std::fs::read_to_string(&path).expect("there"), text);
        }
        std::fs::write(&path, format!("{}\n", "0A".repeat(32))).expect("written");
        assert_eq!(load_or_create(&path).expect("a key"), [10; 32]);
    }
}
