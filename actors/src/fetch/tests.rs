//! Values fetched over streams in memory, from servers that are honest and some that are not.

use std::{
    collections::BTreeSet,
    path::Path,
    sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
};

use futures::FutureExt as _;
use kvspace_protocol::{
    id::Did,
    sync::blob::{Request, Status},
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, ReadBuf};

use super::*;
use crate::{blobs::BlobOptions, disk::Disk};

mod cuts;
mod faults;
mod serving;

/// Longer than anything takes: what is waited for is an event, and this only ends a test that would hang.
const LONG: Duration = Duration::from_secs(60);
const MIB: usize = 1024 * 1024;

fn place() -> Occurrence {
    Occurrence { space: space(), epoch: EpochId::of(b"epoch") }
}

fn space() -> SpaceId {
    SpaceId::new(&Did::from_ed25519(&[7; 32]), "default").expect("a space id")
}

fn content(seed: u8, size: usize) -> Bytes {
    let mut bytes = vec![0; size];
    blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut bytes);
    bytes.into()
}

/// Retries soon, so that tests need not wait.
fn options() -> FetchOptions {
    let settings = Settings { again_ms: 5, again_max_ms: 20, busy_ms: 5, disk_ms: 5, ..Settings::default() };
    FetchOptions { settings, idle: LONG, stripe: LONG }
}

/// The values of a node: files, and some in memory.
struct Held {
    blobs: Blobs,
    inline: Mutex<BTreeMap<BlobHash, Bytes>>,
    /// Only these may read; everybody if empty.
    readers: BTreeSet<HostKey>,
    shown: Mutex<Vec<Bytes>>,
    /// How often a file was found rotten, for all that have it in common.
    rotten: Arc<AtomicUsize>,
}

impl Values for Held {
    fn may_read<'a>(&'a self, peer: HostKey, of: &'a SpaceId, shown: &'a [Bytes]) -> BoxFuture<'a, bool> {
        self.shown.lock().expect("no panic").extend_from_slice(shown);
        let may = *of == space() && (self.readers.is_empty() || self.readers.contains(&peer));
        std::future::ready(may).boxed()
    }

    fn rotten(&self, _: &Request, _: &std::fs::Metadata) {
        self.rotten.fetch_add(1, Ordering::SeqCst);
    }

    fn open<'a>(&'a self, _: &'a SpaceId, hash: &'a BlobHash, _: &'a EpochId) -> BoxFuture<'a, Option<Source>> {
        async move {
            if let Some(bytes) = self.inline.lock().expect("no panic").get(hash) {
                return Some(Source::Bytes(bytes.clone()));
            }
            let opened = self.blobs.open_blob(hash).await.ok().flatten();
            opened.map(|(file, _)| Source::File(file))
        }
        .boxed()
    }
}

/// What a peer does with a stream that is opened to it.
type Behaviour = Arc<dyn Fn(DuplexStream) -> BoxFuture<'static, ()> + Send + Sync>;

/// Peers in this process, by number.
#[derive(Default)]
struct Net {
    peers: Mutex<BTreeMap<HostKey, Behaviour>>,
    /// Bytes that came from each.
    bytes: Mutex<BTreeMap<HostKey, Arc<AtomicU64>>>,
    opened: AtomicUsize,
}

/// A stream that counts what is read from it.
struct Counted(DuplexStream, Arc<AtomicU64>);

impl AsyncRead for Counted {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = std::pin::Pin::new(&mut self.0).poll_read(context, buffer);
        self.1.fetch_add((buffer.filled().len() - before) as u64, Ordering::SeqCst);
        polled
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        bytes: &[u8],
    ) -> std::task::Poll<io::Result<usize>> {
        std::pin::Pin::new(&mut self.0).poll_write(context, bytes)
    }
    fn poll_flush(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        std::pin::Pin::new(&mut self.0).poll_flush(context)
    }
    fn poll_shutdown(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        std::pin::Pin::new(&mut self.0).poll_shutdown(context)
    }
}

impl Net {
    fn set(&self, peer: HostKey, behaviour: Behaviour) {
        self.peers.lock().expect("no panic").insert(peer, behaviour);
        self.bytes.lock().expect("no panic").entry(peer).or_default();
    }

    fn remove(&self, peer: HostKey) {
        self.peers.lock().expect("no panic").remove(&peer);
    }

    fn bytes_from(&self, peer: HostKey) -> u64 {
        self.bytes.lock().expect("no panic")[&peer].load(Ordering::SeqCst)
    }
}

impl Peers for Net {
    fn hosts(&self, of: &SpaceId) -> Vec<HostKey> {
        let peers = self.peers.lock().expect("no panic");
        if *of == space() { peers.keys().copied().collect() } else { Vec::new() }
    }

