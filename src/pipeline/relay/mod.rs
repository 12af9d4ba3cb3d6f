//! From the outbox to the topic.
//!
//! Orders come from the writer's memory right after their commit; the outbox table is swept for what a
//! crash, a full queue, a refused message or a partition that was away left behind. A row goes only after the
//! broker's acknowledgement, so every order is published at least once; and a row has one owner at a time
//! (see [`OutboxStore::claim`](crate::store::OutboxStore::claim)), so without faults it is published exactly once.
//!
//! The database works beside: publishing waits for none of its answers, nor does the sign of life.

mod database;
mod flight;
mod locked;
mod refused;
mod rotation;
mod work;

use std::{collections::VecDeque, sync::Arc, time::Duration};

use futures::future::BoxFuture;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{Outcome, StepError, postponed::Postponements};
use crate::{
    broker::{IN_FLIGHT, Partitions, Publisher, Receipt, Refusal},
    order::{OrderId, OrderPlaced},
    store::{Store, StoreError},
    telemetry::{
        health::{Health, Issue, IssueKind, Issues},
        metrics::{Metrics, Step},
    },
    time::{Backoff, Clock, deadlines},
};
use flight::Flight;
use locked::Locked;
use refused::Refused;
use rotation::Rotation;
use work::{Done, Portions};

/// Most orders, receipts or rows in one go.
const BATCH: usize = 1_000;
/// How often a sweep of the outbox begins, if the last one has ended.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// How often others are told that this replica lives; it keeps our rows ours.
const BEAT_EVERY: Duration = deadlines::SIGN_OF_LIFE;
/// The same after one that failed.
const BEAT_AGAIN: Duration = Duration::from_millis(250);
/// Without a sign of life for so long others may have taken us for gone.
const SILENT_AFTER: Duration = deadlines::SILENT;
/// How often partitions are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often own rows are looked for that this relay does not hold.
const SEARCH_EVERY: Duration = Duration::from_secs(5);
/// Most orders held for such a look: with more the broker is away, and nothing is urgent.
const SEARCH_HOLDING: usize = 1_000;
/// How long an acknowledged row may wait for others to be cleared with it.
const SETTLE_AFTER: Duration = Duration::from_millis(100);

/// Publishes orders. Ends when the writer is gone and every order in memory is settled.
pub struct Relay {
    store: Arc<dyn Store>,
    publisher: Arc<dyn Publisher>,
    fresh: mpsc::Receiver<OrderPlaced>,
    receipts: mpsc::Receiver<Receipt>,
    metrics: Arc<Metrics>,
    clock: Arc<dyn Clock>,
    /// Told when the time for draining is over.
    give_up: CancellationToken,
    partitions: Arc<Partitions>,
    /// Handed to the broker's client and not answered yet.
    flight: Flight,
    refused: Refused,
    /// Acknowledged; rows to be cleared.
    acknowledged: Vec<OrderId>,
    /// Not published; rows to be given back.
    unsent: Vec<OrderId>,
    /// The rows that are being cleared or given back.
    settling: Vec<OrderId>,
    settle_at: Option<Instant>,
    /// Rows that could not be cleared, and that could not be given back, with all others.
    uncleared: Postponements,
    unreleased: Postponements,
    /// Rows that another session of the database holds.
    locked: Locked,
    rotation: Rotation,
    /// Rows to be claimed that were found, with places reserved for them.
    found: VecDeque<OrderId>,
    search_at: Instant,
    look_at: Instant,
    portions: Arc<Portions>,
    /// What the database is doing.
    work: Option<BoxFuture<'static, Done>>,
    beat: Option<BoxFuture<'static, Result<(), StoreError>>>,
    beat_at: Instant,
    /// The last sign of life.
    lived_at: Option<Instant>,
    /// Answers since the last claim: how many orders were acknowledged, and how many refused.
    answers: (usize, usize),
    trouble: Option<String>,
    backoff: Backoff,
    rest_until: Instant,
    writer_gone: bool,
}

impl Relay {
    /// A relay that publishes what arrives on `fresh`; `receipts` is the publisher's other end.
    pub fn new(
        store: Arc<dyn Store>,
        publisher: Arc<dyn Publisher>,
        fresh: mpsc::Receiver<OrderPlaced>,
        receipts: mpsc::Receiver<Receipt>,
        metrics: Arc<Metrics>,
        clock: Arc<dyn Clock>,
        give_up: CancellationToken,
    ) -> Self {
        let now = Instant::now();
        Self {
            store,
            publisher,
            fresh,
            receipts,
            metrics,
            clock,
            give_up,
            partitions: Arc::default(),
            flight: Flight::default(),
            refused: Refused::default(),
            acknowledged: Vec::new(),
            unsent: Vec::new(),
            settling: Vec::new(),
            settle_at: None,
            uncleared: Postponements::default(),
            unreleased: Postponements::default(),
            locked: Locked::default(),
            rotation: Rotation::new(SWEEP_EVERY),
            found: VecDeque::new(),
            search_at: now + SEARCH_EVERY,
            look_at: now,
            portions: Arc::default(),
            work: None,
            beat: None,
            beat_at: now,
            lived_at: None,
            answers: (0, 0),
            trouble: None,
            backoff: Backoff::default(),
            rest_until: now,
            writer_gone: false,
        }
    }

    /// Sweeps more often by this part of up to a third: replicas that start and end in step with each other
    /// would each take over the last one's rows just before their own end.
    #[must_use]
    pub fn out_of_step(self, part: f64) -> Self {
        Self { rotation: Rotation::new(SWEEP_EVERY.mul_f64(1.0 - part / 3.0)), ..self }
    }

