//! The SQL behind board and gauges: what waits and what people should look at. Whatever is counted is
//! counted up to a limit, and bounds are constants to the planner (`(SELECT …)`), or all would be read.

use std::time::Duration;

use sqlx::{FromRow as _, PgConnection, Row as _, postgres::PgRow};
use tokio::time::Instant;

use super::{
    super::{
        Backlog, COUNTED_TO, Counts, LateOrders, LateSteps, Overdue, UNSENT_LISTED, Unsent,
        columns::order_columns, figures::OLDEST_OF,
    },
    reach::Reach,
    rows::{moment, moment_if_any, order_id, parsed, readable},
    timers::time,
};
use crate::order::{Order, OrderId, PerStatus, Status, Timestamp, to_millis};

/// How far back each figure is read.
#[derive(Debug, Default)]
pub(super) struct FigureReaches {
    pub(super) backlog: Reach,
    pub(super) overdue: Reach,
    pub(super) late: Reach,
    pub(super) counts: Reach,
    pub(super) lost: Reach,
}

/// What somebody has written by hand may be no moment; earlier or later ones are none that we could reckon with.
macro_rules! is_moment {
    ($column:literal) => {
        concat!($column, " BETWEEN '0001-01-01' AND '9999-12-30'")
    };
}

/// One row at least: the moment, how many wait, and since when the oldest does.
const BACKLOG: &str = concat!(
    "WITH waiting AS MATERIALIZED (
         SELECT order_id, created_at FROM outbox WHERE order_id >= $2 ORDER BY order_id LIMIT $3
     )
     SELECT COALESCE($1, clock_timestamp()) AS now, (SELECT count(*) FROM waiting) AS unsent,
         (SELECT min(created_at) FROM (SELECT created_at FROM waiting LIMIT $4) AS o WHERE ",
    is_moment!("created_at"),
    ") AS oldest, first.order_id, first.created_at
     FROM (SELECT 1) AS one LEFT JOIN (SELECT * FROM waiting LIMIT $5) AS first ON true"
);

const LATE: &str = "
    WITH clock AS MATERIALIZED (
        SELECT COALESCE($1, clock_timestamp()) AS now
    ), late AS MATERIALIZED (
        SELECT due_at FROM orders
        WHERE due_at >= COALESCE($2, '0001-01-01'::timestamptz) AND due_at < (SELECT now FROM clock)
        ORDER BY due_at LIMIT $4
    )
    SELECT clock.now, (SELECT min(due_at) FROM late) AS most,
        (SELECT count(*) FROM late WHERE due_at < clock.now - $3::float8 * interval '1 second') AS overdue
    FROM clock";

/// Orders that people move and that are late, by status. Read in the order of the index of both, which holds no others.
macro_rules! late_of_status {
    ($columns:expr) => {
        concat!(
            "SELECT ",
            $columns,
            " FROM orders WHERE status = s.status AND expected_at >= COALESCE($2, '0001-01-01'::timestamptz)
             AND expected_at < (SELECT now FROM clock) ORDER BY expected_at LIMIT $4"
        )
    };
}

