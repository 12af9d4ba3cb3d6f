//! The SQL of what is reported: orders are read, judged here, and written if they are still as they were read.

#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, HashSet},
    sync::atomic::{AtomicBool, Ordering},
};

use serde_json::Value;
use sqlx::{PgConnection, Row, postgres::PgRow, types::Json};
use tokio::time::Instant;
use tracing::{info, warn};

use super::{
    super::{
        ReportOutcome,
        columns::order_columns,
        reports::{
            Known, LAST_TEXT, OrderReport, Remembered, Reported, Written, judge_all, noted, put_notes,
        },
    },
    rows::{moment, order_id, tracked},
    timers::texts,
};
use crate::order::{AuditedReport, Event, Order, OrderId, Rules, Timestamp, TrackedOrder};

/// Orders with their timelines, and what was reported of them under these ids; one row at least, that of the moment.
const READ: &str = concat!(
    "WITH t AS MATERIALIZED (
         SELECT COALESCE($3, date_trunc('milliseconds', clock_timestamp())) AS now
     ), r AS MATERIALIZED (
         SELECT r.order_id, array_agg(r.report_id) AS report_ids, array_agg(r.seq) AS seqs, array_agg(r.said) AS said,
             array_agg(r.note) AS notes
         FROM unnest($4::text[], $2::text[]) AS sent (order_id, report_id)
         CROSS JOIN LATERAL (
             SELECT * FROM order_reports AS r
             WHERE r.order_id = sent.order_id AND r.report_id = sent.report_id LIMIT 1) AS r
         GROUP BY r.order_id
     )
     SELECT t.now, f.* FROM t LEFT JOIN LATERAL (SELECT ",
    order_columns!("o."),
    r#", o.seq AS row_seq, e.positions, e.events, e.stamps, e.metas, r.report_ids, r.seqs, r.said, r.notes
     FROM orders AS o CROSS JOIN LATERAL (
         SELECT array_agg(seq) AS positions, array_agg(event) AS events, array_agg("timestamp") AS stamps,
             array_agg(meta) AS metas
         FROM order_events WHERE order_id = o.order_id HAVING count(*) > 0) AS e
     LEFT JOIN r USING (order_id)
     WHERE o.order_id = ANY($1)) AS f ON true"#
);

/// Changes the orders that are still at the position that they were read at, one after the other by their ids, as they
/// are handed in, and passes over what somebody else is writing: nobody is waited for, and no two can wait for each other.
/// All that a row needs comes with its lock, and it is changed where it lies: what joins orders again by their ids is
/// planned for ten of them, and compares each with each where there are 512.
const WRITE: &str = r#"WITH held AS MATERIALIZED (
        SELECT i.*, o.place
        FROM unnest($1::text[], $2::integer[], $3::integer[], $4::text[], $5::timestamptz[], $6::timestamptz[],
                $7::timestamptz[], $8::timestamptz[]) WITH ORDINALITY
            AS i (order_id, was_seq, seq, status, updated_at, due_at, expected_at, ready_at, nth)
        CROSS JOIN LATERAL (
            SELECT o.ctid AS place FROM orders AS o WHERE o.order_id = i.order_id AND o.seq = i.was_seq
            LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED) AS o
    ), moved AS (
        UPDATE orders AS o SET status = h.status, seq = h.seq, updated_at = h.updated_at, due_at = h.due_at,
            expected_at = h.expected_at, ready_at = h.ready_at
        FROM held AS h WHERE o.ctid = h.place
        RETURNING o.order_id, h.nth
    ), history AS (
        INSERT INTO order_events (order_id, event, seq, "timestamp", meta)
        SELECT m.order_id, e.event, e.seq, e.stamp, e.meta
        FROM unnest($9::bigint[], $10::text[], $11::integer[], $12::timestamptz[], $13::jsonb[])
            AS e (nth, event, seq, stamp, meta)
        JOIN moved AS m USING (nth)
        ORDER BY nth, e.seq
    ), kept AS (
        INSERT INTO order_reports (order_id, seq, report_id, said, note)
        SELECT m.order_id, r.seq, r.report_id, r.said, r.note
        FROM unnest($14::bigint[], $15::integer[], $16::text[], $17::jsonb[], $18::text[])
            AS r (nth, seq, report_id, said, note)
        JOIN moved AS m USING (nth)
        ORDER BY nth, r.seq
    )
    SELECT order_id FROM moved"#;

