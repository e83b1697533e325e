//! Torn ends, changed bytes, records of another life: what replay believes and what it reports.

use super::*;

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
    let (disk, ends) = written(4);
    let whole = disk.content(&segment(1));
    for at in 0..ends[3] as usize {
        if (32 + 4..BLOCK_BYTES as usize - 8).contains(&at) && at % 64 != 0 {
            continue; // the header block's zeros: a sample will do
        }
        let mut changed = whole.clone();
        changed[at] ^= 0x10;
        let disk = with_segment(&changed);
        let (log, commits, damage) = replay(&disk);
        let lost = ends.iter().filter(|end| **end as usize <= at).count() as u32;
        assert_eq!(numbers(&commits), (1..=4).filter(|n| *n != lost).collect::<Vec<_>>(), "byte {at}");
        let [Damage { segment: 1, offset, length, .. }] = damage[..] else { panic!("byte {at}: {damage:?}") };
        let (start, end) = if lost == 0 { (0, BLOCK_BYTES) } else { (ends[lost as usize - 1], ends[lost as usize]) };
        assert_eq!((offset, length), (start, end - start), "byte {at}");
        // Nothing is written there again, and the next start finds the same and what came since.
        let next = commit_now(&log, commit(5)).expect("committed");
        assert_eq!(next.epochs[0].segment, 2, "byte {at}");
        log.close();
        assert_eq!(disk.content(&segment(1)), changed);
        let (log, commits, again) = replay(&disk);
        assert_eq!(numbers(&commits), (1..=5).filter(|n| *n != lost).collect::<Vec<_>>(), "byte {at}");
        assert_eq!(again, damage);
        log.close();
    }
}

#[test]
fn a_sealed_segment_loses_what_is_broken_and_nothing_else() {
    let disk = FakeDisk::default();
    let (log, _) = open(&disk);
    let mut places = Vec::new();
    while places.last().is_none_or(|last: &Position| last.segment < 2) {
        places.push(commit_now(&log, sized(places.len() as u32 + 1, 1000)).expect("committed").epochs[0]);
    }
    log.close();
    let n = places.len() as u32;
    let ends: Vec<u32> = places.iter().map(|at| (at.offset + at.length).next_multiple_of(8)).collect();
    let end = ends[places.len() - 2];
    let whole = disk.content(&segment(1));
    for at in (BLOCK_BYTES..end).step_by(7) {
        let mut changed = whole.clone();
        changed[at as usize] ^= 1;
        let changed_disk = disk.killed();
        changed_disk.put(&segment(1), &changed);
        let (log, commits, damage) = replay(&changed_disk);
        log.close();
        let lost = 1 + ends[..ends.len() - 1].iter().filter(|end| **end <= at).count() as u32;
        assert_eq!(numbers(&commits), (1..=n).filter(|n| *n != lost).collect::<Vec<_>>(), "byte {at}");
        assert!(
            matches!(damage[..], [Damage { segment: 1, offset, length, .. }] if (offset..offset + length).contains(&at))
        );
    }
    let mut behind = whole.clone();
    behind[end as usize + 64..].fill(0xee);
    let behind_disk = disk.killed();
    behind_disk.put(&segment(1), &behind);
    assert_eq!(open(&behind_disk).1, (1..=n).collect::<Vec<_>>(), "nothing counts behind the recorded end");
    let missing = disk.killed();
    missing.remove(&segment(1)).expect("it was there");
    let (_, commits, damage) = replay(&missing);
    assert_eq!(numbers(&commits), [n]);
    assert_eq!(damage, [Damage { segment: 1, offset: 0, length: end, what: "its file is missing" }]);
    let short = disk.killed();
    short.put(&segment(1), &whole[..ends[1] as usize + 9]);
    let (_, commits, damage) = replay(&short);
    assert_eq!(numbers(&commits), [1, 2, n]);
    assert!(
        matches!(damage[..], [Damage { segment: 1, offset, length, .. }] if (offset, length) == (ends[1], end - ends[1]))
    );
    for foreign in [vec![], vec![0; 9000], vec![0x5a; 20_000]] {
        let foreign_disk = disk.killed();
        foreign_disk.put(&segment(1), &foreign);
        let (_, commits, damage) = replay(&foreign_disk);
        assert_eq!(numbers(&commits), [n]);
        assert!(damage.iter().any(|damage| damage.segment == 1), "{damage:?}");
    }
}

