//! The store's figures behind `scripts/bench.sh store`: what a put costs as a space grows, memory, starts, and what the disk
//! takes after overwriting. Ratios count; a single time says little on a machine with other work.
#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "a benchmark prints and reads the clock")]

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use rand::seq::SliceRandom;
use rustix::process::Signal;

use self::harness::{Node, Owner, Result, run};

#[path = "harness.rs"]
mod harness;

const CLIENTS: usize = 64;
/// Tokens signed ahead at a time.
const BLOCK: usize = 50_000;
const MIB: u64 = 1024 * 1024;

fn main() -> Result<()> {
    let scale = if std::env::var_os("KVSPACE_BENCH_QUICK").is_some() { 10 } else { 1 };
    let dir = tempfile::tempdir_in(std::env::var_os("KVSPACE_BENCH_DIR").unwrap_or_else(|| ".".into()))?;
    let only = std::env::var("KVSPACE_BENCH_ONLY").unwrap_or_default();
    let wanted = |name: &str| only.is_empty() || only == name;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    if wanted("memory") {
        runtime.block_on(memory(&dir.path().join("memory"), 100_000 / scale))?;
    }
    if wanted("ascending") {
        runtime.block_on(growth(&dir.path().join("ascending"), Order::Ascending, 1_000_000 / scale))?;
    }
    if wanted("random") {
        runtime.block_on(growth(&dir.path().join("random"), Order::Random, 1_000_000 / scale))?;
    }
    if wanted("spaces") {
        runtime.block_on(spaces(&dir.path().join("spaces"), 100_000 / scale))?;
    }
    if wanted("overwrite") {
        runtime.block_on(overwrite(&dir.path().join("overwrite"), 10_000 / scale))?;
    }
    Ok(())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Ascending,
    Random,
}

/// Memory with an index cache of 32 MiB.
async fn memory(dir: &Path, keys: usize) -> Result<()> {
    let node = Node::start(dir, &[("KVSPACE_STORAGE__INDEX_CACHE_BYTES", "33554432")])?;
    let owner = Owner::new();
    owner.create_space(&node).await?;
    let names: Vec<_> = shuffled(keys);
    put_all(&node, &owner, &names, 256).await?;
    println!("memory with {keys} keys, index cache 32 MiB: {} MB", node.resident_mb()?);
    Ok(())
}

/// What a put costs early and late, and how long a start takes then.
async fn growth(dir: &Path, order: Order, keys: usize) -> Result<()> {
    let options = [("KVSPACE_STORAGE__INDEX_CACHE_BYTES", "67108864")];
    let node = Node::start(dir, &options)?;
    let owner = Owner::new();
    owner.create_space(&node).await?;
    let names = if order == Order::Random { shuffled(keys) } else { (0..keys).map(name).collect() };
    let tenth = keys / 10;
    let mut costs = Vec::new();
    for part in names.chunks(tenth) {
        costs.push(put_all(&node, &owner, part, 256).await?);
    }
    let ratio = costs[9] / costs[1];
    let shown: Vec<_> = costs.iter().map(|cost| format!("{cost:.0}")).collect();
    println!("{order:?} keys, server us per put by tenths of {keys}: {}; last to second: {ratio:.2}", shown.join(" "));
    println!("  memory {} MB, disk: {}", node.resident_mb()?, sizes(dir)?);
    let began = Instant::now();
    node.end(Signal::TERM)?;
    println!("  clean stop {:.2} s", began.elapsed().as_secs_f64());
    let began = Instant::now();
    let node = Node::start(dir, &options)?;
    println!("  start after it {:.2} s, memory {} MB", began.elapsed().as_secs_f64(), node.resident_mb()?);
    put_all(&node, &owner, &names[..tenth.min(20_000)], 256).await?;
    node.end(Signal::KILL)?;
    let began = Instant::now();
    let node = Node::start(dir, &options)?;
    println!("  start after SIGKILL under load {:.2} s", began.elapsed().as_secs_f64());
    put_all(&node, &owner, &names[..1_000], 256).await?;
    node.end(Signal::TERM)?;
    fs::remove_dir_all(dir.join("index"))?;
    let began = Instant::now();
    let node = Node::start(dir, &options)?;
    println!("  start without an index {:.2} s", began.elapsed().as_secs_f64());
    drop(node);
    fs::remove_dir_all(dir)?;
    Ok(())
}

