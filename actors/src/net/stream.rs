//! Streams of bytes between connected peers.
//!
//! The library drops a stream that finds nobody waiting for it, so a task of its own does nothing but wait; and it dials
//! when a peer is not connected, so streams are opened to connected ones only, within a deadline.

use std::{
    collections::BTreeMap,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures::StreamExt as _;
use kvspace_protocol::id::HostKey;
use libp2p_stream::{Control, IncomingStreams, OpenStreamError};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::timeout,
};
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt as _};

use super::{
    AskError,
    behaviour::BLOB,
    identity::{host_key, peer_id},
    state::{STREAMS_PER_PEER_MAX, Shared, count},
};

/// How long opening a stream may take, the wait for a turn included.
const OPEN_DEADLINE: Duration = Duration::from_secs(10);

/// A stream of bytes to or from a peer. Dropping it gives its place to another.
#[derive(Debug)]
pub(crate) struct Stream {
    inner: Compat<libp2p::Stream>,
    _place: OwnedSemaphorePermit,
}

impl Stream {
    fn new(inner: libp2p::Stream, place: OwnedSemaphorePermit) -> Self {
        Self { inner: inner.compat(), _place: place }
    }
}

/// Opens a stream to a connected peer.
pub(super) async fn open(shared: &Shared, control: Control, peer: &HostKey) -> Result<Stream, AskError> {
    let places = {
        let state = shared.lock();
        let session = state.session(peer)?;
        Arc::clone(&session.streams)
    };
    match timeout(OPEN_DEADLINE, open_in(places, control, peer)).await {
        Ok(opened) => opened,
        Err(_) => Err(AskError::TimedOut),
    }
}

async fn open_in(places: Arc<Semaphore>, mut control: Control, peer: &HostKey) -> Result<Stream, AskError> {
    let place = places.acquire_owned().await.map_err(|_| AskError::NotConnected)?;
    match control.open_stream(peer_id(peer), BLOB).await {
        Ok(stream) => Ok(Stream::new(stream, place)),
        Err(OpenStreamError::UnsupportedProtocol(_)) => Err(AskError::Refused),
        Err(_) => Err(AskError::NotConnected),
    }
}

/// Hands on the streams that peers open, as long as there are any to come.
pub(super) async fn accept(
    shared: Arc<Shared>,
    mut incoming: IncomingStreams,
    streams: mpsc::Sender<(HostKey, Stream)>,
) {
    let mut places: BTreeMap<HostKey, Arc<Semaphore>> = BTreeMap::new();
    while let Some((peer, stream)) = incoming.next().await {
        places.retain(|_, places| places.available_permits() < STREAMS_PER_PEER_MAX);
        let Some(peer) = host_key(&peer) else { continue };
        if shared.lock().dialler.is_blocked(&peer) {
            continue;
        }
        let places = places.entry(peer).or_insert_with(|| Arc::new(Semaphore::new(STREAMS_PER_PEER_MAX)));
        let taken = Arc::clone(places).try_acquire_owned().ok().map(|place| Stream::new(stream, place));
        let is_taken = taken.is_some_and(|stream| streams.try_send((peer, stream)).is_ok());
        if !is_taken {
            tracing::debug!(?peer, "dropping a stream: too many are open");
            count(&shared.dropped.streams);
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
