//! The log's promises, each against the disk that would break it.
#![expect(clippy::unwrap_in_result, reason = "a test that cannot go on panics")]

use std::{
    convert::Infallible,
    sync::mpsc::{Receiver, channel},
};

use kvspace_protocol::id::SpaceId;

use super::segment::{BLOCK_BYTES, path_of};
use super::*;
use crate::disk::fake::{Event, FakeDisk, Fault};

const DIR: &str = "/log";
const SEGMENT_BYTES: u32 = 16 * 1024;
type Answer = Result<Appended, AppendError>;

fn space() -> SpaceId {
    "tinycloud:pkh:eip155:1:0x71C7656EC7ab88b098defB751B7401B5f6d8976F:default".parse().expect("an id")
}

/// The commit of this number: a blob and an epoch.
fn commit(n: u32) -> Commit {
    sized(n, 60)
}

/// A commit whose blob has this many bytes.
fn sized(n: u32, bytes: usize) -> Commit {
    let mut value = format!("value {n:08}").into_bytes();
    value.resize(bytes.max(value.len()), b'.');
    let value = Bytes::from(value);
    let header = Bytes::copy_from_slice(&n.to_be_bytes());
    let epoch = EpochRecord { space: space(), header, body: Bytes::from_static(b"body"), signature: [n as u8; 64] };
    Commit { blobs: vec![(BlobHash::of(&value), value)], epochs: vec![epoch] }
}

fn options(disk: &FakeDisk) -> LogOptions {
    LogOptions {
        segment_bytes: SEGMENT_BYTES,
        reserve_bytes: 1024,
        disk: Arc::new(disk.clone()),
        ..LogOptions::default()
    }
}

/// Opens the log and says which commits it holds, in order.
fn open(disk: &FakeDisk) -> (Log, Vec<u32>) {
    try_open(options(disk)).expect("the log opens")
}

fn try_open(options: LogOptions) -> Result<(Log, Vec<u32>), LogError> {
    let mut replayed = Vec::new();
    let log = Log::open(Path::new(DIR), options, |record| {
        replayed.push(record);
        Ok::<_, Infallible>(())
    })?;
    Ok((log, numbers(&replayed)))
}

/// The numbers of replayed commits, after checking that each is whole.
fn numbers(replayed: &[Replayed]) -> Vec<u32> {
    assert!(replayed.is_sorted_by_key(Replayed::at), "in the order of the log");
    let commits = replayed.chunks(2).map(|pair| match pair {
        [Replayed::Blob { hash, bytes, .. }, Replayed::Epoch { record, .. }] => {
            let n = u32::from_be_bytes(record.header[..].try_into().expect("four bytes"));
            assert_eq!(
                Commit { blobs: vec![(*hash, bytes.clone())], epochs: vec![record.clone()] },
                sized(n, bytes.len())
            );
            n
        }
        other => panic!("half a commit: {other:?}"),
    });
    commits.collect()
}

fn append(log: &Log, commit: Commit) -> Receiver<Answer> {
    let (tell, told) = channel();
    let Commit { blobs, epochs } = commit;
    let done: Done = Box::new(move |answer| drop(tell.send(answer)));
    assert!(log.append(Append { blobs, epochs, done }).is_ok(), "there is room in the queue");
    told
}

fn commit_now(log: &Log, commit: Commit) -> Answer {
    append(log, commit).recv().expect("an answer")
}

/// Holds the writer in the answer to commit `n` until the returned guard is dropped.
fn hold_writer(log: &Log, n: u32) -> std::sync::mpsc::Sender<()> {
    let (release, released) = channel::<()>();
    let (tell, held) = channel();
    let Commit { blobs, epochs } = commit(n);
    let done: Done = Box::new(move |answer| {
        answer.expect("committed");
        tell.send(()).expect("the test waits");
        released.recv().expect_err("dropped, not sent");
    });
    assert!(log.append(Append { blobs, epochs, done }).is_ok());
    held.recv().expect("the writer is held");
    release
}

fn segment(n: u32) -> PathBuf {
    path_of(Path::new(DIR), n)
}

