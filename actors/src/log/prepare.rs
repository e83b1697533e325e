//! The next segment's file, made one ahead: really written zeros, so that a commit's `fdatasync` has no metadata to
//! carry.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
};

use super::LogOptions;
use crate::{
    disk::{Disk, DiskFile},
    failpoint,
};

/// The name of a file of zeros that is to become a segment.
const SPARE: &str = "next.zeros";
/// Zeros written and synced at a time: small enough not to hold up a commit's sync for long.
const CHUNK_BYTES: usize = 4 * 1024 * 1024;

/// A thread that makes one file of zeros when asked.
pub(super) struct Preparer {
    ask: Option<SyncSender<()>>,
    made: Receiver<io::Result<Arc<dyn DiskFile>>>,
    asked: bool,
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

/// The path of the spare file in the log's folder.
pub(super) fn spare_path(dir: &Path) -> PathBuf {
    dir.join(SPARE)
}

impl Preparer {
    /// Starts the thread and asks for the first file.
    pub(super) fn start(dir: &Path, options: &LogOptions) -> io::Result<Self> {
        let (ask, asked) = sync_channel::<()>(1);
        let (tell, made) = sync_channel(1);
        let stop = Arc::new(AtomicBool::new(false));
        let (disk, stopped, dir) = (Arc::clone(&options.disk), Arc::clone(&stop), dir.to_owned());
        let (size_bytes, reserve_bytes) = (options.segment_bytes, options.reserve_bytes);
        let thread = thread::Builder::new().name("log-prepare".into()).spawn(move || {
            while asked.recv().is_ok() {
                if tell.send(make(disk.as_ref(), &dir, size_bytes as usize, reserve_bytes, &stopped)).is_err() {
                    return;
                }
            }
        })?;
        let mut preparer = Self { ask: Some(ask), made, asked: false, stop, thread: Some(thread) };
        preparer.ask();
        Ok(preparer)
    }

    /// Has the next file made in the background.
    pub(super) fn ask(&mut self) {
        if let (false, Some(ask)) = (self.asked, &self.ask) {
            self.asked = ask.send(()).is_ok();
        }
    }

    /// The file, waiting for it if it is not ready. An old failure is not taken for an answer: there may be room now.
    pub(super) fn take(&mut self) -> io::Result<Arc<dyn DiskFile>> {
        if self.asked
            && let Ok(file) = self.answer()
        {
            return Ok(file);
        }
        self.ask();
        self.answer()
    }

    fn answer(&mut self) -> io::Result<Arc<dyn DiskFile>> {
        self.asked = false;
        self.made.recv().unwrap_or_else(|_| Err(io::Error::other("the thread that prepares segments has stopped")))
    }
}

impl Drop for Preparer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        drop(self.ask.take());
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread that prepares segments panicked");
        }
    }
}

/// Makes the spare file, durable with its name. On an error nothing is left of it.
fn make(
    disk: &dyn Disk,
    dir: &Path,
    size_bytes: usize,
    reserve_bytes: u64,
    stop: &AtomicBool,
) -> io::Result<Arc<dyn DiskFile>> {
    let path = spare_path(dir);
    if disk.free_bytes(dir)? < (size_bytes as u64).saturating_add(reserve_bytes) {
        return Err(io::ErrorKind::StorageFull.into());
    }
    let file = disk.create(&path)?;
    let filled = fill(file.as_ref(), size_bytes, stop).and_then(|()| disk.sync_dir(dir));
    match filled {
        Ok(()) => Ok(file),
        Err(e) => {
            if let Err(left) = disk.remove(&path) {
                tracing::warn!(path = %path.display(), error = %left, "cannot remove an unfinished segment file");
            }
            Err(e)
        }
    }
}

fn fill(file: &dyn DiskFile, size_bytes: usize, stop: &AtomicBool) -> io::Result<()> {
    let zeros = vec![0; CHUNK_BYTES.min(size_bytes)];
    let mut written = 0;
    while written < size_bytes {
        if stop.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let chunk = &zeros[..zeros.len().min(size_bytes - written)];
        file.write_at(chunk, written as u64)?;
        file.sync()?;
        written += chunk.len();
        if written < size_bytes && written * 2 >= size_bytes {
            failpoint::reached("log.spare.half");
        }
    }
    Ok(())
}
