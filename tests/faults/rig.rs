//! What every row works with: a database, a topic and replicas of its own, and how it ends.

use std::{
    fs::{self, File},
    ops::Range,
    path::Path,
    process::Output,
    time::Duration,
};

use anyhow::{Context as _, Result};
use chrono::{DateTime, TimeDelta, Utc};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use sqlx::{PgPool, postgres::PgPoolOptions};
use testkit::{POLL, Servers, Stack, Topic, command};
use tokio::time::{Instant, sleep};

use crate::{
    app::{BINARY, Fleet},
    check::{self, DELAYS_MS},
    lateness::Steps,
    load::{History, Load, Plan},
    proxy::Proxy,
    report::{Outcome, quantile},
    watch::Seen,
};

/// How long the last orders may take once all faults are over.
const SETTLE_WITHIN: Duration = Duration::from_mins(1);
/// Most memory of a replica, in MB.
const MAX_MB: u64 = 128;
/// `PG_MAX_CONNECTIONS` where a row does not set it.
const MAX_CONNECTIONS: usize = 8;
/// How far the number of descriptors may be from what it was.
const MORE_OR_LESS: usize = 2;
/// How long connections may take to be closed once nobody uses them: a head may take 10 s.
const CLOSED_WITHIN: Duration = Duration::from_secs(15);
/// 503 is promised within two seconds; the rest is the way there on a busy machine.
pub(crate) const REFUSED_WITHIN: Duration = Duration::from_millis(2_300);

/// What was asked for on the command line.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scale {
    /// How many orders a row places, unless it needs another number.
    pub(crate) orders: usize,
    pub(crate) seed: u64,
    /// Short faults.
    pub(crate) ci: bool,
}

/// Between two strikes: ready at `from`, struck again at `to` or never.
#[derive(Debug, Clone, Copy)]
struct Calm {
    from: Instant,
    to: Option<Instant>,
}

/// A row's place of work.
pub(crate) struct Rig {
    pub(crate) servers: Servers,
    pub(crate) stack: Stack,
    pub(crate) scale: Scale,
    pub(crate) dice: StdRng,
    pub(crate) name: String,
    pub(crate) dsn: String,
    pub(crate) db: PgPool,
    pub(crate) topic: Topic,
    pub(crate) group: String,
    pub(crate) fleet: Fleet,
    pub(crate) strikes: usize,
    calms: Vec<Calm>,
    /// One moment on our clock and on the database's.
    anchor: (Instant, DateTime<Utc>),
}

impl Rig {
    /// An empty database, a topic that is not there yet and no replica.
    pub(crate) async fn set_up(id: &str, servers: &Servers, scale: Scale) -> Result<Self> {
        let stack = Stack::make(&id.to_lowercase()).await?;
        let (name, dsn) = (stack.name.clone(), stack.dsn().context("PG_DSN")?);
        let db = PgPoolOptions::new()
            .max_connections(2)
            .acquire_timeout(Duration::from_secs(3))
            .connect(&dsn)
            .await?;
        let at: DateTime<Utc> = sqlx::query_scalar("SELECT clock_timestamp()").fetch_one(&db).await?;
        let delays: Vec<String> = DELAYS_MS.iter().map(|millis| format!("{millis}ms")).collect();
        let mut settings = stack.settings();
        settings.push(("STAGE_DELAYS", delays.join(",")));
        let logs = Path::new(env!("CARGO_TARGET_TMPDIR")).join("faults");
        fs::create_dir_all(&logs)?;
        Ok(Self {
            fleet: Fleet::new(settings, Some(File::create(logs.join(format!("{id}.log")))?)),
            servers: servers.clone(),
            topic: stack.topic().context("KAFKA_BROKERS")?,
            stack,
            scale,
            dice: StdRng::seed_from_u64(scale.seed),
            group: name.clone(),
            name,
            dsn,
            db,
            strikes: 0,
            calms: Vec::new(),
            anchor: (Instant::now(), at),
        })
    }

    /// Changes one setting for replicas that start from now on.
    pub(crate) fn set(&mut self, name: &'static str, value: impl Into<String>) {
        self.fleet.settings.retain(|(other, _)| *other != name);
        self.fleet.settings.push((name, value.into()));
    }

    /// `host:port` of PostgreSQL.
    pub(crate) fn postgres_address(&self) -> Result<String> {
        self.stack.postgres_address().context("PG_DSN names no host")
    }

    /// Runs a command of the binary with the replicas' database and topic.
    pub(crate) async fn run(&self, arguments: &[&str]) -> Result<Output> {
        let settings = self.fleet.settings.iter();
        let own = settings.filter(|(name, _)| name.starts_with("PG_") || name.starts_with("KAFKA_")).cloned();
        Ok(command(BINARY, arguments, own).output().await?)
    }

