//! Bodies in both directions, a piece at a time.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt as _};
use http_body_util::{BodyExt as _, Empty, Full, combinators::UnsyncBoxBody};
use hyper::body::{Body, Frame, SizeHint};
use kvspace_protocol::id::BlobHash;
use tokio::io::{AsyncRead, AsyncReadExt as _};

use crate::Error;

/// One read of a file: large enough to keep the disk busy, small beside any memory.
const PIECE_BYTES: usize = 256 * 1024;

pub(crate) type RequestBody = UnsyncBoxBody<Bytes, SendError>;

/// Why the body of a request ended before its time.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SendError {
    #[error("the data changed while it was sent")]
    Changed,
    #[error("{0}")]
    Read(#[from] std::io::Error),
}

/// Told how far a transfer is: bytes so far, and how many there will be, where that is known.
#[derive(Clone, Default)]
pub struct Progress(Option<Arc<ProgressFn>>);

type ProgressFn = dyn Fn(u64, Option<u64>) + Send + Sync;

impl Progress {
    /// Tells nobody.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Calls `tell(bytes so far, bytes in all)` after each piece. It must not block.
    #[must_use]
    pub fn new(tell: impl Fn(u64, Option<u64>) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(tell)))
    }

    pub(crate) fn tell(&self, done: u64, total: Option<u64>) {
        if let Some(tell) = &self.0 {
            tell(done, total);
        }
    }
}

impl std::fmt::Debug for Progress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Progress")
    }
}

pub(crate) fn empty() -> RequestBody {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

pub(crate) fn whole(bytes: Bytes) -> RequestBody {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

/// Reads to the end: the hash of what comes and how much it is.
pub(crate) async fn digest(reader: &mut (impl AsyncRead + Unpin)) -> Result<(BlobHash, u64), Error> {
    let (mut hasher, mut size) = (blake3::Hasher::new(), 0);
    let mut piece = BytesMut::with_capacity(PIECE_BYTES);
    while reader.read_buf(&mut piece).await? > 0 {
        hasher.update(&piece);
        size += piece.len() as u64;
        piece.clear();
    }
    Ok((BlobHash(*hasher.finalize().as_bytes()), size))
}

/// A body of known size and hash, read while it is sent. `sent` counts the bytes that left, so that a stall is seen.
pub(crate) fn upload<R>(reader: R, size: u64, hash: BlobHash, sent: Arc<AtomicU64>, progress: Progress) -> RequestBody
where
    R: AsyncRead + Send + Unpin + 'static,
{
    let state = Reading { reader, hasher: blake3::Hasher::new(), done: 0 };
    let pieces = futures::stream::try_unfold(state, move |mut state| {
        let (sent, progress) = (Arc::clone(&sent), progress.clone());
        async move {
            let Some(piece) = state.next(size, hash).await? else { return Ok(None) };
            sent.store(state.done, Ordering::Relaxed);
            progress.tell(state.done, Some(size));
            Ok(Some((piece, state)))
        }
    });
    Upload { pieces: Box::pin(pieces), left: size }.boxed_unsync()
}

struct Reading<R> {
    reader: R,
    hasher: blake3::Hasher,
    done: u64,
}

impl<R: AsyncRead + Unpin> Reading<R> {
    /// The next piece. The last one is only given when the whole has the hash that was signed.
    async fn next(&mut self, size: u64, hash: BlobHash) -> Result<Option<Bytes>, SendError> {
        if self.done == size {
            return Ok(None);
        }
        let mut piece = BytesMut::with_capacity(PIECE_BYTES);
        while piece.len() < PIECE_BYTES {
            if self.reader.read_buf(&mut piece).await? == 0 {
                break;
            }
        }
        self.hasher.update(&piece);
        self.done += piece.len() as u64;
        let ended = piece.is_empty() && self.done < size;
        let other = self.done == size && self.hasher.finalize() != blake3::Hash::from_bytes(hash.0);
        if ended || other || self.done > size {
            return Err(SendError::Changed);
        }
        Ok(Some(piece.freeze()))
    }
}

/// Gives hyper the exact size, so that the request carries a Content-Length.
struct Upload<S> {
    pieces: Pin<Box<S>>,
    left: u64,
}

impl<S: Stream<Item = Result<Bytes, SendError>>> Body for Upload<S> {
    type Data = Bytes;
    type Error = SendError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, SendError>>> {
        let next = std::task::ready!(self.pieces.poll_next_unpin(cx));
        if let Some(Ok(piece)) = &next {
            self.left = self.left.saturating_sub(piece.len() as u64);
        }
        Poll::Ready(next.map(|piece| piece.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sending(bytes: &'static [u8], size: u64, hash: BlobHash) -> RequestBody {
        upload(bytes, size, hash, Arc::default(), Progress::none())
    }

    #[tokio::test]
    async fn a_body_is_sent_whole_and_says_its_size() {
        let bytes: &'static [u8] = Box::leak(vec![7u8; 3 * PIECE_BYTES + 5].into_boxed_slice());
        let (hash, size) = digest(&mut &bytes[..]).await.expect("read");
        assert_eq!((hash, size), (BlobHash::of(bytes), bytes.len() as u64));
        let body = sending(bytes, size, hash);
        assert_eq!(body.size_hint().exact(), Some(size));
        assert_eq!(body.collect().await.expect("sent").to_bytes(), bytes);
    }

    #[tokio::test]
    async fn data_that_changed_is_never_sent_to_its_end() {
        let hash = BlobHash::of(b"0123456789");
        for now in [&b"01234"[..], b"01234567890", b"9876543210"] {
            let result = sending(now, 10, hash).collect().await;
            assert!(matches!(result, Err(SendError::Changed)), "{now:?}");
        }
    }
}
