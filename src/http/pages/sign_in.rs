//! Who looks at the board says once who he is, by a key, and his browser keeps a session.

use axum::{
    extract::Request,
    http::{HeaderMap, header},
    response::Response,
};

use super::{Problem, Refresh, error_page};

/// The session's name where the connection is not known to be safe.
const COOKIE: &str = "order-tracker";
/// The same where it is: no other host can set it.
const SAFE_COOKIE: &str = "__Host-order-tracker";

/// The session that a browser has sent.
pub(in crate::http) fn session(headers: &HeaderMap) -> Option<&str> {
    let lists = headers.get_all(header::COOKIE).iter().filter_map(|list| list.to_str().ok());
    let mut cookies =
        lists.flat_map(|list| list.split(';')).filter_map(|cookie| cookie.trim().split_once('='));
    cookies.find(|(name, _)| [COOKIE, SAFE_COOKIE].contains(name)).map(|(_, value)| value)
}

/// The page where a key is asked for, in place of the one that needs it.
pub(in crate::http) fn sign_in_first(problem: &Problem, _request: &Request) -> Response {
    error_page(problem, "Sign in", "This page needs a key.", Refresh::Never)
}

/// The page for who may not see what he asked for.
pub(in crate::http) fn not_for_role(problem: &Problem) -> Response {
    error_page(
        problem,
        "Not for your role",
        "This page is not for the key that you signed in with.",
        Refresh::Never,
    )
}
