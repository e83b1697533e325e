//! An index that is whole, believed, and wrong: whatever record it is, looking through the data folder finds it.

use super::World;
use crate::{
    records::{Batch, Records, RecordsOptions},
    verify::{Fault, IndexState, IndexWish, Options, Report, verify},
};

/// A data folder with a small and a large value and a key with a history.
fn folder() -> World {
    // Only while the node runs: what blocks must not be called from a task.
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(filled())
}

async fn filled() -> World {
    let world = World::new().await;
    world.put("a", 1).await.expect("written");
    world.put("b", 2).await.expect("written");
    world.put("b", 3).await.expect("written");
    let mut upload = world.node.upload().await.expect("begun");
    upload.write(&[7; 300_000]).await.expect("taken");
    let staged = upload.finish().await.expect("durable");
    world.put_body("large", 4, super::Body::Staged(staged)).await.expect("written");
    world.node.stop().await;
    world
}

fn look(world: World, index: IndexWish) -> (Report, tempfile::TempDir) {
    let World { node, dir, .. } = world;
    // With the last handle on the node goes its lock.
    drop(node);
    (look_at(dir.path(), index), dir)
}

fn look_at(dir: &std::path::Path, index: IndexWish) -> Report {
    let options = Options { data_dir: dir.to_owned(), key: Some([2; 32]), index_cache_bytes: 8 << 20, index };
    verify(&options, &mut |_| ()).expect("readable")
}

/// Every record of the index, without those that are its own.
fn records(dir: &std::path::Path) -> Vec<(Vec<u8>, Vec<u8>)> {
    let opened = Records::open(&dir.join("index"), &RecordsOptions::default()).expect("opens");
    assert!(opened.fresh.is_none());
    let all = opened.records.scan(&[], &[]).map(|record| record.expect("readable")).collect();
    opened.records.close().expect("closed");
    all
}

fn write(dir: &std::path::Path, name: &[u8], value: Option<Vec<u8>>) {
    let opened = Records::open(&dir.join("index"), &RecordsOptions::default()).expect("opens");
    opened.records.write_aside(Batch::from([(name.to_vec(), value)])).expect("written");
    opened.records.close().expect("closed");
}

#[test]
fn every_record_that_is_missing_changed_or_too_many_is_found() {
    let (report, dir) = look(folder(), IndexWish::Leave);
    assert_eq!((report.left(), report.index), (0, IndexState::Sound), "{:?}", report.faults);
    let mut letters = std::collections::BTreeSet::new();
    for (name, value) in records(dir.path()) {
        let mut changed = value.clone();
        match changed.last_mut() {
            Some(last) => *last ^= 1,
            None => changed.push(1),
        }
        let other = [&name[..], b"x"].concat();
        if !letters.insert(name[5]) {
            continue;
        }
        // A key that is no text and a space that is none cannot even be read.
        let harms = [(name.clone(), None), (name.clone(), Some(changed)), (other.clone(), Some(value.clone()))];
        for (number, (harmed, harm)) in harms.into_iter().enumerate() {
            write(dir.path(), &harmed, harm);
            let report = look_at(dir.path(), IndexWish::Leave);
            let is_told =
                report.faults.named().iter().any(|fault| matches!(fault, Fault::Index { .. } | Fault::IndexFiles(_)));
            assert!(is_told, "harm {number} to {:?}: {report:?}", String::from_utf8_lossy(&name[5..]));
            let undone = if harmed == name { Some(value.clone()) } else { None };
            write(dir.path(), &harmed, undone);
        }
    }
    assert_eq!(String::from_utf8(letters.into_iter().collect()).expect("letters"), "BEHSTWdefhps");
    let report = look_at(dir.path(), IndexWish::Leave);
    assert_eq!((report.left(), report.index), (0, IndexState::Sound), "{:?}", report.faults);
}

#[test]
fn a_wrong_index_is_made_anew_and_then_sound() {
    let (_, dir) = look(folder(), IndexWish::Leave);
    let found = records(dir.path());
    let (entry, _) = found.iter().find(|(name, _)| name[5] == b'E').expect("an entry");
    write(dir.path(), entry, None);
    let report = look_at(dir.path(), IndexWish::Leave);
    assert_eq!((report.left(), &report.index), (1, &IndexState::Differs), "{report:?}");
    let report = look_at(dir.path(), IndexWish::Replace);
    assert_eq!((report.left(), report.faults.count(), report.index), (0, 1, IndexState::Replaced));
    let report = look_at(dir.path(), IndexWish::Leave);
    assert_eq!((report.left(), report.index), (0, IndexState::Sound), "{:?}", report.faults);
    assert!(records(dir.path()).iter().any(|(name, _)| name == entry));
}

#[test]
fn an_index_of_a_former_format_is_made_anew_at_the_start() {
    for (format, is_kept) in [(1, false), (2, true)] {
        let World { node, dir, .. } = folder();
        drop(node);
        let name = b"\x01 no record of ours";
        write(dir.path(), name, Some(vec![1]));
        let state = dir.path().join("index/state");
        let text = std::fs::read_to_string(&state).expect("there");
        let text = text.replace("kvspace index 2 ", &format!("kvspace index {format} "));
        std::fs::write(&state, text).expect("written");
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let node = crate::node::Node::start(World::options(dir.path())).await.expect("starts");
            node.stop().await;
        });
        drop(runtime);
        let records = records(dir.path());
        assert_eq!(records.iter().any(|(found, _)| found == name), is_kept);
        assert!(records.iter().any(|(name, _)| name[5] == b'h'), "the log has been read");
    }
}