/// Two statements. Those whose orders somebody else was changing are told so: nothing was written of them.
pub(super) async fn report(
    db: &mut PgConnection,
    reports: &[OrderReport],
    rules: &Rules,
    (now, earlier): (Option<Timestamp>, Option<Instant>),
) -> sqlx::Result<Vec<Reported>> {
    let (now, known) = read(db, reports, now).await?;
    let (mut answers, written) = judge_all(reports, known, rules, (now, earlier));
    let done = write(db, &written).await?;
    // Judged by what was not so any more, and not written.
    let lost: HashSet<OrderId> =
        written.iter().map(|row| row.order.order_id).filter(|id| !done.contains(id)).collect();
    for (report, answer) in reports.iter().zip(&mut answers) {
        if lost.contains(&report.order_id) {
            *answer = Reported { outcome: ReportOutcome::Contended, standing: None };
        }
    }
    Ok(answers)
}

async fn read(
    db: &mut PgConnection,
    reports: &[OrderReport],
    now: Option<Timestamp>,
) -> sqlx::Result<(Timestamp, HashMap<OrderId, Known>)> {
    let orders: HashSet<OrderId> = reports.iter().map(|report| report.order_id).collect();
    let orders: Vec<OrderId> = orders.into_iter().collect();
    let named: HashSet<(OrderId, &str)> =
        reports.iter().filter_map(|report| Some((report.order_id, report.report.id.as_deref()?))).collect();
    let (of, ids): (Vec<String>, Vec<&str>) =
        named.into_iter().map(|(order_id, id)| (order_id.to_string(), id)).unzip();
    let rows = sqlx::query(READ).bind(texts(&orders)).bind(ids).bind(now).bind(of).fetch_all(db).await?;
    let first = rows.first().ok_or(sqlx::Error::RowNotFound)?;
    let now = moment(first, "now")?;
    // Where none of them is there is a row of the moment alone.
    let there =
        rows.iter().filter(|row| row.try_get::<Option<&str>, _>("order_id").is_ok_and(|id| id.is_some()));
    let known = there.map(|row| Ok((order_id(row)?, known(row)?))).collect::<sqlx::Result<_>>()?;
    Ok((now, known))
}

fn known(row: &PgRow) -> sqlx::Result<Known> {
    let ids: Vec<String> = row.try_get::<Option<_>, _>("report_ids")?.unwrap_or_default();
    let seqs: Vec<i32> = row.try_get::<Option<_>, _>("seqs")?.unwrap_or_default();
    let said: Vec<Value> = row.try_get::<Option<_>, _>("said")?.unwrap_or_default();
    let notes: Vec<Option<String>> = row.try_get::<Option<_>, _>("notes")?.unwrap_or_default();
    let remembered = seqs.into_iter().zip(said).zip(notes).map(|((seq, said), note)| Remembered {
        seq: u32::try_from(seq).unwrap_or_default(),
        said,
        note,
    });
    let row_seq = u32::try_from(row.try_get::<i32, _>("row_seq")?).unwrap_or_default();
    Ok(Known { tracked: tracked(row)?, row_seq, reports: ids.into_iter().zip(remembered).collect() })
}

