//! What other hosts are answered from: one hosted space as it was at one moment.

use std::{collections::BTreeSet, sync::Arc};

use kvspace_protocol::{
    dag::{Dag, Place},
    epoch::SignedEpoch,
    id::{Address, EpochId, Identity, Key},
    kv::Operation,
    limits::INLINE_BYTES_MAX,
    space::{CheckedEpoch, EpochAt, View, ViewError},
    sync::{Cursor, Sent, Source},
};

use crate::{
    index::{SpaceIndex, signed},
    log::{LogReader, ReadError},
};

/// The durable epochs of a space up to one moment, with the values that win now. It reads files: for threads that may
/// block.
#[derive(Clone)]
pub(crate) struct SpaceSource {
    index: SpaceIndex,
    dag: Arc<Dag>,
}

impl SpaceSource {
    /// Of an index that shows all of this DAG.
    pub(crate) fn new(index: SpaceIndex, dag: Arc<Dag>) -> Self {
        Self { index, dag }
    }

    fn log(&self) -> &LogReader {
        self.index.index().log()
    }

    /// The inline values of an epoch that win now and lie in the log, each once.
    fn values(&self, epoch: SignedEpoch, bytes_max: usize) -> Result<Vec<bytes::Bytes>, ViewError> {
        let epoch = CheckedEpoch::read(epoch).map_err(|error| ViewError(error.to_string()))?;
        let (mut values, mut hashes, mut left) = (Vec::new(), BTreeSet::new(), bytes_max as u64);
        for (version, key, value) in epoch.writes() {
            let Some(value) = value.filter(|value| value.size <= INLINE_BYTES_MAX.min(left)) else { continue };
            if hashes.contains(&value.blob) {
                continue;
            }
            let winner = self.index.winning(key)?.filter(|winner| winner.operation.version == version);
            let Some(at) = winner.and_then(|winner| winner.at) else { continue };
            match self.log().read_blob(at) {
                Ok(bytes) => {
                    left = left.saturating_sub(bytes.len() as u64);
                    hashes.insert(value.blob);
                    values.push(bytes);
                }
                // Whoever wants it asks for it by itself.
                Err(ReadError::Freed(_) | ReadError::Damaged(_)) => {}
                Err(error @ ReadError::Io(_)) => return Err(ViewError(error.to_string())),
            }
        }
        Ok(values)
    }
}

impl Source for SpaceSource {
    fn dag(&self) -> &Dag {
        &self.dag
    }

    fn position(&self, place: Place) -> Result<Option<Cursor>, ViewError> {
        let at = self.index.find_position(place)?;
        Ok(at.map(|at| Cursor(u64::from(at.segment) << 32 | u64::from(at.offset))))
    }

    fn read(&self, place: Place, values_bytes_max: usize) -> Result<Sent, ViewError> {
        let at = self.index.find_position(place)?;
        let at = at.ok_or_else(|| ViewError("an epoch of the DAG has no place in the log".to_owned()))?;
        let epoch = self.log().read_epoch(at).map(signed).map_err(|error| ViewError(error.to_string()))?;
        let values = match values_bytes_max {
            0 => Vec::new(),
            bytes_max => self.values(epoch.clone(), bytes_max)?,
        };
        Ok(Sent { epoch, values })
    }
}

impl View for SpaceSource {
    /// What was committed after the moment is not held.
    fn epoch(&self, id: &EpochId) -> Result<Option<EpochAt>, ViewError> {
        let holds = |at: &EpochAt| {
            self.dag.branches().get(at.place.branch as usize).is_some_and(|branch| at.place.n <= branch.tip_n)
        };
        Ok(self.index.epoch(id)?.filter(holds))
    }

    fn winner(&self, key: &str) -> Result<Option<Operation>, ViewError> {
        self.index.winner(key)
    }

    fn history(&self, key: &str) -> Result<Vec<Operation>, ViewError> {
        self.index.history(key)
    }

    fn occurrences(&self, key: &str, identity: &Identity) -> Result<Vec<Operation>, ViewError> {
        self.index.occurrences(key, identity)
    }

    fn keys_under(&self, affected: &dyn Fn(&Address) -> bool) -> Result<BTreeSet<Key>, ViewError> {
        self.index.keys_under(affected)
    }
}
