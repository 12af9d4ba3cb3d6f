//! Other sites' pages that may use the API, by the Fetch standard. Their requests bring keys and no cookies.

use axum::{
    extract::Request,
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    response::IntoResponse as _,
};

use super::access::KeyedResponse;

/// What such a page may do.
const METHODS: &str = "GET, POST";
/// What it may send.
const SENT: &str =
    "authorization, content-type, idempotency-key, if-match, if-none-match, last-event-id, x-request-id";
/// What it may read.
const READ: &str = "etag, location, link, idempotency-replayed, retry-after, x-request-id, www-authenticate";
/// For how many seconds a browser need not ask again; none keeps it for longer than two hours.
const KEPT: &str = "7200";

/// Tells browsers that pages of these sites may read the answer. All others are answered as if nobody had asked.
pub(in crate::http) async fn cors<A: Future<Output = KeyedResponse>>(
    origins: &[String],
    request: Request,
    answer: impl FnOnce(Request) -> A,
) -> KeyedResponse {
    if origins.is_empty() {
        return answer(request).await;
    }
    let mut sent = request.headers().get_all(header::ORIGIN).iter();
    let allowed = |origin: &&HeaderValue| origins.iter().any(|allowed| *origin == allowed);
    let origin = sent.next().filter(|origin| sent.next().is_none() && allowed(origin)).cloned();
    let asks_first = request.method() == Method::OPTIONS
        && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    let mut answer = match origin {
        // It is asked without a key, before the request that has one.
        Some(_) if asks_first => StatusCode::NO_CONTENT.into_response().into(),
        _ => answer(request).await,
    };
    let headers = answer.response.headers_mut();
    headers.append(header::VARY, HeaderValue::from_static("origin"));
    if let Some(origin) = origin {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        if asks_first {
            allow(headers);
        } else {
            headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(READ));
        }
    }
    answer
}

fn allow(headers: &mut HeaderMap) {
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(METHODS));
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(SENT));
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(KEPT));
}
