//! The SQL that makes due steps.

use std::time::Duration;

use serde_json::Value;
use sqlx::{
    PgConnection, Postgres, Row,
    postgres::{PgArguments, PgRow},
    query::Query,
    types::Json,
};

use super::{
    super::{Advance, DueKey, DueOrders, Transition},
    low_water::Range,
    rows::{moment, moment_if_any, order_id, parsed, readable},
};
use crate::order::{OrderId, PerStatus, StageDelays, Status, Timestamp, not_accepted};

/// Moves the orders that `due` names, those that another replica is moving excepted. All steps of an order
/// are made at one moment, so how far it goes depends on its status alone: `path` and `step` say it.
/// One row at least: the moment, and when the next step is due.
macro_rules! advance {
    ($due:expr) => {
        concat!(
            r#"WITH t AS MATERIALIZED (
                SELECT COALESCE($1, date_trunc('milliseconds', clock_timestamp())) AS now
            ), due AS MATERIALIZED ("#,
            $due,
            r#"), moved AS (
                UPDATE orders AS o SET status = path.last, seq = due.seq + path.steps, updated_at = t.now,
                    due_at = t.now + path.delay_ms * interval '1 millisecond', ready_at = NULL
                FROM due, t, unnest($2::text[], $3::text[], $4::float8[], $5::integer[], $9::boolean[])
                    AS path (status, last, delay_ms, steps, by_people)
                WHERE o.order_id = due.order_id AND path.status = due.status AND path.by_people = due.by_people
                RETURNING o.order_id, due.status AS was, due.by_people, due.seq AS was_seq, due.due_at AS was_due,
                    o.due_at, o.updated_at
            ), history AS (
                INSERT INTO order_events (order_id, event, seq, "timestamp", meta)
                SELECT m.order_id, step.event, m.was_seq + step.nth, m.updated_at, step.meta
                FROM moved AS m
                JOIN unnest($6::text[], $7::text[], $8::integer[], $10::boolean[], $11::jsonb[])
                    AS step (was, event, nth, by_people, meta) USING (was, by_people)
                ORDER BY m.order_id, step.nth
            )
            SELECT t.now, m.order_id, m.was, m.by_people, m.was_seq, m.was_due, m.due_at,
                (SELECT n.due_at FROM orders AS n WHERE n.due_at > (SELECT now FROM t) ORDER BY n.due_at LIMIT 1) AS next
            FROM t LEFT JOIN moved AS m ON true"#
        )
    };
}

macro_rules! due_columns {
    () => {
        "SELECT o.order_id, o.status, o.expected_at IS NOT NULL AS by_people, o.seq, o.due_at FROM orders AS o"
    };
}

