//! A space, as one session reaches it.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError, atomic::AtomicU64},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, header};
use hyper::body::Incoming;
use kvspace_protocol::{
    capability::{Ability, Content, Resource, Token},
    id::{BlobHash, EpochId, Millis, SpaceId},
};
use tokio::io::{AsyncRead, AsyncSeek, AsyncSeekExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::{
    AsKey, Client, Condition, Error, Head, KeyPath, KvAbility, Meta, Progress, ReadYourWrites, RefusalKind, Session,
    Value, Written, body, clock,
    http::Call,
    seen::Seen,
    token::{self, Intent},
};

mod ask;
mod list;
mod share;

pub use list::{KeyPage, LIST_LIMIT_MAX};
pub use share::After;

const AFTER: &str = "x-kvspace-after";
const WAIT_MS: &str = "x-kvspace-wait-ms";
/// No host waits longer.
const WAIT_MS_MAX: u64 = 60_000;

/// Keys and values of one space, through one session. Clones share the session and what was seen of the space.
///
/// Every call signs a token of its own, good for a minute. A write signs what it stores (hash, size, headers) and the
/// epochs of the writes before it, so that no host can alter the one or pretend not to have known the other. A read tells
/// the host of these epochs, which waits until it has them ([`crate::ReadYourWrites`]).
#[derive(Debug, Clone)]
pub struct Space {
    client: Client,
    session: Arc<Session>,
    seen: Arc<Mutex<Seen>>,
}

impl Space {
    pub(crate) fn new(client: Client, session: Session) -> Self {
        Self { client, session: Arc::new(session), seen: Arc::default() }
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> &SpaceId {
        self.session.space()
    }

    /// The session it is reached through.
    #[must_use]
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// The same space at another of its hosts, with what was seen of it.
    #[must_use]
    pub fn at(&self, host: &Client) -> Self {
        Self { client: host.clone(), ..self.clone() }
    }

    /// The node it is reached at.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The epochs of what was written through this space, less those that another of them has in its Past.
    #[must_use]
    pub fn seen(&self) -> Vec<EpochId> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).epochs()
    }

    /// Has reads and writes rest on this epoch too, as if it were that of a write through this space.
    pub fn see(&self, epoch: EpochId) {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).told(epoch);
    }

    /// Reads a value into memory, up to [`crate::ClientOptions::value_bytes_max`]. Its hash is checked.
    ///
    /// # Errors
    /// [`RefusalKind::KeyNotFound`] when there is none; [`Error::Corrupt`]; else [`Error`] as of any call.
    pub async fn get(&self, key: impl AsKey) -> Result<Value, Error> {
        let (head, body) = self.open(&key.key_path()?).await?;
        let bytes = self.client.transport.read_all(body, self.client.transport.options.value_bytes_max).await?;
        checked(&head, BlobHash::of(&bytes))?;
        Ok(Value { bytes, head })
    }

    /// Reads a value of any size to a writer, a piece at a time. Its hash is checked at the end: until this returns
    /// `Ok`, what was written is not to be trusted.
    ///
    /// # Errors
    /// [`RefusalKind::KeyNotFound`] when there is none; [`Error::Corrupt`]; [`Error::Local`] when the writer fails;
    /// else [`Error`] as of any call.
    pub async fn get_to(
        &self,
        key: impl AsKey,
        writer: &mut (impl AsyncWrite + Unpin),
        progress: Progress,
    ) -> Result<Head, Error> {
        let (mut head, mut body) = self.open(&key.key_path()?).await?;
        let (mut hasher, mut done) = (blake3::Hasher::new(), 0);
        while let Some(piece) = self.client.transport.next_piece(&mut body).await? {
            writer.write_all(&piece).await?;
            hasher.update(&piece);
            done += piece.len() as u64;
            progress.tell(done, head.size);
        }
        writer.flush().await?;
        checked(&head, BlobHash(*hasher.finalize().as_bytes()))?;
        head.size = Some(done);
        Ok(head)
    }

    /// What is stored under a key, without the value.
    ///
    /// # Errors
    /// [`RefusalKind::KeyNotFound`] when there is nothing; else [`Error`] as of any call.
    pub async fn head(&self, key: impl AsKey) -> Result<Head, Error> {
        let call = self.read(&self.kv(&key.key_path()?), KvAbility::Head)?;
        let response = self.client.transport.send(call).await.map_err(missing_key)?;
        Ok(Head::parse(response.headers(), false))
    }

    /// Stores a value that is in memory. If the connection breaks, the same signed request is sent once more: a node
    /// does it once.
    ///
    /// # Errors
    /// [`RefusalKind::PreconditionFailed`] when the condition does not hold; else [`Error`] as of any call.
    pub async fn put(
        &self,
        key: impl AsKey,
        value: impl Into<Bytes>,
        meta: Meta,
        condition: Condition,
    ) -> Result<Written, Error> {
        let value: Bytes = value.into();
        let content = content(BlobHash::of(&value), value.len() as u64, &meta);
        let signed = self.token(&self.kv(&key.key_path()?), KvAbility::Put, Some(content))?;
        let mut headers = conditional(&condition)?;
        meta.write_to(&mut headers);
        let call = || {
            let mut call = invocation(&signed)?;
            call.headers.extend(headers.clone());
            call.body = body::whole(value.clone());
            Ok(call)
        };
        self.write_twice(&signed, call).await
    }

    /// Stores a file of any size. It is read twice: to sign its hash, and to send it.
    ///
    /// # Errors
    /// As of [`Space::put_from`].
    pub async fn put_file(
        &self,
        key: impl AsKey,
        file: impl AsRef<Path>,
        meta: Meta,
        condition: Condition,
        progress: Progress,
    ) -> Result<Written, Error> {
        let file = tokio::fs::File::open(file).await?;
        self.put_from(key, file, meta, condition, progress).await
    }

    /// Stores what a reader holds, from its start to its end. It is read twice: to sign its hash, and to send it.
    ///
    /// # Errors
    /// [`Error::Local`] when it cannot be read, [`Error::SourceChanged`] when it changed between the two times; else as
    /// of [`Space::put`].
    pub async fn put_from<R>(
        &self,
        key: impl AsKey,
        mut reader: R,
        meta: Meta,
        condition: Condition,
        progress: Progress,
    ) -> Result<Written, Error>
    where
        R: AsyncRead + AsyncSeek + Send + Unpin + 'static,
    {
        let key = key.key_path()?;
        reader.rewind().await?;
        let (hash, size) = body::digest(&mut reader).await?;
        reader.rewind().await?;
        let signed = self.token(&self.kv(&key), KvAbility::Put, Some(content(hash, size, &meta)))?;
        let mut call = invocation(&signed)?;
        call.headers.extend(conditional(&condition)?);
        meta.write_to(&mut call.headers);
        let sent = Arc::new(AtomicU64::new(0));
        call.sent = Arc::clone(&sent);
        call.body = body::upload(reader, size, hash, sent, progress);
        self.write(&signed, call).await
    }

    /// Deletes a value. Deleting what is deleted already is no error.
    ///
    /// # Errors
    /// [`RefusalKind::KeyNotFound`] when there never was one; [`RefusalKind::PreconditionFailed`]; else [`Error`] as of
    /// any call.
    pub async fn delete(&self, key: impl AsKey, condition: Condition) -> Result<Written, Error> {
        let signed = self.token(&self.kv(&key.key_path()?), KvAbility::Delete, None)?;
        let headers = conditional(&condition)?;
        let call = || {
            let mut call = invocation(&signed)?;
            call.headers.extend(headers.clone());
            Ok(call)
        };
        self.write_twice(&signed, call).await.map_err(missing_key)
    }

    async fn open(&self, key: &KeyPath) -> Result<(Head, Incoming), Error> {
        let call = self.read(&self.kv(key), KvAbility::Get)?;
        let (parts, body) = self.client.transport.send(call).await.map_err(missing_key)?.into_parts();
        Ok((Head::parse(&parts.headers, true), body))
    }

    async fn write(&self, token: &Token, call: Call) -> Result<Written, Error> {
        let response = self.client.transport.send(call).await?;
        let written = Written::parse(response.headers());
        if let Some(epoch) = written.frontier {
            let after = token.after(self.id()).unwrap_or_default();
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.written(self.client.node(), written.seq().unwrap_or_default(), epoch, after);
        }
        Ok(written)
    }

    async fn write_twice(&self, token: &Token, call: impl Fn() -> Result<Call, Error>) -> Result<Written, Error> {
        match self.write(token, call()?).await {
            Err(Error::Interrupted(_)) => self.write(token, call()?).await,
            result => result,
        }
    }

    fn kv(&self, key: &KeyPath) -> Resource {
        Resource::in_space(self.id(), "kv", Some(key.as_str()))
    }

    /// A read, which waits for what was written before.
    fn read(&self, resource: &Resource, ability: KvAbility) -> Result<Call, Error> {
        let mut call = invocation(&self.token(resource, ability, None)?)?;
        self.await_seen(&mut call);
        Ok(call)
    }

    /// Has the host wait until it has what was seen.
    fn await_seen(&self, call: &mut Call) {
        let seen = self.seen();
        let ReadYourWrites::Within { wait_ms } = self.client.transport.options.read_your_writes else { return };
        if seen.is_empty() {
            return;
        }
        let epochs: Vec<_> = seen.iter().map(ToString::to_string).collect();
        let epochs = HeaderValue::try_from(epochs.join(",")).expect("ids are plain ASCII");
        call.headers.insert(AFTER, epochs);
        call.headers.insert(WAIT_MS, wait_ms.min(WAIT_MS_MAX).into());
    }

    fn token(&self, resource: &Resource, ability: KvAbility, content: Option<Content>) -> Result<Token, Error> {
        self.sign(resource, ability.as_str(), content, clock::now())
    }

    /// Signs the use of one ability. Writes say what was seen of the space.
    fn sign(
        &self,
        resource: &Resource,
        ability: &'static str,
        content: Option<Content>,
        now: Millis,
    ) -> Result<Token, Error> {
        if crate::client::ends_before(self.session.expiry(), now) {
            return Err(Error::Session("has expired".into()));
        }
        if !self.session.allows(resource, ability) {
            return Err(Error::Session(format!("does not reach {ability} on {resource}")));
        }
        let is_write = ability == Ability::PUT || ability == Ability::DEL;
        let after = if is_write { self.seen() } else { Vec::new() };
        let intent = Intent { resource: resource.clone(), ability, content, after };
        token::invocation(self.session.key(), self.id(), intent, &[self.session.delegation()], now)
    }
}

