//! Everything that happened, read by cursor and from the topic of events: F36, F37, F38.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use order_tracker::order::promises::LIVE_WITHIN;
use sqlx::{Connection as _, PgConnection, PgPool};
use testkit::{POLL, Part};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep},
};

use crate::{
    followers::{PATIENCE, Pages, Reader, Readers},
    proxy::Mode,
    report::{Outcome, quantile},
    rig::Rig,
    seed::UNEXAMINED,
};

/// How late a session commits what it has written.
const LATE: Duration = Duration::from_secs(3);
/// How long a replica is frozen.
const FROZEN: Duration = Duration::from_secs(10);
/// Another replica writes the topic of events within so long.
const TAKEOVER: Duration = Duration::from_secs(5);

/// F36: events commit late, ids are drawn in vain, one replica is killed and another one stands still.
pub(crate) async fn followed(rig: &mut Rig) -> Result<Outcome> {
    rig.fleet.start_all(3).await?;
    let readers = Readers::start(rig)?;
    let late = LateWriter::start(&rig.dsn).await?;
    let load = rig.load(rig.plan(100.0));
    while load.goes_on() || rig.strikes < 2 {
        sleep(Duration::from_secs(3)).await;
        rig.strike();
        rig.fleet.kill(0).await?;
        rig.ready_again();
        sleep(Duration::from_secs(1)).await;
        rig.fleet.start(0).await?;
        rig.strike();
        let frozen = rig.fleet.freeze(1).await?;
        sleep(if rig.scale.ci { FROZEN / 2 } else { FROZEN }).await;
        frozen.thaw().await;
        rig.ready_again();
    }
    let history = load.end().await?;
    let written = late.end().await?;
    rig.settle().await;
    let (mut outcome, read) = (Outcome::default(), readers.end().await?);
    judge(rig, &read, &mut outcome).await?;
    outcome.note(format!("{written} orders were committed {} s late", LATE.as_secs()));
    outcome.expect(written > 0, "nothing was committed late");
    Ok(merge(rig.finish(&history).await?, outcome))
}

/// F37: a transaction stays open in another database of the cluster.
pub(crate) async fn held_back(rig: &mut Rig) -> Result<Outcome> {
    let held = Duration::from_secs(if rig.scale.ci { 12 } else { 30 });
    rig.set("STAGE_DELAYS", "3s,3s,3s,1s");
    rig.fleet.start_all(2).await?;
    let mut plan = rig.plan(100.0);
    plan.orders = 200;
    let mut history = rig.load(plan).end().await?;
    let readers = Readers::start(rig)?;
    let pages = Pages::open(rig, history.placed.iter().map(|placed| placed.order_id.clone())).await?;
    let mut elsewhere = rig.stack.console().await?;
    let mut open = elsewhere.begin().await?;
    let pid: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut *open).await?;
    sqlx::query("SELECT pg_current_xact_id()").execute(&mut *open).await?;
    let begun = Instant::now();
    let mut plan = rig.plan(100.0);
    (plan.orders, plan.name) = (rig.scale.orders.min(500), format!("{}-during", rig.name));
    let during = rig.load(plan).end().await?;
    let (refused, slowest) = (during.refused(), during.latency(0.99, begun, Instant::now()));
    history.placed.extend(during.placed);
    history.attempts.extend(during.attempts);
    sleep((begun + held).saturating_duration_since(Instant::now())).await;
    open.rollback().await?;
    let released = Instant::now();
    rig.settle().await;
    let (mut outcome, read) = (Outcome::default(), readers.end().await?);
    let standstill = read.iter().map(|reader| reader.longest_wait(begun, released)).min().unwrap_or_default();
    outcome.expect(
        standstill + Duration::from_secs(2) >= held,
        format!("cursors waited {standstill:.1?} of {held:?}"),
    );
    let delays = pages.end().await?;
    let p99 = quantile(&delays, 0.99).unwrap_or_default();
    outcome.at_most("p99 of the delay to who follows an order", p99, LIVE_WITHIN);
    outcome.expect(!delays.is_empty(), "nobody followed an order");
    outcome.note(format!("p99 of POST {slowest:.1?} meanwhile"));
    outcome.expect(refused == 0, format!("{refused} times 503"));
    let named = rig.fleet.journal.warnings();
    let named = named.iter().filter(|line| line.contains(&format!("pid {pid}")) && line.contains("feed"));
    outcome.expect(named.count() > 0, "no line names the session that holds the feed back");
    judge(rig, &read, &mut outcome).await?;
    Ok(merge(rig.finish(&history).await?, outcome))
}

