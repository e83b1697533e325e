//! Partial files: values on their way from peers.
//!
//! `partial/<hash>-<size>` is sparse: only groups that were verified are written to it, at their place. Beside it lies a map
//! that says which these are. Its order on disk: the data is synced, then the map is; so a map that can be read claims too
//! little at most, and a power cut costs progress alone. A file that went through a map is hashed once more before it gets
//! its name as a blob. While one is open it has a lease, so that a removal that comes meanwhile takes effect at its end.

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use kvspace_protocol::{id::BlobHash, sync::blob::GROUP_BYTES};

use super::{Blobs, Groups, Leases, Shared, Staged, disk, staging};
use crate::disk::DiskFile;

/// Verified bytes after which the map is written: what a power cut may cost.
const CHECKPOINT_BYTES: u64 = 16 * 1024 * 1024;
/// A map with more gaps than this is not believed.
const MAP_BYTES_MAX: u64 = 16 * 1024 * 1024;
const MAP_CONTEXT: &[u8] = b"kvspace map 1\n";
const READ_BYTES: usize = 1024 * 1024;

/// The file of a value that is being fetched. All its methods block.
pub(crate) struct Partial {
    shared: Arc<Shared>,
    hash: BlobHash,
    size: u64,
    /// `None` until there is something to write.
    file: Option<Arc<dyn DiskFile>>,
    verified: Groups,
    /// Whether what is verified is known from a map.
    is_resumed: bool,
    unsynced_bytes: u64,
    has_map: bool,
    /// Whether making it durable failed: pages may be lost that read as if they were there.
    is_broken: bool,
    /// Whether the lease was passed on.
    is_done: bool,
}

impl Blobs {
    /// What a former process had of values, by hash and size. What cannot be gone on with is removed. For the start.
    pub(crate) fn partials(&self) -> io::Result<Vec<(BlobHash, u64, Groups)>> {
        let shared = &self.shared;
        let names: BTreeSet<String> = shared.disk.list(&shared.partial)?.into_iter().collect();
        let mut partials = Vec::new();
        for name in &names {
            let path = shared.partial.join(name);
            let Some((hash, size)) = key_of(name) else {
                let is_map = name.strip_suffix(".map").is_some_and(|data| names.contains(data));
                if !is_map {
                    remove_file(shared, &path)?;
                }
                continue;
            };
            match shared.read_map(hash, size) {
                Some(groups) => partials.push((hash, size, groups)),
                None => {
                    remove_file(shared, &path)?;
                    remove_file(shared, &beside(&path, ".map"))?;
                }
            }
        }
        Ok(partials)
    }

    /// Opens the partial file of a value, and goes on with what is there of it.
    pub(crate) fn partial(&self, hash: BlobHash, size: u64) -> Partial {
        let shared = Arc::clone(&self.shared);
        // From here on nobody removes the files.
        shared.lock(&hash).entry(hash).or_insert(Leases { count: 0, kept: true }).count += 1;
        let map = shared.read_map(hash, size);
        let file = map.as_ref().and_then(|_| shared.disk.open(&shared.partial_path(hash, size)).ok());
        let (file, verified) = file.zip(map).unzip();
        let (is_resumed, verified) = (file.is_some(), verified.unwrap_or_default());
        let (unsynced_bytes, has_map, is_broken, is_done) = (0, is_resumed, false, false);
        Partial { shared, hash, size, file, verified, is_resumed, unsynced_bytes, has_map, is_broken, is_done }
    }

    /// Somebody refers to this value: a removal that waits for the end of leases on it does not come.
    pub(crate) fn want(&self, hash: &BlobHash) {
        if let Some(leases) = self.shared.lock(hash).get_mut(hash) {
            leases.kept = true;
        }
    }

    /// Removes what there is of this value, if nobody is at it.
    pub(crate) fn forget_partial(&self, hash: &BlobHash) -> io::Result<()> {
        self.sweep_partial(|other| other != hash)
    }

