//! The log: what this node holds, in the order it came, in segment files. It is the database; the index is a cache of
//! it.
//!
//! A **commit** is the unit: its blobs, then its epochs, contiguous in one segment. Its first and its last record say
//! so, and a commit without them never happened. One thread writes for all spaces: it takes what is queued, writes it with one
//! write, makes it durable with one `fdatasync`, and only then answers. Replay meets whole commits only, in the order
//! in which they were written.
//!
//! A [`Position`] names a record for good. A sealed segment can be compacted: it loses values nobody needs, keeps its
//! number, its order and every epoch, and goes on being read by the positions its records had when they were written.
//!
//! What holds, and is tested:
//! * an answered commit is there after a power cut;
//! * a commit that was answered with [`AppendError::DiskFull`] or [`AppendError::TooLarge`] is not in the log; one
//!   answered with [`AppendError::Failed`] may be, after a restart;
//! * a failed write or sync ends its segment at what was durable before; nothing is written there again;
//! * bytes that were durable once and are wrong now, or cannot be read, are reported as [`Damage`], never taken for the
//!   log's end, and cost no commit but their own;
//! * a power cut during a compaction leaves the old file or the new one, never less.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use bytes::Bytes;
use kvspace_protocol::id::BlobHash;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::disk::{Disk, OsDisk};

mod compact;
mod copy;
mod error;
mod info;
mod opened;
mod prepare;
mod reader;
mod record;
mod replay;
mod scan;
mod segment;
mod settle;
mod table;
#[cfg(test)]
mod tests;
mod unreadable;
mod verify;
mod writer;

pub use compact::Compacted;
pub use copy::{SegmentCopy, copy};
pub use error::{AppendError, CompactError, LogError, ReadError, Refused, RefusedWhy};
pub use info::SegmentInfo;
pub use reader::LogReader;
pub use record::{EpochRecord, Position};
pub use verify::{file_name, verify};

use writer::Resume;

/// How a log is opened. The default is what a node uses.
#[derive(Debug, Clone)]
pub struct LogOptions {
    /// The size of a new segment file.
    pub segment_bytes: u32,
    /// What must stay free on the disk after a new segment was made: room for the index and for the operator.
    pub reserve_bytes: u64,
    /// Most bytes written with one write and one sync, unless a single commit is larger.
    pub round_bytes: usize,
    /// Most commits that wait for the writer.
    pub queue_commits: usize,
    /// Most bytes that wait for the writer, in KiB. A larger commit waits until it is alone.
    pub queue_kib: u32,
    /// The [`ReplayedCommit::end`] of the last commit the caller has already, known to be durable. Replay delivers what
    /// comes after it and does not read what comes before it.
    pub after: Option<Position>,
    /// A record up to whose end the log was durable once, whatever is there now: what is not whole before it is damage,
    /// and no torn end.
    pub known: Option<Position>,
    /// The file operations.
    pub disk: Arc<dyn Disk>,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            segment_bytes: 64 * 1024 * 1024,
            reserve_bytes: 64 * 1024 * 1024,
            round_bytes: 8 * 1024 * 1024,
            queue_commits: 16 * 1024,
            queue_kib: 64 * 1024,
            after: None,
            known: None,
            disk: Arc::new(OsDisk),
        }
    }
}

/// What replay delivers, in the order of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Replayed {
    /// A whole commit.
    Commit(ReplayedCommit),
    /// Something that was durable once and is wrong now. Replay goes on with the next whole commit behind it.
    Damage(Damage),
}

/// A commit as it was found in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplayedCommit {
    /// Its values; without those that compaction dropped.
    pub blobs: Vec<BlobRecord>,
    /// Its epochs, ancestors first, and where they lie.
    pub epochs: Vec<(EpochRecord, Position)>,
    /// Its last record, as first written.
    pub end: Position,
}

/// A value as it was found in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobRecord {
    /// Its hash, as it was appended.
    pub hash: BlobHash,
    /// Where it lies.
    pub at: Position,
    /// The value.
    pub bytes: Bytes,
}

/// Bytes of the log that were durable once and are wrong now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Damage {
    /// The segment.
    pub segment: u32,
    /// Where in the file as it is now.
    pub offset: u32,
    /// How many bytes were skipped; 0 if nobody knows.
    pub length: u32,
    /// What was found, as a clause.
    pub what: &'static str,
}

/// A commit on its way to the log: its records are there together or not at all. Either list may be empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Commit {
    /// Values, written first.
    pub blobs: Vec<(BlobHash, Bytes)>,
    /// Epochs, in an order in which ancestors come first.
    pub epochs: Vec<EpochRecord>,
}

impl Commit {
    /// What the commit takes in a segment; `None` beyond 32 bits.
    fn record_bytes(&self) -> Option<u32> {
        let blobs = self.blobs.iter().map(|(_, bytes)| record::blob_payload_bytes(bytes));
        let epochs = self.epochs.iter().map(record::epoch_payload_bytes);
        blobs.chain(epochs).try_fold(0_u32, |sum, payload| sum.checked_add(record::record_bytes(payload)?))
    }
}