/// F38: whoever writes the topic of events is killed, frozen and cut off from the database; then Kafka is away.
pub(crate) async fn taken_over(rig: &mut Rig) -> Result<Outcome> {
    let (outage, rate) = if rig.scale.ci { (10, 20.0) } else { (60, 30.0) };
    let direct = rig.dsn.clone();
    let proxy = rig.proxy_to_postgres().await?;
    // The one behind the proxy writes first.
    rig.fleet.start_all(1).await?;
    let mut term = Term::first(&rig.db).await?;
    rig.set("PG_DSN", direct);
    rig.fleet.start(1).await?;
    rig.fleet.start(2).await?;
    rig.fleet.ready().await?;
    let readers = Readers::start(rig)?;
    let load = rig.load(rig.plan(rate));
    sleep(Duration::from_secs(2)).await;
    let mut outcome = Outcome::default();

    rig.strike();
    proxy.set(Mode::Hole);
    outcome.recovery("taken over from who was cut off", term.changes(&rig.db).await?, TAKEOVER);
    sleep(Duration::from_secs(5)).await;
    proxy.set(Mode::Pass);
    rig.ready_again();

    let writer = writer(rig).await?;
    rig.strike();
    rig.fleet.kill(writer).await?;
    outcome.recovery("taken over from who was killed", term.changes(&rig.db).await?, TAKEOVER);
    rig.fleet.start(writer).await?;
    rig.ready_again();

    let writer = self::writer(rig).await?;
    rig.strike();
    let frozen = rig.fleet.freeze(writer).await?;
    outcome.recovery("taken over from who was frozen", term.changes(&rig.db).await?, TAKEOVER);
    sleep(FROZEN / 2).await;
    frozen.thaw().await;
    rig.ready_again();

    rig.strike();
    rig.servers.kill(Part::Kafka).await?;
    sleep(Duration::from_secs(outage)).await;
    rig.servers.start(Part::Kafka).await?;
    rig.ready_again();
    let history = load.end().await?;
    rig.settle().await;
    let read = readers.end().await?;
    judge(rig, &read, &mut outcome).await?;
    Ok(merge(rig.finish(&history).await?, outcome))
}

/// The row's own findings beside those of every row.
pub(super) fn merge(mut all: Outcome, own: Outcome) -> Outcome {
    all.missed.extend(own.missed);
    all.notes.extend(own.notes);
    all.recovery = [all.recovery, own.recovery].into_iter().flatten().reduce(f64::max);
    all
}

/// Holds what readers and the topic were told against the table.
async fn judge(rig: &Rig, read: &[Reader], outcome: &mut Outcome) -> Result<()> {
    let rows: Vec<(i64, String, i32)> =
        sqlx::query_as("SELECT id, order_id, seq FROM order_events ORDER BY id").fetch_all(&rig.db).await?;
    for (number, reader) in read.iter().enumerate() {
        let told: Vec<_> = reader.told.iter().map(|told| (told.cursor, &told.order_id, told.seq)).collect();
        let same = told.iter().copied().eq(rows.iter().map(|(id, order_id, seq)| (*id, order_id, *seq)));
        let first = rows.iter().zip(&told).find(|(row, told)| row.0 != told.0);
        outcome.expect(
            same,
            format!(
                "reader {number} was told {} of {} events, first differs {first:?}",
                told.len(),
                rows.len()
            ),
        );
    }
    outcome.note(format!("{} events, {} readers", rows.len(), read.len()));
    let last = rows.last().map_or(0, |row| row.0);
    let done = "SELECT COALESCE(max(cursor), 0) FROM feed_cursors";
    let deadline = Instant::now() + PATIENCE;
    while sqlx::query_scalar::<_, i64>(done).fetch_one(&rig.db).await? < last {
        ensure!(Instant::now() < deadline, "the topic of events is behind");
        sleep(POLL).await;
    }
    let mut reached: HashMap<String, i64> = HashMap::new();
    let (mut doubled, mut out_of_order) = (0, 0);
    for message in rig.topic.events().read().await? {
        let seq = message.json()["seq"].as_i64().context("no seq")?;
        let reached = reached.entry(message.key.context("no key")?).or_default();
        match seq - *reached {
            1 => *reached = seq,
            2.. => out_of_order += 1,
            _ => doubled += 1,
        }
    }
    let mut missing: BTreeMap<&str, i32> = BTreeMap::new();
    for (_, order_id, seq) in &rows {
        if reached.get(order_id).copied().unwrap_or_default() < i64::from(*seq) {
            *missing.entry(order_id).or_default() += 1;
        }
    }
    outcome.note(format!("{doubled} came twice on the topic of events"));
    outcome.expect(out_of_order == 0, format!("{out_of_order} out of order on the topic of events"));
    let few: Vec<_> = missing.iter().take(3).collect();
    outcome
        .expect(missing.is_empty(), format!("of {} orders the topic lacks events: {few:?}", missing.len()));
    Ok(())
}