const LATE_ORDERS: &str = concat!(
    "WITH clock AS MATERIALIZED (SELECT COALESCE($1, clock_timestamp()) AS now)
     SELECT clock.now, s.status,
         (SELECT count(*) FROM (",
    late_of_status!("1"),
    ") AS o) AS late
     FROM unnest($3::text[]) AS s (status), clock"
);

const FIRST_LATE: &str = concat!(
    "WITH clock AS MATERIALIZED (SELECT $1::timestamptz AS now)
     SELECT o.* FROM unnest($3::text[]) AS s (status) CROSS JOIN LATERAL (",
    late_of_status!(order_columns!("")),
    ") AS o"
);

impl FigureReaches {
    /// What waits to be published.
    pub(super) async fn backlog(
        &self,
        db: &mut PgConnection,
        now: Option<Timestamp>,
    ) -> sqlx::Result<Backlog> {
        let (back, started) = (self.backlog.back(), Instant::now());
        self.backlog.judge(started, backlog(db, now, back).await)
    }

    /// Steps that are late.
    pub(super) async fn overdue(
        &self,
        db: &mut PgConnection,
        now: Option<Timestamp>,
        late: Duration,
        limit: usize,
    ) -> sqlx::Result<LateSteps> {
        let (back, started) = (self.overdue.back(), Instant::now());
        self.overdue.judge(started, overdue(db, now, back, late, limit).await)
    }

    /// Orders that people have not moved in time.
    pub(super) async fn late(
        &self,
        db: &mut PgConnection,
        now: Option<Timestamp>,
        limit: usize,
    ) -> sqlx::Result<LateOrders> {
        let (back, started) = (self.late.back(), Instant::now());
        self.late.judge(started, late(db, now, back, limit).await)
    }

    /// Orders by status.
    pub(super) async fn count(
        &self,
        db: &mut PgConnection,
        now: Option<Timestamp>,
        statuses: &[Status],
    ) -> sqlx::Result<Counts> {
        let (back, started) = (self.counts.back(), Instant::now());
        self.counts.judge(started, count(db, now, back, statuses).await)
    }
}

/// When a reading begins, and with which id if it goes by them.
pub(super) async fn begin(
    db: &mut PgConnection,
    now: Option<Timestamp>,
    back: Option<Duration>,
) -> sqlx::Result<(Option<Timestamp>, String)> {
    let Some(back) = back else { return Ok((None, String::new())) };
    let since = to_millis(time(db, now).await? - back);
    Ok((Some(since), OrderId::first_of(since).to_string()))
}

fn number(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

async fn backlog(
    db: &mut PgConnection,
    now: Option<Timestamp>,
    back: Option<Duration>,
) -> sqlx::Result<Backlog> {
    let (since, first_id) = begin(db, now, back).await?;
    let rows = sqlx::query(BACKLOG)
        .bind(now)
        .bind(first_id)
        .bind(COUNTED_TO)
        .bind(number(OLDEST_OF))
        .bind(number(UNSENT_LISTED))
        .fetch_all(db)
        .await?;
    let head = rows.first().ok_or(sqlx::Error::RowNotFound)?;
    let (now, unsent) = (moment(head, "now")?, head.try_get::<i64, _>("unsent")?.unsigned_abs());
    let age = |at: Timestamp| (now - at).to_std().unwrap_or_default();
    let oldest = moment_if_any(head, "oldest")?;
    let first = |row: &PgRow| Ok(Unsent { order_id: order_id(row)?, age: age(moment(row, "created_at")?) });
    Ok(Backlog {
        unsent,
        oldest_unsent: oldest.map(to_millis),
        oldest_unsent_age: oldest.map(age).unwrap_or_default(),
        first: if unsent > 0 { readable(&rows, first) } else { Vec::new() },
        since,
    })
}

async fn overdue(
    db: &mut PgConnection,
    now: Option<Timestamp>,
    back: Option<Duration>,
    late: Duration,
    limit: usize,
) -> sqlx::Result<LateSteps> {
    let (since, _) = begin(db, now, back).await?;
    let head = sqlx::query(LATE)
        .bind(now)
        .bind(since)
        .bind(late.as_secs_f64())
        .bind(COUNTED_TO)
        .fetch_one(&mut *db)
        .await?;
    let (now, earliest) = (moment(&head, "now")?, moment_if_any(&head, "most")?);
    let age = |at: Timestamp| (now - at).to_std().unwrap_or_default();
    let orders = head.try_get::<i64, _>("overdue")?.unsigned_abs();
    let first = match earliest {
        Some(earliest) if orders > 0 => late_orders(db, earliest, now - late, limit).await?,
        _ => Vec::new(),
    };
    let first = readable(&first, |row| {
        Ok(Overdue { order: Order::from_row(row)?, late: age(moment(row, "due_at")?) })
    });
    Ok(LateSteps { most: earliest.map(age).unwrap_or_default(), orders, first, since })
}

/// From the one that is most overdue on, so that nothing dead is walked past again.
async fn late_orders(
    db: &mut PgConnection,
    earliest: Timestamp,
    until: Timestamp,
    limit: usize,
) -> sqlx::Result<Vec<PgRow>> {
    sqlx::query(concat!(
        "SELECT ",
        order_columns!(""),
        " FROM orders WHERE due_at >= $1 AND due_at < $2 ORDER BY due_at LIMIT $3"
    ))
    .bind(earliest)
    .bind(until)
    .bind(number(limit))
    .fetch_all(db)
    .await
}

async fn count(
    db: &mut PgConnection,
    now: Option<Timestamp>,
    back: Option<Duration>,
    statuses: &[Status],
) -> sqlx::Result<Counts> {
    let (since, first_id) = begin(db, now, back).await?;
    // Nothing leaves a final status, so nothing is dead there. As in `list`, "status = s.status" is said in a way
    // that only (status, order_id) can serve.
    let first = |status: &Status| if status.is_final() { "" } else { first_id.as_str() };
    let rows = sqlx::query(
        "SELECT s.status, (SELECT count(*) FROM (
             SELECT 1 FROM orders WHERE (status, order_id) >= (s.status, s.first) AND status <= s.status
             LIMIT $3) AS o) AS orders
         FROM unnest($1::text[], $2::text[]) AS s (status, first)",
    )
    .bind(statuses.iter().map(|status| status.as_str()).collect::<Vec<_>>())
    .bind(statuses.iter().map(first).collect::<Vec<_>>())
    .bind(COUNTED_TO)
    .fetch_all(db)
    .await?;
    let mut orders = PerStatus::default();
    for row in &rows {
        let status: Status = parsed(row, "status")?;
        orders[status] = row.try_get::<i64, _>("orders")?.unsigned_abs();
    }
    Ok(Counts { orders, since })
}

async fn late(
    db: &mut PgConnection,
    now: Option<Timestamp>,
    back: Option<Duration>,
    limit: usize,
) -> sqlx::Result<LateOrders> {
    let (since, _) = begin(db, now, back).await?;
    let statuses: Vec<&str> = Status::open().map(Status::as_str).collect();
    let rows = sqlx::query(LATE_ORDERS)
        .bind(now)
        .bind(since)
        .bind(&statuses)
        .bind(COUNTED_TO)
        .fetch_all(&mut *db)
        .await?;
    let mut orders = PerStatus::default();
    for row in &rows {
        let status: Status = parsed(row, "status")?;
        orders[status] = row.try_get::<i64, _>("late")?.unsigned_abs();
    }
    let now = moment(rows.first().ok_or(sqlx::Error::RowNotFound)?, "now")?;
    let late: Vec<&str> = orders.iter().filter(|(_, late)| **late > 0).map(|(s, _)| s.as_str()).collect();
    if late.is_empty() {
        return Ok(LateOrders { orders, first: Vec::new(), since });
    }
    let rows =
        sqlx::query(FIRST_LATE).bind(now).bind(since).bind(late).bind(number(limit)).fetch_all(db).await?;
    let mut first = readable(&rows, |row| {
        let behind = (now - moment(row, "expected_at")?).to_std().unwrap_or_default();
        Ok(Overdue { order: Order::from_row(row)?, late: behind })
    });
    first.sort_by_key(|overdue| std::cmp::Reverse(overdue.late));
    first.truncate(limit);
    Ok(LateOrders { orders, first, since })
}
