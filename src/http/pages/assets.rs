//! Styles, scripts and pictures of the pages, built into the binary.
//!
//! Their address holds a hash of them all, so a browser may keep what it has for ever and asks
//! again after an update; relative imports between scripts stay within one version.

use std::sync::LazyLock;

use axum::{
    extract::{Path, rejection::PathRejection},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};

use super::{super::api::orders::matches, Problem};
use crate::order::Status;

const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const PICTURE: &str = "image/svg+xml";

/// Name, content type and content of every asset.
const ASSETS: &[(&str, &str, &str)] = &[
    ("page.css", CSS, include_str!("assets/page.css")),
    ("track.css", CSS, include_str!("assets/track.css")),
    ("board.css", CSS, include_str!("assets/board.css")),
    ("page.js", SCRIPT, include_str!("assets/page.js")),
    ("track.js", SCRIPT, include_str!("assets/track.js")),
    ("board.js", SCRIPT, include_str!("assets/board.js")),
    ("board.svg", PICTURE, include_str!("assets/board.svg")),
    ("placed.svg", PICTURE, include_str!("assets/placed.svg")),
    ("preparing.svg", PICTURE, include_str!("assets/preparing.svg")),
    ("cooking.svg", PICTURE, include_str!("assets/cooking.svg")),
    ("out-for-delivery.svg", PICTURE, include_str!("assets/out-for-delivery.svg")),
    ("delivered.svg", PICTURE, include_str!("assets/delivered.svg")),
    ("cancelled.svg", PICTURE, include_str!("assets/cancelled.svg")),
    ("late.svg", PICTURE, include_str!("assets/late.svg")),
    ("lost.svg", PICTURE, include_str!("assets/lost.svg")),
];

/// For browsers that take no SVG, and where no page names an icon; `tests/browser/run --icon` makes it.
const FAVICON: &[u8] = include_bytes!("assets/favicon.ico");
/// The customer's pages say themselves that they are not for an index; who must not read them would not know, and a
/// chat could show nothing of a link.
const ROBOTS: &str = "User-agent: *\nAllow: /docs\nAllow: /track/\nDisallow: /\n";
/// What has an address without a version.
const FOR_A_DAY: [(header::HeaderName, &str); 1] = [(header::CACHE_CONTROL, "public, max-age=86400")];

/// The version of this binary's assets: FNV-1a over all of them.
static VERSION: LazyLock<String> = LazyLock::new(|| {
    let bytes = ASSETS.iter().flat_map(|(name, _, text)| name.bytes().chain(text.bytes()));
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}")
});

/// Where a page finds an asset.
pub(super) fn path(name: &str) -> String {
    debug_assert!(ASSETS.iter().any(|(known, ..)| *known == name), "{name}");
    format!("/assets/{}/{name}", *VERSION)
}

/// The picture of a status.
pub(super) fn picture(status: Status) -> String {
    path(status.picture())
}

/// Another version's address answers with this version's content, not to be kept: replicas are
/// updated one after the other.
pub(in crate::http) async fn serve(
    address: Result<Path<(String, String)>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let known = address.ok().and_then(|Path((version, name))| {
        let asset = ASSETS.iter().find(|(known, ..)| *known == name)?;
        Some((version, asset))
    });
    let (version, (_, content_type, text)) =
        known.ok_or_else(|| Problem::not_found("there is no such asset"))?;
    // Weak: it may be compressed or not.
    let etag = format!("W/\"{}\"", *VERSION);
    let caching = if version == *VERSION { "public, max-age=31536000, immutable" } else { "no-cache" };
    let seen = headers.get(header::IF_NONE_MATCH).is_some_and(|seen| matches(seen, &etag));
    let caching = [(header::CACHE_CONTROL, HeaderValue::from_static(caching))];
    let etag = [(header::ETAG, etag)];
    if seen {
        return Ok((StatusCode::NOT_MODIFIED, caching, etag).into_response());
    }
    Ok((caching, etag, [(header::CONTENT_TYPE, *content_type)], *text).into_response())
}

/// The icon where no page names one.
pub(in crate::http) async fn favicon() -> Response {
    (FOR_A_DAY, [(header::CONTENT_TYPE, "image/x-icon")], FAVICON).into_response()
}

/// What search engines may read.
pub(in crate::http) async fn robots() -> Response {
    (FOR_A_DAY, [(header::CONTENT_TYPE, "text/plain; charset=utf-8")], ROBOTS).into_response()
}
