//! The SQL of what is reported: orders are read and judged under the write lock, and written.

use std::collections::{HashMap, HashSet};

use serde::Serialize;
use sqlx::{FromRow as _, Row, SqliteConnection, SqlitePool, sqlite::SqliteRow};
use tokio::time::Instant;

use super::{
    super::reports::{
        Known, LAST_TEXT, OrderReport, Remembered, Reported, Written, judge_all, noted, put_notes,
    },
    StoreError,
    arrive::insert_events,
    rows::{EventRow, IdRow, json},
    verbs::timelines,
};
use crate::order::{AuditedReport, OrderId, Rules, Status, Timestamp, TrackedOrder};

/// What a report changes in `orders`.
#[derive(Serialize)]
struct OrderRow {
    order_id: OrderId,
    status: Status,
    seq: u32,
    updated_at: i64,
    due_at: Option<i64>,
    expected_at: Option<i64>,
    ready_at: Option<i64>,
}

/// A row of `order_reports`.
#[derive(Serialize)]
struct SaidRow<'a> {
    order_id: OrderId,
    seq: u32,
    report_id: Option<&'a str>,
    said: String,
    note: Option<&'a str>,
}

pub(super) async fn report(
    tx: &mut SqliteConnection,
    reports: &[OrderReport],
    rules: &Rules,
    (now, earlier): (Timestamp, Option<Instant>),
) -> Result<Vec<Reported>, StoreError> {
    let known = read(tx, reports).await?;
    let (answers, written) = judge_all(reports, known, rules, (now, earlier));
    if !written.is_empty() {
        write(tx, &written).await?;
    }
    Ok(answers)
}

async fn read(
    tx: &mut SqliteConnection,
    reports: &[OrderReport],
) -> Result<HashMap<OrderId, Known>, StoreError> {
    let orders: HashSet<OrderId> = reports.iter().map(|report| report.order_id).collect();
    let orders: Vec<OrderId> = orders.into_iter().collect();
    let ids: HashSet<&str> = reports.iter().filter_map(|report| report.report.id.as_deref()).collect();
    let found = timelines(&mut *tx, &orders).await?;
    let rows =
        sqlx::query("SELECT order_id, seq FROM orders WHERE order_id IN (SELECT value FROM json_each(?1))")
            .bind(json(&orders)?)
            .fetch_all(&mut *tx)
            .await?;
    let row_seqs = rows.iter().map(|row| Ok((IdRow::from_row(row)?.0, row.try_get("seq")?)));
    let row_seqs = row_seqs.collect::<sqlx::Result<HashMap<OrderId, u32>>>()?;
    let mut known: HashMap<OrderId, Known> = found
        .into_iter()
        .map(|tracked| {
            let order_id = tracked.order.order_id;
            let row_seq = row_seqs.get(&order_id).copied().unwrap_or_default();
            (order_id, Known { tracked, row_seq, reports: HashMap::new() })
        })
        .collect();
    if ids.is_empty() {
        return Ok(known);
    }
    let rows = sqlx::query(
        "SELECT order_id, report_id, seq, said, note FROM order_reports
         WHERE order_id IN (SELECT value FROM json_each(?1)) AND report_id IN (SELECT value FROM json_each(?2))",
    )
    .bind(json(&orders)?)
    .bind(json(&ids.into_iter().collect::<Vec<_>>())?)
    .fetch_all(tx)
    .await?;
    for row in &rows {
        let said: &str = row.try_get("said")?;
        let said = serde_json::from_str(said).map_err(|error| StoreError::Refused(error.to_string()))?;
        let remembered = Remembered { seq: row.try_get("seq")?, said, note: note(row)? };
        if let Some(known) = known.get_mut(&IdRow::from_row(row)?.0) {
            known.reports.insert(row.try_get("report_id")?, remembered);
        }
    }
    Ok(known)
}

fn note(row: &SqliteRow) -> sqlx::Result<Option<String>> {
    row.try_get("note")
}

