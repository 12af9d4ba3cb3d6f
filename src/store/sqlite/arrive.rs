//! The SQL of the verbs by which orders arrive: `place` and `admit`.

use std::collections::{HashMap, HashSet};

use sqlx::{FromRow, Row, SqliteConnection, SqlitePool};

use super::{
    super::{
        Admission, FIRST_EVENTS, FIRST_STATUS, IdempotencyKey, Incoming, NewOrder, Placement,
        columns::{order_columns, placed_columns},
        idempotency,
    },
    StoreError,
    rows::{DetailsRow, EventRow, IdRow, KeyRow, OrderRow, json, moment},
};
use crate::order::{OrderDetails, OrderId, Start, Timestamp};

pub(super) async fn place(
    tx: &mut SqliteConnection,
    orders: &[NewOrder],
    now: Timestamp,
    claimed_by: Option<i64>,
) -> Result<Vec<Placement>, StoreError> {
    let verdicts = idempotency::judge(orders, keyed_orders(tx, orders).await?);
    let fresh = idempotency::fresh(orders, &verdicts);
    let at = now.timestamp_millis();
    let rows = fresh.iter().map(|order| order_row(order.order_id, &order.details, at, now, order.start));
    let inserted = insert_orders(tx, rows.collect()).await?;
    let (fresh, repeated): (Vec<_>, Vec<_>) =
        fresh.into_iter().partition(|order| inserted.contains(&order.order_id));
    let events = fresh.iter().flat_map(|order| first_events(order.order_id, at, at, order.meta.as_ref()));
    insert_events(tx, events.collect()).await?;
    insert_outbox(tx, &fresh, at, claimed_by).await?;
    insert_keys(tx, &fresh, at).await?;
    let first_stamps = first_stamps(tx, &repeated).await?;
    Ok(idempotency::placements(orders, &verdicts, |id| first_stamps.get(&id).copied().unwrap_or(now)))
}

/// Orders that an earlier try of this call has stored keep the stamp of that try.
async fn first_stamps(
    tx: &mut SqliteConnection,
    repeated: &[&NewOrder],
) -> Result<HashMap<OrderId, Timestamp>, StoreError> {
    if repeated.is_empty() {
        return Ok(HashMap::new());
    }
    let ids: Vec<OrderId> = repeated.iter().map(|order| order.order_id).collect();
    let rows = sqlx::query(
        "SELECT order_id, created_at FROM orders WHERE order_id IN (SELECT value FROM json_each(?1))",
    )
    .bind(json(&ids)?)
    .fetch_all(tx)
    .await?;
    rows.iter().map(|row| Ok((IdRow::from_row(row)?.0, moment(row, "created_at")?))).collect()
}

async fn insert_outbox(
    tx: &mut SqliteConnection,
    fresh: &[&NewOrder],
    at: i64,
    claimed_by: Option<i64>,
) -> Result<(), StoreError> {
    let ids: Vec<OrderId> = fresh.iter().map(|order| order.order_id).collect();
    sqlx::query(
        "INSERT INTO outbox (order_id, created_at, claimed_by) SELECT value, ?2, ?3 FROM json_each(?1)",
    )
    .bind(json(&ids)?)
    .bind(at)
    .bind(claimed_by)
    .execute(tx)
    .await?;
    Ok(())
}

/// The orders that the keys of this batch have placed before.
async fn keyed_orders<'a>(
    tx: &mut SqliteConnection,
    orders: &'a [NewOrder],
) -> Result<HashMap<&'a IdempotencyKey, (OrderId, OrderDetails)>, StoreError> {
    let keys: HashSet<&IdempotencyKey> = orders.iter().filter_map(|order| order.key.as_ref()).collect();
    if keys.is_empty() {
        return Ok(HashMap::new());
    }
    let sent: Vec<[&str; 2]> = keys.iter().map(|key| [&*key.owner, &*key.key]).collect();
    let rows = sqlx::query(concat!(
        "SELECT k.owner, k.key, ",
        placed_columns!("o."),
        " FROM json_each(?1) AS sent
         CROSS JOIN idempotency_keys AS k ON k.owner = sent.value ->> 0 AND k.key = sent.value ->> 1
         JOIN orders AS o USING (order_id)"
    ))
    .bind(json(&sent)?)
    .fetch_all(&mut *tx)
    .await?;
    let mut known = HashMap::with_capacity(rows.len());
    for row in rows {
        let key = IdempotencyKey { owner: row.try_get("owner")?, key: row.try_get("key")? };
        if let Some(key) = keys.get(&key) {
            known.insert(*key, (IdRow::from_row(&row)?.0, DetailsRow::from_row(&row)?.0));
        }
    }
    Ok(known)
}

