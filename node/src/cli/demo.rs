//! `kvspace demo`: three hosts of one space on this machine, one of which fails and comes back.

use std::{sync::Mutex, time::Duration};

use clap::Args;
use kvspace_client::{Client, Condition, EpochId, Grants, KeyKind, Meta, OwnerKey, Space, clock};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use super::{
    error::{CliError, FAILED},
    output::Output,
    transfer::some,
};

mod host;

use host::DemoHost;

const SPACE: &str = "demo";
const SESSION_MS: i64 = 3_600_000;
/// How often a host is asked whether it is as far as another.
const POLL: Duration = Duration::from_millis(10);

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  kvspace demo --values 1000")]
pub(crate) struct DemoArgs {
    /// Values that are written in each part
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u16).range(3..=20_000))]
    values: u16,
    /// Gives up after this time
    #[arg(long, value_name = "SECONDS", default_value_t = 120, value_parser = clap::value_parser!(u32).range(1..=3600))]
    within_s: u32,
}

impl DemoArgs {
    pub(crate) async fn run(self, out: &Output) -> Result<(), CliError> {
        let steps = Steps { out, done: Mutex::default() };
        let whole = clock::stopwatch();
        let within = Duration::from_secs(self.within_s.into());
        // The hosts end with their values, whichever of these comes first.
        tokio::select! {
            shown = timeout(within, Demo::show(&steps, self.values)) => {
                let late = |_| CliError::new(FAILED, format!("the demonstration took more than {} s", self.within_s));
                shown.map_err(late)??;
            }
            ended = interrupted() => {
                ended?;
                return Err(CliError::new(FAILED, "interrupted; the three hosts were ended"));
            }
        }
        let steps = steps.done.into_inner().unwrap_or_default();
        let object = json!({ "steps": steps, "ms": millis(whole()) });
        out.result("all that was read was right", &object)
    }
}

#[cfg(unix)]
async fn interrupted() -> Result<(), CliError> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        ended = tokio::signal::ctrl_c() => Ok(ended?),
        _ = terminate.recv() => Ok(()),
    }
}

#[cfg(not(unix))]
async fn interrupted() -> Result<(), CliError> {
    Ok(tokio::signal::ctrl_c().await?)
}

/// What was done so far: a line each for people.
struct Steps<'a> {
    out: &'a Output,
    done: Mutex<Vec<Value>>,
}

impl Steps<'_> {
    fn done(&self, what: String, took: Duration) -> Result<(), CliError> {
        if !self.out.is_json() {
            self.out.raw(&format!("{:>9.1} ms  {what}\n", millis(took)))?;
        }
        let mut done = self.done.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        done.push(json!({ "what": what, "ms": millis(took) }));
        Ok(())
    }
}

fn millis(took: Duration) -> f64 {
    (took.as_secs_f64() * 10_000.0).round() / 10.0
}

/// The three hosts, and the space as each of them has it.
struct Demo<'a> {
    steps: &'a Steps<'a>,
    hosts: [DemoHost; 3],
    spaces: Vec<Space>,
    /// Values to write in each part.
    values: usize,
}

impl<'a> Demo<'a> {
    /// All of it, one part after the other.
    async fn show(steps: &'a Steps<'a>, values: u16) -> Result<(), CliError> {
        let hosts = [DemoHost::new("A")?, DemoHost::new("B")?, DemoHost::new("C")?];
        let mut demo = Self { steps, hosts, spaces: Vec::new(), values: values.into() };
        let shown = demo.parts().await;
        shown.map_err(|error| {
            let words: Vec<_> =
                demo.hosts.iter().map(|host| format!("host {}: {}", host.name, host.last_words())).collect();
            let advice = [error.advice.clone().into_iter().collect(), words].concat();
            error.advise(advice.join("\n  "))
        })
    }

    async fn parts(&mut self) -> Result<(), CliError> {
        self.start().await?;
        self.create().await?;
        for at in 0..3 {
            self.write_here_and_read_there(at).await?;
        }
        self.fill("first", &[0, 1, 2]).await?;
        self.check("first", &[0, 1, 2]).await?;
        self.lose_a_host_and_get_it_back().await?;
        self.check("away", &[2]).await?;
        self.write_here_and_read_there(2).await?;
        self.is_one_log().await
    }

    async fn start(&mut self) -> Result<(), CliError> {
        let took = clock::stopwatch();
        let addresses = self.hosts.each_ref().map(DemoHost::address);
        for (at, host) in self.hosts.iter_mut().enumerate() {
            host.start(&all_but(&addresses, at)).await?;
        }
        self.steps.done("three hosts run on this machine: A, B and C".into(), took())
    }