    /// Removes the partial files of what `keep` does not name, but for those that are open.
    pub(super) fn sweep_partial(&self, keep: impl Fn(&BlobHash) -> bool) -> io::Result<()> {
        let shared = &self.shared;
        for name in shared.disk.list(&shared.partial)? {
            let key = key_of(name.split('.').next().unwrap_or(&name));
            let Some((hash, _)) = key.filter(|(hash, _)| !keep(hash)) else { continue };
            let leases = shared.lock(&hash);
            if !leases.contains_key(&hash) {
                remove_file(shared, &shared.partial.join(name))?;
            }
        }
        Ok(())
    }
}

impl Partial {
    /// The groups that are here.
    #[cfg(test)]
    pub(crate) fn verified(&self) -> &Groups {
        &self.verified
    }

    /// Takes whole groups that were verified, the first of them at `offset`. [`is_full`](crate::disk::is_full) tells whether
    /// there is no room. After an error nothing more is known to be
    /// here than before.
    pub(crate) fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        staging::check_room(&self.shared)?;
        self.file()?.write_at(bytes, offset)?;
        let from = offset / GROUP_BYTES;
        self.verified.insert(from..from + (bytes.len() as u64).div_ceil(GROUP_BYTES).max(1));
        self.unsynced_bytes += bytes.len() as u64;
        Ok(())
    }

    /// Whether so much came since the last one that a checkpoint is due.
    pub(crate) fn is_checkpoint_due(&self) -> bool {
        self.unsynced_bytes >= CHECKPOINT_BYTES
    }

    /// Makes what is here durable, and then known. After an error this is of no use any more: a sync that failed may have
    /// lost anything.
    pub(crate) fn checkpoint(&mut self) -> io::Result<()> {
        if self.unsynced_bytes == 0 {
            return Ok(());
        }
        let kept = self.keep();
        self.is_broken |= kept.is_err();
        kept
    }

    /// Whether it is of no use any more.
    pub(crate) fn is_broken(&self) -> bool {
        self.is_broken
    }

    fn keep(&mut self) -> io::Result<()> {
        self.file()?.sync()?;
        let (shared, path) = (&self.shared, self.path());
        if !self.has_map {
            shared.disk.sync_dir(&shared.partial)?;
        }
        let (map, new) = (beside(&path, ".map"), beside(&path, ".map.new"));
        let file = shared.disk.create(&new)?;
        file.write_at(&encode_map(self.hash, self.size, &self.verified), 0)?;
        file.sync()?;
        shared.disk.rename(&new, &map)?;
        self.has_map = true;
        self.unsynced_bytes = 0;
        Ok(())
    }

    /// Gives the whole value its name. The lease leaves the file in place, unless it was to be removed meanwhile. After an
    /// error nothing is left.
    pub(crate) fn finish(mut self) -> io::Result<Staged> {
        let placed = self.place();
        if placed.is_err() {
            self.discard_files();
        }
        placed
    }

    fn place(&mut self) -> io::Result<Staged> {
        if self.verified != Groups::of_size(self.size) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "groups of the value are missing"));
        }
        let file = self.file()?;
        file.sync()?;
        if self.is_resumed && hash_of(file.as_ref(), self.size)? != self.hash {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "what was kept of the value is damaged"));
        }
        let (shared, path) = (Arc::clone(&self.shared), self.shared.path(&self.hash));
        {
            let leases = shared.lock(&self.hash);
            let held = leases.get(&self.hash).copied();
            let Some(held) = held.filter(|leases| leases.kept) else {
                return Err(io::Error::other("nobody wants the value any more"));
            };
            let was_here = path.is_file();
            shared.disk.rename(&self.path(), &path)?;
            let synced = shared.disk.sync_dir(path.parent().expect("a blob lies in a folder"));
            if let Err(error) = synced {
                if !was_here && held.count == 1 {
                    shared.disk.remove(&path).ok();
                }
                return Err(error);
            }
            self.is_done = true;
        }
        self.discard_files();
        Ok(Staged::new(&shared, self.hash, self.size))
    }

    /// Removes what is here.
    pub(crate) fn discard(self) {
        self.discard_files();
    }

    fn discard_files(&self) {
        let path = self.path();
        // The map first: without it the file is nothing.
        for path in [beside(&path, ".map"), beside(&path, ".map.new"), path] {
            if let Err(error) = remove_file(&self.shared, &path) {
                tracing::warn!(path = %path.display(), %error, "cannot remove a partial file");
            }
        }
    }

    fn path(&self) -> PathBuf {
        self.shared.partial_path(self.hash, self.size)
    }

    fn file(&mut self) -> io::Result<Arc<dyn DiskFile>> {
        if self.is_broken {
            return Err(io::Error::other("what was kept of the value may be lost"));
        }
        if let Some(file) = &self.file {
            return Ok(Arc::clone(file));
        }
        let file = self.shared.disk.create(&self.path())?;
        self.file = Some(Arc::clone(&file));
        Ok(file)
    }
}

