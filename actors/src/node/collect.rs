//! Freeing what nobody needs: values that have long lost, and files without an operation.
//!
//! A value's bytes are freed when its operation has not been the winner for the retention time, and the winner's bytes are
//! here: the winner may turn void, and then the one before it counts again. What loses from now on is not due before that
//! time has passed, so one look at a segment tells when the next one is worth its while, and no books are kept.
//!
//! Each step is done under the [`CollectLock`], and left for later while a backup holds that.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use kvspace_protocol::{
    id::{BlobHash, Millis},
    limits::INLINE_BYTES_MAX,
    space::{CheckedEpoch, View},
};
use tokio::sync::Notify;

use crate::{
    clock,
    disk::CollectLock,
    failpoint,
    index::{Fate, FileUse, IndexError, Stored, signed},
    log::{Compacted, ReplayedCommit},
    space::Storage,
};

/// A segment is written anew when what can be freed is more than this part of the values that stay …
const FREED_PART_MIN: u64 = 4;
/// … and more than this part of all its records.
const SEGMENT_PART_MIN: u64 = 64;

/// Looks for what may be freed, at intervals. Clones are the same.
#[derive(Clone)]
pub(super) struct Collector {
    storage: Storage,
    data_dir: PathBuf,
    retention_ms: i64,
    interval: Duration,
    stopped: Arc<Notify>,
    /// Uses of files that the last look has forgotten.
    forgotten: Arc<Mutex<Vec<FileUse>>>,
}

/// When to look at what.
#[derive(Debug)]
struct Plan {
    /// Whether what a former process left was removed.
    swept: bool,
    files: Millis,
    /// By number; those that are not here are due.
    segments: BTreeMap<u32, Millis>,
}

impl Default for Plan {
    fn default() -> Self {
        Self { swept: false, files: Millis(0), segments: BTreeMap::new() }
    }
}

/// What becomes of a value's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    /// They stay.
    Needed,
    /// They stay until then.
    Until(Millis),
    /// Nobody needs them.
    Free,
}

/// What one look at a segment found.
#[derive(Debug, Default)]
struct Look {
    kept_bytes: u64,
    freed_bytes: u64,
    all_bytes: u64,
    /// Bytes that will be free, by time.
    later: BTreeMap<Millis, u64>,
}

impl Collector {
    pub(super) fn new(storage: Storage, data_dir: PathBuf, retention: Duration, interval: Duration) -> Self {
        let retention_ms = i64::try_from(retention.as_millis()).unwrap_or(i64::MAX);
        let (stopped, forgotten) = (Arc::new(Notify::new()), Arc::default());
        Self { storage, data_dir, retention_ms, interval, stopped, forgotten }
    }

    /// Ends [`Collector::run`] after what it is at.
    pub(super) fn stop(&self) {
        self.stopped.notify_one();
    }

