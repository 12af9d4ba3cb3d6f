//! The promises, held against what is in the tables and on the topic. Nothing here asks the service.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use anyhow::{Result, ensure};
use chrono::{DateTime, Utc};
use sqlx::{FromRow, PgPool};
use testkit::Message;
pub(crate) use testkit::SIX;
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep},
};

use crate::{load::History, seed::FIRST_EXAMINED};

/// How much shorter than its delay a step may look: stamps are whole milliseconds, and more.
const TOLERANCE: Duration = Duration::from_millis(20);
/// Times in PLACED, PREPARING, COOKING, `OUT_FOR_DELIVERY`, in milliseconds.
pub(crate) const DELAYS_MS: [u64; 4] = [100, 200, 300, 100];

/// An order with its timeline as it was written.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub(crate) struct Line {
    pub(crate) order_id: String,
    pub(crate) customer_name: String,
    pub(crate) status: String,
    pub(crate) events: Vec<String>,
    pub(crate) stamps: Vec<DateTime<Utc>>,
    /// Whether people move the order.
    pub(crate) by_people: bool,
    /// Whether each event was reported.
    pub(crate) reported: Vec<bool>,
}

impl Line {
    /// Its steps: what happened, when, and whether somebody reported it.
    fn steps(&self) -> impl Iterator<Item = (&String, DateTime<Utc>, bool)> {
        let all = self.events.iter().zip(&self.stamps).zip(&self.reported);
        let steps = all.map(|((event, at), reported)| (event, *at, *reported));
        steps.filter(|(event, ..)| SIX.contains(&event.as_str()))
    }
}

/// Every order that is to be examined, in the order of ids.
pub(crate) async fn lines(db: &PgPool) -> Result<Vec<Line>> {
    let sql = r#"SELECT o.order_id, o.customer_name, o.status,
            coalesce(array_agg(e.event ORDER BY e.id) FILTER (WHERE e.id IS NOT NULL), '{}') AS events,
            coalesce(array_agg(e."timestamp" ORDER BY e.id) FILTER (WHERE e.id IS NOT NULL), '{}') AS stamps,
            o.expected_at IS NOT NULL AS by_people,
            coalesce(array_agg(e.seq > 1 AND e.meta IS NOT NULL ORDER BY e.id) FILTER (WHERE e.id IS NOT NULL), '{}')
                AS reported
        FROM orders AS o LEFT JOIN order_events AS e USING (order_id) WHERE o.order_id >= $1
        GROUP BY o.order_id ORDER BY o.order_id"#;
    Ok(sqlx::query_as(sql).bind(FIRST_EXAMINED).fetch_all(db).await?)
}

/// What was found; each entry names an order and what is wrong with it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Findings {
    pub(crate) stored: usize,
    pub(crate) lost: Vec<String>,
    pub(crate) doubled: Vec<String>,
    pub(crate) early: Vec<String>,
    /// Messages on the topic beyond the first of each order.
    pub(crate) duplicates: usize,
    /// How late each step was made.
    pub(crate) lateness: Vec<Duration>,
}

/// Holds tables, topic and the client's memory against each other.
pub(crate) fn examine(lines: &[Line], history: &History, published: Option<&[Message]>) -> Findings {
    let mut findings = Findings { stored: lines.len(), ..Findings::default() };
    let by_id: HashMap<&str, &Line> = lines.iter().map(|line| (line.order_id.as_str(), line)).collect();
    for placed in &history.placed {
        match by_id.get(placed.order_id.as_str()) {
            None => findings.lost.push(format!("{} was accepted and is not stored", placed.order_id)),
            Some(line) if !line.customer_name.ends_with(&placed.key) => {
                findings.doubled.push(format!("{} was given to {} too", placed.order_id, placed.key));
            }
            Some(_) => {}
        }
    }
    let mut customers = HashSet::new();
    for line in lines {
        if !customers.insert(&line.customer_name) {
            findings.doubled.push(format!("{}: a second order of one key", line.order_id));
        }
        findings.judge(line);
    }
    if let Some(published) = published {
        findings.compare(lines, published);
    }
    findings
}

impl Findings {
    fn judge(&mut self, line: &Line) {
        let Line { order_id, status, by_people, .. } = line;
        // What people say beside the steps is no step.
        let steps: Vec<_> = line.steps().collect();
        let events: Vec<&String> = steps.iter().map(|step| step.0).collect();
        let distinct: HashSet<&String> = events.iter().copied().collect();
        if distinct.len() < events.len() {
            self.doubled.push(format!("{order_id}: {events:?}"));
        } else if distinct.len() < SIX.len() {
            self.lost.push(format!("{order_id} is {status} after {events:?}"));
        } else if events.iter().ne(SIX.iter()) {
            self.early.push(format!("{order_id}: {events:?}"));
        }
        if events.last() != Some(&status) {
            self.early.push(format!("{order_id} is {status} after {events:?}"));
        }
        for (step, pair) in steps.windows(2).enumerate() {
            let delay = Duration::from_millis(step.checked_sub(1).map_or(0, |step| DELAYS_MS[step % 4]));
            match (pair[1].1 - pair[0].1).to_std() {
                Err(_) => self.early.push(format!("{order_id}: stamps go back at step {step}")),
                // Who reports need not wait, and has no time to keep.
                Ok(_) if *by_people || pair[1].2 => {}
                Ok(gap) if gap + TOLERANCE < delay => {
                    self.early.push(format!("{order_id}: step {step} after {gap:?} instead of {delay:?}"));
                }
                Ok(gap) if step > 0 => self.lateness.push(gap.saturating_sub(delay)),
                Ok(_) => {}
            }
        }
    }

