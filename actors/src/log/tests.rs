//! The log's promises, each against the disk that would break it.

use std::convert::Infallible;

use kvspace_protocol::id::SpaceId;

use super::*;

fn space() -> SpaceId {
    "tinycloud:pkh:eip155:1:0x71C7656EC7ab88b098defB751B7401B5f6d8976F:default".parse().expect("an id")
}

fn commit(n: u32) -> Commit {
    let value = Bytes::from(format!("value {n}"));
    let header = Bytes::from(format!("header {n}"));
    let epoch = EpochRecord { space: space(), header, body: Bytes::from_static(b"body"), signature: [n as u8; 64] };
    Commit { blobs: vec![(BlobHash::of(&value), value)], epochs: vec![epoch] }
}

#[tokio::test]
async fn what_is_committed_reads_back_and_is_replayed() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let log = Log::open(dir.path(), LogOptions::default(), |_| Ok::<_, Infallible>(())).expect("new");
    let appended = log.commit(commit(1)).await.expect("committed");
    let Commit { blobs, epochs } = commit(1);
    assert_eq!(log.read_blob(appended.blobs[0]).expect("there"), blobs[0].1);
    assert_eq!(log.read_epoch(appended.epochs[0]).expect("there"), epochs[0]);
    log.close();
    let mut replayed = Vec::new();
    let log = Log::open(dir.path(), LogOptions::default(), |record| {
        replayed.push(record);
        Ok::<_, Infallible>(())
    })
    .expect("again");
    log.close();
    let (hash, bytes) = blobs[0].clone();
    assert_eq!(
        replayed,
        [
            Replayed::Blob { hash, at: appended.blobs[0], bytes },
            Replayed::Epoch { record: epochs[0].clone(), at: appended.epochs[0] }
        ]
    );
}