#[test]
fn a_commit_that_lost_its_beginning_is_no_smaller_commit() {
    let disk = FakeDisk::default();
    let (log, _) = open(&disk);
    let epochs = |n: u32| (0..3).map(|i| commit(10 * n + i).epochs.remove(0)).collect::<Vec<_>>();
    let places: Vec<_> = (1..=3)
        .map(|n| commit_now(&log, Commit { blobs: Vec::new(), epochs: epochs(n) }).expect("committed").epochs)
        .collect();
    log.close();
    for broken in 0..3 {
        let mut content = disk.content(&segment(1));
        content[places[1][broken].offset as usize + 3] ^= 1;
        let (_, commits, damage) = replay(&with_segment(&content));
        let ends: Vec<_> = commits.iter().map(|commit| (commit.epochs.len(), commit.end)).collect();
        assert_eq!(ends, [(3, places[0][2]), (3, places[2][2])], "record {broken}");
        assert_eq!(damage.len(), 1);
    }
}

#[test]
fn what_only_looks_like_a_huge_record_ends_no_search() {
    let (disk, ends) = written(4);
    let mut content = disk.content(&segment(1));
    // A head that begins a commit, of a gigabyte, that would witness what is broken.
    let mut head = [0, 0, 0, 0x40, 1, 2, 0, 0, 0, 0, 0, 0];
    head[8..].copy_from_slice(&(ends[1] + 8).to_le_bytes());
    content[ends[1] as usize..ends[2] as usize].fill(0);
    let at = ends[1] as usize + 16;
    content[at..at + 12].copy_from_slice(&head);
    let (_, commits, damage) = replay(&with_segment(&content));
    assert_eq!(numbers(&commits), [1, 3, 4]);
    assert_eq!((damage[0].offset, damage[0].length, damage.len()), (ends[1], ends[2] - ends[1], 1));
}

#[test]
fn another_format_is_refused() {
    let (disk, _) = written(2);
    let mut block = disk.content(&segment(1))[..BLOCK_BYTES as usize].to_vec();
    block[8] = 77;
    block[28..36].fill(0);
    let checksum = blake3::hash(&block).as_bytes()[..8].to_vec();
    block[28..36].copy_from_slice(&checksum);
    let found = try_open(options(&with_segment(&block))).map(|(_, found)| found);
    assert!(matches!(found, Err(LogError::OtherFormat { segment: 1, found: 77, .. })), "{found:?}");
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
    let header = segment::Header { segment: 1, generation: 1, end: ends[2], previous_end: 0 };
    let mut content = disk.content(&segment(1));
    content[..BLOCK_BYTES as usize].copy_from_slice(&header.encode());
    let (_, commits, damage) = replay(&with_segment(&content));
    assert_eq!(commits, []);
    assert_eq!((damage[0].offset, damage[0].length), (BLOCK_BYTES, ends[2] - BLOCK_BYTES));
}

