//! The SQL behind board and gauges: what waits and what people should look at. Whatever is counted is
//! counted up to a limit.

use std::time::Duration;

use sqlx::{FromRow as _, SqlitePool};

use super::{
    super::{
        Backlog, COUNTED_TO, Counts, LateOrders, LateSteps, Overdue, UNSENT_LISTED, Unsent,
        columns::order_columns, figures::OLDEST_OF,
    },
    StoreError,
    rows::{EARLIEST, IdRow, LATEST, moment, readable},
    verbs,
};
use crate::order::{Order, Status, Timestamp};

fn number(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

pub(super) async fn overdue(
    read: &SqlitePool,
    now: Timestamp,
    late: Duration,
    limit: usize,
) -> Result<LateSteps, StoreError> {
    let age = |at: Timestamp| (now - at).to_std().unwrap_or_default();
    let due = (now - late).timestamp_millis();
    let first = sqlx::query(concat!(
        "SELECT ",
        order_columns!(""),
        " FROM orders WHERE due_at >= ?1 AND due_at < ?2 ORDER BY due_at LIMIT ?3"
    ))
    .bind(EARLIEST)
    .bind(due)
    .bind(number(limit))
    .fetch_all(read)
    .await?;
    let first = readable(&first, |row| {
        Ok(Overdue { order: Order::from_row(row)?, late: age(moment(row, "due_at")?) })
    });
    let orders: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM (SELECT 1 FROM orders WHERE due_at >= ?1 AND due_at < ?2 LIMIT ?3)",
    )
    .bind(EARLIEST)
    .bind(due)
    .bind(COUNTED_TO)
    .fetch_one(read)
    .await?;
    let most = verbs::next_due(read, None).await?.map(age).unwrap_or_default();
    Ok(LateSteps { most, orders: orders.unsigned_abs(), first, since: None })
}

pub(super) async fn late(read: &SqlitePool, now: Timestamp, limit: usize) -> Result<LateOrders, StoreError> {
    let (mut late, until) = (LateOrders::default(), now.timestamp_millis());
    for status in Status::open() {
        let count: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM (SELECT 1 FROM orders INDEXED BY orders_status_expected_at
                 WHERE status = ?1 AND expected_at >= ?2 AND expected_at < ?3 LIMIT ?4)",
        )
        .bind(status.as_str())
        .bind(EARLIEST)
        .bind(until)
        .bind(COUNTED_TO)
        .fetch_one(read)
        .await?;
        late.orders[status] = count.unsigned_abs();
        let first = sqlx::query(concat!(
            "SELECT ",
            order_columns!(""),
            " FROM orders INDEXED BY orders_status_expected_at
              WHERE status = ?1 AND expected_at >= ?2 AND expected_at < ?3 ORDER BY expected_at LIMIT ?4"
        ))
        .bind(status.as_str())
        .bind(EARLIEST)
        .bind(until)
        .bind(number(if count > 0 { limit } else { 0 }))
        .fetch_all(read)
        .await?;
        late.first.extend(readable(&first, |row| {
            let behind = (now - moment(row, "expected_at")?).to_std().unwrap_or_default();
            Ok(Overdue { order: Order::from_row(row)?, late: behind })
        }));
    }
    late.first.sort_by_key(|overdue| std::cmp::Reverse(overdue.late));
    late.first.truncate(limit);
    Ok(late)
}

pub(super) async fn backlog(read: &SqlitePool, now: Timestamp) -> Result<Backlog, StoreError> {
    let (unsent, oldest): (i64, Option<i64>) = sqlx::query_as(
        "SELECT (SELECT count(*) FROM (SELECT 1 FROM outbox LIMIT ?1)),
             (SELECT min(created_at) FROM (SELECT created_at FROM outbox ORDER BY order_id LIMIT ?2)
              WHERE created_at BETWEEN ?3 AND ?4)",
    )
    .bind(COUNTED_TO)
    .bind(number(OLDEST_OF))
    .bind(EARLIEST)
    .bind(LATEST)
    .fetch_one(read)
    .await?;
    let first = sqlx::query("SELECT order_id, created_at FROM outbox ORDER BY order_id LIMIT ?1")
        .bind(number(UNSENT_LISTED))
        .fetch_all(read)
        .await?;
    let age = |at: Timestamp| (now - at).to_std().unwrap_or_default();
    let first = readable(&first, |row| {
        Ok(Unsent { order_id: IdRow::from_row(row)?.0, age: age(moment(row, "created_at")?) })
    });
    let oldest_unsent = oldest.and_then(Timestamp::from_timestamp_millis);
    Ok(Backlog {
        unsent: unsent.unsigned_abs(),
        oldest_unsent,
        oldest_unsent_age: oldest_unsent.map(age).unwrap_or_default(),
        first,
        since: None,
    })
}

pub(super) async fn count(read: &SqlitePool, statuses: &[Status]) -> Result<Counts, StoreError> {
    let mut counts = Counts::default();
    for status in statuses {
        let count: i64 =
            sqlx::query_scalar("SELECT count(*) FROM (SELECT 1 FROM orders WHERE status = ?1 LIMIT ?2)")
                .bind(status.as_str())
                .bind(COUNTED_TO)
                .fetch_one(read)
                .await?;
        counts.orders[*status] = count.unsigned_abs();
    }
    Ok(counts)
}
