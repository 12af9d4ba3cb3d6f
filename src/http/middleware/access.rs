//! Who asks, and whether he may: in front of every handler.

use std::sync::Arc;

use axum::{
    extract::{MatchedPath, Request},
    http::{HeaderMap, HeaderValue, header},
    middleware::Next,
    response::{IntoResponse as _, Response},
};

use super::super::{
    AppState, Problem, pages,
    routes::{self, Need},
    within_time,
};
use crate::{
    keys::{ApiKey, Auth, AuthError, Caller, KeyRing, LiveKey},
    order::Action,
};

/// The scheme of keys, RFC 6750.
const BEARER: &str = "Bearer ";

/// A response, and whose key its request came with.
pub(in crate::http) struct KeyedResponse {
    pub(in crate::http) response: Response,
    pub(in crate::http) key: Option<Arc<LiveKey>>,
}

impl From<Response> for KeyedResponse {
    fn from(response: Response) -> Self {
        Self { response, key: None }
    }
}

/// Lets through who may, with the [`Caller`] beside the request.
pub(in crate::http) async fn access(state: &AppState, mut request: Request, next: Next) -> KeyedResponse {
    let (caller, renewed) = match caller(state, &request) {
        Ok(proved) => proved,
        Err(refused) => return *refused,
    };
    let key = caller.key().cloned();
    request.extensions_mut().insert(caller);
    let mut response = within_time(request, next).await;
    let headers = response.headers_mut();
    headers.extend(renewed.map(|renewed| (header::SET_COOKIE, renewed)));
    if key.is_some() {
        // The same address shows others less or more, so no cache keeps it.
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    KeyedResponse { response, key }
}

/// Who asks, or how he is refused.
fn caller(state: &AppState, request: &Request) -> Result<Proved, Box<KeyedResponse>> {
    let Auth::Keys(ring) = &state.settings.auth else { return Ok((Caller::Anyone, None)) };
    let route = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    let need = route.map_or(Need::Nothing, |route| routes::need(request.method(), route));
    // Who needs no key is not asked, and what he sends along is not looked at.
    if need == Need::Nothing {
        return Ok((Caller::Anonymous, None));
    }
    let (caller, renewed) = match (authenticate(state, ring, need, request), need) {
        (Ok(proved), _) => proved,
        (Err(_), Need::Optional) => (Caller::Anonymous, None),
        (Err(problem), Need::Page(_)) => return Err(refused(pages::sign_in_first(&problem, request), None)),
        (Err(problem), _) => return Err(refused(problem.into_response(), None)),
    };
    let problem = match need {
        Need::Key(action) | Need::Page(action) if !caller.may(action) => not_for_role(&caller, action),
        _ => return Ok((caller, renewed)),
    };
    let mut response = match need {
        Need::Page(_) => pages::not_for_role(&problem),
        _ => problem.into_response(),
    };
    response.headers_mut().extend(renewed.map(|renewed| (header::SET_COOKIE, renewed)));
    Err(refused(response, caller.key().cloned()))
}

fn refused(response: Response, key: Option<Arc<LiveKey>>) -> Box<KeyedResponse> {
    Box::new(KeyedResponse { response, key })
}

/// Who asks, and a session that lasts longer if he has one that is worth it.
type Proved = (Caller, Option<HeaderValue>);

/// Who asks. A browser's session counts on pages only: elsewhere another site's page could make a browser use it.
fn authenticate(state: &AppState, ring: &KeyRing, need: Need, request: &Request) -> Result<Proved, Problem> {
    let now = state.settings.clock.now();
    let is_page = matches!(need, Need::Page(_));
    // What a proxy in front of the board asks for by itself is none of ours.
    let key =
        if is_page && is_of_another_scheme(request.headers()) { None } else { bearer(request.headers())? };
    let proved = match key {
        Some(key) => Some(ring.authenticate(&key, now).map(|key| (key, None))),
        None if is_page => pages::session(state, ring, request, now)
            .map(|session| session.map(|(session, renewed)| (session.key, renewed))),
        None => None,
    };
    let (key, renewed) = proved.ok_or_else(Problem::key_required)?.map_err(|why| match why {
        AuthError::Unknown => Problem::key_not_valid(),
        AuthError::NotReadYet => Problem::keys_not_read(),
    })?;
    Ok((Caller::Holder(key), renewed))
}

fn is_of_another_scheme(headers: &HeaderMap) -> bool {
    let value = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(' ').next().is_some_and(|scheme| !scheme.eq_ignore_ascii_case(BEARER.trim_end()))
}

/// The key that was sent; one that is mistyped is found here.
fn bearer(headers: &HeaderMap) -> Result<Option<ApiKey>, Problem> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let text = value.to_str().ok().filter(|_| values.next().is_none()).ok_or_else(Problem::key_not_valid)?;
    let scheme = text.get(..BEARER.len()).filter(|scheme| scheme.eq_ignore_ascii_case(BEARER));
    let key = scheme.and_then(|_| text[BEARER.len()..].trim_start().parse().ok());
    key.map(Some).ok_or_else(Problem::key_not_valid)
}

fn not_for_role(caller: &Caller, action: Action) -> Problem {
    let role = caller.role().map_or_else(String::new, |role| role.to_string());
    Problem::not_for_this_role(format!("a key of role {role} may not {action}"))
}
