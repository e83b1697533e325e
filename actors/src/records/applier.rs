//! The index thread: takes what is filled, in log order, and applies it to the store in batches.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{MutexGuard, PoisonError},
    time::Duration,
};

use super::{
    queue::Work,
    shared::{End, Progress, Shared, Space},
    store::StoreError,
};
use crate::failpoint;

/// How long a record waits for more.
const LINGER: Duration = Duration::from_secs(1);
/// The pause between two questions for room on the disk.
const DISK_PAUSE: Duration = if cfg!(test) { Duration::from_millis(10) } else { Duration::from_secs(1) };

/// Applies until it is told to end.
pub(super) fn run(shared: &Shared) {
    let ran = catch_unwind(AssertUnwindSafe(|| apply_all(shared)));
    if let Err(error) = ran.unwrap_or_else(|_| Err(StoreError::new("the index thread panicked"))) {
        shared.fail(&error);
    }
}

fn apply_all(shared: &Shared) -> Result<(), StoreError> {
    loop {
        await_commits(shared);
        if !await_disk(shared)? {
            return Ok(());
        }
        let Some(work) = take(shared) else {
            return Ok(());
        };
        apply(shared, work)?;
    }
}

/// Applies first, and takes the records from the tail afterwards: at every moment a reader finds them in one of both.
fn apply(shared: &Shared, work: Work) -> Result<(), StoreError> {
    failpoint::reached("index.batch");
    shared.store.apply(&work.batch)?;
    let is_whole = work.applied > work.last.commit;
    failpoint::reached(if is_whole { "index.batch.stored" } else { "index.batch.between" });
    shared.tail.write().unwrap_or_else(PoisonError::into_inner).hide(work.batch.keys(), work.last);
    drop(work.rooms);
    shared.progress().applied = work.applied;
    shared.applied.notify_all();
    Ok(())
}

/// Returns when a batch is due, or the end.
fn await_commits(shared: &Shared) {
    let idle = |progress: &mut Progress| progress.end.is_none() && !progress.queue.is_ready();
    let progress = shared.wake.wait_while(shared.progress(), idle).unwrap_or_else(PoisonError::into_inner);
    let few =
        |progress: &mut Progress| progress.end.is_none() && progress.hurried == 0 && !progress.queue.is_worth_it();
    drop(wait(shared, progress, LINGER, few));
}

/// Returns whether the disk has room: true as soon as it has, false if it has none at the end.
fn await_disk(shared: &Shared) -> Result<bool, StoreError> {
    let Some(Space { disk, dir, free_bytes_min }) = &shared.disk else {
        return Ok(true);
    };
    let mut short = false;
    loop {
        let free = disk.free_bytes(dir);
        let free = free.map_err(|e| StoreError::new(format!("cannot tell the room at {}: {e}", dir.display())))?;
        if free >= *free_bytes_min {
            if short {
                tracing::info!(free_bytes = free, "the index goes on: there is room on the disk again");
            }
            return Ok(true);
        }
        if !std::mem::replace(&mut short, true) {
            tracing::warn!(free_bytes = free, "the index waits: the disk is nearly full");
        }
        let progress = wait(shared, shared.progress(), DISK_PAUSE, |progress| progress.end.is_none());
        if progress.end.is_some() {
            return Ok(false);
        }
    }
}

fn wait<'a>(
    shared: &'a Shared,
    progress: MutexGuard<'a, Progress>,
    at_most: Duration,
    during: impl FnMut(&mut Progress) -> bool,
) -> MutexGuard<'a, Progress> {
    shared.wake.wait_timeout_while(progress, at_most, during).unwrap_or_else(PoisonError::into_inner).0
}

/// The next batch; `None` when it is time to end.
fn take(shared: &Shared) -> Option<Work> {
    let mut progress = shared.progress();
    match progress.end {
        Some(End::Abandoned | End::Failed) => None,
        Some(End::Drained) | None => progress.queue.take(),
    }
}
