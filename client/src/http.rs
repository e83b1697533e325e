//! One request to a node and its answer, with a bound on every wait.

use std::{
    error::Error as StdError,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, Request, Response, header};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use hyper_rustls::HttpsConnector;
use hyper_util::{
    client::legacy::{Client as Pool, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use tokio::time::timeout;
use url::Url;

use crate::{
    Error,
    body::{RequestBody, SendError},
    refusal::Refusal,
};

/// What is read of a refusal's text.
const REFUSAL_BYTES_MAX: usize = 8 * 1024;
/// Idle connections kept, and for how long: shorter than nodes keep theirs.
const IDLE_CONNECTIONS_MAX: usize = 64;
const IDLE_CONNECTION_MS: u64 = 20_000;

/// How long a client waits and what it takes into memory.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// For a connection to be made, TLS included.
    pub connect_timeout_ms: u64,
    /// While nothing comes and nothing goes.
    pub idle_timeout_ms: u64,
    /// The largest value that [`crate::Space::get`] takes into memory.
    pub value_bytes_max: u64,
    /// Whether a host waits with its answer until it has what was written through the same space.
    pub read_your_writes: ReadYourWrites,
}

/// Whether reads show the writes that were made through the same [`crate::Space`], whichever host is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadYourWrites {
    /// A host that lacks one of them waits for it, and then says what it lacks ([`crate::RefusalKind::TooEarly`]).
    Within {
        /// How long a host waits, at most a minute.
        wait_ms: u64,
    },
    /// Reads show what the host has.
    Off,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            connect_timeout_ms: 10_000,
            idle_timeout_ms: 60_000,
            value_bytes_max: 64 * 1024 * 1024,
            read_your_writes: ReadYourWrites::Within { wait_ms: 5_000 },
        }
    }
}

/// Connections to one node.
#[derive(Debug, Clone)]
pub(crate) struct Transport {
    pool: Pool<HttpsConnector<HttpConnector>, RequestBody>,
    base: Url,
    pub(crate) options: ClientOptions,
}

/// A request on its way to be sent.
pub(crate) struct Call {
    pub(crate) method: Method,
    /// Beneath the node's address, percent-encoded.
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: RequestBody,
    /// Bytes of the body that have left.
    pub(crate) sent: Arc<AtomicU64>,
}

impl Call {
    pub(crate) fn new(method: Method, path: impl Into<String>) -> Self {
        let (headers, sent) = (HeaderMap::new(), Arc::default());
        Self { method, path: path.into(), headers, body: crate::body::empty(), sent }
    }

    pub(crate) fn authorized(mut self, token: &str) -> Result<Self, Error> {
        let value = HeaderValue::from_str(token).map_err(|_| Error::Token("it is no text of a header".into()))?;
        self.headers.insert(header::AUTHORIZATION, value);
        Ok(self)
    }
}

