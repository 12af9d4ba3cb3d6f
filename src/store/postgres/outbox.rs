//! The SQL of the outbox: whose rows they are, and what becomes of them.

use std::{collections::HashMap, time::Duration};

use sqlx::{PgConnection, Row, postgres::PgRow};
use tokio::time::Instant;

use super::{
    super::{LOST_AFTER, Republished, columns::placed_columns},
    attention::{FigureReaches, begin},
    rows::{details, moment, order_id, readable},
    timers::texts,
};
use crate::order::{OrderId, OrderPlaced, Timestamp};

pub(super) use crate::time::deadlines::CLAIM;
/// How long it keeps them if it has no session either: a process that was killed has none.
pub(super) const CLAIM_WITHOUT_SESSION: Duration = Duration::from_millis(1_500);

/// The replicas that live, as `alive.replicas`: those who have said so lately, and for half as long those
/// who have no session any more. An array, so that reading the outbox in the order of ids needs no join.
macro_rules! with_alive {
    ($($rest:expr),+) => {
        concat!(
            "WITH alive AS MATERIALIZED (
                 SELECT array_agg(r.replica) AS replicas
                 FROM relays AS r, LATERAL (SELECT r.alive_until - COALESCE($1, clock_timestamp()) AS rest) AS claim
                 WHERE claim.rest > interval '0' AND (
                     claim.rest > $2::float8 * interval '1 second'
                     OR EXISTS (
                         SELECT 1 FROM pg_stat_activity
                         WHERE application_name = 'order-tracker ' || lpad(to_hex(r.replica), 16, '0'))
                     -- After a restart of the server everybody gets his time to come back.
                     OR clock_timestamp() < pg_postmaster_start_time() + $3::float8 * interval '1 second')
             )",
            $($rest),+
        )
    };
}

const UNCLAIMED: &str = with_alive!(
    " SELECT u.order_id FROM outbox AS u
      WHERE u.order_id > $4 AND (u.claimed_by = ANY ((SELECT replicas FROM alive)::bigint[])) IS NOT TRUE
      ORDER BY u.order_id LIMIT $5"
);

/// Those that somebody holds locked are left to him.
const CLAIM_ROWS: &str = with_alive!(
    ", ours AS MATERIALIZED (
         SELECT u.order_id FROM outbox AS u
         WHERE u.order_id = ANY ($4)
             AND (u.claimed_by = $5 OR (u.claimed_by = ANY ((SELECT replicas FROM alive)::bigint[])) IS NOT TRUE)
         ORDER BY u.order_id FOR UPDATE OF u SKIP LOCKED
     ), taken AS (
         UPDATE outbox AS u SET claimed_by = $5 FROM ours WHERE u.order_id = ours.order_id
         RETURNING u.order_id
     )
     SELECT ",
    placed_columns!("o."),
    " FROM taken JOIN orders AS o USING (order_id) ORDER BY o.order_id"
);

/// Says that this replica is alive; answers whether it could, for a row that somebody holds is not waited for.
pub(super) async fn stay_alive(
    db: &mut PgConnection,
    now: Option<Timestamp>,
    replica: i64,
) -> sqlx::Result<bool> {
    // Where nobody holds the row it is not there, so it is written, and nothing waits in that either.
    let said = sqlx::query(
        "WITH t AS MATERIALIZED (
             SELECT COALESCE($2, clock_timestamp()) + $3::float8 * interval '1 second' AS until
         ), known AS (
             UPDATE relays SET alive_until = (SELECT until FROM t) WHERE replica = ANY (ARRAY(
                 SELECT replica FROM relays WHERE replica = $1 FOR UPDATE SKIP LOCKED))
             RETURNING replica
         ), new AS (
             INSERT INTO relays (replica, alive_until) SELECT $1, until FROM t
             WHERE NOT EXISTS (SELECT 1 FROM relays WHERE replica = $1)
             ON CONFLICT (replica) DO NOTHING RETURNING replica
         )
         SELECT replica FROM known UNION ALL SELECT replica FROM new",
    )
    .bind(replica)
    .bind(now)
    .bind(CLAIM.as_secs_f64())
    .fetch_optional(db)
    .await?;
    Ok(said.is_some())
}

/// Gives up this replica's outbox rows.
pub(super) async fn leave(db: &mut PgConnection, replica: i64) -> sqlx::Result<()> {
    sqlx::query("DELETE FROM relays WHERE replica = $1").bind(replica).execute(&mut *db).await?;
    Ok(())
}

pub(super) async fn unclaimed(
    db: &mut PgConnection,
    after: Option<OrderId>,
    limit: usize,
    now: Option<Timestamp>,
) -> sqlx::Result<Vec<OrderId>> {
    let mut after = after.map(|id| id.to_string()).unwrap_or_default();
    loop {
        let rows = sqlx::query(UNCLAIMED)
            .bind(now)
            .bind(CLAIM.as_secs_f64() - CLAIM_WITHOUT_SESSION.as_secs_f64())
            .bind(CLAIM.as_secs_f64())
            .bind(&after)
            .bind(i64::try_from(limit).unwrap_or(i64::MAX))
            .fetch_all(&mut *db)
            .await?;
        let found = readable(&rows, order_id);
        match rows.last() {
            // None of them is an id: what comes after may be.
            Some(last) if found.is_empty() => after = last.try_get("order_id")?,
            _ => return Ok(found),
        }
    }
}