    fn open(&self, peer: HostKey) -> BoxFuture<'_, Result<Box<dyn Stream>, OpenError>> {
        let behaviour = self.peers.lock().expect("no panic").get(&peer).cloned();
        let count = Arc::clone(&self.bytes.lock().expect("no panic")[&peer]);
        async move {
            let behaviour = behaviour.ok_or_else(|| OpenError("gone".into()))?;
            self.opened.fetch_add(1, Ordering::SeqCst);
            let (here, there) = tokio::io::duplex(64 * 1024);
            tokio::spawn(behaviour(there));
            Ok(Box::new(Counted(here, count)) as Box<dyn Stream>)
        }
        .boxed()
    }

    fn shown(&self, _: &SpaceId) -> Vec<Bytes> {
        vec![Bytes::from_static(b"a token")]
    }
}

/// A folder with blobs in it.
struct Folder {
    dir: tempfile::TempDir,
    blobs: Blobs,
}

impl Folder {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let blobs = Blobs::open(dir.path()).expect("opened");
        Self { dir, blobs }
    }

    async fn put(&self, bytes: &[u8]) -> BlobHash {
        let mut upload = self.blobs.upload().await.expect("begun");
        upload.write(bytes).await.expect("written");
        let staged = upload.finish().await.expect("finished");
        let hash = staged.hash;
        staged.keep();
        hash
    }

    fn server(&self) -> Server {
        Server::new(Arc::new(self.held()), LONG)
    }

    fn held(&self) -> Held {
        let (inline, shown) = (Mutex::default(), Mutex::default());
        Held { blobs: self.blobs.clone(), inline, readers: BTreeSet::new(), shown, rotten: Arc::default() }
    }
}

fn host(number: u8) -> HostKey {
    HostKey([number; 32])
}

/// The one who asks.
const ASKING: HostKey = HostKey([255; 32]);

/// A peer that answers as a node does.
fn honest(server: Server) -> Behaviour {
    Arc::new(move |stream| {
        let server = server.clone();
        async move { server.serve_stream(stream, ASKING).await }.boxed()
    })
}

/// A peer that changes what a node would answer: `change` gets each piece and the number of bytes before it on this stream;
/// what it gives back goes on, and after `None` nothing ever comes.
fn tampered(server: Server, change: impl Fn(u64, Vec<u8>) -> Option<Vec<u8>> + Send + Sync + 'static) -> Behaviour {
    let change = Arc::new(change);
    Arc::new(move |stream| {
        let (server, change) = (server.clone(), Arc::clone(&change));
        async move {
            let (near, far) = tokio::io::duplex(64 * 1024);
            tokio::spawn(async move { server.serve_stream(far, ASKING).await });
            let (mut from_asking, mut to_asking) = tokio::io::split(stream);
            let (mut from_server, mut to_server) = tokio::io::split(near);
            tokio::spawn(async move { tokio::io::copy(&mut from_asking, &mut to_server).await.ok() });
            let (mut buffer, mut before) = (vec![0; 8192], 0);
            while let Ok(count) = from_server.read(&mut buffer).await {
                if count == 0 {
                    return;
                }
                let Some(piece) = change(before, buffer[..count].to_vec()) else { return std::future::pending().await };
                before += count as u64;
                if to_asking.write_all(&piece).await.is_err() {
                    return;
                }
            }
        }
        .boxed()
    })
}

fn is_whole(folder: &Path, bytes: &[u8]) -> bool {
    let path = crate::blobs::file_of(folder, &BlobHash::of(bytes));
    std::fs::read(path).is_ok_and(|read| read == bytes)
}

fn left_over(folder: &Path) -> Vec<String> {
    crate::disk::OsDisk.list(&folder.join("partial")).expect("a folder")
}

#[tokio::test]
async fn values_of_every_size_come_whole() {
    let (source, target, net) = (Folder::new(), Folder::new(), Arc::new(Net::default()));
    net.set(host(1), honest(source.server()));
    let fetcher = Fetcher::start(target.blobs.clone(), net, options()).expect("started");
    let sizes = [0, 1, 16_384, 16_385, 300_000, MIB - 1, MIB, MIB + 1, 10 * MIB];
    let mut values = Vec::new();
    for (seed, size) in (0..).zip(sizes) {
        let bytes = content(seed, size);
        let hash = source.put(&bytes).await;
        assert!(fetcher.want(&place(), hash, size as u64, Urgency::Soon));
        values.push((hash, bytes));
    }
    for (hash, bytes) in &values {
        assert!(fetcher.wait(hash, LONG).await, "{}", bytes.len());
        assert!(is_whole(target.dir.path(), bytes), "{}", bytes.len());
    }
    let counters = fetcher.counters();
    let all: u64 = sizes.iter().map(|size| *size as u64).sum();
    assert_eq!((counters.fetched, counters.bytes, counters.bad), (9, all, 0));
    assert_eq!(fetcher.wanted(), 0);
    fetcher.stop().await;
    assert_eq!(left_over(target.dir.path()), [""; 0]);
}