    /// Works until it is stopped.
    pub(super) async fn run(self) {
        let mut plan = Plan::default();
        loop {
            let (collector, began) = (self.clone(), clock::now());
            let step = tokio::task::spawn_blocking(move || {
                let worked = collector.step(&mut plan);
                (worked, plan)
            });
            let Ok((worked, planned)) = step.await else { return };
            plan = planned;
            // Half of the time at most goes into this while there is something to do.
            let took_ms = u64::try_from(clock::now().0 - began.0).unwrap_or_default();
            let pause = if worked { Duration::from_millis(took_ms).min(self.interval) } else { self.interval };
            tokio::select! {
                () = self.stopped.notified() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Does what is due: the files, or one segment. False when there was nothing.
    fn step(&self, plan: &mut Plan) -> bool {
        let Some(_alone) = self.alone() else { return false };
        if !std::mem::replace(&mut plan.swept, true)
            && let Err(error) = self.sweep()
        {
            tracing::warn!(%error, "cannot remove files that nobody needs");
        }
        if plan.files <= clock::now() {
            if let Err(error) = self.files() {
                tracing::warn!(%error, "cannot look for files that nobody needs");
            }
            plan.files = clock::now().plus(self.interval_ms());
        }
        let Some(segment) = self.next_segment(&plan.segments) else { return false };
        let again = self.segment(segment).unwrap_or_else(|error| {
            tracing::warn!(segment, %error, "cannot look for what may be freed");
            clock::now().plus(self.interval_ms())
        });
        plan.segments.insert(segment, again);
        true
    }

    /// The right to take something away; `None` while a backup is made.
    fn alone(&self) -> Option<CollectLock> {
        let alone = CollectLock::try_alone(&self.data_dir);
        let alone = alone.inspect_err(|error| tracing::warn!(%error, "cannot take the lock for collecting"));
        let alone = alone.ok().flatten();
        if alone.is_none() {
            tracing::debug!("nothing is collected: the data folder is being copied");
        }
        alone
    }

    fn interval_ms(&self) -> i64 {
        i64::try_from(self.interval.as_millis()).unwrap_or(i64::MAX).max(1)
    }

    /// Removes the files that no operation needs and no upload holds: what a process left that ended in between. Not after
    /// the log was damaged: what it has lost may need them.
    pub(super) fn sweep(&self) -> std::io::Result<()> {
        if self.storage.index.damaged().map_err(std::io::Error::other)? > 0 {
            tracing::warn!("the log was damaged once: files that nobody seems to need are left alone");
            return Ok(());
        }
        let needed = |hash: &BlobHash| self.storage.index.needs_file(hash).unwrap_or(true);
        let removed = self.storage.blobs.sweep(needed)?;
        if removed > 0 {
            tracing::info!(removed, "removed files that nobody needs");
        }
        Ok(())
    }

    /// Removes the files of values that have lost for long enough.
    pub(super) fn files(&self) -> Result<(), IndexError> {
        let index = &self.storage.index;
        let mut freed = Vec::new();
        for file_use in index.file_uses() {
            let file_use = file_use?;
            if self.need(&file_use.fate)? == Need::Free {
                freed.push(file_use);
            }
        }
        // What was forgotten while a commit was on its way that brings it back.
        for forgotten in std::mem::take(&mut *self.forgotten()) {
            self.restore_if_it_wins(&forgotten)?;
        }
        for file_use in freed {
            self.free(file_use)?;
        }
        Ok(())
    }

    /// Forgets a use of a file, and removes the file if it was the last one.
    pub(super) fn free(&self, file_use: FileUse) -> Result<(), IndexError> {
        let (index, hash) = (&self.storage.index, file_use.hash);
        failpoint::reached("collect.found");
        index.forget(&file_use)?;
        failpoint::reached("collect.forgotten");
        self.restore_if_it_wins(&file_use)?;
        self.forgotten().push(file_use);
        let unneeded = || !index.needs_file(&hash).unwrap_or(true);
        match self.storage.blobs.remove(&hash, unneeded) {
            Ok(removed) => {
                failpoint::reached("collect.removed");
                tracing::debug!(%hash, removed, "freed a large value");
            }
            Err(error) => tracing::warn!(%hash, %error, "cannot remove the file of a freed value"),
        }
        Ok(())
    }

    /// A commit may have brought the operation back meanwhile: its file is needed, or wanted, again.
    fn restore_if_it_wins(&self, forgotten: &FileUse) -> Result<(), IndexError> {
        if self.storage.index.fate_of(forgotten)? == Fate::Wins {
            self.storage.index.remember(forgotten)?;
        }
        Ok(())
    }

    fn forgotten(&self) -> MutexGuard<'_, Vec<FileUse>> {
        self.forgotten.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The segment that has been due for longest. The index must show all of it.
    fn next_segment(&self, due: &BTreeMap<u32, Millis>) -> Option<u32> {
        let covered = self.storage.index.covered().ok().flatten()?;
        let now = clock::now();
        let sealed = self.storage.log.segments().into_iter().filter(|info| info.is_sealed);
        let segments = sealed.map(|info| info.segment).filter(|segment| *segment < covered.segment);
        let due = segments.map(|segment| (due.get(&segment).copied().unwrap_or(Millis(0)), segment));
        due.min().filter(|(due, _)| *due <= now).map(|(_, segment)| segment)
    }

    /// Frees what may be freed in a segment; says when to look again.
    pub(super) fn segment(&self, segment: u32) -> Result<Millis, Box<dyn std::error::Error + Send + Sync>> {
        let now = clock::now();
        let look = RefCell::new(Look::default());
        let mut failure = None;
        let keep = |commit: &ReplayedCommit| match self.keep(commit, &mut look.borrow_mut()) {
            Ok(keep) => keep,
            Err(error) => {
                failure = Some(error);
                vec![true; commit.blobs.len()]
            }
        };
        let is_worth = |_: &Compacted| look.borrow_mut().decide();
        let done = self.storage.log.compact(segment, keep, is_worth)?;
        if let Some(error) = failure {
            return Err(error.into());
        }
        let (before, after) = (done.bytes_before, done.bytes_after);
        tracing::debug!(segment, before, after, "looked for what may be freed");
        Ok(look.into_inner().next(now, self.retention_ms, self.interval_ms()))
    }

    /// Which values of a commit are needed.
    fn keep(&self, commit: &ReplayedCommit, look: &mut Look) -> Result<Vec<bool>, IndexError> {
        let mut needs: BTreeMap<BlobHash, Need> = BTreeMap::new();
        for (record, at) in &commit.epochs {
            look.all_bytes += u64::from(at.length);
            let space = self.storage.index.space(&record.space)?;
            let epoch = CheckedEpoch::read(signed(record.clone()));
            let epoch = epoch.map_err(|error| IndexError::new(error.to_string()))?;
            let held = match &space {
                Some(space) => space.epoch(&epoch.epoch().id).map_err(|error| IndexError::new(error.to_string()))?,
                None => None,
            };
            // What the index passed over may come to hold again.
            let Some(space) = space.filter(|_| held.is_some()) else { return Ok(vec![true; commit.blobs.len()]) };
            for (version, key, value) in epoch.writes() {
                let inline = value.filter(|value| value.size <= INLINE_BYTES_MAX);
                let (Some(value), Some(token)) = (inline, epoch.token(version.event())) else { continue };
                let need = self.need(&space.fate(key, &token.identity(), &version)?)?;
                needs.entry(value.blob).and_modify(|known| *known = known.and(need)).or_insert(need);
            }
        }
        Ok(commit.blobs.iter().map(|blob| look.count(u64::from(blob.at.length), needs.get(&blob.hash))).collect())
    }

    fn need(&self, fate: &Fate) -> Result<Need, IndexError> {
        Ok(match fate {
            Fate::Wins => Need::Needed,
            Fate::Unknown => Need::Free,
            Fate::Lost { at, winner } => {
                let due = at.plus(self.retention_ms);
                if due > clock::now() {
                    Need::Until(due)
                } else if winner.as_ref().is_none_or(|winner| self.is_here(winner)) {
                    Need::Free
                } else {
                    Need::Needed
                }
            }
        })
    }

    /// Whether the bytes of a winning value are here; a tombstone has none.
    fn is_here(&self, winner: &Stored) -> bool {
        match (winner.file(), winner.at) {
            (Some(file), _) => self.storage.blobs.exists(&file),
            (None, Some(at)) => self.storage.log.reader().holds(at).unwrap_or(false),
            (None, None) => winner.operation.effect.value().is_none(),
        }
    }
}

impl Need {
    /// Two operations have the same bytes.
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Needed, _) | (_, Self::Needed) => Self::Needed,
            (Self::Until(a), Self::Until(b)) => Self::Until(a.max(b)),
            (Self::Until(until), Self::Free) | (Self::Free, Self::Until(until)) => Self::Until(until),
            (Self::Free, Self::Free) => Self::Free,
        }
    }
}