pub(super) async fn claim(
    db: &mut PgConnection,
    unsent: &[OrderId],
    now: Option<Timestamp>,
    replica: i64,
) -> sqlx::Result<Vec<OrderPlaced>> {
    let rows = sqlx::query(CLAIM_ROWS)
        .bind(now)
        .bind(CLAIM.as_secs_f64() - CLAIM_WITHOUT_SESSION.as_secs_f64())
        .bind(CLAIM.as_secs_f64())
        .bind(texts(unsent))
        .bind(replica)
        .fetch_all(&mut *db)
        .await?;
    rows.iter().map(message).collect()
}

fn message(row: &PgRow) -> sqlx::Result<OrderPlaced> {
    Ok(OrderPlaced::new(order_id(row)?, details(row)?, moment(row, "created_at")?))
}

/// Own rows that this replica does not hold, as far back as they can be read in time.
pub(super) async fn lost(
    db: &mut PgConnection,
    figures: &FigureReaches,
    held: &[OrderId],
    limit: usize,
    now: Option<Timestamp>,
    replica: i64,
) -> sqlx::Result<Vec<OrderId>> {
    let (back, started) = (figures.lost.back(), Instant::now());
    let rows = async {
        let (_, first_id) = begin(db, now, back).await?;
        sqlx::query(
            "SELECT u.order_id FROM outbox AS u
             WHERE u.order_id >= $6 AND u.claimed_by = $1 AND u.order_id <> ALL($2)
                 AND u.created_at < COALESCE($3, clock_timestamp()) - $4::float8 * interval '1 second'
             ORDER BY u.order_id LIMIT $5",
        )
        .bind(replica)
        .bind(texts(held))
        .bind(now)
        .bind(LOST_AFTER.as_secs_f64())
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .bind(first_id)
        .fetch_all(&mut *db)
        .await
    };
    let rows = rows.await;
    Ok(readable(&figures.lost.judge(started, rows)?, order_id))
}

/// Rows that another session holds are left to it: answers them.
pub(super) async fn mark_sent(db: &mut PgConnection, sent: &[OrderId]) -> sqlx::Result<Vec<OrderId>> {
    let gone = sqlx::query(
        "DELETE FROM outbox WHERE order_id = ANY (ARRAY(
             SELECT order_id FROM outbox WHERE order_id = ANY($1) ORDER BY order_id FOR UPDATE SKIP LOCKED))",
    )
    .bind(texts(sent))
    .execute(&mut *db)
    .await?;
    if gone.rows_affected() >= sent.len() as u64 {
        return Ok(Vec::new());
    }
    let left = sqlx::query("SELECT order_id FROM outbox WHERE order_id = ANY($1)").bind(texts(sent));
    left.fetch_all(&mut *db).await?.iter().map(order_id).collect()
}

/// The same.
pub(super) async fn release(
    db: &mut PgConnection,
    unsent: &[OrderId],
    replica: i64,
) -> sqlx::Result<Vec<OrderId>> {
    let released = sqlx::query(
        "UPDATE outbox SET claimed_by = NULL WHERE order_id = ANY (ARRAY(
             SELECT order_id FROM outbox WHERE order_id = ANY($1) AND claimed_by = $2
             ORDER BY order_id FOR UPDATE SKIP LOCKED))",
    )
    .bind(texts(unsent))
    .bind(replica)
    .execute(&mut *db)
    .await?;
    if released.rows_affected() >= unsent.len() as u64 {
        return Ok(Vec::new());
    }
    let left = sqlx::query("SELECT order_id FROM outbox WHERE order_id = ANY($1) AND claimed_by = $2");
    left.bind(texts(unsent)).bind(replica).fetch_all(&mut *db).await?.iter().map(order_id).collect()
}

pub(super) async fn republish(
    db: &mut PgConnection,
    orders: &[OrderId],
    now: Option<Timestamp>,
) -> sqlx::Result<Vec<Republished>> {
    let rows = sqlx::query(
        "WITH known AS MATERIALIZED (
             SELECT order_id FROM orders WHERE order_id = ANY($1)
         ), queued AS (
             INSERT INTO outbox (order_id, created_at)
             SELECT order_id, COALESCE($2, date_trunc('milliseconds', clock_timestamp()))
             FROM known ORDER BY order_id
             ON CONFLICT (order_id) DO NOTHING
             RETURNING order_id
         )
         SELECT k.order_id, q.order_id IS NOT NULL AS queued
         FROM known AS k LEFT JOIN queued AS q USING (order_id)",
    )
    .bind(texts(orders))
    .bind(now)
    .fetch_all(&mut *db)
    .await?;
    let known: HashMap<OrderId, bool> =
        rows.iter().map(|row| Ok((order_id(row)?, row.try_get("queued")?))).collect::<sqlx::Result<_>>()?;
    let what = |id: &OrderId| match known.get(id) {
        Some(true) => Republished::Queued,
        Some(false) => Republished::Waiting,
        None => Republished::Unknown,
    };
    Ok(orders.iter().map(what).collect())
}
