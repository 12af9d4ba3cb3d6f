//! How orders come out of PostgreSQL.

use std::str::FromStr;

use serde_json::Value;
use sqlx::{FromRow, Row, postgres::PgRow};

use crate::order::{Draft, Event, EventKind, Order, OrderId, Timestamp, TrackedOrder};

/// Reads a text column through the domain's own parser: a value we did not write is an error.
pub(super) fn parsed<T: FromStr>(row: &PgRow, column: &str) -> sqlx::Result<T>
where
    T::Err: std::error::Error + Send + Sync + 'static,
{
    let text: &str = row.try_get(column)?;
    text.parse().map_err(|source: T::Err| sqlx::Error::ColumnDecode {
        index: column.to_owned(),
        source: Box::new(source),
    })
}

pub(super) fn order_id(row: &PgRow) -> sqlx::Result<OrderId> {
    parsed(row, "order_id")
}

pub(super) fn draft(row: &PgRow) -> sqlx::Result<Draft> {
    Ok(Draft {
        customer_name: row.try_get("customer_name")?,
        address: row.try_get("address")?,
        item: row.try_get("item")?,
        size: parsed(row, "size")?,
    })
}

pub(super) fn moment(row: &PgRow, column: &str) -> sqlx::Result<Timestamp> {
    row.try_get(column)
}

impl<'r> FromRow<'r, PgRow> for Order {
    fn from_row(row: &'r PgRow) -> sqlx::Result<Self> {
        Ok(Self {
            order_id: order_id(row)?,
            draft: draft(row)?,
            status: parsed(row, "status")?,
            created_at: moment(row, "created_at")?,
            updated_at: moment(row, "updated_at")?,
            due_at: row.try_get("due_at")?,
        })
    }
}

/// A timeline in two arrays; none where somebody has taken every event away.
pub(super) fn history(row: &PgRow) -> sqlx::Result<Vec<(EventKind, Timestamp)>> {
    let kinds: Vec<String> = row.try_get::<Option<_>, _>("events")?.unwrap_or_default();
    let stamps: Vec<Timestamp> = row.try_get::<Option<_>, _>("stamps")?.unwrap_or_default();
    let kind = |text: String| text.parse().map_err(|error| sqlx::Error::Decode(Box::new(error)));
    let kinds = kinds.into_iter().map(kind).collect::<sqlx::Result<Vec<EventKind>>>()?;
    Ok(kinds.into_iter().zip(stamps).collect())
}

/// An order with its events as three arrays: one row an order costs less than one row an event.
pub(super) fn tracked(row: &PgRow) -> sqlx::Result<TrackedOrder> {
    let metas: Vec<Option<Value>> = row.try_get("metas")?;
    let events = history(row)?.into_iter().zip(metas);
    let mut events: Vec<Event> =
        events.map(|((event, timestamp), meta)| Event { event, timestamp, meta }).collect();
    events.sort_by_key(|event| event.event);
    Ok(TrackedOrder { order: Order::from_row(row)?, events })
}
