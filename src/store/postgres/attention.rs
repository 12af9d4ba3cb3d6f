//! The SQL behind board and gauges: what waits and what people should look at. Whatever is counted is
//! counted up to a limit, and bounds are constants to the planner (`(SELECT …)`), or all would be read.

use std::time::Duration;

use sqlx::{FromRow as _, PgConnection, Row as _, postgres::PgRow};

use super::{
    super::{Attention, Backlog, COUNTED_TO, OLDEST_OF, Overdue, Unsent},
    rows::{moment, moment_if_any, order_id, parsed, readable},
};
use crate::order::{Order, Status, Timestamp, to_millis};

/// Overdue steps are looked for from due time `from` on.
pub(super) async fn attention(
    db: &mut PgConnection,
    now: Option<Timestamp>,
    from: Option<Timestamp>,
    late: Duration,
    limit: usize,
) -> sqlx::Result<Attention> {
    let counted = sqlx::query(
        "WITH clock AS MATERIALIZED (SELECT COALESCE($1, clock_timestamp()) AS now)
         SELECT (SELECT now FROM clock) AS now, count(*) AS overdue FROM (SELECT 1 FROM orders
             WHERE due_at >= COALESCE($2, '-infinity'::timestamptz)
                 AND due_at < (SELECT now - $3::float8 * interval '1 second' FROM clock) LIMIT $4) AS o",
    )
    .bind(now)
    .bind(from)
    .bind(late.as_secs_f64())
    .bind(COUNTED_TO)
    .fetch_one(&mut *db)
    .await?;
    let now = moment(&counted, "now")?;
    let since = |row: &PgRow, column| -> sqlx::Result<Duration> {
        Ok((now - moment(row, column)?).to_std().unwrap_or_default())
    };
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let overdue = sqlx::query(
        "SELECT order_id, customer_name, address, item, size, status, created_at, updated_at, due_at
         FROM orders WHERE due_at >= COALESCE($1, '-infinity'::timestamptz) AND due_at < $2
         ORDER BY due_at LIMIT $3",
    )
    .bind(from)
    .bind(now - late)
    .bind(limit)
    .fetch_all(&mut *db)
    .await?;
    let overdue =
        readable(&overdue, |row| Ok(Overdue { order: Order::from_row(row)?, late: since(row, "due_at")? }));
    let unsent = sqlx::query("SELECT order_id, created_at FROM outbox ORDER BY order_id LIMIT $1")
        .bind(limit)
        .fetch_all(&mut *db)
        .await?;
    let unsent =
        readable(&unsent, |row| Ok(Unsent { order_id: order_id(row)?, age: since(row, "created_at")? }));
    Ok(Attention { overdue, overdue_orders: counted.try_get::<i64, _>("overdue")?.unsigned_abs(), unsent })
}

/// The most overdue step is looked for from due time `from` on.
pub(super) async fn backlog(
    db: &mut PgConnection,
    now: Option<Timestamp>,
    from: Option<Timestamp>,
) -> sqlx::Result<Backlog> {
    let row = sqlx::query(
        "SELECT COALESCE($1, clock_timestamp()) AS now,
             (SELECT due_at FROM orders WHERE due_at >= COALESCE($2, '-infinity'::timestamptz)
                 ORDER BY due_at LIMIT 1) AS next_due,
             (SELECT count(*) FROM (SELECT 1 FROM outbox LIMIT $3) AS o) AS unsent,
             (SELECT min(created_at) FROM (SELECT created_at FROM outbox ORDER BY order_id LIMIT $4) AS o) AS oldest",
    )
    .bind(now)
    .bind(from)
    .bind(COUNTED_TO)
    .bind(OLDEST_OF)
    .fetch_one(&mut *db)
    .await?;
    let now = moment(&row, "now")?;
    let since = |at: Option<Timestamp>| at.and_then(|at| (now - at).to_std().ok()).unwrap_or_default();
    let oldest = moment_if_any(&row, "oldest")?;
    Ok(Backlog {
        unsent: row.try_get::<i64, _>("unsent")?.unsigned_abs(),
        oldest_unsent: oldest.map(to_millis),
        oldest_unsent_age: since(oldest),
        // A moment that is none, by hand, is not late.
        overdue: since(moment_if_any(&row, "next_due").ok().flatten()),
    })
}

pub(super) async fn count(db: &mut PgConnection, statuses: &[Status]) -> sqlx::Result<[u64; 5]> {
    let statuses: Vec<&str> = statuses.iter().map(|status| status.as_str()).collect();
    let rows = sqlx::query(
        "SELECT s.status, (SELECT count(*) FROM (SELECT 1 FROM orders WHERE status = s.status LIMIT $2) AS o) AS orders
         FROM unnest($1::text[]) AS s (status)",
    )
    .bind(statuses)
    .bind(COUNTED_TO)
    .fetch_all(db)
    .await?;
    let mut counts = [0; 5];
    for row in &rows {
        let status: Status = parsed(row, "status")?;
        counts[status as usize] = row.try_get::<i64, _>("orders")?.unsigned_abs();
    }
    Ok(counts)
}