/// A disk with the commits 1 to `last` in one segment, each synced by itself; where each commit ends.
fn written(last: u32) -> (FakeDisk, Vec<u32>) {
    let disk = FakeDisk::default();
    let (log, _) = open(&disk);
    let mut ends = vec![BLOCK_BYTES];
    for n in 1..=last {
        let at = commit_now(&log, commit(n)).expect("committed").epochs[0];
        ends.push((at.offset + at.length).next_multiple_of(8));
    }
    log.close();
    (disk, ends)
}

/// The disk with this content of the first segment.
fn with_segment(content: &[u8]) -> FakeDisk {
    let disk = FakeDisk::default();
    disk.put(&segment(1), content);
    disk
}

#[tokio::test]
async fn what_is_committed_on_a_real_disk_reads_back() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let log = Log::open(dir.path(), LogOptions::default(), |_| Ok::<_, Infallible>(())).expect("new");
    let appended = log.commit(commit(1)).await.expect("committed");
    let Commit { blobs, epochs } = commit(1);
    assert_eq!(log.read_blob(appended.blobs[0]).expect("there"), blobs[0].1);
    assert_eq!(log.read_epoch(appended.epochs[0]).expect("there"), epochs[0]);
    assert!(matches!(log.read_epoch(appended.blobs[0]), Err(ReadError::Damaged(_))));
    log.close();
    let mut replayed = Vec::new();
    Log::verify(dir.path(), &OsDisk, |record| {
        replayed.push(record);
        Ok::<_, Infallible>(())
    })
    .expect("sound");
    assert_eq!(numbers(&replayed), [1]);
    assert_eq!(replayed.iter().map(Replayed::at).collect::<Vec<_>>(), [appended.blobs[0], appended.epochs[0]]);
}

#[test]
fn a_commit_torn_at_any_byte_never_happened() {
    let (disk, ends) = written(3);
    let whole = disk.content(&segment(1));
    let (start, end) = (ends[2] as usize, ends[3] as usize);
    for cut in start..end {
        for rest in [0, 0xff] {
            let mut torn = whole.clone();
            torn[cut..end].fill(rest);
            if torn == whole {
                continue;
            }
            let disk = with_segment(&torn);
            let (log, found) = open(&disk);
            // Cutting within the padding that is zero anyway leaves the commit whole.
            assert_eq!(found, [1, 2], "cut at {cut}");
            commit_now(&log, commit(4)).expect("committed");
            log.close();
            let (log, found) = open(&disk);
            assert_eq!(found, [1, 2, 4], "cut at {cut}, then written");
            log.close();
        }
    }
}

#[test]
fn records_behind_a_torn_end_do_not_come_back() {
    let disk = FakeDisk::default();
    let (log, _) = open(&disk);
    let held = hold_writer(&log, 1);
    let answers = [append(&log, commit(2)), append(&log, commit(3))];
    drop(held);
    let [torn, _] = answers.map(|answer| answer.recv().expect("an answer").expect("committed"));
    log.close();
    let mut content = disk.content(&segment(1));
    content[torn.blobs[0].offset as usize] ^= 1;
    let disk = with_segment(&content);
    let (log, found) = open(&disk);
    assert_eq!(found, [1]);
    let again = commit_now(&log, commit(4)).expect("committed");
    assert_eq!(again, torn, "exactly where commit 2 was, so that commit 3 would follow");
    log.close();
    let (log, found) = open(&disk);
    assert_eq!(found, [1, 4]);
    log.close();
}

#[test]
fn bytes_that_were_durable_are_never_taken_for_a_torn_end() {
    let (disk, ends) = written(3);
    let whole = disk.content(&segment(1));
    for at in 0..ends[2] as usize {
        if (32 + 4..BLOCK_BYTES as usize - 8).contains(&at) && at % 64 != 0 {
            continue; // the header block's zeros: a sample will do
        }
        let mut changed = whole.clone();
        changed[at] ^= 0x10;
        let found = try_open(options(&with_segment(&changed))).map(|(_, found)| found);
        assert!(
            matches!(found, Err(LogError::Damaged { segment: 1, .. } | LogError::OtherFormat { .. })),
            "byte {at}: {found:?}"
        );
    }
}

