//! Rows in which much is stored: F28, F29, F32.

use std::{future::Future, time::Duration};

use anyhow::{Context as _, Result};
use chrono::{DateTime, Utc};
use sqlx::{Connection as _, Executor as _, PgConnection, PgPool};
use testkit::{POLL, until};
use tokio::time::{Instant, sleep};

use crate::{
    check::DELAYS_MS,
    lateness::{self, Steps},
    load::{History, Plan},
    probe::{Answers, Probe},
    report::Outcome,
    rig::Rig,
    seed::{OPEN, Seed, UNEXAMINED},
};

/// Orders a second beside those that wait.
const RATE: f64 = 200.0;
/// Rows and index entries that a step may cost, with what its order's arrival costs, and each replica's looks and
/// counts.
const ROWS_A_STEP: f64 = 20.0;
/// The same within a few seconds, in which a count of all that is in progress may fall.
const ROWS_A_STEP_CI: f64 = 100.0;
/// How late steps may be made, however many orders wait.
const ON_TIME: Duration = Duration::from_millis(100);
/// How long `/readyz` and one order may take, however many orders wait.
const AT_ONCE: Duration = Duration::from_millis(20);
/// How late steps may be made while a snapshot is open.
const BESIDE_SNAPSHOT: Duration = Duration::from_millis(500);
/// Time in each status while it is.
const STAGE_MS: u64 = 500;
/// Orders a second while it is, if the machine can.
const MOST: f64 = 1_000.0;
/// The least that shows what an open snapshot does.
const LEAST: f64 = 300.0;

/// Orders that wait for days, in all statuses.
fn in_progress(count: usize) -> Seed {
    Seed {
        prefix: UNEXAMINED,
        count,
        statuses: OPEN,
        due: "now() + interval '1 day' + n * interval '100 ms'",
        unsent: false,
    }
}

/// What is stored here was never told to its topic, and telling it takes a while that is not to be measured.
fn without_events(rig: &mut Rig) {
    rig.set("KAFKA_EVENTS_TOPIC", "off");
}

/// F28: steps are made beside a million orders that are not due.
pub(crate) async fn orders_wait(rig: &mut Rig) -> Result<Outcome> {
    without_events(rig);
    let ci = rig.scale.ci;
    let (count, lasting, replicas) =
        if ci { (200_000, 10, 1) } else { (rig.scale.orders.max(1_000_000), 60, 3) };
    rig.fleet.start_all(replicas).await?;
    let alone = Period::beside(rig, "alone", Duration::from_secs(3)).await?;
    let seeded = Instant::now();
    in_progress(count).insert(&rig.dsn).await?;
    let seeded = seeded.elapsed();
    let beside = Period::beside(rig, "beside", Duration::from_secs(lasting)).await?;
    let mut history = alone.history.clone();
    history.extend(beside.history.clone());
    let mut outcome = rig.finish(&history).await?;
    outcome.note(format!("{count} orders in progress, made in {:.0} s", seeded.as_secs_f64()));
    let steps = rig.steps(DELAYS_MS).await?;
    let late = |period: &Period| steps.late(period.from, period.to, 0.99);
    outcome.note(format!("p99 lateness alone {:.0?}", late(&alone)));
    outcome.recovery("p99 lateness", late(&beside), ON_TIME);
    let (rows_alone, rows) = (alone.rows_a_step(&steps), beside.rows_a_step(&steps));
    outcome.note(format!("{rows_alone:.1} rows read a step alone, {rows:.1} beside"));
    let allowed = if ci { ROWS_A_STEP_CI } else { ROWS_A_STEP };
    outcome.expect(rows <= allowed, format!("{rows:.1} rows read a step, allowed are {allowed}"));
    compare(&mut outcome, "/readyz", &alone.readiness, &beside.readiness);
    compare(&mut outcome, "an order", &alone.reading, &beside.reading);
    Ok(outcome)
}

/// Holds what was measured beside many orders against the same without them. A debug build beside its own clients
/// on a small machine is slow already where nothing is stored, so twice as long is allowed too.
fn compare(outcome: &mut Outcome, what: &str, alone: &Answers, beside: &Answers) {
    let [before, after] = [alone, beside].map(|answers| answers.latency(0.99));
    let (asked, limit) = (beside.count(), AT_ONCE.max(before * 2));
    outcome
        .note(format!("{what}: p99 {before:.1?} of {} alone, {after:.1?} of {asked} beside", alone.count()));
    outcome.expect(after <= limit, format!("{what}: p99 was {after:.1?}, allowed are {limit:.1?}"));
    let refused = beside.refused;
    outcome.expect(refused == 0, format!("{what}: {refused} of {asked} got no 200"));
}

