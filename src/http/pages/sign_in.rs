//! `/sign-in`, `/sign-out`: who looks at the board says once who he is, by a key, and his browser keeps a session.

use std::sync::Arc;

use axum::{
    Extension,
    extract::{Query, Request, State, rejection::QueryRejection},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse as _, Redirect, Response},
};
use maud::{Markup, html};
use serde::Deserialize;

use super::{
    super::{AppState, server::client::Connection},
    Frame, Problem, Refresh, assets, error_page,
    form::{read, with_origin},
    page,
};
use crate::{
    keys::{ApiKey, Auth, AuthError, KeyRing, SESSION_LASTING, Session},
    order::Timestamp,
};

/// The session's name where the connection is not known to be safe.
const COOKIE: &str = "order-tracker";
/// The same where it is: no other host can set it, and it never goes out in the clear.
const SAFE_COOKIE: &str = "__Host-order-tracker";
/// The page that everybody begins with.
const HOME: &str = "/";

/// Where to go once it is known who asks.
#[derive(Debug, Default, Deserialize)]
pub(in crate::http) struct SignInQuery {
    to: Option<String>,
}

/// The form of this page.
#[derive(Deserialize)]
struct SignInForm {
    key: String,
    to: Option<String>,
}

/// Whether the browser's connection is safe all the way, as far as can be known.
fn is_safe(state: &AppState, connection: Option<&Connection>, headers: &HeaderMap) -> bool {
    let public = state.settings.public_url.as_ref();
    public.is_some_and(|url| url.scheme() == "https")
        || connection.is_some_and(|connection| state.settings.proxies.says_https(connection.peer, headers))
}

/// The session that a browser has sent, and one that lasts longer if it is time for that.
pub(in crate::http) fn session(
    state: &AppState,
    ring: &KeyRing,
    request: &Request,
    now: Timestamp,
) -> Option<Result<(Session, Option<HeaderValue>), AuthError>> {
    let safe = is_safe(state, request.extensions().get(), request.headers());
    let name = if safe { SAFE_COOKIE } else { COOKIE };
    let lists = request.headers().get_all(header::COOKIE).iter().filter_map(|list| list.to_str().ok());
    let mut cookies =
        lists.flat_map(|list| list.split(';')).filter_map(|cookie| cookie.trim().split_once('='));
    let (_, text) = cookies.find(|(of, _)| *of == name)?;
    Some(Session::read(text, ring, now).map(|session| {
        let renewed = session.renewed(now).and_then(|renewed| cookie(&renewed.text(), safe, true));
        (session, renewed)
    }))
}

/// What a browser is told to keep, or to forget.
fn cookie(session: &str, safe: bool, keep: bool) -> Option<HeaderValue> {
    let (name, secure) = if safe { (SAFE_COOKIE, "; Secure") } else { (COOKIE, "") };
    let lasting = if keep { SESSION_LASTING.as_secs() } else { 0 };
    let text = format!("{name}={session}; Path=/; Max-Age={lasting}; HttpOnly; SameSite=Strict{secure}");
    HeaderValue::try_from(text).ok()
}

/// The page in place of one that needs a key.
pub(in crate::http) fn sign_in_first(problem: &Problem, request: &Request) -> Response {
    if problem.status == StatusCode::SERVICE_UNAVAILABLE {
        return not_yet(problem);
    }
    let shown = [Method::GET, Method::HEAD].contains(request.method());
    let to = request.uri().path_and_query().filter(|_| shown).map_or(HOME, |to| to.as_str());
    let mut response = form(problem.status, home(Some(to)), None);
    if let Some(challenge) = problem.challenge() {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
    }
    response
}

fn not_yet(problem: &Problem) -> Response {
    let words = "The keys can't be read just now. This page tries again by itself.";
    error_page(problem, "One moment, please", words, Refresh::Always)
}

/// The page for who may not see what he asked for.
pub(in crate::http) fn not_for_role(problem: &Problem) -> Response {
    let icon = assets::path("lost.svg");
    let content = html! {
        p { "You are signed in with a key that is for something else. The board is for those who work on orders." }
        (sign_out())
    };
    let title = "Not for your role";
    framed(problem.status, title, &icon, &content)
}

