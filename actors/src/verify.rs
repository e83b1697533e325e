//! A data folder looked through from end to end: the log, the files of large values, the index.
//!
//! Offline, and nothing is changed unless the index is to be made anew. Two indexes are filled in one pass over the log: one
//! from its beginning, in a scratch folder, and a copy of the kept one from where it had ended, as the next start would. If
//! all is well they show the same.

use std::{io, path::PathBuf, sync::Arc};

use ed25519_dalek::SigningKey;
use kvspace_protocol::id::{HostKey, Incarnation};

use crate::{
    StartError,
    disk::{DataDir, OpenError, OsDisk, require_format},
    index::{Difference, compare},
    log::LogReader,
    node::Recovery,
    records::{Records, RecordsOptions},
};

mod kept;
mod pass;
mod report;
mod swap;
mod traces;
mod values;

pub use report::{Counts, FAULTS_MAX, Fault, Faults, IndexState, Report, ValueFault};

use kept::Kept;
use pass::Pass;
use values::Values;

/// The cores that are at work at one time.
const CORES_MAX: usize = 1_000;

/// What is looked through.
#[derive(Debug, Clone)]
pub struct Options {
    /// The data folder.
    pub data_dir: PathBuf,
    /// The node's own key, if it is there.
    pub key: Option<[u8; 32]>,
    /// Memory of each index's cache, in bytes.
    pub index_cache_bytes: u64,
    /// What becomes of the index.
    pub index: IndexWish,
}

/// What becomes of the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IndexWish {
    /// It is left alone.
    Leave,
    /// The one that was made from the log takes its place, unless it would know less: of a log that is damaged.
    Replace,
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// What is being read.
    pub what: &'static str,
    /// Bytes read.
    pub done_bytes: u64,
    /// Of so many.
    pub total_bytes: u64,
}

/// Looks through a data folder that no node runs on. Blocks; never call it from a task.
///
/// # Errors
/// [`StartError`] when it is in use, is none of this program's, or cannot be read. What is damaged is no error: the report
/// tells.
pub fn verify(options: &Options, progress: &mut dyn FnMut(Progress)) -> Result<Report, StartError> {
    require_format(&options.data_dir)?;
    let folder = DataDir::open(&options.data_dir)?;
    let scratch = Scratch::make(&folder)?;
    let mut faults = Faults::default();
    let mut counts = Counts::default();

    let log = LogReader::new(&folder.log(), Arc::new(OsDisk));
    let records_options = RecordsOptions { cache_bytes: options.index_cache_bytes, ..RecordsOptions::default() };
    let recovery = |records| {
        // Whoever's key it is: it says whose tokens were checked when they came, and signs nothing here.
        let key = SigningKey::from_bytes(&options.key.unwrap_or_default());
        Recovery::new(records, key, Incarnation([0; 8]), CORES_MAX)
    };
    let made_dir = scratch.0.join("made");
    std::fs::create_dir(&made_dir).map_err(unusable(&made_dir))?;
    let made_records = Records::open(&made_dir, &records_options)?.records;
    let mut kept = Kept::open(&folder.index(), &scratch.0.join("kept"), &records_options, recovery)?;
    let mut pass = Pass::new(&log, recovery(made_records.clone()), &mut faults, &mut counts);
    pass.run(&folder.log(), &mut kept, progress)?;
    let (recovery, suspects) = pass.end();
    let made = recovery.finish(&log)?;

    let mut judged = kept.end(&log, &mut faults);
    let mut values = Values::new(&folder.blobs(), &log, &mut faults, &mut counts, progress);
    values.own = options.key.map(|key| HostKey(SigningKey::from_bytes(&key).verifying_key().to_bytes()));
    values.check(&made, &suspects)?;
    if let Some(index) = judged.index() {
        let lost = judged.lost_end();
        if let Err(error) = values.check_kept(index, &suspects, lost) {
            judged = judged.failed(error.to_string(), values.faults);
        }
    }
    values.count_files(&made, judged.index())?;
    let is_log_whole = faults.is_log_whole();
    let before = faults.count();
    // What a damaged log has lost the index still knows: they cannot show the same.
    if let Some(index) = judged.index().filter(|_| judged.is_level() && is_log_whole) {
        let mut tell = |Difference { space, what }| faults.add(Fault::Index { space, what });
        if let Err(error) = compare(index, &made, &log, &mut tell) {
            judged = judged.failed(error.to_string(), &mut faults);
        }
    }
    let told = judged.told(faults.count() > before);
    let knows_more = told == IndexState::Sound && !is_log_whole;
    let index = if knows_more { IndexState::KnowsMore } else { told };
    drop(judged);
    drop((kept, made));
    let index = match options.index {
        IndexWish::Replace if index != IndexState::KnowsMore => {
            made_records.close()?;
            swap::replace(&folder, &made_dir)?;
            IndexState::Replaced
        }
        IndexWish::Leave | IndexWish::Replace => index,
    };
    drop(made_records);
    Ok(Report { counts, faults, index })
}

/// The scratch folder; gone with this value.
struct Scratch(PathBuf);

impl Scratch {
    fn make(folder: &DataDir) -> Result<Self, StartError> {
        let scratch = Self(folder.scratch());
        std::fs::create_dir(&scratch.0).map_err(unusable(&scratch.0))?;
        Ok(scratch)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // The first time something may still be on its way into it.
        let removed = std::fs::remove_dir_all(&self.0).or_else(|_| std::fs::remove_dir_all(&self.0));
        if let Err(error) = removed {
            tracing::warn!(%error, "cannot remove the scratch folder; whoever opens the data folder next does");
        }
    }
}

fn unusable(path: &std::path::Path) -> impl FnOnce(io::Error) -> StartError + use<> {
    let path = path.to_owned();
    move |source| StartError::DataDir(OpenError::Io { path, source })
}