impl Transport {
    pub(crate) fn new(node: &str, options: ClientOptions) -> Result<Self, Error> {
        let mut base: Url = node.parse().map_err(|_| Error::NodeUrl(node.into()))?;
        if !matches!(base.scheme(), "http" | "https") || !base.has_host() || base.query().is_some() {
            return Err(Error::NodeUrl(node.into()));
        }
        if !base.path().ends_with('/') {
            base.set_path(&format!("{}/", base.path()));
        }
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(Duration::from_millis(options.connect_timeout_ms)));
        // Named, because another part of the process may bring a second implementation.
        let tls = hyper_rustls::HttpsConnectorBuilder::new()
            .with_provider_and_webpki_roots(rustls::crypto::ring::default_provider())
            .map_err(|error| Error::NodeUrl(format!("{node} ({error})")))?
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        let pool = Pool::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_millis(IDLE_CONNECTION_MS))
            .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
            .build(tls);
        Ok(Self { pool, base, options })
    }

    pub(crate) fn base(&self) -> &str {
        self.base.as_str()
    }

    /// Sends and waits for the head of the answer. Anything but a success is an error; a refusal's text is read.
    pub(crate) async fn send(&self, call: Call) -> Result<Response<Incoming>, Error> {
        let response = self.exchange(call).await?;
        if response.status().is_success() {
            return Ok(response);
        }
        let (head, body) = response.into_parts();
        let text = self.read_up_to(body, REFUSAL_BYTES_MAX).await.unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        Err(Error::Refused(Box::new(Refusal::parse(head.status, &head.headers, &text))))
    }

    /// Sends, and reads the whole answer, which must be smaller than `limit`.
    pub(crate) async fn send_and_read(&self, call: Call, limit: u64) -> Result<(HeaderMap, Bytes), Error> {
        let (head, body) = self.send(call).await?.into_parts();
        let bytes = self.read_all(body, limit).await?;
        Ok((head.headers, bytes))
    }

    async fn exchange(&self, call: Call) -> Result<Response<Incoming>, Error> {
        let uri = format!("{}{}", self.base, call.path.trim_start_matches('/'));
        let mut request = Request::builder().method(call.method).uri(uri);
        if let Some(headers) = request.headers_mut() {
            *headers = call.headers;
        }
        let request = request.body(call.body).map_err(|error| Error::NodeUrl(error.to_string()))?;
        let mut answer = std::pin::pin!(self.pool.request(request));
        let mut sent_before = 0;
        loop {
            match timeout(self.idle(), &mut answer).await {
                Ok(result) => return result.map_err(|error| self.broken(&error)),
                Err(_) if call.sent.load(Ordering::Relaxed) != sent_before => {
                    sent_before = call.sent.load(Ordering::Relaxed);
                }
                Err(_) => return Err(self.stalled()),
            }
        }
    }

    /// The next piece of an answer's body, `None` at its end.
    pub(crate) async fn next_piece(&self, body: &mut Incoming) -> Result<Option<Bytes>, Error> {
        loop {
            let frame = timeout(self.idle(), body.frame()).await.map_err(|_| self.stalled())?;
            match frame {
                None => return Ok(None),
                Some(Err(error)) => return Err(Error::Interrupted(reason(&error))),
                Some(Ok(frame)) => {
                    if let Ok(piece) = frame.into_data() {
                        return Ok(Some(piece));
                    }
                }
            }
        }
    }

    pub(crate) async fn read_all(&self, mut body: Incoming, limit: u64) -> Result<Bytes, Error> {
        let announced = body.size_hint().lower();
        if announced > limit {
            return Err(Error::ValueTooLarge { limit });
        }
        let mut all = BytesMut::with_capacity(usize::try_from(announced).unwrap_or_default());
        while let Some(piece) = self.next_piece(&mut body).await? {
            if all.len() as u64 + piece.len() as u64 > limit {
                return Err(Error::ValueTooLarge { limit });
            }
            all.extend_from_slice(&piece);
        }
        Ok(all.freeze())
    }

    async fn read_up_to(&self, mut body: Incoming, limit: usize) -> Result<Bytes, Error> {
        let mut all = BytesMut::new();
        while all.len() < limit {
            let Some(piece) = self.next_piece(&mut body).await? else { break };
            all.extend_from_slice(&piece[..piece.len().min(limit - all.len())]);
        }
        Ok(all.freeze())
    }

    fn idle(&self) -> Duration {
        Duration::from_millis(self.options.idle_timeout_ms)
    }

    fn stalled(&self) -> Error {
        Error::Stalled { idle_ms: self.options.idle_timeout_ms }
    }

    fn broken(&self, error: &hyper_util::client::legacy::Error) -> Error {
        if error.is_connect() {
            return Error::Unreachable { node: self.base.to_string(), reason: reason(error) };
        }
        let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
        while let Some(error) = cause {
            match error.downcast_ref::<SendError>() {
                Some(SendError::Changed) => return Error::SourceChanged,
                Some(SendError::Read(io)) => return Error::Local(std::io::Error::new(io.kind(), io.to_string())),
                None => cause = error.source(),
            }
        }
        Error::Interrupted(reason(error))
    }
}

/// The innermost cause: what the system said.
fn reason(error: &(dyn StdError + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}
