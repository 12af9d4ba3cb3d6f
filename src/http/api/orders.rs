//! `POST /orders`, `GET /orders/{id}`, `GET /orders`.

use std::sync::Arc;

use axum::{
    Extension, Json,
    extract::{Path, State, rejection::PathRejection},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::{IntoParams, ToSchema};

use super::{
    super::{AppState, Problem},
    body::JsonBytes,
    included::{FoundOrder, Included},
    parameters::Parameters,
};
use crate::{
    keys::Caller,
    order::{
        FieldCode, Order, OrderDetails, OrderId, OrderRequest, Shown, Status, TrackedOrder, schema::Include,
    },
    tracker::{IdempotencyKey, Page},
};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
pub(super) const IDEMPOTENCY_REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
/// Longest `Idempotency-Key`, as at Stripe.
pub(in crate::http) const MAX_KEY_CHARS: usize = 255;
/// Page length of a list that asks for none.
pub(in crate::http) const DEFAULT_LIMIT: usize = 50;
/// Longest page; a larger limit means this one.
pub(in crate::http) const MAX_LIMIT: usize = 200;

/// The answer to a new order.
#[derive(Serialize, ToSchema)]
pub(in crate::http) struct Accepted {
    order_id: OrderId,
}

/// Places an order
///
/// Answers once the order is on disk. Safe to repeat with an `Idempotency-Key`.
#[utoipa::path(
    post, path = "/orders", operation_id = "place_order", tag = "orders",
    params(
        ("Idempotency-Key" = String, Header,
            description = "A key of your own, bare or quoted, kept for 24 hours at least: the same key and body give the same answer.",
            pattern = r#"^(?:"[ -~]{1,255}"|[!#-~](?:[ -~]{0,253}[!-~])?)$"#),
    ),
    request_body(content = OrderRequest, description = "Up to 16 KiB; unknown fields are ignored."),
    responses(
        (status = 201, description = "The order is stored", body = Accepted,
            headers(
                ("Location" = String, description = "The path of the order"),
                ("Idempotency-Replayed" = String, description = "`true` if this key has placed the order before"),
            ),
            links(("find_order" = (operation_id = "find_order",
                parameters(("id" = "$response.body#/order_id")))))),
        (status = 400, description = "The body or the key is not valid"),
        (status = 413, description = "The body is too large"),
        (status = 415, description = "The content type is not JSON, or the body is compressed"),
        (status = 422, description = "This key has placed another order"),
    )
)]
pub(in crate::http) async fn place(
    State(state): State<Arc<AppState>>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    JsonBytes(body): JsonBytes,
) -> Result<Response, Problem> {
    let key = idempotency_key(&headers)?.map(|key| IdempotencyKey::new(caller.owner(), key));
    let raw = OrderRequest::parse(&body).map_err(|error| Problem::malformed(format!("the body: {error}")))?;
    let mut meta = json!({"source": "http"});
    if let Some(name) = caller.name() {
        meta["by"] = name.into();
    }
    let accepted = state.tracker.place(OrderDetails::try_from(raw)?, key, Some(meta)).await?;
    let location = format!("/orders/{}", accepted.order_id);
    let body = Json(Accepted { order_id: accepted.order_id });
    let mut response = (StatusCode::CREATED, [(header::LOCATION, location)], body).into_response();
    if accepted.replayed {
        response.headers_mut().insert(IDEMPOTENCY_REPLAYED, HeaderValue::from_static("true"));
    }
    Ok(response)
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(in crate::http) struct FindQuery {
    /// What to tell beside it: `allowed` (what may be reported now), `eta` (when it is expected), or both.
    #[param(required = false, inline, value_type = Include)]
    include: Option<String>,
}

/// Finds an order
///
/// The order as it is now and its timeline so far.
#[utoipa::path(
    get, path = "/orders/{id}", operation_id = "find_order", tag = "orders",
    params(
        ("id" = OrderId, Path, description = "The id that the order was given"),
        ("If-None-Match" = String, Header, description = "An `ETag` that was seen before"),
        FindQuery,
    ),
    responses(
        (status = 200, description = "The order and its timeline", body = FoundOrder,
            headers(("ETag" = String, description = "Changes with each step"))),
        (status = 304, description = "No event was added since", headers(("ETag" = String, description = "The same"))),
        (status = 400, description = "The query is not valid"),
        (status = 404, description = "No order has this id"),
    )
)]
pub(in crate::http) async fn find(
    State(state): State<Arc<AppState>>,
    Extension(caller): Extension<Caller>,
    order_id: Result<Path<String>, PathRejection>,
    Parameters(query): Parameters<FindQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let included = given(query.include.as_ref()).map_or(Ok(Included::default()), Included::parse)?;
    let found = state.tracker.find(self::order_id(order_id)?).await?;
    let found = Option::as_ref(&found).ok_or_else(unknown)?;
    let etag = etag(&found.tracked);
    let unchanged = headers.get(header::IF_NONE_MATCH).is_some_and(|seen| matches(seen, &etag));
    let caching = [(header::ETAG, etag), (header::CACHE_CONTROL, "private, no-cache".to_owned())];
    if unchanged {
        return Ok((StatusCode::NOT_MODIFIED, caching).into_response());
    }
    Ok((caching, Json(included.with(found, &caller, &state.settings.rules))).into_response())
}

