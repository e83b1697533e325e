//! The figures of hosts that replicate, behind `scripts/bench.sh cluster`: three hosts on loopback. Each line has its bar and
//! how much of it was used; above 1 it is missed. KVSPACE_BENCH_ONLY names one part.
#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "a benchmark prints and reads the clock")]

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    time::{Duration, Instant},
};

use kvspace_protocol::{
    id::{EpochId, SpaceId},
    sync::{Have, Request, Response, compare},
};

use self::{
    harness::{Connection, Node, Owner, Result, run},
    peer::{Cost, Peer, bare_stream},
};

#[path = "harness.rs"]
mod harness;
#[path = "peer.rs"]
mod peer;

const CLIENTS: usize = 64;
const VALUE_BYTES: usize = 200;
/// Of the peer that is no node.
const SECRET: [u8; 32] = [77; 32];
/// Nothing here takes as long.
const PATIENCE: Duration = Duration::from_secs(600);

fn main() -> Result<()> {
    let is_quick = std::env::var_os("KVSPACE_BENCH_QUICK").is_some();
    let scale = if is_quick { 10 } else { 1 };
    let dir = tempfile::tempdir_in(std::env::var_os("KVSPACE_BENCH_DIR").unwrap_or_else(|| ".".into()))?;
    let only = std::env::var("KVSPACE_BENCH_ONLY").unwrap_or_default();
    let wanted = |name: &str| only.is_empty() || only == name;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    println!("{:<62} {:>12} {:>12} {:>7}", "what", "figure", "bar", "ratio");
    if wanted("spread") {
        runtime.block_on(spread(&dir.path().join("spread"), 4_000 / scale))?;
    }
    if wanted("join") {
        runtime.block_on(join(&dir.path().join("join"), 100_000 / scale))?;
    }
    if wanted("spaces") {
        let watched = Duration::from_secs(if is_quick { 35 } else { 120 });
        runtime.block_on(spaces(&dir.path().join("spaces"), 10_000 / scale, watched))?;
    }
    if wanted("blobs") {
        runtime.block_on(blobs(&dir.path().join("blobs"), (256 << 20) / scale))?;
    }
    Ok(())
}

fn line(what: &str, figure: f64, bar: f64, unit: &str) {
    println!("{what:<62} {:>12} {:>12} {:>7.2}", format!("{figure:.2} {unit}"), format!("{bar} {unit}"), figure / bar);
}

/// A figure that is to be above its bar.
fn line_above(what: &str, figure: f64, bar: f64) {
    println!("{what:<62} {figure:>12.2} {:>12} {:>7.2}", format!("{bar}"), bar / figure);
}

/// Nodes that know those before them.
fn nodes(dir: &Path, count: usize) -> Result<Vec<Node>> {
    let mut nodes: Vec<Node> = Vec::new();
    for number in 0..count {
        let node = another(&dir.join(number.to_string()), &nodes)?;
        nodes.push(node);
    }
    Ok(nodes)
}

fn another(dir: &Path, known: &[Node]) -> Result<Node> {
    fs::create_dir_all(dir.parent().ok_or("a folder")?)?;
    let peers: Vec<_> = known.iter().filter_map(|node| node.p2p.first().cloned()).collect();
    Node::start(
        dir,
        &[("KVSPACE_NETWORK__LISTEN", "/ip4/127.0.0.1/tcp/0"), ("KVSPACE_NETWORK__PEERS", &peers.join(","))],
    )
}

/// Makes all of them hosts of the space.
async fn host(owner: &Owner, nodes: &[&Node]) -> Result<()> {
    for node in nodes {
        let mut connection = Connection::open(&node.address).await?;
        for host in nodes {
            match connection.ask(&owner.host_delegation(host)).await? {
                200 => {}
                status => return Err(format!("no host: {status} {}", connection.text()).into()),
            }
        }
    }
    Ok(())
}