/// Bound by constants on both sides, or every order in progress would be read. Those left out are looked up
/// in a hash (`NOT IN (SELECT …)`): a list would be compared with each row from its beginning to its end.
macro_rules! in_range {
    ($from:literal, $after:literal, $to:literal, $except:literal) => {
        concat!(
            "o.due_at >= COALESCE(",
            $from,
            ", '-infinity'::timestamptz)
            AND (o.due_at > COALESCE(",
            $from,
            ", '-infinity'::timestamptz) OR o.order_id > ",
            $after,
            ")
            AND o.due_at <= LEAST((SELECT now FROM t), ",
            $to,
            ")
            AND o.order_id NOT IN (SELECT unnest(",
            $except,
            "::text[]))"
        )
    };
}

pub(super) const IN_RANGE: &str = advance!(concat!(
    due_columns!(),
    " WHERE ",
    in_range!("$12", "$13", "$14", "$15"),
    " ORDER BY o.due_at LIMIT $16 FOR UPDATE OF o SKIP LOCKED"
));

const THESE: &str = advance!(concat!(
    due_columns!(),
    " WHERE o.order_id = ANY($12) AND o.due_at <= (SELECT now FROM t)
     ORDER BY o.order_id FOR UPDATE OF o SKIP LOCKED"
));

/// What becomes of an order that people move when it is due: nobody has taken it.
const NOT_ACCEPTED: [Status; 1] = [Status::Cancelled];

/// What an order in each status becomes when it is due.
struct Paths {
    steps: PerStatus<Vec<Status>>,
    /// How long after the last step the next one is due.
    delay_ms: PerStatus<Option<f64>>,
}

impl Paths {
    fn new(delays: &StageDelays) -> Self {
        let at = Timestamp::UNIX_EPOCH;
        let steps = PerStatus::new(|from| delays.path(from, at, at).steps);
        let last = |from| steps[from].last().copied().unwrap_or(from);
        let delay_ms = PerStatus::new(|from| Some(delays.after(last(from))?.as_secs_f64() * 1e3));
        Self { steps, delay_ms }
    }

    /// The steps of an order at this position, which a timer moves or people do.
    fn transitions(
        &self,
        order_id: OrderId,
        (was, by_people): (Status, bool),
        was_seq: u32,
    ) -> impl Iterator<Item = Transition> {
        let (mut from, mut seq) = (was, was_seq);
        let steps: &[Status] = if by_people { &NOT_ACCEPTED } else { &self.steps[was] };
        steps.iter().map(move |to| {
            seq += 1;
            let step = Transition { order_id, from, to: *to, seq };
            from = *to;
            step
        })
    }

    /// With what the statement needs to know, in its first places but for the moment.
    fn bind<'q>(&self, query: Query<'q, Postgres, PgArguments>) -> Query<'q, Postgres, PgArguments> {
        let mut arrays = PathArrays::default();
        for (was, steps) in self.steps.iter() {
            arrays.add((was, false), steps, self.delay_ms[was], None);
        }
        arrays.add((Status::FIRST, true), &NOT_ACCEPTED, None, Some(&not_accepted()));
        let PathArrays { from, last, delay_ms, steps, was, event, nth, path_by_people, step_by_people, meta } =
            arrays;
        let query = query.bind(from).bind(last).bind(delay_ms).bind(steps).bind(was).bind(event).bind(nth);
        query.bind(path_by_people).bind(step_by_people).bind(meta)
    }
}

/// A row of `path` for each status from which there is a way, and one of `step` for each step of it.
#[derive(Default)]
struct PathArrays {
    from: Vec<&'static str>,
    last: Vec<&'static str>,
    delay_ms: Vec<Option<f64>>,
    steps: Vec<i32>,
    was: Vec<&'static str>,
    event: Vec<&'static str>,
    nth: Vec<i32>,
    path_by_people: Vec<bool>,
    step_by_people: Vec<bool>,
    meta: Vec<Option<Json<Value>>>,
}

impl PathArrays {
    fn add(
        &mut self,
        (was, by_people): (Status, bool),
        steps: &[Status],
        delay_ms: Option<f64>,
        meta: Option<&Value>,
    ) {
        let Some(last) = steps.last() else { return };
        self.from.push(was.as_str());
        self.last.push(last.as_str());
        self.delay_ms.push(delay_ms);
        self.steps.push(i32::try_from(steps.len()).unwrap_or(i32::MAX));
        self.path_by_people.push(by_people);
        for (nth, event) in (1..).zip(steps) {
            self.was.push(was.as_str());
            self.event.push(event.as_str());
            self.nth.push(nth);
            self.step_by_people.push(by_people);
            self.meta.push(meta.map(|meta| Json(meta.clone())));
        }
    }
}

/// Which orders a look is for.
#[derive(Clone, Copy)]
pub(super) enum Which<'a> {
    /// Those due in this range.
    In(Among<'a>),
    /// These, if they are due.
    These(&'a [OrderId]),
}

/// Up to a limit of those due in a range and after a place, most overdue first, but for some.
#[derive(Clone, Copy)]
pub(super) struct Among<'a> {
    pub(super) range: Range,
    pub(super) after: Option<DueKey>,
    pub(super) limit: usize,
    pub(super) except: &'a [OrderId],
}

impl Among<'_> {
    /// Where to begin: a due time, and the id after which to go on at that very time.
    fn from(&self) -> (Option<Timestamp>, String) {
        // One in another range says nothing of this.
        let (from, to) = self.range;
        let begins = |after: &DueKey| {
            from.is_none_or(|from| from <= after.due_at) && to.is_none_or(|to| after.due_at <= to)
        };
        match self.after.filter(begins) {
            Some(after) => (Some(after.due_at), after.order_id.to_string()),
            None => (from, String::new()),
        }
    }
}

/// What a look did.
pub(super) struct Looked {
    pub(super) advance: Advance,
    /// The database's time.
    pub(super) now: Timestamp,
    /// Until when it has seen all: now, or, if it was full before, when the last order that it moved had been
    /// due; `None` if it has seen nothing.
    pub(super) seen: Option<Timestamp>,
    /// Whether there may be more.
    pub(super) full: bool,
}

pub(super) async fn advance(
    db: &mut PgConnection,
    which: Which<'_>,
    now: Option<Timestamp>,
    delays: &StageDelays,
) -> sqlx::Result<Looked> {
    let paths = Paths::new(delays);
    let most = match which {
        Which::In(among) => among.limit,
        Which::These(_) => usize::MAX,
    };
    let query = sqlx::query(match which {
        Which::In(_) => IN_RANGE,
        Which::These(_) => THESE,
    });
    let query = paths.bind(query.bind(now));
    let rows = match which {
        Which::In(among) => {
            let ((from, after), limit) = (among.from(), i64::try_from(among.limit).unwrap_or(i64::MAX));
            query.bind(from).bind(after).bind(among.range.1).bind(texts(among.except)).bind(limit)
        }
        Which::These(orders) => query.bind(texts(orders)),
    }
    .fetch_all(db)
    .await?;
    let (mut transitions, mut last, mut next) = (Vec::with_capacity(rows.len()), None, None);
    // Where nothing moved there is a row of the moment alone.
    let changed =
        rows.iter().filter(|row| row.try_get::<Option<&str>, _>("order_id").is_ok_and(|id| id.is_some()));
    let mut count = 0;
    for row in changed {
        count += 1;
        // What moved under an odd id has moved, though nobody can follow it.
        let told = readable(std::slice::from_ref(row), |row| {
            let was_seq = u32::try_from(row.try_get::<i32, _>("was_seq")?).unwrap_or_default();
            Ok((order_id(row)?, (parsed(row, "was")?, row.try_get("by_people")?), was_seq))
        });
        let steps = told.into_iter().flat_map(|(order_id, was, seq)| paths.transitions(order_id, was, seq));
        transitions.extend(steps);
        // `-infinity` by hand is before everything.
        last = last.max(moment(row, "was_due").ok());
        next = earliest(next, moment_if_any(row, "due_at")?);
    }
    let first = rows.first().ok_or(sqlx::Error::RowNotFound)?;
    let now = moment(first, "now")?;
    // `infinity` by hand is never.
    let next = earliest(next, moment_if_any(first, "next").ok().flatten());
    let next_due_in = if count < most { next.map(|next| wait(next, now)) } else { Some(Duration::ZERO) };
    let full = count >= most;
    let seen = if full { last } else { Some(now) };
    Ok(Looked { advance: Advance { transitions, next_due_in }, now, seen, full })
}

fn earliest(one: Option<Timestamp>, other: Option<Timestamp>) -> Option<Timestamp> {
    one.into_iter().chain(other).min()
}

/// Rounded up to milliseconds: a look that comes a moment early finds nothing.
pub(super) fn wait(until: Timestamp, now: Timestamp) -> Duration {
    let micros = (until - now).num_microseconds().unwrap_or(i64::MAX).max(0).unsigned_abs();
    Duration::from_millis(micros.div_ceil(1_000))
}

pub(super) const DUE: &str = concat!(
    "WITH t AS MATERIALIZED (SELECT COALESCE($1, clock_timestamp()) AS now)
     SELECT o.order_id, o.due_at FROM orders AS o WHERE ",
    in_range!("$2", "$3", "$4", "$5"),
    " ORDER BY o.due_at, o.order_id LIMIT $6"
);

/// The orders that a look among these would move.
pub(super) async fn due(
    db: &mut PgConnection,
    among: Among<'_>,
    now: Option<Timestamp>,
) -> sqlx::Result<DueOrders> {
    let (from, after) = among.from();
    let rows = sqlx::query(DUE)
        .bind(now)
        .bind(from)
        .bind(after)
        .bind(among.range.1)
        .bind(texts(among.except))
        .bind(i64::try_from(among.limit).unwrap_or(i64::MAX))
        .fetch_all(db)
        .await?;
    // `-infinity` by hand is before everything.
    let place = |row: &PgRow| {
        let due_at = moment(row, "due_at").unwrap_or(Timestamp::UNIX_EPOCH);
        order_id(row).map(|order_id| DueKey { due_at, order_id })
    };
    let places = readable(&rows, place);
    Ok(DueOrders {
        order_ids: places.iter().map(|place| place.order_id).collect(),
        last: places.last().copied(),
    })
}

/// The database's time.
pub(super) async fn time(db: &mut PgConnection, now: Option<Timestamp>) -> sqlx::Result<Timestamp> {
    let row = sqlx::query("SELECT COALESCE($1, clock_timestamp()) AS now").bind(now).fetch_one(db).await?;
    moment(&row, "now")
}

pub(super) fn texts(ids: &[OrderId]) -> Vec<String> {
    ids.iter().map(OrderId::to_string).collect()
}
