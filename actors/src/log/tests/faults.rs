//! Broken syncs, full disks and power cuts: what an answer is worth.

use super::*;

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
fn room_that_came_meanwhile_is_found_at_the_first_commit() {
    let disk = FakeDisk::default();
    disk.set_capacity(Some(u64::from(SEGMENT_BYTES) + 1024));
    let questions = disk.questions();
    let (log, _) = open(&disk);
    commit_now(&log, sized(1, 8000)).expect("the first segment fits");
    for _ in 0..2 {
        questions.recv().expect("a question"); // for the first segment; for the second: no room
    }
    disk.set_capacity(None);
    commit_now(&log, sized(2, 8000)).expect("there is room now");
    log.close();
}

#[test]
fn a_disk_that_fills_while_zeros_are_written_leaves_no_rest() {
    let disk = FakeDisk::default();
    disk.set_quota(Some(u64::from(SEGMENT_BYTES) - 1));
    let (log, _) = open(&disk);
    assert_eq!(commit_now(&log, commit(1)), Err(AppendError::DiskFull));
    assert_eq!(disk.names(), [] as [PathBuf; 0]);
    log.close();
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
                    4 => disk.fail_next([Fault::Write(".seg.new"), Fault::Sync(".seg.new")][draw.below(2) as usize]),
                    5 | 6 => {
                        let newest = log.segments().last().map_or(0, |info| info.segment);
                        let compacted =
                            log.compact(1 + draw.below(u64::from(newest) + 1) as u32, |_| Vec::new(), |_| true);
                        let fails =
                            matches!(compacted, Ok(_) | Err(CompactError::Io { .. } | CompactError::NotSealed(_)));
                        assert!(fails, "seed {seed}: {compacted:?}");
                    }
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
