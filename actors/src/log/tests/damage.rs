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
