//! The SQL of the verbs by which orders arrive: `place` and `admit`.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use sqlx::{Connection as _, PgConnection, PgExecutor, Row, types::Json};

use super::{
    super::{
        Admission, FIRST_EVENTS, FIRST_STATUS, IdempotencyKey, Incoming, NewOrder, Placement, StoreError,
        columns::{order_columns, placed_columns},
        idempotency, written_within,
    },
    PgStore,
    rehearsal::Kind,
    rows::{details, moment, order_id},
};
use crate::order::{EventKind, OrderDetails, OrderId, Start, Timestamp};

/// Orders with their first two events and their outbox rows; those that are there already stay.
/// Answers what was written. In the order of ids, so that two such statements can't deadlock; no id
/// may come twice.
const WRITE: &str = concat!(
    r#"WITH t AS MATERIALIZED (
        SELECT COALESCE($1, date_trunc('milliseconds', clock_timestamp())) AS now
    ), input AS (
        SELECT * FROM unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::timestamptz[], $8::jsonb[],
                $9::float8[], $14::float8[])
            AS i (order_id, customer_name, address, item, size, created_at, meta, due_ms, expected_ms)
    ), written AS (
        INSERT INTO orders ("#,
    order_columns!(""),
    r#", seq)
        SELECT i.order_id, i.customer_name, i.address, i.item, i.size,
            -- A clock ahead of ours can't put the first event after the second.
            LEAST(i.created_at, t.now),
            $12::text, t.now, t.now + i.due_ms * interval '1 millisecond',
            t.now + i.expected_ms * interval '1 millisecond', cardinality($13::text[])
        FROM input AS i, t ORDER BY i.order_id
        ON CONFLICT (order_id) DO NOTHING
        RETURNING order_id, created_at, updated_at
    ), history AS (
        INSERT INTO order_events (order_id, event, seq, "timestamp", meta)
        SELECT w.order_id, e.event, e.seq,
            CASE e.seq WHEN 1 THEN w.created_at ELSE w.updated_at END,
            CASE e.seq WHEN 1 THEN i.meta END
        FROM written AS w
        JOIN input AS i USING (order_id)
        CROSS JOIN unnest($13::text[]) WITH ORDINALITY AS e (event, seq)
        ORDER BY w.order_id, e.seq
    ), unsent AS (
        INSERT INTO outbox (order_id, created_at, claimed_by)
        SELECT order_id, created_at, $11 FROM written WHERE $10
    )
    SELECT order_id, created_at FROM written"#
);

/// One order to be written.
struct Line<'a> {
    order_id: OrderId,
    details: &'a OrderDetails,
    created_at: Option<Timestamp>,
    meta: Option<&'a serde_json::Value>,
    start: Start,
}

/// Whether outbox rows are written too, and whose they are.
#[derive(Clone, Copy)]
enum OutboxRows {
    ClaimedBy(Option<i64>),
    None,
}

