//! What asks a running service: one connection, with or without TLS, and the clients that [`load`] makes up for `simulate` and
//! the benchmark.
//!
//! Invariant: it asks whom it was told to ask and nobody else. A redirect is an answer like any other, never followed: what is sent
//! are names, addresses and keys.

mod connection;
pub mod load;
mod target;
mod tls;

use std::{borrow::Cow, io};

use hyper::{
    Method,
    body::Bytes,
    header::{HeaderName, HeaderValue},
};
use serde::Deserialize;

use crate::order::OrderId;

pub use hyper::{HeaderMap, StatusCode, header};

pub use connection::{Connection, Stream};
pub use target::{Target, shown};

pub use crate::time::deadlines::CLIENT as PATIENCE;

/// One request.
#[derive(Debug, Clone)]
pub struct ClientRequest {
    method: Method,
    path: Cow<'static, str>,
    headers: Vec<(HeaderName, HeaderValue)>,
    body: Bytes,
    /// Whether it names itself, so that it happens once however often it is sent.
    named: bool,
}

impl ClientRequest {
    /// `GET` of a path.
    pub fn get(path: impl Into<Cow<'static, str>>) -> Self {
        Self::of(Method::GET, path.into(), Bytes::new())
    }

    /// `POST` of JSON to a path.
    pub fn post(path: impl Into<Cow<'static, str>>, json: impl Into<Bytes>) -> Self {
        Self::of(Method::POST, path.into(), json.into())
    }

    fn of(method: Method, path: Cow<'static, str>, body: Bytes) -> Self {
        Self { method, path, headers: Vec::new(), body, named: false }
    }

    /// The same, with a body that holds a name of its own.
    #[must_use]
    pub fn repeatable(self) -> Self {
        Self { named: true, ..self }
    }

    /// The same with a header.
    #[must_use]
    pub fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Whether asking twice is as good as asking once: a question, an order with a key, or a report with an id.
    pub fn is_repeatable(&self) -> bool {
        self.named || self.method.is_safe() || self.headers.iter().any(|(name, _)| name == "idempotency-key")
    }
}

/// A whole answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

impl Answer {
    /// Whether the service did what was asked.
    pub fn is_good(&self) -> bool {
        self.status.is_success()
    }

    /// The order that was placed, if this is the answer to a new order.
    pub fn order_id(&self) -> Option<OrderId> {
        #[derive(Deserialize)]
        struct Placed {
            order_id: OrderId,
        }
        serde_json::from_slice::<Placed>(&self.body).ok().map(|placed| placed.order_id)
    }
}

/// Why there was no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody took the call.
    #[error("{}", in_words(.0))]
    NoConnection(io::Error),
    /// Somebody took it, and there is no trust in them, or no TLS.
    #[error("{0}")]
    Tls(String),
    /// The connection ended before the answer did.
    #[error("connection lost")]
    Lost,
    /// What came is no HTTP.
    #[error("what answers is not HTTP/1.1")]
    NotHttp,
    /// Nothing came in time.
    #[error("no answer within {PATIENCE:?}")]
    Timeout,
}

/// An error of the system in a few words, without its number.
pub(crate) fn in_words(error: &io::Error) -> String {
    if error.raw_os_error().is_some() { error.kind().to_string() } else { error.to_string() }
}
