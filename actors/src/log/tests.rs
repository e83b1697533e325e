//! The log's promises, each against the disk that would break it.
#![expect(clippy::unwrap_in_result, reason = "a test that cannot go on panics")]

use std::{
    convert::Infallible,
    path::PathBuf,
    sync::mpsc::{Receiver, SyncSender, sync_channel},
};

use kvspace_protocol::id::SpaceId;

use super::segment::{BLOCK_BYTES, path_of};
use super::*;
use crate::disk::fake::{Event, FakeDisk, Fault};

mod damage;
mod faults;
mod queue;

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
    let (tell, told) = sync_channel(1024);
    let Commit { blobs, epochs } = commit;
    let done: Done = Box::new(move |answer| drop(tell.send(answer)));
    assert!(log.append(Append { blobs, epochs, done }).is_ok(), "there is room in the queue");
    told
}

fn commit_now(log: &Log, commit: Commit) -> Answer {
    append(log, commit).recv().expect("an answer")
}

/// Holds the writer in the answer to commit `n` until the returned guard is dropped.
fn hold_writer(log: &Log, n: u32) -> SyncSender<()> {
    let (release, released) = sync_channel::<()>(1);
    let (tell, held) = sync_channel(1024);
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