fn invocation(token: &Token) -> Result<Call, Error> {
    Call::new(Method::POST, "invoke").authorized(&token.to_header())
}

fn content(hash: BlobHash, size: u64, meta: &Meta) -> Content {
    Content { cid: hash, size, meta: meta.as_map().clone() }
}

fn conditional(condition: &Condition) -> Result<HeaderMap, Error> {
    let mut headers = HeaderMap::new();
    match condition {
        Condition::Always => {}
        Condition::IfAbsent => {
            headers.insert(header::IF_NONE_MATCH, HeaderValue::from_static("*"));
        }
        Condition::IfMatch(etag) => {
            let quoted = if etag.starts_with('"') { etag.clone() } else { format!("\"{etag}\"") };
            let value = HeaderValue::from_str(&quoted).map_err(|_| crate::MetaError::Value("if-match".into()))?;
            headers.insert(header::IF_MATCH, value);
        }
    }
    Ok(headers)
}

/// The bytes must be those that the entity tag names.
fn checked(head: &Head, found: BlobHash) -> Result<(), Error> {
    match head.hash() {
        Some(named) if named != found => Err(Error::Corrupt { named, found }),
        Some(_) | None => Ok(()),
    }
}

/// Where a key was asked for, "not found" is about the key.
fn missing_key(mut error: Error) -> Error {
    if let Error::Refused(refusal) = &mut error
        && refusal.kind == RefusalKind::NotFound
    {
        refusal.kind = RefusalKind::KeyNotFound;
    }
    error
}
