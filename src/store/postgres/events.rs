//! The SQL of the events and of those who read them.

use std::time::Duration;

use async_trait::async_trait;
use sqlx::{PgConnection, Row as _, postgres::PgRow};

use super::{
    super::{
        Arrival, EventLog, FeedPage, FeedQuery, Holder, Horizon, Lease, Span, StoreError, feed::RowReader,
    },
    PgStore, bounded,
    pools::Slot,
    rights,
    rows::{moment, order_id, parsed, readable},
    settling::InBlocks,
    timers::texts,
};
use crate::order::{Cursor, FeedEvent, OrderFacts, OrderId, Timestamp};

#[async_trait]
impl EventLog for PgStore {
    async fn horizon(&self) -> Result<Horizon, StoreError> {
        let looked = answer(&self.pools()?.read, async |db| self.settling.look(db).await).await?;
        looked.map_err(|InBlocks| {
            StoreError::Unavailable(
                "the sequence order_events_id_seq hands out ids in blocks, so nobody can say which events are \
                 complete; ALTER SEQUENCE order_events_id_seq CACHE 1"
                    .to_owned(),
            )
        })
    }

    async fn arrivals(&self, spans: &[Span], limit: usize) -> Result<Vec<Arrival>, StoreError> {
        answer(&self.pools()?.read, async |db| arrivals(db, spans, limit).await).await
    }

    async fn events(&self, query: &FeedQuery) -> Result<FeedPage, StoreError> {
        answer(&self.pools()?.read, async |db| events(db, query).await).await
    }

    async fn facts(&self, orders: &[OrderId]) -> Result<Vec<(OrderId, OrderFacts)>, StoreError> {
        answer(&self.pools()?.loops, async |db| facts(db, orders).await).await
    }

    async fn holder(&self) -> Result<Option<Holder>, StoreError> {
        answer(&self.pools()?.read, async |db| holder(db).await).await
    }

    async fn lease(&self, name: &str, lasting: Duration) -> Result<Option<Lease>, StoreError> {
        let (pools, now, replica) = (self.pools()?, self.now(), self.replica);
        answer(&pools.loops, async |db| lease(db, (name, replica), now, lasting).await).await
    }

    async fn move_on(
        &self,
        name: &str,
        lease: Lease,
        to: Cursor,
        lasting: Duration,
    ) -> Result<Option<Lease>, StoreError> {
        let (pools, now) = (self.pools()?, self.now());
        answer(&pools.loops, async |db| move_on(db, (name, lease), to, now, lasting).await).await
    }

    async fn give_back(&self, name: &str, lease: Lease) -> Result<(), StoreError> {
        self.move_on(name, lease, lease.cursor, Duration::ZERO).await.map(|_| ())
    }

    async fn place_of(&self, name: &str) -> Result<Option<Cursor>, StoreError> {
        let place = async |db: &mut PgConnection| {
            let place = sqlx::query_scalar("SELECT cursor FROM feed_cursors WHERE name = $1").bind(name);
            Ok(place.fetch_optional(db).await?.map(Cursor))
        };
        answer(&self.pools()?.read, place).await
    }
}

/// Runs a verb on a connection in time; a right that is missing is named.
async fn answer<T>(
    slot: &Slot,
    verb: impl AsyncFnOnce(&mut PgConnection) -> sqlx::Result<T>,
) -> Result<T, StoreError> {
    bounded(slot, async |db| rights::naming(db, rights::OF_EVENTS, verb).await).await?
}

