//! Bodies on their way in and out, in bounded memory.
//!
//! A small body is collected under a share of the node's memory, a large one streamed to a staging file. Dropping
//! whatever was received leaves nothing behind.

use std::{pin::Pin, time::Duration};

use bytes::{Buf, Bytes, BytesMut};
use futures::{FutureExt as _, Stream, StreamExt as _};
use kvspace_actors::{
    blobs::Upload,
    node::{Body, Content, Node, SMALL_BODY_BYTES_MAX},
};
use kvspace_protocol::{id::BlobHash, limits::INLINE_BYTES_MAX};
use tokio::{io::AsyncReadExt as _, sync::OwnedSemaphorePermit, time::timeout};
use tokio_util::io::ReaderStream;
use warp::{
    Filter, Rejection,
    http::header,
    reply::{Reply, Response},
};

use super::{
    error::{Call, HttpError},
    headers::whole,
};

/// What a file is read in, per answer.
const CHUNK_BYTES: usize = 128 * 1024;
/// How long the rest of a body is read after an early answer. A socket that is closed over unread bytes is reset, and
/// a reset may take the answer with it.
const LINGER: Duration = Duration::from_secs(10);

/// The body of a request, not read yet.
pub(crate) struct RequestBody {
    /// `None` when it has ended or was given up.
    chunks: Option<Chunks>,
}

type Chunks = Pin<Box<dyn Stream<Item = Result<Bytes, warp::Error>> + Send>>;

/// The body of the request as an argument of its handler.
pub(crate) fn request_body() -> impl Filter<Extract = (RequestBody,), Error = Rejection> + Copy {
    warp::body::stream().map(RequestBody::new)
}

/// How much of a body is taken.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// What the client says it sends.
    pub(crate) length: Option<u64>,
    /// The most that is taken, in bytes.
    pub(crate) bytes_max: u64,
    /// How long it may stand still.
    pub(crate) idle: Duration,
}

impl Bounds {
    /// Refuses what is known to be too much before anything is read.
    pub(crate) fn check(&self) -> Result<(), HttpError> {
        match self.length {
            Some(length) if length > self.bytes_max => Err(HttpError::body_too_large(self.bytes_max)),
            Some(_) | None => Ok(()),
        }
    }
}

impl RequestBody {
    fn new(chunks: impl Stream<Item = Result<impl Buf, warp::Error>> + Send + 'static) -> Self {
        let bytes = chunks.map(|chunk| chunk.map(|mut chunk| chunk.copy_to_bytes(chunk.remaining())));
        Self { chunks: Some(Box::pin(bytes)) }
    }

    /// Receives a value to put.
    pub(crate) async fn receive(mut self, node: &Node, bounds: Bounds) -> Result<Body, HttpError> {
        bounds.check()?;
        let most = INLINE_BYTES_MAX.min(bounds.bytes_max);
        if bounds.length.is_some_and(|length| length > most) {
            return self.stage(node, bounds, Bytes::new()).await;
        }
        // Whoever stands still before this much is here holds no share that another could use.
        let mut start = self.collect(Bytes::new(), bounds, SMALL_BODY_BYTES_MAX - 1).await?;
        let whole = self.chunks.is_none();
        let reserved = if whole { start.len() as u64 } else { bounds.length.unwrap_or(INLINE_BYTES_MAX) };
        let permit = node.body_permit(reserved).await.map_err(|error| HttpError::node(Call::Invoke, &error))?;
        if !whole {
            let rest = timeout(bounds.idle, self.collect(start, bounds, reserved)).await;
            start = rest.unwrap_or_else(|_| Err(HttpError::body_timeout()))?;
        }
        if start.len() as u64 <= most {
            return Ok(Body::Inline { hash: BlobHash::of(&start), bytes: start, permit });
        }
        drop(permit);
        self.stage(node, bounds, start).await
    }

    /// Collects the body, after `start`, up to `most` bytes and the chunk that goes beyond.
    async fn collect(&mut self, start: Bytes, bounds: Bounds, most: u64) -> Result<Bytes, HttpError> {
        let first = if start.is_empty() { self.next(bounds.idle).await?.unwrap_or_default() } else { start };
        if bounds.length == Some(first.len() as u64) {
            // The end is known; what the stream says next is nothing, and not asked for.
            self.chunks = None;
            return Ok(first);
        }
        let mut collected = BytesMut::from(first);
        while collected.len() as u64 <= most {
            let Some(chunk) = self.next(bounds.idle).await? else { break };
            collected.extend_from_slice(&chunk);
            if bounds.length == Some(collected.len() as u64) {
                self.chunks = None;
            }
        }
        Ok(collected.freeze())
    }

    async fn stage(mut self, node: &Node, bounds: Bounds, start: Bytes) -> Result<Body, HttpError> {
        let mut upload = node.upload().await.map_err(|error| HttpError::node(Call::Invoke, &error))?;
        write(&mut upload, &start, bounds).await?;
        drop(start);
        while let Some(chunk) = self.next(bounds.idle).await? {
            write(&mut upload, &chunk, bounds).await?;
        }
        upload.finish().await.map(Body::Staged).map_err(|error| HttpError::staging(&error))
    }

