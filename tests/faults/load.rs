//! A good client: it places orders at a steady rate whatever the answers, gives each order a key,
//! and tries again with the same key until the order is accepted.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::Result;
use reqwest::{Client, Response, header::HeaderMap};
use serde_json::{Value, json};
use tokio::{
    sync::Semaphore,
    task::{JoinHandle, JoinSet},
    time::{Instant, MissedTickBehavior, interval, sleep, timeout_at},
};

use crate::app::{SECRET, Targets};

/// How long a client waits for an answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// Pause after a lost connection or a 503, a little longer each time at random.
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(250);

/// What to place.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// How many orders.
    pub(crate) orders: usize,
    /// How many a second.
    pub(crate) rate: f64,
    /// Most requests at once.
    pub(crate) connections: usize,
    /// Begins every key and every customer's name.
    pub(crate) name: String,
    /// How long one order is tried.
    pub(crate) patience: Duration,
}

/// An order that was answered with 201.
#[derive(Debug, Clone)]
pub(crate) struct Placed {
    pub(crate) key: String,
    pub(crate) order_id: String,
    pub(crate) at: Instant,
    /// The answer said that an earlier try, which got no 201, had placed it.
    pub(crate) replayed: bool,
}

/// One try to place one order.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attempt {
    pub(crate) at: Instant,
    pub(crate) took: Duration,
    /// The status code, or none if the connection was lost or nothing came in time.
    pub(crate) status: Option<u16>,
    /// The request may have arrived: there was a connection.
    pub(crate) sent: bool,
}

/// What the client saw.
#[derive(Debug, Clone, Default)]
pub(crate) struct History {
    pub(crate) placed: Vec<Placed>,
    pub(crate) attempts: Vec<Attempt>,
    /// Keys of orders that were never accepted.
    pub(crate) given_up: Vec<String>,
    /// Answers that are not what is promised.
    pub(crate) dishonest: Vec<String>,
}

/// A load under way.
pub(crate) struct Load {
    orders: usize,
    started: Arc<AtomicUsize>,
    task: JoinHandle<Result<History>>,
}

impl Load {
    /// Begins to place orders.
    pub(crate) fn start(targets: Targets, plan: Plan) -> Self {
        let (orders, started) = (plan.orders, Arc::new(AtomicUsize::new(0)));
        let task = tokio::spawn(place_all(targets, plan, Arc::clone(&started)));
        Self { orders, started, task }
    }

    /// Whether there are orders that have not been tried yet.
    pub(crate) fn goes_on(&self) -> bool {
        !self.task.is_finished() && self.started.load(Ordering::Relaxed) < self.orders
    }

    /// Waits until the last order is accepted or given up.
    pub(crate) async fn end(self) -> Result<History> {
        self.task.await?
    }
}

async fn place_all(targets: Targets, plan: Plan, started: Arc<AtomicUsize>) -> Result<History> {
    let http = Client::builder()
        .no_proxy()
        .pool_max_idle_per_host(plan.connections)
        .connect_timeout(Duration::from_secs(1))
        .timeout(ANSWER_WITHIN)
        .build()?;
    let history = Arc::new(Mutex::new(History::default()));
    let permits = Arc::new(Semaphore::new(plan.connections));
    let mut tick = interval(Duration::from_secs_f64(1.0 / plan.rate));
    // The load is open: what the service did not take in time comes all the same.
    tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut customers = JoinSet::new();
    for number in 0..plan.orders {
        tick.tick().await;
        started.fetch_add(1, Ordering::Relaxed);
        let customer = Customer {
            key: format!("{}-{number}", plan.name),
            number,
            http: http.clone(),
            targets: targets.clone(),
            permits: Arc::clone(&permits),
            history: Arc::clone(&history),
        };
        customers.spawn(customer.place(Instant::now() + plan.patience));
    }
    customers.join_all().await;
    let history = history.lock().unwrap_or_else(PoisonError::into_inner).clone();
    Ok(history)
}

/// Who wants one order.
struct Customer {
    key: String,
    number: usize,
    http: Client,
    targets: Targets,
    permits: Arc<Semaphore>,
    history: Arc<Mutex<History>>,
}

impl Customer {
    async fn place(self, deadline: Instant) {
        let mut tries = 0;
        while Instant::now() < deadline {
            let Ok(permit) = timeout_at(deadline, self.permits.acquire()).await else { break };
            let placed = self.attempt(self.number + tries).await;
            drop(permit);
            if let Some(placed) = placed {
                self.note(|history| history.placed.push(placed));
                return;
            }
            tries += 1;
            sleep(TRY_AGAIN_AFTER.mul_f64(1.0 + rand::random::<f64>())).await;
        }
        self.note(|history| history.given_up.push(self.key.clone()));
    }