#[tokio::test]
async fn a_value_that_lies_in_the_log_is_served_from_memory() {
    let (source, target, net) = (Folder::new(), Folder::new(), Arc::new(Net::default()));
    let held = source.held();
    let bytes = content(1, 200_000);
    let hash = BlobHash::of(&bytes);
    held.inline.lock().expect("no panic").insert(hash, bytes.clone());
    let held = Arc::new(held);
    net.set(host(1), honest(Server::new(held.clone(), LONG)));
    let fetcher = Fetcher::start(target.blobs.clone(), net, options()).expect("started");
    fetcher.want(&place(), hash, 200_000, Urgency::Now);
    assert!(fetcher.wait(&hash, LONG).await);
    assert!(is_whole(target.dir.path(), &bytes));
    assert_eq!(held.shown.lock().expect("no panic")[0], "a token", "what has to be shown is shown");
    fetcher.stop().await;
}

#[tokio::test]
async fn streams_are_used_again_for_the_next_stripe() {
    let (source, target, net) = (Folder::new(), Folder::new(), Arc::new(Net::default()));
    net.set(host(1), honest(source.server()));
    let fetcher = Fetcher::start(target.blobs.clone(), net.clone(), options()).expect("started");
    let bytes = content(1, 20 * MIB);
    let hash = source.put(&bytes).await;
    fetcher.want(&place(), hash, bytes.len() as u64, Urgency::Soon);
    assert!(fetcher.wait(&hash, LONG).await);
    assert!(net.opened.load(Ordering::SeqCst) <= 2, "20 stripes took {} streams", net.opened.load(Ordering::SeqCst));
    fetcher.stop().await;
}

#[tokio::test]
async fn a_value_that_is_here_is_not_fetched() {
    let (target, net) = (Folder::new(), Arc::new(Net::default()));
    let hash = target.put(b"value").await;
    let fetcher = Fetcher::start(target.blobs.clone(), net, options()).expect("started");
    assert!(fetcher.want(&place(), hash, 5, Urgency::Now));
    assert_eq!(fetcher.wanted(), 0);
    assert!(fetcher.wait(&hash, LONG).await);
    fetcher.stop().await;
}

#[tokio::test]
async fn a_wait_ends_without_the_value() {
    let (target, net) = (Folder::new(), Arc::new(Net::default()));
    let fetcher = Fetcher::start(target.blobs.clone(), net, options()).expect("started");
    let hash = BlobHash::of(b"nowhere");
    fetcher.want(&place(), hash, 7, Urgency::Now);
    assert!(!fetcher.wait(&hash, Duration::from_millis(1)).await);
    assert_eq!((fetcher.wanted(), fetcher.asked(&hash)), (1, Vec::new()));
    fetcher.stop().await;
}

#[tokio::test]
async fn a_peer_that_comes_is_asked_at_once() {
    let (source, target, net) = (Folder::new(), Folder::new(), Arc::new(Net::default()));
    let fetcher = Fetcher::start(target.blobs.clone(), net.clone(), options()).expect("started");
    let hash = source.put(b"value").await;
    fetcher.want(&place(), hash, 5, Urgency::Soon);
    assert!(!fetcher.wait(&hash, Duration::from_millis(1)).await);
    net.set(host(1), honest(source.server()));
    fetcher.handle_peer(&host(1));
    assert!(fetcher.wait(&hash, LONG).await);
    fetcher.stop().await;
}

#[tokio::test]
async fn what_somebody_waits_for_overtakes_what_does_not() {
    let (source, target, net) = (Folder::new(), Folder::new(), Arc::new(Net::default()));
    // Nobody is there yet, so both are wanted before the first is asked for.
    let fetcher = Fetcher::start(target.blobs.clone(), net.clone(), options()).expect("started");
    let (large, small) = (content(1, 10 * MIB), content(2, MIB));
    let (large_hash, small_hash) = (source.put(&large).await, source.put(&small).await);
    fetcher.want(&place(), large_hash, large.len() as u64, Urgency::Soon);
    fetcher.want(&place(), small_hash, small.len() as u64, Urgency::Now);
    let mut arrivals = fetcher.shared.arrived.subscribe();
    net.set(host(1), honest(source.server()));
    fetcher.handle_peer(&host(1));
    assert_eq!(arrivals.recv().await, Ok(small_hash));
    assert_eq!(arrivals.recv().await, Ok(large_hash));
    fetcher.stop().await;
}
