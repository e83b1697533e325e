//! A segment as it was opened for reading: its file, its header, and the way from a position to a record.

use std::{io, ops::ControlFlow, path::Path, sync::Arc};

use bytes::Bytes;

use super::{
    LogError, ReadError,
    record::{self, ALIGN, Head, Kind, Place, Position},
    scan::{Ending, Piece, READ_BYTES, Scan, Scanned},
    segment::{self, BLOCK_BYTES, FORMAT, Header, NoHeader},
    table::Table,
};
use crate::disk::{Disk, DiskFile};

/// Bytes read at a time in search of one record: what a step of the table covers.
const WINDOW_BYTES: usize = 16 * 1024;
/// Generations tried for a segment whose header is broken.
const GENERATIONS_TRIED: u32 = 256;
/// Places tried with each of them.
const HEADS_TRIED: u32 = 64;
/// How far behind a broken header a sound record is searched for, in bytes.
const TRIED_BYTES: u32 = 64 * 1024;

/// One generation of a segment. What it reads stays, whatever happens to the name.
pub(super) struct Opened {
    pub(super) header: Header,
    pub(super) file: Arc<dyn DiskFile>,
    /// Bytes of the file; 4 GiB - 1 stands for anything above.
    pub(super) size_bytes: u32,
    /// What is wrong with the header: the one above is then a guess.
    pub(super) broken_header: Option<&'static str>,
    /// What is wrong with the table: it was made anew.
    pub(super) broken_table: Option<&'static str>,
    /// In a compacted segment, where its records are now.
    table: Table,
}

/// What is at a position.
pub(super) enum Lookup {
    Record(Head, Bytes),
    /// Nothing any more: the segment was compacted without it.
    Freed,
    /// Nothing that belongs there.
    Damaged,
}

impl Opened {
    /// Opens a segment for reading; `None` if its file is missing. A broken header or table is made up for.
    pub(super) fn open(disk: &dyn Disk, dir: &Path, segment: u32) -> Result<Option<Self>, LogError> {
        let path = segment::path_of(dir, segment);
        let file = match disk.open_to_read(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(LogError::io(&path)(e)),
        };
        let (header, broken) = match Header::read(file.as_ref(), segment).map_err(LogError::io(&path))? {
            Ok(header) => (header, None),
            Err(NoHeader::OtherFormat(found)) => return Err(LogError::OtherFormat { segment, found, known: FORMAT }),
            Err(NoHeader::Damaged(what)) => {
                let generation = guess_generation(segment, file.as_ref()).map_err(LogError::io(&path))?;
                (Header { segment, generation, end: 0, previous_end: 0 }, Some(what))
            }
        };
        Self::of(header, file, broken).map(Some).map_err(LogError::io(&path))
    }

    /// A segment of this header.
    pub(super) fn of(header: Header, file: Arc<dyn DiskFile>, broken_header: Option<&'static str>) -> io::Result<Self> {
        let size_bytes = u32::try_from(file.size_bytes()?).unwrap_or(u32::MAX);
        let (table, broken_table) = (Table::default(), None);
        let mut opened = Self { header, file, size_bytes, broken_header, broken_table, table };
        if header.generation > 0 {
            let read = Table::read(opened.file.as_ref(), header.segment, header.generation, header.end)?;
            opened.table = match read.filter(|_| broken_header.is_none()) {
                Some(table) => table,
                None => {
                    opened.broken_table = broken_header.is_none().then_some("its table does not match its checksum");
                    let ending = opened.ending(None);
                    Table::rebuild(&mut opened.scan(ending, READ_BYTES), ending)?
                }
            };
        }
        Ok(opened)
    }

    /// Where the records end, if the next segment says `next` of it.
    pub(super) fn ending(&self, next: Option<u32>) -> Ending {
        match (self.header.generation, self.header.end) {
            (0, _) => next.map_or(Ending::Open, Ending::Known),
            (_, 0) => Ending::Open,
            (_, end) => Ending::Known(end),
        }
    }

