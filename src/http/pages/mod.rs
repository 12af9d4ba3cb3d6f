//! What people look at: the customer's page and the kitchen's board. Rendered whole on the server; a script only keeps it fresh, by
//! fetching the same page again and taking over what has changed.
//!
//! Invariant: no inline script or style, and every text of a customer goes through [`quoted`] and the templates'
//! escaping, so that it can neither run nor turn its surroundings around.

mod assets;
mod board;
pub(super) mod docs;
mod form;
mod said;
mod sign_in;
mod track;
mod words;

use std::time::Duration;

use axum::{
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use maud::{DOCTYPE, Markup, html};

pub(super) use assets::{favicon, robots, serve as asset};
pub(super) use board::{board, place_demo, report};
pub(super) use form::limit as form_limit;
pub(super) use sign_in::{ask as ask_for_key, not_for_role, session, sign_in, sign_in_first, sign_out_now};
pub(super) use track::{ask_to_cancel, cancel, track, track_slash};

use super::Problem;
use crate::order::{OrderId, Timestamp};

const HTML: &str = "text/html; charset=utf-8";
/// Only what comes from here, nothing inline, in nobody's frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
     base-uri 'none'; form-action 'self'; frame-ancestors 'none'";
const NOTHING: &str = "there is nothing at this path";
/// How often a page without its script asks again.
const REFRESH: Duration = Duration::from_secs(5);
/// How often, where only an undo would change it.
const REFRESH_RARELY: Duration = Duration::from_secs(15);
/// Characters that embed, override or isolate directions, those that end it, and the end of a paragraph, which ends them
/// all. Mere marks (U+200E, U+200F, U+061C) are none: they reach no further than the `bdi` they stand in.
const BIDI_CONTROLS: [char; 10] = [
    '\u{202a}', '\u{202b}', '\u{202c}', '\u{202d}', '\u{202e}', '\u{2066}', '\u{2067}', '\u{2068}',
    '\u{2069}', '\u{2029}',
];

/// What stands around the content of a page.
struct Frame<'a> {
    title: &'a str,
    /// The address of the icon.
    icon: String,
    /// The names of style sheets beside `page.css`.
    style: &'a str,
    /// The name of the script that keeps it fresh.
    script: Option<&'a str>,
    refresh: Refresh,
    /// What is shown of the page where its address is sent to somebody: a title, and what it is about.
    preview: Option<(&'a str, &'a str)>,
}

/// Whether a page asks again by itself.
#[derive(PartialEq, Eq)]
enum Refresh {
    Never,
    WithoutScript,
    RarelyWithoutScript,
    Always,
}

/// A whole page.
fn page(status: StatusCode, frame: &Frame<'_>, content: &Markup) -> Response {
    let refresh = |every: Duration| html! { meta http-equiv="refresh" content=(every.as_secs()); };
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                title { (frame.title) }
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="robots" content="noindex";
                @if let Some((title, about)) = frame.preview {
                    meta name="description" content=(about);
                    meta property="og:site_name" content="Order Tracker";
                    meta property="og:type" content="website";
                    meta property="og:title" content=(title);
                    meta property="og:description" content=(about);
                }
                link #icon rel="icon" type="image/svg+xml" href=(frame.icon);
                link rel="stylesheet" href=(assets::path("page.css"));
                link rel="stylesheet" href=(assets::path(frame.style));
                @if let Some(script) = frame.script {
                    link rel="modulepreload" href=(assets::path("page.js"));
                    script type="module" src=(assets::path(script)) {}
                }
                @match frame.refresh {
                    Refresh::Never => {}
                    Refresh::WithoutScript => noscript { (refresh(REFRESH)) },
                    Refresh::RarelyWithoutScript => noscript { (refresh(REFRESH_RARELY)) },
                    Refresh::Always => (refresh(REFRESH)),
                }
            }
            body { (content) }
        }
    };
    let headers = [
        (header::CONTENT_TYPE, HTML),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (status, headers, page.into_string()).into_response()
}

/// A page that says why there is nothing to see.
fn error_page(problem: &Problem, title: &str, words: &str, refresh: Refresh) -> Response {
    let icon = assets::path("lost.svg");
    let frame = Frame { title, icon, style: "track.css", script: None, refresh, preview: None };
    let content = html! {
        main {
            section.now {
                img src=(frame.icon) alt="" width="88" height="88";
                h1 { (title) }
                p { (words) }
            }
        }
    };
    let mut response = page(problem.status, &frame, &content);
    if problem.status == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    if let Some(cause) = &problem.cause {
        response.extensions_mut().insert(cause.clone());
    }
    response
}

/// A page for an address where nothing is.
fn nowhere() -> Response {
    let words = "Nothing is at this address. Please check the link.";
    error_page(&Problem::not_found(NOTHING), "There is no such page", words, Refresh::Never)
}

/// The answer to a path that nothing is at: a page for who asks for one, else a problem.
pub(super) async fn not_found(headers: HeaderMap) -> Response {
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|accept| accept.to_str().ok());
    let html = accepted.flat_map(|accept| accept.split(',')).any(|kind| kind.trim().starts_with("text/html"));
    let mut response = if html { nowhere() } else { Problem::not_found(NOTHING).into_response() };
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("accept"));
    response
}

/// An order's id as people type it.
fn typed(text: &str) -> Option<OrderId> {
    OrderId::typed(text).ok()
}

/// A text without characters that turn what stands around it.
fn strip_bidi(text: &str) -> String {
    text.replace(BIDI_CONTROLS, "")
}

/// A text as a customer wrote it. A `bdi` alone does not hold an embedding that is left open.
fn quoted(text: &str) -> Markup {
    html! { bdi { (strip_bidi(text)) } }
}

/// JSON that says the same and turns nothing: such characters stand only in its strings, which can escape them.
fn harmless_json(json: &str) -> String {
    let escaped = |text: String, c: char| text.replace(c, &format!("\\u{:04x}", u32::from(c)));
    BIDI_CONTROLS.into_iter().fold(json.to_owned(), escaped)
}

/// A moment in UTC; the script puts the reader's own zone in its place.
fn moment(at: Timestamp, now: Timestamp) -> Markup {
    let form = if at.date_naive() == now.date_naive() { "%H:%M:%S UTC" } else { "%-d %b %Y, %H:%M:%S UTC" };
    html! { time datetime=(at.format("%Y-%m-%dT%H:%M:%S%.3fZ")) { (at.format(form)) } }
}
