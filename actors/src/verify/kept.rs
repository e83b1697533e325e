//! The index as the node left it: a copy, brought up to the log's end as the next start would do it.

use std::{fs, io, path::Path};

use super::{
    report::{Fault, Faults, IndexState},
    unusable,
};
use crate::{
    StartError,
    disk::{Disk as _, OsDisk},
    index::{self, Index, IndexError},
    log::{LogReader, Position, Replayed, ReplayedCommit},
    node::Recovery,
    records::{Reason, Records, RecordsOptions},
};

/// What stays free on the disk, beside two more indexes.
const RESERVE_BYTES: u64 = 64 * 1024 * 1024;

/// The kept index during the pass over the log.
pub(super) enum Kept {
    /// It counts for nothing: the next start makes it anew.
    Unused(Reason),
    /// It is believed.
    Trusted {
        /// `None` at the end.
        recovery: Option<Box<Recovery>>,
        covered: Option<Position>,
        /// Whether the log's commit was met up to which it has everything.
        is_met: bool,
        failure: Option<IndexError>,
    },
}

/// The kept index after the pass.
pub(super) enum Judged {
    /// The next start makes it anew.
    Anew(String),
    /// It cannot be read to its end.
    Broken,
    /// As before, since its log has lost a commit that the index had taken in.
    Beyond(Position, Index),
    /// It has what the log has, as far as it was taken in.
    Level(Index),
}

impl Kept {
    /// Opens a copy. Opening the files themselves would write to them.
    pub(super) fn open(
        index_dir: &Path,
        copy: &Path,
        options: &RecordsOptions,
        recovery: impl FnOnce(Records) -> Recovery,
    ) -> Result<Self, StartError> {
        let size_bytes = size_of(index_dir).map_err(unusable(index_dir))?;
        let free_bytes = OsDisk.free_bytes(index_dir).map_err(unusable(index_dir))?;
        if free_bytes < size_bytes.saturating_mul(2).saturating_add(RESERVE_BYTES) {
            let needed = "looking through the index takes twice its size on the disk for a while";
            return Err(unusable(index_dir)(io::Error::new(io::ErrorKind::StorageFull, needed)));
        }
        copy_dir(index_dir, copy).map_err(unusable(index_dir))?;
        let opened = Records::open(copy, options)?;
        if let Some(reason) = opened.fresh {
            return Ok(Self::Unused(reason));
        }
        Ok(match opened.covered.as_deref().map(index::covered).transpose() {
            Ok(covered) => {
                let (recovery, is_met) = (Some(Box::new(recovery(opened.records))), covered.is_none());
                Self::Trusted { recovery, covered, is_met, failure: None }
            }
            Err(error) => Self::Unused(Reason::Damaged(error)),
        })
    }

    /// Takes the next commit of the log, if it has not got it.
    pub(super) fn take(&mut self, log: &LogReader, commit: &ReplayedCommit) {
        let Self::Trusted { recovery: Some(recovery), covered, is_met, failure } = self else { return };
        if let Some(covered) = covered
            && commit.end <= *covered
        {
            *is_met |= commit.end == *covered;
            return;
        }
        if *is_met && failure.is_none() {
            *failure = recovery.take(log, Replayed::Commit(commit.clone())).err();
        }
    }

    /// What it is worth.
    pub(super) fn end(&mut self, log: &LogReader, faults: &mut Faults) -> Judged {
        let (recovery, covered, is_met, failure) = match self {
            Self::Unused(reason) => {
                if matches!(reason, Reason::Damaged(_)) {
                    faults.add(Fault::IndexFiles(reason.to_string()));
                }
                return Judged::Anew(reason.to_string());
            }
            Self::Trusted { recovery, covered, is_met, failure } => {
                (recovery.take(), *covered, *is_met, failure.take())
            }
        };
        let index = match (recovery.map(|recovery| recovery.finish(log)), failure) {
            (_, Some(error)) | (Some(Err(error)), _) => {
                faults.add(Fault::IndexFiles(error.to_string()));
                return Judged::Anew(error.to_string());
            }
            (None, None) => return Judged::Anew("it was looked at before".to_owned()),
            (Some(Ok(index)), None) => index,
        };
        match covered.filter(|_| !is_met) {
            Some(covered) => {
                faults.add(Fault::LogEnd { covered });
                Judged::Beyond(covered, index)
            }
            None => Judged::Level(index),
        }
    }
}

impl Judged {
    /// What there is to look at.
    pub(super) fn index(&self) -> Option<&Index> {
        match self {
            Self::Anew(_) | Self::Broken => None,
            Self::Beyond(_, index) | Self::Level(index) => Some(index),
        }
    }

    /// Whether the two are to show the same.
    pub(super) fn is_level(&self) -> bool {
        matches!(self, Self::Level(_))
    }

    /// The commit that the log has lost.
    pub(super) fn lost_end(&self) -> Option<Position> {
        match self {
            Self::Beyond(covered, _) => Some(*covered),
            Self::Anew(_) | Self::Broken | Self::Level(_) => None,
        }
    }

    /// It could not be read to its end.
    pub(super) fn failed(self, error: String, faults: &mut Faults) -> Self {
        faults.add(Fault::IndexFiles(error));
        Self::Broken
    }

    /// In a word.
    pub(super) fn told(&self, differs: bool) -> IndexState {
        match self {
            Self::Anew(why) => IndexState::MadeAtStart(why.clone()),
            Self::Beyond(..) => IndexState::MadeAtStart("it has taken in more than the log holds".to_owned()),
            Self::Broken => IndexState::Differs,
            Self::Level(_) if differs => IndexState::Differs,
            Self::Level(_) => IndexState::Sound,
        }
    }
}

fn size_of(dir: &Path) -> io::Result<u64> {
    let mut size_bytes = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        size_bytes += if metadata.is_dir() { size_of(&entry.path())? } else { metadata.len() };
    }
    Ok(size_bytes)
}

fn copy_dir(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_dir(&entry.path(), &to)?;
        } else {
            fs::copy(entry.path(), &to)?;
        }
    }
    Ok(())
}