/// Memory with many spaces on disk, of which a thousand are in use.
async fn spaces(dir: &Path, spaces: usize) -> Result<()> {
    let node = Node::start(dir, &[])?;
    let owners: Vec<_> = (0..spaces).map(|number| Owner::numbered(number as u64)).collect();
    for block in owners.chunks(BLOCK) {
        let made = block.iter().map(|owner| owner.host_delegation(&node)).collect();
        run(&node, CLIENTS, made, 200).await?;
        let puts = block.iter().map(|owner| owner.put("k", 256)).collect();
        run(&node, CLIENTS, puts, 200).await?;
    }
    println!("memory after making {spaces} spaces with a value each: {} MB; {}", node.resident_mb()?, sizes(dir)?);
    node.end(Signal::TERM)?;
    let began = Instant::now();
    let node = Node::start(dir, &[])?;
    println!("  start {:.2} s, memory {} MB", began.elapsed().as_secs_f64(), node.resident_mb()?);
    let reads = |owners: &[Owner]| owners.iter().map(|owner| owner.invoke("k", "get", "", b"")).collect();
    let cold = run(&node, CLIENTS, reads(&owners[..1_000]), 200).await?;
    println!("  1000 of them in use: memory {} MB; first read {:.0} us CPU", node.resident_mb()?, cold.cpu_us);
    let warm = run(&node, CLIENTS, reads(&owners[..1_000]), 200).await?;
    println!("  next read {:.0} us CPU", warm.cpu_us);
    for pass in 1..=2 {
        for block in owners.chunks(BLOCK) {
            run(&node, CLIENTS, reads(block), 200).await?;
        }
        println!("  memory after reading all of them, {pass}: {} MB", node.resident_mb()?);
    }
    drop(node);
    fs::remove_dir_all(dir)?;
    Ok(())
}

/// Disk after every key was overwritten a hundred times and half of them deleted.
async fn overwrite(dir: &Path, keys: usize) -> Result<()> {
    let options = [
        ("KVSPACE_RETENTION__SUPERSEDED_S", "0"),
        ("KVSPACE_RETENTION__INTERVAL_S", "1"),
        ("KVSPACE_STORAGE__SEGMENT_BYTES", "16777216"),
    ];
    let node = Node::start(dir, &options)?;
    let owner = Owner::new();
    owner.create_space(&node).await?;
    let names: Vec<_> = (0..keys).map(name).collect();
    for _ in 0..100 {
        put_all(&node, &owner, &names, 4096).await?;
    }
    let deletes: Vec<_> = names.iter().step_by(2).map(|key| owner.invoke(key, "del", "", b"")).collect();
    run(&node, CLIENTS, deletes, 200).await?;
    println!("{keys} keys of 4 KiB overwritten 100 times, half deleted; before collection: {}", sizes(dir)?);
    let began = Instant::now();
    loop {
        let status = node.status().await?;
        let figure = |name: &str| status["spaces"][0][name].as_u64().unwrap_or_default();
        let log = size_of(&dir.join("log"))?;
        let bound = figure("live_bytes") * 3 / 2 + figure("epoch_bytes");
        // Files made ahead, and what the last one has not filled, are no part of what is kept.
        let prepared = 2 * 16 * 1024 * 1024;
        if log <= bound + prepared || began.elapsed() > Duration::from_secs(300) {
            println!(
                "  after {:.0} s: log {} MB; 1.5 x live + epochs: {} MB; {}",
                began.elapsed().as_secs_f64(),
                log >> 20,
                bound >> 20,
                sizes(dir)?
            );
            println!("  memory {} MB", node.resident_mb()?);
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// Puts a value under each name; the server's CPU per put in microseconds.
async fn put_all(node: &Node, owner: &Owner, names: &[String], size_bytes: usize) -> Result<f64> {
    let mut cost = 0.0;
    for block in names.chunks(BLOCK) {
        let puts = block.iter().map(|key| owner.put(key, size_bytes)).collect();
        cost += run(node, CLIENTS, puts, 200).await?.cpu_us * block.len() as f64;
    }
    Ok(cost / names.len() as f64)
}

fn name(number: usize) -> String {
    format!("bench/{number:012}")
}

fn shuffled(keys: usize) -> Vec<String> {
    let mut names: Vec<_> = (0..keys).map(name).collect();
    names.shuffle(&mut rand::rng());
    names
}

fn sizes(dir: &Path) -> Result<String> {
    let mb = |part: &str| Result::Ok(size_of(&dir.join(part))? / MIB);
    Ok(format!("log {} MB, index {} MB, blobs {} MB", mb("log")?, mb("index")?, mb("blobs")?))
}

fn size_of(dir: &Path) -> Result<u64> {
    let mut size = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        // What is removed meanwhile takes no room.
        size += match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => size_of(&entry.path())?,
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        };
    }
    Ok(size)
}
