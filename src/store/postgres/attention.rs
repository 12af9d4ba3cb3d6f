//! The SQL behind the board: what people should look at.

use std::time::Duration;

use sqlx::{FromRow as _, PgConnection, Row as _, postgres::PgRow};

use super::{
    super::{Attention, COUNTED_TO, Overdue, Unsent},
    rows::{moment, order_id},
};
use crate::order::{Order, Status, Timestamp};

pub(super) async fn attention(
    db: &mut PgConnection,
    now: Option<Timestamp>,
    late: Duration,
    limit: usize,
) -> sqlx::Result<Attention> {
    let counts = sqlx::query(
        "WITH clock AS (SELECT COALESCE($1, clock_timestamp()) AS now)
         SELECT now, (SELECT count(*) FROM (SELECT 1 FROM orders
                 WHERE due_at < now - $2::float8 * interval '1 second' LIMIT $3) AS o) AS overdue,
             (SELECT count(*) FROM (SELECT 1 FROM orders WHERE status = $4 LIMIT $3) AS o) AS delivered
         FROM clock",
    )
    .bind(now)
    .bind(late.as_secs_f64())
    .bind(COUNTED_TO)
    .bind(Status::Delivered.as_str())
    .fetch_one(&mut *db)
    .await?;
    let now = moment(&counts, "now")?;
    let since = |row: &PgRow, column| -> sqlx::Result<Duration> {
        Ok((now - moment(row, column)?).to_std().unwrap_or_default())
    };
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let overdue = sqlx::query(
        "SELECT order_id, customer_name, address, item, size, status, created_at, updated_at, due_at
         FROM orders WHERE due_at < $1 ORDER BY due_at LIMIT $2",
    )
    .bind(now - late)
    .bind(limit)
    .fetch_all(&mut *db)
    .await?;
    let overdue =
        overdue.iter().map(|row| Ok(Overdue { order: Order::from_row(row)?, late: since(row, "due_at")? }));
    let overdue = overdue.collect::<sqlx::Result<_>>()?;
    let unsent = sqlx::query("SELECT order_id, created_at FROM outbox ORDER BY order_id LIMIT $1")
        .bind(limit)
        .fetch_all(&mut *db)
        .await?;
    let unsent =
        unsent.iter().map(|row| Ok(Unsent { order_id: order_id(row)?, age: since(row, "created_at")? }));
    Ok(Attention {
        overdue,
        overdue_orders: counts.try_get::<i64, _>("overdue")?.unsigned_abs(),
        unsent: unsent.collect::<sqlx::Result<_>>()?,
        delivered: counts.try_get::<i64, _>("delivered")?.unsigned_abs(),
    })
}