#[test]
fn a_sealed_segment_is_whole_or_reported() {
    let disk = FakeDisk::default();
    let (log, _) = open(&disk);
    let mut last = Position { segment: 0, generation: 0, offset: 0, length: 0 };
    let mut n = 0;
    let mut end = 0;
    while last.segment < 2 {
        n += 1;
        end = if last.segment == 1 { last.offset + last.length } else { 0 };
        last = commit_now(&log, sized(n, 1000)).expect("committed").epochs[0];
    }
    log.close();
    let whole = disk.content(&segment(1));
    for at in (BLOCK_BYTES as usize..end as usize).step_by(7) {
        let mut changed = whole.clone();
        changed[at] ^= 1;
        let changed_disk = disk.killed();
        changed_disk.put(&segment(1), &changed);
        let found = try_open(options(&changed_disk)).map(|(_, found)| found);
        let Err(error @ LogError::Damaged { segment: 1, .. }) = found else {
            panic!("byte {at}: {found:?}");
        };
        assert!(error.to_string().starts_with("segment 1 of the log is damaged at byte "), "{error}");
    }
    let mut behind = whole.clone();
    behind[end as usize + 64..].fill(0xee);
    let behind_disk = disk.killed();
    behind_disk.put(&segment(1), &behind);
    assert_eq!(open(&behind_disk).1, (1..=n).collect::<Vec<_>>(), "nothing counts behind the recorded end");
    let missing = disk.killed();
    missing.remove(&segment(1)).expect("it was there");
    assert!(matches!(
        try_open(options(&missing)),
        Err(LogError::Damaged { segment: 1, what: "its file is missing", .. })
    ));
}

#[test]
fn a_record_copied_to_another_place_is_none() {
    let (disk, ends) = written(2);
    let mut content = disk.content(&segment(1));
    content.copy_within(ends[1] as usize..ends[2] as usize, ends[2] as usize);
    let (log, found) = open(&with_segment(&content));
    assert_eq!(found, [1, 2]);
    log.close();
    // The same file in its next generation: every record in it is of a former life.
    let header = segment::Header { segment: 1, generation: 1, end: 0, previous_end: 0 };
    let mut content = disk.content(&segment(1));
    content[..BLOCK_BYTES as usize].copy_from_slice(&header.encode());
    let (log, found) = open(&with_segment(&content));
    assert_eq!(found, [] as [u32; 0]);
    log.close();
}

#[test]
fn a_failed_sync_seals_the_segment_and_the_next_one_goes_on() {
    for fault in [Fault::Sync("00000001.seg"), Fault::Write("00000001.seg")] {
        let disk = FakeDisk::default();
        let (log, _) = open(&disk);
        commit_now(&log, commit(1)).expect("committed");
        disk.fail_next(fault);
        assert!(matches!(commit_now(&log, commit(2)), Err(AppendError::Failed(_))), "{fault:?}");
        disk.take_events();
        let appended = commit_now(&log, commit(3)).expect("committed");
        assert_eq!(appended.epochs[0].segment, 2);
        let former = |event: &Event| matches!(event, Event::Write(name) | Event::Sync(name) if name == "00000001.seg");
        assert!(!disk.take_events().iter().any(former), "never written or synced again");
        log.close();
        assert_eq!(open(&disk.power_cut(|| true)).1, [1, 3], "{fault:?}");
        assert_eq!(open(&disk.power_cut(|| false)).1, [1, 3], "{fault:?}");
    }
}

#[test]
fn what_a_failed_sync_lost_is_written_again_before_anything_stands_on_it() {
    let disk = FakeDisk::default();
    let (log, _) = open(&disk);
    commit_now(&log, commit(1)).expect("committed");
    disk.fail_next(Fault::Sync("00000001.seg"));
    assert!(commit_now(&log, commit(2)).is_err());
    // The process ends; its pages are still there to read, but no sync would ever write them.
    let disk = disk.killed();
    let (log, found) = open(&disk);
    assert_eq!(found, [1, 2]);
    commit_now(&log, commit(3)).expect("committed");
    let (log, found) = {
        log.close();
        open(&disk.power_cut(|| false))
    };
    assert_eq!(found, [1, 2, 3]);
    log.close();
}

