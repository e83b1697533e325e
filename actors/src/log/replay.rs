//! Reading the log in order: whole commits, what is broken between them, and where the last segment ends.

use std::{
    io,
    ops::{ControlFlow, Range},
    path::Path,
};

use super::{
    Damage, LogError, Replayed,
    opened::{Lookup, Opened},
    record::Position,
    scan::{Ending, Found, Piece, READ_BYTES, Scanned},
    segment::{self, BLOCK_BYTES},
};
use crate::disk::Disk;

/// Who is told of the commits, with the offsets where their records are now, and of damage.
pub(super) type Each<'a> = dyn FnMut(Piece) -> Result<(), LogError> + 'a;

/// The last segment, as replay found it.
pub(super) struct Last {
    pub(super) segment: u32,
    /// Behind the last whole commit.
    pub(super) end: u32,
    /// Before this everything was durable; from here on it may only have been written.
    pub(super) durable: u32,
    /// Whether writing goes on in it. If not, nothing is ever written there again.
    pub(super) is_open: bool,
}

/// A piece as the log's owner gets it.
pub(super) fn replayed(piece: Piece) -> Replayed {
    match piece {
        Piece::Commit(Found { commit, .. }) => Replayed::Commit(commit),
        Piece::Damage(damage) => Replayed::Damage(damage),
    }
}

/// Segments behind the last one that are told of by name when they are known to be missing.
const LOST_TOLD_MAX: u32 = 1_000;

/// Reads every segment and delivers the whole commits that end behind `after`, and all damage on the way. Up to the end
/// of `known` all was durable once.
pub(super) fn replay(
    disk: &dyn Disk,
    dir: &Path,
    after: Option<Position>,
    known: Option<Position>,
    each: &mut Each<'_>,
) -> Result<Option<Last>, LogError> {
    let numbers = segment::list(disk, dir).map_err(LogError::io(dir))?;
    if let Some(after) = after.filter(|after| numbers.binary_search(&after.segment).is_err()) {
        return Err(LogError::NotInLog(after));
    }
    let known = known.and_then(|known| Some((known.segment, known.end()?)));
    let mut replay = Replay { dir, after, known, each };
    let first = after.map_or(1, |after| after.segment);
    // Whose end is not known before the next one is met.
    let mut waiting: Option<Opened> = None;
    let mut expected = 1;
    for segment in numbers {
        if segment < first {
            replay.missing(expected..segment, 0)?;
            expected = segment + 1;
            continue;
        }
        let Some(opened) = Opened::open(disk, dir, segment)? else {
            return Err(LogError::io(&segment::path_of(dir, segment))(io::ErrorKind::NotFound.into()));
        };
        let said_end = opened.broken_header.is_none().then_some(opened.header.previous_end);
        if let Some(before) = waiting.take() {
            let is_next = segment == expected;
            replay.segment(&before, before.ending(said_end.filter(|_| is_next)))?;
        }
        replay.missing(expected..segment, said_end.unwrap_or(0))?;
        expected = segment.saturating_add(1);
        waiting = Some(opened);
    }
    let scanned = waiting.as_ref().map(|last| replay.segment(last, last.ending(None))).transpose()?;
    let lost = known.filter(|(segment, _)| *segment >= expected);
    if let Some((segment, end)) = lost {
        replay.missing(expected.max(segment.saturating_sub(LOST_TOLD_MAX))..segment.saturating_add(1), end)?;
    }
    let Some((last, scanned)) = waiting.zip(scanned) else {
        return Ok(None);
    };
    let is_sound = !scanned.is_damaged && last.broken_header.is_none();
    let is_open = is_sound && lost.is_none() && last.header.generation == 0;
    let Scanned { end, durable, .. } = scanned;
    Ok(Some(Last { segment: last.header.segment, end, durable, is_open }))
}

struct Replay<'a, 'b> {
    dir: &'a Path,
    after: Option<Position>,
    /// The segment of a record that was durable once, and where that ended.
    known: Option<(u32, u32)>,
    each: &'a mut Each<'b>,
}

impl Replay<'_, '_> {
    /// Tells of segments without a file. The next one said that the last of them had its records up to `said_end`.
    fn missing(&mut self, segments: Range<u32>, said_end: u32) -> Result<(), LogError> {
        let last = segments.end - 1;
        for segment in segments {
            let length = if segment == last { said_end } else { 0 };
            (self.each)(Piece::Damage(Damage { segment, offset: 0, length, what: "its file is missing" }))?;
        }
        Ok(())
    }

    /// Delivers one segment.
    fn segment(&mut self, opened: &Opened, ending: Ending) -> Result<Scanned, LogError> {
        let segment = opened.header.segment;
        let ending = match (ending, self.known) {
            (Ending::Open, Some((known, end))) if known == segment && opened.header.generation == 0 => {
                Ending::AtLeast(end)
            }
            (ending, _) => ending,
        };
        let failed = || LogError::io(&segment::path_of(self.dir, segment));
        if let Some(what) = opened.broken_header {
            let length = BLOCK_BYTES.min(opened.size_bytes);
            (self.each)(Piece::Damage(Damage { segment, offset: 0, length, what }))?;
        }
        let after = self.after.filter(|after| after.segment == segment);
        let start = match after {
            Some(after) => start_behind(opened, after, ending).map_err(failed())?.ok_or(LogError::NotInLog(after))?,
            None => BLOCK_BYTES,
        };
        let mut scan = opened.scan(ending, READ_BYTES);
        let went = scan.pieces(start, ending, |piece| {
            if let (Piece::Commit(found), Some(after)) = (&piece, after)
                && found.commit.end <= after
            {
                return ControlFlow::Continue(());
            }
            match (self.each)(piece) {
                Ok(()) => ControlFlow::Continue(()),
                Err(stopped) => ControlFlow::Break(stopped),
            }
        });
        let scanned = match went.map_err(failed())? {
            ControlFlow::Continue(scanned) => scanned,
            ControlFlow::Break(stopped) => return Err(stopped),
        };
        if let Some(what) = opened.broken_table {
            let length = opened.size_bytes.saturating_sub(scanned.end);
            (self.each)(Piece::Damage(Damage { segment, offset: scanned.end, length, what }))?;
        }
        Ok(scanned)
    }
}

/// Where to read on so as to meet all that comes behind `after`; `None` if the log does not hold that record.
fn start_behind(opened: &Opened, after: Position, ending: Ending) -> io::Result<Option<u32>> {
    let Ok(found) = opened.find(after) else {
        return Ok(None);
    };
    let Some(birth) = after.birth() else {
        return Ok(None);
    };
    if opened.header.generation > 0 {
        let start = opened.start_before(birth);
        return Ok((!matches!(found, Lookup::Damaged)).then_some(start));
    }
    let Lookup::Record(head, _) = found else {
        return Ok(None);
    };
    let next = birth + head.record_bytes().unwrap_or(0);
    if let Ending::Known(end) = ending
        && next > end
    {
        return Ok(None);
    }
    // A record within a commit is no place to begin: the commit is met again as a whole.
    Ok(Some(if head.edges.ends { next } else { BLOCK_BYTES }))
}