impl Drop for Partial {
    /// Gives the lease back. What was to be removed meanwhile goes now.
    fn drop(&mut self) {
        if self.is_done {
            return;
        }
        let is_kept = self.shared.lock(&self.hash).get(&self.hash).is_none_or(|leases| leases.kept);
        if !is_kept {
            self.discard_files();
        }
        self.shared.release(&self.hash, false);
    }
}

impl Shared {
    fn partial_path(&self, hash: BlobHash, size: u64) -> PathBuf {
        self.partial.join(format!("{}-{size}", disk::name_of(&hash)))
    }

    /// The groups that the map of this value names; `None` if there is none that can be believed.
    fn read_map(&self, hash: BlobHash, size: u64) -> Option<Groups> {
        let file = self.disk.open_to_read(&beside(&self.partial_path(hash, size), ".map")).ok()?;
        let length = file.size_bytes().ok().filter(|length| *length <= MAP_BYTES_MAX)?;
        let mut bytes = vec![0; usize::try_from(length).ok()?];
        let read = file.read_at(&mut bytes, 0).ok()?;
        decode_map(&bytes[..read], hash, size)
    }
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Hash and size that the name of a partial file spells.
fn key_of(name: &str) -> Option<(BlobHash, u64)> {
    let (hash, size) = name.split_once('-')?;
    Some((disk::hash_of(hash)?, size.parse().ok()?))
}

fn remove_file(shared: &Shared, path: &Path) -> io::Result<()> {
    match shared.disk.remove(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Context, hash and size, then first group and the one behind the last of each run, then BLAKE3 over all that.
fn encode_map(hash: BlobHash, size: u64, verified: &Groups) -> Vec<u8> {
    let mut map = [MAP_CONTEXT, hash.as_bytes(), &size.to_be_bytes()].concat();
    for run in verified.runs() {
        map.extend_from_slice(&run.start.to_be_bytes());
        map.extend_from_slice(&run.end.to_be_bytes());
    }
    let sum = blake3::hash(&map);
    map.extend_from_slice(sum.as_bytes());
    map
}

fn decode_map(bytes: &[u8], hash: BlobHash, size: u64) -> Option<Groups> {
    let (map, sum) = bytes.split_at_checked(bytes.len().checked_sub(blake3::OUT_LEN)?)?;
    if blake3::hash(map).as_bytes() != sum {
        return None;
    }
    let runs = map.strip_prefix(MAP_CONTEXT)?.strip_prefix(hash.as_bytes())?.strip_prefix(&size.to_be_bytes())?;
    let mut groups = Groups::default();
    for run in runs.chunks(16) {
        let (from, to) = run.split_at_checked(8)?;
        groups.insert(u64::from_be_bytes(from.try_into().ok()?)..u64::from_be_bytes(to.try_into().ok()?));
    }
    Some(groups)
}

fn hash_of(file: &dyn DiskFile, size: u64) -> io::Result<BlobHash> {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; READ_BYTES];
    let mut offset = 0;
    while offset < size {
        let read = file.read_at(&mut buffer, offset)?;
        if read == 0 {
            break;
        }
        hasher.update(&buffer[..read]);
        offset += read as u64;
    }
    Ok(BlobHash(*hasher.finalize().as_bytes()))
}
