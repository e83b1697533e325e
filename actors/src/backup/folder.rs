//! Parts as files of a folder.

use std::{
    collections::BTreeSet,
    fs::{DirBuilder, File, OpenOptions},
    io::{self, Read},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use super::{Part, Target};

/// Writes parts into a folder that nobody looks at yet: for their owner's eyes only, and durable after
/// [`FolderTarget::sync`].
#[derive(Debug)]
pub struct FolderTarget {
    dir: PathBuf,
    /// The folders in which there are new names.
    touched: BTreeSet<PathBuf>,
}

impl FolderTarget {
    /// In this folder, which is there and empty.
    #[must_use]
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), touched: BTreeSet::from([dir.to_owned()]) }
    }

    /// Makes the names durable.
    ///
    /// # Errors
    /// As the file system reports them.
    pub fn sync(&self) -> io::Result<()> {
        self.touched.iter().rev().try_for_each(|folder| File::open(folder)?.sync_all())
    }

    fn make_dir(&mut self, dir: &Path) -> io::Result<()> {
        if !self.touched.contains(dir) {
            if let Some(parent) = dir.parent() {
                self.make_dir(parent)?;
            }
            DirBuilder::new().mode(0o700).create(dir)?;
            self.touched.insert(dir.to_owned());
        }
        Ok(())
    }
}

impl Target for FolderTarget {
    fn put(&mut self, part: &Part, _size_bytes: u64, bytes: &mut dyn Read) -> io::Result<()> {
        let path = self.dir.join(part.path());
        if let Some(parent) = path.parent() {
            self.make_dir(parent)?;
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        io::copy(bytes, &mut file)?;
        file.sync_all()
    }
}
