//! `order explain`: reads what the diagnosis of one order needs.

use super::{
    diagnosis::{self, Explanation, PartsHealth},
    overview::Overview,
};
use crate::{
    order::OrderId,
    store::{Store, StoreError},
};

/// Why this order stands where it stands; `None` if there is no such order.
pub async fn explain(
    store: &dyn Store,
    overview: &Overview,
    parts: &PartsHealth,
    order_id: OrderId,
) -> Result<Option<Explanation>, StoreError> {
    let after = order_id.previous().map(|id| id.to_string());
    // The figures are the same for all who ask.
    let (page, reading) = tokio::join!(store.audit(after.as_deref(), 1), overview.read());
    let page = page?;
    let order = page.orders.into_iter().find(|order| order.order_id == order_id);
    Ok(order.map(|order| diagnosis::explain(&order, page.now, Some(&reading.figures()), parts)))
}