/// A commit and who is to be told. `done` runs on the writer's thread, which serves every space: it must be quick.
///
/// Commits that build on each other must not be in flight together: the first may fail and the second succeed.
pub struct Append {
    /// Values, written first.
    pub blobs: Vec<(BlobHash, Bytes)>,
    /// Epochs, in an order in which ancestors come first.
    pub epochs: Vec<EpochRecord>,
    /// Called once, after the sync or when it is clear that there will be none.
    pub done: Done,
}

/// What is called when a commit is durable, or has failed.
pub type Done = Box<dyn FnOnce(Result<Appended, AppendError>) + Send>;

/// Where the records of a commit lie, in the order of the commit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Appended {
    /// The values.
    pub blobs: Vec<Position>,
    /// The epochs.
    pub epochs: Vec<Position>,
}

impl Appended {
    /// The last record; `None` of an empty commit.
    #[must_use]
    pub fn end(&self) -> Option<Position> {
        self.epochs.last().or(self.blobs.last()).copied()
    }
}

/// The node's log, open for reading and writing. Clones are the same log.
#[derive(Clone)]
pub struct Log {
    shared: Arc<Shared>,
}

struct Shared {
    reader: LogReader,
    /// Held while a segment is compacted: one at a time.
    compacting: Mutex<()>,
    queue: Mutex<Option<mpsc::Sender<Queued>>>,
    room: Arc<Semaphore>,
    queue_kib: u32,
    writer: Mutex<Option<thread::JoinHandle<()>>>,
}

/// An append in the queue, with the room it takes there.
struct Queued {
    commit: Commit,
    done: Done,
    room: OwnedSemaphorePermit,
}

