//! The inner nodes of the trees of files that are being served, so that a range of a file can be proven without reading the
//! rest: 0.4 % of a file's size, made by reading all of it once, kept for the files asked for last.

use std::{
    collections::BTreeMap,
    fs::File,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use bao_tree::io::{outboard::PreOrderOutboard, sync::CreateOutboard as _};
use kvspace_protocol::id::BlobHash;

use super::tree;

/// What is kept: enough for 8 GiB of files.
const KEPT_BYTES_MAX: usize = 32 * 1024 * 1024;
const KEPT_MAX: usize = 1024;

/// The bytes of a value are not what its hash names, or cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rotten;

type Outboard = PreOrderOutboard<Vec<u8>>;

/// The outboards of files. Clones are the same.
#[derive(Clone, Default)]
pub(super) struct Outboards {
    kept: Arc<Mutex<Kept>>,
}

#[derive(Default)]
struct Kept {
    by_hash: BTreeMap<BlobHash, Entry>,
    uses: u64,
}

struct Entry {
    /// Which file of that name it is.
    inode: u64,
    last_use: u64,
    /// Made by the first who needs it, while the others wait.
    made: Arc<OnceLock<Result<Arc<Outboard>, Rotten>>>,
}

impl Outboards {
    /// The outboard of a file; `None` if the file is rotten, which is logged the first time. Blocks.
    pub(super) fn of(&self, hash: &BlobHash, file: &File, inode: u64, size: u64) -> Option<Arc<Outboard>> {
        let made = self.entry(hash, inode);
        let outboard = made.get_or_init(|| {
            let outboard = Outboard::create_sized(file, size, tree::BLOCK).ok();
            let outboard = outboard.filter(|outboard| outboard.root.as_bytes() == hash.as_bytes());
            if outboard.is_none() {
                tracing::error!(%hash, "the file of a value is damaged; peers do not get it from here");
            }
            outboard.map(Arc::new).ok_or(Rotten)
        });
        let outboard = outboard.clone().ok();
        self.trim();
        outboard
    }

    /// This file turned out to be broken.
    pub(super) fn set_rotten(&self, hash: &BlobHash, inode: u64) {
        let mut kept = self.kept();
        kept.uses += 1;
        let (last_use, made) = (kept.uses, Arc::new(OnceLock::from(Err(Rotten))));
        kept.by_hash.insert(*hash, Entry { inode, last_use, made });
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn entry(&self, hash: &BlobHash, inode: u64) -> Arc<OnceLock<Result<Arc<Outboard>, Rotten>>> {
        let mut kept = self.kept();
        kept.uses += 1;
        let last_use = kept.uses;
        if let Some(entry) = kept.by_hash.get_mut(hash).filter(|entry| entry.inode == inode) {
            entry.last_use = last_use;
            return Arc::clone(&entry.made);
        }
        let made = Arc::new(OnceLock::new());
        kept.by_hash.insert(*hash, Entry { inode, last_use, made: Arc::clone(&made) });
        made
    }

    /// Lets go of those that were not asked for longest.
    fn trim(&self) {
        let mut kept = self.kept();
        loop {
            let bytes: usize = kept.by_hash.values().map(Entry::bytes).sum();
            let is_too_much = kept.by_hash.len() > KEPT_MAX || (bytes > KEPT_BYTES_MAX && kept.by_hash.len() > 1);
            let oldest = kept.by_hash.iter().min_by_key(|(_, entry)| entry.last_use).map(|(hash, _)| *hash);
            match oldest.filter(|_| is_too_much) {
                Some(hash) => kept.by_hash.remove(&hash),
                None => return,
            };
        }
    }
}

impl Entry {
    fn bytes(&self) -> usize {
        self.made.get().and_then(|made| made.as_ref().ok()).map_or(0, |outboard| outboard.data.len())
    }
}
