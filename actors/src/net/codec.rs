//! One message on a stream: its length in four bytes, big-endian, and then its bytes.
//!
//! A message is read only when there is room for it: its length is taken from a budget of the whole node first, so that
//! many peers together cannot take the memory. An empty answer is a refusal.

use std::{io, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use kvspace_protocol::limits::MESSAGE_BYTES_MAX;
use libp2p::{StreamProtocol, request_response};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

/// Requests of peers that are in memory at once, and likewise answers: seven of the largest.
pub(super) const BUDGET_BYTES: usize = 64 * 1024 * 1024;
/// A message up to this size takes no part of the budget: most of what hosts ask is as small, and must come through while
/// others have announced large messages and let them wait. Streams and connections bound these: 16 KiB for each of 64 streams
/// of 192 connections at the worst.
const SMALL_BYTES: usize = 16 * 1024;
/// How long a message may take once there is room for it: the largest at 3 Mbit/s. Who stalls gives the room back.
const BODY_DEADLINE: Duration = Duration::from_secs(25);

/// A message, and the room it has if a peer sent it.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) bytes: Bytes,
    pub(super) room: Option<OwnedSemaphorePermit>,
}

impl Message {
    /// A message of our own.
    pub(super) fn ours(bytes: Bytes) -> Self {
        Self { bytes, room: None }
    }
}

/// Reads and writes messages.
#[derive(Debug, Clone)]
pub(super) struct Codec {
    requests: Arc<Semaphore>,
    answers: Arc<Semaphore>,
}

impl Codec {
    /// A codec with the whole budget; its clones share it. Answers have their own, for a request may wait for one.
    pub(super) fn new() -> Self {
        Self { requests: Arc::new(Semaphore::new(BUDGET_BYTES)), answers: Arc::new(Semaphore::new(BUDGET_BYTES)) }
    }
}

impl request_response::Codec for Codec {
    type Protocol = StreamProtocol;
    type Request = Message;
    type Response = Message;

    async fn read_request<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Message>
    where
        T: AsyncRead + Unpin + Send,
    {
        read(io, &self.requests).await
    }

    async fn read_response<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Message>
    where
        T: AsyncRead + Unpin + Send,
    {
        read(io, &self.answers).await
    }

    async fn write_request<T>(&mut self, _: &StreamProtocol, io: &mut T, message: Message) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        write(io, &message.bytes).await
    }

    async fn write_response<T>(&mut self, _: &StreamProtocol, io: &mut T, message: Message) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        write(io, &message.bytes).await
    }
}

async fn read<T: AsyncRead + Unpin + Send>(io: &mut T, budget: &Arc<Semaphore>) -> io::Result<Message> {
    let mut length = [0; 4];
    io.read_exact(&mut length).await?;
    let length = u32::from_be_bytes(length);
    let size = usize::try_from(length).unwrap_or(usize::MAX);
    if size > MESSAGE_BYTES_MAX {
        return Err(too_large());
    }
    let room = match size {
        ..=SMALL_BYTES => None,
        _ => Some(Arc::clone(budget).acquire_many_owned(length).await.map_err(io::Error::other)?),
    };
    let mut bytes = vec![0; size];
    timeout(BODY_DEADLINE, io.read_exact(&mut bytes)).await??;
    Ok(Message { bytes: bytes.into(), room })
}

async fn write<T: AsyncWrite + Unpin + Send>(io: &mut T, bytes: &[u8]) -> io::Result<()> {
    let length = u32::try_from(bytes.len()).ok().filter(|_| bytes.len() <= MESSAGE_BYTES_MAX).ok_or_else(too_large)?;
    io.write_all(&length.to_be_bytes()).await?;
    io.write_all(bytes).await?;
    io.flush().await
}

fn too_large() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a message is larger than it may be")
}

#[cfg(test)]
mod tests {
    use futures::io::Cursor;

    use super::*;

    fn budget(bytes: usize) -> Arc<Semaphore> {
        Arc::new(Semaphore::new(bytes))
    }

    #[tokio::test]
    async fn a_message_reads_as_it_was_written() {
        for text in [&b""[..], b"hello"] {
            let mut io = Cursor::new(Vec::new());
            write(&mut io, text).await.unwrap();
            io.set_position(0);
            assert_eq!(read(&mut io, &budget(5)).await.unwrap().bytes, text);
        }
    }

    #[tokio::test]
    async fn a_length_above_the_cap_is_refused_before_anything_is_read() {
        let mut io = Cursor::new([&u32::MAX.to_be_bytes()[..], &[1; 100]].concat());
        let budget = budget(BUDGET_BYTES);
        assert_eq!(read(&mut io, &budget).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!((io.position(), budget.available_permits()), (4, BUDGET_BYTES));
    }

    #[tokio::test]
    async fn a_small_message_comes_through_when_there_is_no_room() {
        let sent = [&5_u32.to_be_bytes()[..], b"hello"].concat();
        assert_eq!(read(&mut Cursor::new(sent), &budget(0)).await.unwrap().bytes, &b"hello"[..]);
    }

    #[tokio::test]
    async fn a_message_holds_its_room_until_it_is_dropped() {
        let size = SMALL_BYTES + 1;
        let budget = budget(size + 3);
        let sent = [&u32::try_from(size).unwrap().to_be_bytes()[..], &vec![7; size]].concat();
        let first = read(&mut Cursor::new(sent.clone()), &budget).await.unwrap();
        let mut io = Cursor::new(sent);
        let mut second = Box::pin(read(&mut io, &budget));
        assert!(futures::poll!(&mut second).is_pending());
        drop(first);
        assert_eq!(second.await.unwrap().bytes.len(), size);
        assert_eq!(budget.available_permits(), size + 3);
    }
}