    async fn attempt(&self, turn: usize) -> Option<Placed> {
        let url = self.targets.pick(turn)?;
        let at = Instant::now();
        let request = self.http.post(format!("{url}/orders")).header("Idempotency-Key", &self.key);
        let answer = request.json(&order_body(&self.key)).send().await;
        let answer = match answer {
            Ok(answer) => whole(answer).await,
            Err(error) => Err(error),
        };
        let sent = answer.as_ref().err().is_none_or(|error| !error.is_connect());
        let status = answer.as_ref().ok().map(|(status, ..)| *status);
        self.note(|history| history.attempts.push(Attempt { at, took: at.elapsed(), status, sent }));
        let (status, headers, body) = answer.ok()?;
        if let Some(lie) = lie(status, &headers) {
            self.note(|history| history.dishonest.push(format!("{}: {lie} {body}", self.key)));
        }
        let order_id = body["order_id"].as_str().filter(|_| status == 201)?.to_owned();
        let replayed = headers.contains_key("idempotency-replayed");
        Some(Placed { key: self.key.clone(), order_id, at: Instant::now(), replayed })
    }

    fn note(&self, write: impl FnOnce(&mut History)) {
        write(&mut self.history.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// The order that belongs to a key: always the same.
pub(crate) fn order_body(key: &str) -> Value {
    json!({"customer_name": format!("{SECRET} {key}"), "address": format!("{SECRET} Lane"), "item": "pizza",
        "size": "large"})
}

async fn whole(answer: Response) -> reqwest::Result<(u16, HeaderMap, Value)> {
    let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
    let body = answer.bytes().await?;
    Ok((status, headers, serde_json::from_slice(&body).unwrap_or_default()))
}

/// What is wrong with an answer: all but 201, and 503 as it should be.
fn lie(status: u16, headers: &HeaderMap) -> Option<String> {
    let problem = headers.get("content-type").is_some_and(|kind| kind == "application/problem+json");
    match status {
        201 => None,
        503 if problem && headers.contains_key("retry-after") => None,
        503 => Some("503 without Retry-After or not a problem".to_owned()),
        other => Some(format!("status {other}")),
    }
}

impl History {
    /// Joins what another load saw.
    pub(crate) fn extend(&mut self, other: Self) {
        self.placed.extend(other.placed);
        self.attempts.extend(other.attempts);
        self.given_up.extend(other.given_up);
        self.dishonest.extend(other.dishonest);
    }

    /// The longest that an attempt took which was answered or should have been.
    pub(crate) fn slowest(&self) -> Duration {
        self.attempts.iter().filter(|try_| try_.sent).map(|try_| try_.took).max().unwrap_or_default()
    }

    /// The longest that a client waited for a 503.
    pub(crate) fn slowest_refusal(&self) -> Duration {
        let refused = self.attempts.iter().filter(|try_| try_.status == Some(503));
        refused.map(|try_| try_.took).max().unwrap_or_default()
    }

    /// How many tries were answered 503.
    pub(crate) fn refused(&self) -> usize {
        self.attempts.iter().filter(|try_| try_.status == Some(503)).count()
    }

    /// Share of the tries between two moments that were not answered 201.
    pub(crate) fn failures(&self, from: Instant, to: Instant) -> f64 {
        let tries = || self.attempts.iter().filter(|try_| (from..to).contains(&try_.at));
        let failed = tries().filter(|try_| try_.status != Some(201)).count();
        share(failed, tries().count())
    }

    /// How long answers with 201 took that were asked for between two moments, at this quantile.
    pub(crate) fn latency(&self, quantile: f64, from: Instant, to: Instant) -> Duration {
        let good =
            self.attempts.iter().filter(|try_| try_.status == Some(201) && (from..to).contains(&try_.at));
        let mut took: Vec<Duration> = good.map(|try_| try_.took).collect();
        took.sort_unstable();
        crate::report::quantile(&took, quantile).unwrap_or_default()
    }

    /// From this moment until the next order was accepted.
    pub(crate) fn accepts_again(&self, since: Instant) -> Option<Duration> {
        self.placed.iter().filter(|placed| placed.at >= since).map(|placed| placed.at - since).min()
    }
}

/// A part of a whole, 0 of nothing.
#[expect(clippy::cast_precision_loss, reason = "counts of tries are small")]
fn share(part: usize, whole: usize) -> f64 {
    part as f64 / whole.max(1) as f64
}
