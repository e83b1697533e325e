//! A new index in place of the old one.

use std::{fs, io, path::Path};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::unusable;
use crate::{
    StartError,
    disk::{DataDir, Disk as _, OsDisk},
};

/// Has the index in the folder `made`, which is closed, take the place of the kept one; that ends up in the scratch folder.
/// A power cut leaves the old one, the new one, or none: then the next start makes it.
pub(super) fn replace(folder: &DataDir, made: &Path) -> Result<(), StartError> {
    let index = folder.index();
    let exchanged = match renameat_with(CWD, made, CWD, &index, RenameFlags::EXCHANGE) {
        // Not every file system can.
        Err(_) => one_by_one(made, &index, &folder.scratch().join("old")),
        Ok(()) => Ok(()),
    };
    exchanged.and_then(|()| OsDisk.sync_dir(folder.path())).map_err(unusable(&index))
}

fn one_by_one(made: &Path, index: &Path, old: &Path) -> io::Result<()> {
    fs::rename(index, old)?;
    fs::rename(made, index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_new_index_is_in_place_and_the_old_one_in_scratch() {
        let dir = tempfile::tempdir().expect("a folder");
        let folder = DataDir::open(dir.path()).expect("new");
        let made = folder.scratch().join("made");
        for (path, text) in [(folder.index(), "old"), (made.clone(), "new")] {
            fs::create_dir_all(&path).expect("made");
            fs::write(path.join("state"), text).expect("written");
        }
        let state = || fs::read_to_string(folder.index().join("state")).expect("there");
        replace(&folder, &made).expect("replaced");
        assert_eq!(state(), "new");
        one_by_one(&made, &folder.index(), &folder.scratch().join("old")).expect("replaced");
        assert_eq!(state(), "old");
    }
}