fn whole(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

async fn arrivals(db: &mut PgConnection, spans: &[Span], limit: usize) -> sqlx::Result<Vec<Arrival>> {
    let rows = sqlx::query(
        "SELECT e.id, e.order_id, e.seq FROM unnest($1::bigint[], $2::bigint[]) AS span (after, upto)
         CROSS JOIN LATERAL (
             SELECT id, order_id, seq FROM order_events WHERE id > span.after AND id <= span.upto
             ORDER BY id LIMIT $3) AS e
         ORDER BY e.id LIMIT $3",
    )
    .bind(spans.iter().map(|span| span.after.0).collect::<Vec<_>>())
    .bind(spans.iter().map(|span| span.upto.0).collect::<Vec<_>>())
    .bind(whole(limit))
    .fetch_all(db)
    .await?;
    Ok(readable(&rows, |row| Ok(Arrival { cursor: cursor(row)?, order_id: order_id(row)?, seq: seq(row)? })))
}

/// Bound by how many ids there are, and not by the last one: of a range the planner may believe that it is small, and
/// read and sort all of it.
async fn events(db: &mut PgConnection, query: &FeedQuery) -> sqlx::Result<FeedPage> {
    let FeedQuery { span, event, limit } = *query;
    let ids = span.upto.0.saturating_sub(span.after.0).max(0);
    let statement = match event {
        // The last row that was looked at comes along, so that it is known how far that was.
        Some(event) => sqlx::query(
            r#"WITH page AS MATERIALIZED (
                 SELECT id, order_id, seq, event, "timestamp", meta FROM order_events
                 WHERE id > $1 ORDER BY id LIMIT $4),
             far AS MATERIALIZED (SELECT max(id) AS last FROM page WHERE id <= $2)
             SELECT page.*, (SELECT id FROM order_events WHERE id > (SELECT last FROM far) ORDER BY id LIMIT 1) <= $2
                 AS is_followed
             FROM page, far WHERE id <= $2 AND (event = $5 OR id = last) ORDER BY id LIMIT $3"#,
        )
        .bind(span.after.0)
        .bind(span.upto.0)
        .bind(whole(limit).saturating_add(1))
        .bind(ids.min(whole(FeedQuery::EXAMINED)))
        .bind(event.as_str()),
        None => sqlx::query(
            r#"SELECT id, order_id, seq, event, "timestamp", meta, false AS is_followed FROM (
                 SELECT * FROM order_events WHERE id > $1 ORDER BY id LIMIT $3) AS page
             WHERE id <= $2 ORDER BY id"#,
        )
        .bind(span.after.0)
        .bind(span.upto.0)
        .bind(ids.min(whole(limit).saturating_add(1))),
    };
    let rows = statement.fetch_all(db).await?;
    let is_followed: Option<bool> =
        rows.first().and_then(|row| row.try_get("is_followed").transpose()).transpose()?;
    ROWS.page(rows, is_followed.unwrap_or_default(), query)
}

const ROWS: RowReader<PgRow> =
    RowReader { cursor, kind: |row| parsed(row, "event"), events: |rows| readable(rows, feed_event) };

fn feed_event(row: &PgRow) -> sqlx::Result<FeedEvent> {
    let place = (cursor(row)?, order_id(row)?, seq(row)?);
    let meta: Option<serde_json::Value> = row.try_get("meta")?;
    Ok(FeedEvent::new(place, parsed(row, "event")?, moment(row, "timestamp")?, meta.as_ref()))
}

fn cursor(row: &PgRow) -> sqlx::Result<Cursor> {
    row.try_get("id").map(Cursor)
}

fn seq(row: &PgRow) -> sqlx::Result<u32> {
    row.try_get::<i32, _>("seq").map(i32::unsigned_abs)
}

async fn facts(db: &mut PgConnection, orders: &[OrderId]) -> sqlx::Result<Vec<(OrderId, OrderFacts)>> {
    let rows = sqlx::query("SELECT order_id, item, size, created_at FROM orders WHERE order_id = ANY($1)")
        .bind(texts(orders))
        .fetch_all(db)
        .await?;
    let facts = |row: &PgRow| {
        let (item, size) = (row.try_get("item")?, parsed(row, "size")?);
        Ok((order_id(row)?, OrderFacts { item, size, created_at: moment(row, "created_at")? }))
    };
    Ok(readable(&rows, facts))
}

