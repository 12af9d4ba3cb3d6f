//! Kitchens and couriers that report: for each step several at once, each with an id of its own or the same, and again
//! until somebody answers.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result};
use order_tracker::order::{EventKind, Status};
use reqwest::Client;
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::{
    sync::Semaphore,
    task::{JoinHandle, JoinSet},
    time::{Instant, sleep},
};

use crate::{app::Targets, load::Placed, report::Outcome};

/// How long a reporter waits for an answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// Pause after a lost connection or a 503.
const AGAIN_AFTER: Duration = Duration::from_millis(200);
/// How long one report is tried.
const PATIENCE: Duration = Duration::from_mins(2);
/// What happens to an order, one after the other: its steps, and what is said of each.
fn life() -> impl Iterator<Item = EventKind> {
    Status::plain_life().skip(1).flat_map(|status| {
        let beside: &[EventKind] = match status {
            Status::Cooking => &[EventKind::Ready, EventKind::CourierAssigned],
            Status::OutForDelivery => &[EventKind::CourierAtDoor],
            _ => &[],
        };
        std::iter::once(EventKind::Reached(status)).chain(beside.iter().copied())
    })
}

/// How reports are made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Manner {
    /// So many report each thing at once.
    pub(crate) racers: usize,
    /// Before each step, so long.
    pub(crate) pause: Duration,
    /// Orders whose reports are under way at once.
    pub(crate) orders_at_once: usize,
}

/// A report that was answered 201.
#[derive(Debug, Clone)]
struct Applied {
    order_id: String,
    id: String,
    event: &'static str,
    /// Position and kind of each event in the answer.
    events: Vec<(i64, String)>,
    replayed: bool,
}

/// What all of them saw.
#[derive(Debug, Clone, Default)]
pub(crate) struct Answers {
    applied: Vec<Applied>,
    ignored: usize,
    refused: usize,
    /// 503s, and how long each took.
    unavailable: Vec<Duration>,
    /// Connections that were lost.
    lost: usize,
    wrong: Vec<String>,
    took: Vec<Duration>,
}

/// Reporters at work.
pub(crate) struct Reporters(JoinHandle<Result<Answers>>);

impl Reporters {
    /// Lets every order live its life.
    pub(crate) fn start(targets: Targets, placed: &[Placed], manner: Manner) -> Self {
        let orders = placed.iter().map(|placed| placed.order_id.clone()).collect();
        Self(tokio::spawn(report_all(targets, orders, manner)))
    }

    pub(crate) fn work_on(&self) -> bool {
        !self.0.is_finished()
    }

    /// Waits until all have been answered.
    pub(crate) async fn end(self) -> Result<Answers> {
        self.0.await?
    }
}

async fn report_all(targets: Targets, orders: Vec<String>, manner: Manner) -> Result<Answers> {
    let http = Client::builder()
        .no_proxy()
        .connect_timeout(Duration::from_secs(1))
        .timeout(ANSWER_WITHIN)
        .build()?;
    let (answers, permits) = (Arc::default(), Arc::new(Semaphore::new(manner.orders_at_once)));
    let mut lives = JoinSet::new();
    for order_id in orders {
        let reporter = Reporter {
            order_id,
            http: http.clone(),
            targets: targets.clone(),
            answers: Arc::clone(&answers),
        };
        let permit = Arc::clone(&permits).acquire_owned().await?;
        lives.spawn(async move {
            reporter.live(manner).await;
            drop(permit);
        });
    }
    lives.join_all().await;
    let answers: Answers = answers.lock().unwrap_or_else(PoisonError::into_inner).clone();
    Ok(answers)
}

struct Reporter {
    order_id: String,
    http: Client,
    targets: Targets,
    answers: Arc<Mutex<Answers>>,
}

impl Reporter {
    async fn live(&self, manner: Manner) {
        for event in life() {
            if event.status().is_some() {
                sleep(manner.pause).await;
            }
            let event = event.as_str();
            let racers = (0..manner.racers).map(|racer| {
                // Every other one is a second sender of the first one's report.
                let id = if racer % 2 == 0 { event.to_owned() } else { format!("{event}-{racer}") };
                self.insist(event, id, racer)
            });
            futures::future::join_all(racers).await;
        }
    }

    /// Reports until it is answered.
    async fn insist(&self, event: &'static str, id: String, racer: usize) {
        let deadline = Instant::now() + PATIENCE;
        let mut turn =
            racer + self.order_id.len() + usize::from(*self.order_id.as_bytes().last().unwrap_or(&0));
        while Instant::now() < deadline {
            if self.attempt(event, &id, turn).await {
                return;
            }
            turn += 1;
            sleep(AGAIN_AFTER.mul_f64(1.0 + rand::random::<f64>())).await;
        }
        self.note(|answers| answers.wrong.push(format!("{} {id} was never answered", self.order_id)));
    }

