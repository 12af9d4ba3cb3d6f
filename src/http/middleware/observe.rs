//! Around all else: request id, metrics, the line of the log, and the body of problems.

use std::{sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::{MatchedPath, Request},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    response::Response,
};
use tokio::time::Instant;

use super::{
    super::problem::{self, LogDetail, Problem},
    access::KeyedResponse,
    request_log::{Answered, RequestLog},
};
use crate::telemetry::{RequestId, metrics::Metrics};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The route of every path that is not ours, so that clients can't make series.
pub(in crate::http) const UNMATCHED: &str = "unmatched";
/// The method of every request that a route does not take.
pub(in crate::http) const OTHER: &str = "OTHER";

/// Declares at 0 what is answered where no route is.
pub(in crate::http) fn declare_unmatched(metrics: &Metrics) {
    metrics.declare_http(UNMATCHED, OTHER, StatusCode::NOT_FOUND.as_str());
}

/// Declares at 0 what browsers are answered that ask first whether they may ask.
pub(in crate::http) fn declare_preflights(metrics: &Metrics) {
    metrics.declare_http(UNMATCHED, OTHER, StatusCode::NO_CONTENT.as_str());
}

/// Where requests leave a trace.
pub struct Observers {
    /// Counted and timed.
    pub metrics: Arc<Metrics>,
    /// A line each.
    pub log: Arc<RequestLog>,
}

/// For so long an answer was held back because its client wanted to wait: no part of how long it took.
#[derive(Debug, Clone, Copy)]
pub(in crate::http) struct HeldBackFor(pub(in crate::http) Duration);

/// Answers a request, and leaves its trace.
pub(in crate::http) async fn observe<A: Future<Output = KeyedResponse>>(
    observers: &Observers,
    request: Request,
    answer: impl FnOnce(Request) -> A,
) -> Response {
    let started = Instant::now();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let id = request_id(request.headers());

    let KeyedResponse { mut response, key } = id.during(answer(request)).await;

    let mut cause = response.extensions_mut().remove::<LogDetail>();
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        *response.body_mut() = Body::from(problem.body(uri.path(), &id));
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(problem::CONTENT_TYPE));
        cause = cause.or(problem.cause);
    }
    if let Some(LogDetail(error)) = cause {
        id.within(|| observers.log.fail(&error, "a request failed"));
    }
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    if let Ok(value) = HeaderValue::from_str(id.as_str()) {
        headers.insert(REQUEST_ID, value);
    }

    let status = response.status();
    let route = route.as_ref().map_or(UNMATCHED, MatchedPath::as_str);
    let took = started.elapsed();
    let held_back = response.extensions_mut().remove().map_or(Duration::ZERO, |HeldBackFor(time)| time);
    let worked = took.saturating_sub(held_back);
    // What browsers ask with OPTIONS is answered in front of all routes.
    let counted = if method == Method::OPTIONS && status.is_success() { UNMATCHED } else { route };
    observers.metrics.http_answered(counted, method_label(&method, counted, status), status.as_str(), worked);
    let key = key.as_ref().map(|key| key.stored.name.as_str());
    observers.log.write(&Answered { id: &id, method: told(&method), route, status, took, key });
    response
}

fn method_label<'a>(method: &'a Method, route: &str, status: StatusCode) -> &'a str {
    let taken = route != UNMATCHED && status != StatusCode::METHOD_NOT_ALLOWED;
    if taken { method.as_str() } else { OTHER }
}

/// The method as a line of the log tells it; what a client made up is not told.
fn told(method: &Method) -> &str {
    const STANDARD: [Method; 9] = [
        Method::GET,
        Method::POST,
        Method::HEAD,
        Method::OPTIONS,
        Method::PUT,
        Method::PATCH,
        Method::DELETE,
        Method::TRACE,
        Method::CONNECT,
    ];
    if STANDARD.contains(method) { method.as_str() } else { OTHER }
}

/// The client's id if it can be taken, else one of our own.
fn request_id(headers: &HeaderMap) -> RequestId {
    let given = headers.get(REQUEST_ID).and_then(|value| RequestId::given(value.as_bytes()));
    given.unwrap_or_else(RequestId::random)
}
