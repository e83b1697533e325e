//! One segment read from front to back: whole commits, and what is broken between them.

use std::{
    io,
    ops::{ControlFlow, Range},
};

use bytes::Bytes;

use super::{
    BlobRecord, Damage, ReplayedCommit,
    record::{self, ALIGN, HEAD_BYTES, Head, Kind, Place, Position},
    unreadable::read_around,
};
use crate::disk::DiskFile;

/// Bytes read at a time by who reads everything.
pub(super) const READ_BYTES: usize = 1024 * 1024;
/// Bytes hashed in search of a sound record behind a broken one. A tear is at most one round; this is sixteen of them.
const SEARCH_BYTES_MAX: u64 = 128 * 1024 * 1024;
/// What one place costs in a search, beside its bytes.
const SEARCH_STEP_BYTES: u64 = 4096;
/// What broke where a commit was whole once.
const BROKEN: &str = "a commit is broken that was whole once";
/// What broke where the disk gives nothing back.
const UNREADABLE: &str = "it cannot be read";

/// A segment's records, read through a window.
pub(super) struct Scan<'a> {
    pub(super) segment: u32,
    pub(super) generation: u32,
    file: &'a dyn DiskFile,
    /// Nothing is read from here on.
    limit: u32,
    window_bytes: usize,
    window: Vec<u8>,
    window_start: u32,
    /// What could not be read, and was taken for zeros.
    unreadable: Vec<Range<u32>>,
    /// Whether what cannot be read is an error instead.
    is_strict: bool,
}

/// A whole commit.
pub(super) struct Found {
    pub(super) commit: ReplayedCommit,
    /// Its records where they are now, in order.
    pub(super) records: Vec<(u32, Head)>,
    /// Where the next one begins.
    pub(super) next: u32,
}

impl Found {
    pub(super) fn start(&self) -> u32 {
        self.records[0].0
    }
}

/// What a scan meets, in order.
pub(super) enum Piece {
    Commit(Found),
    Damage(Damage),
}

/// What is known of the place where a segment's records end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// There: all before it was durable once.
    Known(u32),
    /// Not before this: all before it was durable once. From there on as if it were open.
    AtLeast(u32),
    /// Where the last whole commit ends, unless something behind it witnesses that more had been durable.
    Open,
}

/// What came of a search.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Searched<T> {
    Found(T),
    /// There is none.
    Nothing,
    /// There may be one: the search was ended before its end.
    GaveUp,
}

impl<T> Searched<T> {
    fn map<U>(self, of: impl FnOnce(T) -> U) -> Searched<U> {
        match self {
            Self::Found(found) => Searched::Found(of(found)),
            Self::Nothing => Searched::Nothing,
            Self::GaveUp => Searched::GaveUp,
        }
    }
}

/// What was learnt from scanning a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Scanned {
    /// Where the records end.
    pub(super) end: u32,
    /// Up to here the segment was durable already when its last record was written.
    pub(super) durable: u32,
    pub(super) is_damaged: bool,
}

impl<'a> Scan<'a> {
    /// Reads nothing from `limit` on, and `window_bytes` at a time or what a record takes.
    pub(super) fn new(segment: u32, generation: u32, file: &'a dyn DiskFile, limit: u32, window_bytes: usize) -> Self {
        let (window, window_start) = (Vec::new(), 0);
        let (unreadable, is_strict) = (Vec::new(), false);
        Self { segment, generation, file, limit, window_bytes, window, window_start, unreadable, is_strict }
    }

    /// The same, for who is not to take for broken what only cannot be read.
    pub(super) fn strict(self) -> Self {
        Self { is_strict: true, ..self }
    }

