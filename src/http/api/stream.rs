//! What all streams of events share: whom they are for, how they begin and how long they last.

use std::{
    convert::Infallible,
    net::IpAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::{Body, Bytes, HttpBody},
    extract::FromRequestParts,
    http::{HeaderMap, HeaderName, header, request::Parts},
    response::{IntoResponse, Response, sse},
};
use hyper::body::{Frame, SizeHint};

use super::super::{
    AppState, Problem,
    server::client::{self, Connection},
};
use crate::{keys::Caller, telemetry::RequestId, tracker::NoPlace};

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// Tells nginx and its like not to collect the stream.
const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");
/// How often an idle stream shows that it lives.
pub(super) const HEARTBEAT: Duration = crate::time::deadlines::STREAM_BEAT;
/// What clients are told to wait before they connect again, in milliseconds; spread, since after a restart
/// all of them do.
const RETRY_MS: std::ops::Range<u64> = 1_500..2_500;
/// Longest stream; its client connects again and goes on. Bounds how long a place is kept by one who is
/// gone without a word or does not read.
pub(super) const LIFETIME: Duration = Duration::from_mins(15);

/// Who asks.
pub(in crate::http) struct Client {
    connection: Option<Connection>,
    /// Whose place it takes, as far as that is known.
    pub(super) holder: Option<IpAddr>,
}

impl FromRequestParts<Arc<AppState>> for Client {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<AppState>) -> Result<Self, Infallible> {
        let connection = parts.extensions.get::<Connection>().cloned();
        let peer = connection.as_ref().map(|connection| connection.peer);
        let address = peer.map(|peer| state.settings.proxies.client(peer, &parts.headers));
        Ok(Self { connection, holder: address.map(client::holder) })
    }
}

impl Client {
    /// Its connection is told whether its answer waits, so that a client that is gone is noticed at once.
    fn waits(&self, waiting: bool) {
        if let Some(connection) = &self.connection {
            connection.waiting.set(waiting);
        }
    }

    /// The answer is held back until this is dropped.
    pub(super) fn held_back(&self) -> HeldBack<'_> {
        self.waits(true);
        HeldBack(self)
    }
}

/// An answer is held back.
pub(super) struct HeldBack<'a>(&'a Client);

impl Drop for HeldBack<'_> {
    fn drop(&mut self) {
        self.0.waits(false);
    }
}

impl From<NoPlace> for Problem {
    fn from(reason: NoPlace) -> Self {
        match reason {
            NoPlace::ForAnybody => Self::unavailable("too many follow orders or the feed; try again shortly"),
            NoPlace::ForThisClient => Self::too_many_streams(),
        }
    }
}

/// What the client has seen, as its header says, which a browser sends by itself.
pub(super) fn last_event_id(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(LAST_EVENT_ID).iter();
    let first = values.next().map(|value| value.to_str().unwrap_or("not text"));
    // Given twice it is as good as garbage. Some clients send it before they have seen anything.
    if values.next().is_some() { Some("twice") } else { first.filter(|text| !text.is_empty()) }
}

/// What comes of it, unless the key of who asks is revoked before: he is told nothing more.
pub(super) async fn until_revoked<T>(caller: &Caller, told: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        () = caller.revoked() => None,
        told = told => Some(told),
    }
}

/// How every stream begins.
pub(super) fn first_frame() -> sse::Event {
    sse::Event::default().retry(Duration::from_millis(rand::random_range(RETRY_MS)))
}

/// The answer that these frames are.
pub(super) fn answer(frames: impl IntoResponse, client: Client) -> Response {
    let headers = [(header::CACHE_CONTROL, "no-store"), (X_ACCEL_BUFFERING, "no")];
    let request = RequestId::current();
    (headers, frames).into_response().map(|body| Body::new(Watched { body, client, request }))
}

/// The body of a stream, which waits most of the time.
struct Watched {
    body: Body,
    client: Client,
    /// What a line of the log is about while the body is made.
    request: Option<RequestId>,
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let request = self.request;
        let body = Pin::new(&mut self.body);
        let polled = match request {
            Some(request) => request.within(|| body.poll_frame(cx)),
            None => body.poll_frame(cx),
        };
        self.client.waits(polled.is_pending());
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.client.waits(false);
    }
}
