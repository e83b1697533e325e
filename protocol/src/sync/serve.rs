//! Answering: from what is durable, without state about who asks.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
};

use super::{
    have::{Have, Lacking, Range},
    message::{Cursor, Response, Sent},
};
use crate::{
    dag::{Dag, Place},
    id::EpochId,
    limits::{GET_RUN_EPOCHS, HEADS_MAX, MESSAGE_EPOCHS_MAX},
    space::{View, ViewError},
};

/// The durable epochs of one space, to be served from.
pub trait Source: View {
    /// The DAG; all of it is durable.
    fn dag(&self) -> &Dag;

    /// Where in the log the epoch at `place` lies; ancestors lie before what rests on them. `None` if it is not there.
    ///
    /// # Errors
    /// [`ViewError`] when the index cannot be read.
    fn position(&self, place: Place) -> Result<Option<Cursor>, ViewError>;

    /// The epoch at `place`, with the inline values of it that win here now, at most `values_bytes_max` bytes of them.
    ///
    /// # Errors
    /// [`ViewError`] when index or log cannot be read.
    fn read(&self, place: Place, values_bytes_max: usize) -> Result<Sent, ViewError>;
}

/// Answers [`super::Request::Pull`]: what the peer lacks, in the order of the log, about `bytes_max` bytes and one epoch at
/// least.
///
/// # Errors
/// [`ViewError`] when index or log cannot be read.
pub fn serve_pull(
    source: &dyn Source,
    have: &Have,
    after: Option<Cursor>,
    bytes_max: usize,
) -> Result<Response, ViewError> {
    let heads = heads(source.dag());
    let ranges = match have.lacking(source.dag(), source)? {
        Lacking::Ranges(ranges) => ranges,
        Lacking::Unknown => {
            return Ok(Response::Epochs { heads, epochs: Vec::new(), next: None, tell_branches: true });
        }
    };
    let mut run = Run::new(bytes_max);
    let mut last = None;
    let mut next = None;
    let mut merge = Merge::begin(source, ranges, after)?;
    while let Some((position, place)) = merge.next()? {
        if !run.take(position, source.read(place, bytes_max)?) {
            next = last;
            break;
        }
        last = Some(position);
    }
    Ok(Response::Epochs { heads, epochs: run.finish(), next, tell_branches: false })
}

/// Answers [`super::Request::Get`]: each named epoch that is held, and as much as fits of what comes before it on its
/// branch, in the order of the log.
///
/// # Errors
/// As [`serve_pull`].
pub fn serve_get(source: &dyn Source, epochs: &[EpochId], bytes_max: usize) -> Result<Response, ViewError> {
    let mut run = Run::new(bytes_max);
    let mut named = Vec::new();
    for id in epochs {
        named.extend(source.epoch(id)?.map(|at| at.place));
    }
    // What was named comes first, then what is nearest to it: a cut leaves out what is furthest.
    'fit: for back in 0..=GET_RUN_EPOCHS as u64 {
        for place in &named {
            let first_n = source.dag().branches().get(place.branch as usize).map_or(0, |branch| branch.first_n);
            let Some(n) = place.n.checked_sub(back).filter(|n| *n >= first_n) else { continue };
            let place = Place { branch: place.branch, n };
            let Some(position) = source.position(place)?.filter(|position| !run.holds(*position)) else { continue };
            if !run.take(position, source.read(place, bytes_max)?) {
                break 'fit;
            }
        }
    }
    Ok(Response::Epochs { heads: heads(source.dag()), epochs: run.finish(), next: None, tell_branches: false })
}

/// The heads, the newest where there are more than a message holds.
fn heads(dag: &Dag) -> Vec<EpochId> {
    let mut heads: Vec<_> = dag.heads().iter().map(|(id, head)| (Reverse(head.seq), *id)).collect();
    if heads.len() > HEADS_MAX {
        heads.sort_unstable();
        heads.truncate(HEADS_MAX);
    }
    let mut heads: Vec<EpochId> = heads.into_iter().map(|(_, id)| id).collect();
    heads.sort_unstable();
    heads
}

/// Epochs that go into one answer, by their place in the log.
struct Run {
    epochs: BTreeMap<Cursor, Sent>,
    bytes_left: usize,
}

impl Run {
    fn new(bytes_max: usize) -> Self {
        Self { epochs: BTreeMap::new(), bytes_left: bytes_max }
    }

    /// Whether it fits; the first always does.
    fn take(&mut self, position: Cursor, sent: Sent) -> bool {
        let size = sent.size_bytes();
        if !self.epochs.is_empty() && (size > self.bytes_left || self.epochs.len() >= MESSAGE_EPOCHS_MAX) {
            return false;
        }
        self.bytes_left = self.bytes_left.saturating_sub(size);
        self.epochs.insert(position, sent);
        true
    }

    fn holds(&self, position: Cursor) -> bool {
        self.epochs.contains_key(&position)
    }

    fn finish(self) -> Vec<Sent> {
        self.epochs.into_values().collect()
    }
}

/// Ranges of branches, merged in the order of the log.
struct Merge<'a> {
    source: &'a dyn Source,
    next: BinaryHeap<Reverse<(Cursor, Place)>>,
}

impl<'a> Merge<'a> {
    fn begin(source: &'a dyn Source, ranges: Vec<Range>, after: Option<Cursor>) -> Result<Self, ViewError> {
        let mut merge = Self { source, next: BinaryHeap::new() };
        for Range { branch, from_n } in ranges {
            let from_n = match after {
                Some(after) => merge.first_after(branch, from_n, after)?,
                None => from_n,
            };
            merge.push(branch, from_n)?;
        }
        Ok(merge)
    }

    fn next(&mut self) -> Result<Option<(Cursor, Place)>, ViewError> {
        let Some(Reverse((position, place))) = self.next.pop() else { return Ok(None) };
        self.push(place.branch, place.n + 1)?;
        Ok(Some((position, place)))
    }

    /// Adds the first epoch of a branch from this number on that is there.
    fn push(&mut self, branch: u32, from_n: u64) -> Result<(), ViewError> {
        for n in from_n..self.end(branch) {
            let place = Place { branch, n };
            if let Some(position) = self.source.position(place)? {
                self.next.push(Reverse((position, place)));
                return Ok(());
            }
        }
        Ok(())
    }

    /// The first epoch of a branch behind a place of the log: the log holds a branch in its order.
    fn first_after(&self, branch: u32, from_n: u64, after: Cursor) -> Result<u64, ViewError> {
        let (mut low, mut high) = (from_n, self.end(branch));
        while low < high {
            let middle = low + (high - low) / 2;
            if self.source.position(Place { branch, n: middle })?.is_none_or(|position| position <= after) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }

    fn end(&self, branch: u32) -> u64 {
        self.source.dag().branches().get(branch as usize).map_or(0, |branch| branch.tip_n + 1)
    }
}

#[cfg(test)]
mod tests;
