//! The SQL of the verbs that move, read and publish: free functions over a pool or the transaction
//! they are handed.

use std::time::Duration;

use sqlx::{FromRow, Row, SqliteConnection, SqliteExecutor, SqlitePool, sqlite::SqliteRow};

use super::{
    super::{AuditPage, Due, IDEMPOTENCY_KEY_LIFETIME, Page, Position, Transition, columns::order_columns},
    StoreError,
    arrive::insert_events,
    rows::{
        DueRow, EARLIEST, EventRow, IdRow, StepRow, due_at, json, meta, moment, moment_if_any, parsed,
        readable,
    },
};
use crate::order::{
    AuditedEvent, AuditedOrder, Event, EventFacts, EventKind, Order, OrderId, StageDelays, Timestamp,
    TrackedOrder, not_accepted,
};

/// When the next step is due, of those after a moment or of all.
pub(super) async fn next_due(
    db: impl SqliteExecutor<'_>,
    after: Option<Timestamp>,
) -> Result<Option<Timestamp>, StoreError> {
    let millis: Option<i64> = sqlx::query_scalar("SELECT min(due_at) FROM orders WHERE due_at > ?1")
        .bind(after.map_or(EARLIEST, |after| after.timestamp_millis()))
        .fetch_one(db)
        .await?;
    Ok(millis.and_then(Timestamp::from_timestamp_millis))
}

/// How long from `now` until `due`; zero if it has passed.
pub(super) fn until(due: Option<Timestamp>, now: Timestamp) -> Option<Duration> {
    Some((due? - now).to_std().unwrap_or_default())
}

/// The orders that a look is for; each has a due time. Dead entries don't exist here, so a look at what was
/// overlooked is one at all that is due.
pub(super) async fn due(
    db: &mut SqliteConnection,
    due: Due<'_>,
    now: Timestamp,
) -> Result<Vec<DueRow>, StoreError> {
    let (limit, after, except) = match due {
        Due::Soonest { limit, after } => (limit, after, &[][..]),
        Due::Overlooked { limit, after, except } => (limit, after, except),
        Due::Part(orders) | Due::SecondChance(orders) => return these(db, orders, now).await,
        Due::Alone(order_id) => return these(db, &[order_id], now).await,
    };
    let (except, mut rows_read) = (json(except)?, limit);
    loop {
        let rows = sqlx::query(
            "SELECT order_id, status, seq, due_at, expected_at IS NOT NULL AS by_people FROM orders
             WHERE due_at >= ?1 AND due_at <= ?2 AND (due_at > ?1 OR order_id > ?3)
                 AND order_id NOT IN (SELECT value FROM json_each(?4)) ORDER BY due_at, order_id LIMIT ?5",
        )
        .bind(after.map_or(EARLIEST, |after| after.due_at.timestamp_millis()))
        .bind(now.timestamp_millis())
        .bind(after.map(|after| after.order_id.to_string()).unwrap_or_default())
        .bind(&except)
        .bind(i64::try_from(rows_read).unwrap_or(i64::MAX))
        .fetch_all(&mut *db)
        .await?;
        let mut found = readable(&rows, |row| DueRow::from_row(row));
        if rows.len() < rows_read || found.len() >= limit {
            found.truncate(limit);
            return Ok(found);
        }
        // Some can't be read, and are in the way of others.
        rows_read *= 2;
    }
}

/// Those of these orders that are due.
async fn these(
    db: &mut SqliteConnection,
    orders: &[OrderId],
    now: Timestamp,
) -> Result<Vec<DueRow>, StoreError> {
    let rows = sqlx::query(
        "SELECT order_id, status, seq, due_at, expected_at IS NOT NULL AS by_people FROM orders
         WHERE order_id IN (SELECT value FROM json_each(?2)) AND due_at <= ?1 ORDER BY due_at, order_id",
    )
    .bind(now.timestamp_millis())
    .bind(json(orders)?)
    .fetch_all(db)
    .await?;
    Ok(readable(&rows, |row| DueRow::from_row(row)))
}

