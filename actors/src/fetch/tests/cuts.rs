//! The power is cut at every step of a value's way to its name.

use rand::{SeedableRng as _, rngs::StdRng};

use super::*;
use crate::disk::cut::{CutDisk, Unsynced};

/// Nobody hears of operations beyond this many.
const OPERATIONS_MAX: u64 = 200;

/// What a cut left in a folder, after so many operations; `None` when there were not so many.
async fn cut(from: &Path, bytes: &Bytes, operations: u64, seed: u64) -> Option<tempfile::TempDir> {
    let disk = CutDisk::new(from).expect("a disk");
    let left = Arc::new(Mutex::new(None));
    let result = left.clone();
    let blob_options = BlobOptions { disk: Arc::new(disk.clone()), ..BlobOptions::default() };
    let blobs = Blobs::open_with(from, blob_options).expect("opened");
    disk.arm(operations, None, move |state| {
        let mut random = StdRng::seed_from_u64(seed);
        let unsynced = if seed.is_multiple_of(3) { Unsynced::Lost } else { Unsynced::Mixed(4096) };
        let dir = tempfile::tempdir().expect("a folder");
        state.leave(dir.path(), unsynced, &mut random).expect("left");
        *result.lock().expect("nobody failed") = Some(dir);
    });
    fill(&blobs, bytes);
    left.lock().expect("nobody failed").take()
}

/// Takes a value in as a fetcher does: stripe by stripe, with a checkpoint after every other one, closed and opened again once.
/// Says whether it has its name.
fn fill(blobs: &Blobs, bytes: &Bytes) -> bool {
    let (hash, size) = (BlobHash::of(bytes), bytes.len() as u64);
    blobs.partials().expect("listed");
    let mut partial = blobs.partial(hash, size);
    let mut lacking = Groups::of_size(size);
    partial.verified().runs().for_each(|run| lacking.remove(run));
    for (number, group) in lacking.runs().flatten().enumerate() {
        let range = tree::bytes_of(size, &(group..group + 1));
        partial.write(range.start, &bytes[range.start as usize..range.end as usize]).expect("written");
        if number % 2 == 1 {
            partial.checkpoint().expect("kept");
        }
        if number == 3 {
            drop(partial);
            partial = blobs.partial(hash, size);
        }
    }
    match partial.finish() {
        Ok(staged) => {
            staged.keep();
            true
        }
        Err(_) => false,
    }
}

#[tokio::test]
async fn whatever_a_power_cut_leaves_there_is_never_a_file_with_wrong_bytes_and_the_value_comes_after_all() {
    let bytes = content(1, 10 * 16_384 - 7);
    let (mut cuts, mut resumed) = (0, 0);
    for seed in 0..12 {
        let mut first = tempfile::tempdir().expect("a folder");
        for round in 0..2 {
            let mut last = None;
            for operations in 0..OPERATIONS_MAX {
                let from = tempfile::tempdir().expect("a folder");
                copy(first.path(), from.path());
                let Some(left) = cut(from.path(), &bytes, operations, seed + 100 * round).await else { break };
                cuts += 1;
                check(left.path(), &bytes);
                let blobs = Blobs::open(left.path()).expect("opened");
                resumed += usize::from(!blobs.partials().expect("listed").is_empty());
                let copy_of = tempfile::tempdir().expect("a folder");
                copy(left.path(), copy_of.path());
                // What was lost may take one more attempt.
                assert!(fill(&blobs, &bytes) || fill(&blobs, &bytes), "seed {seed}, {operations}");
                check(left.path(), &bytes);
                assert!(is_whole(left.path(), &bytes));
                if operations % 7 == seed % 7 {
                    last = Some(copy_of);
                }
            }
            // The next round begins with what a cut left.
            first = last.expect("some cut");
        }
    }
    assert!(cuts > 200 && resumed > 50, "{cuts} cuts, {resumed} times there was something to go on with");
}

/// No file under the value's name holds anything else.
fn check(dir: &Path, bytes: &Bytes) {
    let path = crate::blobs::file_of(dir, &BlobHash::of(bytes));
    assert!(!path.exists() || is_whole(dir, bytes));
}

fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            std::fs::create_dir_all(&target).expect("made");
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), &target).expect("copied");
        }
    }
}