/// Answers which orders were written.
async fn write(db: &mut PgConnection, written: &[Written]) -> sqlx::Result<HashSet<OrderId>> {
    if written.is_empty() {
        return Ok(HashSet::new());
    }
    let stamps = |stamp: fn(&Written) -> Option<Timestamp>| written.iter().map(stamp).collect::<Vec<_>>();
    let texts = |text: fn(&Order) -> String| written.iter().map(|row| text(&row.order)).collect::<Vec<_>>();
    let events =
        || (1_i64..).zip(written).flat_map(|(nth, row)| row.events.iter().map(move |event| (nth, event)));
    let said = || (1_i64..).zip(written).flat_map(|(nth, row)| row.said.iter().map(move |said| (nth, said)));
    let rows = sqlx::query(WRITE)
        .bind(texts(|order| order.order_id.to_string()))
        .bind(written.iter().map(|row| position(row.was_seq)).collect::<Vec<_>>())
        .bind(written.iter().map(|row| position(row.seq)).collect::<Vec<_>>())
        .bind(texts(|order| order.status.to_string()))
        .bind(stamps(|row| Some(row.order.updated_at)))
        .bind(stamps(|row| row.order.due_at))
        .bind(stamps(|row| row.order.expected_at))
        .bind(stamps(|row| row.ready_at))
        .bind(events().map(|(nth, _)| nth).collect::<Vec<_>>())
        .bind(events().map(|(_, event)| event.event.as_str()).collect::<Vec<_>>())
        .bind(events().map(|(_, event)| position(event.seq)).collect::<Vec<_>>())
        .bind(events().map(|(_, event)| event.timestamp).collect::<Vec<_>>())
        .bind(events().map(|(_, event): (_, &Event)| event.meta.as_ref().map(Json)).collect::<Vec<_>>())
        .bind(said().map(|(nth, _)| nth).collect::<Vec<_>>())
        .bind(said().map(|(_, said)| position(said.seq)).collect::<Vec<_>>())
        .bind(said().map(|(_, said)| said.report_id.as_deref()).collect::<Vec<_>>())
        .bind(said().map(|(_, said)| Json(&said.said)).collect::<Vec<_>>())
        .bind(said().map(|(_, said)| said.note.as_deref()).collect::<Vec<_>>())
        .fetch_all(db)
        .await?;
    rows.iter().map(order_id).collect()
}

fn position(seq: u32) -> i32 {
    i32::try_from(seq).unwrap_or(i32::MAX)
}

/// Puts the notes where timelines say that there are some; no statement where they say so of none. A table of notes that
/// can't be read takes no order away.
pub(super) async fn with_notes(db: &mut PgConnection, mut found: Vec<TrackedOrder>) -> Vec<TrackedOrder> {
    let orders = noted(&found);
    if orders.is_empty() {
        return found;
    }
    let notes = notes(db, &orders).await;
    if notes.is_ok() != NOTES_ARE_READ.swap(notes.is_ok(), Ordering::Relaxed) {
        match &notes {
            Ok(_) => info!("notes can be read again"),
            Err(error) => warn!(%error, "notes can't be read; orders are shown without them"),
        }
    }
    put_notes(&mut found, &notes.unwrap_or_default());
    found
}

/// What is kept beside events, each with its event, by the primary key.
const AUDIT: &str = "SELECT r.order_id, r.seq, r.report_id, r.said ->> 'event' AS said, r.note IS NOT NULL AS has_note,
         (SELECT e.event FROM order_events AS e WHERE e.order_id = r.order_id AND e.seq = r.seq LIMIT 1) AS event
     FROM order_reports AS r WHERE (r.order_id, r.seq) > ($1, $2) AND r.order_id <= $3
     ORDER BY r.order_id, r.seq LIMIT $4";

pub(super) async fn audit(
    db: &mut PgConnection,
    (order_id, seq): (&str, i64),
    until: Option<&str>,
    limit: usize,
) -> sqlx::Result<Vec<AuditedReport>> {
    let rows = sqlx::query(AUDIT)
        .bind(order_id)
        .bind(seq)
        .bind(until.unwrap_or(LAST_TEXT))
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .fetch_all(db)
        .await?;
    let audited = |row: &PgRow| {
        Ok(AuditedReport {
            order_id: row.try_get("order_id")?,
            seq: row.try_get::<i32, _>("seq")?.into(),
            report_id: row.try_get("report_id")?,
            said: row.try_get("said")?,
            has_note: row.try_get("has_note")?,
            event: row.try_get("event")?,
        })
    };
    rows.iter().map(audited).collect()
}

/// Whether they could be when they were last asked for.
static NOTES_ARE_READ: AtomicBool = AtomicBool::new(true);

async fn notes(db: &mut PgConnection, orders: &[OrderId]) -> sqlx::Result<HashMap<(OrderId, u32), String>> {
    let rows = sqlx::query(
        "SELECT order_id, seq, note FROM order_reports WHERE order_id = ANY($1) AND note IS NOT NULL",
    )
    .bind(texts(orders))
    .fetch_all(db)
    .await?;
    let note = |row: &PgRow| {
        let seq = u32::try_from(row.try_get::<i32, _>("seq")?).unwrap_or_default();
        Ok(((order_id(row)?, seq), row.try_get("note")?))
    };
    rows.iter().map(note).collect()
}