/// The id in a path. What can't be one is simply not there: nobody learns how ids are made.
pub(in crate::http) fn order_id(path: Result<Path<String>, PathRejection>) -> Result<OrderId, Problem> {
    path.ok().and_then(|Path(text)| text.parse().ok()).ok_or_else(unknown)
}

/// 404 for an order.
pub(in crate::http) fn unknown() -> Problem {
    Problem::not_found("no order has this id")
}

/// Weak, since JSON may be spelled in other ways; the timeline only grows, so its length is enough.
fn etag(tracked: &TrackedOrder) -> String {
    format!("W/\"{}\"", tracked.events.last().map_or(0, |last| last.seq))
}

/// Weak comparison, RFC 9110 section 13.1.2.
pub(in crate::http) fn matches(seen: &HeaderValue, etag: &str) -> bool {
    let opaque = etag.trim_start_matches("W/");
    let Ok(seen) = seen.to_str() else { return false };
    seen.split(',').map(str::trim).any(|tag| tag == "*" || tag.trim_start_matches("W/") == opaque)
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(in crate::http) struct ListQuery {
    /// Only orders in this status.
    #[param(inline, required = false, value_type = Status)]
    status: Option<String>,
    /// Most orders in the answer; more than 200 means 200.
    #[param(required = false, value_type = u64, minimum = 1, default = 50)]
    limit: Option<String>,
    /// Where the page before ended; taken as it is from its `Link`.
    #[param(required = false, value_type = String)]
    cursor: Option<String>,
}

/// Lists orders, the newest first
#[utoipa::path(
    get, path = "/orders", operation_id = "list_orders", tag = "orders", params(ListQuery),
    responses(
        (status = 200, description = "Orders without their timelines", body = Vec<Order>,
            headers(("Link" = String, description = "The next page as `rel=\"next\"`, if there is one"))),
        (status = 400, description = "A parameter is not valid"),
    )
)]
pub(in crate::http) async fn list(
    State(state): State<Arc<AppState>>,
    Extension(caller): Extension<Caller>,
    Parameters(query): Parameters<ListQuery>,
) -> Result<Response, Problem> {
    let mut page = page(&query)?;
    let limit = page.limit;
    // One more than asked for tells whether there is a next page.
    page.limit += 1;
    let listing = state.tracker.list(page).await?;
    let orders = &listing.orders[..limit.min(listing.orders.len())];
    let more = listing.orders.len() > limit;
    let next = orders.last().filter(|_| more).map(|last| next_link(last.order_id, limit, page.status));
    // Strings and numbers always serialise.
    let json = || serde_json::to_vec(&Shown::new(orders, caller.sight())).unwrap_or_default().into();
    let json = listing.rendered(caller.sight()).get_or_init(json);
    let mut response = ([(header::CONTENT_TYPE, "application/json")], json.clone()).into_response();
    if let Some(next) = next.and_then(|next| HeaderValue::try_from(next).ok()) {
        response.headers_mut().insert(header::LINK, next);
    }
    Ok(response)
}

fn page(query: &ListQuery) -> Result<Page, Problem> {
    let status = given(query.status.as_ref()).map(str::parse::<Status>).transpose();
    let status =
        status.map_err(|error| Problem::invalid_value("status", FieldCode::Choice, error.to_string()))?;
    let limit = given(query.limit.as_ref()).map_or(Some(DEFAULT_LIMIT), limit).ok_or_else(|| {
        Problem::invalid_value(
            "limit",
            FieldCode::Range,
            format!("must be a whole number from 1; above {MAX_LIMIT} means {MAX_LIMIT}"),
        )
    })?;
    let before =
        given(query.cursor.as_ref()).map(|cursor| format!("ORD-{cursor}").parse::<OrderId>()).transpose();
    let before = before.map_err(|_| {
        Problem::invalid_value("cursor", FieldCode::Cursor, "must be taken as it is from a Link header")
    })?;
    Ok(Page { status, before, limit })
}

/// What a form sends for a field that nobody has filled in is as good as nothing.
pub(super) fn given(parameter: Option<&String>) -> Option<&str> {
    parameter.map(String::as_str).filter(|text| !text.is_empty())
}

/// Digits only; a number too large for any type is still above the maximum.
fn limit(text: &str) -> Option<usize> {
    let number = text.bytes().all(|byte| byte.is_ascii_digit());
    Some(text.parse().unwrap_or(MAX_LIMIT).min(MAX_LIMIT)).filter(|limit| number && *limit > 0)
}

fn next_link(last: OrderId, limit: usize, status: Option<Status>) -> String {
    let status = status.map(|status| format!("&status={status}")).unwrap_or_default();
    let cursor = last.to_string();
    let cursor = cursor.trim_start_matches("ORD-");
    format!("</orders?limit={limit}{status}&cursor={cursor}>; rel=\"next\"")
}

/// Bare, or quoted as the IETF draft (`draft-ietf-httpapi-idempotency-key-header`) wants it.
fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let text = value.to_str().unwrap_or_default();
    let bare = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    // A quote that is not closed is a mistake, not a key.
    let valid = !bare.is_empty()
        && (bare != text || !text.starts_with('"'))
        && bare.len() <= MAX_KEY_CHARS
        && bare.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    if !valid || values.next().is_some() {
        let message = format!("must be given once, as 1 to {MAX_KEY_CHARS} printable ASCII characters");
        return Err(Problem::invalid_value("Idempotency-Key", FieldCode::Header, message));
    }
    Ok(Some(bare.to_owned()))
}