impl Log {
    /// Opens the log in the folder `dir`, creating it if it is missing; calls `each` for every whole commit, in order,
    /// and for all damage on the way; is then ready to write. The reader reads what was delivered, at any time.
    ///
    /// A torn end is cut off first, and what was found is made durable again: it may have been written but never
    /// synced by a process that is gone; what `each` was given is durable when this returns. A last segment that is
    /// damaged stays as it is and the next one is begun at once, so that where it ended is known from then on. Blocks for as long as it takes to read the log.
    ///
    /// # Errors
    /// [`LogError`], a sentence for the operator. An error of `each` ends the replay as [`LogError::Stopped`]. Damage
    /// is no error.
    pub fn open<E>(
        dir: &Path,
        options: LogOptions,
        mut each: impl FnMut(&LogReader, Replayed) -> Result<(), E>,
    ) -> Result<Self, LogError>
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let disk = Arc::clone(&options.disk);
        disk.create_dir(dir).map_err(LogError::io(dir))?;
        segment::remove_left_overs(disk.as_ref(), dir).map_err(LogError::io(dir))?;
        let reader = LogReader::new(dir, Arc::clone(&disk));
        let mut each = |piece| each(&reader, replay::replayed(piece)).map_err(|e| LogError::Stopped(e.into()));
        let resume = match replay::replay(disk.as_ref(), dir, options.after, options.known, &mut each)? {
            None => Resume::Behind { segment: 0, end: 0 },
            Some(last) => {
                let file = settle::settle(disk.as_ref(), dir, &last)?;
                let replay::Last { segment, end, is_open, .. } = last;
                if is_open { Resume::In { segment, end, file } } else { Resume::Behind { segment, end } }
            }
        };
        let resume = resume.behind(options.known);
        let (queue, queued) = mpsc::channel(options.queue_commits);
        let room = Arc::new(Semaphore::new(options.queue_kib as usize));
        let queue_kib = options.queue_kib;
        let segments = Arc::clone(&reader.segments);
        let writer = writer::Writer::new(dir, options, segments, resume).map_err(LogError::io(dir))?;
        let thread = thread::Builder::new().name("log".into()).spawn(move || writer.run(queued));
        let thread = thread.map_err(LogError::io(dir))?;
        let (queue, writer) = (Mutex::new(Some(queue)), Mutex::new(Some(thread)));
        Ok(Self { shared: Arc::new(Shared { reader, compacting: Mutex::new(()), queue, room, queue_kib, writer }) })
    }

    /// Reads the log by position, beside the writer and after it.
    #[must_use]
    pub fn reader(&self) -> LogReader {
        self.shared.reader.clone()
    }

    /// The segments in order, by what their headers say.
    #[must_use]
    pub fn segments(&self) -> Vec<SegmentInfo> {
        info::infos(&self.shared.reader.segments)
    }

    /// Writes a sealed segment anew without values that nobody needs. `keep` gets each commit once, in order, and says
    /// for each of its blobs whether it stays; one it says nothing of stays. Epochs always stay; a commit of which
    /// nothing stays is no more. Positions stay what they are: a dropped value is [`ReadError::Freed`] from then on.
    ///
    /// Blocks its own thread, one compaction at a time, and holds up neither writer nor readers; who is reading goes on
    /// reading the former file. It needs room for the new file beside the old one and takes it from what new segments
    /// would leave free. `is_worth` is told beforehand what it would come to, and may leave the segment as it is.
    ///
    /// # Errors
    /// [`CompactError`] says why the segment is as it was.
    pub fn compact(
        &self,
        segment: u32,
        mut keep: impl FnMut(&ReplayedCommit) -> Vec<bool>,
        is_worth: impl FnOnce(&Compacted) -> bool,
    ) -> Result<Compacted, CompactError> {
        let _alone = self.shared.compacting.lock().unwrap_or_else(PoisonError::into_inner);
        compact::compact(&self.shared.reader.segments, segment, &mut keep, is_worth)
    }

    /// Queues a commit without waiting.
    ///
    /// # Errors
    /// [`Refused`] gives it back when the queue is full or the log is closed; `done` is then not called.
    pub fn append(&self, append: Append) -> Result<(), Refused> {
        let Append { blobs, epochs, done } = append;
        let commit = Commit { blobs, epochs };
        let refused = |commit: Commit, done, why| {
            let Commit { blobs, epochs } = commit;
            Refused { append: Append { blobs, epochs, done }, why }
        };
        let Some(queue) = self.queue() else {
            return Err(refused(commit, done, RefusedWhy::Closed));
        };
        let Ok(room) = Arc::clone(&self.shared.room).try_acquire_many_owned(self.cost_kib(&commit)) else {
            return Err(refused(commit, done, RefusedWhy::QueueFull));
        };
        match queue.try_send(Queued { commit, done, room }) {
            Ok(()) => Ok(()),
            Err(mpsc::error::TrySendError::Full(back)) => Err(refused(back.commit, back.done, RefusedWhy::QueueFull)),
            Err(mpsc::error::TrySendError::Closed(back)) => Err(refused(back.commit, back.done, RefusedWhy::Closed)),
        }
    }

    /// Waits for room in the queue, then until the commit is durable.
    ///
    /// Dropping the future after the commit was queued does not take it back.
    ///
    /// # Errors
    /// [`AppendError`] says what is known about the commit.
    pub async fn commit(&self, commit: Commit) -> Result<Appended, AppendError> {
        self.commit_with(commit, |_| ()).await.map(|(appended, ())| appended)
    }

    /// As [`Log::commit`]; `at_once` is called when the commit is durable, before any later commit is: on the writer's
    /// thread, so it must be quick.
    ///
    /// # Errors
    /// As [`Log::commit`].
    pub async fn commit_with<T: Send + 'static>(
        &self,
        commit: Commit,
        at_once: impl FnOnce(&Appended) -> T + Send + 'static,
    ) -> Result<(Appended, T), AppendError> {
        let cost_kib = self.cost_kib(&commit);
        let room = Arc::clone(&self.shared.room).acquire_many_owned(cost_kib).await;
        let room = room.expect("the semaphore is never closed");
        let queue = self.queue().ok_or(AppendError::Closed)?;
        let (tell, told) = oneshot::channel();
        let done: Done = Box::new(move |result| {
            let with = result.map(|appended| {
                let at_once = at_once(&appended);
                (appended, at_once)
            });
            drop(tell.send(with));
        });
        if queue.send(Queued { commit, done, room }).await.is_err() {
            return Err(AppendError::Closed);
        }
        drop(queue);
        told.await.unwrap_or_else(|_| Err(AppendError::Failed("the log's writer has stopped".into())))
    }

    /// As [`LogReader::read_blob`].
    ///
    /// # Errors
    /// As there.
    pub fn read_blob(&self, at: Position) -> Result<Bytes, ReadError> {
        self.shared.reader.read_blob(at)
    }

    /// As [`LogReader::read_epoch`].
    ///
    /// # Errors
    /// As there.
    pub fn read_epoch(&self, at: Position) -> Result<EpochRecord, ReadError> {
        self.shared.reader.read_epoch(at)
    }

    /// Takes no more commits, waits until those in the queue are answered and the writer has ended.
    ///
    /// Blocks; never call it from `done`. Reading goes on working. Dropping every clone without this ends the writer
    /// as well, but nobody waits for it.
    pub fn close(&self) {
        drop(self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner).take());
        let writer = self.shared.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if writer.is_some_and(|writer| writer.join().is_err()) {
            tracing::error!("the log's writer panicked");
        }
    }

    fn queue(&self) -> Option<mpsc::Sender<Queued>> {
        self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn cost_kib(&self, commit: &Commit) -> u32 {
        commit.record_bytes().map_or(u32::MAX, |bytes| bytes.div_ceil(1024)).min(self.shared.queue_kib)
    }
}
