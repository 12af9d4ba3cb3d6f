//! The SQL of the verbs that move, read and publish.

use sqlx::{FromRow as _, PgConnection, Row, postgres::PgRow};

use super::{
    super::{AuditPage, Found, Page, Position, columns::order_columns},
    rows::{audited_events, moment, moment_if_any, order_id, parsed, readable, tracked},
    timers::{texts, wait},
};
use crate::order::{AuditedOrder, Order, OrderId, Timestamp, to_millis};

pub(super) async fn find_all(
    db: &mut PgConnection,
    order_ids: &[OrderId],
    now: Option<Timestamp>,
) -> sqlx::Result<Found> {
    // One statement sees one moment: a step between two would tear order and timeline apart.
    let rows = sqlx::query(concat!(
        "SELECT ",
        order_columns!("o."),
        r#", e.positions, e.events, e.stamps, e.metas, COALESCE($2, clock_timestamp()) AS now
         FROM orders AS o CROSS JOIN LATERAL (
             SELECT array_agg(seq) AS positions, array_agg(event) AS events, array_agg("timestamp") AS stamps,
                 array_agg(meta) AS metas
             FROM order_events WHERE order_id = o.order_id HAVING count(*) > 0) AS e
         WHERE o.order_id = ANY($1)"#
    ))
    .bind(texts(order_ids))
    .bind(now)
    .fetch_all(&mut *db)
    .await?;
    let now = rows.first().map(|row| moment(row, "now")).transpose()?.map(to_millis);
    let orders = rows.iter().map(tracked).collect::<sqlx::Result<_>>()?;
    Ok(Found { now: now.unwrap_or_default(), orders })
}

pub(super) async fn positions(
    db: &mut PgConnection,
    orders: &[OrderId],
    now: Option<Timestamp>,
) -> sqlx::Result<Vec<Position>> {
    let rows = sqlx::query(
        "SELECT order_id, status, due_at, COALESCE($2, clock_timestamp()) AS now
         FROM orders WHERE order_id = ANY($1)",
    )
    .bind(texts(orders))
    .bind(now)
    .fetch_all(&mut *db)
    .await?;
    let position = |row: &PgRow| {
        let (now, due_at) = (moment(row, "now")?, moment_if_any(row, "due_at")?);
        let due_in = due_at.map(|due_at| wait(due_at, now));
        Ok(Position { order_id: order_id(row)?, status: parsed(row, "status")?, due_in })
    };
    Ok(readable(&rows, position))
}

pub(super) async fn list(db: &mut PgConnection, page: &Page) -> sqlx::Result<Vec<Order>> {
    // `~` sorts after every id.
    let before = page.before.map_or_else(|| "~".to_owned(), |id| id.to_string());
    let limit = i64::try_from(page.limit).unwrap_or(i64::MAX);
    let query = match page.status {
        // Says "status = $3" in a way that only (status, order_id) can serve in order: where most orders have a
        // status, the planner would walk down the primary key past all newer orders that have another.
        Some(status) => sqlx::query(concat!(
            "SELECT ",
            order_columns!(""),
            " FROM orders WHERE (status, order_id) < ($3, $1) AND status >= $3
             ORDER BY status DESC, order_id DESC LIMIT $2"
        ))
        .bind(before)
        .bind(limit)
        .bind(status.as_str()),
        None => sqlx::query(concat!(
            "SELECT ",
            order_columns!(""),
            " FROM orders WHERE order_id < $1 ORDER BY order_id DESC LIMIT $2"
        ))
        .bind(before)
        .bind(limit),
    };
    let rows = query.fetch_all(&mut *db).await?;
    Ok(readable(&rows, |row| Order::from_row(row)))
}

pub(super) async fn audit(
    db: &mut PgConnection,
    after: Option<&str>,
    limit: usize,
    now: Option<Timestamp>,
) -> sqlx::Result<AuditPage> {
    let rows = sqlx::query(
        r#"SELECT COALESCE($3, clock_timestamp()) AS now, o.order_id, o.status, o.seq, o.created_at, o.updated_at, o.due_at,
             o.expected_at,
             -- With EXISTS the planner may read the whole outbox into a hash for each page.
             COALESCE((SELECT true FROM outbox AS u WHERE u.order_id = o.order_id), false) AS unsent,
             e.positions, e.events, e.stamps, e.metas
         FROM orders AS o CROSS JOIN LATERAL (
             SELECT array_agg(seq ORDER BY id) AS positions, array_agg(event ORDER BY id) AS events,
                 array_agg("timestamp" ORDER BY id) AS stamps, array_agg(meta ORDER BY id) AS metas
             FROM order_events WHERE order_id = o.order_id) AS e
         WHERE o.order_id > $1 ORDER BY o.order_id LIMIT $2"#,
    )
    .bind(after.unwrap_or_default())
    .bind(i64::try_from(limit).unwrap_or(i64::MAX))
    .bind(now)
    .fetch_all(&mut *db)
    .await?;
    let now = rows.first().map(|row| moment(row, "now")).transpose()?.unwrap_or_default();
    let last = rows.last().map(|row| row.try_get("order_id")).transpose()?;
    let (mut orders, mut unreadable) = (Vec::with_capacity(rows.len()), Vec::new());
    for row in &rows {
        match audited(row) {
            Ok(order) => orders.push(order),
            Err(_) => unreadable.push(row.try_get("order_id")?),
        }
    }
    Ok(AuditPage { now, orders, unreadable, last })
}

fn audited(row: &PgRow) -> sqlx::Result<AuditedOrder> {
    Ok(AuditedOrder {
        order_id: order_id(row)?,
        status: parsed(row, "status")?,
        seq: row.try_get::<i32, _>("seq")?.into(),
        created_at: moment(row, "created_at")?,
        updated_at: moment(row, "updated_at")?,
        due_at: moment_if_any(row, "due_at")?,
        expected_at: moment_if_any(row, "expected_at")?,
        unsent: row.try_get("unsent")?,
        events: audited_events(row)?,
    })
}