async fn insert_keys(tx: &mut SqliteConnection, fresh: &[&NewOrder], at: i64) -> Result<(), StoreError> {
    let keys: Vec<KeyRow> = fresh
        .iter()
        .filter_map(|order| {
            let IdempotencyKey { owner, key } = order.key.as_ref()?;
            Some(KeyRow { owner, key, order_id: order.order_id })
        })
        .collect();
    if keys.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO idempotency_keys (owner, key, order_id, created_at)
         SELECT value ->> 'owner', value ->> 'key', value ->> 'order_id', ?2 FROM json_each(?1)",
    )
    .bind(json(&keys)?)
    .bind(at)
    .execute(tx)
    .await?;
    Ok(())
}

/// Which of the arrivals are stored already; asked outside the write lock, since on a quiet day
/// every arrival is our own order coming back.
pub(super) async fn known(read: &SqlitePool, incoming: &[Incoming]) -> Result<HashSet<OrderId>, StoreError> {
    let ids: Vec<OrderId> = incoming.iter().map(|order| order.placed.order_id).collect();
    let rows: Vec<IdRow> =
        sqlx::query_as("SELECT order_id FROM orders WHERE order_id IN (SELECT value FROM json_each(?1))")
            .bind(json(&ids)?)
            .fetch_all(read)
            .await?;
    Ok(rows.into_iter().map(|row| row.0).collect())
}

pub(super) async fn admit(
    tx: &mut SqliteConnection,
    incoming: &[Incoming],
    now: Timestamp,
) -> Result<Vec<Admission>, StoreError> {
    let rows = incoming.iter().map(|order| {
        let placed = &order.placed;
        order_row(placed.order_id, &placed.details, created_at(order, now), now, order.start)
    });
    let mut inserted = insert_orders(tx, rows.collect()).await?;
    let mut events = Vec::new();
    let mut admissions = Vec::with_capacity(incoming.len());
    for order in incoming {
        let order_id = order.placed.order_id;
        // Removed, so that a second copy in the same batch counts as known.
        if inserted.remove(&order_id) {
            let created_at = created_at(order, now);
            events.extend(first_events(order_id, created_at, now.timestamp_millis(), order.meta.as_ref()));
            admissions.push(Admission::Admitted);
        } else {
            admissions.push(Admission::Known);
        }
    }
    insert_events(tx, events).await?;
    Ok(admissions)
}

/// When another system says the order was created; a clock ahead of ours can't put it after PLACED.
fn created_at(order: &Incoming, now: Timestamp) -> i64 {
    order.placed.created_at.min(now).timestamp_millis()
}

fn order_row(
    order_id: OrderId,
    details: &OrderDetails,
    created_at: i64,
    now: Timestamp,
    start: Start,
) -> OrderRow<'_> {
    let [due_at, expected_at] =
        [start.due_in, start.expected_in].map(|after| Some((now + after?).timestamp_millis()));
    let updated_at = now.timestamp_millis();
    OrderRow {
        order_id,
        details,
        status: FIRST_STATUS,
        seq: FIRST_EVENTS.len(),
        created_at,
        updated_at,
        due_at,
        expected_at,
    }
}

fn first_events(
    order_id: OrderId,
    created_at: i64,
    placed_at: i64,
    meta: Option<&serde_json::Value>,
) -> [EventRow<'_>; 2] {
    let [created, placed] = FIRST_EVENTS;
    [
        EventRow { order_id, event: created, seq: 1, timestamp: created_at, meta },
        EventRow { order_id, event: placed, seq: 2, timestamp: placed_at, meta: None },
    ]
}

/// Writes those that are not there yet and answers which these were.
async fn insert_orders(
    tx: &mut SqliteConnection,
    rows: Vec<OrderRow<'_>>,
) -> Result<HashSet<OrderId>, StoreError> {
    let inserted: Vec<IdRow> = sqlx::query_as(concat!(
        "INSERT INTO orders (",
        order_columns!(""),
        ", seq)
         SELECT value ->> 'order_id', value ->> 'customer_name', value ->> 'address', value ->> 'item',
             value ->> 'size', value ->> 'created_at', value ->> 'status', value ->> 'updated_at',
             value ->> 'due_at', value ->> 'expected_at', value ->> 'seq'
         -- WHERE keeps the parser from reading ON CONFLICT as a join's ON.
         FROM json_each(?1) WHERE true
         ON CONFLICT (order_id) DO NOTHING
         RETURNING order_id"
    ))
    .bind(json(&rows)?)
    .fetch_all(tx)
    .await?;
    Ok(inserted.into_iter().map(|row| row.0).collect())
}

pub(super) async fn insert_events(
    tx: &mut SqliteConnection,
    rows: Vec<EventRow<'_>>,
) -> Result<(), StoreError> {
    sqlx::query(
        r#"INSERT INTO order_events (order_id, event, seq, "timestamp", meta)
         SELECT value ->> 'order_id', value ->> 'event', value ->> 'seq', value ->> 'timestamp',
             CASE json_type(value, '$.meta') WHEN 'null' THEN NULL ELSE value -> 'meta' END
         FROM json_each(?1)"#,
    )
    .bind(json(&rows)?)
    .execute(tx)
    .await?;
    Ok(())
}
