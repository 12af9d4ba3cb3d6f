//! The SQL of the verbs that move, read and publish.

use std::time::Duration;

use sqlx::{PgConnection, PgExecutor, Row, postgres::PgRow};

use super::{
    super::{Advance, AuditPage, Backlog, KEY_LIFETIME, LOST_AFTER, Move, Page, Position},
    rows::{draft, history, moment, order_id, parsed, tracked},
};
use crate::order::{
    AuditedOrder, Order, OrderId, OrderPlaced, StageDelays, Status, Timestamp, TrackedOrder, to_millis,
};

/// How long a replica that gives no sign of life keeps its outbox rows.
pub(super) const CLAIM: Duration = Duration::from_secs(3);
/// How long it keeps them if it has no session either: a process that was killed has none.
pub(super) const CLAIM_WITHOUT_SESSION: Duration = Duration::from_millis(1_500);

/// Moves due orders, those that another replica is moving excepted. All steps of an order are made
/// at one moment, so how far it goes depends on its status alone: `path` and `step` say it.
const ADVANCE: &str = r#"
    WITH t AS MATERIALIZED (
        SELECT COALESCE($1, date_trunc('milliseconds', clock_timestamp())) AS now
    ), due AS MATERIALIZED (
        SELECT o.order_id, o.status FROM orders AS o, t
        WHERE o.due_at <= t.now ORDER BY o.due_at LIMIT $2 FOR UPDATE OF o SKIP LOCKED
    ), moved AS (
        UPDATE orders AS o SET status = path.last, updated_at = t.now,
            due_at = t.now + path.delay_ms * interval '1 millisecond'
        FROM due, t, unnest($3::text[], $4::text[], $5::float8[]) AS path (status, last, delay_ms)
        WHERE o.order_id = due.order_id AND path.status = due.status
        RETURNING o.order_id, due.status AS was, o.updated_at
    ), history AS (
        INSERT INTO order_events (order_id, event, "timestamp")
        SELECT m.order_id, step.event, m.updated_at
        FROM moved AS m
        JOIN unnest($6::text[], $7::text[]) WITH ORDINALITY AS step (was, event, n) USING (was)
        ORDER BY m.order_id, step.n
    )
    SELECT order_id, was FROM moved"#;

/// What an order in each status becomes when it is due.
struct Paths(Vec<(Status, Vec<Status>)>);

impl Paths {
    fn new(delays: &StageDelays) -> Self {
        let at = Timestamp::UNIX_EPOCH;
        Self(Status::ALL[..4].iter().map(|from| (*from, delays.moves(*from, at, at).steps)).collect())
    }

    fn moves(&self, order_id: OrderId, was: Status) -> impl Iterator<Item = Move> {
        let mut from = was;
        self.0[was as usize].1.iter().map(move |to| {
            let step = Move { order_id, from, to: *to };
            from = *to;
            step
        })
    }
}

pub(super) async fn advance(
    db: &mut PgConnection,
    limit: usize,
    now: Option<Timestamp>,
    delays: &StageDelays,
) -> sqlx::Result<Advance> {
    let paths = Paths::new(delays);
    let last = |steps: &Vec<Status>| steps.last().copied().unwrap_or(Status::Delivered);
    let delay_ms = |status| delays.after(status).map(|delay| delay.as_secs_f64() * 1e3);
    let (was, events): (Vec<&str>, Vec<&str>) =
        paths.0.iter().flat_map(|(was, steps)| steps.iter().map(|to| (was.as_str(), to.as_str()))).unzip();
    let rows = sqlx::query(ADVANCE)
        .bind(now)
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .bind(paths.0.iter().map(|(was, _)| was.as_str()).collect::<Vec<_>>())
        .bind(paths.0.iter().map(|(_, steps)| last(steps).as_str()).collect::<Vec<_>>())
        .bind(paths.0.iter().map(|(_, steps)| delay_ms(last(steps))).collect::<Vec<_>>())
        .bind(was)
        .bind(events)
        .fetch_all(&mut *db)
        .await?;
    let mut moves = Vec::with_capacity(rows.len());
    for row in &rows {
        moves.extend(paths.moves(order_id(row)?, parsed(row, "was")?));
    }
    Ok(Advance { moves, next_due_in: next_due_in(db, now).await? })
}