/// The slot of the replica that writes the topic of events.
async fn writer(rig: &Rig) -> Result<usize> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        for slot in rig.fleet.slots() {
            let text = rig.fleet.replica(slot)?.get("/metrics").await?;
            let behind = text.lines().find_map(|line| line.strip_prefix("events_behind_seconds "));
            if behind.is_some_and(|behind| behind != "NaN") {
                return Ok(slot);
            }
        }
        ensure!(Instant::now() < deadline, "nobody writes the topic of events");
        sleep(POLL).await;
    }
}

/// Whose turn it is to write.
struct Term(i64);

impl Term {
    async fn now(db: &PgPool) -> Result<i64> {
        let term = "SELECT COALESCE(max(term), 0) FROM feed_cursors";
        Ok(sqlx::query_scalar(term).fetch_one(db).await?)
    }

    async fn first(db: &PgPool) -> Result<Self> {
        let mut term = Self(0);
        term.changes(db).await?;
        Ok(term)
    }

    /// How long it takes until another replica has it.
    async fn changes(&mut self, db: &PgPool) -> Result<Duration> {
        let asked = Instant::now();
        loop {
            let term = Self::now(db).await?;
            if term > self.0 {
                self.0 = term;
                return Ok(asked.elapsed());
            }
            ensure!(asked.elapsed() < PATIENCE, "nobody takes over");
            sleep(POLL).await;
        }
    }
}

/// A session that commits late, and draws ids in vain.
struct LateWriter {
    stop: watch::Sender<bool>,
    task: JoinHandle<Result<usize>>,
}

impl LateWriter {
    async fn start(dsn: &str) -> Result<Self> {
        let mut db = PgConnection::connect(dsn).await?;
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(async move {
            let mut written = 0;
            while !*stopped.borrow() {
                let mut vain = db.begin().await?;
                write(&mut vain, 900_000 + written).await?;
                vain.rollback().await?;
                let mut late = db.begin().await?;
                write(&mut late, written).await?;
                sleep(LATE).await;
                late.commit().await?;
                written += 1;
            }
            Ok(written)
        });
        Ok(Self { stop, task })
    }

    /// Answers how many orders it has committed.
    async fn end(self) -> Result<usize> {
        self.stop.send_replace(true);
        self.task.await?
    }
}

/// A whole life, which no row examines.
async fn write(db: &mut PgConnection, number: usize) -> Result<()> {
    let order_id = format!("{UNEXAMINED}{number:0>24}");
    sqlx::query(
        "INSERT INTO orders (order_id, customer_name, address, item, size, status, seq, created_at, updated_at)
         VALUES ($1, 'late', 'late', 'soup', 'small', 'DELIVERED', 6, now(), now())",
    )
    .bind(&order_id)
    .execute(&mut *db)
    .await?;
    let kinds = crate::check::SIX.map(str::to_owned);
    sqlx::query(
        "INSERT INTO order_events (order_id, event, seq, timestamp)
         SELECT $1, event, seq, now() FROM unnest($2::text[]) WITH ORDINALITY AS life (event, seq) ORDER BY seq",
    )
    .bind(&order_id)
    .bind(&kinds[..])
    .execute(&mut *db)
    .await?;
    Ok(())
}
