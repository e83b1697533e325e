//! The bounds of the tail, and what ends the way from log to store.

use std::{
    sync::{
        atomic::Ordering,
        mpsc::{SyncSender, sync_channel},
    },
    thread,
    time::Duration,
};

use super::{trust::TestDisk, *};

const SHORT: Duration = Duration::from_millis(60);

/// Records whose store applies a batch only when told.
fn gated() -> (Arc<Watched>, Records, SyncSender<()>) {
    let watched = Watched::new();
    let records = Records::over(Arc::clone(&watched) as Arc<dyn Store>).expect("started");
    let (open, opened) = sync_channel::<()>(1000);
    *watched.before_apply.lock().expect("no panic") = Some(Box::new(move |_| {
        opened.recv().expect("told");
    }));
    (watched, records, open)
}

/// Asks for room on a thread of its own.
fn ask(records: &Records, places: u32) -> thread::JoinHandle<Result<Room, StoreError>> {
    let records = records.clone();
    let asked = thread::spawn(move || records.room_blocking(places));
    thread::sleep(SHORT);
    asked
}

#[test]
fn a_full_tail_has_commits_wait_until_some_are_applied() {
    let (_, records, open) = gated();
    for i in 0..TAIL_RECORDS_MAX / 128 {
        commit(&records, "1", vec![many(&format!("{i} "), 128)]);
    }
    let (one, large) = (ask(&records, 1), ask(&records, 1_000_000));
    assert!(!one.is_finished(), "4,096 records are the bound");
    open.send(()).expect("received");
    let room = one.join().expect("no panic").expect("a batch has made room");
    for _ in 0..TAIL_RECORDS_MAX / 128 {
        open.send(()).expect("received");
    }
    records.settle().expect("settled");
    thread::sleep(SHORT);
    assert!(!large.is_finished(), "more than the whole is the whole");
    drop(room);
    let whole = large.join().expect("no panic").expect("all places");
    let next = ask(&records, 1);
    assert!(!next.is_finished());
    drop(whole);
    next.join().expect("no panic").expect("given back unused");
}

#[test]
fn large_records_take_more_places_than_they_asked_for() {
    let (_, records, open) = gated();
    let room = records.room_blocking(2).expect("room");
    let beside = records.room_blocking(100).expect("room");
    let bytes = TAIL_RECORDS_MAX as usize * PLACE_BYTES;
    let large = Batch::from([(b"a".to_vec(), Some(vec![1; bytes / 2])), (b"b".to_vec(), Some(vec![2; bytes / 2]))]);
    records.begin(b"1".to_vec()).fill(room, vec![large]).expect("filled without waiting");
    let asked = ask(&records, 1);
    assert!(!asked.is_finished(), "8 MiB are the bound");
    drop(beside);
    thread::sleep(SHORT);
    assert!(!asked.is_finished(), "what was on its way makes good what was taken too much");
    open.send(()).expect("received");
    asked.join().expect("no panic").expect("room");
    drop(records.room_blocking(TAIL_RECORDS_MAX).expect("every place has come back"));
}

#[test]
fn a_broken_store_ends_the_index_and_the_next_start_begins_anew() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let options = RecordsOptions::default();
    Records::open(dir.path(), &options).expect("opened").records.close().expect("closed");
    let watched = Watched::new();
    let state = Trust::new(dir.path(), Arc::clone(&options.disk), options.boot_id.clone());
    state.open().expect("written");
    let shared = Shared::new(Arc::clone(&watched) as Arc<dyn Store>, Some(state), None);
    let records = Records::start(shared).expect("started");
    commit(&records, "1", vec![put("a", "1")]);
    records.settle().expect("settled");
    assert_eq!(records.failure(), None);

    let held = records.room_blocking(1).expect("room");
    let all_but_one = records.room_blocking(TAIL_RECORDS_MAX - 1).expect("room");
    let waiting = ask(&records, 5);
    watched.batches_max.store(1, Ordering::SeqCst);
    records.begin(b"2".to_vec()).fill(held, vec![put("b", "2")]).expect("filled");
    let error = records.settle().expect_err("the store is broken");
    assert_eq!(records.failure(), Some(error.clone()));
    assert_eq!(waiting.join().expect("no panic").expect_err("told"), error);
    assert_eq!(records.room_blocking(1).expect_err("told"), error);
    let late = records.begin(b"3".to_vec());
    assert_eq!(late.fill(all_but_one, vec![put("c", "3")]), Err(error.clone()));
    assert_eq!(all(&records).len(), 3, "reads go on, and miss nothing that is durable in the log");
    assert_eq!(records.close(), Err(error));
    assert_eq!(Records::open(dir.path(), &options).expect("opened").fresh, Some(Reason::Distrusted));
}