/// Commits 1 to 4 in one segment, and 5 in the next if it is `sealed`; where each ends. The value of 2 is full of what
/// looks like heads, of records that begin a commit and would witness.
fn with_a_value_full_of_heads(sealed: bool) -> (FakeDisk, Vec<u32>) {
    let disk = FakeDisk::default();
    let (log, _) = try_open(wide(&disk)).expect("a new log");
    let mut ends = vec![BLOCK_BYTES];
    for n in 1..=4 + u32::from(sealed) {
        let mut commit = commit(n);
        if n == 2 {
            let mut head = [0, 0, 16, 0, 1, 2, 0, 0, 0, 0, 0, 0];
            head[8..].copy_from_slice(&(ends[1] + 8).to_le_bytes());
            // Records are aligned, and so must be what looks like one: 20 bytes of head and 32 of hash come first.
            let mut value = vec![0xff; 4];
            (0..200).for_each(|_| value.extend_from_slice(&[&head[..], &[0; 12]].concat()));
            let value = Bytes::from(value);
            commit.blobs = vec![(BlobHash::of(&value), value)];
        } else if n == 5 {
            commit = sized(5, (4 << 20) - 8192);
        }
        let at = commit_now(&log, commit).expect("committed").epochs[0];
        ends.push((at.offset + at.length).next_multiple_of(8));
        assert_eq!(at.segment, n / 5 + 1);
    }
    log.close();
    (disk, ends)
}

/// Segments that hold such values.
fn wide(disk: &FakeDisk) -> LogOptions {
    LogOptions { segment_bytes: 4 << 20, ..options(disk) }
}

fn epochs_of(commits: &[ReplayedCommit]) -> Vec<u32> {
    let number = |commit: &ReplayedCommit| u32::from_be_bytes(commit.epochs[0].0.header[..].try_into().expect("four"));
    commits.iter().map(number).collect()
}

#[test]
fn a_broken_value_full_of_heads_hides_nothing_behind_it() {
    for sealed in [true, false] {
        let (disk, ends) = with_a_value_full_of_heads(sealed);
        let mut content = disk.content(&segment(1));
        content[ends[1] as usize + 60] ^= 1;
        disk.put(&segment(1), &content);
        let (log, commits, damage) = try_replay(wide(&disk)).expect("the log opens");
        log.close();
        assert_eq!(epochs_of(&commits), [1, 3, 4, 5][..3 + usize::from(sealed)]);
        assert_eq!((damage[0].offset, damage[0].length, damage.len()), (ends[1], ends[2] - ends[1], 1));
        assert!(disk.content(&segment(1)) == content, "nothing is cut off");
        let copied = copies::copied(&disk);
        assert_eq!(epochs_of(&try_replay(wide(&copied)).expect("the copy opens").1), epochs_of(&commits));
    }
}

#[test]
fn a_search_that_gives_up_cuts_nothing_off() {
    let (disk, ends) = with_a_value_full_of_heads(false);
    let mut content = disk.content(&segment(1));
    content[ends[1] as usize + 4] ^= 0x40; // the head itself: nothing says where its record ends
    disk.put(&segment(1), &content);
    let copied = copies::copied(&disk);
    assert!(copied.content(&segment(1)) == content, "what may hold more is copied as it is");
    let (log, commits, damage) = try_replay(wide(&disk)).expect("the log opens");
    assert_eq!(epochs_of(&commits), [1]);
    assert_eq!((damage[0].offset, damage[0].length, damage.len()), (ends[1], content.len() as u32 - ends[1], 1));
    assert_eq!(commit_now(&log, commit(6)).expect("committed").epochs[0].segment, 2);
    log.close();
    assert!(disk.content(&segment(1)) == content, "nothing is cut off");
    let (_, commits, again) = try_replay(wide(&disk)).expect("the log opens");
    assert_eq!((epochs_of(&commits), again), (vec![1, 6], damage));
}

#[test]
fn a_broken_length_that_leads_beyond_sound_commits_hides_none() {
    let (disk, ends) = written(5);
    let mut content = disk.content(&segment(1));
    let start = ends[1] as usize;
    content[start..start + 4].copy_from_slice(&(ends[3] - ends[1] - 20).to_le_bytes());
    let (_, commits, damage) = replay(&with_segment(&content));
    assert_eq!(numbers(&commits), [1, 3, 4, 5]);
    assert_eq!((damage[0].offset, damage[0].length, damage.len()), (ends[1], ends[2] - ends[1], 1));
}
