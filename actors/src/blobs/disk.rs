//! Where blobs lie: 256 folders by the first byte of the hash, a folder of unfinished uploads, and one of partial files.

use std::{
    fmt::Write,
    io,
    path::{Path, PathBuf},
};

use kvspace_protocol::id::BlobHash;

use crate::disk::Disk;

/// Makes the folders, durably, and empties the staging folder.
pub(super) fn prepare(disk: &dyn Disk, dir: &Path, staging: &Path, partial: &Path) -> io::Result<()> {
    disk.create_dir(staging)?;
    disk.create_dir(partial)?;
    for byte in 0..=u8::MAX {
        disk.create_dir(&dir.join(format!("{byte:02x}")))?;
    }
    disk.sync_dir(dir)?;
    for name in disk.list(staging)? {
        disk.remove(&staging.join(name))?;
    }
    Ok(())
}

/// The file of a blob: `ab/abcdef…`.
pub(super) fn path_of(dir: &Path, hash: &BlobHash) -> PathBuf {
    let name = name_of(hash);
    dir.join(&name[..2]).join(name)
}

/// How a file name spells a hash.
pub(super) fn name_of(hash: &BlobHash) -> String {
    hash.as_bytes().iter().fold(String::with_capacity(64), |mut name, byte| {
        write!(name, "{byte:02x}").expect("a string takes everything");
        name
    })
}

/// The blobs that have a file, ascending. Files of other names are none of ours.
pub(super) fn hashes(disk: &dyn Disk, dir: &Path) -> io::Result<Vec<BlobHash>> {
    let mut hashes = Vec::new();
    for byte in 0..=u8::MAX {
        let folder = dir.join(format!("{byte:02x}"));
        let names = match disk.list(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            names => names?,
        };
        let found = names.into_iter().filter_map(|name| hash_of(&name));
        hashes.extend(found.filter(|hash| hash.as_bytes()[0] == byte));
    }
    Ok(hashes)
}

/// The hash a file name spells.
pub(super) fn hash_of(name: &str) -> Option<BlobHash> {
    let lowercase = name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let hash = blake3::Hash::from_hex(name).ok().filter(|_| lowercase)?;
    Some(BlobHash(*hash.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_spells_its_hash() {
        let hash = BlobHash::of(b"value");
        let path = path_of(Path::new("/blobs"), &hash);
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name");
        assert_eq!(hash_of(name), Some(hash));
        assert_eq!(path, Path::new("/blobs").join(&name[..2]).join(name));
        assert_eq!(hash_of(&name.to_uppercase()), None);
        assert_eq!(hash_of(&name[1..]), None);
    }
}
