//! What a host says it has of a space, and what it therefore lacks.

use crate::{
    dag::Dag,
    id::{EpochId, HostKey, Incarnation},
    space::{View, ViewError},
};

/// What a host has of a space.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Have {
    /// Its heads.
    Heads(Vec<EpochId>),
    /// The last epochs of its branches, newest clock first, and a digest of those that did not fit.
    Branches {
        /// The branches.
        tips: Vec<Tip>,
        /// BLAKE3 over the encoding of the others, `None` when there are none.
        rest: Option<[u8; 32]>,
    },
}

/// The last epoch of a branch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tip {
    /// The host.
    pub host: HostKey,
    /// Its incarnation.
    pub incarnation: Incarnation,
    /// The number of the branch's first epoch.
    pub first_n: u64,
    /// The number of its last epoch.
    pub n: u64,
    /// The clock of its last epoch.
    pub seq: u64,
    /// Its last epoch.
    pub id: EpochId,
}

/// Epochs of one branch that a peer lacks: from `from_n` to the branch's last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// The branch, by this replica's number.
    pub branch: u32,
    /// The first that is lacking.
    pub from_n: u64,
}

/// What a peer lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lacking {
    /// These; empty when nothing.
    Ranges(Vec<Range>),
    /// Its heads are not known here: it has to tell its branches, more of them than it did.
    Unknown,
}

impl Have {
    /// What a replica with this DAG says first.
    #[must_use]
    pub fn heads(_dag: &Dag) -> Self {
        todo!()
    }

    /// What it says when its heads are not known to the other: at most `tips_max` branches.
    #[must_use]
    pub fn branches(_dag: &Dag, _tips_max: usize) -> Self {
        todo!()
    }

    /// What a peer that has this lacks of what `dag` holds.
    ///
    /// # Errors
    /// [`ViewError`] when the index cannot be read.
    pub fn lacking(&self, _dag: &Dag, _view: &dyn View) -> Result<Lacking, ViewError> {
        todo!()
    }
}