async fn next_due_in(db: &mut PgConnection, now: Option<Timestamp>) -> sqlx::Result<Option<Duration>> {
    let millis: Option<f64> = sqlx::query_scalar(
        "SELECT extract(epoch FROM min(due_at) - COALESCE($1, clock_timestamp()))::float8 * 1000
         FROM orders WHERE due_at IS NOT NULL",
    )
    .bind(now)
    .fetch_one(&mut *db)
    .await?;
    Ok(millis.map(wait))
}

/// Rounded up: a look that comes a moment early finds nothing.
fn wait(millis: f64) -> Duration {
    Duration::from_secs_f64(millis.max(0.0).ceil() / 1e3)
}

pub(super) async fn find_all(
    db: &mut PgConnection,
    order_ids: &[OrderId],
) -> sqlx::Result<Vec<TrackedOrder>> {
    // One statement sees one moment: a step between two would tear order and timeline apart.
    let rows = sqlx::query(
        r#"SELECT o.order_id, o.customer_name, o.address, o.item, o.size, o.status, o.created_at,
             o.updated_at, o.due_at, e.events, e.stamps, e.metas
         FROM orders AS o CROSS JOIN LATERAL (
             SELECT array_agg(event) AS events, array_agg("timestamp") AS stamps, array_agg(meta) AS metas
             FROM order_events WHERE order_id = o.order_id HAVING count(*) > 0) AS e
         WHERE o.order_id = ANY($1)"#,
    )
    .bind(texts(order_ids))
    .fetch_all(&mut *db)
    .await?;
    rows.iter().map(tracked).collect()
}

pub(super) async fn positions(
    db: &mut PgConnection,
    orders: &[OrderId],
    now: Option<Timestamp>,
) -> sqlx::Result<Vec<Position>> {
    let rows = sqlx::query(
        "SELECT order_id, status, extract(epoch FROM due_at - COALESCE($2, clock_timestamp()))::float8 * 1000 AS due_in
         FROM orders WHERE order_id = ANY($1)",
    )
    .bind(texts(orders))
    .bind(now)
    .fetch_all(&mut *db)
    .await?;
    let position = |row: &PgRow| {
        let millis: Option<f64> = row.try_get("due_in")?;
        Ok(Position { order_id: order_id(row)?, status: parsed(row, "status")?, due_in: millis.map(wait) })
    };
    rows.iter().map(position).collect()
}

pub(super) async fn list(db: &mut PgConnection, page: &Page) -> sqlx::Result<Vec<Order>> {
    // `~` sorts after every id.
    let before = page.before.map_or_else(|| "~".to_owned(), |id| id.to_string());
    let limit = i64::try_from(page.limit).unwrap_or(i64::MAX);
    match page.status {
        // Says "status = $3" in a way that only (status, order_id) can serve in order: where most orders have a
        // status, the planner would walk down the primary key past all newer orders that have another.
        Some(status) => sqlx::query_as(
            "SELECT order_id, customer_name, address, item, size, status, created_at, updated_at, due_at
             FROM orders WHERE (status, order_id) < ($3, $1) AND status >= $3
             ORDER BY status DESC, order_id DESC LIMIT $2",
        )
        .bind(before)
        .bind(limit)
        .bind(status.as_str()),
        None => sqlx::query_as(
            "SELECT order_id, customer_name, address, item, size, status, created_at, updated_at, due_at
             FROM orders WHERE order_id < $1 ORDER BY order_id DESC LIMIT $2",
        )
        .bind(before)
        .bind(limit),
    }
    .fetch_all(&mut *db)
    .await
}

pub(super) async fn audit(
    db: &mut PgConnection,
    after: Option<OrderId>,
    limit: usize,
    now: Option<Timestamp>,
) -> sqlx::Result<AuditPage> {
    let rows = sqlx::query(
        r#"SELECT COALESCE($3, clock_timestamp()) AS now, o.order_id, o.status, o.created_at, o.updated_at, o.due_at,
             EXISTS (SELECT 1 FROM outbox AS u WHERE u.order_id = o.order_id) AS unsent, e.events, e.stamps
         FROM orders AS o CROSS JOIN LATERAL (
             SELECT array_agg(event ORDER BY id) AS events, array_agg("timestamp" ORDER BY id) AS stamps
             FROM order_events WHERE order_id = o.order_id) AS e
         WHERE o.order_id > $1 ORDER BY o.order_id LIMIT $2"#,
    )
    .bind(after.map(|id| id.to_string()).unwrap_or_default())
    .bind(i64::try_from(limit).unwrap_or(i64::MAX))
    .bind(now)
    .fetch_all(&mut *db)
    .await?;
    let now = rows.first().map(|row| moment(row, "now")).transpose()?.unwrap_or_default();
    Ok(AuditPage { now, orders: rows.iter().map(audited).collect::<sqlx::Result<_>>()? })
}

