//! Reads a JSON body: of the right type, not too large, not too slow.

use axum::{
    body::{Body, Bytes},
    extract::{FromRequest, Request},
    http::{HeaderMap, HeaderValue, header},
    response::{IntoResponse as _, Response},
};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};

use super::super::Problem;

pub(in crate::http) use crate::order::promises::MAX_BODY_BYTES as MAX_BYTES;
use crate::time::deadlines::BODY as TIMEOUT;

/// The bytes of a JSON body, of which there are at most so many.
pub(in crate::http) struct JsonBytes<const MOST: usize = MAX_BYTES>(pub Bytes);

impl<const MOST: usize, S: Sync> FromRequest<S> for JsonBytes<MOST> {
    type Rejection = Response;

    async fn from_request(request: Request, _: &S) -> Result<Self, Response> {
        if is_coded(request.headers()) {
            return Err(coded());
        }
        if !is_json(request.headers()) {
            let detail = "send JSON with the header content-type: application/json";
            return Err(Problem::unsupported_media_type(detail).into_response());
        }
        if announced_length(request.headers()).is_some_and(|length| length > MOST as u64) {
            return Err(Problem::too_large(MOST).into_response());
        }
        read(request.into_body(), MOST).await.map(Self).map_err(Problem::into_response)
    }
}

async fn read(body: Body, most: usize) -> Result<Bytes, Problem> {
    match tokio::time::timeout(TIMEOUT, Limited::new(body, most).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Problem::too_large(most)),
        Ok(Err(_)) => Err(Problem::malformed("the body ends early or is not framed as HTTP demands")),
        Err(_) => Err(Problem::too_slow(format!("a body must arrive within {TIMEOUT:?}"))),
    }
}

fn announced_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Whether the body is compressed or coded in any other way.
fn is_coded(headers: &HeaderMap) -> bool {
    headers.get_all(header::CONTENT_ENCODING).iter().any(|value| {
        // What is no text names no coding that we know.
        let names = value.to_str().unwrap_or("unknown").split(',').map(str::trim);
        names.into_iter().any(|name| !name.is_empty() && !name.eq_ignore_ascii_case("identity"))
    })
}

/// RFC 9110 section 15.5.16 wants the codings named that would have been taken, and only where a coding was the reason.
fn coded() -> Response {
    let detail = "send the body as it is, without content-encoding: none is understood here";
    let mut response = Problem::unsupported_media_type(detail).into_response();
    response.headers_mut().insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    response
}

/// `application/json` or any `application/...+json`, whatever parameters follow.
fn is_json(headers: &HeaderMap) -> bool {
    let text = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence.strip_prefix("application/").is_some_and(|kind| kind == "json" || kind.ends_with("+json"))
}
