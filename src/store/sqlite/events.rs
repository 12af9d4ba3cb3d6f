//! The SQL of the events and of those who read them. One session writes, so their ids are the order in which they
//! became visible, and what can be seen is settled.

use std::time::Duration;

use async_trait::async_trait;
use sqlx::{Row as _, SqlitePool, sqlite::SqliteRow};

use super::{
    super::{
        Arrival, EventLog, FeedPage, FeedQuery, Holder, Horizon, Lease, Span, StoreError, feed::RowReader,
    },
    SqliteStore,
    rows::{json, moment, parsed, readable},
};
use crate::order::{Cursor, FeedEvent, OrderFacts, OrderId};

#[async_trait]
impl EventLog for SqliteStore {
    async fn horizon(&self) -> Result<Horizon, StoreError> {
        let last = sqlx::query_scalar("SELECT COALESCE(max(id), 0) FROM order_events");
        let last = Cursor(last.fetch_one(&self.read).await?);
        Ok(Horizon { settled: last, last, held: Duration::ZERO, found: true })
    }

    async fn arrivals(&self, spans: &[Span], limit: usize) -> Result<Vec<Arrival>, StoreError> {
        arrivals(&self.read, spans, limit).await
    }

    async fn events(&self, query: &FeedQuery) -> Result<FeedPage, StoreError> {
        events(&self.read, query).await
    }

    async fn facts(&self, orders: &[OrderId]) -> Result<Vec<(OrderId, OrderFacts)>, StoreError> {
        facts(&self.read, orders).await
    }

    /// Nobody can.
    async fn holder(&self) -> Result<Option<Holder>, StoreError> {
        Ok(None)
    }

    async fn lease(&self, name: &str, lasting: Duration) -> Result<Option<Lease>, StoreError> {
        let now = self.clock.now();
        let row = sqlx::query(
            "INSERT INTO feed_cursors (name, held_by, held_until, term) VALUES (?1, ?2, ?4, 1)
             ON CONFLICT (name) DO UPDATE SET held_by = ?2, held_until = ?4, term = term + 1
                 WHERE held_until <= ?3 OR held_by = ?2 OR held_until > ?4 + (?4 - ?3)
             RETURNING term, cursor",
        )
        .bind(name)
        .bind(self.process)
        .bind(now.timestamp_millis())
        .bind((now + lasting).timestamp_millis())
        .fetch_optional(&self.write)
        .await?;
        let lease =
            |row: SqliteRow| Ok(Lease { term: row.try_get("term")?, cursor: Cursor(row.try_get("cursor")?) });
        row.map(lease).transpose()
    }

    /// Compares the place too, so that one that a person has set back is read again from there.
    async fn move_on(
        &self,
        name: &str,
        lease: Lease,
        to: Cursor,
        lasting: Duration,
    ) -> Result<Option<Lease>, StoreError> {
        let moved = sqlx::query(
            "UPDATE feed_cursors SET cursor = ?4, held_until = ?5 WHERE name = ?1 AND term = ?2 AND cursor = ?3",
        )
        .bind(name)
        .bind(lease.term)
        .bind(lease.cursor.0)
        .bind(to.0)
        .bind((self.clock.now() + lasting).timestamp_millis())
        .execute(&self.write)
        .await?;
        Ok((moved.rows_affected() == 1).then_some(Lease { cursor: to, ..lease }))
    }

    async fn give_back(&self, name: &str, lease: Lease) -> Result<(), StoreError> {
        self.move_on(name, lease, lease.cursor, Duration::ZERO).await.map(|_| ())
    }

    async fn place_of(&self, name: &str) -> Result<Option<Cursor>, StoreError> {
        let place = sqlx::query_scalar("SELECT cursor FROM feed_cursors WHERE name = ?1").bind(name);
        Ok(place.fetch_optional(&self.read).await?.map(Cursor))
    }
}