    /// Goes through the commits from `start`, where one begins, until `each` breaks off or the records end.
    pub(super) fn pieces<B>(
        &mut self,
        start: u32,
        ending: Ending,
        mut each: impl FnMut(Piece) -> ControlFlow<B>,
    ) -> io::Result<ControlFlow<B, Scanned>> {
        let mut scanned = Scanned { end: start, durable: start, is_damaged: false };
        loop {
            let at = scanned.end;
            if let Ending::Known(end) = ending
                && at >= end
            {
                return Ok(ControlFlow::Continue(scanned));
            }
            let piece = match self.commit(at)? {
                Some(found) => {
                    scanned.end = found.next;
                    for (_, head) in found.records.iter().filter(|_| self.generation == 0) {
                        scanned.durable = scanned.durable.max(head.mark);
                    }
                    Piece::Commit(found)
                }
                None => {
                    let was_whole = match ending {
                        Ending::Known(end) => end,
                        Ending::AtLeast(end) if at < end => end,
                        Ending::AtLeast(_) | Ending::Open => match self.witness(at)? {
                            Searched::Found(durable) => durable,
                            Searched::GaveUp => self.limit,
                            // The search has read all that is there.
                            Searched::Nothing => match self.unreadable.iter().map(|range| range.end).max() {
                                Some(end) if end > at => end,
                                Some(_) | None => return Ok(ControlFlow::Continue(scanned)),
                            },
                        },
                    };
                    scanned.end = self.next_commit(at)?.unwrap_or(was_whole);
                    scanned.is_damaged = true;
                    let (segment, length) = (self.segment, scanned.end - at);
                    let is_readable = self.unreadable.iter().all(|range| range.end <= at || range.start >= scanned.end);
                    let what = if is_readable { BROKEN } else { UNREADABLE };
                    Piece::Damage(Damage { segment, offset: at, length, what })
                }
            };
            if let ControlFlow::Break(value) = each(piece) {
                return Ok(ControlFlow::Break(value));
            }
        }
    }

    /// The whole commit that begins at `offset`, if there is one.
    pub(super) fn commit(&mut self, offset: u32) -> io::Result<Option<Found>> {
        let at = Position::of(self.segment, offset, 0);
        let commit = ReplayedCommit { blobs: Vec::new(), epochs: Vec::new(), end: at };
        let mut found = Found { commit, records: Vec::new(), next: offset };
        loop {
            let offset = found.next;
            let Some((head, payload)) = self.record(offset)? else {
                return Ok(None);
            };
            if head.edges.begins != found.records.is_empty() {
                return Ok(None);
            }
            let at = Position::of(self.segment, head.birth(self.generation, offset), head.length);
            let Some(()) = found.commit.push(head.kind, payload, at) else {
                return Ok(None);
            };
            found.records.push((offset, head));
            found.next = offset + head.record_bytes().unwrap_or(ALIGN);
            if head.edges.ends {
                return Ok(Some(found));
            }
        }
    }

    /// The record at `offset` with its payload, if a sound one is there.
    pub(super) fn record(&mut self, offset: u32) -> io::Result<Option<(Head, Bytes)>> {
        let Some(head) = self.head(offset)? else {
            return Ok(None);
        };
        let place = Place { segment: self.segment, generation: self.generation, offset };
        let Some(size) = head.record_bytes() else {
            return Ok(None);
        };
        let Some(bytes) = self.bytes(offset, size)? else {
            return Ok(None);
        };
        let payload = HEAD_BYTES as usize..(HEAD_BYTES + head.length) as usize;
        Ok(record::holds(place, head, bytes).then(|| (head, Bytes::copy_from_slice(&bytes[payload]))))
    }

    /// What may be a head at `offset`: its record is not checked.
    pub(super) fn head(&mut self, offset: u32) -> io::Result<Option<Head>> {
        Ok(self.bytes(offset, HEAD_BYTES)?.and_then(Head::decode))
    }

    /// Forgets what was read: others may be writing.
    pub(super) fn refresh(&mut self) {
        self.window.clear();
    }

    /// Searches behind `end`, where something is broken, for a record that was written when more than that was durable
    /// already, and says how much. There is none after a torn write; there is one if something in the middle was lost
    /// or changed. A compacted segment is durable before it is seen: there every record tells. Who gave up knows
    /// nothing, and must not take it for a torn write.
    pub(super) fn witness(&mut self, end: u32) -> io::Result<Searched<u32>> {
        let generation = self.generation;
        let tells = |head: Head, offset| generation > 0 || (head.mark > end && head.mark <= offset);
        let mut is = |scan: &mut Self, offset| Ok(scan.record(offset)?.map(|(head, _)| head));
        let found = match self.walk(end, tells, &mut is)? {
            Some(found) => Searched::Found(found),
            None => self.search(end..self.limit, tells, is)?,
        };
        Ok(found.map(
            |(offset, head)| if generation == 0 { head.mark } else { offset + head.record_bytes().unwrap_or(ALIGN) },
        ))
    }

