//! The SQL of the outbox. There is one process, so a row is its own or, left by an earlier one, nobody's.

use std::collections::HashSet;

use sqlx::{FromRow as _, Row as _, SqliteConnection, SqliteExecutor, SqlitePool, sqlite::SqliteRow};

use super::{
    super::{LOST_AFTER, Republished, columns::placed_columns},
    StoreError,
    rows::{DetailsRow, IdRow, json, moment, readable},
};
use crate::order::{OrderId, OrderPlaced, Timestamp};

pub(super) async fn unclaimed(
    read: &SqlitePool,
    after: Option<OrderId>,
    limit: usize,
    process: i64,
) -> Result<Vec<OrderId>, StoreError> {
    let mut after = after.map(|id| id.to_string()).unwrap_or_default();
    loop {
        let rows = sqlx::query(
            "SELECT order_id FROM outbox WHERE order_id > ?1 AND claimed_by IS NOT ?2 ORDER BY order_id LIMIT ?3",
        )
        .bind(&after)
        .bind(process)
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .fetch_all(read)
        .await?;
        let found = ids(&rows);
        match rows.last() {
            // None of them is an id: what comes after may be.
            Some(last) if found.is_empty() => after = last.try_get("order_id")?,
            _ => return Ok(found),
        }
    }
}

fn ids(rows: &[SqliteRow]) -> Vec<OrderId> {
    readable(rows, |row| Ok(IdRow::from_row(row)?.0))
}

pub(super) async fn claim(
    db: impl SqliteExecutor<'_>,
    unsent: &[OrderId],
    process: i64,
) -> Result<(), StoreError> {
    claimed_by(db, unsent, Some(process)).await
}

async fn claimed_by(
    db: impl SqliteExecutor<'_>,
    rows: &[OrderId],
    process: Option<i64>,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE outbox SET claimed_by = ?2 WHERE order_id IN (SELECT value FROM json_each(?1))")
        .bind(json(rows)?)
        .bind(process)
        .execute(db)
        .await?;
    Ok(())
}

/// What to publish for those of these rows that are there.
pub(super) async fn messages(
    db: impl SqliteExecutor<'_>,
    unsent: &[OrderId],
) -> Result<Vec<OrderPlaced>, StoreError> {
    let rows = sqlx::query(concat!(
        "SELECT ",
        placed_columns!("o."),
        " FROM outbox AS u JOIN orders AS o USING (order_id)
         WHERE u.order_id IN (SELECT value FROM json_each(?1)) ORDER BY u.order_id"
    ))
    .bind(json(unsent)?)
    .fetch_all(db)
    .await?;
    let message = |row| {
        let (id, details) = (IdRow::from_row(row)?.0, DetailsRow::from_row(row)?.0);
        Ok(OrderPlaced::new(id, details, moment(row, "created_at")?))
    };
    rows.iter().map(message).collect()
}

pub(super) async fn lost(
    read: &SqlitePool,
    held: &[OrderId],
    limit: usize,
    process: i64,
    now: Timestamp,
) -> Result<Vec<OrderId>, StoreError> {
    let rows = sqlx::query(
        "SELECT order_id FROM outbox
         WHERE claimed_by = ?1 AND created_at < ?2 AND order_id NOT IN (SELECT value FROM json_each(?3))
         ORDER BY order_id LIMIT ?4",
    )
    .bind(process)
    .bind((now - LOST_AFTER).timestamp_millis())
    .bind(json(held)?)
    .bind(i64::try_from(limit).unwrap_or(i64::MAX))
    .fetch_all(read)
    .await?;
    Ok(ids(&rows))
}

pub(super) async fn release(write: &SqlitePool, unsent: &[OrderId]) -> Result<(), StoreError> {
    claimed_by(write, unsent, None).await
}

pub(super) async fn mark_sent(write: &SqlitePool, sent: &[OrderId]) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM outbox WHERE order_id IN (SELECT value FROM json_each(?1))")
        .bind(json(sent)?)
        .execute(write)
        .await?;
    Ok(())
}

pub(super) async fn republish(
    tx: &mut SqliteConnection,
    orders: &[OrderId],
    now: Timestamp,
) -> Result<Vec<Republished>, StoreError> {
    let asked = json(orders)?;
    let known =
        sqlx::query("SELECT order_id FROM orders WHERE order_id IN (SELECT value FROM json_each(?1))")
            .bind(&asked)
            .fetch_all(&mut *tx)
            .await?;
    let queued = sqlx::query(
        "INSERT INTO outbox (order_id, created_at)
         SELECT order_id, ?2 FROM orders WHERE order_id IN (SELECT value FROM json_each(?1))
         ON CONFLICT (order_id) DO NOTHING RETURNING order_id",
    )
    .bind(&asked)
    .bind(now.timestamp_millis())
    .fetch_all(&mut *tx)
    .await?;
    let (known, queued): (HashSet<_>, HashSet<_>) =
        (ids(&known).into_iter().collect(), ids(&queued).into_iter().collect());
    let what = |id: &OrderId| match (known.contains(id), queued.contains(id)) {
        (_, true) => Republished::Queued,
        (true, false) => Republished::Waiting,
        (false, _) => Republished::Unknown,
    };
    Ok(orders.iter().map(what).collect())
}
