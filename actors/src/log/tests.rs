//! The log's promises, each against the disk that would break it.
#![expect(clippy::unwrap_in_result, reason = "a test that cannot go on panics")]

use std::{
    convert::Infallible,
    ops::Range,
    path::PathBuf,
    sync::mpsc::{Receiver, SyncSender, sync_channel},
};

use kvspace_protocol::id::SpaceId;

use super::segment::{BLOCK_BYTES, path_of};
use super::*;
use crate::disk::fake::{Event, FakeDisk, Fault};

mod after;
mod compaction;
mod copies;
mod damage;
mod faults;
mod queue;
mod scribbles;
mod unreadable;

const DIR: &str = "/log";
const SEGMENT_BYTES: u32 = 16 * 1024;
type Answer = Result<Appended, AppendError>;

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
    let (log, commits, damage) = try_replay(options)?;
    assert_eq!(damage, [], "nothing is damaged");
    Ok((log, numbers(&commits)))
}

/// Opens the log and says which commits it holds and what is damaged.
fn replay(disk: &FakeDisk) -> (Log, Vec<ReplayedCommit>, Vec<Damage>) {
    try_replay(options(disk)).expect("the log opens")
}

/// The same, and everything that is delivered is readable at once.
fn try_replay(options: LogOptions) -> Result<(Log, Vec<ReplayedCommit>, Vec<Damage>), LogError> {
    let mut replayed = Vec::new();
    let log = Log::open(Path::new(DIR), options, |reader, piece| {
        if let Replayed::Commit(commit) = &piece {
            assert_reads(reader, commit);
        }
        replayed.push(piece);
        Ok::<_, Infallible>(())
    })?;
    let (commits, damage) = sorted(replayed);
    Ok((log, commits, damage))
}

fn verified(disk: &FakeDisk) -> (Vec<ReplayedCommit>, Vec<Damage>) {
    let before = disk.files();
    let mut replayed = Vec::new();
    let verified = verify(Path::new(DIR), disk, |piece| {
        replayed.push(piece);
        Ok::<_, Infallible>(())
    });
    verified.expect("read to the end");
    assert!(disk.files() == before, "nothing is touched");
    sorted(replayed)
}

fn sorted(replayed: Vec<Replayed>) -> (Vec<ReplayedCommit>, Vec<Damage>) {
    let (mut commits, mut damage) = (Vec::new(), Vec::new());
    for piece in replayed {
        match piece {
            Replayed::Commit(commit) => commits.push(commit),
            Replayed::Damage(piece) => damage.push(piece),
        }
    }
    (commits, damage)
}

fn assert_reads(reader: &LogReader, commit: &ReplayedCommit) {
    for blob in &commit.blobs {
        assert_eq!(reader.read_blob(blob.at).expect("a delivered value"), blob.bytes);
    }
    for (epoch, at) in &commit.epochs {
        assert_eq!(&reader.read_epoch(*at).expect("a delivered epoch"), epoch);
        assert!(reader.holds(*at).expect("readable"));
    }
}

/// The numbers of replayed commits, after checking that each is whole.
fn numbers(replayed: &[ReplayedCommit]) -> Vec<u32> {
    assert!(replayed.iter().all(|commit| commit.blobs.len() == 1), "no value is missing");
    numbers_of_some(replayed)
}

/// The same where values may have been dropped.
fn numbers_of_some(replayed: &[ReplayedCommit]) -> Vec<u32> {
    assert!(replayed.is_sorted_by_key(|commit| commit.end), "in the order of the log");
    let number = |commit: &ReplayedCommit| {
        let [(epoch, at)] = &commit.epochs[..] else { panic!("not one of these commits: {commit:?}") };
        let n = u32::from_be_bytes(epoch.header[..].try_into().expect("four bytes"));
        assert_eq!(*at, commit.end);
        assert!(commit.blobs.len() <= 1);
        let bytes = commit.blobs.first().map_or(0, |blob| blob.bytes.len());
        let expected = sized(n, bytes);
        assert_eq!(*epoch, expected.epochs[0]);
        if let Some(blob) = commit.blobs.first() {
            assert_eq!((blob.hash, blob.bytes.clone()), expected.blobs[0]);
            assert!(blob.at < *at && blob.at.segment == at.segment);
        }
        n
    };
    replayed.iter().map(number).collect()
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
    let log = Log::open(dir.path(), LogOptions::default(), |_, _| Ok::<_, Infallible>(())).expect("new");
    let appended = log.commit(commit(1)).await.expect("committed");
    let Commit { blobs, epochs } = commit(1);
    assert_eq!(log.read_blob(appended.blobs[0]).expect("there"), blobs[0].1);
    assert_eq!(log.read_epoch(appended.epochs[0]).expect("there"), epochs[0]);
    assert!(matches!(log.read_epoch(appended.blobs[0]), Err(ReadError::Damaged(_))));
    log.close();
    let mut replayed = Vec::new();
    let verified = verify(dir.path(), &OsDisk, |piece| {
        replayed.push(piece);
        Ok::<_, Infallible>(())
    });
    verified.expect("sound");
    let (commits, damage) = sorted(replayed);
    assert_eq!((numbers(&commits), damage), (vec![1], vec![]));
    assert_eq!((commits[0].blobs[0].at, commits[0].epochs[0].1), (appended.blobs[0], appended.epochs[0]));
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
    let (log, commits, _) = replay(&disk);
    log.close();
    let counts: Vec<_> = commits.iter().map(|commit| (commit.blobs.len(), commit.epochs.len())).collect();
    assert_eq!(counts, [(1, 0), (0, 2)]);
}

#[test]
fn an_error_of_the_receiver_stops_the_replay() {
    let (disk, _) = written(2);
    let stopped = Log::open(Path::new(DIR), options(&disk), |_, _| Err("enough")).err().expect("stopped");
    assert_eq!(stopped.to_string(), "replaying the log stopped: enough");
}
