//! The listener: connections are limited in number, and each in time and size.
//!
//! `axum::serve` has no timeout for a request's head, so hyper is driven here directly. HTTP/1.1
//! only: behind it are short answers and event streams, for which HTTP/2 would be one more way in.

pub(in crate::http) mod client;
mod wire;

use std::{
    future::poll_fn,
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use axum::{Router, body::Body, http::Request};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt as _;
use tracing::{debug, warn};

use super::{Problem, RequestLog};
use client::{Connection, Waiting};
use wire::Wire;

/// Most connections that are told 503 at once; further ones are just closed.
const MAX_REFUSALS: usize = 64;
/// How long a request's head may take, and a connection may idle between two requests.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
use crate::order::promises::MAX_HEAD_BYTES;
/// Most headers.
const MAX_HEADERS: usize = 64;
/// How long the rest of a refused body is read, so that the client gets to see the answer.
const LINGER: Duration = Duration::from_secs(1);
/// Most bytes that are read for that.
const LINGER_BYTES: u64 = 4 * 1024 * 1024;
/// Pause after a failed accept: out of file descriptors, most likely.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A bound listener with its routes.
pub struct Server {
    listener: TcpListener,
    router: Router,
    /// Most connections at once; a further one is told 503.
    max_connections: usize,
    /// Where those leave a trace that are answered before a request was read.
    log: Arc<RequestLog>,
}

impl Server {
    /// Binds; port 0 means any free one. At most `max_connections` connections are served at once.
    pub async fn bind(
        address: (&str, u16),
        router: Router,
        max_connections: usize,
        log: Arc<RequestLog>,
    ) -> io::Result<Self> {
        Ok(Self { listener: TcpListener::bind(address).await?, router, max_connections, log })
    }

    /// Where it listens.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until told to stop, then stops accepting and finishes what is under way; at `hard`
    /// drops what is left.
    pub async fn run(self, stop: CancellationToken, hard: CancellationToken) {
        let Self { listener, router, max_connections, log } = self;
        let (permits, refusals) =
            (Arc::new(Semaphore::new(max_connections)), Arc::new(Semaphore::new(MAX_REFUSALS)));
        let connections = TaskTracker::new();
        let mut failing = false;
        while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
            let (stream, peer) = match accepted {
                Ok((stream, peer)) => {
                    failing = false;
                    (stream, peer.ip())
                }
                Err(error) => {
                    // Once a series: without file descriptors every try fails.
                    if !failing {
                        warn!(%error, "connections can't be accepted");
                    }
                    failing = true;
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else {
                if let Ok(refusal) = Arc::clone(&refusals).try_acquire_owned() {
                    let answer = log.refuse(&Problem::unavailable("too many connections; try again shortly"));
                    connections.spawn(async move {
                        refuse(stream, &answer).await;
                        drop(refusal);
                    });
                }
                continue;
            };
            let serving = serve(stream, peer, router.clone(), Arc::clone(&log), stop.clone());
            let hard = hard.clone();
            connections.spawn(async move {
                hard.run_until_cancelled(serving).await;
                drop(permit);
            });
        }
        // The router holds the place queue, and the writer ends when the last copy is gone.
        drop((listener, router));
        connections.close();
        connections.wait().await;
    }
}

async fn serve(
    stream: TcpStream,
    peer: IpAddr,
    router: Router,
    log: Arc<RequestLog>,
    stop: CancellationToken,
) {
    // Answers are small and whole: waiting to fill a packet only adds latency.
    drop(stream.set_nodelay(true));
    let told = Connection { peer, waiting: Waiting::default() };
    let wire = Wire::new(TokioIo::new(stream), told.waiting.clone(), Arc::clone(&log));
    let service = service_fn(|mut request: Request<Incoming>| {
        request.extensions_mut().insert(told.clone());
        Box::pin(router.clone().oneshot(request.map(Body::new)))
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD_BYTES)
        .max_headers(MAX_HEADERS)
        // A client may send its request and close its side; it still gets the answer.
        .half_close(true)
        .serve_connection(wire, service);
    let mut stopping = false;
    let outcome = loop {
        tokio::select! {
            outcome = poll_fn(|cx| connection.poll_without_shutdown(cx)) => break outcome,
            () = stop.cancelled(), if !stopping => {
                stopping = true;
                std::pin::Pin::new(&mut connection).graceful_shutdown();
            }
        }
    };
    let http1::Parts { io, read_buf, .. } = connection.into_parts();
    let mut stream = io.into_inner().into_inner();
    if let Err(error) = outcome {
        debug!(%error, "a connection ended early");
        // An idle connection just ends; a head that has begun gets an answer.
        if error.is_timeout() && !read_buf.is_empty() {
            let problem = Problem::too_slow(format!("a request's head must arrive within {HEAD_TIMEOUT:?}"));
            drop(stream.write_all(&log.refuse(&problem)).await);
        }
    }
    linger(stream).await;
}

/// Answers a connection without reading a request.
async fn refuse(mut stream: TcpStream, answer: &[u8]) {
    drop(stream.write_all(answer).await);
    linger(stream).await;
}

/// Closes our side and reads what is still coming: closing with unread bytes would reset the
/// connection, and the client might never see the answer.
async fn linger(mut stream: TcpStream) {
    if stream.shutdown().await.is_ok() {
        let mut rest = stream.take(LINGER_BYTES);
        drop(timeout(LINGER, tokio::io::copy(&mut rest, &mut tokio::io::sink())).await);
    }
}