    async fn next(&mut self, idle: Duration) -> Result<Option<Bytes>, HttpError> {
        let Some(chunks) = self.chunks.as_mut() else { return Ok(None) };
        let end = match timeout(idle, chunks.next()).await {
            Ok(Some(Ok(chunk))) => return Ok(Some(chunk)),
            Ok(None) => Ok(None),
            Ok(Some(Err(error))) => {
                tracing::debug!(%error, "a body ended half-way");
                Err(HttpError::body_incomplete())
            }
            Err(_) => Err(HttpError::body_timeout()),
        };
        self.chunks = None;
        end
    }
}

async fn write(upload: &mut Upload, chunk: &[u8], bounds: Bounds) -> Result<(), HttpError> {
    if upload.size() + chunk.len() as u64 > bounds.bytes_max {
        return Err(HttpError::body_too_large(bounds.bytes_max));
    }
    upload.write(chunk).await.map_err(|error| HttpError::staging(&error))
}

impl Drop for RequestBody {
    /// Reads on for a while when the answer came before the end of the body.
    fn drop(&mut self) {
        let Some(mut chunks) = self.chunks.take() else { return };
        let Some(Some(Ok(_)) | None) = chunks.next().now_or_never().map_or(Some(None), Some) else { return };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(timeout(LINGER, async move { while let Some(Ok(_)) = chunks.next().await {} }));
    }
}

/// An answer of a stored value.
pub(crate) fn content(content: Content) -> Response {
    match content {
        Content::Whole(bytes, permit) => whole(Bytes::from_owner(Held { bytes, _permit: permit })),
        Content::File(mut file, size) => {
            file.set_max_buf_size(CHUNK_BYTES);
            let chunks = ReaderStream::with_capacity(file.take(size), CHUNK_BYTES);
            let mut response = warp::reply::stream(chunks).into_response();
            response.headers_mut().insert(header::CONTENT_LENGTH, size.into());
            response
        }
    }
}

/// Bytes that keep their share of the node's memory until they are sent.
struct Held {
    bytes: Bytes,
    _permit: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use futures::stream;
    use tokio::sync::Semaphore;

    use super::*;

    const IDLE: Duration = Duration::from_millis(50);

    fn bounds(length: Option<u64>) -> Bounds {
        Bounds { length, bytes_max: 100, idle: IDLE }
    }

    fn body(chunks: &'static [&'static str]) -> RequestBody {
        RequestBody::new(stream::iter(chunks.iter().map(|chunk| Ok(Bytes::from(*chunk)))))
    }

    #[tokio::test]
    async fn a_body_of_known_length_in_one_chunk_is_not_copied() {
        let chunk = Bytes::from("hello");
        let address = chunk.as_ptr();
        let mut body = RequestBody::new(stream::iter([Ok(chunk)]));
        let collected = body.collect(Bytes::new(), bounds(Some(5)), 5).await.expect("a body");
        assert_eq!((collected.as_ptr(), &*collected), (address, &b"hello"[..]));
    }

    #[tokio::test]
    async fn chunks_are_put_together_up_to_the_bound() {
        let mut whole = body(&["he", "", "llo"]);
        assert_eq!(whole.collect(Bytes::new(), bounds(None), 100).await.as_deref(), Ok(&b"hello"[..]));
        let mut long = body(&["he", "llo", "never"]);
        assert_eq!(long.collect(Bytes::new(), bounds(None), 4).await.as_deref(), Ok(&b"hello"[..]));
        assert_eq!(body(&[]).collect(Bytes::new(), bounds(None), 4).await.as_deref(), Ok(&b""[..]));
    }

    #[tokio::test]
    async fn a_body_that_stands_still_times_out() {
        let mut body = RequestBody::new(stream::iter([Ok(Bytes::from("he"))]).chain(stream::pending()));
        assert_eq!(body.collect(Bytes::new(), bounds(Some(5)), 5).await, Err(HttpError::body_timeout()));
    }

    #[test]
    fn a_length_above_the_bound_is_refused_before_reading() {
        assert_eq!(bounds(Some(101)).check(), Err(HttpError::body_too_large(100)));
        assert_eq!(bounds(Some(100)).check(), Ok(()));
        assert_eq!(bounds(None).check(), Ok(()));
    }

    #[tokio::test]
    async fn what_is_left_of_a_body_is_read_after_an_early_answer() {
        let read = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&read);
        let chunks = stream::iter(0..10).then(move |_| {
            counter.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().map(|()| Ok(Bytes::from("x")))
        });
        drop(RequestBody::new(chunks));
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert_eq!(read.load(Ordering::Relaxed), 10);
    }

    #[tokio::test]
    async fn a_value_keeps_its_share_of_memory_until_it_is_sent() {
        let memory = Arc::new(Semaphore::new(10));
        let permit = Arc::clone(&memory).acquire_many_owned(5).await.expect("open");
        let response = content(Content::Whole(Bytes::from("hello"), permit));
        assert_eq!(memory.available_permits(), 5);
        drop(response);
        assert_eq!(memory.available_permits(), 10);
    }
}