async fn write(tx: &mut SqliteConnection, written: &[Written]) -> Result<(), StoreError> {
    let millis = |at: Option<Timestamp>| at.map(|at| at.timestamp_millis());
    let row = |row: &Written| OrderRow {
        order_id: row.order.order_id,
        status: row.order.status,
        seq: row.seq,
        updated_at: row.order.updated_at.timestamp_millis(),
        due_at: millis(row.order.due_at),
        expected_at: millis(row.order.expected_at),
        ready_at: millis(row.ready_at),
    };
    sqlx::query(
        "UPDATE orders SET status = value ->> 'status', seq = value ->> 'seq', updated_at = value ->> 'updated_at',
             due_at = value ->> 'due_at', expected_at = value ->> 'expected_at', ready_at = value ->> 'ready_at'
         FROM json_each(?1) WHERE order_id = value ->> 'order_id'",
    )
    .bind(json(&written.iter().map(row).collect::<Vec<_>>())?)
    .execute(&mut *tx)
    .await?;
    let events = written.iter().flat_map(|row| {
        row.events.iter().map(|event| EventRow {
            order_id: row.order.order_id,
            event: event.event,
            seq: event.seq.into(),
            timestamp: event.timestamp.timestamp_millis(),
            meta: event.meta.as_ref(),
        })
    });
    insert_events(&mut *tx, events.collect()).await?;
    let said: Vec<SaidRow> = written
        .iter()
        .flat_map(|row| row.said.iter().map(|said| (row.order.order_id, said)))
        .map(|(order_id, said)| SaidRow {
            order_id,
            seq: said.seq,
            report_id: said.report_id.as_deref(),
            said: said.said.to_string(),
            note: said.note.as_deref(),
        })
        .collect();
    if !said.is_empty() {
        sqlx::query(
            "INSERT INTO order_reports (order_id, seq, report_id, said, note)
             SELECT value ->> 'order_id', value ->> 'seq', value ->> 'report_id', value ->> 'said', value ->> 'note'
             FROM json_each(?1)",
        )
        .bind(json(&said)?)
        .execute(&mut *tx)
        .await?;
    }
    Ok(())
}

/// What is kept beside events, each with its event, by the primary key.
pub(super) async fn audit(
    read: &SqlitePool,
    (order_id, seq): (&str, i64),
    until: Option<&str>,
    limit: usize,
) -> Result<Vec<AuditedReport>, StoreError> {
    let rows = sqlx::query(
        "SELECT r.order_id, r.seq, r.report_id, r.note IS NOT NULL AS has_note,
             CASE WHEN json_valid(r.said) THEN CAST(r.said ->> 'event' AS TEXT) END AS said,
             (SELECT e.event FROM order_events AS e WHERE e.order_id = r.order_id AND e.seq = r.seq LIMIT 1) AS event
         FROM order_reports AS r WHERE (r.order_id, r.seq) > (?1, ?2) AND r.order_id <= ?3
         ORDER BY r.order_id, r.seq LIMIT ?4",
    )
    .bind(order_id)
    .bind(seq)
    .bind(until.unwrap_or(LAST_TEXT))
    .bind(i64::try_from(limit).unwrap_or(i64::MAX))
    .fetch_all(read)
    .await?;
    let audited = |row: &SqliteRow| {
        Ok(AuditedReport {
            order_id: row.try_get("order_id")?,
            seq: row.try_get("seq")?,
            report_id: row.try_get("report_id")?,
            said: row.try_get("said")?,
            has_note: row.try_get("has_note")?,
            event: row.try_get("event")?,
        })
    };
    Ok(rows.iter().map(audited).collect::<sqlx::Result<_>>()?)
}

/// Puts the notes where timelines say that there are some; no statement where they say so of none.
pub(super) async fn with_notes(
    read: &SqlitePool,
    mut found: Vec<TrackedOrder>,
) -> Result<Vec<TrackedOrder>, StoreError> {
    let orders = noted(&found);
    if orders.is_empty() {
        return Ok(found);
    }
    let rows = sqlx::query(
        "SELECT order_id, seq, note FROM order_reports
         WHERE order_id IN (SELECT value FROM json_each(?1)) AND note IS NOT NULL",
    )
    .bind(json(&orders)?)
    .fetch_all(read)
    .await?;
    let note = |row: &SqliteRow| Ok(((IdRow::from_row(row)?.0, row.try_get("seq")?), row.try_get("note")?));
    let notes = rows.iter().map(note).collect::<sqlx::Result<HashMap<_, _>>>()?;
    put_notes(&mut found, &notes);
    Ok(found)
}
