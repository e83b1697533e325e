//! Damaged files: what an index says is what was written, or nothing.

use std::{
    fs,
    path::PathBuf,
    sync::{LazyLock, mpsc::sync_channel},
    thread,
    time::Duration,
};

use super::*;

/// Enough for several of sled's segments of 512 KiB, with pages that were written anew.
const COMMITS: usize = 40;
/// Longer than any opening takes.
const PATIENCE: Duration = Duration::from_secs(20);

fn commit_of(i: usize) -> Batch {
    let mut dice = Dice(i as u64);
    let mut batch = many(&format!("{} ", i % 15), 140);
    for value in batch.values_mut().flatten() {
        value.extend((0..250).map(|_| dice.next() as u8));
    }
    batch.insert(b"last".to_vec(), Some(i.to_be_bytes().to_vec()));
    batch
}

/// What the first so many commits leave.
fn model(commits: usize) -> Model {
    let mut model = Model::new();
    (0..commits).for_each(|i| apply(&mut model, &commit_of(i)));
    model
}

fn options() -> RecordsOptions {
    RecordsOptions { cache_bytes: 1 << 20, boot_id: Some("b1".into()), ..RecordsOptions::default() }
}

/// An index of all commits: closed, or as a killed process leaves it.
fn template(closed: bool) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let records = Records::open(dir.path(), &options()).expect("opened").records;
    for i in 0..COMMITS {
        commit(&records, &i.to_string(), vec![commit_of(i)]);
        records.settle().expect("settled");
    }
    if closed {
        records.close().expect("closed");
        return dir;
    }
    let copied = tempfile::tempdir().expect("a temporary folder");
    copy(dir.path(), copied.path());
    copied
}

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).expect("readable") {
        let entry = entry.expect("readable");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            fs::create_dir(&target).expect("created");
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("copied");
        }
    }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let names = OsDisk.list(&dir.join("db")).expect("readable");
    let mut files: Vec<_> = names.into_iter().map(|name| dir.join("db").join(name)).collect();
    files.push(dir.join("state"));
    files.retain(|path| path.is_file());
    files
}

/// Damages one file in one way; says what it did.
fn damage(dir: &Path, dice: &mut Dice) -> String {
    let files = files(dir);
    // Mostly the file that holds everything.
    let path = match dice.roll(3) {
        0 => files[dice.roll(files.len())].clone(),
        _ => dir.join("db/db"),
    };
    let mut bytes = fs::read(&path).expect("readable");
    let used = bytes.iter().rposition(|byte| *byte != 0).map_or(1, |last| last + 1);
    let what = match dice.roll(6) {
        0 => {
            fs::remove_file(&path).expect("removed");
            return format!("{} removed", path.display());
        }
        1 => {
            bytes.truncate(dice.roll(used));
            "truncated".to_owned()
        }
        2 => {
            let at = dice.roll(used);
            bytes[at] ^= 1 << dice.roll(8);
            format!("bit at {at}")
        }
        3 => {
            let at = dice.roll(used);
            let end = used.min(at + 4096);
            bytes[at..end].fill(0);
            format!("zeros at {at}")
        }
        _ => {
            let at = dice.roll(used);
            let end = used.min(at + 1 + dice.roll(2000));
            bytes[at..end].iter_mut().for_each(|byte| *byte = dice.next() as u8);
            format!("noise at {at}..{end} of {used}")
        }
    };
    fs::write(&path, bytes).expect("written");
    format!("{} {what}", path.display())
}

/// What is demanded of an index that is believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Demand {
    /// It is what its mark says.
    Whole,
    /// Each key has a value that it had at some time.
    Written,
}