    /// Where the next whole commit begins behind the broken one at `broken`. Nearer than where the heads lead, since a
    /// broken length may lead beyond sound commits; but as far as they lead if a search up to there gives up.
    pub(super) fn next_commit(&mut self, broken: u32) -> io::Result<Option<u32>> {
        let begins = |head: Head, _| head.edges.begins;
        let walked = self.walk(broken, begins, &mut Self::commit)?.map(|(offset, _)| offset);
        let start = broken.saturating_add(ALIGN);
        Ok(match self.search(start..walked.unwrap_or(self.limit), begins, Self::commit)? {
            Searched::Found((offset, _)) => Some(offset),
            Searched::Nothing | Searched::GaveUp => walked,
        })
    }

    /// The first place that `may` be right and that `is`, going from head to head behind the one at `broken`: whatever
    /// a value holds is no place on this way, unless a head is broken.
    fn walk<T>(
        &mut self,
        broken: u32,
        may: impl Fn(Head, u32) -> bool,
        is: &mut impl FnMut(&mut Self, u32) -> io::Result<Option<T>>,
    ) -> io::Result<Option<(u32, T)>> {
        let mut offset = broken;
        while let Some(head) = self.head(offset)?.filter(|head| self.fits(offset, *head)) {
            if offset > broken
                && may(head, offset)
                && let Some(found) = is(self, offset)?
            {
                return Ok(Some((offset, found)));
            }
            offset = offset.saturating_add(head.record_bytes().unwrap_or(u32::MAX));
        }
        Ok(None)
    }

    /// The first place within `places` whose head `may` be right and that `is`. Gives up after a bounded amount of
    /// hashing: heads cannot be had by chance, but somebody may have written a value full of them.
    fn search<T>(
        &mut self,
        places: Range<u32>,
        may: impl Fn(Head, u32) -> bool,
        mut is: impl FnMut(&mut Self, u32) -> io::Result<Option<T>>,
    ) -> io::Result<Searched<(u32, T)>> {
        let mut budget = SEARCH_BYTES_MAX;
        let mut offset = places.start;
        while offset < places.end {
            if let Some(head) = self.head(offset)?.filter(|head| self.fits(offset, *head) && may(*head, offset)) {
                if let Some(found) = is(self, offset)? {
                    return Ok(Searched::Found((offset, found)));
                }
                budget = budget.saturating_sub(u64::from(head.length) + SEARCH_STEP_BYTES);
                if budget == 0 {
                    let (segment, start) = (self.segment, places.start);
                    tracing::warn!(segment, start, "gave up searching behind what is broken in the log");
                    return Ok(Searched::GaveUp);
                }
            }
            offset = offset.saturating_add(ALIGN);
        }
        Ok(Searched::Nothing)
    }

    /// Whether a record of this head ends before the limit.
    fn fits(&self, offset: u32, head: Head) -> bool {
        head.record_bytes().and_then(|size| offset.checked_add(size)).is_some_and(|end| end <= self.limit)
    }

    /// `length` bytes from `offset`, moving the window if needed; `None` if they go beyond the end.
    fn bytes(&mut self, offset: u32, length: u32) -> io::Result<Option<&[u8]>> {
        let wanted = offset.checked_add(length).filter(|end| *end <= self.limit);
        let Some(end) = wanted else {
            return Ok(None);
        };
        let window_end = self.window_start as usize + self.window.len();
        if offset < self.window_start || end as usize > window_end {
            let size = self.window_bytes.max(length as usize).min((self.limit - offset) as usize);
            self.window = vec![0; size];
            let read = if self.is_strict {
                self.file.read_at(&mut self.window, u64::from(offset))?
            } else {
                let unreadable = &mut self.unreadable;
                read_around(self.file, &mut self.window, u64::from(offset), |range| {
                    let range = range.start as u32..range.end as u32; // below the limit
                    match unreadable.last_mut() {
                        Some(last) if (last.start..=last.end).contains(&range.start) => {
                            last.end = last.end.max(range.end)
                        }
                        Some(_) | None => unreadable.push(range),
                    }
                })?
            };
            self.window.truncate(read);
            self.window_start = offset;
        }
        let start = (offset - self.window_start) as usize;
        Ok(self.window.get(start..start + length as usize))
    }
}

impl ReplayedCommit {
    /// Adds a record; `None` if its payload makes no sense.
    fn push(&mut self, kind: Kind, payload: Bytes, at: Position) -> Option<()> {
        self.end = at;
        match kind {
            Kind::Blob => {
                let (hash, bytes) = record::decode_blob(&payload)?;
                self.blobs.push(BlobRecord { hash, at, bytes });
            }
            Kind::Epoch => self.epochs.push((record::decode_epoch(&payload)?, at)),
        }
        Some(())
    }
}
