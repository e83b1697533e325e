//! Replay that begins behind what the caller has.

use super::*;

/// A log of 40 commits in many segments and where each commit ends.
fn long(disk: &FakeDisk) -> (Log, Vec<Position>) {
    let (log, _) = open(disk);
    let ends = (1..=40).map(|n| commit_now(&log, sized(n, 2000)).expect("committed").epochs[0]).collect();
    (log, ends)
}

fn found_after(disk: &FakeDisk, after: Position) -> Result<Vec<u32>, LogError> {
    let (log, commits, damage) = try_replay(LogOptions { after: Some(after), ..options(disk) })?;
    assert_eq!(damage, []);
    log.close();
    Ok(numbers_of_some(&commits))
}

#[test]
fn a_replay_can_begin_behind_a_known_position() {
    let disk = FakeDisk::default();
    let (log, ends) = long(&disk);
    log.close();
    assert!(ends[39].segment > 5);
    for (known, end) in ends.iter().enumerate() {
        let found = found_after(&disk, *end).expect("the log opens");
        assert_eq!(found, (known as u32 + 2..=40).collect::<Vec<_>>());
    }
    let beyond = Position { segment: 99, ..ends[0] };
    let elsewhere = Position { offset: ends[0].offset + 8, ..ends[0] };
    let longer = Position { length: ends[0].length + 1, ..ends[0] };
    let wild = Position { segment: 1, offset: u32::MAX, length: u32::MAX };
    for unknown in [beyond, elsewhere, longer, wild, Position { offset: 0, ..ends[0] }] {
        let found = found_after(&disk, unknown);
        assert!(matches!(found, Err(LogError::NotInLog(at)) if at == unknown), "{found:?}");
    }
}

#[test]
fn a_position_within_a_commit_delivers_the_commit_again() {
    let disk = FakeDisk::default();
    let (log, _) = open(&disk);
    let places: Vec<_> = (1..=3).map(|n| commit_now(&log, commit(n)).expect("committed").blobs[0]).collect();
    log.close();
    assert_eq!(found_after(&disk, places[1]).expect("the log opens"), [2, 3]);
}

#[test]
fn what_lies_before_is_neither_read_nor_written() {
    let disk = FakeDisk::default();
    let (log, ends) = long(&disk);
    log.close();
    // A broken value in front of it, in its own segment and in the one before.
    let own = ends.iter().filter(|end| end.segment == ends[39].segment).count();
    assert!(own > 1, "{ends:?}");
    for broken in [38, 39 - own] {
        let mut content = disk.content(&segment(ends[broken].segment));
        content[ends[broken].offset as usize - 500] ^= 1;
        let changed = disk.killed();
        changed.put(&segment(ends[broken].segment), &content);
        assert_eq!(found_after(&changed, ends[39]).expect("the log opens"), [] as [u32; 0]);
        assert_eq!(changed.content(&segment(ends[broken].segment)), content);
    }
    // That a file is missing is told all the same.
    disk.remove(&segment(2)).expect("it was there");
    let (log, commits, damage) = try_replay(LogOptions { after: Some(ends[38]), ..options(&disk) }).expect("opens");
    log.close();
    assert_eq!(numbers(&commits), [40]);
    assert!(matches!(damage[..], [Damage { segment: 2, .. }]));
}

#[test]
fn compaction_changes_nothing_about_what_comes_after() {
    let disk = FakeDisk::default();
    let (log, ends) = long(&disk);
    let places: Vec<_> = (41..=43)
        .map(|n| {
            let Commit { blobs, .. } = sized(n, 100);
            commit_now(&log, Commit { blobs, epochs: Vec::new() }).expect("committed").blobs[0]
        })
        .collect();
    commit_now(&log, sized(44, 9000)).expect("committed");
    let newest = commit_now(&log, sized(45, 9000)).expect("committed").epochs[0].segment;
    for segment in 1..newest {
        log.compact(segment, |commit| vec![commit.end.offset % 3 == 0; commit.blobs.len()], |_| true)
            .expect("compacted");
    }
    for segment in 1..newest {
        log.compact(segment, |commit| vec![false; commit.blobs.len()], |_| true).expect("compacted");
    }
    log.close();
    for (known, end) in ends.iter().enumerate() {
        let found = found_after(&disk, *end).expect("the log opens");
        assert_eq!(found, (known as u32 + 2..=40).chain([44, 45]).collect::<Vec<_>>());
    }
    for freed in places {
        assert_eq!(found_after(&disk, freed).expect("the log opens"), [44, 45]);
    }
    let longer = Position { length: ends[3].length + 8, ..ends[3] };
    let within = Position { offset: ends[3].offset + 8, ..ends[3] };
    for unknown in [longer, within] {
        assert!(matches!(found_after(&disk, unknown), Err(LogError::NotInLog(_))));
    }
}