    /// Works until all is settled or it is told to give up.
    /// Says through `health` what holds orders up beside a broker that is away.
    pub async fn run(mut self, health: watch::Sender<Health>) {
        let mut told = None;
        while !self.give_up.is_cancelled() {
            let outcome = self.step().await;
            let state = (self.trouble.is_some(), self.refused.all().is_some(), self.look_at);
            if told.replace(state) != Some(state) {
                health.send_replace(self.health());
            }
            match outcome {
                Ok(Outcome::Finished) => return,
                Ok(_) => {}
                Err(error) => {
                    let pause = self.rest_until.saturating_duration_since(Instant::now());
                    warn!(%error, "the relay will try again in {pause:?}");
                }
            }
        }
        let left = self.held() + self.fresh.len();
        warn!(left, "orders stay in the outbox and are published after the next start");
    }

    /// What holds orders up.
    fn health(&self) -> Health {
        if let Some(trouble) = &self.trouble {
            return Health::Down(format!("the database does not answer ({trouble})"));
        }
        if let Some(reason) = self.refused.all() {
            return Health::Down(format!("no order can be published: {reason}"));
        }
        let rows = |rows: &Postponements, what: &str| {
            let first = *rows.worst(1).first()?;
            let text = format!("the outbox row of {} can't be {what}: {}", first.order_id, first.reason);
            Some(Issue::about(IssueKind::Other, first.order_id, text))
        };
        let issues = [
            self.flight.trouble().map(|text| Issue::new(IssueKind::Partition, text)),
            self.refused.trouble(),
            rows(&self.uncleared, "cleared"),
            rows(&self.unreleased, "given back"),
            self.locked.trouble().map(|text| Issue::new(IssueKind::Other, text)),
        ];
        let issues: Vec<Issue> = issues.into_iter().flatten().collect();
        if issues.is_empty() { Health::Up } else { Health::Degraded(Issues(issues)) }
    }

    /// Waits for the next thing that happens and sees to it: an order to publish, receipts, an answer of the
    /// database, or the time for another question.
    pub async fn step(&mut self) -> Result<Outcome, StepError> {
        self.note_the_end();
        if self.finished() {
            return Ok(Outcome::Finished);
        }
        let wake_at = self.begin_what_is_due();
        let room = self.room().min(BATCH);
        let (mut receipts, mut orders) = (Vec::new(), Vec::new());
        tokio::select! {
            biased;
            () = self.give_up.cancelled() => {}
            outcome = ready(&mut self.beat) => return self.beaten(outcome),
            done = ready(&mut self.work) => return self.done(done),
            _ = self.receipts.recv_many(&mut receipts, BATCH), if !self.flight.is_empty() => self.note(receipts),
            () = sleep_until(wake_at) => {}
            count = self.fresh.recv_many(&mut orders, room), if room > 0 && !self.writer_gone => {
                self.writer_gone = count == 0;
                self.publish_all(orders);
                return Ok(Outcome::Worked(count));
            }
        }
        Ok(Outcome::Idle)
    }

    /// Where no order can go, the last ones are left to the outbox, or stopping would have to wait.
    fn note_the_end(&mut self) {
        if self.fresh.is_closed() && self.refused.all_until().is_some() {
            while let Ok(order) = self.fresh.try_recv() {
                self.give_back(order.order_id);
            }
        }
        self.writer_gone = self.writer_gone || self.fresh.is_closed() && self.fresh.is_empty();
        if self.writer_gone {
            self.found.drain(..).for_each(|order_id| self.flight.give_up(order_id));
        }
    }

    fn finished(&self) -> bool {
        self.writer_gone && self.held() == 0 && self.work.is_none()
    }

    /// How many orders were taken over and are not done with.
    fn held(&self) -> usize {
        self.flight.len() + self.acknowledged.len() + self.unsent.len() + self.settling.len()
    }

    /// How many more orders may be handed to the broker's client.
    fn room(&self) -> usize {
        let most = match self.refused.all_until() {
            Some(_) => 0,
            None if self.refused.asks() => 1,
            None => IN_FLIGHT,
        };
        most.saturating_sub(self.held() + self.locked.len())
    }

    fn publish_all(&mut self, orders: Vec<OrderPlaced>) {
        self.partitions = self.publisher.partitions();
        for order in orders {
            let partition = self.partitions.of(order.order_id);
            if !self.flight.may_take(partition, self.room()) {
                self.give_back(order.order_id);
                continue;
            }
            match self.publisher.publish(&order, partition) {
                Ok(()) => self.flight.add(order.order_id, partition),
                Err(refusal) => self.refuse(order.order_id, &refusal),
            }
        }
    }

    fn note(&mut self, receipts: Vec<Receipt>) {
        for Receipt { order_id, outcome, took } in receipts {
            self.flight.remove(order_id);
            match outcome {
                Ok(()) => {
                    self.metrics.produced();
                    self.metrics.step_done(Step::Publish, took);
                    self.refused.went(order_id);
                    self.acknowledged.push(order_id);
                    self.answers.0 += 1;
                }
                Err(refusal) => self.refuse(order_id, &refusal),
            }
        }
        self.settle_at.get_or_insert(Instant::now() + SETTLE_AFTER);
    }

    fn refuse(&mut self, order_id: OrderId, refusal: &Refusal) {
        self.answers.1 += 1;
        self.refused.add(order_id, refusal);
        self.give_back(order_id);
    }

    fn give_back(&mut self, order_id: OrderId) {
        self.unsent.push(order_id);
        self.settle_at.get_or_insert(Instant::now() + SETTLE_AFTER);
    }
}

/// Waits for what is under way; for ever if nothing is.
async fn ready<T>(under_way: &mut Option<BoxFuture<'static, T>>) -> T {
    match under_way {
        Some(future) => {
            let done = future.await;
            *under_way = None;
            done
        }
        None => std::future::pending().await,
    }
}