/// Answers how many orders moved, and their steps.
pub(super) async fn advance(
    tx: &mut SqliteConnection,
    due: Due<'_>,
    now: Timestamp,
    delays: &StageDelays,
) -> Result<(usize, Vec<Transition>), StoreError> {
    let due = self::due(&mut *tx, due, now).await?;
    let at = now.timestamp_millis();
    let (mut steps, mut events, mut transitions) = (Vec::with_capacity(due.len()), Vec::new(), Vec::new());
    let not_accepted = not_accepted();
    for DueRow { order_id, status, mut seq, due_at, by_people } in due {
        let path = if by_people {
            StageDelays::not_accepted(status, due_at, now)
        } else {
            delays.path(status, due_at, now)
        };
        // Only somebody with a console makes an order due that people have taken.
        if path.steps.is_empty() {
            continue;
        }
        let due_at = path.due_at.map(|due| due.timestamp_millis());
        let mut from = status;
        for to in path.steps {
            seq += 1;
            let (event, meta) = (EventKind::Reached(to), by_people.then_some(&not_accepted));
            events.push(EventRow { order_id, event, seq, timestamp: at, meta });
            transitions.push(Transition { order_id, from, to, seq: u32::try_from(seq).unwrap_or_default() });
            from = to;
        }
        steps.push(StepRow { order_id, from: status, to: path.status, seq, at, due_at });
    }
    sqlx::query(
        "UPDATE orders SET status = value ->> 'to', seq = value ->> 'seq', updated_at = value ->> 'at',
             due_at = value ->> 'due_at', ready_at = NULL
         FROM json_each(?1) WHERE order_id = value ->> 'order_id' AND status = value ->> 'from'",
    )
    .bind(json(&steps)?)
    .execute(&mut *tx)
    .await?;
    insert_events(tx, events).await?;
    Ok((steps.len(), transitions))
}

/// Orders with their timelines; of a note only the mark that there is one.
pub(super) async fn timelines(
    read: impl SqliteExecutor<'_>,
    order_ids: &[OrderId],
) -> Result<Vec<TrackedOrder>, StoreError> {
    // One statement sees one moment: a step between two would tear order and timeline apart.
    let rows = sqlx::query(concat!(
        "SELECT ",
        order_columns!("o."),
        r#", e.seq AS position, e.event, e."timestamp", e.meta FROM orders AS o JOIN order_events AS e USING (order_id)
         WHERE o.order_id IN (SELECT value FROM json_each(?1)) ORDER BY o.order_id, e.seq"#
    ))
    .bind(json(order_ids)?)
    .fetch_all(read)
    .await?;
    let mut found: Vec<TrackedOrder> = Vec::new();
    for row in &rows {
        let event = Event::from_row(row)?;
        let order_id: OrderId = parsed(row, "order_id")?;
        match found.last_mut().filter(|tracked| tracked.order.order_id == order_id) {
            Some(tracked) => tracked.events.push(event),
            None => found.push(TrackedOrder { order: Order::from_row(row)?, events: vec![event] }),
        }
    }
    Ok(found)
}

pub(super) async fn positions(
    read: &SqlitePool,
    orders: &[OrderId],
    now: Timestamp,
) -> Result<Vec<Position>, StoreError> {
    let rows = sqlx::query(
        "SELECT order_id, status, due_at FROM orders WHERE order_id IN (SELECT value FROM json_each(?1))",
    )
    .bind(json(orders)?)
    .fetch_all(read)
    .await?;
    let position = |row: &SqliteRow| {
        Ok(Position {
            order_id: IdRow::from_row(row)?.0,
            status: parsed(row, "status")?,
            due_in: until(due_at(row)?, now),
        })
    };
    Ok(readable(&rows, position))
}