#[test]
fn a_store_that_panics_ends_the_index_and_nothing_else() {
    let watched = Watched::new();
    let records = Records::over(Arc::clone(&watched) as Arc<dyn Store>).expect("started");
    *watched.before_apply.lock().expect("no panic") = Some(Box::new(|_| panic!("what now")));
    commit(&records, "1", vec![put("a", "1")]);
    records.settle().expect_err("the thread is gone");
    assert!(records.failure().is_some());
    assert_eq!(records.get(b"a"), Ok(Some(b"1".to_vec())));
}

#[test]
fn an_error_that_a_reader_meets_ends_the_index() {
    struct Corrupt;
    impl Store for Corrupt {
        fn get(&self, _: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
            Err(StoreError::new("damaged"))
        }
        fn page(&self, _: &[u8], _: &[u8], _: usize) -> Result<Vec<Pair>, StoreError> {
            Err(StoreError::new("damaged"))
        }
        fn apply(&self, _: &Batch) -> Result<(), StoreError> {
            Ok(())
        }
        fn close(&self) -> Result<(), StoreError> {
            Ok(())
        }
    }
    for read in [|records: &Records| drop(records.get(b"a")), |records: &Records| drop(records.scan(b"", b"").next())] {
        let records = Records::over(Arc::new(Corrupt)).expect("started");
        read(&records);
        assert_eq!(records.failure(), Some(StoreError::new("damaged")));
        assert!(records.room_blocking(1).is_err());
        assert!(records.close().is_err());
    }
}

#[test]
fn records_that_never_come_end_the_index() {
    let records = Records::over(Arc::new(MemoryStore::new())).expect("started");
    commit(&records, "1", vec![put("a", "1")]);
    let (lost, room) = (records.begin(b"2".to_vec()), records.room_blocking(1).expect("room"));
    let later = records.begin(b"3".to_vec());
    drop(lost);
    assert!(records.failure().is_some());
    later.fill(room, vec![put("b", "2")]).expect_err("nothing is applied any more");
    assert_eq!(all(&records).len(), 2);
}

#[test]
fn a_close_does_not_wait_for_what_was_never_filled() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let records = Records::open(dir.path(), &RecordsOptions::default()).expect("opened").records;
    commit(&records, "1", vec![put("a", "1")]);
    let (open, behind) = (records.begin(b"2".to_vec()), records.begin(b"3".to_vec()));
    let rooms = [records.room_blocking(1), records.room_blocking(1)].map(|room| room.expect("room"));
    let [room2, room3] = rooms;
    behind.fill(room3, vec![put("c", "3")]).expect("filled");
    records.close().expect("closed");
    assert_eq!(open.fill(room2, vec![put("b", "2")]), Err(StoreError::closed()));
    assert_eq!(records.room_blocking(1).expect_err("told"), StoreError::closed());
    assert_eq!(records.get(b"x"), Err(StoreError::closed()));
    assert_eq!(records.failure(), None);
    drop(records);
    let opened = Records::open(dir.path(), &RecordsOptions::default()).expect("opened");
    assert_eq!((opened.fresh, opened.covered), (None, Some(b"1".to_vec())), "the log has the rest");
    assert_eq!(all(&opened.records).len(), 1);
}

#[test]
fn a_nearly_full_disk_has_the_index_wait_and_go_on() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let disk = Arc::new(TestDisk::default());
    let options = RecordsOptions { disk: Arc::clone(&disk) as Arc<dyn Disk>, ..RecordsOptions::default() };
    let records = Records::open(dir.path(), &options).expect("opened").records;
    disk.free.store(FREE_BYTES_MIN - 1, Ordering::SeqCst);
    commit(&records, "1", vec![many("a", 150)]);
    thread::sleep(SHORT);
    assert_eq!(records.shared().store.get(MARK), Ok(None));
    assert_eq!(all(&records).len(), 150, "readers do not notice");
    disk.free.store(FREE_BYTES_MIN, Ordering::SeqCst);
    records.settle().expect("settled");
    disk.free.store(0, Ordering::SeqCst);
    commit(&records, "2", vec![many("b", 150)]);
    records.close().expect("closed, without what there was no room for");
    drop(records);
    let opened = Records::open(dir.path(), &options).expect("opened");
    assert_eq!((opened.fresh, opened.covered), (None, Some(b"1".to_vec())));
}
