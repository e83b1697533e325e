//! The power is cut at any moment, again and again on what the cut before left: nothing acknowledged is lost, and nothing
//! is there by halves.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::Path,
    sync::{Arc, Mutex, atomic::Ordering},
    time::Duration,
};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tempfile::TempDir;

use super::{
    super::{Node, start::StorageOptions},
    model::{Load, Model, options, same},
};
use crate::{
    blobs::BlobOptions,
    disk::cut::{CutDisk, During, Unsynced},
    log::LogOptions,
    records::RecordsOptions,
};

/// So many cuts one after the other; then a new folder.
const CUTS_CARRIED_ON: u64 = 10;
/// Operations of the disk within which the cut comes.
const OPERATIONS_MAX: u64 = 150;
/// How long the load goes on before it is stopped cleanly, or while a cut waits for its moment, in milliseconds.
const CLEAN_MS: u32 = 20;
const MOMENT_MS: u32 = 1000;

/// The storage of a node on this disk, in this boot of the machine.
pub(super) fn storage(disk: &CutDisk, boot: u64) -> StorageOptions {
    let disk: Arc<CutDisk> = Arc::new(disk.clone());
    StorageOptions {
        log: LogOptions { disk: disk.clone(), reserve_bytes: 1 << 20, ..LogOptions::default() },
        blobs: BlobOptions { disk: disk.clone(), ..BlobOptions::default() },
        records: RecordsOptions { disk, boot_id: Some(format!("{boot:x}")), ..RecordsOptions::default() },
        committed: None,
    }
}

/// When the power is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    /// Under load.
    Load,
    /// Under load, while a segment is written anew.
    Compaction,
    /// Under load, when a segment has just been begun.
    Roll,
    /// After a clean end.
    Stopped,
    /// While the node starts on what the cut before left.
    Start,
}

const MOMENTS: [Moment; 5] = [Moment::Roll, Moment::Start, Moment::Compaction, Moment::Stopped, Moment::Load];

/// What a cut left, and what was known in that moment.
struct Left {
    dir: TempDir,
    model: Model,
    during_compaction: bool,
}

/// What happened, so that the test can tell whether it tested anything.
#[derive(Debug, Default)]
struct Counts {
    cuts: u64,
    trusted: u64,
    compacting: u64,
    starting: u64,
    acknowledged: u64,
}

/// Has the disk leave something after so many operations more.
fn arm(
    disk: &CutDisk,
    operations: u64,
    during: Option<During>,
    seed: u64,
    model: Arc<Mutex<Model>>,
) -> Arc<Mutex<Option<Left>>> {
    let left = Arc::new(Mutex::new(None));
    let result = left.clone();
    disk.arm(operations, during, move |state| {
        let mut random = StdRng::seed_from_u64(seed);
        let unsynced = match random.random_range(0..4) {
            0 | 1 => Unsynced::Lost,
            2 => Unsynced::Mixed(512),
            _ => Unsynced::Mixed(4096),
        };
        let dir = tempfile::tempdir().expect("a folder");
        state.leave(dir.path(), unsynced, &mut random).expect("left");
        // In this moment the disk stands still: what is acknowledged by now was durable before.
        let model = model.lock().expect("nobody failed").clone();
        let during_compaction = state.compacts();
        *result.lock().expect("nobody failed") = Some(Left { dir, model, during_compaction });
    });
    left
}

