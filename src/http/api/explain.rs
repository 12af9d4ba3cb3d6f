//! `GET /orders/{id}/explain`.

use std::sync::Arc;

use axum::{
    Extension, Json,
    extract::{Path, State, rejection::PathRejection},
};

use super::{
    super::{AppState, Problem},
    orders,
};
use crate::{
    keys::Caller,
    ops::diagnosis::Explanation,
    order::{OrderId, allowed},
    tracker::CurrentOrder,
};

/// Says why an order stands where it stands
///
/// What it waits for, why that has not happened, and what a person may do about it: for each cause a stable code and a
/// text. An order that waits for the end of its stage, and one that was delivered, have a cause too.
#[utoipa::path(
    get, path = "/orders/{id}/explain", operation_id = "explain_order", tag = "operation",
    params(("id" = OrderId, Path, description = "The id that the order was given")),
    responses(
        (status = 200, description = "Why it stands there", body = Explanation),
        (status = 404, description = "No order has this id"),
        (status = 503, description = "The database can't be read now; `Retry-After` says when to ask again"),
    )
)]
pub(in crate::http) async fn explain(
    State(state): State<Arc<AppState>>,
    Extension(caller): Extension<Caller>,
    order_id: Result<Path<String>, PathRejection>,
) -> Result<Json<Explanation>, Problem> {
    let order_id = orders::order_id(order_id)?;
    let (explained, found) = tokio::join!(state.operations.explain(order_id), state.tracker.find(order_id));
    let mut explained = explained?.ok_or_else(orders::unknown)?;
    // One that can't be read as an order has causes, and nothing can be reported of it.
    let found = match found {
        Err(error) if error.is_transient() => return Err(error.into()),
        found => found.ok(),
    };
    if let Some(CurrentOrder { tracked, now }) = found.as_deref().and_then(Option::as_ref) {
        explained.allowed = allowed(tracked, caller.role(), &state.settings.rules, *now);
    }
    Ok(Json(explained))
}
