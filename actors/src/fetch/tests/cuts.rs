//! The power is cut at every step of a value's way to its name.

use rand::{SeedableRng as _, rngs::StdRng};

use super::*;
use crate::disk::cut::{CutDisk, Unsynced};

/// How often every step is tried.
const SEEDS: u64 = 5;

/// What a cut left in a folder, after so many operations; `None` when there were not so many.
fn cut(from: &Path, bytes: &Bytes, operations: u64, seed: u64) -> Option<tempfile::TempDir> {
    let disk = CutDisk::new(from).expect("a disk");
    let left = Arc::new(Mutex::new(None));
    let result = left.clone();
    let blobs = open(from, &disk);
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

/// The blobs of a folder, with no more folders in it than one value needs: making them all takes long.
fn open(dir: &Path, disk: &CutDisk) -> Blobs {
    let blob_options = BlobOptions { disk: Arc::new(disk.clone()), ..BlobOptions::default() };
    let value = crate::blobs::file_of(dir, &BlobHash::of(&value()));
    for folder in [&*dir.join("partial"), value.parent().expect("a folder")] {
        disk.create_dir(folder).expect("made");
    }
    Blobs::in_folders(dir, blob_options)
}

/// The value on its way; its last group comes after the last checkpoint.
fn value() -> Bytes {
    content(1, 7 * 16_384 - 7)
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

#[test]
fn whatever_power_cuts_leave_there_is_never_a_file_with_wrong_bytes_and_the_value_comes_after_all() {
    let bytes = value();
    let (mut cuts, mut resumed) = (0, 0);
    for seed in 0..SEEDS {
        for operations in 0.. {
            let seed = 1000 * seed + operations;
            let folder = tempfile::tempdir().expect("a folder");
            let Some(left) = cut(folder.path(), &bytes, operations, seed) else { break };
            check(left.path(), &bytes);
            // And once more, while it goes on with what is there.
            let later = seed * 7 % (operations + 1);
            let left = cut(left.path(), &bytes, later, seed + 1).unwrap_or(left);
            check(left.path(), &bytes);
            let blobs = open(left.path(), &CutDisk::new(left.path()).expect("a disk"));
            cuts += 1;
            resumed += usize::from(!blobs.partials().expect("listed").is_empty());
            // What turns out to be lost takes one more attempt.
            assert!(fill(&blobs, &bytes) || fill(&blobs, &bytes), "{seed}");
            assert!(is_whole(left.path(), &bytes));
        }
    }
    assert!(cuts > 60 && resumed > 20, "{cuts} cuts, {resumed} times there was something to go on with");
}

#[test]
fn what_has_its_name_is_there_after_a_power_cut() {
    let folder = tempfile::tempdir().expect("a folder");
    let disk = CutDisk::new(folder.path()).expect("a disk");
    assert!(fill(&open(folder.path(), &disk), &value()));
    let left = tempfile::tempdir().expect("a folder");
    let to = left.path().to_owned();
    disk.arm(u64::MAX, None, move |state| {
        state.leave(&to, Unsynced::Lost, &mut StdRng::seed_from_u64(1)).expect("left");
    });
    disk.cut_now();
    assert!(is_whole(left.path(), &value()));
}

/// No file under the value's name holds anything else.
fn check(dir: &Path, bytes: &Bytes) {
    let path = crate::blobs::file_of(dir, &BlobHash::of(bytes));
    assert!(!path.exists() || is_whole(dir, bytes));
}
