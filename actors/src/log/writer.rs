//! The one writer: rounds of one write and one sync, and the change from one segment to the next.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::sync::mpsc;

use super::{
    AppendError, Appended, Commit, LogOptions, Queued,
    opened::Opened,
    prepare::{self, Preparer},
    reader::Segments,
    record::{self, Edges, Place, Position},
    segment::{self, BLOCK_BYTES, Header},
};
use crate::{
    disk::{Disk, DiskFile},
    failpoint,
};

/// Most commits answered after one sync.
const ROUND_COMMITS_MAX: usize = 1024;
/// A buffer larger than this is given back after a round that needed it.
const BUFFER_KEPT_BYTES_MAX: usize = 16 * 1024 * 1024;

pub(super) struct Writer {
    dir: PathBuf,
    disk: Arc<dyn Disk>,
    round_bytes: usize,
    /// What a new segment takes beside its header.
    commit_bytes_max: u32,
    segments: Arc<Segments>,
    preparer: Preparer,
    place: Writing,
    /// Whether the operator was told that there is no room for another segment.
    short: bool,
    buffer: Vec<u8>,
}

/// Where the next record goes.
enum Writing {
    /// To this segment.
    Active(Active),
    /// To a new segment: the last one, of this number, ended at `end`. Nothing is written there any more.
    Sealed { segment: u32, end: u32 },
}

/// Where writing goes on after a replay.
pub(super) enum Resume {
    /// In this segment, which was never compacted.
    In { segment: u32, end: u32, file: Arc<dyn DiskFile> },
    /// Behind this segment; 0 if there is none.
    Behind { segment: u32, end: u32 },
}

impl Resume {
    /// The same, but never before or in a segment that is gone and held this record.
    pub(super) fn behind(self, known: Option<Position>) -> Self {
        let (Self::In { segment, .. } | Self::Behind { segment, .. }) = self;
        let lost = known.filter(|known| known.segment > segment);
        match lost.and_then(|known| Some((known.segment, known.end()?))) {
            Some((segment, end)) => Self::Behind { segment, end },
            None => self,
        }
    }
}

struct Active {
    segment: u32,
    file: Arc<dyn DiskFile>,
    /// Everything before this is durable.
    end: u32,
    size_bytes: u32,
}

/// A commit that is in the buffer and not yet durable.
struct Unsynced {
    queued: Queued,
    appended: Appended,
}

impl Writer {
    pub(super) fn new(dir: &Path, options: LogOptions, segments: Arc<Segments>, resume: Resume) -> io::Result<Self> {
        let preparer = Preparer::start(dir, &options)?;
        let place = match resume {
            Resume::Behind { segment, end } => {
                segments.set_written(segment, end);
                Writing::Sealed { segment, end }
            }
            Resume::In { segment, end, file } => {
                segments.set_written(segment, end);
                let size_bytes = u32::try_from(file.size_bytes()?).unwrap_or(u32::MAX);
                Writing::Active(Active { segment, file, end, size_bytes })
            }
        };
        let mut writer = Self {
            dir: dir.to_owned(),
            round_bytes: options.round_bytes,
            commit_bytes_max: options.segment_bytes.saturating_sub(BLOCK_BYTES),
            disk: options.disk,
            segments,
            preparer,
            place,
            short: false,
            buffer: Vec::new(),
        };
        // Where a damaged segment ended may be known only now.
        if let Writing::Sealed { segment: 1.., .. } = writer.place
            && let Err(error) = writer.roll()
        {
            tracing::warn!(%error, "the log's next segment is begun with the next commit");
        }
        Ok(writer)
    }

    /// Writes until every sender is gone and the queue is empty.
    pub(super) fn run(mut self, mut queue: mpsc::Receiver<Queued>) {
        while let Some(first) = queue.blocking_recv() {
            self.round(first, &mut queue);
        }
    }

    /// Takes what is queued, within the bounds of a round, and answers all of it.
    fn round(&mut self, first: Queued, queue: &mut mpsc::Receiver<Queued>) {
        let mut unsynced = Vec::new();
        let mut next = Some(first);
        let mut taken = 0;
        while let Some(queued) = next.take() {
            taken += 1;
            self.take(queued, &mut unsynced);
            if taken < ROUND_COMMITS_MAX && self.buffer.len() < self.round_bytes {
                next = queue.try_recv().ok();
            }
        }
        self.flush(&mut unsynced);
    }

    /// Puts one commit in the buffer, or answers it at once.
    fn take(&mut self, queued: Queued, unsynced: &mut Vec<Unsynced>) {
        let size_bytes = queued.commit.record_bytes().unwrap_or(u32::MAX);
        let size_bytes_max = self.commit_bytes_max;
        if size_bytes > size_bytes_max {
            return answer(queued, Err(AppendError::TooLarge { size_bytes, size_bytes_max }));
        }
        if !self.fits(size_bytes) {
            self.flush(unsynced);
            if let Err(error) = self.roll() {
                return answer(queued, Err(error));
            }
        }
        let appended = self.encode(&queued.commit);
        unsynced.push(Unsynced { queued, appended });
    }

    fn fits(&self, size_bytes: u32) -> bool {
        match &self.place {
            Writing::Active(active) => {
                let room = u64::from(active.size_bytes.saturating_sub(active.end));
                self.buffer.len() as u64 + u64::from(size_bytes) <= room
            }
            Writing::Sealed { .. } => false,
        }
    }

