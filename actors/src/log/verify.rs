//! A log read from end to end without being touched.

use std::path::Path;

use kvspace_protocol::id::BlobHash;

use super::{
    Damage, LogError, Replayed,
    record::Kind,
    replay,
    scan::{Found, Piece},
    segment,
};
use crate::disk::Disk;

/// Reads a whole log that nobody writes, and changes nothing: delivers commits and damage as [`Log::open`] does, and
/// checks each value against its hash besides. A value that is another is told as damage before its commit is
/// delivered.
///
/// What is broken at the very end of the last segment is a torn end, not damage: it may never have been durable.
///
/// # Errors
/// As [`Log::open`].
///
/// [`Log::open`]: super::Log::open
pub fn verify<E>(dir: &Path, disk: &dyn Disk, mut each: impl FnMut(Replayed) -> Result<(), E>) -> Result<(), LogError>
where
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut each = |replayed| each(replayed).map_err(|e| LogError::Stopped(e.into()));
    let mut checked = |piece| {
        if let Piece::Commit(found) = &piece {
            wrong_values(found).into_iter().try_for_each(|damage| each(Replayed::Damage(damage)))?;
        }
        each(replay::replayed(piece))
    };
    replay::replay(disk, dir, None, None, &mut checked).map(drop)
}

/// The name of a segment's file.
#[must_use]
pub fn file_name(segment: u32) -> String {
    segment::path_of(Path::new(""), segment).display().to_string()
}

/// The values of a commit that are not what their hash says.
fn wrong_values(found: &Found) -> Vec<Damage> {
    let records = found.records.iter().filter(|(_, head)| head.kind == Kind::Blob);
    let wrong = found.commit.blobs.iter().zip(records).filter(|(blob, _)| BlobHash::of(&blob.bytes) != blob.hash);
    let damage = wrong.map(|(blob, (offset, head))| Damage {
        segment: blob.at.segment,
        offset: *offset,
        length: head.record_bytes().unwrap_or(head.length),
        what: "a value does not match its hash",
    });
    damage.collect()
}
