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

#[test]
fn what_was_known_to_be_durable_is_lost_and_not_torn() {
    let disk = FakeDisk::default();
    let (log, places) = long(&disk);
    log.close();
    let last = places[39];
    assert_eq!(places[38].segment, last.segment, "another commit before it in its segment");
    let path = segment(last.segment);
    let known = LogOptions { known: Some(last), ..options(&disk) };
    assert_eq!(try_open(known).expect("opens").1.len(), 40, "nothing is lost yet");
    let before = disk.content(&path);
    let start = places[38].end().expect("a record's end");
    for cut in [false, true] {
        let disk = disk.killed();
        let mut content = before.clone();
        content[last.offset as usize + 1] ^= 1;
        content.truncate(if cut { last.offset as usize } else { content.len() });
        disk.put(&path, &content);
        let opened = try_replay(LogOptions { known: Some(last), ..options(&disk) });
        let (log, commits, damage) = opened.expect("the log opens");
        assert_eq!(numbers(&commits), (1..=39).collect::<Vec<_>>());
        let length = last.end().expect("a record's end") - start;
        let [Damage { segment, offset, length: found, .. }] = damage[..] else { panic!("{damage:?}") };
        assert_eq!((segment, offset, found), (last.segment, start, length));
        log.close();
        assert!(disk.content(&path) == content, "nothing is cut off");
        // From now on the log says it itself.
        let (log, commits, again) = replay(&disk);
        assert_eq!((commits.len(), again), (39, damage));
        assert_eq!(commit_now(&log, commit(41)).expect("committed").epochs[0].segment, last.segment + 1);
        log.close();
    }
}

#[test]
fn files_that_are_gone_from_the_end_are_damage_and_their_numbers_stay_theirs() {
    let disk = FakeDisk::default();
    let (log, places) = long(&disk);
    log.close();
    let last = places[39];
    for gone in [1, 2, last.segment] {
        let disk = disk.killed();
        (last.segment - gone + 1..=last.segment).for_each(|n| disk.remove(&segment(n)).expect("it was there"));
        let left = places.iter().filter(|at| at.segment + gone <= last.segment).count();
        let before = disk.files();
        let opened = try_replay(LogOptions { known: Some(last), ..options(&disk) });
        let (log, commits, damage) = opened.expect("the log opens");
        assert_eq!(commits.len(), left);
        let missing: Vec<_> = damage.iter().map(|damage| damage.segment).collect();
        assert_eq!(missing, (last.segment - gone + 1..=last.segment).collect::<Vec<_>>());
        assert_eq!(commit_now(&log, commit(41)).expect("committed").epochs[0].segment, last.segment + 1);
        log.close();
        assert!(before.iter().all(|(path, content)| path.ends_with("next.zeros") || disk.content(path) == *content));
        let (_, commits, again) = replay(&disk);
        assert_eq!((commits.len(), again), (left + 1, damage));
    }
}