fn audited(row: &PgRow) -> sqlx::Result<AuditedOrder> {
    Ok(AuditedOrder {
        order_id: order_id(row)?,
        status: parsed(row, "status")?,
        created_at: moment(row, "created_at")?,
        updated_at: moment(row, "updated_at")?,
        due_at: row.try_get("due_at")?,
        unsent: row.try_get("unsent")?,
        events: history(row)?,
    })
}

/// Says that this replica is alive.
pub(super) async fn stay_alive(
    db: impl PgExecutor<'_>,
    now: Option<Timestamp>,
    replica: i64,
) -> sqlx::Result<()> {
    sqlx::query(
        "INSERT INTO relays (replica, alive_until)
         VALUES ($1, COALESCE($2, clock_timestamp()) + $3::float8 * interval '1 second')
         ON CONFLICT (replica) DO UPDATE SET alive_until = EXCLUDED.alive_until",
    )
    .bind(replica)
    .bind(now)
    .bind(CLAIM.as_secs_f64())
    .execute(db)
    .await?;
    Ok(())
}

pub(super) async fn take_unsent(
    db: &mut PgConnection,
    limit: usize,
    now: Option<Timestamp>,
    replica: i64,
) -> sqlx::Result<Vec<OrderPlaced>> {
    stay_alive(&mut *db, now, replica).await?;
    if limit == 0 {
        return Ok(Vec::new());
    }
    let rows = sqlx::query(
        "WITH alive AS MATERIALIZED (
             SELECT r.replica
             FROM relays AS r, LATERAL (SELECT r.alive_until - COALESCE($1, clock_timestamp()) AS rest) AS claim
             WHERE claim.rest > interval '0' AND (
                 claim.rest > $4::float8 * interval '1 second'
                 OR EXISTS (
                     SELECT 1 FROM pg_stat_activity
                     WHERE application_name = 'order-tracker ' || lpad(to_hex(r.replica), 16, '0'))
                 -- After a restart of the server everybody gets his time to come back.
                 OR clock_timestamp() < pg_postmaster_start_time() + $5::float8 * interval '1 second')
         ), unclaimed AS MATERIALIZED (
             SELECT u.order_id FROM outbox AS u
             WHERE NOT EXISTS (SELECT 1 FROM alive WHERE alive.replica = u.claimed_by)
             ORDER BY u.order_id LIMIT $2 FOR UPDATE OF u SKIP LOCKED
         ), taken AS (
             UPDATE outbox AS u SET claimed_by = $3 FROM unclaimed WHERE u.order_id = unclaimed.order_id
             RETURNING u.order_id
         )
         SELECT o.order_id, o.customer_name, o.address, o.item, o.size, o.created_at
         FROM taken JOIN orders AS o USING (order_id) ORDER BY o.order_id",
    )
    .bind(now)
    .bind(i64::try_from(limit).unwrap_or(i64::MAX))
    .bind(replica)
    .bind(CLAIM.as_secs_f64() - CLAIM_WITHOUT_SESSION.as_secs_f64())
    .bind(CLAIM.as_secs_f64())
    .fetch_all(&mut *db)
    .await?;
    messages(&rows)
}

