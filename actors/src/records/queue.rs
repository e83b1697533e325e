//! The commits that wait for the store, in log order, and what of them goes into one store batch.

use std::{collections::VecDeque, sync::Arc};

use super::{MARK, room::Room, store::Batch, tail::Stamp};

/// Records at which a batch is worth applying at once.
pub(super) const WORTH_RECORDS: usize = 100;
/// Most records of a store batch, the covered mark and the store's own count among them, unless one given batch is larger: beyond some 250 sled's
/// memory grows without bound.
pub(super) const BATCH_RECORDS_MAX: usize = 199;

/// Commits from the first that is not wholly applied on.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// The number of the first commit in `commits`: as many were applied before.
    first: u64,
    commits: VecDeque<Commit>,
    /// How many commits from the first on are filled, without a gap.
    filled: usize,
    /// Their records.
    filled_records: usize,
}

#[derive(Debug)]
struct Commit {
    mark: Vec<u8>,
    content: Option<Content>,
}

#[derive(Debug)]
struct Content {
    batches: Vec<Arc<Batch>>,
    /// How many of them were taken already.
    taken: usize,
    room: Room,
}

/// One batch for the store.
#[derive(Debug)]
pub(super) struct Work {
    pub(super) batch: Batch,
    /// The last of the given batches in it.
    pub(super) last: Stamp,
    /// Places that are free once it is applied.
    pub(super) rooms: Vec<Room>,
    /// How many commits are wholly applied after it, counted from the beginning.
    pub(super) applied: u64,
}

impl Queue {
    /// A place for the next commit; its number.
    pub(super) fn begin(&mut self, mark: Vec<u8>) -> u64 {
        self.commits.push_back(Commit { mark, content: None });
        self.first + self.commits.len() as u64 - 1
    }

    /// Gives a commit its records.
    pub(super) fn fill(&mut self, number: u64, batches: Vec<Arc<Batch>>, room: Room) {
        let index =
            usize::try_from(number - self.first).expect("a commit is filled once and stays until it is applied");
        self.commits[index].content = Some(Content { batches, taken: 0, room });
        while let Some(Commit { content: Some(content), .. }) = self.commits.get(self.filled) {
            self.filled += 1;
            self.filled_records += content.records();
        }
    }

    /// Whether there is anything to take.
    pub(super) fn is_ready(&self) -> bool {
        self.filled > 0
    }

    /// Whether there is enough for a batch, or the rest of a commit that was begun.
    pub(super) fn is_worth_it(&self) -> bool {
        let begun = |commit: &Commit| commit.content.as_ref().is_some_and(|content| content.taken > 0);
        self.filled_records >= WORTH_RECORDS || self.commits.front().is_some_and(begun)
    }

    /// The number of commits that are filled without a gap, counted from the beginning.
    pub(super) fn filled(&self) -> u64 {
        self.first + self.filled as u64
    }

    /// The next batch for the store. Commits of one batch are put together; each batch of a larger commit goes alone,
    /// and the mark only with its last.
    pub(super) fn take(&mut self) -> Option<Work> {
        if self.filled == 0 {
            return None;
        }
        let content = self.commits.front_mut()?.content.as_mut()?;
        if content.batches.len() < 2 {
            return self.take_small();
        }
        let piece = Arc::clone(&content.batches[content.taken]);
        let last = Stamp { commit: self.first, batch: content.taken };
        content.taken += 1;
        self.filled_records -= piece.len();
        let mut work = Work { batch: (*piece).clone(), last, rooms: Vec::new(), applied: self.first };
        // A large commit gives its places back as it goes: others need not wait for all of it.
        work.rooms.extend(content.room.split(piece.len()));
        if content.taken == content.batches.len() {
            self.finish(&mut work);
        }
        Some(work)
    }

    fn take_small(&mut self) -> Option<Work> {
        let last = Stamp { commit: self.first, batch: 0 };
        let mut work = Work { batch: Batch::new(), last, rooms: Vec::new(), applied: self.first };
        let mut records = 2; // the mark, the count
        while self.filled > 0 {
            let content = self.commits.front()?.content.as_ref()?;
            let more = content.records();
            if content.batches.len() > 1 || (work.applied > last.commit && records + more > BATCH_RECORDS_MAX) {
                break;
            }
            for batch in &content.batches {
                work.batch.extend(batch.iter().map(|(key, value)| (key.clone(), value.clone())));
            }
            records += more;
            self.filled_records -= more;
            work.last.commit = self.first;
            self.finish(&mut work);
        }
        Some(work)
    }

    /// The first commit is in `work` wholly.
    fn finish(&mut self, work: &mut Work) {
        if let Some(Commit { mark, content: Some(content) }) = self.commits.pop_front() {
            if !mark.is_empty() {
                work.batch.insert(MARK.to_vec(), Some(mark));
            }
            work.rooms.push(content.room);
        }
        self.first += 1;
        self.filled -= 1;
        work.applied = self.first;
    }
}

impl Content {
    fn records(&self) -> usize {
        self.batches.iter().map(|batch| batch.len()).sum()
    }
}
