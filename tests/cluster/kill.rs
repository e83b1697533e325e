//! Hosts that are killed while people write at all of them.
#![allow(clippy::disallowed_methods, reason = "deadlines are of the real clock")]

use std::{
    sync::{Mutex, mpsc::sync_channel},
    thread,
    time::{Duration, Instant},
};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use crate::{
    crash::load::Writer,
    harness::{Cluster, is_long},
};

const HOSTS: usize = 3;
const WRITERS_PER_HOST: usize = 2;
/// How long people write in a round.
const ROUND: Duration = Duration::from_millis(600);

#[test]
fn killed_hosts_lose_nothing_that_any_host_acknowledged() {
    let rounds = if is_long() { 20 } else { 4 };
    let seed = std::env::var("KVSPACE_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| rand::rng().random_range(0..u64::from(u32::MAX)));
    eprintln!("to repeat: KVSPACE_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut cluster = Cluster::of(HOSTS);
    let writer = |id: usize| Mutex::new(Writer::new(id as u64, seed, cluster.session.clone()));
    let writers: Vec<_> = (0..HOSTS * WRITERS_PER_HOST).map(writer).collect();
    for _ in 0..rounds {
        let killed = random.random_range(0..HOSTS);
        let moment = ROUND.mul_f64(random.random_range(0.0..1.0));
        // Nobody counts the answers.
        let (sender, _answers) = sync_channel(1);
        let until = Instant::now() + ROUND;
        thread::scope(|scope| {
            for (id, writer) in writers.iter().enumerate() {
                let (connection, answers) = (cluster.hosts[id % HOSTS].connect(), sender.clone());
                scope.spawn(move || writer.lock().expect("no writer failed").work(connection, &answers, until));
            }
            thread::park_timeout(moment);
            cluster.hosts[killed].kill();
        });
        cluster.hosts[killed].start();
        cluster.converge();
        // Each at its own host, which settles what was never answered; then at all.
        check(&cluster, &writers, |id| vec![id % HOSTS]);
        cluster.converge();
        check(&cluster, &writers, |_| (0..HOSTS).collect());
    }
    cluster.agree();
    cluster.hosts.iter_mut().for_each(crate::harness::Node::stop);
}

/// Compares what hosts have with what the writers know.
fn check(cluster: &Cluster, writers: &[Mutex<Writer>], at: impl Fn(usize) -> Vec<usize>) {
    thread::scope(|scope| {
        for (id, writer) in writers.iter().enumerate() {
            for host in at(id) {
                let mut connection = cluster.hosts[host].connect();
                scope.spawn(move || writer.lock().expect("no writer failed").check(&mut connection));
            }
        }
    });
}
