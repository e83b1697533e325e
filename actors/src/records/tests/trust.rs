//! When the files of an index are believed.

use std::{
    fs, io,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use super::*;
use crate::disk::DiskFile;

/// The real disk; it writes down what is synced and named, and tells what room a test wants.
#[derive(Debug)]
pub(super) struct TestDisk {
    pub(super) free: AtomicU64,
    /// Whether names can be changed.
    broken: AtomicBool,
    events: Arc<Mutex<Vec<String>>>,
}

struct TestFile(Arc<dyn DiskFile>, String, Arc<Mutex<Vec<String>>>);

impl Default for TestDisk {
    fn default() -> Self {
        Self { free: AtomicU64::new(1 << 40), broken: AtomicBool::new(false), events: Arc::default() }
    }
}

impl TestDisk {
    fn note(&self, what: &str, path: &Path) {
        let event = format!("{what} {}", name(path));
        self.events.lock().expect("no panic").push(event);
    }

    fn file(&self, path: &Path, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(TestFile(file, name(path), Arc::clone(&self.events)))
    }
}

fn name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

impl Disk for TestDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.file(path, OsDisk.create(path)?))
    }
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.file(path, OsDisk.open(path)?))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.note("rename", to);
        if self.broken.load(Ordering::SeqCst) {
            return Err(io::Error::other("the disk is broken"));
        }
        OsDisk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        OsDisk.remove(path)
    }
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        OsDisk.create_dir(path)
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.note("sync_dir", path);
        OsDisk.sync_dir(path)
    }
    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        OsDisk.list(path)
    }
    fn free_bytes(&self, _: &Path) -> io::Result<u64> {
        Ok(self.free.load(Ordering::SeqCst))
    }
}

impl DiskFile for TestFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buffer, offset)
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_at(bytes, offset)
    }
    fn sync(&self) -> io::Result<()> {
        self.2.lock().expect("no panic").push(format!("sync {}", self.1));
        self.0.sync()
    }
    fn size_bytes(&self) -> io::Result<u64> {
        self.0.size_bytes()
    }
}

fn options(boot: Option<&str>) -> RecordsOptions {
    RecordsOptions { boot_id: boot.map(Into::into), ..RecordsOptions::default() }
}

fn state(dir: &Path) -> String {
    fs::read_to_string(dir.join("state")).expect("readable")
}

/// Leaves an index of one commit: closed, or as a killed process does.
fn leave(dir: &Path, boot: Option<&str>, closed: bool) {
    let records = Records::open(dir, &options(boot)).expect("opened").records;
    commit(&records, "mark", vec![put("key", "value")]);
    records.settle().expect("settled");
    if closed {
        records.close().expect("closed");
    }
}

#[test]
fn an_index_is_believed_after_a_close_or_in_the_same_boot() {
    let cases = [
        (true, Some("b1"), Some("b1"), None),
        (true, Some("b1"), Some("b2"), None),
        (true, None, None, None),
        (false, Some("b1"), Some("b1"), None),
        (false, Some("b1"), Some("b2"), Some(Reason::OtherBoot)),
        (false, Some("b1"), None, Some(Reason::OtherBoot)),
        (false, None, None, Some(Reason::OtherBoot)),
        (false, None, Some("b1"), Some(Reason::OtherBoot)),
    ];
    for case in cases {
        let (closed, before, after, expected) = case.clone();
        let dir = tempfile::tempdir().expect("a temporary folder");
        leave(dir.path(), before, closed);
        let opened = Records::open(dir.path(), &options(after)).expect("opened");
        let found = opened.records.get(b"key").expect("readable");
        assert_eq!(opened.fresh, expected, "{case:?}");
        assert_eq!(opened.covered.is_some(), expected.is_none(), "{case:?}");
        assert_eq!(found.is_some(), expected.is_none(), "{case:?}");
        assert!(!dir.path().join("db.aside").exists(), "the new one may need the room: {case:?}");
    }
}

#[test]
fn what_a_crash_left_of_an_old_index_is_gone_before_the_log_is_replayed() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    leave(dir.path(), Some("b1"), false);
    let (db, aside) = (dir.path().join("db"), dir.path().join("db.aside"));
    fs::rename(&db, &aside).expect("put aside");
    fs::write(dir.path().join("state"), "kvspace index 2 distrusted\n").expect("written");
    let opened = Records::open(dir.path(), &options(Some("b1"))).expect("opened");
    assert_eq!(opened.fresh, Some(Reason::Distrusted));
    assert!(!aside.exists());
    // A power cut may bring back what was removed.
    fs::create_dir(&aside).expect("made");
    opened.records.rebuilt().expect("removed");
    assert!(!aside.exists());
}

#[test]
fn a_state_file_that_is_not_ours_is_not_believed() {
    let cases: [(&[u8], Reason); 8] = [
        (b"", Reason::Unknown),
        (b"kvspace index 2 closed", Reason::Unknown),
        (b"kvspace index 2 ajar\n", Reason::Unknown),
        (b"kvspace index 2 distrusted\n", Reason::Distrusted),
        (b"kvspace index 1 closed 00\n", Reason::OtherFormat(1)),
        (b"kvspace index 3 something else\n", Reason::OtherFormat(3)),
        (&[0xff; 40], Reason::Unknown),
        (&[b'x'; 5000], Reason::Unknown),
    ];
    for (text, expected) in cases {
        let dir = tempfile::tempdir().expect("a temporary folder");
        leave(dir.path(), Some("b1"), true);
        fs::write(dir.path().join("state"), text).expect("written");
        let opened = Records::open(dir.path(), &options(Some("b1"))).expect("opened");
        assert_eq!(opened.fresh, Some(expected));
        assert_eq!(all(&opened.records), Model::new());
    }
    let dir = tempfile::tempdir().expect("a temporary folder");
    assert_eq!(Records::open(dir.path(), &options(None)).expect("opened").fresh, Some(Reason::Nothing));
    fs::remove_file(dir.path().join("state")).expect("removed");
    assert_eq!(Records::open(dir.path(), &options(None)).expect("opened").fresh, Some(Reason::Unknown));
}

