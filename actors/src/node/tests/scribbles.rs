//! The index's files are deleted, cut short or overwritten while the node is stopped: the answers stay what they were, or
//! a request fails and the next start makes the index anew. None is wrong.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use super::{
    super::{Node, start::StorageOptions},
    model::{Load, options, same},
    power::copy,
};
use crate::{log::LogOptions, records::RecordsOptions};

const SEEDS: u64 = 24;

fn storage() -> StorageOptions {
    StorageOptions {
        log: LogOptions { reserve_bytes: 1 << 20, ..LogOptions::default() },
        records: RecordsOptions { boot_id: Some("5".into()), ..RecordsOptions::default() },
        ..StorageOptions::default()
    }
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("listed") {
        let path = entry.expect("listed").path();
        if path.is_dir() {
            files(&path, found);
        } else {
            found.push(path);
        }
    }
    found.sort();
}

/// Spoils one file of the index, and says how.
fn spoil(dir: &Path, random: &mut StdRng) -> String {
    let mut all = Vec::new();
    files(&dir.join("index/db"), &mut all);
    // Most of what there is to spoil is in one file.
    let main = dir.join("index/db/db");
    let path = if random.random() { main } else { all[random.random_range(0..all.len())].clone() };
    let mut content = fs::read(&path).expect("read");
    let length = content.len();
    let place = random.random_range(0..length.max(1));
    let how = match random.random_range(0..6) {
        0 => {
            fs::remove_file(&path).expect("removed");
            return format!("{} removed", path.display());
        }
        1 => {
            content.truncate(place);
            format!("cut at {place}")
        }
        2 => {
            for _ in 0..20 {
                let byte = random.random_range(0..length.max(1));
                if let Some(byte) = content.get_mut(byte) {
                    *byte ^= 1 << random.random_range(0..8);
                }
            }
            "bits".to_owned()
        }
        _ => {
            let end = (place + random.random_range(1..20_000)).min(length);
            let zeros = random.random();
            content[place.min(end)..end].iter_mut().for_each(|byte| *byte = if zeros { 0 } else { random.random() });
            format!("{place}..{end} overwritten, zeros: {zeros}")
        }
    };
    fs::write(&path, content).expect("written");
    format!("{} of {length} bytes: {how}", path.display())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whatever_happens_to_the_files_of_the_index_no_answer_is_wrong() {
    let (load, dir) = (Arc::new(Load::new()), tempfile::tempdir().expect("a folder"));
    let node = Node::start_on(options(dir.path()), storage()).await.expect("starts");
    load.create(&node).await;
    let clients = load.work(&node, 1);
    tokio::time::sleep(Duration::from_millis(1500)).await;
    load.stop();
    for client in clients {
        client.await.expect("no client failed");
    }
    let expected = load.answers(&node).await.expect("answered");
    node.stop().await;
    drop(node);
    let (mut as_before, mut refused) = (0, 0);
    for seed in 0..SEEDS {
        let mut random = StdRng::seed_from_u64(seed);
        let copied = tempfile::tempdir().expect("a folder");
        copy(dir.path(), copied.path());
        let how = spoil(copied.path(), &mut random);
        // Whoever was refused finds an index made anew at the next start, at the latest.
        for start in 0.. {
            let node = Node::start_on(options(copied.path()), storage()).await.expect("starts");
            let answers = load.answers(&node).await;
            node.stop().await;
            match answers {
                Ok(answers) => {
                    eprintln!("{seed}, start {start}: {how}");
                    same(&answers, &expected);
                    as_before += 1;
                    break;
                }
                Err(error) => {
                    assert_eq!(start, 0, "{seed}: {how}: {error}");
                    refused += 1;
                }
            }
        }
    }
    eprintln!("as before: {as_before}, refused: {refused}");
}
