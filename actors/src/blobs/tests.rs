//! What is promised about files and leases, on a real disk that can be told to fail.
#![expect(clippy::unwrap_in_result, reason = "a test that cannot go on panics")]

use std::sync::{
    Barrier,
    atomic::{AtomicBool, Ordering},
};

use tokio::runtime::Runtime;

use super::*;
use crate::disk::DiskFile;

/// The real disk; it writes down what changes names, and fails where told.
#[derive(Debug, Default)]
struct Watched {
    events: Mutex<Vec<String>>,
    fail: Mutex<Option<&'static str>>,
    full: AtomicBool,
}

struct WatchedFile(Arc<dyn DiskFile>, Arc<Watched>);

impl Watched {
    fn event(&self, what: &str, path: &Path) -> io::Result<()> {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        self.events.lock().expect("no panic").push(format!("{what} {name}"));
        let mut fail = self.fail.lock().expect("no panic");
        if *fail == Some(what) {
            *fail = None;
            return Err(io::Error::other("the disk is broken"));
        }
        Ok(())
    }

    fn fail_next(&self, what: &'static str) {
        *self.fail.lock().expect("no panic") = Some(what);
    }

    fn take_events(&self) -> Vec<String> {
        std::mem::take(&mut self.events.lock().expect("no panic"))
    }
}

#[derive(Debug)]
struct WatchedDisk(Arc<Watched>);

impl Disk for WatchedDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.0.event("create", path)?;
        Ok(Arc::new(WatchedFile(OsDisk.create(path)?, Arc::clone(&self.0))))
    }
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        OsDisk.open(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.event("rename", to)?;
        OsDisk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.event("remove", path)?;
        OsDisk.remove(path)
    }
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        OsDisk.create_dir(path)
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.0.event("sync_dir", path)?;
        OsDisk.sync_dir(path)
    }
    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        OsDisk.list(path)
    }
    fn free_bytes(&self, _: &Path) -> io::Result<u64> {
        Ok(if self.0.full.load(Ordering::SeqCst) { 1 << 20 } else { 1 << 40 })
    }
}

impl DiskFile for WatchedFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buffer, offset)
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.1.event("write", Path::new(""))?;
        self.0.write_at(bytes, offset)
    }
    fn sync(&self) -> io::Result<()> {
        self.1.event("sync", Path::new(""))?;
        self.0.sync()
    }
    fn size_bytes(&self) -> io::Result<u64> {
        self.0.size_bytes()
    }
}

struct World {
    dir: tempfile::TempDir,
    watched: Arc<Watched>,
    blobs: Blobs,
    runtime: Runtime,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let watched = Arc::new(Watched::default());
        let disk = Arc::new(WatchedDisk(Arc::clone(&watched)));
        let blobs = Blobs::open_with(dir.path(), BlobOptions { disk, ..BlobOptions::default() }).expect("opened");
        watched.take_events();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().expect("a runtime");
        Self { dir, watched, blobs, runtime }
    }

    fn try_upload(&self, content: &[u8]) -> io::Result<Staged> {
        self.runtime.block_on(async {
            let mut upload = self.blobs.upload().await?;
            for chunk in content.chunks(100_000) {
                upload.write(chunk).await?;
            }
            assert_eq!(upload.size(), content.len() as u64);
            upload.finish().await
        })
    }

    fn upload(&self, content: &[u8]) -> Staged {
        self.try_upload(content).expect("uploaded")
    }

    fn staging_files(&self) -> usize {
        fs::read_dir(self.dir.path().join("staging")).expect("a folder").count()
    }
}

fn content(seed: u8, size: usize) -> Vec<u8> {
    (0..size).map(|i| (i as u8).wrapping_mul(31).wrapping_add(seed)).collect()
}

#[test]
fn an_upload_is_durable_under_its_hash_before_anyone_hears_of_it() {
    let world = World::new();
    let bytes = content(1, 3_500_000);
    let staged = world.upload(&bytes);
    let hash = BlobHash::of(&bytes);
    assert_eq!((staged.hash, staged.size), (hash, 3_500_000));
    let hex = blake3::Hash::from_bytes(hash.0).to_hex().to_string();
    let writes = ["write "; 4].map(str::to_owned);
    let expected: Vec<String> = ["create 0".to_owned()]
        .into_iter()
        .chain(writes)
        .chain(["sync ".to_owned(), format!("rename {hex}"), format!("sync_dir {}", &hex[..2])])
        .collect();
    assert_eq!(world.watched.take_events(), expected);
    staged.keep();
    assert!(world.blobs.exists(&hash));
    let opened = world.runtime.block_on(world.blobs.open_blob(&hash)).expect("readable");
    let (mut file, size) = opened.expect("here");
    let mut read = Vec::new();
    io::Read::read_to_end(&mut file, &mut read).expect("readable");
    assert_eq!((size, read), (3_500_000, bytes));
    let absent = world.runtime.block_on(world.blobs.open_blob(&BlobHash::of(b"absent"))).expect("readable");
    assert!(absent.is_none());
}

