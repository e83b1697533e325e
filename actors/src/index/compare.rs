//! Two indexes of one log, compared: what one shows and the other does not.
//!
//! One was kept while the node ran, the other was made from the log just now. They may differ in three ways that are no
//! fault: spaces have other numbers; a file that the collector has freed is not listed any more; and of a value whose bytes
//! compaction has dropped the kept one still knows where they were.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
};

use kvspace_protocol::{
    id::{BlobHash, HostKey, Identity, SpaceId},
    kv::Version,
};

use super::{
    Index, IndexError, SpaceIndex,
    format::{self, Entry, Stored},
    keys::{self, Rest},
    space::Fate,
};
use crate::{
    log::{LogReader, Position, ReadError},
    records::{Pair, Scan},
};

/// Something that a kept index shows otherwise than the log says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Difference {
    /// The space; `None` for the node's own records.
    pub(crate) space: Option<SpaceId>,
    /// What differs, as a clause.
    pub(crate) what: String,
}

/// Compares what was kept with what was made from the log, in order, and tells each difference. Says how many records it
/// looked at.
///
/// # Errors
/// [`IndexError`] when one of them cannot be read.
pub(crate) fn compare(
    kept: &Index,
    made: &Index,
    log: &LogReader,
    each: &mut dyn FnMut(Difference),
) -> Result<u64, IndexError> {
    let mut comparison = Comparison { log, each, records: 0 };
    comparison.spaces(kept, made)?;
    let prefix = keys::all_delegations();
    let scan = |index: &Index| index.records.scan(&prefix, &prefix);
    comparison.records(None, (scan(kept), prefix.len()), (scan(made), prefix.len()), b'd')?;
    comparison.hosts(kept, made, "is in the index and not in the log")?;
    comparison.hosts(made, kept, "is in the log and not in the index")?;
    comparison.files(kept, made)?;
    Ok(comparison.records)
}

struct Comparison<'a> {
    log: &'a LogReader,
    each: &'a mut dyn FnMut(Difference),
    records: u64,
}

/// Which of two sides have something.
enum Side<T> {
    Kept(T),
    Made(T),
    Both(T, T),
}

