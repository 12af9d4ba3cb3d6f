//! The SQL behind the board: what people should look at.

use std::time::Duration;

use sqlx::{FromRow as _, SqlitePool};

use super::{
    super::{Attention, COUNTED_TO, Overdue, Unsent},
    StoreError,
    rows::{IdRow, moment},
};
use crate::order::{Order, Status, Timestamp};

pub(super) async fn attention(
    read: &SqlitePool,
    now: Timestamp,
    late: Duration,
    limit: usize,
) -> Result<Attention, StoreError> {
    let since = |at: Timestamp| (now - at).to_std().unwrap_or_default();
    let (limit, due) = (i64::try_from(limit).unwrap_or(i64::MAX), (now - late).timestamp_millis());
    let overdue = sqlx::query(
        "SELECT order_id, customer_name, address, item, size, status, created_at, updated_at, due_at
         FROM orders WHERE due_at < ?1 ORDER BY due_at LIMIT ?2",
    )
    .bind(due)
    .bind(limit)
    .fetch_all(read)
    .await?;
    let overdue = overdue
        .iter()
        .map(|row| Ok(Overdue { order: Order::from_row(row)?, late: since(moment(row, "due_at")?) }));
    let overdue = overdue.collect::<sqlx::Result<_>>()?;
    let unsent = sqlx::query("SELECT order_id, created_at FROM outbox ORDER BY order_id LIMIT ?1")
        .bind(limit)
        .fetch_all(read)
        .await?;
    let unsent = unsent
        .iter()
        .map(|row| Ok(Unsent { order_id: IdRow::from_row(row)?.0, age: since(moment(row, "created_at")?) }));
    let unsent = unsent.collect::<sqlx::Result<_>>()?;
    let (overdue_orders, delivered): (i64, i64) = sqlx::query_as(
        "SELECT (SELECT count(*) FROM (SELECT 1 FROM orders WHERE due_at < ?1 LIMIT ?2)),
             (SELECT count(*) FROM (SELECT 1 FROM orders WHERE status = ?3 LIMIT ?2))",
    )
    .bind(due)
    .bind(COUNTED_TO)
    .bind(Status::Delivered.as_str())
    .fetch_one(read)
    .await?;
    let (overdue_orders, delivered) = (overdue_orders.unsigned_abs(), delivered.unsigned_abs());
    Ok(Attention { overdue, overdue_orders, unsent, delivered })
}
