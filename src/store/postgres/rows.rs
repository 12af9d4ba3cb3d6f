//! How orders come out of PostgreSQL.

use std::str::FromStr;

use chrono::{DateTime, Datelike as _};
use serde_json::Value;
use sqlx::{
    Decode, FromRow, Postgres, Row, Type,
    error::BoxDynError,
    postgres::{PgHasArrayType, PgRow, PgTypeInfo, PgValueRef},
};

use super::super::odd_rows;
use crate::order::{
    AuditedEvent, Event, EventFacts, EventKind, Order, OrderDetails, OrderId, Timestamp, TrackedOrder,
};

/// Leaves out rows that can't be read: one that somebody has made unreadable by hand must not hide the others.
pub(super) fn readable<T>(rows: &[PgRow], decode: impl Fn(&PgRow) -> sqlx::Result<T>) -> Vec<T> {
    odd_rows::readable(rows, |row| row.try_get("order_id").unwrap_or_default(), decode)
}

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

pub(super) fn details(row: &PgRow) -> sqlx::Result<OrderDetails> {
    Ok(OrderDetails {
        customer_name: row.try_get("customer_name")?,
        address: row.try_get("address")?,
        item: row.try_get("item")?,
        size: parsed(row, "size")?,
    })
}

/// A `timestamptz` of whatever value: `infinity`, which the driver's own type panics at, is an error.
struct Moment(Timestamp);

impl Type<Postgres> for Moment {
    fn type_info() -> PgTypeInfo {
        <Timestamp as Type<Postgres>>::type_info()
    }
}

impl PgHasArrayType for Moment {
    fn array_type_info() -> PgTypeInfo {
        <Timestamp as PgHasArrayType>::array_type_info()
    }
}

/// 2000-01-01, from which PostgreSQL counts, in microseconds.
const EPOCH: i64 = 946_684_800_000_000;

impl<'r> Decode<'r, Postgres> for Moment {
    fn decode(value: PgValueRef<'r>) -> Result<Self, BoxDynError> {
        let micros = <i64 as Decode<Postgres>>::decode(value)?;
        let moment = micros.checked_add(EPOCH).and_then(DateTime::from_timestamp_micros);
        // What RFC 3339 can't show is no moment of ours, and leaves room for every sum.
        let shown = moment.filter(|moment| (0..=9_999).contains(&moment.year()));
        shown.map(Self).ok_or_else(|| "a moment that is not within the years 0 to 9999".into())
    }
}

pub(super) fn moment(row: &PgRow, column: &str) -> sqlx::Result<Timestamp> {
    row.try_get::<Moment, _>(column).map(|Moment(moment)| moment)
}

/// The same where there may be none.
pub(super) fn moment_if_any(row: &PgRow, column: &str) -> sqlx::Result<Option<Timestamp>> {
    Ok(row.try_get::<Option<Moment>, _>(column)?.map(|Moment(moment)| moment))
}

impl<'r> FromRow<'r, PgRow> for Order {
    fn from_row(row: &'r PgRow) -> sqlx::Result<Self> {
        Ok(Self {
            order_id: order_id(row)?,
            details: details(row)?,
            status: parsed(row, "status")?,
            created_at: moment(row, "created_at")?,
            updated_at: moment(row, "updated_at")?,
            due_at: moment_if_any(row, "due_at")?,
            expected_at: moment_if_any(row, "expected_at")?,
        })
    }
}

/// The name of an event, read where it lies: a text of its own for each would cost more than all else of a timeline.
struct Kind(EventKind);

impl Type<Postgres> for Kind {
    fn type_info() -> PgTypeInfo {
        <str as Type<Postgres>>::type_info()
    }

    fn compatible(of: &PgTypeInfo) -> bool {
        <str as Type<Postgres>>::compatible(of)
    }
}

impl PgHasArrayType for Kind {
    fn array_type_info() -> PgTypeInfo {
        <&str as PgHasArrayType>::array_type_info()
    }
}

impl<'r> Decode<'r, Postgres> for Kind {
    fn decode(value: PgValueRef<'r>) -> Result<Self, BoxDynError> {
        Ok(Self(<&str as Decode<Postgres>>::decode(value)?.parse()?))
    }
}

/// A timeline in three arrays; none where somebody has taken every event away.
fn history(row: &PgRow) -> sqlx::Result<impl Iterator<Item = (i64, EventKind, Timestamp)>> {
    let positions: Vec<i32> = row.try_get::<Option<_>, _>("positions")?.unwrap_or_default();
    let kinds: Vec<Kind> = row.try_get::<Option<_>, _>("events")?.unwrap_or_default();
    let stamps: Vec<Moment> = row.try_get::<Option<_>, _>("stamps")?.unwrap_or_default();
    let kinds = kinds.into_iter().map(|Kind(kind)| kind);
    let stamps = stamps.into_iter().map(|Moment(stamp)| stamp);
    Ok(positions.into_iter().map(i64::from).zip(kinds).zip(stamps).map(|((seq, kind), at)| (seq, kind, at)))
}

fn metas(row: &PgRow) -> sqlx::Result<Vec<Option<Value>>> {
    Ok(row.try_get::<Option<_>, _>("metas")?.unwrap_or_default())
}

/// A timeline as an auditor reads it.
pub(super) fn audited_events(row: &PgRow) -> sqlx::Result<Vec<AuditedEvent>> {
    let event = |((seq, event, timestamp), meta): (_, Option<Value>)| {
        let facts = EventFacts::of(meta.as_ref());
        AuditedEvent { seq, event, timestamp, facts }
    };
    Ok(history(row)?.zip(metas(row)?).map(event).collect())
}

fn odd_position(error: std::num::TryFromIntError) -> sqlx::Error {
    sqlx::Error::ColumnDecode { index: "seq".to_owned(), source: Box::new(error) }
}

/// An order with its events as arrays: one row an order costs less than one row an event.
pub(super) fn tracked(row: &PgRow) -> sqlx::Result<TrackedOrder> {
    let event = |((seq, event, timestamp), meta)| {
        Ok(Event { seq: u32::try_from(seq).map_err(odd_position)?, event, timestamp, meta })
    };
    let events = history(row)?.zip(metas(row)?).map(event);
    let mut events = events.collect::<sqlx::Result<Vec<Event>>>()?;
    events.sort_by_key(|event| event.seq);
    Ok(TrackedOrder { order: Order::from_row(row)?, events })
}
