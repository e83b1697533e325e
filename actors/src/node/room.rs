//! Whether the disk has room for more writes.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::disk::Disk;

/// Keeps some of the disk free: writes are refused before the log, the index or the operator run out of room.
#[derive(Debug)]
pub(crate) struct DiskRoom {
    dir: PathBuf,
    disk: Arc<dyn Disk>,
    reserve_bytes: u64,
    /// Whether the operator was told that there is too little.
    is_short: AtomicBool,
}

impl DiskRoom {
    pub(crate) fn new(dir: PathBuf, disk: Arc<dyn Disk>, reserve_bytes: u64) -> Self {
        Self { dir, disk, reserve_bytes, is_short: AtomicBool::new(false) }
    }

    /// Whether there is less left than is to stay free. A disk that does not tell has room: its own error comes soon.
    pub(crate) fn is_short(&self) -> bool {
        let Ok(free_bytes) = self.disk.free_bytes(&self.dir) else { return false };
        let reserve_bytes = self.reserve_bytes;
        let is_short = free_bytes < reserve_bytes;
        match (self.is_short.swap(is_short, Ordering::Relaxed), is_short) {
            (false, true) => tracing::warn!(free_bytes, reserve_bytes, "the disk is nearly full: writes are refused"),
            (true, false) => tracing::info!(free_bytes, "there is room on the disk again: writes are taken"),
            (true, true) | (false, false) => {}
        }
        is_short
    }

    /// Free bytes of the file system.
    pub(crate) fn free_bytes(&self) -> u64 {
        self.disk.free_bytes(&self.dir).unwrap_or_default()
    }
}
