//! Compaction: positions stay, what is dropped says so, and whatever happens half-way, one whole file is there.

use super::*;
use crate::log::opened::Opened;

/// A commit of the model: its values with whether they are still kept, its epochs.
struct Known {
    blobs: Vec<(BlobHash, Position, Bytes, bool)>,
    epochs: Vec<(EpochRecord, Position)>,
}

impl Known {
    fn segment(&self) -> u32 {
        self.blobs
            .iter()
            .map(|blob| blob.1)
            .chain(self.epochs.iter().map(|epoch| epoch.1))
            .next()
            .expect("some")
            .segment
    }

    /// What replay is to deliver of it.
    fn left(&self) -> Option<ReplayedCommit> {
        let kept = self.blobs.iter().filter(|blob| blob.3);
        let blobs: Vec<_> =
            kept.map(|(hash, at, bytes, _)| BlobRecord { hash: *hash, at: *at, bytes: bytes.clone() }).collect();
        let end = self.epochs.last().map(|epoch| epoch.1).or(blobs.last().map(|blob| blob.at))?;
        Some(ReplayedCommit { blobs, epochs: self.epochs.clone(), end })
    }
}

fn roomy(disk: &FakeDisk) -> LogOptions {
    LogOptions { segment_bytes: 96 * 1024, ..options(disk) }
}

/// Commits of up to four values and two epochs, not all of which have both.
fn random_commits(log: &Log, draw: &mut Draw, count: u64) -> Vec<Known> {
    let one = |_| {
        let large = if draw.below(20) == 0 { 30_000 } else { 2000 };
        let blobs: Vec<_> = (0..draw.below(5))
            .map(|_| {
                let bytes = Bytes::from(vec![draw.next() as u8; draw.below(large) as usize]);
                (BlobHash::of(&bytes), bytes)
            })
            .collect();
        let least = u64::from(blobs.is_empty());
        let epochs: Vec<_> = (0..draw.below(2) + least).map(|_| commit(draw.next() as u32).epochs.remove(0)).collect();
        let at = commit_now(log, Commit { blobs: blobs.clone(), epochs: epochs.clone() }).expect("committed");
        Known {
            blobs: blobs.into_iter().zip(at.blobs).map(|((hash, bytes), at)| (hash, at, bytes, true)).collect(),
            epochs: epochs.into_iter().zip(at.epochs).collect(),
        }
    };
    (0..count).map(one).collect()
}

fn assert_known(reader: &LogReader, known: &[Known]) {
    for commit in known {
        for (_, at, bytes, is_kept) in &commit.blobs {
            match reader.read_blob(*at) {
                Ok(read) => assert!(*is_kept && read == *bytes, "{at:?}"),
                Err(ReadError::Freed(freed)) => assert!(!is_kept && freed == *at, "{at:?}"),
                Err(error) => panic!("{at:?}: {error}"),
            }
            assert_eq!(reader.holds(*at).expect("readable"), *is_kept);
        }
        for (epoch, at) in &commit.epochs {
            assert_eq!(reader.read_epoch(*at).expect("epochs stay"), *epoch);
        }
    }
}

/// Compacts with keeps drawn at random, checks what `keep` is given, and writes the outcome into the model.
fn compact_some(log: &Log, segment: u32, known: &mut [Known], draw: &mut Draw) -> Compacted {
    let mut here = known.iter_mut().filter(|commit| commit.segment() == segment && commit.left().is_some());
    let (mut blobs, mut bytes) = (0, 0);
    let compacted = log.compact(
        segment,
        |commit| {
            let known = here.next().expect("no commit twice");
            assert_eq!(known.left().as_ref(), Some(commit));
            let mut keep = Vec::new();
            for blob in known.blobs.iter_mut().filter(|blob| blob.3) {
                blob.3 = draw.below(3) > 0;
                keep.push(blob.3);
                if !blob.3 {
                    blobs += 1;
                    bytes += u64::from(record::record_bytes(blob.1.length as usize).expect("small"));
                }
            }
            keep
        },
        |_| true,
    );
    assert!(here.next().is_none(), "every commit is asked about");
    let compacted = compacted.expect("compacted");
    assert_eq!((compacted.blobs_dropped, compacted.bytes_dropped), (blobs, bytes));
    compacted
}

