//! Who may take bytes away: the collector one step at a time, or nobody while a copy is made.

use std::{
    fs::{File, TryLockError},
    io,
    path::Path,
};

/// While this is held, by any process, nothing that the log or its values rest on is removed or written anew.
#[derive(Debug)]
pub struct CollectLock {
    _file: File,
}

impl CollectLock {
    /// For the collector: takes the lock alone; `None` while a copy is made.
    ///
    /// # Errors
    /// As the file system reports them; so for both.
    pub fn try_alone(data_dir: &Path) -> io::Result<Option<Self>> {
        let file = open(data_dir)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// For whoever copies: waits until the collector's step is done, and keeps it from the next one. Several may copy at
    /// a time.
    pub fn shared(data_dir: &Path) -> io::Result<Self> {
        let file = open(data_dir)?;
        file.lock_shared()?;
        Ok(Self { _file: file })
    }
}

fn open(data_dir: &Path) -> io::Result<File> {
    File::options().create(true).truncate(false).write(true).open(data_dir.join("collect.lock"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_collected_while_somebody_copies() {
        let dir = tempfile::tempdir().expect("a folder");
        let (one, two) = (CollectLock::shared(dir.path()), CollectLock::shared(dir.path()));
        let taken = || CollectLock::try_alone(dir.path()).expect("a lock").is_some();
        assert!(!taken());
        drop(one.expect("shared"));
        assert!(!taken());
        drop(two.expect("shared"));
        assert!(taken());
    }
}