#[test]
fn closed_with_other_records_than_it_has_is_not_believed() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    leave(dir.path(), Some("b1"), true);
    let line = state(dir.path());
    let records = Records::open(dir.path(), &options(Some("b1"))).expect("opened").records;
    commit(&records, "later", vec![put("key", "other")]);
    records.close().expect("closed");
    drop(records);
    fs::write(dir.path().join("state"), line).expect("written");
    let fresh = Records::open(dir.path(), &options(Some("b1"))).expect("opened").fresh;
    assert!(matches!(fresh, Some(Reason::Damaged(_))), "{fresh:?}");
}

#[test]
fn an_index_that_was_closed_and_opened_again_is_open() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    leave(dir.path(), Some("b1"), true);
    assert!(state(dir.path()).starts_with("kvspace index 2 closed "));
    drop(Records::open(dir.path(), &options(Some("b2"))).expect("opened"));
    assert_eq!(state(dir.path()), "kvspace index 2 open b2\n");
    assert_eq!(Records::open(dir.path(), &options(Some("b3"))).expect("opened").fresh, Some(Reason::OtherBoot));
}

#[test]
fn a_state_that_cannot_be_written_leaves_the_store_alone() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    leave(dir.path(), Some("b1"), true);
    let files = || {
        let db = dir.path().join("db");
        let names = OsDisk.list(&db).expect("readable").into_iter().filter(|name| name != "blobs");
        names
            .map(|name| fs::metadata(db.join(name)).and_then(|file| file.modified()).expect("there"))
            .collect::<Vec<_>>()
    };
    let before = files();
    let disk = Arc::new(TestDisk::default());
    disk.broken.store(true, Ordering::SeqCst);
    let options = RecordsOptions { disk, ..options(Some("b1")) };
    Records::open(dir.path(), &options).expect_err("not even a new index can be begun");
    assert_eq!(files(), before, "opening a store writes to it: it must not happen while the state says closed");
    assert!(state(dir.path()).starts_with("kvspace index 2 closed "));
}

#[test]
fn distrust_outlives_a_close() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let records = Records::open(dir.path(), &options(Some("b1"))).expect("opened").records;
    records.distrust();
    assert_eq!(state(dir.path()), "kvspace index 2 distrusted\n");
    commit(&records, "mark", vec![put("key", "value")]);
    records.close().expect("closed");
    assert_eq!(state(dir.path()), "kvspace index 2 distrusted\n");
    let opened = Records::open(dir.path(), &options(Some("b1"))).expect("opened");
    assert_eq!(opened.fresh, Some(Reason::Distrusted));
    assert_eq!(state(dir.path()), "kvspace index 2 open b1\n", "the new one is believed");
}

#[test]
fn everything_is_synced_before_the_state_says_closed() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let index = dir.path().join("index");
    fs::create_dir(&index).expect("created");
    let disk = Arc::new(TestDisk::default());
    let options = RecordsOptions { disk: Arc::clone(&disk) as Arc<dyn Disk>, ..options(Some("b1")) };
    let records = Records::open(&index, &options).expect("opened").records;
    let opening = std::mem::take(&mut *disk.events.lock().expect("no panic"));
    assert_eq!(opening, ["sync state.new", "rename state", "sync_dir index"]);
    assert_eq!(state(&index), "kvspace index 2 open b1\n");
    let large = Batch::from([(b"large".to_vec(), Some(vec![7; 1 << 20]))]);
    commit(&records, "mark", vec![large]);
    records.close().expect("closed");
    let events = disk.events.lock().expect("no panic").clone();
    let (synced, last) = events.split_at(events.len() - 3);
    assert_eq!(last, ["sync state.new", "rename state", "sync_dir index"]);
    let files = |folder: &Path| OsDisk.list(folder).expect("readable").into_iter().map(|name| format!("sync {name}"));
    let db = index.join("db");
    let mut expected: Vec<_> = files(&db).filter(|event| event != "sync blobs").collect();
    expected.extend(files(&db.join("blobs")));
    assert!(expected.iter().any(|event| event.starts_with("sync snap.")), "{expected:?}");
    assert!(expected.len() > 3, "a blob as well: {expected:?}");
    expected.extend(["sync_dir blobs", "sync_dir db", "sync_dir index"].map(String::from));
    for event in expected {
        assert!(synced.contains(&event), "{event} in {events:?}");
    }
}

#[test]
fn a_closed_index_opens_again_at_once_however_many_threads_used_it() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    for round in 0..8_u32 {
        let opened = Records::open(dir.path(), &options(Some("b1"))).expect("opened");
        assert_eq!(opened.fresh.is_some(), round == 0, "{:?}", opened.fresh);
        let records = opened.records;
        let (stop, stopped) = std::sync::mpsc::sync_channel::<()>(0);
        let reader = records.clone();
        let lingering = thread::spawn(move || {
            let count = reader.scan(b"", b"").count();
            drop(reader);
            stopped.recv().ok();
            count
        });
        for i in 0..10 {
            commit(&records, &format!("{round} {i}"), vec![many(&format!("{i} "), 150)]);
        }
        records.close().expect("closed");
        if round % 2 == 0 {
            drop(stop);
            lingering.join().expect("no panic");
        } else {
            std::mem::forget(stop); // the thread outlives the round
        }
    }
}