#[test]
fn positions_stay_through_any_number_of_compactions() {
    for seed in 0..5 {
        let mut draw = Draw(seed);
        let disk = FakeDisk::default();
        let (log, _, _) = try_replay(roomy(&disk)).expect("a new log");
        let mut known = random_commits(&log, &mut draw, 150);
        let sealed: Vec<_> = log.segments().into_iter().filter(|info| info.is_sealed).collect();
        assert!(sealed.len() > 1);
        let unread = LogReader::new(Path::new(DIR), Arc::new(disk.clone()));
        for round in 1..=4 {
            for info in &sealed {
                let before = disk.content(&segment(info.segment)).len() as u64;
                let compacted = compact_some(&log, info.segment, &mut known, &mut draw);
                let content = disk.content(&segment(info.segment)).len() as u64;
                assert_eq!((compacted.bytes_before, compacted.bytes_after), (before, content));
                // The table may take more than a small value did; never more than itself and its page.
                assert!(content <= before || (compacted.blobs_dropped > 0 && content < before + 4200), "seed {seed}");
            }
            assert_known(&log.reader(), &known);
            let infos = log.segments();
            assert!(infos.iter().filter(|info| info.is_sealed).all(|info| info.generation <= round));
        }
        assert!(log.segments()[0].generation > 1, "compacted again");
        assert_known(&unread, &known);
        log.close();
        let (log, commits, damage) = try_replay(roomy(&disk)).expect("the log opens");
        assert_eq!(damage, []);
        assert_eq!(commits, known.iter().filter_map(Known::left).collect::<Vec<_>>(), "seed {seed}");
        assert_known(&log.reader(), &known);
        log.close();
        let (verified_commits, damage) = verified(&disk);
        assert!(verified_commits == commits && damage.is_empty());
    }
}

#[test]
fn a_segment_of_which_nothing_is_kept_goes_on_as_an_empty_one() {
    let disk = FakeDisk::default();
    let (log, _) = open(&disk);
    let blobs_of = |n| Commit { epochs: Vec::new(), ..sized(n, 3000) };
    let places: Vec<_> = (1..=10).map(|n| commit_now(&log, blobs_of(n)).expect("committed").blobs[0]).collect();
    for _ in 0..2 {
        log.compact(1, |_| vec![false], |_| true).expect("compacted");
        for at in &places {
            let freed = matches!(log.read_blob(*at), Err(ReadError::Freed(_)));
            assert_eq!(freed, at.segment == 1);
        }
    }
    log.close();
    let (log, commits, damage) = replay(&disk);
    log.close();
    let left = places.iter().filter(|at| at.segment > 1).count();
    assert_eq!((commits.len(), damage), (left, vec![]));
}

#[test]
fn what_was_never_a_position_is_damaged_and_not_freed() {
    let disk = FakeDisk::default();
    let (log, _) = open(&disk);
    let first = commit_now(&log, sized(1, 3000)).expect("committed").blobs[0];
    (2..=9).for_each(|n| drop(commit_now(&log, sized(n, 3000)).expect("committed")));
    log.compact(1, |commit| vec![commit.end.offset % 16 == 4 || commit.blobs[0].at == first], |_| true)
        .expect("compacted");
    for wrong in [
        Position { length: first.length - 8, ..first },
        Position { offset: first.offset + 8, ..first },
        Position { offset: first.offset + 1, ..first },
        Position { offset: 0, ..first },
        Position { segment: 77, ..first },
    ] {
        assert!(matches!(log.read_blob(wrong), Err(ReadError::Damaged(at)) if at == wrong), "{wrong:?}");
        assert!(!log.reader().holds(wrong).expect("readable"));
    }
    assert!(matches!(log.read_epoch(first), Err(ReadError::Damaged(_))), "it is a value");
    log.close();
}

#[test]
fn commits_reads_and_older_readers_go_on_meanwhile() {
    let disk = FakeDisk::default();
    let (log, _) = open(&disk);
    let places: Vec<_> = (1..=20).map(|n| commit_now(&log, sized(n, 2000)).expect("committed").blobs[0]).collect();
    let former = log.reader().segments.get(1).expect("readable").expect("there");
    let mut n = 20;
    log.compact(
        1,
        |_| {
            n += 1;
            commit_now(&log, sized(n, 2000)).expect("committed while a segment is compacted");
            assert_eq!(log.read_blob(places[0]).expect("still there"), sized(1, 2000).blobs[0].1);
            vec![false]
        },
        |_| true,
    )
    .expect("compacted");
    assert!(n > 20);
    assert!(matches!(log.read_blob(places[0]), Err(ReadError::Freed(_))));
    let (_, payload) = former.read(places[0]).expect("who has the former file reads on");
    assert_eq!(payload[32..], sized(1, 2000).blobs[0].1);
    // Whoever opened the former file and comes late with it does not bring it back.
    log.reader().segments.insert(former);
    assert!(matches!(log.read_blob(places[0]), Err(ReadError::Freed(_))));
    log.close();
}

