//! Copies of a log that is being written, and reading one without touching it.

use std::io::Read as _;

use super::*;

/// A disk with what a copy of the log holds now.
pub(super) fn copied(disk: &FakeDisk) -> FakeDisk {
    let copy_disk = FakeDisk::default();
    let done = copy(Path::new(DIR), disk, 1, |mut file| {
        let mut content = Vec::new();
        file.read_to_end(&mut content).expect("readable");
        assert_eq!(content.len() as u64, file.size_bytes);
        copy_disk.put(&Path::new(DIR).join(&file.name), &content);
        Ok::<_, Infallible>(())
    });
    done.expect("copied");
    copy_disk
}

#[test]
fn a_copy_is_a_log_that_opens_and_goes_on() {
    let disk = FakeDisk::default();
    let (log, _) = open(&disk);
    assert_eq!(open(&copied(&disk)).1, [] as [u32; 0], "a log without a commit");
    for n in 1..=30 {
        commit_now(&log, sized(n, 1500)).expect("committed");
        let copy_disk = copied(&disk);
        let (copy_log, found) = open(&copy_disk);
        assert_eq!(found, (1..=n).collect::<Vec<_>>());
        commit_now(&copy_log, commit(99)).expect("it goes on");
        copy_log.close();
        assert_eq!(open(&copy_disk).1.last(), Some(&99));
    }
    log.close();
    let mut names = Vec::new();
    let partly = copy(Path::new(DIR), &disk, 3, |file| {
        names.push((file.segment, file.name));
        if names.len() == 2 { Err("enough") } else { Ok(()) }
    });
    assert!(matches!(partly, Err(LogError::Stopped(_))));
    assert_eq!(names, [(3, "00000003.seg".to_owned()), (4, "00000004.seg".to_owned())]);
}

#[test]
fn a_copy_at_any_moment_is_a_beginning_of_the_log() {
    let disk = FakeDisk::default();
    let (log, _) = open(&disk);
    let held = hold_writer(&log, 1);
    let answers: Vec<_> = (2..=60).map(|n| append(&log, sized(n, 50 + n as usize * 40))).collect();
    disk.watch();
    drop(held);
    for answer in answers {
        answer.recv().expect("an answer").expect("committed");
    }
    for segment in 1..4 {
        log.compact(segment, |_| vec![false], |_| true).expect("compacted");
    }
    log.close();
    let mut longest = 0;
    for moment in disk.take_moments() {
        let (_, commits, damage) = replay(&copied(&moment));
        assert_eq!(damage, []);
        let found = numbers_of_some(&commits);
        assert_eq!(found, (1..=found.len() as u32).collect::<Vec<_>>());
        longest = longest.max(found.len());
    }
    assert_eq!(longest, 60);
}

#[test]
fn a_copy_while_others_write_and_compact_is_whole() {
    let disk = FakeDisk::default();
    let (log, _) = open(&disk);
    commit_now(&log, commit(1)).expect("committed");
    thread::scope(|scope| {
        scope.spawn(|| {
            for n in 2..=400 {
                commit_now(&log, sized(n, (n as usize * 131) % 3000)).expect("committed");
                let sealed = log.segments().into_iter().rfind(|info| info.is_sealed);
                if let Some(info) = sealed.filter(|_| n % 5 == 0) {
                    log.compact(info.segment, |commit| vec![commit.end.offset % 16 == 4], |_| true).expect("compacted");
                }
            }
        });
        let mut before = 0;
        while before < 400 {
            let (_, commits, damage) = replay(&copied(&disk));
            assert_eq!(damage, []);
            let found = numbers_of_some(&commits);
            assert_eq!(found, (1..=found.len() as u32).collect::<Vec<_>>());
            assert!(found.len() >= before);
            before = found.len();
        }
    });
    log.close();
}

#[test]
fn a_copy_ends_where_a_failed_segment_was_sealed() {
    let disk = FakeDisk::default();
    let (log, _) = open(&disk);
    commit_now(&log, commit(1)).expect("committed");
    disk.fail_next(Fault::Sync("00000001.seg"));
    assert!(commit_now(&log, commit(2)).is_err());
    let names = disk.files();
    commit_now(&log, commit(3)).expect("committed");
    // The next segment came while the copy was under way: this one was the last when it began.
    let late = FakeDisk::default();
    for (path, content) in disk.files() {
        late.put(&path, &content);
    }
    assert!(!names.contains_key(&segment(2)));
    let first = opened::Opened::open(&late, Path::new(DIR), 1).expect("readable").expect("there");
    let end = copy::last_end(&late, Path::new(DIR), &first).expect("readable");
    log.close();
    let (log, commits, _) = replay(&late);
    log.close();
    let behind = (commits[0].end.offset + commits[0].end.length).next_multiple_of(8);
    assert_eq!(end, Some(behind));
}

#[test]
fn damage_is_copied_as_it_is() {
    let disk = FakeDisk::default();
    let (log, _) = open(&disk);
    let places: Vec<_> = (1..=20).map(|n| commit_now(&log, sized(n, 1500)).expect("committed").blobs[0]).collect();
    log.compact(1, |_| vec![false], |_| true).expect("compacted");
    log.close();
    // In a compacted segment, a sealed one, and the last.
    for hit in [places[0], places[9], places[18]] {
        let mut content = disk.content(&segment(hit.segment));
        content[5000.min(hit.offset as usize)] ^= 1;
        disk.put(&segment(hit.segment), &content);
    }
    let there = copied(&disk);
    let (_, commits, damage) = replay(&disk.killed());
    let (_, commits_there, damage_there) = replay(&there);
    assert_eq!((commits_there, damage_there.len()), (commits, 3));
    assert_eq!(damage_there, damage);
}

#[test]
fn verifying_tells_values_that_are_not_what_their_hash_says() {
    let disk = FakeDisk::default();
    let (log, _) = open(&disk);
    let Commit { mut blobs, epochs } = commit(2);
    blobs[0].0 = BlobHash([7; 32]);
    commit_now(&log, commit(1)).expect("committed");
    let wrong = commit_now(&log, Commit { blobs, epochs }).expect("committed").blobs[0];
    commit_now(&log, commit(3)).expect("committed");
    log.close();
    let (commits, damage) = verified(&disk);
    assert_eq!(commits.len(), 3);
    let [Damage { segment: 1, offset, .. }] = damage[..] else { panic!("{damage:?}") };
    assert_eq!(Some(offset), wrong.birth());
}
