//! Reads a JSON body: of the right type, not too large, not too slow.

use std::time::Duration;

use axum::{
    body::{Body, Bytes},
    extract::{FromRequest, Request},
    http::{HeaderMap, header},
};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};

use super::Problem;

/// Longest body, in bytes.
pub(super) const MAX_BYTES: usize = 16 * 1024;
/// How long a body may take to arrive.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The bytes of a JSON body.
pub(super) struct JsonBytes(pub Bytes);

impl<S: Sync> FromRequest<S> for JsonBytes {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        if !is_json(request.headers()) {
            return Err(Problem::unsupported_media_type());
        }
        if announced_length(request.headers()).is_some_and(|length| length > MAX_BYTES as u64) {
            return Err(Problem::too_large(MAX_BYTES));
        }
        read(request.into_body()).await.map(Self)
    }
}

async fn read(body: Body) -> Result<Bytes, Problem> {
    match tokio::time::timeout(TIMEOUT, Limited::new(body, MAX_BYTES).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Problem::too_large(MAX_BYTES)),
        Ok(Err(_)) => Err(Problem::malformed("the body ends early or is not framed as HTTP demands")),
        Err(_) => Err(Problem::too_slow(format!("a body must arrive within {TIMEOUT:?}"))),
    }
}

fn announced_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// `application/json` or any `application/...+json`, whatever parameters follow.
fn is_json(headers: &HeaderMap) -> bool {
    let text = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence.strip_prefix("application/").is_some_and(|kind| kind == "json" || kind.ends_with("+json"))
}