pub(super) async fn list(read: &SqlitePool, page: &Page) -> Result<Vec<Order>, StoreError> {
    // Two texts, not `?1 IS NULL OR ...`: each keeps to its own index.
    let query = match page.status {
        Some(status) => sqlx::query(concat!(
            "SELECT ",
            order_columns!(""),
            " FROM orders WHERE order_id < ?1 AND status = ?3 ORDER BY order_id DESC LIMIT ?2"
        ))
        .bind(before(page))
        .bind(i64::try_from(page.limit).unwrap_or(i64::MAX))
        .bind(status.as_str()),
        None => sqlx::query(concat!(
            "SELECT ",
            order_columns!(""),
            " FROM orders WHERE order_id < ?1 ORDER BY order_id DESC LIMIT ?2"
        ))
        .bind(before(page))
        .bind(i64::try_from(page.limit).unwrap_or(i64::MAX)),
    };
    Ok(readable(&query.fetch_all(read).await?, |row| Order::from_row(row)))
}

pub(super) async fn audit(
    read: &SqlitePool,
    after: Option<&str>,
    limit: usize,
    now: Timestamp,
) -> Result<AuditPage, StoreError> {
    let rows = sqlx::query(
        r#"SELECT o.order_id, o.status, o.seq, o.created_at, o.updated_at, o.due_at, o.expected_at,
             EXISTS (SELECT 1 FROM outbox AS u WHERE u.order_id = o.order_id) AS unsent,
             e.seq AS position, e.event, e."timestamp", e.meta
         FROM (SELECT * FROM orders WHERE order_id > ?1 ORDER BY order_id LIMIT ?2) AS o
         LEFT JOIN order_events AS e USING (order_id) ORDER BY o.order_id, e.id"#,
    )
    .bind(after.unwrap_or_default())
    .bind(i64::try_from(limit).unwrap_or(i64::MAX))
    .fetch_all(read)
    .await?;
    let last = rows.last().map(|row| row.try_get("order_id")).transpose()?;
    let (mut orders, mut unreadable) = (Vec::new(), Vec::new());
    // An order and all of its events.
    for rows in
        rows.chunk_by(|one, other| one.try_get::<&str, _>("order_id").ok() == other.try_get("order_id").ok())
    {
        match audited(rows) {
            Ok(order) => orders.push(order),
            Err(_) => unreadable.push(rows[0].try_get("order_id")?),
        }
    }
    Ok(AuditPage { now, orders, unreadable, last })
}

fn audited(rows: &[SqliteRow]) -> sqlx::Result<AuditedOrder> {
    let row = &rows[0];
    let event = |row: &SqliteRow| {
        let (seq, event) = (row.try_get("position")?, parsed(row, "event")?);
        let facts = EventFacts::of(meta(row)?.as_ref());
        Ok(AuditedEvent { seq, event, timestamp: moment(row, "timestamp")?, facts })
    };
    let there = rows.iter().filter(|row| !matches!(row.try_get::<Option<&str>, _>("event"), Ok(None)));
    Ok(AuditedOrder {
        order_id: IdRow::from_row(row)?.0,
        status: parsed(row, "status")?,
        seq: row.try_get("seq")?,
        created_at: moment(row, "created_at")?,
        updated_at: moment(row, "updated_at")?,
        due_at: due_at(row)?,
        expected_at: moment_if_any(row, "expected_at")?,
        unsent: row.try_get("unsent")?,
        events: there.map(event).collect::<sqlx::Result<_>>()?,
    })
}

/// The upper end of a page; `~` sorts after every id.
fn before(page: &Page) -> String {
    page.before.map_or_else(|| "~".to_owned(), |id| id.to_string())
}

pub(super) async fn expire_idempotency_keys(
    write: &SqlitePool,
    now: Timestamp,
    limit: usize,
) -> Result<u64, StoreError> {
    let expired = sqlx::query(
        "DELETE FROM idempotency_keys
         WHERE rowid IN (SELECT rowid FROM idempotency_keys WHERE created_at < ?1 LIMIT ?2)",
    )
    .bind((now - IDEMPOTENCY_KEY_LIFETIME).timestamp_millis())
    .bind(i64::try_from(limit).unwrap_or(i64::MAX))
    .execute(write)
    .await?;
    Ok(expired.rows_affected())
}
