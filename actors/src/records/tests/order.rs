//! Who sees what in which order: readers between tail and store, writers that fill out of turn.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Duration,
};

use super::*;

#[test]
fn what_moves_to_the_store_while_somebody_reads_is_not_missed() {
    let watched = Watched::new();
    let records = Records::over(Arc::clone(&watched) as Arc<dyn Store>).expect("started");
    commit(&records, "1", vec![put("key", "old")]);
    records.settle().expect("settled");
    let readers: [&dyn Fn() -> Option<Vec<u8>>; 2] = [&|| records.get(b"key").expect("readable"), &|| {
        records.scan(b"k", b"").next().map(|record| record.expect("readable").1)
    }];
    for (i, read) in readers.into_iter().enumerate() {
        let value = format!("new {i}");
        commit(&records, "2", vec![put("key", &value)]);
        let mover = records.clone();
        *watched.after_read.lock().expect("no panic") = Some(Box::new(move || mover.settle().expect("settled")));
        assert_eq!(read(), Some(value.into_bytes()), "reader {i}");
        watched.after_read.lock().expect("no panic").take();
        records.settle().expect("settled");
    }
}

#[test]
fn a_record_is_in_the_tail_until_the_store_has_it() {
    let watched = Watched::new();
    let records = Records::over(Arc::clone(&watched) as Arc<dyn Store>).expect("started");
    let (reader, seen) = (records.clone(), Arc::new(AtomicU64::new(0)));
    let count = Arc::clone(&seen);
    *watched.before_apply.lock().expect("no panic") = Some(Box::new(move |batch| {
        for (key, value) in batch.iter().filter(|(key, _)| *key != MARK) {
            assert_eq!(reader.get(key).as_ref(), Ok(value));
            count.fetch_add(1, Ordering::SeqCst);
        }
    }));
    commit(&records, "1", vec![many("a", 50), many("b", 50)]);
    commit(&records, "2", vec![put("key", "value")]);
    records.settle().expect("settled");
    watched.before_apply.lock().expect("no panic").take();
    assert_eq!(seen.load(Ordering::SeqCst), 101);
}

#[test]
fn a_later_commit_that_was_filled_first_stays_in_front() {
    let records = Records::over(Arc::new(MemoryStore::new())).expect("started");
    let rooms = [records.room_blocking(1), records.room_blocking(1)].map(|room| room.expect("room"));
    let [first, second] = [records.begin(b"1".to_vec()), records.begin(b"2".to_vec())];
    let [room1, room2] = rooms;
    second.fill(room2, vec![put("key", "second")]).expect("filled");
    assert_eq!(records.get(b"key"), Ok(Some(b"second".to_vec())), "shown before it may be applied");
    records.settle().expect("nothing to wait for");
    first.fill(room1, vec![put("key", "first")]).expect("filled");
    assert_eq!(records.get(b"key"), Ok(Some(b"second".to_vec())));
    records.settle().expect("settled");
    assert_eq!(records.get(b"key"), Ok(Some(b"second".to_vec())));
}

#[test]
fn the_batches_of_one_commit_are_shown_in_their_order() {
    let watched = Watched::new();
    let records = Records::over(Arc::clone(&watched) as Arc<dyn Store>).expect("started");
    let reader = records.clone();
    *watched.before_apply.lock().expect("no panic") = Some(Box::new(move |_| {
        assert_eq!(reader.get(b"key"), Ok(Some(b"third".to_vec())), "an earlier batch never shows");
    }));
    commit(&records, "1", vec![put("key", "first"), put("other", "x"), put("key", "third")]);
    records.settle().expect("settled");
    watched.before_apply.lock().expect("no panic").take();
    assert_eq!(records.get(b"key"), Ok(Some(b"third".to_vec())));
    let applied = watched.applied.lock().expect("no panic");
    assert_eq!(applied.iter().map(|batch| batch.contains_key(MARK)).collect::<Vec<_>>(), [false, false, true]);
}

#[test]
fn small_commits_share_batches_of_the_right_size() {
    let watched = Watched::new();
    let records = Records::over(Arc::clone(&watched) as Arc<dyn Store>).expect("started");
    let slots: Vec<_> = (0..300_usize).map(|i| (i, records.begin(i.to_string().into()))).collect();
    for (i, slot) in slots.into_iter().rev() {
        let room = records.room_blocking(3).expect("room");
        slot.fill(room, vec![many(&format!("{i:03} "), 3)]).expect("filled");
    }
    records.settle().expect("settled");
    let applied = watched.applied.lock().expect("no panic");
    let sizes: Vec<_> = applied.iter().map(Batch::len).collect();
    let (last, before) = sizes.split_last().expect("some");
    assert!(before.iter().all(|size| (queue::WORTH_RECORDS..=queue::BATCH_RECORDS_MAX).contains(size)), "{sizes:?}");
    assert!(*last <= queue::BATCH_RECORDS_MAX);
}

#[test]
fn a_single_record_waits_about_a_second_and_no_longer() {
    let watched = Watched::new();
    let records = Records::over(Arc::clone(&watched) as Arc<dyn Store>).expect("started");
    commit(&records, "1", vec![put("key", "value")]);
    thread::sleep(Duration::from_millis(300));
    assert_eq!(watched.inner.get(b"key"), Ok(None), "it waits for more");
    thread::sleep(Duration::from_millis(1200));
    assert_eq!(watched.inner.get(b"key"), Ok(Some(b"value".to_vec())));
}

#[test]
fn readers_beside_writers_never_go_back_in_time() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let records = Records::open(dir.path(), &RecordsOptions::default()).expect("opened").records;
    let done = Arc::new(AtomicU64::new(0));
    let reader = |scan: bool| {
        let (records, done) = (records.clone(), Arc::clone(&done));
        thread::spawn(move || {
            while done.load(Ordering::SeqCst) < 2000 {
                let acknowledged = done.load(Ordering::SeqCst);
                let found = match scan {
                    true => records.scan(b"count", b"").next().map(|record| record.expect("readable").1),
                    false => records.get(b"counter").expect("readable"),
                };
                let found = found.map_or(0, |value| u64::from_be_bytes(value.try_into().expect("a number")));
                assert!(found >= acknowledged, "{found} after {acknowledged}");
            }
        })
    };
    let readers = [reader(false), reader(true)];
    for i in 1..=2000_u64 {
        let mut batch = many(&format!("{i} "), 2);
        batch.insert(b"counter".to_vec(), Some(i.to_be_bytes().to_vec()));
        commit(&records, &i.to_string(), vec![batch]);
        done.store(i, Ordering::SeqCst);
    }
    for reader in readers {
        reader.join().expect("no panic");
    }
}