/// The heads of all spaces of a node.
async fn frontiers(node: &Node) -> Result<BTreeMap<SpaceId, Vec<EpochId>>> {
    let status: serde_json::Value = serde_json::from_str(&node.operate("GET /status?limit=1000000").await?)?;
    let spaces = status["spaces"].as_array().ok_or("no spaces")?.iter();
    spaces
        .map(|space| {
            Ok((space["space"].as_str().ok_or("an id")?.parse()?, serde_json::from_value(space["frontier"].clone())?))
        })
        .collect()
}

/// Waits until it is so; how long that took.
async fn until(what: &str, mut is_so: impl AsyncFnMut() -> Result<bool>) -> Result<Duration> {
    let began = Instant::now();
    while !is_so().await? {
        if began.elapsed() > PATIENCE {
            return Err(format!("it never came true: {what}").into());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(began.elapsed())
}

async fn equal(one: &Node, other: &Node) -> Result<Duration> {
    until("both hold the same", async || Ok(frontiers(one).await? == frontiers(other).await?)).await
}

/// How soon a put at one host is read at the two others, at 200 writes a second.
async fn spread(dir: &Path, count: usize) -> Result<()> {
    let nodes = nodes(dir, 3)?;
    let owner = Owner::new();
    host(&owner, &nodes.iter().collect::<Vec<_>>()).await?;
    equal(&nodes[0], &nodes[1]).await?;
    equal(&nodes[0], &nodes[2]).await?;
    let puts: Vec<_> = (0..count).map(|number| owner.put(&format!("spread/{number:08}"), VALUE_BYTES)).collect();
    let mut ticks = tokio::time::interval(Duration::from_millis(5));
    let mut tasks = Vec::new();
    // Connections are opened before: each write has its own three, taken in turn.
    let mut pool = Vec::new();
    for _ in 0..32 {
        let open = async |node: &Node| Connection::open(&node.address).await;
        pool.push((open(&nodes[0]).await?, open(&nodes[1]).await?, open(&nodes[2]).await?));
    }
    let (back, mut free) = tokio::sync::mpsc::channel(64);
    for connections in pool {
        back.send(connections).await?;
    }
    for (number, put) in puts.into_iter().enumerate() {
        ticks.tick().await;
        let (mut a, mut b, mut c) = free.recv().await.ok_or("no connection")?;
        let back = back.clone();
        let reads = [0, 1].map(|_| Read::new(&owner, number));
        tasks.push(tokio::spawn(async move {
            let sent = Instant::now();
            if a.ask(&put).await? != 200 {
                return Err(format!("a put: {}", a.text()).into());
            }
            let answered = Instant::now();
            let epoch = a.header("x-kvspace-frontier").ok_or("no epoch")?;
            let [read_b, read_c] = reads;
            let (at_b, at_c) = tokio::join!(read_b.at(&mut b, &epoch), read_c.at(&mut c, &epoch));
            at_b?;
            at_c?;
            drop(back.send((a, b, c)).await);
            Result::Ok((answered.elapsed(), sent.elapsed()))
        }));
    }
    let mut times = Vec::new();
    for task in tasks {
        times.push(task.await??);
    }
    let percentile = |times: &mut Vec<Duration>, percent: usize| {
        times.sort_unstable();
        times[(times.len() * percent / 100).min(times.len() - 1)].as_secs_f64() * 1e3
    };
    let (mut answered, mut sent): (Vec<_>, Vec<_>) = times.into_iter().unzip();
    for (from, times) in [("sent", &mut sent), ("answered", &mut answered)] {
        line(&format!("put {from} -> readable at both others, p50"), percentile(times, 50), 5.0, "ms");
        line(&format!("put {from} -> readable at both others, p99"), percentile(times, 99), 50.0, "ms");
    }
    Ok(())
}

/// A read, signed beforehand.
struct Read(Vec<u8>);

impl Read {
    fn new(owner: &Owner, number: usize) -> Self {
        let headers = "x-kvspace-wait-ms: 10000\r\nx-kvspace-after: EPOCH\r\n";
        Self(owner.invoke(&format!("spread/{number:08}"), "get", headers, b""))
    }

    async fn at(self, connection: &mut Connection, epoch: &str) -> Result<()> {
        let request = String::from_utf8(self.0)?.replacen("EPOCH", epoch, 1);
        match connection.ask(request.as_bytes()).await? {
            200 => Ok(()),
            status => Err(format!("a read: {status} {}", connection.text()).into()),
        }
    }
}

/// A new host, and what the exchanges of peers cost with many entries.
async fn join(dir: &Path, keys: usize) -> Result<()> {
    let mut nodes = nodes(dir, 2)?;
    let owner = Owner::new();
    host(&owner, &nodes.iter().collect::<Vec<_>>()).await?;
    for block in (0..keys).collect::<Vec<_>>().chunks(20_000) {
        let puts = block.iter().map(|number| owner.put(&format!("join/{number:08}"), VALUE_BYTES)).collect();
        run(&nodes[0], CLIENTS, puts, 200).await?;
    }
    let behind = equal(&nodes[0], &nodes[1]).await?;
    println!("# the second host had the last of {keys} entries {:.2} s after the first", behind.as_secs_f64());
    let new = another(&dir.join("new"), &nodes)?;
    let began = Instant::now();
    for node in [&nodes[0], &new] {
        let mut connection = Connection::open(&node.address).await?;
        connection.ask(&owner.host_delegation(&new)).await?;
    }
    until("the new host has all", async || {
        let status = new.status().await?;
        let is_filled = status["spaces"][0]["keys"].as_u64() == Some(keys as u64);
        Ok(is_filled
            && frontiers(&nodes[0]).await? == frontiers(&new).await?
            && new.metric("kvspace_values_wanted").await? == 0.0)
    })
    .await?;
    let took = began.elapsed().as_secs_f64();
    let sample =
        (0..keys).step_by(keys / 1000).map(|number| owner.invoke(&format!("join/{number:08}"), "get", "", b""));
    run(&new, 16, sample.collect(), 200).await?;
    line(&format!("{keys} entries of {VALUE_BYTES} B to a new host, with values"), took, 25.0, "s");
    nodes.push(new);
    exchanges(&owner, &nodes[0], keys).await?;
    for (number, node) in nodes.iter().enumerate() {
        line(&format!("memory of host {} with {keys} keys", number + 1), node.resident_mb()? as f64, 200.0, "MB");
    }
    Ok(())
}

/// What a host asks another when nothing is new, and when one entry is.
async fn exchanges(owner: &Owner, node: &Node, keys: usize) -> Result<()> {
    let mut connection = Connection::open(&node.address).await?;
    connection.ask(&owner.host_delegation_to(&peer::did(SECRET))).await?;
    let address = node.p2p.first().ok_or("it listens nowhere")?;
    let peer = Peer::connect(SECRET, address).await?;
    let heads = frontiers(node).await?.remove(owner.space()).ok_or("no space")?;
    let items = compare::Items::new([compare::item(owner.space(), &heads)]);
    // The first one opens what was closed.
    peer.compare(&items, &mut Cost::default()).await?;
    let mut same = Cost::default();
    if peer.compare(&items, &mut same).await? != 0 {
        return Err("nothing was to differ".into());
    }
    line(&format!("nothing new on {keys} entries, one exchange: bytes"), same.bytes as f64 / 1024.0, 2.0, "KiB");
    line(&format!("nothing new on {keys} entries, one exchange: time"), same.time.as_secs_f64() * 1e3, 10.0, "ms");
    connection.ask(&owner.put("join/new", VALUE_BYTES)).await?;
    let mut new = Cost::default();
    if peer.compare(&items, &mut new).await? != 1 {
        return Err("one space was to differ".into());
    }
    let pull = Request::Pull { space: owner.space().clone(), have: Have::Heads(heads), after: None, shown: Vec::new() };
    let Response::Epochs { epochs, .. } = peer.ask(&pull, &mut new).await? else { return Err("no epochs".into()) };
    if epochs.len() != 1 || epochs[0].values.len() != 1 {
        return Err(format!("{} epochs came for one", epochs.len()).into());
    }
    line(&format!("one new on {keys} entries: compared and pulled"), new.time.as_secs_f64() * 1e3, 50.0, "ms");
    println!("# that took {} bytes in {} rounds", new.bytes, new.rounds);
    Ok(())
}

/// Many spaces in which nothing happens.
async fn spaces(dir: &Path, count: usize, watched: Duration) -> Result<()> {
    let nodes = nodes(dir, 2)?;
    let owners: Vec<_> = (0..count).map(|number| Owner::numbered(number as u64)).collect();
    for block in owners.chunks(2_000) {
        // First here, then there: the second finds the space in the first's.
        for node in &nodes {
            for host in &nodes {
                let made = block.iter().map(|owner| owner.host_delegation(host)).collect();
                run(node, CLIENTS, made, 200).await?;
            }
        }
        let named = block.iter().map(|owner| owner.host_delegation_to(&peer::did(SECRET))).collect();
        run(&nodes[0], CLIENTS, named, 200).await?;
    }
    equal(&nodes[0], &nodes[1]).await?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let (before, began) = ([nodes[0].cpu()?, nodes[1].cpu()?], Instant::now());
    tokio::time::sleep(watched).await;
    for (number, (node, before)) in nodes.iter().zip(before).enumerate() {
        let share = (node.cpu()? - before).as_secs_f64() / began.elapsed().as_secs_f64() * 100.0;
        line(&format!("{count} shared idle spaces: CPU of host {}", number + 1), share, 1.0, "%");
    }
    let known = frontiers(&nodes[0]).await?;
    let items = compare::Items::new(known.iter().map(|(space, heads)| compare::item(space, heads)));
    let began = Instant::now();
    let peer = Peer::connect(SECRET, nodes[0].p2p.first().ok_or("it listens nowhere")?).await?;
    let mut cost = Cost::default();
    let differ = peer.compare(&items, &mut cost).await?;
    line(&format!("{count} shared spaces compared on connect: time"), began.elapsed().as_secs_f64(), 1.0, "s");
    line(&format!("{count} shared spaces compared on connect: bytes"), cost.bytes as f64 / 1024.0, 64.0, "KiB");
    println!(
        "# {differ} differ, {} rounds; memory {} and {} MB",
        cost.rounds,
        nodes[0].resident_mb()?,
        nodes[1].resident_mb()?
    );
    Ok(())
}

/// A large value from host to host, beside a bare stream.
async fn blobs(dir: &Path, size_bytes: usize) -> Result<()> {
    let nodes = nodes(dir, 2)?;
    let owner = Owner::new();
    host(&owner, &nodes.iter().collect::<Vec<_>>()).await?;
    equal(&nodes[0], &nodes[1]).await?;
    let mib = size_bytes as f64 / f64::from(1 << 20);
    let mut ratios = Vec::new();
    for round in 0..3 {
        let bare = mib / bare_stream(size_bytes).await?.as_secs_f64();
        let before = nodes[1].metric("kvspace_values_fetched_bytes").await?;
        let mut connection = Connection::open(&nodes[0].address).await?;
        if connection.ask(&owner.put(&format!("large/{round}"), size_bytes)).await? != 200 {
            return Err(format!("a put: {}", connection.text()).into());
        }
        let fetched = async || Ok(nodes[1].metric("kvspace_values_fetched_bytes").await? - before >= size_bytes as f64);
        let took = until("the value is fetched", fetched).await?;
        let ours = mib / took.as_secs_f64();
        println!("# {mib:.0} MiB: {ours:.0} MiB/s, a bare stream {bare:.0} MiB/s");
        ratios.push(ours / bare);
    }
    ratios.sort_by(f64::total_cmp);
    line_above("a large value, throughput to that of a bare stream (median)", ratios[1], 0.6);
    Ok(())
}
