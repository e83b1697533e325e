//! A disk that does not give back what it was given.

use super::*;

/// Commits 1 to 9 in segments of two; where each begins and ends.
fn long() -> (FakeDisk, Vec<(u32, Range<u32>)>) {
    let disk = FakeDisk::default();
    let (log, _) = open(&disk);
    let places = (1..=9).map(|n| {
        let Appended { blobs, epochs } = commit_now(&log, sized(n, 5000)).expect("committed");
        let start = blobs[0].birth().expect("a record's place");
        (epochs[0].segment, start..epochs[0].end().expect("a record's end"))
    });
    let places = places.collect();
    log.close();
    (disk, places)
}

#[test]
fn a_sector_that_cannot_be_read_costs_the_commits_around_it() {
    let (original, places) = long();
    let last = places.last().map_or(0, |(segment, _)| *segment);
    for (number, at) in [(1, 4096), (1, 9000), (2, 10_000), (3, 4200), (last, 4096), (last, 8300)] {
        let disk = original.killed();
        disk.make_unreadable(&segment(number), at..at + 512);
        let before = disk.content(&segment(number));
        let piece = (at / 4096 * 4096) as u32..(at / 4096 * 4096 + 4096) as u32;
        let is_hit =
            |(of, range): &(u32, Range<u32>)| *of == number && range.start < piece.end && piece.start < range.end;
        let expected: Vec<u32> = (1..=9).filter(|n| !is_hit(&places[*n as usize - 1])).collect();
        assert!(expected.len() < 9, "byte {at} of {number}");

        let (found, told) = verified(&disk);
        assert_eq!(numbers(&found), expected, "byte {at} of {number}");
        assert!(told.iter().all(|damage| damage.what == "it cannot be read" && damage.segment == number), "{told:?}");
        assert!(told.iter().any(|damage| (damage.offset..damage.offset + damage.length).contains(&(at as u32))));
        let (_, commits, _) = replay(&copies::copied(&disk));
        assert_eq!(numbers(&commits), expected, "a copy has what can be read");

        let (log, commits, damage) = replay(&disk);
        assert_eq!((numbers(&commits), &damage), (expected, &told), "byte {at} of {number}");
        let next = commit_now(&log, commit(10)).expect("it goes on").epochs[0].segment;
        assert!(next > number);
        log.close();
        assert!(disk.content(&segment(number)) == before, "nothing is put in its place");
    }
}

#[test]
fn a_header_that_cannot_be_read_is_broken() {
    let (disk, _) = long();
    disk.make_unreadable(&segment(2), 0..512);
    let (_, commits, damage) = replay(&disk);
    assert_eq!(numbers(&commits), (1..=9).collect::<Vec<_>>());
    let expected = Damage { segment: 2, offset: 0, length: BLOCK_BYTES, what: "its header cannot be read" };
    assert_eq!(damage, [expected]);
}

#[test]
fn what_cannot_be_read_behind_the_last_commit_may_have_been_one() {
    let (disk, places) = long();
    let (last, range) = places.last().cloned().expect("there are some");
    let at = range.end.next_multiple_of(4096) as usize;
    disk.make_unreadable(&segment(last), at..at + 1);
    let before = disk.content(&segment(last));
    let (log, commits, damage) = replay(&disk);
    assert_eq!(numbers(&commits), (1..=9).collect::<Vec<_>>());
    let expected = Damage {
        segment: last,
        offset: range.end,
        length: (at + 4096).min(before.len()) as u32 - range.end,
        what: "it cannot be read",
    };
    assert_eq!(damage, [expected]);
    assert_eq!(commit_now(&log, commit(10)).expect("committed").epochs[0].segment, last + 1);
    log.close();
    assert!(disk.content(&segment(last)) == before);
    let (_, commits, again) = replay(&disk);
    assert_eq!((commits.len(), again), (10, damage));
}

#[test]
fn a_record_to_begin_behind_that_cannot_be_read_is_not_in_the_log() {
    let (disk, places) = long();
    let (last, range) = places.last().cloned().expect("there are some");
    let (log, commits, _) = replay(&disk);
    log.close();
    let after = commits.last().map(|commit| commit.end);
    disk.make_unreadable(&segment(last), range.end as usize - 8..range.end as usize);
    let found = try_replay(LogOptions { after, ..options(&disk) }).map(|(_, commits, _)| commits.len());
    assert!(matches!(found, Err(LogError::NotInLog(_))), "{found:?}");
    let (_, commits, damage) = try_replay(LogOptions { known: after, ..options(&disk) }).expect("opens");
    assert_eq!(numbers(&commits), (1..=8).collect::<Vec<_>>());
    assert_eq!((damage[0].offset, damage[0].what), (range.start, "it cannot be read"));
}
