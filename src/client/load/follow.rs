//! Waits until orders are at their ends, and tells how long the lives of the delivered ones were.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use hdrhistogram::Histogram;
use serde::Serialize;
use tokio::{task::JoinSet, time::sleep};
use tokio_util::sync::CancellationToken;

use super::{
    ClientError, ClientRequest, Connection, Latency, Target,
    recorder::{histogram, per_second, record, round},
};
use crate::order::{OrderId, Status, Timestamp, TrackedOrder};

/// Pause between two looks at one order.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// Orders that are followed until they are delivered or cancelled.
#[derive(Debug)]
pub struct Watch {
    ids: Vec<OrderId>,
    taken: AtomicUsize,
    delivered: AtomicU64,
    cancelled: AtomicU64,
}

/// What became of the orders.
#[derive(Debug, Clone, Serialize)]
pub struct DeliveryStats {
    /// Orders that are delivered.
    pub delivered: u64,
    /// Orders that are cancelled.
    pub cancelled: u64,
    /// Orders that are neither, or were not found.
    pub undelivered: u64,
    /// From the first order's creation to the last one's delivery, by the service's clock.
    pub seconds: f64,
    /// Delivered orders a second in that time.
    pub rate: f64,
    /// From an order's creation to its delivery, in milliseconds.
    pub life_ms: Latency,
    /// Why looks failed, and how often.
    pub errors: BTreeMap<String, u64>,
}

#[derive(Debug)]
struct Seen {
    lives: Histogram<u64>,
    first: Option<Timestamp>,
    last: Option<Timestamp>,
    errors: BTreeMap<String, u64>,
}

impl Seen {
    fn new() -> Self {
        Self { lives: histogram(), first: None, last: None, errors: BTreeMap::new() }
    }

    fn failed(&mut self, why: String) {
        *self.errors.entry(why).or_default() += 1;
    }

    fn merge(&mut self, other: Self) {
        self.lives += &other.lives;
        self.first = [self.first, other.first].into_iter().flatten().min();
        self.last = self.last.max(other.last);
        for (why, count) in other.errors {
            *self.errors.entry(why).or_default() += count;
        }
    }
}

impl Watch {
    /// Nothing is asked yet.
    pub fn new(ids: Vec<OrderId>) -> Arc<Self> {
        Arc::new(Self {
            ids,
            taken: AtomicUsize::new(0),
            delivered: AtomicU64::new(0),
            cancelled: AtomicU64::new(0),
        })
    }

    /// How many are known to be delivered.
    fn delivered(&self) -> u64 {
        self.delivered.load(Ordering::Relaxed)
    }

    /// How many are known to be cancelled.
    fn cancelled(&self) -> u64 {
        self.cancelled.load(Ordering::Relaxed)
    }

    /// How many are known to be at one of their ends.
    pub fn ended(&self) -> u64 {
        self.delivered() + self.cancelled()
    }

    /// Waits until all are at their ends, or for a stop. Looks at a few at a time: those that were placed
    /// first arrive first, so hardly any is looked at twice.
    pub async fn run(
        self: Arc<Self>,
        target: &Target,
        connections: usize,
        stop: CancellationToken,
    ) -> DeliveryStats {
        let mut workers = JoinSet::new();
        for _ in 0..connections.min(self.ids.len()) {
            workers.spawn(Arc::clone(&self).work(target.clone(), stop.clone()));
        }
        let mut seen = Seen::new();
        while let Some(part) = workers.join_next().await {
            seen.merge(part.unwrap_or_else(|_| Seen::new()));
        }
        let delivered = self.delivered();
        let millis =
            seen.first.zip(seen.last).map(|(first, last)| (last - first).to_std().unwrap_or_default());
        let seconds = millis.unwrap_or_default().as_secs_f64();
        DeliveryStats {
            delivered,
            cancelled: self.cancelled(),
            undelivered: self.ids.len() as u64 - self.ended(),
            seconds: round(seconds),
            rate: round(per_second(delivered, seconds)),
            life_ms: Latency::of(&seen.lives),
            errors: seen.errors,
        }
    }

    async fn work(self: Arc<Self>, target: Target, stop: CancellationToken) -> Seen {
        let mut seen = Seen::new();
        let mut line = None;
        while let Some(id) = self.ids.get(self.taken.fetch_add(1, Ordering::Relaxed)) {
            let tracked = stop.run_until_cancelled(end(*id, &target, &mut line, &mut seen)).await;
            match tracked {
                Some(Some(tracked)) if tracked.order.status == Status::Delivered => {
                    self.note(&tracked, &mut seen);
                }
                Some(Some(_)) => _ = self.cancelled.fetch_add(1, Ordering::Relaxed),
                Some(None) => {}
                None => break,
            }
        }
        seen
    }

    fn note(&self, tracked: &TrackedOrder, seen: &mut Seen) {
        let (created, delivered) = (tracked.order.created_at, tracked.order.updated_at);
        match (delivered - created).to_std() {
            Ok(life) => record(&mut seen.lives, life),
            Err(_) => seen.failed("delivered before it was created".to_owned()),
        }
        seen.first = seen.first.into_iter().chain([created]).min();
        seen.last = seen.last.max(Some(delivered));
        self.delivered.fetch_add(1, Ordering::Relaxed);
    }
}

/// Looks until nothing more happens to the order; none if there is no such order.
async fn end(
    id: OrderId,
    target: &Target,
    line: &mut Option<Connection>,
    seen: &mut Seen,
) -> Option<TrackedOrder> {
    loop {
        match look(id, target, line).await {
            Ok(answer) if answer.is_good() => {
                let tracked: Option<TrackedOrder> = serde_json::from_slice(&answer.body).ok();
                match tracked {
                    Some(tracked) if tracked.order.status.is_final() => return Some(tracked),
                    Some(_) => {}
                    None => seen.failed("not the answer of an order-tracker".to_owned()),
                }
            }
            Ok(answer) => {
                seen.failed(answer.status.to_string());
                if answer.status.is_client_error() {
                    return None;
                }
            }
            Err(trouble) => seen.failed(trouble.to_string()),
        }
        sleep(LOOK_AGAIN).await;
    }
}

async fn look(
    id: OrderId,
    target: &Target,
    line: &mut Option<Connection>,
) -> Result<super::Answer, ClientError> {
    if line.is_none() {
        *line = Some(Connection::open(target).await?);
    }
    let Some(line) = line else { return Err(ClientError::Lost) };
    line.ask(ClientRequest::get(format!("/orders/{id}"))).await
}
