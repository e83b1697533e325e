//! One message on a stream: its length in four bytes, big-endian, and then its bytes.
//!
//! Memory is taken before it is used, and so that who stalls holds up nobody else. A small message, and the first piece of
//! a larger one, is taken from what each peer has for itself. The rest is taken when that piece is here: from what
//! the peer may have of the whole, and then from what all peers have together, strangers apart. An empty answer is a refusal.

use std::{
    io,
    sync::{Arc, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use kvspace_protocol::{id::HostKey, limits::MESSAGE_BYTES_MAX};
use libp2p::{StreamProtocol, request_response};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use super::{door::Entering, state::Shared};

/// Large requests of expected peers that are in memory at once, and likewise answers: seven of the largest.
const EXPECTED_BYTES: usize = 64 * 1024 * 1024;
/// The same for all other peers together: two of the largest.
const STRANGERS_BYTES: usize = 2 * MESSAGE_BYTES_MAX;
/// What each peer has for its small requests, and likewise answers: with 256 connections 64 MiB.
const SMALL_BYTES: usize = 256 * 1024;
/// The first piece of a large message.
const PIECE_BYTES: usize = 64 * 1024;
/// How long a message may take once there is room for it: the largest at 3 Mbit/s.
const BODY_DEADLINE: Duration = Duration::from_secs(25);
/// How long each piece of a large message may take: 100 kbit/s. Who stalls gives the room back.
const PIECE_DEADLINE: Duration = Duration::from_secs(5);

/// A message, and the room it has if a peer sent it.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) bytes: Bytes,
    pub(super) room: Option<Room>,
}

impl Message {
    /// A message of our own.
    pub(super) fn ours(bytes: Bytes) -> Self {
        Self { bytes, room: None }
    }

    /// A message that holds this memory as long as it is there.
    pub(super) fn holding(bytes: Bytes, held: Vec<OwnedSemaphorePermit>) -> Self {
        Self { bytes, room: Some(Room { _held: held, _account: None }) }
    }

    fn of(mut self, account: &Arc<Account>) -> Self {
        if let Some(room) = &mut self.room {
            room._account = Some(Arc::clone(account));
        }
        self
    }
}

/// Memory that was taken.
#[derive(Debug)]
pub(super) struct Room {
    _held: Vec<OwnedSemaphorePermit>,
    /// A peer that comes back while it holds memory has its old account.
    _account: Option<Arc<Account>>,
}

/// The memory that one peer may have, whatever the number of its connections.
#[derive(Debug)]
pub(super) struct Account {
    shared: Arc<Shared>,
    peer: Option<HostKey>,
    requests: Share,
    answers: Share,
}

impl Account {
    pub(super) fn new(shared: Arc<Shared>, peer: Option<HostKey>) -> Self {
        Self { shared, peer, requests: Share::new(), answers: Share::new() }
    }

    fn is_expected(&self) -> bool {
        self.peer.is_some_and(|peer| self.shared.lock().dialler.is_expected(&peer))
    }
}

/// What one peer may have in one direction.
#[derive(Debug)]
struct Share {
    small: Arc<Semaphore>,
    /// Room for one of the largest messages.
    large: Arc<Semaphore>,
}

impl Share {
    fn new() -> Self {
        let room = |bytes| Arc::new(Semaphore::new(bytes));
        Self { small: room(SMALL_BYTES), large: room(MESSAGE_BYTES_MAX) }
    }
}

/// What all peers have together in one direction.
#[derive(Debug, Clone)]
struct Pools {
    expected: Arc<Semaphore>,
    strangers: Arc<Semaphore>,
}

impl Pools {
    fn new() -> Self {
        let room = |bytes| Arc::new(Semaphore::new(bytes));
        Self { expected: room(EXPECTED_BYTES), strangers: room(STRANGERS_BYTES) }
    }

    fn of(&self, account: &Account) -> &Arc<Semaphore> {
        if account.is_expected() { &self.expected } else { &self.strangers }
    }
}

/// Reads and writes messages.
#[derive(Debug)]
pub(super) struct Codec {
    requests: Pools,
    answers: Pools,
    entering: Entering,
    /// Whose messages these are; nobody's as long as it belongs to no connection.
    account: Option<Arc<Account>>,
}

impl Codec {
    /// A codec with the whole budget; its clones share it. Answers have their own, for a request may wait for one.
    pub(super) fn new(entering: Entering) -> Self {
        Self { requests: Pools::new(), answers: Pools::new(), entering, account: None }
    }

    fn account(&self) -> io::Result<&Arc<Account>> {
        self.account.as_ref().ok_or_else(|| io::Error::other("a message without a connection"))
    }
}

impl Clone for Codec {
    /// The codec of the swarm is cloned for each new connection, and that one for each of its streams.
    fn clone(&self) -> Self {
        let entering = || self.entering.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Self {
            requests: self.requests.clone(),
            answers: self.answers.clone(),
            entering: Arc::clone(&self.entering),
            account: self.account.clone().or_else(entering),
        }
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
        let account = self.account()?;
        Ok(read(io, &account.requests, || self.requests.of(account)).await?.of(account))
    }

    async fn read_response<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Message>
    where
        T: AsyncRead + Unpin + Send,
    {
        let account = self.account()?;
        Ok(read(io, &account.answers, || self.answers.of(account)).await?.of(account))
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

async fn read<'a, T: AsyncRead + Unpin + Send>(
    io: &mut T,
    share: &Share,
    pool: impl FnOnce() -> &'a Arc<Semaphore>,
) -> io::Result<Message> {
    let mut length = [0; 4];
    io.read_exact(&mut length).await?;
    let size = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if size > MESSAGE_BYTES_MAX {
        return Err(too_large());
    }
    let is_small = size <= SMALL_BYTES;
    let first_bytes = if is_small { size } else { PIECE_BYTES };
    let first = take(&share.small, first_bytes).await?;
    let mut bytes = vec![0; first_bytes];
    timeout(BODY_DEADLINE, io.read_exact(&mut bytes)).await??;
    if is_small {
        return Ok(Message::holding(bytes.into(), vec![first]));
    }
    let held = vec![take(&share.large, size).await?, take(pool(), size).await?];
    drop(first);
    timeout(BODY_DEADLINE, rest(io, &mut bytes, size)).await??;
    Ok(Message::holding(bytes.into(), held))
}

/// Reads on until there are so many bytes.
async fn rest<T: AsyncRead + Unpin>(io: &mut T, bytes: &mut Vec<u8>, size: usize) -> io::Result<()> {
    bytes.reserve_exact(size - bytes.len());
    while bytes.len() < size {
        let from = bytes.len();
        bytes.resize(size.min(from + PIECE_BYTES), 0);
        timeout(PIECE_DEADLINE, io.read_exact(&mut bytes[from..])).await??;
    }
    Ok(())
}

async fn take(room: &Arc<Semaphore>, bytes: usize) -> io::Result<OwnedSemaphorePermit> {
    let bytes = u32::try_from(bytes).map_err(io::Error::other)?;
    Arc::clone(room).acquire_many_owned(bytes).await.map_err(io::Error::other)
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

    const LARGE: usize = SMALL_BYTES + 1;

    fn room(bytes: usize) -> Arc<Semaphore> {
        Arc::new(Semaphore::new(bytes))
    }

    fn large() -> Vec<u8> {
        [&u32::try_from(LARGE).unwrap().to_be_bytes()[..], &vec![1; LARGE]].concat()
    }

    #[tokio::test]
    async fn a_message_reads_as_it_was_written() {
        for text in [&b""[..], b"hello", &[7; LARGE]] {
            let mut io = Cursor::new(Vec::new());
            write(&mut io, text).await.unwrap();
            io.set_position(0);
            let pool = room(LARGE);
            assert_eq!(read(&mut io, &Share::new(), || &pool).await.unwrap().bytes, text);
        }
    }

    #[tokio::test]
    async fn a_length_above_the_cap_is_refused_before_anything_is_read() {
        let mut io = Cursor::new([&u32::MAX.to_be_bytes()[..], &[1; 100]].concat());
        let (share, pool) = (Share::new(), room(0));
        assert_eq!(read(&mut io, &share, || &pool).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!((io.position(), share.small.available_permits()), (4, SMALL_BYTES));
    }

    #[tokio::test]
    async fn a_message_holds_its_room_until_it_is_dropped() {
        let (share, pool) = (Share::new(), room(LARGE));
        let first = read(&mut Cursor::new(large()), &share, || &pool).await.unwrap();
        let mut io = Cursor::new(large());
        // The peer has nothing to do with it, only what all have together is short.
        let other = Share::new();
        let mut second = Box::pin(read(&mut io, &other, || &pool));
        assert!(futures::poll!(&mut second).is_pending());
        drop(first);
        assert_eq!(second.await.unwrap().bytes.len(), LARGE);
        assert_eq!((pool.available_permits(), share.large.available_permits()), (LARGE, MESSAGE_BYTES_MAX));
    }

    #[tokio::test]
    async fn a_length_alone_takes_nothing_from_others() {
        let (share, pool) = (Share::new(), room(EXPECTED_BYTES));
        let (mut io, mut other) = tokio::io::duplex(2 * LARGE);
        tokio::io::AsyncWriteExt::write_all(&mut other, &large()[..PIECE_BYTES + 3]).await.unwrap();
        let mut io = tokio_util::compat::TokioAsyncReadCompatExt::compat(&mut io);
        let mut reading = Box::pin(read(&mut io, &share, || &pool));
        assert!(futures::poll!(&mut reading).is_pending());
        assert_eq!(
            (pool.available_permits(), share.small.available_permits()),
            (EXPECTED_BYTES, SMALL_BYTES - PIECE_BYTES)
        );
        tokio::io::AsyncWriteExt::write_all(&mut other, &[1]).await.unwrap();
        assert!(futures::poll!(&mut reading).is_pending());
        assert_eq!((pool.available_permits(), share.small.available_permits()), (EXPECTED_BYTES - LARGE, SMALL_BYTES));
    }
}