/// The button that ends a session.
pub(super) fn sign_out() -> Markup {
    html! { form.choice action="/sign-out" method="post" { button { "Sign out" } } }
}

/// Asks for a key.
pub(in crate::http) async fn ask(
    State(state): State<Arc<AppState>>,
    query: Result<Query<SignInQuery>, QueryRejection>,
) -> Response {
    let query = query.map(|Query(query)| query).unwrap_or_default();
    match state.settings.auth {
        Auth::Open => Redirect::to(HOME).into_response(),
        Auth::Keys(_) => form(StatusCode::OK, home(query.to.as_deref()), None),
    }
}

/// Begins a session, if the key is good.
pub(in crate::http) async fn sign_in(
    State(state): State<Arc<AppState>>,
    connection: Option<Extension<Connection>>,
    request: Request,
) -> Response {
    let safe =
        is_safe(&state, connection.as_ref().map(|Extension(connection)| connection), request.headers());
    let sent: SignInForm = match read(request, "the sign-in page").await {
        Ok(sent) => sent,
        Err(response) => return response,
    };
    let to = home(sent.to.as_deref());
    let Auth::Keys(ring) = &state.settings.auth else { return Redirect::to(HOME).into_response() };
    let now = state.settings.clock.now();
    let key = sent.key.trim().parse::<ApiKey>().map_err(|_| AuthError::Unknown);
    match key.and_then(|key| ring.authenticate(&key, now)) {
        Ok(key) => {
            let mut response = Redirect::to(to).into_response();
            let kept = cookie(&Session::begin(key, now).text(), safe, true);
            response.headers_mut().extend(kept.map(|kept| (header::SET_COOKIE, kept)));
            response
        }
        Err(AuthError::Unknown) => {
            let why = "This key is mistyped, unknown or revoked.";
            form(StatusCode::UNAUTHORIZED, to, Some(why))
        }
        Err(AuthError::NotReadYet) => not_yet(&Problem::keys_not_read()),
    }
}

/// Lets the browser forget it, whichever way it was kept.
pub(in crate::http) async fn sign_out_now(request: Request) -> Response {
    // An empty form; what it says is that it comes from here.
    if let Err(response) = read::<SignInQuery>(request, "the board").await {
        return response;
    }
    let mut response = Redirect::to("/sign-in").into_response();
    for forgotten in [cookie("", true, false), cookie("", false, false)].into_iter().flatten() {
        response.headers_mut().append(header::SET_COOKIE, forgotten);
    }
    response
}

/// The board that somebody wanted to see; nobody is sent elsewhere.
fn home(to: Option<&str>) -> &str {
    to.filter(|to| to.starts_with("/?")).unwrap_or(HOME)
}

fn form(status: StatusCode, to: &str, why: Option<&str>) -> Response {
    let icon = assets::path("board.svg");
    let content = html! {
        @if let Some(why) = why { p.wrong #why role="alert" { (why) } }
        @else { p { "This board asks who you are, once." } }
        form.sign-in action="/sign-in" method="post" {
            label for="key" { "Your key" }
            // A password to the browser, so that it is not shown and may be kept where passwords are.
            input #key type="password" name="key" required autofocus autocomplete="current-password" spellcheck="false" placeholder="otk_…" aria-describedby=[why.map(|_| "why")];
            input type="hidden" name="to" value=(to);
            button { "Sign in" }
        }
        p.hint { "Who runs this service makes keys: " code { "order-tracker keys create" } "." }
        p.hint { "Came by a link and signed in already? " a href=(to) { "Look again" } "." }
    };
    with_origin(framed(status, "Sign in", &icon, &content))
}

fn framed(status: StatusCode, title: &str, icon: &str, content: &Markup) -> Response {
    let frame = Frame {
        title,
        icon: icon.to_owned(),
        style: "track.css",
        script: None,
        refresh: Refresh::Never,
        preview: None,
    };
    let content = html! {
        main {
            section.now {
                img src=(icon) alt="" width="88" height="88";
                h1 { (title) }
                (content)
            }
        }
    };
    page(status, &frame, &content)
}