impl Comparison<'_> {
    fn tell(&mut self, space: Option<&SpaceId>, what: impl Into<String>) {
        (self.each)(Difference { space: space.cloned(), what: what.into() });
    }

    fn spaces(&mut self, kept: &Index, made: &Index) -> Result<(), IndexError> {
        for side in merge(kept.spaces(None), made.spaces(None), |a, b| a.id.as_str().cmp(b.id.as_str())) {
            match side? {
                Side::Kept(space) => self.tell(Some(&space.id), "the log has no such space"),
                Side::Made(space) => self.tell(Some(&space.id), "the space is missing in the index"),
                Side::Both(kept, made) => {
                    let scan = |space: &SpaceIndex| {
                        let all = space.names.all();
                        (space.index.records.scan(&all, &all), all.len())
                    };
                    self.records(Some(&kept.id), scan(&kept), scan(&made), 0)?;
                }
            }
        }
        Ok(())
    }

    /// Compares records whose names are the same behind the prefixes of these lengths. `letter` is their kind, or it is
    /// the first byte behind.
    fn records(
        &mut self,
        space: Option<&SpaceId>,
        (kept, kept_prefix): (Scan, usize),
        (made, made_prefix): (Scan, usize),
        letter: u8,
    ) -> Result<(), IndexError> {
        let behind = |scan: Scan, prefix: usize| {
            scan.map(move |record| record.map(|(name, value)| (name[prefix..].to_vec(), value)))
        };
        let sides = merge(behind(kept, kept_prefix), behind(made, made_prefix), |a: &Pair, b: &Pair| a.0.cmp(&b.0));
        for side in sides {
            self.records += 1;
            let (name, how) = match side? {
                Side::Kept((name, _)) => (name, "is in the index and not in the log"),
                Side::Made((name, _)) => (name, "is in the log and not in the index"),
                Side::Both((name, kept), (_, made)) => {
                    let letter = if letter == 0 { name.first().copied().unwrap_or_default() } else { letter };
                    if kept == made || self.are_alike(letter, &name, &kept, &made) {
                        continue;
                    }
                    (name, "is not what the log says")
                }
            };
            self.tell(space, format!("{} {how}", called(&name, letter)));
        }
        Ok(())
    }

    /// Whether two records that are not the same differ only in what compaction takes away.
    fn are_alike(&self, letter: u8, name: &[u8], kept: &[u8], made: &[u8]) -> bool {
        let alike = match letter {
            b'E' => self.same_entry(name, kept, made),
            b'H' => self.same_operation(name, kept, made),
            _ => Ok(false),
        };
        alike.unwrap_or(false)
    }

    fn same_entry(&self, name: &[u8], kept: &[u8], made: &[u8]) -> Result<bool, IndexError> {
        let key = String::from_utf8_lossy(&name[1..]);
        let (kept, made) = (Entry::decode(&key, kept)?, Entry::decode(&key, made)?);
        Ok(match (kept.winner, made.winner) {
            (Some(winner), Some(other)) => kept.has_history == made.has_history && self.same_stored(&winner, other),
            _ => false,
        })
    }

    fn same_operation(&self, name: &[u8], kept: &[u8], made: &[u8]) -> Result<bool, IndexError> {
        let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
        let key = String::from_utf8_lossy(&name[1..end]).into_owned();
        let rest = name.get(end + 1..).unwrap_or_default();
        let stored = |value| Stored::decode(key.as_str().into(), &mut Rest(rest), value);
        Ok(self.same_stored(&stored(kept)?, stored(made)?))
    }

    fn same_stored(&self, kept: &Stored, made: Stored) -> bool {
        let gone = made.at.is_none() && kept.at.is_some_and(|at| self.is_freed(at));
        gone && Stored { at: kept.at, ..made } == *kept
    }

    fn is_freed(&self, at: Position) -> bool {
        matches!(self.log.read_blob(at), Err(ReadError::Freed(_)))
    }

    /// Which hosts one of them names, and the other does not.
    fn hosts(&mut self, one: &Index, other: &Index, how: &str) -> Result<(), IndexError> {
        let prefix = keys::all_hosted();
        for record in one.records.scan(&prefix, &prefix) {
            self.records += 1;
            let (name, value) = record?;
            let host = Rest(&name[prefix.len()..]).hash().map(HostKey);
            let space: Option<SpaceId> = std::str::from_utf8(&value).ok().and_then(|space| space.parse().ok());
            let broken = || IndexError::new("the index names a host in a broken way");
            let (host, space) = host.zip(space).ok_or_else(broken)?;
            let is_named =
                |index: &Index, name: &[u8]| Ok::<_, IndexError>(index.records.get(name)? == Some(value.clone()));
            // Under the number that each of them has for the space.
            let number = |index: &Index| Ok::<_, IndexError>(index.space(&space)?.map(|space| space.number()));
            let here = number(one)?.is_some_and(|number| name == keys::hosted_space(&host, number));
            let there = number(other)?.map(|number| is_named(other, &keys::hosted_space(&host, number)));
            if !here || !there.transpose()?.unwrap_or(false) {
                self.tell(Some(&space), format!("that {} hosts it {how}", host.did()));
            }
        }
        Ok(())
    }

    /// The uses of files, one file after the other. What the collector has forgotten is missing among the kept.
    fn files(&mut self, kept: &Index, made: &Index) -> Result<(), IndexError> {
        let sides = merge(uses(kept), uses(made), |a: &Uses, b: &Uses| a.0.cmp(&b.0));
        for side in sides {
            let (hash, kept, needed) = match side? {
                Side::Kept((hash, kept)) => (hash, kept, BTreeSet::new()),
                Side::Made((hash, needed)) => (hash, BTreeSet::new(), needed),
                Side::Both((hash, kept), (_, needed)) => (hash, kept, needed),
            };
            self.records += kept.union(&needed).count() as u64;
            for (used, _) in kept.difference(&needed) {
                let space = used.space.parse().ok();
                let what = format!("a use of file {hash} by key {:?} is in the index and not in the log", used.key);
                self.tell(space.as_ref(), what);
            }
            for (used, version) in needed.difference(&kept) {
                let space: Option<SpaceId> = used.space.parse().ok();
                let index = space.as_ref().map(|space| made.space(space)).transpose()?.flatten();
                let fate = index.map(|index| index.fate(&used.key, &Identity(used.identity), version)).transpose()?;
                if fate == Some(Fate::Wins) {
                    self.tell(space.as_ref(), format!("the use of file {hash} by key {:?} is missing", used.key));
                }
            }
        }
        Ok(())
    }
}

