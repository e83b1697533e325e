//! Why the log did not do what was asked, and whose turn it is.

use std::{
    error, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{Append, Damage, Position};

/// Why a commit is not durable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// There is no room for another segment. Nothing was written.
    #[error("the disk is full")]
    DiskFull,
    /// The index has fallen behind. Nothing was written.
    #[error("the index has no room")]
    Busy,
    /// No segment can hold it. Nothing was written.
    #[error("a commit of {size_bytes} bytes does not fit in a segment, which takes {size_bytes_max}")]
    TooLarge {
        /// What the commit would take; 4 GiB - 1 stands for anything above.
        size_bytes: u32,
        /// What a segment takes.
        size_bytes_max: u32,
    },
    /// Writing or syncing failed. The commit is not acknowledged, and yet may be found in the log after a restart.
    #[error("writing the log failed: {0}")]
    Failed(Arc<str>),
    /// The log was closed before it took the commit. Nothing was written.
    #[error("the log is closed")]
    Closed,
}

/// An append the log did not take. Nothing was written and `done` was not called.
pub struct Refused {
    /// The append, as it was given.
    pub append: Append,
    /// Why.
    pub why: RefusedWhy,
}

/// Why the log did not take an append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusedWhy {
    /// As much as may wait is waiting.
    QueueFull,
    /// The log is closed.
    Closed,
}

/// Why a log cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// Another release wrote it.
    #[error("segment {segment} of the log has format {found}, this kvspace reads format {known}")]
    OtherFormat {
        /// The segment.
        segment: u32,
        /// The format it says.
        found: u32,
        /// The format of this program.
        known: u32,
    },
    /// [`LogOptions::after`](super::LogOptions::after) names a record that is not there: the caller knows another log than this one.
    #[error("the log holds no record at segment {}, byte {}", .0.segment, .0.offset)]
    NotInLog(Position),
    /// Whoever the replay was for gave up.
    #[error("replaying the log stopped: {0}")]
    Stopped(Box<dyn error::Error + Send + Sync>),
    /// The file system refused.
    #[error("cannot use {}: {source}", .path.display())]
    Io {
        /// The file or folder in question.
        path: PathBuf,
        /// The reason it gave.
        source: io::Error,
    },
}

impl LogError {
    pub(super) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Io { path, source }
    }
}

/// Why a segment was not compacted. It is as it was.
#[derive(Debug, thiserror::Error)]
pub enum CompactError {
    /// It is the one that is written, or none of this log.
    #[error("segment {0} of the log is not sealed")]
    NotSealed(u32),
    /// What was durable once is wrong now; nothing that is left is to be lost.
    #[error("segment {} of the log is damaged at byte {}: {}", .0.segment, .0.offset, .0.what)]
    Damaged(Damage),
    /// There is no room for the smaller file beside the larger.
    #[error("the disk is full")]
    DiskFull,
    /// The file system refused.
    #[error("cannot use {}: {source}", .path.display())]
    Io {
        /// The file or folder in question.
        path: PathBuf,
        /// The reason it gave.
        source: io::Error,
    },
}

impl CompactError {
    pub(super) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| if crate::disk::is_full(&source) { Self::DiskFull } else { Self::Io { path, source } }
    }
}

/// Why a record cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The segment was compacted and the record was not kept.
    #[error("segment {} of the log was compacted without the record of byte {}", .0.segment, .0.offset)]
    Freed(Position),
    /// There is no such record at this position.
    #[error("segment {} of the log is damaged at byte {}", .0.segment, .0.offset)]
    Damaged(Position),
    /// The file system refused.
    #[error("cannot read the log: {0}")]
    Io(io::Error),
}