#[test]
fn a_reader_meets_one_generation_or_the_other() {
    let disk = FakeDisk::default();
    let (log, _) = open(&disk);
    let places: Vec<_> = (1..=20).map(|n| commit_now(&log, sized(n, 2000)).expect("committed").blobs[0]).collect();
    let reader = log.reader();
    thread::scope(|scope| {
        let compacting = scope.spawn(|| {
            for round in 0..40 {
                for info in log.segments().iter().filter(|info| info.is_sealed) {
                    let keep = |commit: &ReplayedCommit| vec![round < 30 || commit.end.offset.is_multiple_of(3)];
                    log.compact(info.segment, keep, |_| true).expect("compacted");
                }
            }
        });
        while !compacting.is_finished() {
            for (n, at) in (1..).zip(&places) {
                match reader.read_blob(*at) {
                    Ok(bytes) => assert_eq!(bytes, sized(n, 2000).blobs[0].1),
                    Err(ReadError::Freed(_)) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        }
    });
    log.close();
}

/// A closed log of 20 commits, its positions, and how many segments are sealed.
fn closed(disk: &FakeDisk) -> (Log, Vec<Appended>, u32) {
    let (log, _) = open(disk);
    let places: Vec<_> = (1..=20).map(|n| commit_now(&log, sized(n, 2000)).expect("committed")).collect();
    log.close();
    (log, places, 3)
}

/// Which commits' values are in segment 1 of what replay delivers. All epochs of 1 to 20 must be there.
fn values_in_first(commits: &[ReplayedCommit]) -> Vec<u32> {
    let numbers = numbers_of_some(commits);
    assert_eq!(numbers, (1..=20).collect::<Vec<_>>(), "every commit is there");
    let with_value =
        commits.iter().zip(numbers).filter(|(commit, _)| commit.end.segment == 1 && !commit.blobs.is_empty());
    with_value.map(|(_, n)| n).collect()
}

#[test]
fn a_power_cut_at_any_step_leaves_one_generation_whole() {
    let disk = FakeDisk::default();
    let (log, places, _) = closed(&disk);
    let here = places.iter().filter(|at| at.epochs[0].segment == 1).count() as u32;
    let mut kept: Vec<u32> = (1..=here).collect();
    let mut seen = [0, 0];
    for round in 0..3 {
        let before = kept.clone();
        disk.watch();
        let mut n = 0_u32;
        log.compact(
            1,
            |commit| {
                n += 1;
                let keep = !(n + round).is_multiple_of(3);
                if !keep {
                    kept.retain(|kept| *kept != n);
                }
                vec![keep; commit.blobs.len()]
            },
            |_| true,
        )
        .expect("compacted");
        assert_ne!(before, kept);
        for (step, moment) in disk.take_moments().into_iter().enumerate() {
            for seed in 0..20 {
                let mut draw = Draw(seed << 8 | step as u64);
                let left = match seed {
                    0 => moment.power_cut(|| false),
                    1 => moment.power_cut(|| true),
                    2 => moment.killed(),
                    _ => moment.power_cut(|| draw.below(2) == 0),
                };
                let (log, commits, damage) = replay(&left);
                log.close();
                assert_eq!(damage, [], "round {round}, step {step}, seed {seed}");
                let values = values_in_first(&commits);
                assert!(values == before || values == kept, "round {round}, step {step}, seed {seed}: {values:?}");
                seen[usize::from(values == kept)] += 1;
                assert!(
                    left.names().iter().all(|name| !name.to_string_lossy().ends_with(".new")),
                    "nothing is left over"
                );
            }
        }
        // What was reported is there for good.
        let (log, commits, _) = replay(&disk.power_cut(|| false));
        log.close();
        assert_eq!(values_in_first(&commits), kept);
    }
    assert!(seen.iter().all(|seen| *seen > 10), "both were met: {seen:?}");
}

#[test]
fn whatever_fails_the_old_file_stays_in_use() {
    for fault in [Fault::Write(".seg.new"), Fault::Sync(".seg.new"), Fault::Rename("00000001.seg"), Fault::SyncDir] {
        let disk = FakeDisk::default();
        let (log, places, _) = closed(&disk);
        for again in 0..2 {
            disk.fail_next(fault);
            let failed = log.compact(1, |_| vec![false], |_| true);
            assert!(matches!(failed, Err(CompactError::Io { .. })), "{fault:?}: {failed:?}");
            for (n, at) in (1..).zip(&places) {
                assert_eq!(log.read_blob(at.blobs[0]).expect("as before"), sized(n, 2000).blobs[0].1, "{fault:?}");
                assert_eq!(log.read_epoch(at.epochs[0]).expect("as before"), sized(n, 2000).epochs[0]);
            }
            assert!(disk.names().iter().all(|name| !name.to_string_lossy().ends_with(".new")));
            let (left, commits, damage) = replay(&disk.power_cut(|| again == 0));
            left.close();
            assert_eq!(damage, []);
            assert_eq!(numbers_of_some(&commits), (1..=20).collect::<Vec<_>>());
        }
        log.compact(1, |_| vec![false], |_| true).expect("compacted at last");
        assert!(matches!(log.read_blob(places[0].blobs[0]), Err(ReadError::Freed(_))));
    }
}

#[test]
fn what_is_left_over_of_a_compaction_is_removed_at_the_next_start() {
    let disk = FakeDisk::default();
    let (_, _, _) = closed(&disk);
    let left_over = Path::new(DIR).join("00000001.seg.new");
    disk.put(&left_over, &[1; 5000]);
    assert_eq!(verified(&disk).1, []);
    assert!(disk.names().contains(&left_over), "verifying touches nothing");
    assert_eq!(open(&disk).1, (1..=20).collect::<Vec<_>>());
    assert!(!disk.names().contains(&left_over));
}

#[test]
fn only_sealed_segments_are_compacted() {
    let disk = FakeDisk::default();
    let (log, _) = open(&disk);
    let refused = |log: &Log, segment| {
        let refused = log.compact(segment, |_| panic!("not asked"), |_| true);
        assert!(matches!(refused, Err(CompactError::NotSealed(at)) if at == segment), "{refused:?}");
    };
    (0..3).for_each(|segment| refused(&log, segment));
    commit_now(&log, commit(1)).expect("committed");
    refused(&log, 1);
    disk.fail_next(Fault::Sync("00000001.seg"));
    assert!(commit_now(&log, commit(2)).is_err());
    refused(&log, 1); // nothing says durably where it ends
    commit_now(&log, commit(3)).expect("committed");
    refused(&log, 2);
    let compacted = log.compact(1, |_| Vec::new(), |_| true).expect("compacted");
    assert_eq!(compacted.blobs_dropped, 0);
    assert!(compacted.bytes_after < u64::from(BLOCK_BYTES) * 3, "its zeros are gone: {compacted:?}");
    log.close();
    assert_eq!(open(&disk.power_cut(|| false)).1, [1, 3]);
}

#[test]
fn a_damaged_segment_is_left_alone() {
    let disk = FakeDisk::default();
    let (log, places, _) = closed(&disk);
    drop(log);
    let end = places[1].epochs[0].offset;
    for compacted_before in [false, true] {
        let whole = disk.killed();
        if compacted_before {
            let (log, _) = open(&whole);
            log.compact(1, |commit| vec![commit.end.offset % 16 == 4], |_| true).expect("compacted");
            log.close();
        }
        let length = whole.content(&segment(1)).len();
        for at in [3, 5000, end as usize, length - 1].into_iter().filter(|at| compacted_before || *at < length - 1) {
            let broken = whole.killed();
            let mut content = broken.content(&segment(1));
            content[at] ^= 4;
            broken.put(&segment(1), &content);
            let (log, _, _) = replay(&broken);
            let refused = log.compact(1, |_| vec![false], |_| true);
            assert!(matches!(refused, Err(CompactError::Damaged(_))), "byte {at}: {refused:?}");
            log.close();
            assert_eq!(broken.content(&segment(1)), content);
            assert!(broken.names().iter().all(|name| !name.to_string_lossy().ends_with(".new")));
        }
    }
}

#[test]
fn bytes_that_change_between_looking_and_copying_get_no_new_checksum() {
    let disk = FakeDisk::default();
    let (log, places, _) = closed(&disk);
    let mut calls = 0;
    let changed = disk.clone();
    let refused = log.compact(
        1,
        |commit| {
            calls += 1;
            if commit.end == places[1].epochs[0] {
                let file = changed.open(&segment(1)).expect("there");
                let at = u64::from(places[0].blobs[0].offset) + 99;
                file.write_at(&[0xaa], at).expect("written");
            }
            vec![calls != 3]
        },
        |_| true,
    );
    assert!(matches!(refused, Err(CompactError::Damaged(Damage { segment: 1, .. }))), "{refused:?}");
}

#[test]
fn compaction_needs_room_for_the_new_file_and_takes_the_reserve() {
    let needed = {
        let disk = FakeDisk::default();
        let (log, _, _) = closed(&disk);
        log.compact(1, |_| vec![false], |_| true).expect("compacted").bytes_after
    };
    let disk = FakeDisk::default();
    let (log, _) = try_open(LogOptions { reserve_bytes: 1 << 30, ..options(&disk) }).expect("a new log");
    (1..=20).for_each(|n| drop(commit_now(&log, sized(n, 2000)).expect("committed")));
    log.close();
    let used = disk.files().values().map(|content| content.len() as u64).sum::<u64>();
    disk.set_capacity(Some(used + needed + 1024 * 1024 - 1));
    disk.take_events();
    assert!(matches!(log.compact(1, |_| vec![false], |_| true), Err(CompactError::DiskFull)));
    assert_eq!(disk.take_events(), [], "found before anything was written");
    disk.set_capacity(Some(used + needed + 1024 * 1024));
    log.compact(1, |_| vec![false], |_| true).expect("there is just enough");
    // A quota is met while writing.
    let used = disk.files().values().map(|content| content.len() as u64).sum::<u64>();
    disk.set_quota(Some(used + 100));
    let full = log.compact(2, |_| vec![false], |_| true);
    assert!(matches!(full, Err(CompactError::DiskFull)), "{full:?}");
    assert!(disk.names().iter().all(|name| !name.to_string_lossy().ends_with(".new")));
}

#[test]
fn the_segments_are_told_by_their_headers() {
    let disk = FakeDisk::default();
    let (log, _) = open(&disk);
    assert_eq!(log.segments(), []);
    let mut ends = Vec::new();
    for n in 1..=12 {
        let at = commit_now(&log, sized(n, 2000)).expect("committed").epochs[0];
        let end = u64::from((at.offset + at.length).next_multiple_of(8));
        ends.retain(|(segment, _)| *segment != at.segment);
        ends.push((at.segment, end - u64::from(BLOCK_BYTES)));
        let infos = log.segments();
        let told: Vec<_> = infos.iter().map(|info| (info.segment, info.record_bytes)).collect();
        assert_eq!(told, ends);
        assert!(infos.iter().all(|info| info.is_sealed == (info.segment < at.segment)));
        assert!(infos.iter().all(|info| info.generation == 0 && info.file_bytes == u64::from(SEGMENT_BYTES)));
    }
    let compacted = log.compact(2, |_| vec![false], |_| true).expect("compacted");
    let infos = log.segments();
    assert_eq!((infos[1].generation, infos[1].file_bytes), (1, compacted.bytes_after));
    assert_eq!(infos[1].record_bytes, ends[1].1 - compacted.bytes_dropped);
    assert_eq!(infos[0].record_bytes, ends[0].1);
    log.close();
    let (log, _, _) = replay(&disk);
    assert_eq!(log.segments(), infos);
    log.close();
}

#[test]
fn a_segment_that_would_lose_nothing_stays_as_it_is() {
    let disk = FakeDisk::default();
    let (log, _, _) = closed(&disk);
    log.compact(1, |_| vec![false], |_| true).expect("compacted");
    let content = disk.content(&segment(1));
    let again = log.compact(1, |_| Vec::new(), |_| true).expect("nothing to do");
    assert_eq!((again.bytes_before, again.bytes_after), (content.len() as u64, content.len() as u64));
    assert_eq!(disk.content(&segment(1)), content);
    let opened = Opened::open(&disk, Path::new(DIR), 1).expect("readable").expect("there");
    assert_eq!(opened.header.generation, 1);
}
