//! What was found.

use std::collections::BTreeSet;

use kvspace_protocol::id::{BlobHash, SpaceId};

use crate::log::Position;

/// Faults that are named; further ones are counted.
pub const FAULTS_MAX: usize = 1_000;

/// What was found in a data folder.
#[derive(Debug, Clone)]
pub struct Report {
    /// What there is.
    pub counts: Counts,
    /// What is wrong.
    pub faults: Faults,
    /// How the index is.
    pub index: IndexState,
}

impl Report {
    /// How many faults are left: a new index cures those of the old one.
    #[must_use]
    pub fn left(&self) -> u64 {
        let cured = if self.index == IndexState::Replaced { self.faults.index_count } else { 0 };
        self.faults.count - cured
    }
}

/// What there is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Files of the log.
    pub segments: u64,
    /// Their bytes.
    pub log_bytes: u64,
    /// Whole commits.
    pub commits: u64,
    /// Epochs in them.
    pub epochs: u64,
    /// Values in the log.
    pub values: u64,
    /// Their bytes.
    pub value_bytes: u64,
    /// Spaces.
    pub spaces: u64,
    /// Keys with a live value.
    pub keys: u64,
    /// Values that other hosts have taken in and whose bytes have not come yet.
    pub pending: u64,
    /// Files of large values.
    pub files: u64,
    /// Their bytes.
    pub file_bytes: u64,
    /// Those of them that no live value needs: of values that others have replaced, kept for a while, and …
    pub superseded_files: u64,
    /// … those that nothing needs at all. The node removes them.
    pub unneeded_files: u64,
    /// Uploads that did not end. The next start removes them.
    pub unfinished: u64,
}

/// How the index is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IndexState {
    /// It shows what the log says.
    Sound,
    /// The faults tell.
    Differs,
    /// It is left as it is: it still knows what the damaged log has lost, so the two cannot be compared.
    KnowsMore,
    /// The next start makes it anew by itself, and why.
    MadeAtStart(String),
    /// It was made anew now.
    Replaced,
}

/// Something wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Bytes of the log that were durable once.
    Log {
        /// The segment.
        segment: u32,
        /// Its file's name in the log's folder.
        file: String,
        /// Where in the file.
        offset: u32,
        /// How many bytes; 0 if nobody knows.
        length: u32,
        /// What was found, as a clause.
        what: &'static str,
        /// The spaces whose epochs can be told there; others may be hit as well.
        spaces: Vec<SpaceId>,
    },
    /// The log ends before a commit that the index had taken in.
    LogEnd {
        /// The commit's last record.
        covered: Position,
    },
    /// An epoch that does not hold.
    Epoch {
        /// Its space.
        space: SpaceId,
        /// Where it lies, if it was read.
        at: Option<Position>,
        /// Why it does not hold, as a sentence.
        error: String,
    },
    /// A live value whose bytes are not what they were.
    Value {
        /// Its space.
        space: SpaceId,
        /// Its key.
        key: String,
        /// The hash of its bytes.
        hash: BlobHash,
        /// Its size.
        size_bytes: u64,
        /// What is wrong with them.
        what: ValueFault,
    },
    /// The index shows something else than the log says.
    Index {
        /// The space, if it is in one.
        space: Option<SpaceId>,
        /// What, as a clause.
        what: String,
    },
    /// The files of the index are not what was written.
    IndexFiles(String),
}

/// What is wrong with the bytes of a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ValueFault {
    /// They are not there.
    #[error("its bytes are missing")]
    Missing,
    /// The file has another size.
    #[error("its file has {0} bytes")]
    Size(u64),
    /// They are others.
    #[error("its bytes do not match their hash")]
    Hash,
    /// Nobody can tell.
    #[error("its bytes cannot be read: {0}")]
    Unreadable(String),
}

/// Faults, in the order in which they were found; a bounded number of them by name.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    named: Vec<Fault>,
    count: u64,
    /// Those of the index.
    index_count: u64,
    /// Those of the log.
    log_count: u64,
    values: BTreeSet<(SpaceId, String)>,
}

impl Faults {
    /// Adds one. A value is named once.
    pub(super) fn add(&mut self, fault: Fault) {
        if let Fault::Value { space, key, .. } = &fault
            && self.values.len() < FAULTS_MAX
            && !self.values.insert((space.clone(), key.clone()))
        {
            return;
        }
        self.count += 1;
        self.index_count += u64::from(matches!(fault, Fault::Index { .. } | Fault::IndexFiles(_)));
        let is_of_log = matches!(fault, Fault::Log { .. } | Fault::LogEnd { .. } | Fault::Epoch { .. });
        self.log_count += u64::from(is_of_log);
        if self.named.len() < FAULTS_MAX {
            self.named.push(fault);
        }
    }

    /// The first of them.
    #[must_use]
    pub fn named(&self) -> &[Fault] {
        &self.named
    }

    /// Whether the log has none.
    #[must_use]
    pub fn is_log_whole(&self) -> bool {
        self.log_count == 0
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }
}