#[test]
fn an_upload_given_up_leaves_nothing() {
    let world = World::new();
    let upload = world.runtime.block_on(async {
        let mut upload = world.blobs.upload().await.expect("begun");
        upload.write(&content(1, 2_000_000)).await.expect("written");
        upload
    });
    assert_eq!(world.staging_files(), 1);
    drop(upload);
    assert_eq!(world.staging_files(), 0);
}

#[test]
fn what_a_killed_process_left_is_gone_after_the_start() {
    let world = World::new();
    let kept = content(1, 300_000);
    world.upload(&kept).keep();
    world.upload(&content(2, 300_000)).keep();
    fs::write(world.dir.path().join("staging/7"), b"half").expect("written");
    let blobs = Blobs::open(world.dir.path()).expect("opened again");
    assert_eq!(world.staging_files(), 0);
    assert_eq!(blobs.sweep(|hash| *hash == BlobHash::of(&kept)).expect("swept"), 1);
    assert!(blobs.exists(&BlobHash::of(&kept)));
    assert!(!blobs.exists(&BlobHash::of(&content(2, 300_000))));
    assert_eq!(blobs.sweep(|_| true).expect("swept"), 0);
}

#[test]
fn a_failure_anywhere_leaves_nothing() {
    for step in ["create", "write", "sync", "rename", "sync_dir"] {
        let world = World::new();
        let bytes = content(1, 1_500_000);
        world.watched.fail_next(step);
        assert!(world.try_upload(&bytes).is_err(), "{step}");
        drop(world.runtime); // waits for what still runs
        assert!(!world.blobs.exists(&BlobHash::of(&bytes)), "{step}");
        let left = fs::read_dir(world.dir.path().join("staging")).expect("a folder").count();
        assert_eq!(left, 0, "{step}");
    }
}

#[test]
fn a_value_of_which_pages_may_be_lost_gets_no_name() {
    let world = World::new();
    let value = content(1, 40_000);
    let mut partial = world.blobs.partial(BlobHash::of(&value), 40_000);
    partial.write(0, &value[..16_384]).expect("written");
    world.watched.fail_next("sync");
    assert!(partial.checkpoint().is_err() && partial.is_broken());
    assert!(partial.write(16_384, &value[16_384..]).is_err(), "the next sync would not say what the first one lost");
    assert!(partial.finish().is_err());
    let left = fs::read_dir(world.dir.path().join("partial")).expect("listed").count();
    assert_eq!((left, world.blobs.exists(&BlobHash::of(&value))), (0, false));
}

#[test]
fn a_rotten_file_goes_out_of_the_way_but_not_the_one_that_came_for_it() {
    let world = World::new();
    let hash = BlobHash::of(&content(1, 300_000));
    world.upload(&content(1, 300_000)).keep();
    let path = file_of(world.dir.path(), &hash);
    let rotten = fs::metadata(&path).expect("there");
    assert!(world.blobs.set_aside(&hash, &rotten).expect("renamed") && !world.blobs.exists(&hash));
    assert!(!world.blobs.set_aside(&hash, &rotten).expect("nothing to do"));
    world.upload(&content(1, 300_000)).keep();
    assert!(!world.blobs.set_aside(&hash, &rotten).expect("left alone") && world.blobs.exists(&hash));
    assert_eq!(list(world.dir.path()).expect("listed"), [hash]);
}

#[test]
fn a_full_disk_is_told_apart() {
    let world = World::new();
    let error = world.runtime.block_on(async {
        let mut upload = world.blobs.upload().await.expect("begun");
        world.watched.full.store(true, Ordering::SeqCst);
        upload.write(&content(1, 2_000_000)).await.expect_err("full")
    });
    assert!(crate::disk::is_full(&error), "{error}");
    let error = world.runtime.block_on(world.blobs.upload()).err().expect("full");
    assert!(crate::disk::is_full(&error), "{error}");
    world.watched.full.store(false, Ordering::SeqCst);
    world.upload(b"there is room again").keep();
}

#[test]
fn the_last_lease_nobody_kept_takes_the_file_with_it() {
    let world = World::new();
    let first = world.upload(b"value");
    let second = world.upload(b"value");
    let hash = first.hash;
    assert_eq!(world.staging_files(), 0, "the second is the same file");
    drop(first);
    assert!(world.blobs.exists(&hash));
    drop(second);
    assert!(!world.blobs.exists(&hash));
}

#[test]
fn a_damaged_file_is_made_good_by_the_next_upload_of_its_value() {
    let world = World::new();
    let bytes = content(1, 300_000);
    world.upload(&bytes).keep();
    let hash = BlobHash::of(&bytes);
    let path = world.blobs.shared.path(&hash);
    fs::write(&path, b"rotten").expect("written");
    let read = |mut file: fs::File| {
        let mut read = Vec::new();
        io::Read::read_to_end(&mut file, &mut read).expect("readable");
        read
    };
    let before = fs::File::open(&path).expect("there");
    let staged = world.upload(&bytes);
    assert!(read(fs::File::open(&path).expect("there")) == bytes);
    assert_eq!(read(before), b"rotten", "a file that is open stays what it is");
    assert_eq!(world.staging_files(), 0);
    drop(staged);
    assert!(world.blobs.exists(&hash), "it was here before, so it stays");
}