/// A time with a steady load, and what was measured in it.
struct Period {
    history: History,
    from: DateTime<Utc>,
    to: DateTime<Utc>,
    /// Between these two nobody asked for anything but the load, and the watch for readiness four times a second.
    quiet: [Reads; 2],
    readiness: Answers,
    reading: Answers,
}

impl Period {
    /// Places orders at a steady rate; in the second half of the time others ask how it goes.
    async fn beside(rig: &Rig, name: &str, lasting: Duration) -> Result<Self> {
        let seconds = lasting.as_secs_f64();
        let name = format!("{}-{name}", rig.name);
        let load = rig.load(Plan { orders: whole(RATE * (seconds + 1.0)), name, ..rig.plan(RATE) });
        // The first second warms up.
        sleep(Duration::from_secs(1)).await;
        let first = Reads::now(&rig.db).await?;
        sleep(lasting / 2).await;
        let last = Reads::now(&rig.db).await?;
        let url = rig.fleet.replica(0)?.url.clone();
        let newest: String =
            sqlx::query_scalar("SELECT max(order_id) FROM orders").fetch_one(&rig.db).await?;
        let probe = |path: &str, clients, pause| Probe {
            url: url.clone(),
            path: path.to_owned(),
            clients,
            pause,
            lasting: lasting / 2,
        };
        let readiness = probe("/readyz", 8, POLL * 2).start();
        let reading = probe(&format!("/orders/{newest}"), 2, POLL / 2).start();
        let (readiness, reading) = (readiness.await??, reading.await??);
        let (from, to) = (first.at, Reads::now(&rig.db).await?.at);
        Ok(Self { history: load.end().await?, from, to, quiet: [first, last], readiness, reading })
    }

    #[expect(clippy::cast_precision_loss, reason = "counts of a minute")]
    fn rows_a_step(&self, steps: &Steps) -> f64 {
        let [first, last] = self.quiet;
        let made = steps.made(first.at, last.at);
        (last.rows - first.rows) as f64 / made.max(1) as f64
    }
}

/// What statements had read at a moment.
#[derive(Debug, Clone, Copy, sqlx::FromRow)]
struct Reads {
    at: DateTime<Utc>,
    /// Rows read one after the other or found by an index, and entries of indexes that were looked at for
    /// it, dead ones too. A session tells its counts once a second, so they are as of about now.
    rows: i64,
}

impl Reads {
    async fn now(db: &PgPool) -> Result<Self> {
        let sql = "SELECT clock_timestamp() AS at,
            ((SELECT sum(seq_tup_read + coalesce(idx_tup_fetch, 0)) FROM pg_stat_user_tables)
                + (SELECT sum(idx_tup_read) FROM pg_stat_user_indexes))::bigint AS rows";
        Ok(sqlx::query_as(sql).fetch_one(db).await?)
    }
}

/// F29: a backup holds a snapshot, so that no version of a row goes away.
pub(crate) async fn snapshot(rig: &mut Rig) -> Result<Outcome> {
    without_events(rig);
    let lasting = if rig.scale.orders < 1_000 { 40.0 } else { 240.0 };
    rig.set("STAGE_DELAYS", format!("{STAGE_MS}ms"));
    rig.fleet.start_all(1).await?;
    let (mut history, rate) = bearable_rate(rig, LEAST, MOST).await?;
    let mut session = PgConnection::connect(&rig.dsn).await?;
    session.execute("BEGIN ISOLATION LEVEL REPEATABLE READ").await?;
    session.execute("SELECT count(*) FROM orders").await?;
    rig.strike();
    let from = Instant::now();
    let (orders, name) = (whole(rate * lasting), format!("{}-snapshot", rig.name));
    history.extend(rig.load(Plan { orders, name, ..rig.plan(rate) }).end().await?);
    let to = Instant::now();
    session.execute("ROLLBACK").await?;
    session.close().await?;
    let mut outcome = rig.finish(&history).await?;
    let steps = rig.steps([STAGE_MS; 4]).await?;
    let (from, to) = (rig.on_database_clock(from), rig.on_database_clock(to));
    let ranges = lateness::ranges(from, to, Duration::from_secs(10));
    let of_each =
        |at: f64| -> Vec<Duration> { ranges.iter().map(|(from, to)| steps.late(*from, *to, at)).collect() };
    outcome.note(format!("{rate:.0} orders a second for {:.0} s", (to - from).as_seconds_f64()));
    for (what, at) in [("p99", 0.99), ("the latest", 1.0)] {
        let late = of_each(at);
        let told: Vec<String> = late.iter().map(|late| late.as_millis().to_string()).collect();
        outcome.note(format!("lateness of each ten seconds in ms, {what}: {}", told.join(" ")));
        let worst = late.into_iter().max().unwrap_or_default();
        outcome.recovery(&format!("lateness of the worst ten seconds, {what}"), worst, BESIDE_SNAPSHOT);
    }
    Ok(outcome)
}