#[test]
fn a_segment_that_cannot_be_begun_is_begun_again() {
    for fault in [Fault::Rename("00000002.seg"), Fault::SyncDir, Fault::Write(".zeros"), Fault::Sync(".zeros")] {
        let disk = FakeDisk::default();
        let (log, _) = open(&disk);
        commit_now(&log, sized(1, 8000)).expect("committed");
        assert!(matches!(commit_now(&log, sized(9, 20_000)), Err(AppendError::TooLarge { .. })));
        disk.fail_next(fault);
        let second = commit_now(&log, sized(2, 8000));
        let third = commit_now(&log, sized(3, 8000)).expect("committed");
        log.close();
        let (log, found) = open(&disk.power_cut(|| false));
        let expected = if second.is_ok() { vec![1, 2, 3] } else { vec![1, 3] };
        assert_eq!(found, expected, "{fault:?}, {second:?}, {third:?}");
        log.close();
    }
}

#[test]
fn a_full_disk_refuses_what_does_not_fit_and_recovers() {
    let disk = FakeDisk::default();
    disk.set_capacity(Some(u64::from(SEGMENT_BYTES) + 1024));
    let (log, _) = open(&disk);
    commit_now(&log, sized(1, 8000)).expect("the first segment fits");
    disk.take_events();
    assert_eq!(commit_now(&log, sized(2, 8000)), Err(AppendError::DiskFull));
    assert_eq!(disk.take_events(), [], "found before anything was written");
    commit_now(&log, sized(3, 20)).expect("what fits in the segment goes on");
    assert_eq!(commit_now(&log, sized(4, 8000)), Err(AppendError::DiskFull));
    disk.set_capacity(None);
    commit_now(&log, sized(5, 8000)).expect("there is room again");
    log.close();
    assert_eq!(open(&disk).1, [1, 3, 5]);
}

