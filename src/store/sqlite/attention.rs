//! The SQL behind board and gauges: what waits and what people should look at. Whatever is counted is
//! counted up to a limit.

use std::time::Duration;

use sqlx::{FromRow as _, SqlitePool};

use super::{
    super::{Attention, Backlog, COUNTED_TO, OLDEST_OF, Overdue, Unsent},
    StoreError,
    rows::{IdRow, moment},
    verbs,
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
    let overdue_orders: i64 =
        sqlx::query_scalar("SELECT count(*) FROM (SELECT 1 FROM orders WHERE due_at < ?1 LIMIT ?2)")
            .bind(due)
            .bind(COUNTED_TO)
            .fetch_one(read)
            .await?;
    Ok(Attention { overdue, overdue_orders: overdue_orders.unsigned_abs(), unsent })
}

pub(super) async fn backlog(read: &SqlitePool, now: Timestamp) -> Result<Backlog, StoreError> {
    let (unsent, oldest): (i64, Option<i64>) = sqlx::query_as(
        "SELECT (SELECT count(*) FROM (SELECT 1 FROM outbox LIMIT ?1)),
             (SELECT min(created_at) FROM (SELECT created_at FROM outbox ORDER BY order_id LIMIT ?2))",
    )
    .bind(COUNTED_TO)
    .bind(OLDEST_OF)
    .fetch_one(read)
    .await?;
    let since = |at: Timestamp| (now - at).to_std().unwrap_or_default();
    let oldest_unsent = oldest.and_then(Timestamp::from_timestamp_millis);
    Ok(Backlog {
        unsent: unsent.unsigned_abs(),
        oldest_unsent,
        oldest_unsent_age: oldest_unsent.map(since).unwrap_or_default(),
        overdue: verbs::next_due(read, None).await?.map(since).unwrap_or_default(),
    })
}

pub(super) async fn count(read: &SqlitePool, statuses: &[Status]) -> Result<[u64; 5], StoreError> {
    let mut counts = [0; 5];
    for status in statuses {
        let count: i64 =
            sqlx::query_scalar("SELECT count(*) FROM (SELECT 1 FROM orders WHERE status = ?1 LIMIT ?2)")
                .bind(status.as_str())
                .bind(COUNTED_TO)
                .fetch_one(read)
                .await?;
        counts[*status as usize] = count.unsigned_abs();
    }
    Ok(counts)
}