/// Whoever has a transaction id and is the furthest behind; of sessions of others we may see that much.
async fn holder(db: &mut PgConnection) -> sqlx::Result<Option<Holder>> {
    let row = sqlx::query(
        "SELECT session, application, database, seconds FROM (
             SELECT 'pid ' || pid AS session, application_name AS application, COALESCE(datname, '') AS database,
                 EXTRACT(epoch FROM clock_timestamp() - xact_start)::float8 AS seconds, age(backend_xid) AS behind
             FROM pg_stat_activity WHERE backend_xid IS NOT NULL AND pid <> pg_backend_pid()
             UNION ALL
             SELECT 'prepared transaction ' || gid, '', database::text,
                 EXTRACT(epoch FROM clock_timestamp() - prepared)::float8, age(transaction)
             FROM pg_prepared_xacts) AS open
         ORDER BY behind DESC LIMIT 1",
    )
    .fetch_optional(db)
    .await?;
    let holder = |row: PgRow| {
        let seconds: Option<f64> = row.try_get("seconds")?;
        Ok(Holder {
            session: row.try_get("session")?,
            application: row.try_get("application")?,
            database: row.try_get("database")?,
            age: seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()),
        })
    };
    row.map(holder).transpose()
}

/// A row that somebody holds is not waited for. One that lost the answer takes it anew.
async fn lease(
    db: &mut PgConnection,
    (name, replica): (&str, i64),
    now: Option<Timestamp>,
    lasting: Duration,
) -> sqlx::Result<Option<Lease>> {
    let row = sqlx::query(
        "WITH t AS MATERIALIZED (SELECT COALESCE($3, clock_timestamp()) AS now), free AS MATERIALIZED (
             SELECT name FROM feed_cursors, t WHERE name = $1 AND (held_until <= t.now OR held_by = $2
                 -- Longer than anybody may hold it: the clock was set back.
                 OR held_until > t.now + 2 * $4::float8 * interval '1 second')
             FOR UPDATE OF feed_cursors SKIP LOCKED
         ), taken AS (
             UPDATE feed_cursors AS c SET held_by = $2, term = c.term + 1,
                 held_until = t.now + $4::float8 * interval '1 second'
             FROM free, t WHERE c.name = free.name RETURNING c.term, c.cursor
         ), new AS (
             INSERT INTO feed_cursors (name, held_by, held_until, term)
             SELECT $1, $2, t.now + $4::float8 * interval '1 second', 1 FROM t
             WHERE NOT EXISTS (SELECT 1 FROM feed_cursors WHERE name = $1)
             ON CONFLICT (name) DO NOTHING RETURNING term, cursor
         )
         SELECT term, cursor FROM taken UNION ALL SELECT term, cursor FROM new",
    )
    .bind(name)
    .bind(replica)
    .bind(now)
    .bind(lasting.as_secs_f64())
    .fetch_optional(db)
    .await?;
    row.map(|row| Ok(Lease { term: row.try_get("term")?, cursor: Cursor(row.try_get("cursor")?) }))
        .transpose()
}

/// Compares the place too, so that one that a person has set back is read again from there.
async fn move_on(
    db: &mut PgConnection,
    (name, lease): (&str, Lease),
    to: Cursor,
    now: Option<Timestamp>,
    lasting: Duration,
) -> sqlx::Result<Option<Lease>> {
    let moved = sqlx::query(
        "UPDATE feed_cursors SET cursor = $4,
             held_until = COALESCE($5, clock_timestamp()) + $6::float8 * interval '1 second'
         WHERE name = $1 AND term = $2 AND cursor = $3",
    )
    .bind(name)
    .bind(lease.term)
    .bind(lease.cursor.0)
    .bind(to.0)
    .bind(now)
    .bind(lasting.as_secs_f64())
    .execute(db)
    .await?;
    Ok((moved.rows_affected() == 1).then_some(Lease { cursor: to, ..lease }))
}