/// What came of opening: `Ok(true)` if believed and as demanded, `Ok(false)` if not believed; an error says what was
/// wrong.
fn judge(dir: &Path, demand: Demand) -> Result<bool, String> {
    let opened = Records::open(dir, &options()).map_err(|error| format!("cannot even begin anew: {error}"))?;
    let records = opened.records;
    if opened.fresh.is_some() {
        let mut found = records.scan(b"", b"");
        return if found.next().is_none() { Ok(false) } else { Err("the new one is not empty".into()) };
    }
    let covered = opened.covered.and_then(|mark| String::from_utf8(mark).ok()).and_then(|mark| mark.parse().ok());
    let model = model(covered.map_or(0, |last: usize| last + 1));
    let mut found = Model::new();
    for record in records.scan(b"", b"") {
        let Ok((key, value)) = record else {
            return if records.failure().is_some() { Ok(false) } else { Err("an error that is no failure".into()) };
        };
        found.insert(key, value);
    }
    for (key, value) in &model {
        match records.get(key) {
            Ok(got) if got.as_ref() == Some(value) => {}
            Ok(got) if demand == Demand::Written && had(key, got.as_deref()) => {}
            Ok(got) => return Err(format!("{:?} is {got:?}", String::from_utf8_lossy(key))),
            Err(_) if records.failure().is_some() => return Ok(false),
            Err(error) => return Err(format!("an error that is no failure: {error}")),
        }
    }
    if found != model && demand == Demand::Whole {
        return Err(format!("{} records instead of {} at {covered:?}", found.len(), model.len()));
    }
    // It can be written on, or says that it cannot.
    commit(&records, "more", vec![put("more", "x")]);
    match records.settle().and_then(|()| records.close()) {
        Ok(()) => Ok(true),
        Err(_) => Ok(false),
    }
}

/// Whether some commit gave the key this value.
fn had(key: &[u8], value: Option<&[u8]>) -> bool {
    static COMMITS_MADE: LazyLock<Vec<Batch>> = LazyLock::new(|| (0..COMMITS).map(commit_of).collect());
    value.is_none() || COMMITS_MADE.iter().any(|made| made.get(key).is_some_and(|given| given.as_deref() == value))
}

fn rounds(template: &Path, demand: Demand, seeds: std::ops::Range<u64>) -> [usize; 2] {
    let mut counts = [0; 2];
    for seed in seeds {
        let dir = tempfile::tempdir().expect("a temporary folder");
        copy(template, dir.path());
        let what = damage(dir.path(), &mut Dice(seed));
        let (tell, told) = sync_channel(1);
        let path = dir.path().to_owned();
        thread::spawn(move || tell.send(judge(&path, demand)));
        match told.recv_timeout(PATIENCE) {
            Ok(Ok(believed)) => counts[usize::from(believed)] += 1,
            Ok(Err(wrong)) => panic!("seed {seed}, {what}: {wrong}"),
            Err(_) => panic!("seed {seed}, {what}: panicked or hung"),
        }
    }
    counts
}

#[test]
fn a_damaged_index_is_whole_or_not_believed() {
    let whole = template(true);
    assert_eq!(judge_copy(whole.path()), Ok(true));
    let [refused, believed] = rounds(whole.path(), Demand::Whole, 0..60);
    assert!(refused > 20 && believed > 0, "{refused} refused, {believed} whole");
}

#[test]
fn a_killed_and_damaged_index_shows_nothing_that_was_never_written() {
    let killed = template(false);
    assert_eq!(judge_copy(killed.path()), Ok(true));
    rounds(killed.path(), Demand::Written, 1000..1060);
    let used = fs::read(killed.path().join("db/db")).expect("readable").len();
    for seed in 0..10 {
        let dir = tempfile::tempdir().expect("a temporary folder");
        copy(killed.path(), dir.path());
        let file = fs::File::options().write(true).open(dir.path().join("db/db")).expect("opened");
        file.set_len(Dice(seed).roll(used) as u64).expect("truncated");
        judge(dir.path(), Demand::Whole).expect("whole or not believed");
    }
}

#[test]
fn an_index_whose_folder_is_gone_is_begun_anew() {
    for closed in [true, false] {
        let dir = template(closed);
        fs::remove_dir_all(dir.path().join("db")).expect("removed");
        assert_eq!(judge(dir.path(), Demand::Whole), Ok(false));
    }
}

fn judge_copy(template: &Path) -> Result<bool, String> {
    let dir = tempfile::tempdir().expect("a temporary folder");
    copy(template, dir.path());
    judge(dir.path(), Demand::Whole)
}
