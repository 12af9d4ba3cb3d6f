//! Who asks, and whether he may: in front of every handler.

use std::sync::Arc;

use axum::{
    extract::{MatchedPath, Request, State},
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

/// Lets through who may, with the [`Caller`] beside the request.
pub(in crate::http) async fn access(
    State(state): State<Arc<AppState>>,
    mut request: Request,
    next: Next,
) -> Response {
    let Auth::Keys(ring) = &state.settings.auth else {
        request.extensions_mut().insert(Caller::Anyone);
        return within_time(request, next).await;
    };
    let route = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    let need = route.map_or(Need::Nothing, |route| routes::need(request.method(), route));
    let proved = match need {
        // Who needs none is not asked, and what he sends along is not looked at.
        Need::Nothing => Ok((Caller::Anonymous, None)),
        need => authenticate(&state, ring, need, &request),
    };
    let (caller, renewed) = match (proved, need) {
        (Ok(proved), _) => proved,
        (Err(_), Need::Optional) => (Caller::Anonymous, None),
        (Err(problem), Need::Page(_)) => return pages::sign_in_first(&problem, &request),
        (Err(problem), _) => return problem.into_response(),
    };
    let asker = Asker::of(&caller);
    let mut response = answer(caller, need, request, next).await;
    response.headers_mut().extend(renewed.map(|renewed| (header::SET_COOKIE, renewed)));
    if let Some(asker) = asker {
        // The same address shows others less or more.
        response.headers_mut().append(header::VARY, HeaderValue::from_static("authorization"));
        response.extensions_mut().insert(asker);
    }
    response
}

/// Whose key a request came with, for its line of the log.
#[derive(Debug, Clone)]
pub(in crate::http) struct Asker(Arc<LiveKey>);

impl Asker {
    fn of(caller: &Caller) -> Option<Self> {
        match caller {
            Caller::Anyone | Caller::Anonymous => None,
            Caller::Holder(key) => Some(Self(Arc::clone(key))),
        }
    }

    /// The name of the key.
    pub(in crate::http) fn name(&self) -> &str {
        &self.0.stored.name
    }
}

async fn answer(caller: Caller, need: Need, mut request: Request, next: Next) -> Response {
    if let Need::Key(action) | Need::Page(action) = need
        && !caller.may(action)
    {
        let problem = not_for_role(&caller, action);
        return if matches!(need, Need::Page(_)) {
            pages::not_for_role(&problem)
        } else {
            problem.into_response()
        };
    }
    request.extensions_mut().insert(caller);
    within_time(request, next).await
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