    /// Puts a proxy between the replicas to come and PostgreSQL.
    pub(crate) async fn proxy_to_postgres(&mut self) -> Result<Proxy> {
        let proxy = Proxy::start(&self.postgres_address()?).await?;
        self.set("PG_DSN", proxy.dsn(&self.dsn));
        Ok(proxy)
    }

    /// What to place unless the row wants it otherwise.
    pub(crate) fn plan(&self, rate: f64) -> Plan {
        let (orders, name) = (self.scale.orders, self.name.clone());
        Plan { orders, rate, connections: 64, name, patience: Duration::from_mins(2) }
    }

    /// Begins to place orders with the replicas.
    pub(crate) fn load(&self, plan: Plan) -> Load {
        Load::start(self.fleet.targets.clone(), plan)
    }

    /// Waits for a random time.
    pub(crate) async fn pause(&mut self, millis: Range<u64>) {
        sleep(Duration::from_millis(self.dice.random_range(millis))).await;
    }

    /// Ready again after a fault: from now on the time to recover counts.
    pub(crate) fn ready_again(&mut self) -> Instant {
        let now = Instant::now();
        self.calms.push(Calm { from: now, to: None });
        now
    }

    /// Something is broken now.
    pub(crate) fn strike(&mut self) {
        self.strikes += 1;
        if let Some(calm) = self.calms.last_mut() {
            calm.to.get_or_insert(Instant::now());
        }
    }

    /// This moment as the database's clock shows it.
    pub(crate) fn on_database_clock(&self, at: Instant) -> DateTime<Utc> {
        let (anchor, time) = self.anchor;
        let since = TimeDelta::from_std(at.saturating_duration_since(anchor)).unwrap_or_default();
        time + since
    }

    /// The longest time from being ready again until a step was made. A strike that came before is
    /// counted as far as it let us see.
    pub(crate) async fn longest_standstill(&self, history: &History) -> Result<Duration> {
        let steps = check::step_times(&self.db).await?;
        let mut longest = Duration::ZERO;
        for calm in self.busy_calms(history) {
            let from = self.on_database_clock(calm.from);
            let next = steps.get(steps.partition_point(|step| *step < from)).copied();
            let seen_until = calm.to.map(|to| self.on_database_clock(to));
            let end = next.into_iter().chain(seen_until).min();
            longest = longest.max(end.and_then(|end| (end - from).to_std().ok()).unwrap_or_default());
        }
        Ok(longest)
    }

    /// Those with work to do: orders still came after they began.
    fn busy_calms(&self, history: &History) -> impl Iterator<Item = &Calm> {
        let last = history.placed.iter().map(|placed| placed.at).max();
        self.calms.iter().filter(move |calm| last.is_some_and(|last| calm.from < last))
    }

    /// The longest time from being ready again until an order was accepted.
    pub(crate) fn longest_refusal(&self, history: &History) -> Duration {
        let refusal = |calm: &Calm| {
            let end =
                history.accepts_again(calm.from).into_iter().chain(calm.to.map(|to| to - calm.from)).min();
            end.unwrap_or_default()
        };
        self.busy_calms(history).map(refusal).max().unwrap_or_default()
    }

    /// Waits until all is done, stops the replicas and checks every promise.
    pub(crate) async fn finish(&mut self, history: &History) -> Result<Outcome> {
        let (took, left) = self.settle().await;
        let mut bounds = Outcome::default();
        self.bounded(&mut bounds).await?;
        self.fleet.stop_all().await?;
        let mut outcome = self.examine(history).await?;
        outcome.missed.extend(bounds.missed);
        outcome.notes.extend(bounds.notes);
        outcome.note(format!("all done {:.2} s after the last answer", took.as_secs_f64()));
        outcome.expect(left.is_none(), format!("not done in time: {}", left.unwrap_or_default()));
        let leaks = self.fleet.journal.leaks();
        outcome.expect(leaks == 0, format!("{leaks} log lines name a customer"));
        if self.strikes > 0 {
            outcome.note(format!("{} strikes", self.strikes));
        }
        Ok(outcome)
    }