    async fn create(&mut self) -> Result<(), CliError> {
        let took = clock::stopwatch();
        let clients = [self.hosts[0].client()?, self.hosts[1].client()?, self.hosts[2].client()?];
        let owner = OwnerKey::generate(KeyKind::Ed25519)?;
        let id = clients[0].create_space(&owner, SPACE).await?;
        for at in [1, 2] {
            let token = Client::sign_host(&owner, &id, &self.hosts[at].did()?)?;
            clients[at].delegate(&token).await?;
            clients[0].delegate(&token).await?;
        }
        self.steps.done(format!("their owner names all three hosts of {id}"), took())?;
        let took = clock::stopwatch();
        let session = clients[0].open_session(&owner, &id, Grants::everything(&id), SESSION_MS).await?;
        let first = clients[0].space(session);
        self.spaces = clients.iter().map(|client| first.at(client)).collect();
        for space in &self.spaces {
            while space.frontier().await.is_err() {
                sleep(POLL).await;
            }
        }
        self.steps.done("a session that was opened at A is known at B and C".into(), took())
    }

    async fn write_here_and_read_there(&self, here: usize) -> Result<(), CliError> {
        let name = self.hosts[here].name;
        let (key, value) = (format!("hello/{name}"), format!("hello from {name}, {}", clock::now().0));
        let took = clock::stopwatch();
        self.spaces[here].put(&key, value.clone(), Meta::new(), Condition::Always).await?;
        self.steps.done(format!("written at {name}"), took())?;
        for there in (0..3).filter(|there| *there != here) {
            expect(&self.spaces[there], &key, &value).await?;
            self.steps
                .done(format!("  read at {}, since the write began at {name}", self.hosts[there].name), took())?;
        }
        Ok(())
    }

    /// Writes values at these hosts in turn.
    async fn fill(&self, part: &str, hosts: &[usize]) -> Result<(), CliError> {
        let took = clock::stopwatch();
        for n in 0..self.values {
            let space = &self.spaces[hosts[n % hosts.len()]];
            space.put(key(part, n), value(part, n), Meta::new(), Condition::Always).await?;
        }
        let names: Vec<_> = hosts.iter().map(|at| self.hosts[*at].name).collect();
        let what = format!("{} written at {} in turn", some(self.values as u64, "value"), names.join(", "));
        self.steps.done(what, took())
    }

    /// Reads all values of a part at each of these hosts.
    async fn check(&self, part: &str, hosts: &[usize]) -> Result<(), CliError> {
        for at in hosts {
            let took = clock::stopwatch();
            for n in 0..self.values {
                expect(&self.spaces[*at], &key(part, n), &value(part, n)).await?;
            }
            let what = format!("  all {} read at {}", self.values, self.hosts[*at].name);
            self.steps.done(what, took())?;
        }
        Ok(())
    }

    async fn lose_a_host_and_get_it_back(&mut self) -> Result<(), CliError> {
        let took = clock::stopwatch();
        self.hosts[2].kill();
        self.steps.done("C is killed".into(), took())?;
        self.fill("away", &[0, 1]).await?;
        let took = clock::stopwatch();
        let addresses = self.hosts.each_ref().map(DemoHost::address);
        self.hosts[2].start(&all_but(&addresses, 2)).await?;
        self.steps.done("C runs again".into(), took())?;
        self.spaces[2] = self.spaces[0].at(&self.hosts[2].client()?);
        // The frontier is told once all is there that was written before.
        self.spaces[2].frontier().await?;
        self.steps.done("  C has all that was written meanwhile, since it was started".into(), took())
    }

    async fn is_one_log(&self) -> Result<(), CliError> {
        let took = clock::stopwatch();
        loop {
            let mut frontiers: Vec<Vec<EpochId>> = Vec::new();
            for space in &self.spaces {
                frontiers.push(space.frontier().await?);
            }
            if frontiers.windows(2).all(|pair| pair[0] == pair[1]) {
                return self.steps.done("the three hosts have the same log".into(), took());
            }
            sleep(POLL).await;
        }
    }
}

fn all_but(addresses: &[String; 3], at: usize) -> Vec<String> {
    let others = addresses.iter().enumerate().filter(|(other, _)| *other != at);
    others.map(|(_, address)| address.clone()).collect()
}

fn key(part: &str, n: usize) -> String {
    format!("{part}/{n:05}")
}

fn value(part: &str, n: usize) -> String {
    format!("value {n} of {part}")
}

/// Reads a value, which has to be this one.
async fn expect(space: &Space, key: &str, value: &str) -> Result<(), CliError> {
    let read = space.get(key).await?;
    if read.bytes == value.as_bytes() {
        return Ok(());
    }
    let found = String::from_utf8_lossy(&read.bytes).into_owned();
    Err(CliError::new(FAILED, format!("{} reads {key} as `{found}`, not `{value}`", space.client().node())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_given_the_addresses_of_the_others() {
        let addresses = ["a", "b", "c"].map(str::to_owned);
        assert_eq!(all_but(&addresses, 0), ["b", "c"]);
        assert_eq!(all_but(&addresses, 2), ["a", "b"]);
    }

    #[test]
    fn times_are_told_to_a_tenth_of_a_millisecond() {
        assert_eq!(millis(Duration::from_micros(1_249)), 1.2);
        assert_eq!(millis(Duration::from_secs(1)), 1000.0);
    }
}
