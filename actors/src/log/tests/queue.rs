//! The queue and the rounds: order, bounds, one sync for many, and the end.

use super::*;

fn is_spare(event: &Event) -> bool {
    matches!(event, Event::Write(name) | Event::Sync(name) if name.ends_with(".zeros")) || *event == Event::SyncDir
}

#[test]
fn many_small_segments_keep_the_order() {
    let disk = FakeDisk::default();
    let (log, _) = open(&disk);
    let answers: Vec<_> = (1..=300).map(|n| (n, append(&log, sized(n, (n as usize * 37) % 5000)))).collect();
    let mut last = None;
    for (n, answer) in answers {
        let appended = answer.recv().expect("an answer").expect("committed");
        assert!(last < Some(appended.blobs[0]) && appended.blobs[0] < appended.epochs[0]);
        assert_eq!(appended.blobs[0].segment, appended.epochs[0].segment, "a commit lies in one segment");
        last = Some(appended.epochs[0]);
        let bytes = log.read_blob(appended.blobs[0]).expect("readable");
        assert_eq!(bytes, sized(n, (n as usize * 37) % 5000).blobs[0].1);
    }
    log.close();
    assert!(last.is_some_and(|last| last.segment > 40), "{last:?}");
    let (log, found) = open(&disk);
    assert_eq!(found, (1..=300).collect::<Vec<_>>());
    log.close();
}

#[test]
fn one_sync_serves_everything_that_waited() {
    let disk = FakeDisk::default();
    let (log, _) = try_open(LogOptions { segment_bytes: 1024 * 1024, ..options(&disk) }).expect("a new log");
    let held = hold_writer(&log, 1);
    let answers: Vec<_> = (2..=500).map(|n| append(&log, commit(n))).collect();
    disk.take_events();
    drop(held);
    for answer in answers {
        answer.recv().expect("an answer").expect("committed");
    }
    let of_segments: Vec<_> = disk.take_events().into_iter().filter(|event| !is_spare(event)).collect();
    assert_eq!(of_segments, [Event::Write("00000001.seg".into()), Event::Sync("00000001.seg".into())]);
    log.close();
}

#[test]
fn nothing_is_answered_before_its_sync() {
    let disk = FakeDisk::default();
    let (log, _) = try_open(LogOptions { segment_bytes: 1024 * 1024, ..options(&disk) }).expect("a new log");
    commit_now(&log, commit(1)).expect("committed");
    disk.take_events();
    for n in 2..=20 {
        let (noted, (tell, told)) = (disk.clone(), sync_channel(1024));
        let Commit { blobs, epochs } = commit(n);
        let done: Done = Box::new(move |_| {
            noted.note(n);
            tell.send(()).expect("the test waits");
        });
        assert!(log.append(Append { blobs, epochs, done }).is_ok());
        told.recv().expect("an answer");
    }
    log.close();
    let events: Vec<_> = disk.take_events().into_iter().filter(|event| !is_spare(event)).collect();
    let name = || "00000001.seg".to_owned();
    let expected = (2..=20).flat_map(|n| [Event::Write(name()), Event::Sync(name()), Event::Note(n)]);
    assert_eq!(events, expected.collect::<Vec<_>>());
}

#[test]
fn a_full_queue_gives_the_append_back() {
    for (queue_commits, queue_kib) in [(1, 1024), (1024, 8)] {
        let disk = FakeDisk::default();
        let options = LogOptions { queue_commits, queue_kib, ..options(&disk) };
        let (log, _) = try_open(options).expect("a new log");
        let held = hold_writer(&log, 1);
        // The held commit still has its place in the budget of bytes, this one takes the rest.
        let waiting = append(&log, sized(2, 6000));
        let Commit { blobs, epochs } = sized(3, 6000);
        let done: Done = Box::new(|_| panic!("never called"));
        let refused = log.append(Append { blobs, epochs, done }).expect_err("full");
        assert_eq!(refused.why, RefusedWhy::QueueFull);
        assert_eq!(refused.append.blobs, sized(3, 6000).blobs);
        drop(held);
        waiting.recv().expect("an answer").expect("committed");
        commit_now(&log, sized(3, 6000)).expect("there is room again");
        log.close();
    }
}

#[tokio::test]
async fn closing_answers_what_waits_and_takes_no_more() {
    let disk = FakeDisk::default();
    let (log, _) = open(&disk);
    let held = hold_writer(&log, 1);
    let answers: Vec<_> = (2..=9).map(|n| append(&log, commit(n))).collect();
    drop(held);
    log.close();
    assert!(answers.iter().all(|answer| matches!(answer.try_recv(), Ok(Ok(_)))), "all answered");
    assert_eq!(log.commit(commit(10)).await, Err(AppendError::Closed));
    let Commit { blobs, epochs } = commit(10);
    let refused = log.append(Append { blobs, epochs, done: Box::new(|_| panic!("never called")) });
    assert_eq!(refused.err().map(|refused| refused.why), Some(RefusedWhy::Closed));
    assert_eq!(open(&disk).1, (1..=9).collect::<Vec<_>>());
}

#[test]
fn a_panic_in_an_answer_leaves_the_log_working() {
    let disk = FakeDisk::default();
    let (log, _) = open(&disk);
    let Commit { blobs, epochs } = commit(1);
    let done: Done = Box::new(|_| panic!("on purpose"));
    assert!(log.append(Append { blobs, epochs, done }).is_ok());
    commit_now(&log, commit(2)).expect("committed");
    log.close();
    assert_eq!(open(&disk).1, [1, 2]);
}
