//! The loop that accepts connections and serves them: bounded in number, in time, and in how long it takes to stop.

use std::{
    convert::Infallible,
    io,
    net::{IpAddr, SocketAddr},
    panic::AssertUnwindSafe,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::FutureExt as _;
use hyper::{
    Request,
    body::Incoming,
    service::{Service, service_fn},
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use warp::{filters::BoxedFilter, reply::Response};

mod per_ip;
mod stall;

use self::{per_ip::PerIp, stall::Stalling};
use super::{cors::Cors, error::HttpError};

/// The head of a request: a token of 64 KiB and as much again for everything else. A larger one is answered 431.
const HEAD_BYTES_MAX: u32 = 128 * 1024;
/// Requests under way on one HTTP/2 connection.
const STREAMS_MAX: u32 = 100;
/// What one HTTP/2 stream, and all of one connection, may send ahead of us.
const STREAM_WINDOW_BYTES: u32 = 256 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;
/// How often a silent HTTP/2 connection is asked whether it lives, and how long it may take to answer.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// How long to wait when the system gives out no more connections.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The bounds of a server.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    /// How long the head of a request may take.
    pub(crate) header_timeout: Duration,
    /// How long a client may take no bytes of an answer.
    pub(crate) write_idle: Duration,
    /// Connections at one time.
    pub(crate) connections_max: usize,
    /// Connections at one time from one address.
    pub(crate) connections_per_ip_max: usize,
    /// How long requests may go on when the server stops.
    pub(crate) stop_timeout: Duration,
}

/// Routes and how they are served.
pub(crate) struct Server {
    /// What is served.
    pub(crate) routes: BoxedFilter<(Response,)>,
    /// Who may read the answers.
    pub(crate) cors: Cors,
    /// The bounds.
    pub(crate) limits: Limits,
}

impl Server {
    /// Serves until `closing` is cancelled; then takes no more connections, lets requests under way end, and after
    /// `stop_timeout` cuts off the rest.
    pub(crate) async fn run(self, listener: TcpListener, closing: CancellationToken) {
        let connections = TaskTracker::new();
        let aborting = CancellationToken::new();
        let places = Arc::new(Semaphore::new(self.limits.connections_max));
        let addresses = PerIp::new(self.limits.connections_per_ip_max);
        let stop_timeout = self.limits.stop_timeout;
        let server = Arc::new(self);
        while let Some((stream, address, place)) = next(&listener, &places, &closing).await {
            let Some(share) = addresses.enter(address.ip()) else {
                tracing::debug!(%address, "too many connections from this address");
                continue;
            };
            let (server, closing, aborting) = (server.clone(), closing.clone(), aborting.clone());
            connections.spawn(async move {
                let _held = (place, share);
                server.serve(stream, address.ip(), closing, aborting).await;
            });
        }
        drop(listener);
        connections.close();
        if timeout(stop_timeout, connections.wait()).await.is_err() {
            tracing::warn!(connections = connections.len(), "cutting off requests that take too long to end");
            aborting.cancel();
            connections.wait().await;
        }
    }

    async fn serve(&self, stream: TcpStream, from: IpAddr, closing: CancellationToken, aborting: CancellationToken) {
        stream.set_nodelay(true).ok();
        let begun = Arc::new(AtomicBool::new(false));
        let service = self.service(begun.clone());
        let io = TokioIo::new(Stalling::new(stream, self.limits.write_idle));
        let builder = self.builder();
        let mut connection = pin!(builder.serve_connection(io, service));
        // hyper times the head, but not the bytes before it that tell HTTP/1 from HTTP/2.
        let mut silence = pin!(sleep(self.limits.header_timeout));
        let (mut silent, mut open) = (true, true);
        loop {
            tokio::select! {
                biased;
                ended = connection.as_mut() => {
                    if let Err(error) = ended {
                        tracing::debug!(%from, error = %Chain(&*error), "a connection ended badly");
                    }
                    return;
                }
                () = aborting.cancelled() => return,
                () = closing.cancelled(), if open => {
                    open = false;
                    connection.as_mut().graceful_shutdown();
                }
                () = silence.as_mut(), if silent => {
                    silent = false;
                    if !begun.load(Ordering::Relaxed) {
                        tracing::debug!(%from, "no request in time");
                        return;
                    }
                }
            }
        }
    }

    fn builder(&self) -> Builder<TokioExecutor> {
        let mut builder = Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.header_timeout)
            .max_buf_size(HEAD_BYTES_MAX as usize);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_header_list_size(HEAD_BYTES_MAX)
            .max_concurrent_streams(STREAMS_MAX)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_send_buf_size(STREAM_WINDOW_BYTES as usize)
            .keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE);
        builder
    }

    /// The routes; a handler that panics is answered 500, and every answer is open to other origins.
    fn service(
        &self,
        begun: Arc<AtomicBool>,
    ) -> impl Service<Request<Incoming>, Response = Response, Error = Infallible, Future: Send + 'static> + 'static + use<>
    {
        let routes = TowerToHyperService::new(warp::service(self.routes.clone()));
        let cors = self.cors;
        service_fn(move |request| {
            begun.store(true, Ordering::Relaxed);
            let answer = AssertUnwindSafe(routes.call(request)).catch_unwind();
            async move {
                let mut response = match answer.await {
                    Ok(Ok(response)) => response,
                    Ok(Err(never)) => match never {},
                    Err(_) => {
                        tracing::error!("a handler panicked");
                        HttpError::internal().into_response()
                    }
                };
                cors.add_to(response.headers_mut());
                Ok(response)
            }
        })
    }
}

/// The next connection and its place among all; `None` when the server is to stop.
async fn next(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
    closing: &CancellationToken,
) -> Option<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let accepted = async {
        let place = places.clone().acquire_owned().await.expect("the semaphore is never closed");
        loop {
            match listener.accept().await {
                Ok((stream, address)) => return (stream, address, place),
                Err(error) => refused(&error).await,
            }
        }
    };
    tokio::select! {
        biased;
        () = closing.cancelled() => None,
        accepted = accepted => Some(accepted),
    }
}

/// Accepting fails for one connection, or for want of something that others may give back soon.
async fn refused(error: &io::Error) {
    if !matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) {
        tracing::warn!(%error, "cannot accept a connection");
        sleep(ACCEPT_PAUSE).await;
    }
}

/// An error with its causes.
struct Chain<'a>(&'a (dyn std::error::Error + 'static));

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
