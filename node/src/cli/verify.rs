//! `kvspace verify`.

use std::{collections::BTreeMap, path::Path, process::ExitCode};

use clap::Args;
use kvspace_actors::verify::{Counts, Fault, IndexState, IndexWish, Options, Progress, Report, verify};
use kvspace_protocol::limits::INLINE_BYTES_MAX;
use serde_json::{Value, json};

use super::{
    data::{DataArgs, Steps},
    error::{CliError, FAILED},
    output::Output,
    transfer::{bytes, some},
};
use crate::run::node_key;

const HELP: &str =
    "Reads all of the log and of the files of large values, and compares the index with the log. The node must not run.
Needs room for two more indexes for a while. Exit code 0: all is well; 1: something is damaged.

Example:
  kvspace verify --data-dir ./data";

/// Epochs of one space that are named for people: one that is lost takes along all that rest on it.
const EPOCHS_TOLD_MAX: u64 = 3;

#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct VerifyArgs {
    #[command(flatten)]
    data: DataArgs,
    /// Makes the index anew from the log; touches nothing else
    #[arg(long)]
    repair: bool,
}

impl VerifyArgs {
    pub(crate) fn run(self, out: &Output) -> Result<ExitCode, CliError> {
        let config = self.data.config()?;
        let key = node_key::load(&config.node.key_file).unwrap_or_else(|error| {
            out.note(&error.to_string());
            None
        });
        let options = Options {
            data_dir: config.node.data_dir.clone(),
            key,
            index_cache_bytes: config.storage.index_cache_bytes,
            index: if self.repair { IndexWish::Replace } else { IndexWish::Leave },
        };
        let mut steps = Steps::new();
        let report = verify(&options, &mut |Progress { what, done_bytes, total_bytes }| {
            steps.tell(what, done_bytes, Some(total_bytes));
        })?;
        drop(steps);
        let (lines, object) = (told(&config.node.data_dir, &report), document(&config.node.data_dir, &report));
        out.result(&lines, &object)?;
        Ok(if report.left() == 0 { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
    }
}

fn told(data_dir: &Path, report: &Report) -> String {
    let Counts { segments, log_bytes, commits, epochs, values, value_bytes, spaces, keys, .. } = report.counts;
    let Counts { files, file_bytes, pending, superseded_files, unneeded_files, unfinished, .. } = report.counts;
    let found = report.faults.count();
    let verdict = match (found, report.left()) {
        (0, _) => "sound".to_owned(),
        (1, 1) => "1 fault".to_owned(),
        (found, 0) => format!("{found} faults of the index, which was made anew"),
        (found, _) => format!("{found} faults"),
    };
    let mut lines = format!(
        "{}: {verdict}

log     {} of {}; {} with {} and {} of {}
spaces  {spaces}, with {}
files   {files} of {}; {pending} to come from other hosts, {superseded_files} superseded, {unneeded_files} needed by nothing; {}
index   {}
",
        data_dir.display(),
        some(segments, "segment"),
        bytes(log_bytes),
        some(commits, "commit"),
        some(epochs, "epoch"),
        some(values, "value"),
        bytes(value_bytes),
        some(keys, "key"),
        bytes(file_bytes),
        some(unfinished, "unfinished upload"),
        index(&report.index),
    );
    let mut advice: Vec<&str> = Vec::new();
    let mut epochs_of: BTreeMap<&str, u64> = BTreeMap::new();
    for (number, fault) in (1..).zip(report.faults.named()) {
        let Told { what, cure, .. } = tell(fault);
        if let Fault::Epoch { space, .. } = fault {
            let told = epochs_of.entry(space.as_str()).or_default();
            *told += 1;
            if *told > EPOCHS_TOLD_MAX {
                continue;
            }
        }
        lines += &format!("\n{number}. {what}");
        if !advice.contains(&cure) {
            advice.push(cure);
        }
    }
    for (space, count) in epochs_of.into_iter().filter(|(_, count)| *count > EPOCHS_TOLD_MAX) {
        lines += &format!("\nand {} of space {space}", some(count - EPOCHS_TOLD_MAX, "more epoch"));
    }
    let more = found - report.faults.named().len() as u64;
    if more > 0 {
        lines += &format!("\nand {more} more");
    }
    if report.left() > 0 {
        lines += "\n\nWhat is not named here is served as before. What to do:\n";
        advice.iter().for_each(|cure| lines += &format!("- {cure}\n"));
    }
    lines
}

fn document(data_dir: &Path, report: &Report) -> Value {
    let counts = &report.counts;
    let (state, reason) = match &report.index {
        IndexState::Sound => ("sound", None),
        IndexState::Differs => ("differs", None),
        IndexState::KnowsMore => ("knows_more", None),
        IndexState::MadeAtStart(reason) => ("made_at_next_start", Some(reason)),
        IndexState::Replaced => ("made_anew", None),
    };
    let faults = report.faults.named().iter().map(|fault| {
        let Told { kind, what, cure, mut members } = tell(fault);
        members["kind"] = kind.into();
        members["message"] = what.into();
        members["advice"] = cure.into();
        members
    });
    json!({
        "data_dir": data_dir.display().to_string(),
        "sound": report.faults.count() == 0,
        "faults": faults.collect::<Vec<_>>(),
        "faults_found": report.faults.count(),
        "faults_left": report.left(),
        "index": { "state": state, "reason": reason },
        "counts": {
            "segments": counts.segments, "log_bytes": counts.log_bytes, "commits": counts.commits,
            "epochs": counts.epochs, "values": counts.values, "value_bytes": counts.value_bytes,
            "spaces": counts.spaces, "keys": counts.keys, "files": counts.files, "file_bytes": counts.file_bytes,
            "pending": counts.pending, "superseded_files": counts.superseded_files, "unneeded_files": counts.unneeded_files,
            "unfinished_uploads": counts.unfinished,
        },
    })
}

fn index(state: &IndexState) -> String {
    match state {
        IndexState::Sound => "shows what the log says".to_owned(),
        IndexState::KnowsMore => {
            "was left alone, and not compared: it still knows what the damaged log has lost".to_owned()
        }
        IndexState::Differs => "does not show what the log says".to_owned(),
        IndexState::MadeAtStart(reason) => format!("the next start makes it anew: {reason}"),
        IndexState::Replaced => "was made anew from the log".to_owned(),
    }
}

/// A fault in words, and as members of an object.
struct Told {
    kind: &'static str,
    what: String,
    cure: &'static str,
    members: Value,
}

const LOG: &str = "The log is damaged: what stood there is lost here. Copy the data folder as it is, then restore a backup, or let \
                   other hosts of the spaces bring what is missing.";
const VALUE: &str = "Values whose bytes are lost answer with an error: write them again, restore a backup, or let other hosts of \
                     the space bring them.";
const INDEX: &str = "The index is wrong, the log is what counts: `kvspace verify --repair` makes the index anew.";
const INDEX_FILES: &str = "The files of the index are damaged; `kvspace verify --repair` makes it anew. Nothing is \
                           lost, but the disk may be failing.";

fn tell(fault: &Fault) -> Told {
    match fault {
        Fault::Log { segment, file, offset, length, what, spaces } => {
            let names: Vec<String> = spaces.iter().map(ToString::to_string).collect();
            let whose = if names.is_empty() {
                "which space it belongs to cannot be told".to_owned()
            } else {
                format!("in it: {}", names.join(", "))
            };
            let length_told = if *length == 0 { "an unknown number of".to_owned() } else { length.to_string() };
            Told {
                kind: "log",
                what: format!("log/{file}, from byte {offset}, {length_told} bytes: {what}; {whose}"),
                cure: LOG,
                members: json!({
                    "segment": segment, "file": file, "offset": offset, "length": length, "spaces": names,
                }),
            }
        }
        Fault::LogEnd { covered } => Told {
            kind: "log_end",
            what: format!(
                "the log does not hold the commit that ends in segment {}, byte {}, which the index has taken in: the log has \
                 lost its end, or it is not this index's log",
                covered.segment, covered.offset
            ),
            cure: LOG,
            members: json!({ "segment": covered.segment, "offset": covered.offset }),
        },
        Fault::Epoch { space, at, error } => {
            let place = at.map(|at| format!(" (segment {}, byte {})", at.segment, at.offset)).unwrap_or_default();
            Told {
                kind: "epoch",
                what: format!("space {space}{place}: {error}"),
                cure: LOG,
                members: json!({
                    "space": space.as_str(), "segment": at.map(|at| at.segment), "offset": at.map(|at| at.offset),
                }),
            }
        }
        Fault::Value { space, key, hash, size_bytes, what } => {
            let file = (*size_bytes > INLINE_BYTES_MAX).then(|| kvspace_actors::backup::Part::Blob(*hash).path());
            let place = file.as_ref().map(|file| format!(", file {file}")).unwrap_or_default();
            Told {
                kind: "value",
                what: format!("space {space}, key {key:?} ({size_bytes} bytes{place}): {what}"),
                cure: VALUE,
                members: json!({
                    "space": space.as_str(), "key": key, "size": size_bytes, "file": file, "what": what.to_string(),
                }),
            }
        }
        Fault::Index { space, what } => {
            let whose = space.as_ref().map(|space| format!("space {space}: ")).unwrap_or_default();
            let members = json!({ "space": space.as_ref().map(|space| space.as_str()), "what": what });
            Told { kind: "index", what: format!("index: {whose}{what}"), cure: INDEX, members }
        }
        Fault::IndexFiles(what) => {
            Told { kind: "index_files", what: what.clone(), cure: INDEX_FILES, members: json!({ "what": what }) }
        }
    }
}