    /// A scan of the records, which end like that.
    pub(super) fn scan(&self, ending: Ending, window_bytes: usize) -> Scan<'_> {
        let limit = match ending {
            Ending::Known(end) => end.min(self.size_bytes),
            Ending::AtLeast(_) | Ending::Open => self.size_bytes,
        };
        Scan::new(self.header.segment, self.header.generation, self.file.as_ref(), limit, window_bytes)
    }

    /// Reads the payload at `at` and checks it.
    pub(super) fn read(&self, at: Position) -> Result<(Kind, Bytes), ReadError> {
        match self.find(at).map_err(ReadError::Io)? {
            Lookup::Record(head, payload) => Ok((head.kind, payload)),
            Lookup::Freed => Err(ReadError::Freed(at)),
            Lookup::Damaged => Err(ReadError::Damaged(at)),
        }
    }

    /// What is at this position.
    pub(super) fn find(&self, at: Position) -> io::Result<Lookup> {
        let Some(birth) = at.birth().filter(|birth| *birth >= BLOCK_BYTES) else {
            return Ok(Lookup::Damaged);
        };
        let found = if self.header.generation == 0 { self.find_in_place(at, birth) } else { self.find_moved(birth) };
        Ok(match found? {
            Lookup::Record(head, _) if head.length != at.length => Lookup::Damaged,
            found @ (Lookup::Record(..) | Lookup::Freed | Lookup::Damaged) => found,
        })
    }

    /// A compacted segment's place from which every commit behind this birth can be met: a commit begins there.
    pub(super) fn start_before(&self, birth: u32) -> u32 {
        self.table.around(birth, self.size_bytes).0
    }

    fn find_in_place(&self, at: Position, offset: u32) -> io::Result<Lookup> {
        let Some(size) = record::record_bytes(at.length as usize).filter(|size| *size <= self.size_bytes) else {
            return Ok(Lookup::Damaged);
        };
        let mut bytes = vec![0; size as usize];
        let read = self.file.read_at(&mut bytes, u64::from(offset))?;
        let Header { segment, generation, .. } = self.header;
        let place = Place { segment, generation, offset };
        let head = Head::decode(&bytes[..read]).filter(|head| head.length == at.length);
        let Some(head) = head.filter(|head| record::holds(place, *head, &bytes[..read])) else {
            return Ok(Lookup::Damaged);
        };
        let payload = record::HEAD_BYTES as usize..(record::HEAD_BYTES + at.length) as usize;
        Ok(Lookup::Record(head, Bytes::from(bytes).slice(payload)))
    }

    /// Goes from head to head to the record of this birth; if that leads nowhere, looks at every record on the way.
    fn find_moved(&self, birth: u32) -> io::Result<Lookup> {
        let end = match self.ending(None) {
            Ending::Known(end) => end,
            Ending::AtLeast(_) | Ending::Open => self.size_bytes,
        };
        let (from, to) = self.table.around(birth, end);
        let mut scan = self.scan(Ending::Known(to), WINDOW_BYTES).strict();
        let mut offset = from;
        while let Some(head) = scan.head(offset)?.filter(|head| head.mark <= birth) {
            if head.mark == birth
                && let Some((head, payload)) = scan.record(offset)?
            {
                return Ok(Lookup::Record(head, payload));
            }
            offset = offset.saturating_add(head.record_bytes().unwrap_or(u32::MAX)).max(offset + ALIGN);
        }
        let ending = if self.header.end == 0 && to == end { Ending::Open } else { Ending::Known(to) };
        self.find_slowly(birth, from, ending)
    }

    fn find_slowly(&self, birth: u32, from: u32, ending: Ending) -> io::Result<Lookup> {
        let mut scan = self.scan(ending, WINDOW_BYTES).strict();
        // Where nothing says how far the records went, nobody can say that one is missing on purpose.
        let mut is_broken = self.broken_header.is_some();
        let mut wanted = None;
        let went = scan.pieces(from, ending, |piece| {
            let Piece::Commit(found) = piece else {
                is_broken = true;
                return ControlFlow::Continue(());
            };
            for (offset, head) in &found.records {
                let covers = head.mark..head.mark.saturating_add(head.record_bytes().unwrap_or(0));
                if head.mark == birth {
                    wanted = Some(*offset);
                } else if covers.contains(&birth) {
                    is_broken = true;
                }
            }
            if wanted.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        let _: ControlFlow<(), Scanned> = went?;
        let Some(offset) = wanted else {
            return Ok(if is_broken { Lookup::Damaged } else { Lookup::Freed });
        };
        Ok(scan.record(offset)?.map_or(Lookup::Damaged, |(head, payload)| Lookup::Record(head, payload)))
    }
}

/// The generation under which there is a sound record near the beginning of a segment whose header is broken.
fn guess_generation(segment: u32, file: &dyn DiskFile) -> io::Result<u32> {
    let size_bytes = u32::try_from(file.size_bytes()?).unwrap_or(u32::MAX);
    let mut scan = Scan::new(segment, 0, file, size_bytes, READ_BYTES);
    let mut tried = 0;
    for offset in (BLOCK_BYTES..size_bytes.min(BLOCK_BYTES + TRIED_BYTES)).step_by(ALIGN as usize) {
        if scan.head(offset)?.is_none() || tried == HEADS_TRIED {
            continue;
        }
        tried += 1;
        for generation in 0..GENERATIONS_TRIED {
            scan.generation = generation;
            if scan.record(offset)?.is_some() {
                return Ok(generation);
            }
        }
    }
    Ok(0)
}
