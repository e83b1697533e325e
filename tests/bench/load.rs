//! The load generator behind `scripts/bench.sh`: one node, 1, 16 and 64 clients, values of 1 KiB.
//!
//! Tokens are signed before the clock starts. Beside each figure stand the limits of the machine in the same run; trust
//! the CPU per operation and the ratios, not a single time.
#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "a benchmark prints and reads the clock")]

use std::{fs, os::unix::fs::FileExt, time::Instant};

use ed25519_dalek::{Signer, SigningKey};
use rand::seq::SliceRandom;

use self::harness::{Figures, Node, Owner, Result, run};

#[path = "harness.rs"]
mod harness;

const VALUE_BYTES: usize = 1024;
const CLIENTS: [usize; 3] = [1, 16, 64];

fn main() -> Result<()> {
    let quick = std::env::var_os("KVSPACE_BENCH_QUICK").is_some();
    let dir = tempfile::tempdir_in(std::env::var_os("KVSPACE_BENCH_DIR").unwrap_or_else(|| ".".into()))?;
    println!("limits of this machine, one core:");
    println!("  verify_strict   {:>9.0} /s", verify_strict());
    println!("  fdatasync 4 KiB {:>9.0} /s", fdatasync(dir.path())?);
    let node = Node::start(&dir.path().join("node"), &[])?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(measure(&node, if quick { 1000 } else { 20_000 }))
}

async fn measure(node: &Node, most: usize) -> Result<()> {
    let owner = Owner::new();
    owner.create_space(node).await?;
    println!("\n{:>7} {:>6} {:>9} {:>9} {:>9} {:>13}", "clients", "what", "per s", "p50 us", "p99 us", "server us/op");
    for clients in CLIENTS {
        let count = if clients == 1 { most / 5 } else { most };
        let info = (0..count).map(|_| b"GET /info HTTP/1.1\r\nhost: n\r\n\r\n".to_vec()).collect();
        print_line(clients, "info", run(node, clients, info, 200).await?);
        let mut keys: Vec<_> = (0..count).map(|n| format!("bench/c{clients}/{n:08}")).collect();
        keys.shuffle(&mut rand::rng());
        let puts = keys.iter().map(|key| owner.put(key, VALUE_BYTES)).collect();
        print_line(clients, "put", run(node, clients, puts, 200).await?);
        keys.shuffle(&mut rand::rng());
        let gets = keys.iter().map(|key| owner.invoke(key, "get", "", b"")).collect();
        print_line(clients, "get", run(node, clients, gets, 200).await?);
        let path = format!("bench/c{clients}/");
        let lists = (0..count / 10).map(|_| owner.invoke(&path, "list", "x-tinycloud-limit: 100\r\n", b"")).collect();
        print_line(clients, "list", run(node, clients, lists, 200).await?);
    }
    println!("\na list returns 100 keys; memory of the node at the end: {} MB", node.resident_mb()?);
    Ok(())
}

fn print_line(clients: usize, what: &str, figures: Figures) {
    let Figures { per_second, p50_us, p99_us, cpu_us } = figures;
    println!("{clients:>7} {what:>6} {per_second:>9.0} {p50_us:>9.0} {p99_us:>9.0} {cpu_us:>13.1}");
}

fn verify_strict() -> f64 {
    let key = SigningKey::from_bytes(&[1; 32]);
    let message = [7_u8; 700];
    let signature = key.sign(&message);
    let verifying = key.verifying_key();
    let count = 5000;
    let began = Instant::now();
    for _ in 0..count {
        assert!(verifying.verify_strict(&message, &signature).is_ok());
    }
    f64::from(count) / began.elapsed().as_secs_f64()
}

fn fdatasync(dir: &std::path::Path) -> Result<f64> {
    let file = fs::File::create(dir.join("sync"))?;
    file.write_all_at(&vec![0; 4 << 20], 0)?;
    file.sync_all()?;
    let count: u32 = 500;
    let began = Instant::now();
    for n in 0..count {
        file.write_all_at(&[1; 4096], u64::from(n) * 4096)?;
        file.sync_data()?;
    }
    Ok(f64::from(count) / began.elapsed().as_secs_f64())
}
