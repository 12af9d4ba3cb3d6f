//! How orders travel into SQLite (as JSON arrays) and out of it (as rows).

use chrono::Datelike as _;
use serde::Serialize;
use serde_json::Value;
use sqlx::{FromRow, Row, sqlite::SqliteRow};

use super::{super::odd_rows, StoreError};
use crate::order::{Event, EventKind, Order, OrderDetails, OrderId, Status, Timestamp, in_full};

/// A whole set as one bind parameter.
pub(super) fn json<T: Serialize>(rows: &[T]) -> Result<String, StoreError> {
    serde_json::to_string(rows).map_err(|error| StoreError::Refused(error.to_string()))
}

/// A row of `orders` to be written.
#[derive(Serialize)]
pub(super) struct OrderRow<'a> {
    pub order_id: OrderId,
    #[serde(flatten, serialize_with = "in_full")]
    pub details: &'a OrderDetails,
    pub status: Status,
    pub seq: usize,
    pub created_at: i64,
    pub updated_at: i64,
    pub due_at: Option<i64>,
    pub expected_at: Option<i64>,
}

/// A row of `order_events` to be written.
#[derive(Serialize)]
pub(super) struct EventRow<'a> {
    pub order_id: OrderId,
    pub event: EventKind,
    pub seq: i64,
    pub timestamp: i64,
    pub meta: Option<&'a Value>,
}

/// What a step changes in `orders`.
#[derive(Serialize)]
pub(super) struct StepRow {
    pub order_id: OrderId,
    pub from: Status,
    pub to: Status,
    pub seq: i64,
    pub at: i64,
    pub due_at: Option<i64>,
}

/// A row of `idempotency_keys` to be written.
#[derive(Serialize)]
pub(super) struct KeyRow<'a> {
    pub owner: &'a str,
    pub key: &'a str,
    pub order_id: OrderId,
}

/// The earliest moment that we can reckon with, the year 0, in milliseconds.
pub(super) const EARLIEST: i64 = -62_167_219_200_000;
/// The end of the last one, the year 9999.
pub(super) const LATEST: i64 = 253_402_300_799_999;

/// Leaves out rows that can't be read: one that somebody has made unreadable by hand must not hide the others.
pub(super) fn readable<T>(rows: &[SqliteRow], decode: impl Fn(&SqliteRow) -> sqlx::Result<T>) -> Vec<T> {
    odd_rows::readable(rows, |row| row.try_get("order_id").unwrap_or_default(), decode)
}

/// Reads a text column through the domain's own parser: a value we did not write is an error.
pub(super) fn parsed<T: std::str::FromStr>(row: &SqliteRow, column: &str) -> sqlx::Result<T>
where
    T::Err: std::error::Error + Send + Sync + 'static,
{
    let text: &str = row.try_get(column)?;
    text.parse().map_err(|source: T::Err| sqlx::Error::ColumnDecode {
        index: column.to_owned(),
        source: Box::new(source),
    })
}

/// A moment; what RFC 3339 can't show is none of ours, and leaves room for every sum.
pub(super) fn moment(row: &SqliteRow, column: &str) -> sqlx::Result<Timestamp> {
    moment_of(row.try_get(column)?, column)
}

fn moment_of(millis: i64, column: &str) -> sqlx::Result<Timestamp> {
    let moment = Timestamp::from_timestamp_millis(millis).filter(|at| (0..=9_999).contains(&at.year()));
    moment.ok_or_else(|| sqlx::Error::ColumnDecode {
        index: column.to_owned(),
        source: format!("{millis} is no moment within the years 0 to 9999").into(),
    })
}

/// The same where there may be none.
pub(super) fn moment_if_any(row: &SqliteRow, column: &str) -> sqlx::Result<Option<Timestamp>> {
    row.try_get::<Option<i64>, _>(column)?.map(|millis| moment_of(millis, column)).transpose()
}

/// The column `due_at`; nothing where the service does not act.
pub(super) fn due_at(row: &SqliteRow) -> sqlx::Result<Option<Timestamp>> {
    moment_if_any(row, "due_at")
}

/// A text that may be missing, where it must be there: the driver would read it as an empty one.
pub(super) fn written(row: &SqliteRow, column: &str) -> sqlx::Result<String> {
    let text: Option<String> = row.try_get(column)?;
    text.ok_or_else(|| sqlx::Error::ColumnDecode {
        index: column.to_owned(),
        source: Box::new(sqlx::error::UnexpectedNullError),
    })
}

/// The columns of a [`OrderDetails`].
pub(super) struct DetailsRow(pub OrderDetails);

impl<'r> FromRow<'r, SqliteRow> for DetailsRow {
    fn from_row(row: &'r SqliteRow) -> sqlx::Result<Self> {
        Ok(Self(OrderDetails {
            customer_name: written(row, "customer_name")?,
            address: written(row, "address")?,
            item: row.try_get("item")?,
            size: parsed(row, "size")?,
        }))
    }
}

/// The column `order_id` alone.
pub(super) struct IdRow(pub OrderId);

impl<'r> FromRow<'r, SqliteRow> for IdRow {
    fn from_row(row: &'r SqliteRow) -> sqlx::Result<Self> {
        parsed(row, "order_id").map(Self)
    }
}

impl<'r> FromRow<'r, SqliteRow> for Order {
    fn from_row(row: &'r SqliteRow) -> sqlx::Result<Self> {
        Ok(Self {
            order_id: parsed(row, "order_id")?,
            details: DetailsRow::from_row(row)?.0,
            status: parsed(row, "status")?,
            created_at: moment(row, "created_at")?,
            updated_at: moment(row, "updated_at")?,
            due_at: due_at(row)?,
            expected_at: moment_if_any(row, "expected_at")?,
        })
    }
}

/// The column `meta`, if there is anything in it.
pub(super) fn meta(row: &SqliteRow) -> sqlx::Result<Option<Value>> {
    let text: Option<&str> = row.try_get("meta")?;
    text.map(serde_json::from_str)
        .transpose()
        .map_err(|error| sqlx::Error::ColumnDecode { index: "meta".to_owned(), source: Box::new(error) })
}

impl<'r> FromRow<'r, SqliteRow> for Event {
    fn from_row(row: &'r SqliteRow) -> sqlx::Result<Self> {
        Ok(Self {
            seq: row.try_get("position")?,
            event: parsed(row, "event")?,
            timestamp: moment(row, "timestamp")?,
            meta: meta(row)?,
        })
    }
}

/// An order that is due.
pub(super) struct DueRow {
    pub order_id: OrderId,
    pub status: Status,
    pub seq: i64,
    pub due_at: Timestamp,
    /// Whether people move it.
    pub by_people: bool,
}

impl<'r> FromRow<'r, SqliteRow> for DueRow {
    fn from_row(row: &'r SqliteRow) -> sqlx::Result<Self> {
        Ok(Self {
            order_id: parsed(row, "order_id")?,
            status: parsed(row, "status")?,
            seq: row.try_get("seq")?,
            due_at: moment(row, "due_at")?,
            by_people: row.try_get("by_people")?,
        })
    }
}