async fn write(
    db: impl PgExecutor<'_>,
    lines: &[Line<'_>],
    now: Option<Timestamp>,
    unsent: OutboxRows,
) -> sqlx::Result<HashMap<OrderId, Timestamp>> {
    let texts = |text: fn(&OrderDetails) -> &str| -> Vec<&str> {
        lines.iter().map(|line| text(line.details)).collect()
    };
    let millis = |after: fn(&Line) -> Option<Duration>| -> Vec<Option<f64>> {
        lines.iter().map(|line| Some(after(line)?.as_secs_f64() * 1e3)).collect()
    };
    let rows = sqlx::query(WRITE)
        .bind(now)
        .bind(lines.iter().map(|line| line.order_id.to_string()).collect::<Vec<_>>())
        .bind(texts(|details| &details.customer_name))
        .bind(texts(|details| &details.address))
        .bind(texts(|details| &details.item))
        .bind(texts(|details| details.size.as_str()))
        .bind(lines.iter().map(|line| line.created_at).collect::<Vec<_>>())
        .bind(lines.iter().map(|line| line.meta.map(Json)).collect::<Vec<_>>())
        .bind(millis(|line| line.start.due_in))
        .bind(matches!(unsent, OutboxRows::ClaimedBy(_)))
        .bind(match unsent {
            OutboxRows::ClaimedBy(replica) => replica,
            OutboxRows::None => None,
        })
        .bind(FIRST_STATUS.as_str())
        .bind(FIRST_EVENTS.map(EventKind::as_str))
        .bind(millis(|line| line.start.expected_in))
        .fetch_all(db)
        .await?;
    rows.iter().map(|row| Ok((order_id(row)?, moment(row, "created_at")?))).collect()
}

/// One statement; with idempotency keys a transaction of three.
pub(super) async fn place(
    db: &mut PgConnection,
    orders: &[NewOrder],
    now: Option<Timestamp>,
    claimed_by: Option<i64>,
) -> sqlx::Result<Vec<Placement>> {
    let unsent = OutboxRows::ClaimedBy(claimed_by);
    let (verdicts, mut stamps) = if orders.iter().any(|order| order.key.is_some()) {
        let mut tx = db.begin().await?;
        let verdicts = idempotency::judge(orders, take_keys(&mut tx, orders, now).await?);
        let stamps = write(&mut *tx, &lines(&idempotency::fresh(orders, &verdicts)), now, unsent).await?;
        tx.commit().await?;
        (verdicts, stamps)
    } else {
        let verdicts = idempotency::judge(orders, HashMap::new());
        let stamps = write(&mut *db, &lines(&idempotency::fresh(orders, &verdicts)), now, unsent).await?;
        (verdicts, stamps)
    };
    let fresh = idempotency::fresh(orders, &verdicts);
    if stamps.len() < fresh.len() {
        // An earlier try of this call has stored them; they keep the stamps of that try.
        stamps.extend(first_stamps(db, &fresh).await?);
    }
    Ok(idempotency::placements(orders, &verdicts, |id| stamps.get(&id).copied().unwrap_or_default()))
}

fn lines<'a>(orders: &[&'a NewOrder]) -> Vec<Line<'a>> {
    let line = |order: &&'a NewOrder| Line {
        order_id: order.order_id,
        details: &order.details,
        created_at: None,
        meta: order.meta.as_ref(),
        start: order.start,
    };
    orders.iter().map(line).collect()
}

async fn first_stamps(
    db: &mut PgConnection,
    orders: &[&NewOrder],
) -> sqlx::Result<Vec<(OrderId, Timestamp)>> {
    let ids: Vec<String> = orders.iter().map(|order| order.order_id.to_string()).collect();
    let rows = sqlx::query("SELECT order_id, created_at FROM orders WHERE order_id = ANY($1)")
        .bind(ids)
        .fetch_all(&mut *db)
        .await?;
    rows.iter().map(|row| Ok((order_id(row)?, moment(row, "created_at")?))).collect()
}