    async fn attempt(&self, event: &'static str, id: &str, turn: usize) -> bool {
        let Some(url) = self.targets.pick(turn) else { return false };
        let begun = Instant::now();
        let request = self.http.post(format!("{url}/orders/{}/events", self.order_id));
        let Ok(answer) = request.json(&json!({"event": event, "id": id, "source": "kitchen"})).send().await
        else {
            self.note(|answers| answers.lost += 1);
            return false;
        };
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        let Ok(body) = answer.json::<Value>().await else {
            self.note(|answers| answers.lost += 1);
            return false;
        };
        let took = begun.elapsed();
        self.note(|answers| match status {
            201 => {
                answers.took.push(took);
                let replayed = headers.contains_key("idempotency-replayed");
                let (order_id, id) = (self.order_id.clone(), id.to_owned());
                answers.applied.push(Applied { order_id, id, event, events: events(&body), replayed });
            }
            200 => answers.ignored += 1,
            409 => answers.refused += 1,
            503 if headers.contains_key("retry-after") => answers.unavailable.push(took),
            other => answers.wrong.push(format!("{} {id}: {other} {body}", self.order_id)),
        });
        status != 503
    }

    fn note(&self, write: impl FnOnce(&mut Answers)) {
        write(&mut self.answers.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

fn events(body: &Value) -> Vec<(i64, String)> {
    let events = body["events"].as_array().into_iter().flatten();
    let event = |event: &Value| Some((event["seq"].as_i64()?, event["event"].as_str()?.to_owned()));
    events.filter_map(event).collect()
}

impl Answers {
    /// The longest that a reporter waited for a 503.
    pub(crate) fn slowest_refusal(&self) -> Duration {
        self.unavailable.iter().max().copied().unwrap_or_default()
    }

    /// How many were answered 201 since the first.
    pub(crate) fn count(&self) -> usize {
        self.applied.len()
    }

    /// Holds what was answered against the tables: every 201 has its events, every id one answer, every position one row,
    /// and no status was reached twice.
    pub(crate) async fn judge(&self, db: &PgPool, outcome: &mut Outcome) -> Result<()> {
        let rows: Vec<(String, i32, String)> =
            sqlx::query_as("SELECT order_id, seq, event FROM order_events ORDER BY order_id, seq")
                .fetch_all(db)
                .await?;
        let mut stored: HashMap<&str, Vec<&str>> = HashMap::new();
        for (order_id, seq, event) in &rows {
            let events = stored.entry(order_id).or_default();
            let expected = i32::try_from(events.len() + 1).context("few events")?;
            outcome.expect(expected == *seq, format!("{order_id} has {event} at {seq}, not at {expected}"));
            let doubled = Status::ALL.iter().any(|status| status.as_str() == event);
            outcome.expect(
                !(doubled && events.contains(&event.as_str())),
                format!("{order_id} reached {event} twice"),
            );
            events.push(event);
        }
        let mut by_id: HashMap<(&str, &str), &Vec<(i64, String)>> = HashMap::new();
        let mut replayed = 0;
        for applied in &self.applied {
            let Applied { order_id, id, event, events, .. } = applied;
            replayed += usize::from(applied.replayed);
            let there = stored.get(order_id.as_str()).context("an order is gone")?;
            let at = |seq: i64| usize::try_from(seq - 1).ok().and_then(|at| there.get(at)).copied();
            let whole = events.iter().all(|(seq, event)| at(*seq) == Some(event.as_str()));
            let last = events.last().is_some_and(|(_, last)| last == event);
            outcome.expect(
                whole && last,
                format!("{order_id} {id} was answered {events:?}, stored is {there:?}"),
            );
            let first = by_id.entry((order_id, id)).or_insert(events);
            outcome
                .expect(*first == events, format!("{order_id} {id} was answered {first:?}, then {events:?}"));
        }
        let few: Vec<&str> = self.wrong.iter().take(3).map(String::as_str).collect();
        outcome
            .expect(self.wrong.is_empty(), format!("{} wrong answers: {}", self.wrong.len(), few.join(", ")));
        outcome.note(format!(
            "{} reports applied, {replayed} of them told again, {} ignored, {} refused, {} times 503, {} connections lost",
            self.applied.len(),
            self.ignored,
            self.refused,
            self.unavailable.len(),
            self.lost
        ));
        Ok(())
    }
}