pub(super) async fn take_lost(
    db: &mut PgConnection,
    held: &[OrderId],
    limit: usize,
    now: Option<Timestamp>,
    replica: i64,
) -> sqlx::Result<Vec<OrderPlaced>> {
    let rows = sqlx::query(
        "SELECT o.order_id, o.customer_name, o.address, o.item, o.size, o.created_at
         FROM outbox AS u JOIN orders AS o USING (order_id)
         WHERE u.claimed_by = $1 AND u.order_id <> ALL($2)
             AND u.created_at < COALESCE($3, clock_timestamp()) - $4::float8 * interval '1 second'
         ORDER BY u.order_id LIMIT $5",
    )
    .bind(replica)
    .bind(texts(held))
    .bind(now)
    .bind(LOST_AFTER.as_secs_f64())
    .bind(i64::try_from(limit).unwrap_or(i64::MAX))
    .fetch_all(&mut *db)
    .await?;
    messages(&rows)
}

fn messages(rows: &[PgRow]) -> sqlx::Result<Vec<OrderPlaced>> {
    let message = |row| Ok(OrderPlaced::new(order_id(row)?, draft(row)?, moment(row, "created_at")?));
    rows.iter().map(message).collect()
}

fn texts(ids: &[OrderId]) -> Vec<String> {
    ids.iter().map(OrderId::to_string).collect()
}

pub(super) async fn mark_sent(db: &mut PgConnection, sent: &[OrderId]) -> sqlx::Result<()> {
    sqlx::query("DELETE FROM outbox WHERE order_id = ANY($1)").bind(texts(sent)).execute(&mut *db).await?;
    Ok(())
}

pub(super) async fn release(db: &mut PgConnection, unsent: &[OrderId], replica: i64) -> sqlx::Result<()> {
    sqlx::query("UPDATE outbox SET claimed_by = NULL WHERE order_id = ANY($1) AND claimed_by = $2")
        .bind(texts(unsent))
        .bind(replica)
        .execute(&mut *db)
        .await?;
    Ok(())
}

pub(super) async fn backlog(db: &mut PgConnection, now: Option<Timestamp>) -> sqlx::Result<Backlog> {
    let row = sqlx::query(
        "SELECT COALESCE($1, clock_timestamp()) AS now,
             (SELECT min(due_at) FROM orders WHERE due_at IS NOT NULL) AS next_due,
             (SELECT count(*) FROM outbox) AS unsent, (SELECT min(created_at) FROM outbox) AS oldest",
    )
    .bind(now)
    .fetch_one(&mut *db)
    .await?;
    let now = moment(&row, "now")?;
    let since = |at: Option<Timestamp>| at.and_then(|at| (now - at).to_std().ok()).unwrap_or_default();
    let oldest: Option<Timestamp> = row.try_get("oldest")?;
    let mut backlog = Backlog {
        unsent: row.try_get::<i64, _>("unsent")?.unsigned_abs(),
        oldest_unsent: oldest.map(to_millis),
        oldest_unsent_age: since(oldest),
        overdue: since(row.try_get("next_due")?),
        ..Backlog::default()
    };
    let counts =
        sqlx::query("SELECT status, count(*) AS orders FROM orders WHERE due_at IS NOT NULL GROUP BY status")
            .fetch_all(&mut *db)
            .await?;
    for row in &counts {
        let status: Status = parsed(row, "status")?;
        backlog.in_progress[status as usize] = row.try_get::<i64, _>("orders")?.unsigned_abs();
    }
    Ok(backlog)
}

/// Also forgets replicas that have been gone for as long.
pub(super) async fn expire_keys(
    db: &mut PgConnection,
    now: Option<Timestamp>,
    limit: usize,
) -> sqlx::Result<u64> {
    let expired = sqlx::query(
        "WITH long_ago AS (
             SELECT COALESCE($1, clock_timestamp()) - $2::float8 * interval '1 second' AS moment
         ), gone AS (
             DELETE FROM relays USING long_ago WHERE alive_until < moment
         )
         DELETE FROM idempotency_keys WHERE key IN
             (SELECT k.key FROM idempotency_keys AS k, long_ago WHERE k.created_at < moment LIMIT $3)",
    )
    .bind(now)
    .bind(KEY_LIFETIME.as_secs_f64())
    .bind(i64::try_from(limit).unwrap_or(i64::MAX))
    .execute(&mut *db)
    .await?;
    Ok(expired.rows_affected())
}

/// Gives up this replica's outbox rows.
pub(super) async fn leave(db: &mut PgConnection, replica: i64) -> sqlx::Result<()> {
    sqlx::query("DELETE FROM relays WHERE replica = $1").bind(replica).execute(&mut *db).await?;
    Ok(())
}
