//! Pages, what they load and documents, in fewer bytes for who takes them.

use std::io::Write as _;

use axum::{
    body::{Body, HttpBody as _},
    extract::Request,
    http::{HeaderMap, HeaderValue, header},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use flate2::{Compression, write::GzEncoder};
use http_body_util::BodyExt as _;

use super::super::Problem;

/// Up to so many bytes an answer goes as it is.
const SMALL: u64 = 4 * 1024;

/// Compresses whole answers. All of them say that they depend on what the client takes, since the next may be larger.
pub(in crate::http) async fn compress(request: Request, next: Next) -> Response {
    let wanted = is_wanted(request.headers());
    let mut response = next.run(request).await;
    response.headers_mut().append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    let large = response.body().size_hint().exact().is_some_and(|size| size > SMALL);
    if !wanted || !large {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    // It is in memory already.
    match body.collect().await.map(|body| packed(&body.to_bytes())) {
        Ok(Ok(bytes)) => {
            parts.headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            Response::from_parts(parts, Body::from(bytes))
        }
        _ => Problem::internal().into_response(),
    }
}

fn packed(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    // Boards are made every second: the fastest level takes most of what there is to take.
    let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 4), Compression::fast());
    encoder.write_all(bytes)?;
    encoder.finish()
}

/// Whether a client would rather have gzip, RFC 9110 section 12.5.3.
fn is_wanted(headers: &HeaderMap) -> bool {
    let (mut gzip, mut any, mut identity) = (None, None, None);
    let lists = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|list| list.to_str().ok());
    for coding in lists.flat_map(|list| list.split(',')) {
        let (name, weight) = coding.split_once(';').unwrap_or((coding, "q=1"));
        let weight =
            weight.trim().strip_prefix(['q', 'Q']).and_then(|rest| rest.trim_start().strip_prefix('='));
        let weight: f32 = weight.and_then(|weight| weight.trim().parse().ok()).unwrap_or_default();
        match name.trim().to_ascii_lowercase().as_str() {
            "gzip" | "x-gzip" => gzip = Some(weight),
            "*" => any = Some(weight),
            "identity" => identity = Some(weight),
            _ => {}
        }
    }
    let gzip = gzip.or(any).unwrap_or_default();
    gzip > 0.0 && gzip >= identity.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_says_what_it_takes() {
        for (accepted, wanted) in [
            (&["gzip, deflate, br, zstd"][..], true),
            (&["GZIP;q=0.5"], true),
            (&["x-gzip"], true),
            (&["br", "gzip"], true),
            (&["*"], true),
            (&["gzip;q=0.2, identity;q=0.1"], true),
            (&[], false),
            (&[""], false),
            (&["br"], false),
            (&["identity"], false),
            (&["gzip;q=0"], false),
            (&["gzip; q=0.000, *"], false),
            (&["gzip;q=none"], false),
            (&["*;q=0"], false),
            (&["gzip;q=0.1, identity;q=0.2"], false),
        ] {
            let mut headers = HeaderMap::new();
            for list in accepted {
                headers.append(header::ACCEPT_ENCODING, list.parse().expect("a value"));
            }
            assert_eq!(is_wanted(&headers), wanted, "{accepted:?}");
        }
    }
}
