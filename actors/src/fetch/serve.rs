//! Answering peers that ask for ranges of values.
//!
//! Every group is checked against the hash before it is sent: a disk may rot. A value found rotten is not there for peers from
//! then on, until its file is another one.

use std::{
    collections::BTreeMap,
    fs::{File, Metadata},
    io::{self, Write},
    os::unix::fs::MetadataExt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bao_tree::io::sync::{ReadAt, encode_ranges_validated};
use bytes::Bytes;
use futures::future::BoxFuture;
use kvspace_protocol::{
    id::{BlobHash, EpochId, HostKey, SpaceId},
    limits::BLOB_REQUEST_BYTES_MAX,
    sync::blob::{GROUP_BYTES, Request, Status},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::mpsc,
};

use super::{
    Stream,
    outboards::{Outboards, Rotten},
    tree,
};

/// Streams of one peer, and of all.
const STREAMS_PER_PEER_MAX: usize = 4;
const STREAMS_MAX: usize = 64;
/// Bytes handed over at once on their way to a peer, and how many such pieces wait.
const PIECE_BYTES: usize = 256 * 1024;
const PIECES_MAX: usize = 2;
const READ_BYTES: usize = 64 * 1024;

/// Where the bytes of a value are.
#[derive(Debug)]
pub(crate) enum Source {
    /// In this file.
    File(File),
    /// These are they.
    Bytes(Bytes),
}

/// The values of this node, as peers may see them.
pub(crate) trait Values: Send + Sync + 'static {
    /// Whether this peer may read values of this space, by who it is or by what it shows.
    fn may_read<'a>(&'a self, peer: HostKey, space: &'a SpaceId, shown: &'a [Bytes]) -> BoxFuture<'a, bool>;

    /// Opens a value, if an operation of this epoch has it and its bytes are here.
    fn open<'a>(&'a self, space: &'a SpaceId, hash: &'a BlobHash, epoch: &'a EpochId) -> BoxFuture<'a, Option<Source>>;

    /// The bytes of this file are not what a request rightly expects. It is told at most as often as it is asked for; it may
    /// block.
    fn rotten(&self, _request: &Request, _file: &Metadata) {}
}

/// Serves values to peers. Clones are the same.
#[derive(Clone)]
pub(crate) struct Server {
    pub(super) shared: Arc<Shared>,
}

pub(super) struct Shared {
    values: Arc<dyn Values>,
    idle: Duration,
    outboards: Outboards,
    streams: Mutex<BTreeMap<HostKey, usize>>,
}

/// A place among the streams.
struct Slot {
    shared: Arc<Shared>,
    peer: HostKey,
}

impl Server {
    /// `idle` is how long a peer may let a read or a write wait.
    pub(crate) fn new(values: Arc<dyn Values>, idle: Duration) -> Self {
        let outboards = Outboards::default();
        Self { shared: Arc::new(Shared { values, idle, outboards, streams: Mutex::default() }) }
    }

    /// Answers the requests on one stream of a peer until it ends, breaks, or makes no sense.
    pub(crate) async fn serve_stream(&self, mut stream: impl Stream, peer: HostKey) {
        let shared = &self.shared;
        let Some(_slot) = shared.slot(peer) else {
            shared.say(&mut stream, Status::Busy).await.ok();
            stream.shutdown().await.ok();
            return;
        };
        let ended = shared.serve(&mut stream, peer).await;
        if let Err(error) = ended {
            tracing::debug!(?peer, %error, "a stream for values ended");
        }
        stream.shutdown().await.ok();
    }
}

impl Shared {
    fn slot(self: &Arc<Self>, peer: HostKey) -> Option<Slot> {
        let mut streams = self.streams();
        let all: usize = streams.values().sum();
        let of_peer = streams.get(&peer).copied().unwrap_or(0);
        if all >= STREAMS_MAX || of_peer >= STREAMS_PER_PEER_MAX {
            return None;
        }
        streams.insert(peer, of_peer + 1);
        Some(Slot { shared: Arc::clone(self), peer })
    }