    fn encode(&mut self, commit: &Commit) -> Appended {
        let Writing::Active(active) = &self.place else {
            unreachable!("a commit is encoded where it fits");
        };
        let (segment, durable) = (active.segment, active.end);
        let buffer = &mut self.buffer;
        let place = |buffer: &Vec<u8>| {
            let within = u32::try_from(buffer.len()).expect("the buffer fits in the segment");
            Place { segment, generation: 0, offset: durable + within }
        };
        let count = commit.blobs.len() + commit.epochs.len();
        let mut edges = (0..count).map(|index| Edges::of(index, count));
        let mut edges = || edges.next().expect("one for each record");
        let mut appended = Appended::default();
        for (hash, bytes) in &commit.blobs {
            let at = place(buffer);
            appended.blobs.push(record::encode_blob(buffer, at, edges(), durable, hash, bytes));
        }
        for epoch in &commit.epochs {
            let at = place(buffer);
            appended.epochs.push(record::encode_epoch(buffer, at, edges(), durable, epoch));
        }
        appended
    }

    /// One write, one sync, then the answers. On a failure the segment ends where it was durable.
    fn flush(&mut self, unsynced: &mut Vec<Unsynced>) {
        let result = self.write();
        self.buffer.clear();
        self.buffer.shrink_to(BUFFER_KEPT_BYTES_MAX);
        for Unsynced { queued, appended } in unsynced.drain(..) {
            answer(queued, result.clone().map(|()| appended));
        }
    }

    fn write(&mut self) -> Result<(), AppendError> {
        let Writing::Active(active) = &mut self.place else {
            return Ok(());
        };
        if self.buffer.is_empty() {
            return Ok(());
        }
        let written_bytes = self.buffer.len() as u32; // commits go into the buffer only while they fit in the segment
        failpoint::reached("log.write");
        let written = active.file.write_at(&self.buffer, u64::from(active.end)).and_then(|()| {
            failpoint::reached("log.written");
            active.file.sync()
        });
        match written {
            Ok(()) => {
                failpoint::reached("log.synced");
                active.end += written_bytes;
                self.segments.set_written(active.segment, active.end);
                Ok(())
            }
            Err(e) => {
                let (segment, end) = (active.segment, active.end);
                tracing::error!(segment, end, error = %e, "writing the log failed; the segment is sealed");
                self.place = Writing::Sealed { segment, end };
                Err(AppendError::Failed(e.to_string().into()))
            }
        }
    }

    /// Seals the active segment and begins the next. While there is no file for it, the active one stays in use.
    fn roll(&mut self) -> Result<(), AppendError> {
        let file = self.preparer.take().map_err(|e| {
            if !std::mem::replace(&mut self.short, true) {
                tracing::warn!(error = %e, "no room for the log's next segment");
            }
            if crate::disk::is_full(&e) { AppendError::DiskFull } else { AppendError::Failed(e.to_string().into()) }
        })?;
        if std::mem::take(&mut self.short) {
            tracing::info!("there is room again for the log's next segment");
        }
        if let Writing::Active(active) = &self.place {
            self.place = Writing::Sealed { segment: active.segment, end: active.end };
        }
        let Writing::Sealed { segment: previous, end: previous_end } = self.place else {
            unreachable!("just sealed");
        };
        let Some(segment) = previous.checked_add(1) else {
            return Err(AppendError::Failed("the log has as many segments as it can have".into()));
        };
        let header = Header { segment, generation: 0, end: 0, previous_end };
        let begun = self.begin(header, file);
        self.preparer.ask();
        let active = begun.map_err(|e| {
            tracing::error!(segment = header.segment, error = %e, "cannot begin a segment of the log");
            AppendError::Failed(e.to_string().into())
        })?;
        self.place = Writing::Active(active);
        Ok(())
    }

    /// Makes a file of zeros the segment of this header, durably. What failed half-way is done again over itself.
    fn begin(&self, header: Header, file: Arc<dyn DiskFile>) -> io::Result<Active> {
        file.write_at(&header.encode(), 0)?;
        failpoint::reached("log.roll.header");
        file.sync()?;
        self.disk.rename(&prepare::spare_path(&self.dir), &segment::path_of(&self.dir, header.segment))?;
        failpoint::reached("log.roll.renamed");
        self.disk.sync_dir(&self.dir)?;
        failpoint::reached("log.roll.named");
        let opened = Opened::of(header, Arc::clone(&file), None)?;
        let (segment, size_bytes) = (header.segment, opened.size_bytes);
        self.segments.insert(Arc::new(opened));
        self.segments.set_written(segment, BLOCK_BYTES);
        Ok(Active { segment, file, end: BLOCK_BYTES, size_bytes })
    }
}

/// Tells one caller, whose place in the queue is free by then. A panic of theirs stays theirs: the writer serves every
/// space.
fn answer(queued: Queued, result: Result<Appended, AppendError>) {
    let Queued { commit, done, room } = queued;
    drop((commit, room));
    if catch_unwind(AssertUnwindSafe(|| done(result))).is_err() {
        tracing::error!("the receiver of a commit's result panicked");
    }
}