/// How many orders a second the machine can bear for long: at most as many as are wanted, at least as many as are
/// needed, and else six tenths of what it just bore in a hurry.
pub(super) async fn bearable_rate(rig: &Rig, least: f64, most: f64) -> Result<(History, f64)> {
    let (orders, name) = (whole(most * 3.0), format!("{}-trial", rig.name));
    let started = Instant::now();
    let history = rig.load(Plan { orders, name, ..rig.plan(most) }).end().await?;
    let took = started.elapsed().as_secs_f64();
    rig.settle().await;
    Ok((history, (most * 3.0 / took * 0.6).clamp(least, most)))
}

/// F32: readiness is asked for all the time, while millions of orders are in progress.
pub(crate) async fn readiness_asked(rig: &mut Rig) -> Result<Outcome> {
    without_events(rig);
    let ci = rig.scale.ci;
    let (count, lasting) = if ci { (200_000, 5) } else { (rig.scale.orders.max(2_000_000), 20) };
    rig.fleet.start_all(1).await?;
    let history = rig.load(Plan { orders: 20, ..rig.plan(RATE) }).end().await?;
    let placed = history.placed.first().context("nothing was placed")?;
    let path = format!("/orders/{}", placed.order_id);
    let [readiness, reading] = ask_both(rig, &path, Duration::from_secs(3)).await?;
    in_progress(count).insert(&rig.dsn).await?;
    let [readiness_then, reading_then] = ask_both(rig, &path, Duration::from_secs(lasting)).await?;
    let counted = within(Duration::from_secs(5), async || gauges(rig).await.unwrap_or_default()).await;
    let mut outcome = rig.finish(&history).await?;
    outcome.note(format!("{count} orders in progress"));
    compare(&mut outcome, "/readyz", &readiness, &readiness_then);
    compare(&mut outcome, "an order", &reading, &reading_then);
    outcome.expect(counted, "orders_in_progress does not show that orders wait in every status");
    Ok(outcome)
}

/// What eight clients that ask for readiness without a pause are answered, and one that reads an order.
async fn ask_both(rig: &Rig, path: &str, lasting: Duration) -> Result<[Answers; 2]> {
    let url = rig.fleet.replica(0)?.url.clone();
    let probe = |path: &str, clients| Probe {
        url: url.clone(),
        path: path.to_owned(),
        clients,
        pause: Duration::ZERO,
        lasting,
    };
    let (readiness, reading) = (probe("/readyz", 8).start(), probe(path, 1).start());
    Ok([readiness.await??, reading.await??])
}

/// Whether the gauge of each status says that orders wait there.
async fn gauges(rig: &Rig) -> Result<bool> {
    let text = rig.fleet.replica(0)?.get("/metrics").await?;
    let value = |status: &str| -> f64 {
        let series = format!("orders_in_progress{{status=\"{status}\"}} ");
        text.lines().find_map(|line| line.strip_prefix(&series)?.parse().ok()).unwrap_or_default()
    };
    Ok(OPEN.iter().all(|status| value(status) > 0.0))
}

/// Whether something is so within a time.
pub(super) async fn within<F: Future<Output = bool>>(patience: Duration, holds: impl Fn() -> F) -> bool {
    until(patience, "so", async || Ok(holds().await.then_some(()))).await.is_ok()
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "orders of a few minutes")]
pub(super) fn whole(orders: f64) -> usize {
    orders as usize
}