    pub(super) fn streams(&self) -> MutexGuard<'_, BTreeMap<HostKey, usize>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn serve(&self, stream: &mut impl Stream, peer: HostKey) -> io::Result<()> {
        while let Some(bytes) = self.read_request(stream).await? {
            let Ok(request) = Request::decode(&bytes) else {
                return self.say(stream, Status::Malformed).await;
            };
            drop(bytes);
            self.answer(stream, peer, request).await?;
        }
        Ok(())
    }

    /// The bytes of the next request; `None` when the peer is done. Takes no more memory than what has come.
    async fn read_request(&self, stream: &mut impl Stream) -> io::Result<Option<Vec<u8>>> {
        let mut length = [0; 4];
        if within(self.idle, stream.read(&mut length[..1])).await? == 0 {
            return Ok(None);
        }
        within(self.idle, stream.read_exact(&mut length[1..])).await?;
        let length = u32::from_be_bytes(length) as usize;
        if length > BLOB_REQUEST_BYTES_MAX {
            self.say(stream, Status::Malformed).await?;
            return Err(io::Error::new(io::ErrorKind::InvalidData, "too long a request"));
        }
        let mut bytes = Vec::new();
        while bytes.len() < length {
            let from = bytes.len();
            bytes.resize(length.min(from + READ_BYTES), 0);
            within(self.idle, stream.read_exact(&mut bytes[from..])).await?;
        }
        Ok(Some(bytes))
    }

    async fn answer(&self, stream: &mut impl Stream, peer: HostKey, request: Request) -> io::Result<()> {
        let Request { space, epoch, hash, shown, .. } = &request;
        if !self.values.may_read(peer, space, shown).await {
            return self.say(stream, Status::NotFound).await;
        }
        let Some(source) = self.values.open(space, hash, epoch).await else {
            return self.say(stream, Status::NotFound).await;
        };
        let mut pieces = self.encode(source, request);
        // Nothing is promised before there is something to send.
        match pieces.recv().await {
            None | Some(Err(Rotten)) => return self.say(stream, Status::NotFound).await,
            Some(Ok(first)) => {
                self.say(stream, Status::Follows).await?;
                within(self.idle, stream.write_all(&first)).await?;
            }
        }
        while let Some(piece) = pieces.recv().await {
            let piece = piece.map_err(|Rotten| io::Error::other("the value is broken here"))?;
            within(self.idle, stream.write_all(&piece)).await?;
        }
        within(self.idle, stream.flush()).await
    }

    async fn say(&self, stream: &mut impl Stream, status: Status) -> io::Result<()> {
        within(self.idle, stream.write_all(&[status.byte()])).await?;
        within(self.idle, stream.flush()).await
    }

    /// The encoding of the range, in pieces, made where it holds up nobody. Nothing comes when there is no such range here;
    /// the last piece says if the value is broken.
    fn encode(&self, source: Source, request: Request) -> mpsc::Receiver<Result<Bytes, Rotten>> {
        let (tell, told) = mpsc::channel(PIECES_MAX);
        let (outboards, values) = (self.outboards.clone(), Arc::clone(&self.values));
        tokio::task::spawn_blocking(move || {
            let encoded = match source {
                Source::Bytes(bytes) => encode_bytes(&bytes, &request, &tell),
                Source::File(file) => {
                    let encoded = encode_file(&file, &request, &outboards, &tell);
                    if let (Err(Rotten), Ok(file)) = (encoded, file.metadata()) {
                        values.rotten(&request, &file);
                    }
                    encoded
                }
            };
            if let Err(Rotten) = encoded {
                tracing::error!(hash = %request.hash, "the bytes of a value are not what they should be");
                tell.blocking_send(Err(Rotten)).ok();
            }
        });
        told
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut streams = self.shared.streams();
        match streams.get_mut(&self.peer) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                streams.remove(&self.peer);
            }
        }
    }
}

fn encode_bytes(bytes: &Bytes, request: &Request, tell: &mpsc::Sender<Result<Bytes, Rotten>>) -> Result<(), Rotten> {
    if bytes.len() as u64 != request.size {
        return Ok(());
    }
    let outboard = bao_tree::io::outboard::PreOrderMemOutboard::create(bytes, tree::BLOCK);
    if outboard.root.as_bytes() != request.hash.as_bytes() {
        return Err(Rotten);
    }
    encode(&bytes[..], &outboard, request, tell)
}

fn encode_file(
    file: &File,
    request: &Request,
    outboards: &Outboards,
    tell: &mpsc::Sender<Result<Bytes, Rotten>>,
) -> Result<(), Rotten> {
    let Ok(metadata) = file.metadata() else { return Ok(()) };
    if metadata.len() != request.size {
        return Ok(());
    }
    let outboard = outboards.of(&request.hash, file, metadata.ino(), metadata.len()).ok_or(Rotten)?;
    let encoded = encode(file, outboard.as_ref(), request, tell);
    if encoded.is_err() {
        outboards.set_rotten(&request.hash, metadata.ino());
    }
    encoded
}

fn encode<O: bao_tree::io::sync::Outboard>(
    data: impl ReadAt,
    outboard: O,
    request: &Request,
    tell: &mpsc::Sender<Result<Bytes, Rotten>>,
) -> Result<(), Rotten> {
    let groups = request.from / GROUP_BYTES..request.to.div_ceil(GROUP_BYTES).max(1);
    let chunks = tree::chunks(request.size, &groups);
    let mut pieces = Pieces { tell, piece: Vec::new(), is_over: false };
    let encoded = encode_ranges_validated(data, outboard, &chunks, &mut pieces);
    match encoded {
        Ok(()) => {
            pieces.send().ok();
            Ok(())
        }
        Err(_) if pieces.is_over => Ok(()),
        Err(_) => Err(Rotten),
    }
}

/// Hands bytes over in pieces.
struct Pieces<'a> {
    tell: &'a mpsc::Sender<Result<Bytes, Rotten>>,
    piece: Vec<u8>,
    /// Whether nobody takes them any more.
    is_over: bool,
}

impl Pieces<'_> {
    fn send(&mut self) -> io::Result<()> {
        let piece = std::mem::take(&mut self.piece);
        self.tell.blocking_send(Ok(piece.into())).map_err(|_| {
            self.is_over = true;
            io::ErrorKind::BrokenPipe.into()
        })
    }
}

impl Write for Pieces<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.piece.extend_from_slice(bytes);
        if self.piece.len() >= PIECE_BYTES {
            self.send()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The outcome of an operation on a stream, unless it takes too long.
pub(super) async fn within<T>(idle: Duration, operation: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(idle, operation).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}
