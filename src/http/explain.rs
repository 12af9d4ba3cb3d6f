//! `GET /orders/{id}/explain`.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State, rejection::PathRejection},
};

use super::{AppState, Problem, ops, orders};
use crate::{
    ops::{diagnosis::Explanation, explain},
    order::OrderId,
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
    )
)]
pub(super) async fn explain(
    State(state): State<Arc<AppState>>,
    order_id: Result<Path<String>, PathRejection>,
) -> Result<Json<Explanation>, Problem> {
    let order_id = orders::order_id(order_id)?;
    let explained = explain::explain(&*state.store, &state.overview, &ops::parts(&state), order_id).await?;
    explained.map(Json).ok_or_else(orders::unknown)
}
