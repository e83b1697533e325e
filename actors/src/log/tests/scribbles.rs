//! Random bytes in random places of a log with compacted, sealed and open segments.

use std::collections::BTreeMap;

use super::*;
use crate::log::{
    replay::{replay as replay_pieces, replayed},
    scan::Piece,
};

/// A commit and where its records lie now.
struct Lying {
    commit: ReplayedCommit,
    start: u32,
    next: u32,
}

struct Original {
    disk: FakeDisk,
    commits: Vec<Lying>,
    freed: Vec<Position>,
}

fn options_here(disk: &FakeDisk) -> LogOptions {
    LogOptions { segment_bytes: 48 * 1024, ..options(disk) }
}

/// Six segments: two compacted twice, one once, two sealed, one open; every commit synced by itself.
fn original() -> Original {
    let disk = FakeDisk::default();
    let (log, _) = try_open(options_here(&disk)).expect("a new log");
    let mut draw = Draw(7);
    let mut n = 0;
    while log.segments().len() < 7 {
        n += 1;
        commit_now(&log, sized(n, draw.below(3000) as usize)).expect("committed");
    }
    let mut freed = Vec::new();
    for segment in [1, 2, 3, 1, 2] {
        let keep = |commit: &ReplayedCommit| {
            let keep: Vec<bool> = commit.blobs.iter().map(|_| draw.below(3) > 0).collect();
            freed.extend(commit.blobs.iter().zip(&keep).filter(|(_, keep)| !**keep).map(|(blob, _)| blob.at));
            keep
        };
        log.compact(segment, keep, |_| true).expect("compacted");
    }
    (1..=9).for_each(|i| drop(commit_now(&log, sized(n + i, 900)).expect("committed")));
    log.close();
    let mut commits = Vec::new();
    let whole = replay_pieces(&disk, Path::new(DIR), None, None, &mut |piece| {
        let Piece::Commit(found) = piece else { panic!("{:?}", replayed(piece)) };
        commits.push(Lying { start: found.start(), next: found.next, commit: found.commit });
        Ok(())
    });
    whole.expect("whole");
    Original { disk, commits, freed }
}

/// Changes bytes of a file at random within its first `limit`; says which.
fn scribble(content: &mut [u8], limit: u32, draw: &mut Draw) -> Vec<u32> {
    let start = draw.below(u64::from(limit)) as usize;
    let length = [1, 1, 4, 30, 600, 5000][draw.below(6) as usize].min(limit as usize - start);
    let before = content[start..start + length].to_vec();
    match draw.below(4) {
        0 => content[start] ^= 1 << draw.below(8),
        1 => content[start..start + length].fill(0),
        2 => content[start..start + length].iter_mut().for_each(|byte| *byte = draw.next() as u8),
        // Sound records of another place, perhaps.
        _ => {
            let from = draw.below((limit as usize - length + 1) as u64) as usize;
            content.copy_within(from..from + length, start);
        }
    }
    let changed = before.iter().zip(&content[start..]).enumerate().filter(|(_, (before, now))| before != now);
    changed.map(|(i, _)| (start + i) as u32).collect()
}

#[test]
fn nothing_is_lost_but_what_was_hit_and_nothing_wrong_is_delivered() {
    let original = original();
    let last = original.commits.last().map_or(0, |lying| lying.commit.end.segment);
    for seed in (0..200).chain([1708, 3022, 3374]) {
        let mut draw = Draw(seed);
        let disk = original.disk.killed();
        // Behind the records of a segment that was never compacted, nothing counts.
        let limit = |segment: u32| match segment {
            1..=3 => disk.content(&self::segment(segment)).len() as u32,
            _ => original.commits.iter().rfind(|lying| lying.commit.end.segment == segment).map_or(0, |l| l.next),
        };
        let mut hit: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for _ in 0..1 + draw.below(3) {
            let segment = 1 + draw.below(u64::from(last)) as u32;
            let mut content = disk.content(&self::segment(segment));
            hit.entry(segment).or_default().extend(scribble(&mut content, limit(segment), &mut draw));
            disk.put(&self::segment(segment), &content);
        }
        let is_hit = |lying: &Lying| {
            let hit = hit.get(&lying.commit.end.segment).into_iter().flatten();
            hit.into_iter().any(|at| (lying.start..lying.next).contains(at))
        };
        let expected: Vec<_> = original.commits.iter().filter(|l| !is_hit(l)).map(|l| l.commit.clone()).collect();
        let (log, commits, damage) = try_replay(options_here(&disk)).expect("damage keeps no log from opening");
        assert!(commits.iter().all(|commit| original.commits.iter().any(|l| l.commit == *commit)), "seed {seed}");
        let missing = expected.iter().find(|commit| !commits.contains(commit));
        assert!(missing.is_none(), "seed {seed}: {missing:?}, hit {hit:?}, damage {damage:?}");
        assert!(commits.is_sorted_by_key(|commit| commit.end));

        let reader = log.reader();
        for lying in &original.commits {
            for blob in &lying.commit.blobs {
                match reader.read_blob(blob.at) {
                    Ok(bytes) => assert_eq!(bytes, blob.bytes, "seed {seed}"),
                    Err(ReadError::Damaged(_)) => assert!(is_hit(lying), "seed {seed}: {:?} of {hit:?}", blob.at),
                    Err(error) => panic!("seed {seed}: {error}, hit {hit:?}"),
                }
            }
        }
        assert!(original.freed.iter().all(|at| reader.read_blob(*at).is_err()), "seed {seed}");

        // An open log makes its next segment in the background.
        log.close();
        // Every hit is told, but for those in the end that may be torn.
        let (verified_commits, found) = verified(&disk);
        assert!(verified_commits == commits && found == damage, "seed {seed}: {found:?} and {damage:?}");
        let torn = original.commits.iter().rev().take_while(|l| is_hit(l)).last().map_or(u32::MAX, |l| l.start);
        for (segment, hits) in &hit {
            let told = |at: u32| {
                let mut here = damage.iter().filter(|damage| damage.segment == *segment);
                here.any(|damage| (damage.offset..damage.offset + damage.length).contains(&at))
            };
            let untold = hits.iter().find(|at| !(told(**at) || *segment == last && **at >= torn));
            // Without the header that says it nobody knows where a segment ended; what is broken there may be torn.
            let is_end_known = hit.get(&(segment + 1)).is_none_or(|hits| hits.iter().all(|at| *at >= BLOCK_BYTES));
            assert!(
                untold.is_none() || !is_end_known || hits.iter().any(|at| *at < BLOCK_BYTES),
                "seed {seed}: {untold:?} of {hit:?}"
            );
            assert!(hits.is_empty() || !damage.is_empty() || *segment == last, "seed {seed}");
        }

        let (log, _, _) = try_replay(options_here(&disk)).expect("the log opens");
        let next = commit_now(&log, commit(9999)).expect("it goes on");
        log.close();
        let (log, again, damage_again) = try_replay(options_here(&disk)).expect("the log opens");
        log.close();
        assert_eq!(again.len(), commits.len() + 1, "seed {seed}");
        assert_eq!(again.last().map(|commit| commit.end), Some(next.epochs[0]), "seed {seed}");
        assert_eq!(damage_again, damage, "seed {seed}");
    }
}