    /// Every stored order must be on the topic.
    fn compare(&mut self, lines: &[Line], published: &[Message]) {
        let mut seen: HashMap<String, usize> = HashMap::new();
        for message in published {
            *seen.entry(message.key.clone().unwrap_or_default()).or_default() += 1;
        }
        for line in lines.iter().filter(|line| !seen.contains_key(&line.order_id)) {
            self.lost.push(format!("{} is not on the topic", line.order_id));
        }
        self.duplicates = seen.values().map(|count| count - 1).sum();
    }
}

/// What is not done yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromRow)]
pub(crate) struct Waiting {
    pub(crate) stored: i64,
    pub(crate) undelivered: i64,
    pub(crate) unsent: i64,
}

impl Waiting {
    pub(crate) async fn now(db: &PgPool) -> Result<Self> {
        let sql = "SELECT (SELECT count(*) FROM orders WHERE order_id >= $1) AS stored,
            (SELECT count(*) FROM orders WHERE order_id >= $1 AND status <> 'DELIVERED') AS undelivered,
            (SELECT count(*) FROM outbox) AS unsent";
        Ok(sqlx::query_as(sql).bind(FIRST_EXAMINED).fetch_one(db).await?)
    }
}

/// Waits until nothing waits; answers how long that took and what is left if it did not happen.
pub(crate) async fn settled(
    db: &PgPool,
    patience: Duration,
    done: impl Fn(&Waiting) -> bool,
) -> (Duration, Option<String>) {
    let started = Instant::now();
    loop {
        let waiting = Waiting::now(db).await;
        match &waiting {
            Ok(waiting) if done(waiting) => return (started.elapsed(), None),
            _ if started.elapsed() > patience => return (started.elapsed(), Some(format!("{waiting:?}"))),
            _ => sleep(Duration::from_millis(50)).await,
        }
    }
}

/// Looks at the outbox all the time.
pub(crate) struct OutboxWatch {
    oldest: watch::Receiver<f64>,
    task: JoinHandle<()>,
}

impl OutboxWatch {
    pub(crate) fn start(db: PgPool) -> Self {
        let (seen, oldest) = watch::channel(0.0);
        let task = tokio::spawn(async move {
            let sql = "SELECT coalesce(extract(epoch FROM clock_timestamp() - min(created_at))::float8, 0) FROM outbox";
            loop {
                let age: f64 = sqlx::query_scalar(sql).fetch_one(&db).await.unwrap_or_default();
                seen.send_if_modified(|seen| {
                    let older = age > *seen;
                    *seen = age.max(*seen);
                    older
                });
                sleep(Duration::from_millis(100)).await;
            }
        });
        Self { oldest, task }
    }

    /// The greatest age of an unsent order that was seen.
    pub(crate) fn oldest(self) -> Duration {
        self.task.abort();
        Duration::from_secs_f64(self.oldest.borrow().max(0.0))
    }
}

/// Steps that should have been made a while ago.
pub(crate) async fn overdue(db: &PgPool) -> Result<i64> {
    let sql = "SELECT count(*) FROM orders WHERE due_at < clock_timestamp() - interval '1 second'";
    Ok(sqlx::query_scalar(sql).fetch_one(db).await?)
}

/// Waits until no step is overdue; answers how long that took.
pub(crate) async fn on_time(db: &PgPool, patience: Duration) -> Result<Duration> {
    let started = Instant::now();
    while !matches!(overdue(db).await, Ok(0)) {
        ensure!(started.elapsed() < patience, "steps stay overdue");
        sleep(Duration::from_millis(50)).await;
    }
    Ok(started.elapsed())
}

/// One hash over both tables.
pub(crate) async fn fingerprint(db: &PgPool) -> Result<String> {
    let sql = "SELECT md5(coalesce(string_agg(o::text, '|' ORDER BY o.order_id), '')) ||
        (SELECT md5(coalesce(string_agg(e::text, '|' ORDER BY e.id), '')) FROM order_events AS e) FROM orders AS o";
    let (hash,): (String,) = sqlx::query_as(sql).fetch_one(db).await?;
    ensure!(hash.len() == 64, "no hash: {hash}");
    Ok(hash)
}

/// When steps were made, sorted.
pub(crate) async fn step_times(db: &PgPool) -> Result<Vec<DateTime<Utc>>> {
    let sql = r#"SELECT DISTINCT "timestamp" FROM order_events WHERE event NOT IN ('CREATED', 'PLACED') ORDER BY 1"#;
    Ok(sqlx::query_scalar(sql).fetch_all(db).await?)
}
