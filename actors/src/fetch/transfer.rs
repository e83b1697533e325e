//! One request for a stripe: asked of a peer, verified, written.

use std::{
    io,
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use kvspace_protocol::sync::blob::{Request, Status};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

use super::{
    Occurrence, Peers, Stream,
    plan::{Ask, BlobKey, End},
    serve::within,
    tree,
};
use crate::blobs::{Blobs, Partial, blocking};

/// Opening a stream takes no longer.
const OPEN_TIME: Duration = Duration::from_secs(10);

/// The partial file of a value, as far as it is open.
pub(super) enum Slot {
    Closed,
    Open(Partial),
    /// The value got its name, or is getting it: what still comes is not needed.
    Done,
}

/// What all requests need.
pub(super) struct Context {
    pub(super) blobs: Blobs,
    pub(super) peers: Arc<dyn Peers>,
    pub(super) idle: Duration,
    pub(super) stripe: Duration,
}

/// How a request ended.
pub(super) struct Transferred {
    pub(super) ask: Ask,
    /// The groups that are here now.
    pub(super) got: Range<u64>,
    pub(super) end: End,
    /// The stream, if it is good for another request.
    pub(super) stream: Option<Box<dyn Stream>>,
}

/// Why no whole answer came.
struct Cut(End);

impl From<io::Error> for Cut {
    fn from(_: io::Error) -> Self {
        Self(End::Broken)
    }
}

/// Makes the request on this stream, or on a new one.
pub(super) async fn transfer(
    context: Arc<Context>,
    ask: Ask,
    slot: Arc<Mutex<Slot>>,
    stream: Option<Box<dyn Stream>>,
    cancelled: CancellationToken,
) -> Transferred {
    let mut encoded = Vec::new();
    let received = tokio::select! {
        received = receive(&context, &ask, stream, &mut encoded) => received,
        () = cancelled.cancelled() => Err(Cut(End::Broken)),
        // What a peer drips is no better than nothing.
        () = tokio::time::sleep(context.stripe) => Err(Cut(End::Broken)),
    };
    let (stream, end) = match received {
        Ok(stream) => (Some(stream), End::Whole),
        Err(Cut(end)) => (None, end),
    };
    if end != End::Whole && encoded.is_empty() {
        let got = ask.groups.start..ask.groups.start;
        return Transferred { ask, got, end, stream };
    }
    let (blobs, asked) = (context.blobs.clone(), ask.clone());
    let taken = blocking(move || Ok(take(&blobs, &asked, &slot, &encoded))).await;
    let (groups, end) = match taken {
        Ok((groups, None)) => (groups, end),
        Ok((groups, Some(other))) => (groups, other),
        Err(_) => (0, End::Disk),
    };
    let got = ask.groups.start..ask.groups.start + groups;
    let stream = stream.filter(|_| end == End::Whole);
    Transferred { ask, got, end, stream }
}

/// Asks, and collects what comes.
async fn receive(
    context: &Context,
    ask: &Ask,
    kept: Option<Box<dyn Stream>>,
    encoded: &mut Vec<u8>,
) -> Result<Box<dyn Stream>, Cut> {
    let request = request_of(ask, context.peers.shown(&ask.at.space));
    let mut answered = None;
    if let Some(mut stream) = kept {
        // The peer may have closed it meanwhile: that says nothing.
        answered = begin(&mut *stream, &request, context.idle).await.ok().map(|status| (stream, status));
    }
    let (mut stream, status) = match answered {
        Some(answered) => answered,
        None => {
            let opening = tokio::time::timeout(OPEN_TIME, context.peers.open(ask.peer));
            let opened = opening.await.map_err(|_| Cut(End::Broken))?;
            let mut stream = opened.map_err(|_| Cut(End::Broken))?;
            let status = begin(&mut *stream, &request, context.idle).await?;
            (stream, status)
        }
    };
    match Status::from_byte(status) {
        Some(Status::Follows) => {}
        Some(Status::NotFound) => return Err(Cut(End::NotFound)),
        Some(Status::Busy) => return Err(Cut(End::Busy)),
        Some(Status::Malformed) | None => return Err(Cut(End::Broken)),
    }
    let length = tree::encoded_bytes(ask.key.size, &ask.groups);
    encoded.reserve_exact(length);
    let mut rest = (&mut stream).take(length as u64);
    while encoded.len() < length {
        if within(context.idle, rest.read_buf(encoded)).await? == 0 {
            return Err(Cut(End::Broken));
        }
    }
    Ok(stream)
}

/// Sends the request and reads the status.
async fn begin(stream: &mut dyn Stream, request: &[u8], idle: Duration) -> io::Result<u8> {
    within(idle, stream.write_all(request)).await?;
    within(idle, stream.flush()).await?;
    within(idle, stream.read_u8()).await
}

fn request_of(ask: &Ask, shown: Vec<Bytes>) -> Vec<u8> {
    let BlobKey { hash, size } = ask.key;
    let Range { start: from, end: to } = tree::bytes_of(size, &ask.groups);
    let Occurrence { space, epoch } = ask.at.clone();
    let request = Request { space, epoch, hash, size, from, to, shown }.encode();
    let length = u32::try_from(request.len()).unwrap_or(u32::MAX);
    [&length.to_be_bytes()[..], &request].concat()
}

/// Verifies what came and writes what is good of it: so many groups, and what went wrong.
fn take(blobs: &Blobs, ask: &Ask, slot: &Mutex<Slot>, encoded: &[u8]) -> (u64, Option<End>) {
    let BlobKey { hash, size } = ask.key;
    let decoded = tree::decode(&hash, size, &ask.groups, encoded);
    let bad = decoded.is_bad.then_some(End::Bad);
    if decoded.groups == 0 {
        return (0, bad);
    }
    let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
    if let Slot::Closed = *slot {
        *slot = Slot::Open(blobs.partial(hash, size));
    }
    let Slot::Open(partial) = &mut *slot else { return (0, bad) };
    let offset = tree::bytes_of(size, &ask.groups).start;
    let written = partial.write(offset, &decoded.bytes);
    let written = written.and_then(|()| if partial.is_checkpoint_due() { partial.checkpoint() } else { Ok(()) });
    match written {
        Ok(()) => (decoded.groups, bad),
        Err(error) => {
            tracing::warn!(%hash, %error, "cannot write a value that is being fetched");
            if !partial.is_broken() {
                return (0, Some(End::Disk));
            }
            if let Slot::Open(partial) = std::mem::replace(&mut *slot, Slot::Closed) {
                partial.discard();
            }
            (0, Some(End::Lost))
        }
    }
}