impl Look {
    /// Counts a value; says whether it stays. One that no event names stays.
    fn count(&mut self, bytes: u64, need: Option<&Need>) -> bool {
        self.all_bytes += bytes;
        match need {
            Some(Need::Free) => {
                self.freed_bytes += bytes;
                return false;
            }
            Some(Need::Until(due)) => *self.later.entry(*due).or_default() += bytes,
            Some(Need::Needed) | None => {}
        }
        self.kept_bytes += bytes;
        true
    }

    /// Whether the segment is to be written anew now.
    fn decide(&mut self) -> bool {
        let is_worth = self.is_worth(self.freed_bytes);
        if !is_worth {
            // They stay for now, and are due at once.
            *self.later.entry(Millis(0)).or_default() += self.freed_bytes;
            self.kept_bytes += std::mem::take(&mut self.freed_bytes);
        }
        is_worth
    }

    /// Whether freeing so many bytes of those that stay would be worth writing the segment anew.
    fn is_worth(&self, freed_bytes: u64) -> bool {
        let kept_bytes = (self.kept_bytes + self.freed_bytes).saturating_sub(freed_bytes);
        freed_bytes > kept_bytes / FREED_PART_MIN && freed_bytes > self.all_bytes / SEGMENT_PART_MIN
    }

    /// When to look again: when enough of what is known will be free, or when something new may be.
    fn next(&self, now: Millis, retention_ms: i64, interval_ms: i64) -> Millis {
        if self.kept_bytes == 0 {
            // Epochs stay for ever.
            return Millis(i64::MAX);
        }
        let mut freed_bytes = 0;
        let enough = self.later.iter().find(|(_, bytes)| {
            freed_bytes += **bytes;
            self.is_worth(freed_bytes)
        });
        let soonest = now.plus(interval_ms.max(1));
        let something_new = now.plus(retention_ms.max(interval_ms).max(1));
        enough.map_or(something_new, |(due, _)| something_new.min(*due)).max(soonest)
    }
}