/// Starts on what is there, checks it, and gives back what the next cut leaves.
async fn cut(moment: Moment, seed: u64, load: &Arc<Load>, dir: TempDir, counts: &mut Counts) -> TempDir {
    let mut random = StdRng::seed_from_u64(seed);
    let disk = CutDisk::new(dir.path()).expect("a disk");
    let is_new = !dir.path().join("log").exists();
    if moment == Moment::Start {
        let left = arm(&disk, random.random_range(0..80), None, seed, load.shared());
        let node = Node::start_on(options(dir.path()), storage(&disk, seed)).await.expect("starts");
        disk.cut_now();
        node.stop().await;
        counts.starting += 1;
        return taken(&left).expect("it was cut").dir;
    }
    let node = Node::start_on(options(dir.path()), storage(&disk, seed)).await.expect("starts");
    if is_new {
        load.create(&node).await;
    }
    load.check(&node).await;
    let (operations, during, for_ms) = match moment {
        Moment::Compaction => (random.random_range(0..4), Some(During::Compaction), MOMENT_MS),
        Moment::Roll => (random.random_range(1..12), Some(During::Roll), MOMENT_MS),
        Moment::Stopped => (u64::MAX, None, CLEAN_MS),
        Moment::Load | Moment::Start => (random.random_range(0..OPERATIONS_MAX), None, u32::MAX),
    };
    let left = arm(&disk, operations, during, seed, load.shared());
    let clients = load.work(&node, seed);
    let mut waited_ms = 0;
    while left.lock().expect("nobody failed").is_none() && waited_ms < for_ms {
        tokio::time::sleep(Duration::from_millis(1)).await;
        waited_ms += 1;
    }
    if moment != Moment::Stopped {
        disk.cut_now();
    }
    load.stop();
    for client in clients {
        client.await.expect("no client failed");
    }
    node.stop().await;
    drop(node);
    disk.cut_now();
    let left = taken(&left).expect("it was cut");
    counts.compacting += u64::from(left.during_compaction);
    *load.model() = left.model;
    if moment == Moment::Stopped {
        is_trusted(&left.dir, seed, load).await;
        counts.trusted += 1;
    }
    left.dir
}

fn taken(left: &Mutex<Option<Left>>) -> Option<Left> {
    left.lock().expect("nobody failed").take()
}

/// After a clean stop the index is taken as it is, in another boot as well, and says what one made anew says.
async fn is_trusted(dir: &TempDir, seed: u64, load: &Arc<Load>) {
    let anew = tempfile::tempdir().expect("a folder");
    copy(dir.path(), anew.path());
    fs::remove_dir_all(anew.path().join("index")).expect("removed");
    let inode = || fs::metadata(dir.path().join("index/db/db")).expect("a store").ino();
    let before = inode();
    let mut answers = Vec::new();
    for dir in [dir, &anew] {
        let disk = CutDisk::new(dir.path()).expect("a disk");
        let node = Node::start_on(options(dir.path()), storage(&disk, seed + 1)).await.expect("starts");
        answers.push(load.answers(&node).await.expect("answered"));
        node.stop().await;
    }
    assert_eq!(inode(), before, "the index was made anew");
    same(&answers[0], &answers[1]);
}

/// Copies a folder.
pub(super) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("made");
    for entry in fs::read_dir(from).expect("listed") {
        let path = entry.expect("listed").path();
        let to = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            copy(&path, &to);
        } else {
            fs::copy(&path, &to).expect("copied");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_power_cut_at_any_moment_loses_nothing_acknowledged() {
    let cuts = if std::env::var_os("KVSPACE_LONG").is_some() { 400 } else { 30 };
    let seed = std::env::var("KVSPACE_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| rand::rng().random_range(0..u64::from(u32::MAX)));
    eprintln!("to repeat: KVSPACE_SEED={seed}");
    let mut counts = Counts::default();
    let mut world = None;
    for round in 0..cuts {
        let (load, dir) = match world.take() {
            Some(world) if round % CUTS_CARRIED_ON > 0 => world,
            _ => (Arc::new(Load::new()), tempfile::tempdir().expect("a folder")),
        };
        let moment = MOMENTS[(round % 5) as usize];
        let dir = cut(moment, seed << 16 | round << 1, &load, dir, &mut counts).await;
        counts.cuts += 1;
        counts.acknowledged += load.acknowledged.swap(0, Ordering::Relaxed);
        if round % CUTS_CARRIED_ON == CUTS_CARRIED_ON - 1 {
            let disk = CutDisk::new(dir.path()).expect("a disk");
            let node = Node::start_on(options(dir.path()), storage(&disk, round)).await.expect("starts");
            load.check(&node).await;
            node.stop().await;
        }
        world = Some((load, dir));
    }
    eprintln!("{counts:?}");
    assert_eq!(counts.trusted, cuts / 5);
    assert!(counts.compacting > 0, "no cut fell into a compaction");
}