fn whole(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

async fn arrivals(read: &SqlitePool, spans: &[Span], limit: usize) -> Result<Vec<Arrival>, StoreError> {
    let mut arrivals = Vec::new();
    // One statement for each: nothing is ever missing behind the last one, so there is one.
    for span in spans {
        let rows = sqlx::query(
            "SELECT id, order_id, seq FROM order_events WHERE id > ?1 AND id <= ?2 ORDER BY id LIMIT ?3",
        )
        .bind(span.after.0)
        .bind(span.upto.0)
        .bind(whole(limit - arrivals.len()))
        .fetch_all(read)
        .await?;
        let arrival =
            |row: &SqliteRow| Ok(Arrival { cursor: cursor(row)?, order_id: order_id(row)?, seq: seq(row)? });
        arrivals.extend(readable(&rows, arrival));
    }
    Ok(arrivals)
}

async fn events(read: &SqlitePool, query: &FeedQuery) -> Result<FeedPage, StoreError> {
    let FeedQuery { span, event, limit } = *query;
    let statement = match event {
        // The last row that was looked at comes along, so that it is known how far that was.
        Some(event) => sqlx::query(
            r#"WITH page AS MATERIALIZED (
                 SELECT id, order_id, seq, event, "timestamp", meta FROM order_events
                 WHERE id > ?1 AND id <= ?2 ORDER BY id LIMIT ?5)
             SELECT *, EXISTS (SELECT 1 FROM order_events WHERE id > (SELECT max(id) FROM page) AND id <= ?2)
                 AS is_followed FROM page
             WHERE event = ?4 OR id = (SELECT max(id) FROM page) ORDER BY id LIMIT ?3 + 1"#,
        )
        .bind(span.after.0)
        .bind(span.upto.0)
        .bind(whole(limit))
        .bind(event.as_str())
        .bind(whole(FeedQuery::EXAMINED)),
        None => sqlx::query(
            r#"SELECT id, order_id, seq, event, "timestamp", meta, 0 AS is_followed FROM order_events
             WHERE id > ?1 AND id <= ?2 ORDER BY id LIMIT ?3 + 1"#,
        )
        .bind(span.after.0)
        .bind(span.upto.0)
        .bind(whole(limit)),
    };
    let rows = statement.fetch_all(read).await?;
    let is_followed = rows.first().map(|row| row.try_get("is_followed")).transpose()?.unwrap_or_default();
    Ok(ROWS.page(rows, is_followed, query)?)
}

const ROWS: RowReader<SqliteRow> =
    RowReader { cursor, kind: |row| parsed(row, "event"), events: |rows| readable(rows, feed_event) };

fn feed_event(row: &SqliteRow) -> sqlx::Result<FeedEvent> {
    let place = (cursor(row)?, order_id(row)?, seq(row)?);
    let meta: Option<sqlx::types::Json<serde_json::Value>> = row.try_get("meta")?;
    let meta = meta.map(|sqlx::types::Json(meta)| meta);
    Ok(FeedEvent::new(place, parsed(row, "event")?, moment(row, "timestamp")?, meta.as_ref()))
}

fn cursor(row: &SqliteRow) -> sqlx::Result<Cursor> {
    row.try_get("id").map(Cursor)
}

fn order_id(row: &SqliteRow) -> sqlx::Result<OrderId> {
    parsed(row, "order_id")
}

fn seq(row: &SqliteRow) -> sqlx::Result<u32> {
    row.try_get("seq")
}

async fn facts(read: &SqlitePool, orders: &[OrderId]) -> Result<Vec<(OrderId, OrderFacts)>, StoreError> {
    let rows = sqlx::query(
        "SELECT order_id, item, size, created_at FROM orders
         WHERE order_id IN (SELECT value FROM json_each(?1))",
    )
    .bind(json(orders)?)
    .fetch_all(read)
    .await?;
    let facts = |row: &SqliteRow| {
        let (item, size) = (row.try_get("item")?, parsed(row, "size")?);
        Ok((order_id(row)?, OrderFacts { item, size, created_at: moment(row, "created_at")? }))
    };
    Ok(readable(&rows, facts))
}
