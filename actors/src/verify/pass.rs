//! One pass over the log: everything in it is checked by itself, and taken into the indexes.

use std::{collections::BTreeSet, path::Path};

use kvspace_protocol::{id::SpaceId, space::CheckedEpoch};

use super::{
    Progress,
    kept::Kept,
    report::{Counts, Fault, Faults},
    traces,
};
use crate::{
    StartError,
    disk::{Disk as _, OsDisk},
    index::{IndexError, signed},
    log::{self, Damage, LogError, LogReader, Replayed, ReplayedCommit},
    node::Recovery,
};

pub(super) struct Pass<'a> {
    log: &'a LogReader,
    recovery: Recovery,
    faults: &'a mut Faults,
    counts: &'a mut Counts,
    /// Segments in which something is wrong.
    suspects: BTreeSet<u32>,
}

impl<'a> Pass<'a> {
    pub(super) fn new(log: &'a LogReader, recovery: Recovery, faults: &'a mut Faults, counts: &'a mut Counts) -> Self {
        Self { log, recovery, faults, counts, suspects: BTreeSet::new() }
    }

    /// Reads the log in this folder.
    pub(super) fn run(
        &mut self,
        dir: &Path,
        kept: &mut Kept,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(), StartError> {
        let sizes = sizes(dir)?;
        (self.counts.segments, self.counts.log_bytes) = (sizes.len() as u64, sizes.iter().map(|(_, size)| size).sum());
        let total_bytes = self.counts.log_bytes;
        log::verify(dir, &OsDisk, |replayed| {
            match &replayed {
                Replayed::Commit(commit) => {
                    let before = sizes.iter().take_while(|(number, _)| *number < commit.end.segment);
                    let done_bytes = before.map(|(_, size)| size).sum::<u64>() + u64::from(commit.end.offset);
                    progress(Progress { what: "log", done_bytes, total_bytes });
                    self.commit(commit);
                    kept.take(self.log, commit);
                }
                Replayed::Damage(damage) => self.damage(dir, damage),
            }
            self.recovery.take(self.log, replayed)?;
            for (space, error) in self.recovery.passed_over() {
                self.faults.add(Fault::Epoch { space, at: None, error });
            }
            Ok::<(), IndexError>(())
        })?;
        Ok(())
    }

    /// What the log says, and the segments in which something is wrong.
    pub(super) fn end(self) -> (Recovery, BTreeSet<u32>) {
        (self.recovery, self.suspects)
    }

    fn commit(&mut self, commit: &ReplayedCommit) {
        self.counts.commits += 1;
        self.counts.epochs += commit.epochs.len() as u64;
        self.counts.values += commit.blobs.len() as u64;
        self.counts.value_bytes += commit.blobs.iter().map(|blob| blob.bytes.len() as u64).sum::<u64>();
        for (record, at) in &commit.epochs {
            let error = match CheckedEpoch::check(signed(record.clone())) {
                Ok(checked) if checked.epoch().header.space == record.space => continue,
                Ok(_) => "the epoch is of another space than the log says".to_owned(),
                Err(error) => error.to_string(),
            };
            self.suspects.insert(at.segment);
            self.faults.add(Fault::Epoch { space: record.space.clone(), at: Some(*at), error });
        }
    }

    fn damage(&mut self, dir: &Path, damage: &Damage) {
        let Damage { segment, offset, length, what } = *damage;
        let file = log::file_name(segment);
        let spaces: Vec<SpaceId> = traces::spaces_in(&dir.join(&file), offset, length).into_iter().collect();
        self.suspects.insert(segment);
        self.faults.add(Fault::Log { segment, file, offset, length, what, spaces });
    }
}

/// The segments and the sizes of their files.
fn sizes(dir: &Path) -> Result<Vec<(u32, u64)>, StartError> {
    let failed = |source| StartError::Log(LogError::Io { path: dir.to_owned(), source });
    let mut sizes = Vec::new();
    for name in OsDisk.list(dir).map_err(failed)? {
        let number = name.strip_suffix(".seg").and_then(|digits| digits.parse().ok());
        let Some(number) = number.filter(|number| log::file_name(*number) == name) else { continue };
        sizes.push((number, std::fs::metadata(dir.join(&name)).map_err(failed)?.len()));
    }
    Ok(sizes)
}