#[test]
fn one_keep_is_enough_in_either_order() {
    for keep_first in [true, false] {
        let world = World::new();
        let (first, second) = (world.upload(b"value"), world.upload(b"value"));
        let hash = first.hash;
        let (kept, dropped) = if keep_first { (first, second) } else { (second, first) };
        if keep_first {
            kept.keep();
            drop(dropped);
        } else {
            drop(dropped);
            kept.keep();
        }
        assert!(world.blobs.exists(&hash));
        // Uploaded once more and given up: it was here before, so it stays.
        drop(world.upload(b"value"));
        assert!(world.blobs.exists(&hash));
    }
}

#[test]
fn a_lease_outlasts_removal_and_its_keep_undoes_it() {
    let world = World::new();
    world.upload(b"value").keep();
    let hash = BlobHash::of(b"value");
    assert!(world.blobs.hold(&BlobHash::of(b"absent")).is_none());

    let lease = world.blobs.hold(&hash).expect("here");
    assert!(!world.blobs.remove(&hash, || true).expect("asked"), "not now");
    lease.keep();
    assert!(world.blobs.exists(&hash), "an entry came meanwhile");

    let lease = world.blobs.hold(&hash).expect("here");
    assert!(!world.blobs.remove(&hash, || true).expect("asked"));
    drop(lease);
    assert!(!world.blobs.exists(&hash), "removed with the last lease");

    world.upload(b"value").keep();
    assert!(!world.blobs.remove(&hash, || false).expect("asked"), "still referenced");
    assert!(world.blobs.remove(&hash, || true).expect("asked"));
    assert!(!world.blobs.remove(&hash, || true).expect("asked twice"));
}

#[test]
fn a_lease_dropped_inside_the_runtime_gives_the_file_up_too() {
    let world = World::new();
    let staged = world.upload(b"value");
    let hash = staged.hash;
    world.runtime.block_on(async move { drop(staged) });
    drop(world.runtime); // waits for the blocking thread
    assert!(!world.blobs.exists(&hash));
}

#[test]
fn whether_a_file_is_needed_is_asked_while_nobody_can_add_it() {
    let world = World::new();
    let hash = BlobHash::of(b"value");
    let mut asked = false;
    let removed = world.blobs.remove(&hash, || {
        asked = true;
        assert!(world.blobs.shared.leases[usize::from(hash.0[0])].try_lock().is_err(), "uploads are held off");
        true
    });
    assert!(asked && !removed.expect("asked"));
}

#[test]
fn an_upload_sees_a_removal_that_came_before_it() {
    let world = World::new();
    world.upload(b"value").keep();
    let hash = BlobHash::of(b"value");
    world.watched.take_events();
    let removing = world.blobs.shared.lock(&hash);
    std::thread::scope(|scope| {
        let uploading = scope.spawn(|| world.upload(b"value"));
        while !world.watched.events.lock().expect("no panic").contains(&"sync ".to_owned()) {
            std::thread::yield_now();
        }
        // What would look before it has the right to is given the time to.
        (0..10_000).for_each(|_| std::thread::yield_now());
        fs::remove_file(world.blobs.shared.path(&hash)).expect("it was here");
        drop(removing);
        let staged = uploading.join().expect("no panic");
        assert!(world.blobs.exists(&hash));
        staged.keep();
    });
}

/// Uploads and removals of one value at once: after every upload that was kept, the file is there, whole, until an
/// unreferenced removal; "referenced" is what an index would say.
#[test]
fn making_and_removing_one_file_exclude_each_other() {
    let world = World::new();
    let hash = BlobHash::of(b"value");
    let references = Mutex::new(0_u32);
    let barrier = Barrier::new(3);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                barrier.wait();
                for _ in 0..200 {
                    let staged = world.upload(b"value");
                    assert!(world.blobs.exists(&hash), "while the lease is held");
                    *references.lock().expect("no panic") += 1;
                    staged.keep();
                    assert!(world.blobs.exists(&hash), "while it is referenced");
                    *references.lock().expect("no panic") -= 1;
                }
            });
        }
        scope.spawn(|| {
            barrier.wait();
            for _ in 0..2000 {
                world.blobs.remove(&hash, || *references.lock().expect("no panic") == 0).expect("asked");
            }
        });
    });
    world.blobs.remove(&hash, || true).expect("asked");
    assert!(!world.blobs.exists(&hash));
    assert!(world.blobs.shared.lock(&hash).is_empty(), "no lease is left");
    assert_eq!(world.staging_files(), 0);
}