    /// Whether the replicas always said that they live, are ready again, and hold no more than before.
    async fn bounded(&self, outcome: &mut Outcome) -> Result<()> {
        if let Err(error) = self.fleet.ready().await {
            outcome.missed.push(format!("at the end: {error:#}"));
        }
        let Seen { sick, most, .. } = self.fleet.observations.seen();
        outcome.expect(
            sick.is_empty(),
            format!("/healthz: {} times no 200, such as {:?}", sick.len(), sick.first()),
        );
        outcome.expect(most.peak_mb <= MAX_MB, format!("a replica had {} MB", most.peak_mb));
        // Those that a silent server holds are given up, and new ones made, before the old are gone.
        let limit = self.max_connections();
        outcome.expect(
            most.to_database <= 2 * limit,
            format!("a replica had {} connections to the database", most.to_database),
        );
        let Some((idle, counted)) = &self.fleet.idle else { return Ok(()) };
        let deadline = Instant::now() + CLOSED_WITHIN;
        let holds = loop {
            let holds = self.fleet.holdings();
            let few = holds.descriptors <= idle.descriptors + MORE_OR_LESS && holds.to_database <= limit;
            if few || Instant::now() > deadline {
                break holds;
            }
            sleep(POLL).await;
        };
        outcome.expect(
            holds.descriptors <= idle.descriptors + MORE_OR_LESS,
            format!("{} descriptors, {} at the start", holds.descriptors, idle.descriptors),
        );
        outcome.expect(
            holds.to_database <= limit,
            format!("{} connections to the database at the end", holds.to_database),
        );
        let new: Vec<String> = self.fleet.series().await?.difference(counted).cloned().collect();
        outcome.expect(new.is_empty(), format!("{} new series, such as {:?}", new.len(), new.first()));
        outcome.note(format!(
            "at most {} MB, {} connections to the database; {} other descriptors, {} at the start",
            most.peak_mb, most.to_database, holds.descriptors, idle.descriptors
        ));
        Ok(())
    }

    /// Most connections that a replica may have to the database.
    fn max_connections(&self) -> usize {
        let set = self.fleet.settings.iter().find(|(name, _)| *name == "PG_MAX_CONNECTIONS");
        set.and_then(|(_, value)| value.parse().ok()).unwrap_or(MAX_CONNECTIONS)
    }

    /// While something that it needs was away, a replica must have said so.
    pub(crate) fn said_so(&self, outcome: &mut Outcome) {
        let Seen { unready, complaints, .. } = self.fleet.observations.seen();
        outcome.expect(complaints > 0, "/readyz never said that anything was wrong");
        outcome.note(format!("/readyz said {complaints} times what was wrong, {unready} times with 503"));
    }

    /// Waits until every order is delivered and published.
    pub(crate) async fn settle(&self) -> (Duration, Option<String>) {
        check::settled(&self.db, SETTLE_WITHIN, |waiting| waiting.undelivered + waiting.unsent == 0).await
    }

    /// Checks every promise; a broken one names its first few orders.
    pub(crate) async fn examine(&self, history: &History) -> Result<Outcome> {
        let lines = check::lines(&self.db).await.context("reading the tables")?;
        let published = self.topic.read().await.context("reading the topic")?;
        let findings = check::examine(&lines, history, Some(&published));
        let mut outcome = Outcome {
            orders: findings.stored,
            lost: findings.lost.len() + history.given_up.len(),
            doubled: findings.doubled.len(),
            early: findings.early.len(),
            duplicates: findings.duplicates,
            ..Outcome::default()
        };
        for (what, list) in [
            ("lost", &findings.lost),
            ("doubled", &findings.doubled),
            ("early", &findings.early),
            ("never accepted", &history.given_up),
            ("answered wrongly", &history.dishonest),
        ] {
            let few: Vec<&str> = list.iter().take(3).map(String::as_str).collect();
            outcome.expect(list.is_empty(), format!("{} {what}: {}", list.len(), few.join(", ")));
        }
        let refusal = history.slowest_refusal();
        outcome.expect(refusal <= REFUSED_WITHIN, format!("a 503 took {refusal:.2?}"));
        let mut lateness = findings.lateness;
        lateness.sort_unstable();
        let late = quantile(&lateness, 0.99).unwrap_or_default();
        outcome.note(format!("p99 lateness {} ms, {} times 503", late.as_millis(), history.refused()));
        Ok(outcome)
    }

    /// How late steps were made, at this quantile.
    pub(crate) async fn lateness(&self, at: f64) -> Result<Duration> {
        let lines = check::lines(&self.db).await?;
        let mut lateness = check::examine(&lines, &History::default(), None).lateness;
        lateness.sort_unstable();
        Ok(quantile(&lateness, at).unwrap_or_default())
    }

    /// Every step of the orders that are examined, with delays of so many milliseconds.
    pub(crate) async fn steps(&self, delays_ms: [u64; 4]) -> Result<Steps> {
        let lines = check::lines(&self.db).await?;
        Ok(Steps::of(&lines, delays_ms, self.on_database_clock(Instant::now())))
    }

    /// Leaves nothing behind.
    pub(crate) async fn clean_up(self) {
        let Self { stack, db, fleet, .. } = self;
        drop(fleet);
        db.close().await;
        drop(stack.clean_up().await);
    }
}
