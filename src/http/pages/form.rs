//! What all forms share: where they may come from, how they are read, and what each is called.

use axum::{
    Form, RequestExt as _,
    extract::{DefaultBodyLimit, Request, rejection::FormRejection},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::Response,
};
use serde::de::DeserializeOwned;

use super::{Problem, Refresh, error_page};
use crate::{order::promises::MAX_BODY_BYTES, time::deadlines::BODY as TIMEOUT};

/// A page that asked for this site itself: `fetch`, a link, a form.
const SAME_ORIGIN: &[u8] = b"same-origin";
/// The title of a page that says why a form was of no effect.
pub(super) const NOTHING_DONE: &str = "Nothing was done";

/// Most that a form may send.
pub(in crate::http) fn limit() -> DefaultBodyLimit {
    DefaultBodyLimit::max(MAX_BODY_BYTES)
}

/// Whether a form was sent by a page of ours. Browsers say so themselves where the connection is
/// trusted; elsewhere the origin must be the host. What says neither is no browser.
pub(super) fn from_here(headers: &HeaderMap) -> bool {
    if let Some(site) = headers.get("sec-fetch-site") {
        return site.as_bytes() == SAME_ORIGIN;
    }
    let Some(origin) = headers.get(header::ORIGIN) else { return true };
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
    origin.zip(host).is_some_and(|((_, origin), host)| origin == host)
}

/// Lets a page's forms say where they come from: with `no-referrer` a browser would hide it.
pub(super) fn with_origin(mut response: Response) -> Response {
    response.headers_mut().insert(header::REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    response
}

/// What a form of this service says; else a page that says why not.
pub(super) async fn read<T: DeserializeOwned + 'static>(
    request: Request,
    place: &str,
) -> Result<T, Response> {
    if !from_here(request.headers()) {
        let problem = Problem::forbidden("this form works only from the page itself");
        let words = format!("Please use the button on {place}.");
        return Err(error_page(&problem, "Not from here", &words, Refresh::Never));
    }
    let form = tokio::time::timeout(TIMEOUT, request.extract::<Form<T>, _>()).await;
    let problem = match form {
        Ok(Ok(Form(form))) => return Ok(form),
        Ok(Err(rejection)) => refused(&rejection),
        Err(_) => Problem::too_slow(format!("a form must arrive within {TIMEOUT:?}")),
    };
    let words = format!("What was sent can't be read. Please use the button on {place}.");
    Err(error_page(&problem, NOTHING_DONE, &words, Refresh::Never))
}

fn refused(rejection: &FormRejection) -> Problem {
    match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => Problem::too_large(MAX_BODY_BYTES),
        StatusCode::UNSUPPORTED_MEDIA_TYPE => Problem::unsupported_media_type("send a form as browsers do"),
        _ => Problem::malformed("this is no form of ours"),
    }
}

/// A name for what a form will report, made when it is drawn: sent twice, it is done once.
pub(super) fn drawn() -> String {
    format!("{:016x}", rand::random::<u64>())
}
