//! Hosts that converge whatever the network, the disks, the clocks and a lying peer do, from one seed.
//!
//! `KVSPACE_SEED=n` replays one run, `KVSPACE_SEEDS=a..b` makes these.
#[path = "../oracle/mod.rs"]
mod oracle;
#[path = "../world/mod.rs"]
mod world;

mod cluster;
mod controls;
mod dice;
mod liar;
mod node;
mod rules;

use std::panic::{AssertUnwindSafe, catch_unwind};

use cluster::{BOUND_MS, Cluster, Outcome};

/// What is switched off, for the runs that have to fail.
#[derive(Clone, Copy)]
pub struct Knobs {
    /// Spaces are compared.
    pub compares: bool,
    /// What is missing is asked for.
    pub repairs: bool,
    /// A lying peer takes part in two runs of three.
    pub liar: bool,
    /// How often a changed log is judged by the rules: each time would take too long for a usual run.
    pub check_percent: u64,
}

const ALL_ON: Knobs = Knobs { compares: true, repairs: true, liar: true, check_percent: 4 };

/// The seeds of a usual run: about 40 s of one core.
const SEEDS: std::ops::Range<u64> = 0..250;

fn seeds() -> (std::ops::Range<u64>, Knobs) {
    let thorough = Knobs { check_percent: 100, ..ALL_ON };
    let number = |text: &str| text.parse::<u64>().expect("a number");
    if let Ok(seed) = std::env::var("KVSPACE_SEED") {
        return (number(&seed)..number(&seed) + 1, thorough);
    }
    match std::env::var("KVSPACE_SEEDS") {
        Ok(range) => {
            let (from, to) = range.split_once("..").expect("KVSPACE_SEEDS=a..b");
            (number(from)..number(to), thorough)
        }
        Err(_) => (SEEDS, ALL_ON),
    }
}

fn run(seed: u64, knobs: Knobs) -> Outcome {
    let mut cluster = Cluster::new(seed, knobs);
    let outcome = cluster.run();
    cluster.check_all();
    if let Some(difference) = cluster.difference() {
        panic!("not equal within {BOUND_MS} ms: {difference}");
    }
    cluster.assert_at_rest();
    outcome
}

#[test]
fn all_hosts_are_equal_soon_after_the_last_fault() {
    let (seeds, knobs) = seeds();
    let mut times_ms = Vec::new();
    let mut epochs = 0;
    for seed in seeds {
        let outcome = catch_unwind(AssertUnwindSafe(|| run(seed, knobs)));
        let outcome = outcome.unwrap_or_else(|why| {
            eprintln!("KVSPACE_SEED={seed} cargo test -p kvspace-protocol --test simulation -- --nocapture");
            std::panic::resume_unwind(why);
        });
        times_ms.extend(outcome.equal_after_ms);
        epochs += outcome.epochs;
    }
    times_ms.sort_unstable();
    let (runs, last) = (times_ms.len(), times_ms.last().copied().unwrap_or_default());
    eprintln!("{runs} runs, {epochs} epochs; equal after {} ms, at most {last}", times_ms[runs / 2]);
}