/// Takes the keys of a batch that are free, each for the first order that brings it, and answers
/// the orders behind those that are not. Another replica's taking is waited for.
async fn take_keys<'a>(
    tx: &mut PgConnection,
    orders: &'a [NewOrder],
    now: Option<Timestamp>,
) -> sqlx::Result<HashMap<&'a IdempotencyKey, (OrderId, OrderDetails)>> {
    let mut first: HashMap<&IdempotencyKey, OrderId> = HashMap::new();
    for order in orders {
        if let Some(key) = &order.key {
            first.entry(key).or_insert(order.order_id);
        }
    }
    let owners: Vec<&str> = first.keys().map(|key| &*key.owner).collect();
    let keys: Vec<&str> = first.keys().map(|key| &*key.key).collect();
    sqlx::query(
        "INSERT INTO idempotency_keys (owner, key, order_id, created_at)
         SELECT k.owner, k.key, k.order_id, COALESCE($4, clock_timestamp())
         FROM unnest($1::text[], $2::text[], $3::text[]) AS k (owner, key, order_id) ORDER BY k.owner, k.key
         ON CONFLICT (owner, key) DO NOTHING",
    )
    .bind(&owners)
    .bind(&keys)
    .bind(first.values().map(OrderId::to_string).collect::<Vec<_>>())
    .bind(now)
    .execute(&mut *tx)
    .await?;
    // An inner join: a key that was just taken has no order yet. Each key is looked up alone: with `key = ANY` the
    // planner may read all keys of the owner.
    let rows = sqlx::query(concat!(
        "SELECT sent.owner, sent.key, ",
        placed_columns!("o."),
        " FROM unnest($1::text[], $2::text[]) AS sent (owner, key)
         CROSS JOIN LATERAL (
             SELECT k.order_id FROM idempotency_keys AS k 
             WHERE k.owner = sent.owner AND k.key = sent.key LIMIT 1) AS held
         JOIN orders AS o USING (order_id)"
    ))
    .bind(&owners)
    .bind(&keys)
    .fetch_all(tx)
    .await?;
    let mut held = HashMap::with_capacity(rows.len());
    for row in &rows {
        let key = IdempotencyKey { owner: row.try_get("owner")?, key: row.try_get("key")? };
        if let Some((key, _)) = first.get_key_value(&key) {
            held.insert(*key, (order_id(row)?, details(row)?));
        }
    }
    Ok(held)
}

impl PgStore {
    /// Takes orders over; given up after `least`, unless the database admits nothing so soon, or else as late as any.
    pub(super) async fn admit_within(
        &self,
        incoming: &[Incoming],
        least: Option<Duration>,
    ) -> Result<Vec<Admission>, StoreError> {
        let (slot, now, usual) = (&self.pools()?.loops, self.now(), written_within(incoming.len()));
        let verb = async |db: &mut PgConnection| admit(db, incoming, now).await;
        // To find that all are known takes no time, and says nothing of how long it takes to write.
        let has_moved = |admitted: &Vec<Admission>| admitted.contains(&Admission::Admitted);
        let admitted = self.limited(&self.call_limits.admissions, (least, usual), verb, has_moved).await;
        self.blamed(admitted, (Kind::Keyless, slot, incoming.len())).await
    }
}

/// Two statements: on a quiet day every arrival is our own order coming back, and one is enough.
pub(super) async fn admit(
    db: &mut PgConnection,
    incoming: &[Incoming],
    now: Option<Timestamp>,
) -> sqlx::Result<Vec<Admission>> {
    let ids: Vec<String> = incoming.iter().map(|order| order.placed.order_id.to_string()).collect();
    let rows = sqlx::query("SELECT order_id FROM orders WHERE order_id = ANY($1)")
        .bind(ids)
        .fetch_all(&mut *db)
        .await?;
    let mut known = rows.iter().map(order_id).collect::<sqlx::Result<HashSet<_>>>()?;
    let unknown: Vec<Line> = incoming
        .iter()
        // Of two copies in one batch the first counts.
        .filter(|order| known.insert(order.placed.order_id))
        .map(|Incoming { placed, meta, start }| Line {
            order_id: placed.order_id,
            details: &placed.details,
            created_at: Some(placed.created_at),
            meta: meta.as_ref(),
            start: *start,
        })
        .collect();
    if unknown.is_empty() {
        return Ok(vec![Admission::Known; incoming.len()]);
    }
    let mut written = write(&mut *db, &unknown, now, OutboxRows::None).await?;
    // Removed, so that the second copy counts as known.
    let admission = |order: &Incoming| match written.remove(&order.placed.order_id) {
        Some(_) => Admission::Admitted,
        None => Admission::Known,
    };
    Ok(incoming.iter().map(admission).collect())
}