#[test]
fn a_disk_that_fills_while_zeros_are_written_leaves_no_rest() {
    let disk = FakeDisk::default();
    disk.set_capacity(Some(u64::from(SEGMENT_BYTES) - 1));
    let options = LogOptions { reserve_bytes: 0, ..options(&disk) };
    let (log, _) = try_open(options).expect("a new log");
    assert_eq!(commit_now(&log, commit(1)), Err(AppendError::DiskFull));
    assert_eq!(disk.names(), [] as [PathBuf; 0]);
    log.close();
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

fn is_spare(event: &Event) -> bool {
    matches!(event, Event::Write(name) | Event::Sync(name) if name.ends_with(".zeros")) || *event == Event::SyncDir
}

#[test]
fn nothing_is_answered_before_its_sync() {
    let disk = FakeDisk::default();
    let (log, _) = try_open(LogOptions { segment_bytes: 1024 * 1024, ..options(&disk) }).expect("a new log");
    hold_writer(&log, 1);
    for n in 2..=20 {
        let (noted, (tell, told)) = (disk.clone(), channel());
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
    for (at, event) in events.iter().enumerate() {
        if let Event::Note(_) = event {
            assert_eq!(events[at - 1], Event::Sync("00000001.seg".into()), "{events:?}");
        }
    }
}

/// SplitMix64: the same seed, the same run.
struct Draw(u64);

impl Draw {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

#[test]
fn every_answered_commit_survives_power_cuts_kills_and_broken_syncs() {
    for seed in 0..300 {
        let mut draw = Draw(seed);
        let mut disk = FakeDisk::default();
        let mut n = 0;
        // What must be there, and what may be there: failed, or never answered.
        let (mut durable, mut doubtful) = (Vec::new(), Vec::new());
        for _ in 0..6 {
            let (log, found) = open(&disk);
            assert!(durable.iter().all(|n| found.contains(n)), "seed {seed}: {durable:?} of {found:?}");
            assert!(found.iter().all(|n| durable.contains(n) || doubtful.contains(n)), "seed {seed}: {found:?}");
            assert!(found.is_sorted(), "seed {seed}: {found:?}");
            // What was delivered once is acted upon, so it must stay.
            (durable, doubtful) = (found, Vec::new());
            for _ in 0..draw.below(12) {
                match draw.below(12) {
                    0 => disk.fail_next(Fault::Sync(".seg")),
                    1 => disk.fail_next(Fault::Write(".seg")),
                    2 => disk.fail_next(Fault::SyncDir),
                    3 => disk.fail_next(Fault::Rename(".seg")),
                    _ => {}
                }
                let round: Vec<u32> = (0..1 + draw.below(4)).map(|i| n + 1 + i as u32).collect();
                n += round.len() as u32;
                let answers: Vec<_> =
                    round.iter().map(|n| append(&log, sized(*n, draw.below(3000) as usize))).collect();
                for (n, answer) in round.into_iter().zip(answers) {
                    match answer.recv().expect("an answer") {
                        Ok(_) => durable.push(n),
                        Err(AppendError::Failed(_)) => doubtful.push(n),
                        Err(other) => panic!("seed {seed}: {other}"),
                    }
                }
            }
            // Some are on their way when it happens.
            let answers: Vec<_> = (0..draw.below(4)).map(|i| append(&log, commit(n + 1 + i as u32))).collect();
            doubtful.extend((0..answers.len()).map(|i| n + 1 + i as u32));
            n += answers.len() as u32;
            let left = match draw.below(3) {
                0 => disk.killed(),
                _ => disk.power_cut(|| draw.below(2) == 0),
            };
            log.close();
            disk = left;
        }
    }
}

#[test]
fn a_replay_can_begin_behind_a_known_position() {
    let disk = FakeDisk::default();
    let (log, _) = open(&disk);
    let positions: Vec<_> = (1..=40).map(|n| commit_now(&log, sized(n, 2000)).expect("committed").epochs[0]).collect();
    log.close();
    assert!(positions[39].segment > 5);
    for known in [0, 7, 20, 38, 39] {
        let options = LogOptions { after: Some(positions[known]), ..options(&disk) };
        let (log, found) = try_open(options).expect("the log opens");
        assert_eq!(found, (known as u32 + 2..=40).collect::<Vec<_>>());
        log.close();
    }
    let beyond = Position { segment: 99, ..positions[0] };
    let elsewhere = Position { offset: positions[0].offset + 8, ..positions[0] };
    for unknown in [beyond, elsewhere] {
        let found = try_open(LogOptions { after: Some(unknown), ..options(&disk) }).map(|(_, found)| found);
        assert!(matches!(found, Err(LogError::NotInLog(at)) if at == unknown), "{found:?}");
    }
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

#[test]
fn a_commit_may_be_blobs_alone_or_many_epochs() {
    let disk = FakeDisk::default();
    let (log, _) = open(&disk);
    let Commit { blobs, epochs } = commit(1);
    let appended = commit_now(&log, Commit { blobs: blobs.clone(), epochs: Vec::new() }).expect("committed");
    assert_eq!(log.read_blob(appended.blobs[0]).expect("there"), blobs[0].1);
    let many = Commit { blobs: Vec::new(), epochs: vec![epochs[0].clone(), epochs[0].clone()] };
    assert_eq!(commit_now(&log, many).expect("committed").epochs.len(), 2);
    assert_eq!(commit_now(&log, Commit::default()), Ok(Appended::default()));
    log.close();
    let mut count = 0;
    let log = Log::open(Path::new(DIR), options(&disk), |_| {
        count += 1;
        Ok::<_, Infallible>(())
    });
    log.expect("the log opens").close();
    assert_eq!(count, 3);
}

#[test]
fn an_error_of_the_receiver_stops_the_replay() {
    let (disk, _) = written(2);
    let stopped = Log::open(Path::new(DIR), options(&disk), |_| Err("enough")).err().expect("stopped");
    assert_eq!(stopped.to_string(), "replaying the log stopped: enough");
}