/// The operations that need a file.
type Uses = (BlobHash, BTreeSet<(format::FileUse, Version)>);

/// The uses of files, by file.
fn uses(index: &Index) -> impl Iterator<Item = Result<Uses, IndexError>> {
    let prefix = keys::files();
    let mut records = index.records.scan(&prefix, &prefix).map(move |record| {
        let broken = || IndexError::new("the index names a file in a broken way");
        let (name, value) = record?;
        let mut rest = Rest::of(&name, &prefix).ok_or_else(broken)?;
        let hash = BlobHash(rest.hash().ok_or_else(broken)?);
        let version = rest.u32().and_then(|_| rest.version()).filter(|_| rest.0.is_empty()).ok_or_else(broken)?;
        Ok((hash, (format::decode(&value)?, version)))
    });
    let mut next = None;
    std::iter::from_fn(move || {
        let (hash, first) = match next.take().or_else(|| records.next())? {
            Ok(first) => first,
            Err(error) => return Some(Err(error)),
        };
        let mut uses = BTreeSet::from([first]);
        for record in records.by_ref() {
            match record {
                Ok((same, used)) if same == hash => drop(uses.insert(used)),
                other => {
                    next = Some(other);
                    break;
                }
            }
        }
        Some(Ok((hash, uses)))
    })
}

/// What a record is called in a sentence.
fn called(name: &[u8], letter: u8) -> String {
    let (letter, rest) = match (letter, name.split_first()) {
        (0, Some((letter, rest))) => (*letter, rest),
        _ => (letter, name),
    };
    let key = || String::from_utf8_lossy(rest.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned();
    let kinds = BTreeMap::from([
        (b'e', "the id of an epoch"),
        (b'p', "the place of an epoch"),
        (b'B', "a branch"),
        (b'L', "what a branch has learnt"),
        (b'T', "a delegation of the space"),
        (b'd', "where a delegation stands"),
        (b'V', "an epoch that revokes"),
        (b'W', "what stands on a delegation"),
        (b'S', "the counts of the space"),
    ]);
    match letter {
        b'E' => format!("the entry of key {:?}", key()),
        b'H' => format!("the history of key {:?}", key()),
        b'D' => format!("a dead write on key {:?}", key()),
        letter => kinds.get(&letter).copied().unwrap_or("a record of no known kind").to_owned(),
    }
}

/// Walks two ascending sequences together. An error ends it.
fn merge<T>(
    kept: impl Iterator<Item = Result<T, IndexError>>,
    made: impl Iterator<Item = Result<T, IndexError>>,
    order: impl Fn(&T, &T) -> Ordering,
) -> impl Iterator<Item = Result<Side<T>, IndexError>> {
    let (mut kept, mut made) = (kept.peekable(), made.peekable());
    std::iter::from_fn(move || {
        let order = match (kept.peek(), made.peek()) {
            (None, None) => return None,
            (Some(Ok(a)), Some(Ok(b))) => order(a, b),
            (Some(Err(_)), _) | (Some(Ok(_)), None) => Ordering::Less,
            (_, Some(_)) => Ordering::Greater,
        };
        let side = match order {
            Ordering::Less => kept.next()?.map(Side::Kept),
            Ordering::Greater => made.next()?.map(Side::Made),
            Ordering::Equal => {
                let both = (kept.next()?, made.next()?);
                both.0.and_then(|a| Ok(Side::Both(a, both.1?)))
            }
        };
        Some(side)
    })
}
