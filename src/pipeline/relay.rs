//! From the outbox to the topic.
//!
//! Orders come from the writer's memory right after their commit; the outbox table is swept for
//! what a crash, a full queue or a refused message left behind. A row goes only after the broker's
//! acknowledgement, so every order is published at least once; and a row has one owner at a time
//! (see [`Store::take_unsent`]), so without faults it is published exactly once.

use std::{collections::HashSet, sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{Backoff, Outcome, StepError, pause};
use crate::{
    broker::{IN_FLIGHT, Publisher, Receipt},
    health::Condition,
    metrics::{Metrics, Step},
    order::{OrderId, OrderPlaced},
    store::Store,
};

/// Most orders, receipts or rows in one go.
const BATCH: usize = 1_000;
/// How often the outbox is swept; also the sign of life that keeps our rows ours.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// A pause between two sweeps that others may have taken for our end.
const SILENT_AFTER: Duration = Duration::from_secs(2);
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
    /// Told when the time for draining is over.
    give_up: CancellationToken,
    /// Handed to the broker's client and not answered yet.
    in_flight: HashSet<OrderId>,
    /// Acknowledged; rows to be cleared.
    acknowledged: Vec<OrderId>,
    /// Not acknowledged; rows to be given back.
    failed: Vec<OrderId>,
    settle_at: Option<Instant>,
    sweep_at: Instant,
    sweep_every: Duration,
    /// The last sign of life; the first sweep of all only gives one.
    swept_at: Option<Instant>,
    search_at: Instant,
    /// Rows are left alone until then, longer each time the broker refuses one.
    hold_until: Instant,
    refusals: Backoff,
    /// Why the broker refused an order, until it takes one or none is left.
    refusal: Option<String>,
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
        give_up: CancellationToken,
    ) -> Self {
        Self {
            store,
            publisher,
            fresh,
            receipts,
            metrics,
            give_up,
            in_flight: HashSet::new(),
            acknowledged: Vec::new(),
            failed: Vec::new(),
            settle_at: None,
            sweep_at: Instant::now(),
            sweep_every: SWEEP_EVERY,
            swept_at: None,
            search_at: Instant::now() + SEARCH_EVERY,
            hold_until: Instant::now(),
            refusals: Backoff::default(),
            refusal: None,
            writer_gone: false,
        }
    }

    /// Sweeps more often by this part of up to a third: replicas that start and end in step with each other
    /// would each take over the last one's rows just before their own end.
    #[must_use]
    pub fn out_of_step(self, part: f64) -> Self {
        Self { sweep_every: SWEEP_EVERY.mul_f64(1.0 - part / 3.0), ..self }
    }

    /// Works until all is settled or it is told to give up.
    /// Says through `condition` what holds orders up beside a broker that is away.
    pub async fn run(mut self, condition: watch::Sender<Condition>) {
        let (mut backoff, give_up) = (Backoff::default(), self.give_up.clone());
        while !give_up.is_cancelled() {
            match self.step().await {
                Ok(Outcome::Finished) => return,
                Ok(_) => {
                    backoff.reset();
                    let refused = |why| Condition::Down(format!("the broker refused an order ({why})"));
                    condition.send_replace(self.refusal.as_ref().map_or(Condition::Up, refused));
                }
                Err(error) => {
                    condition
                        .send_replace(Condition::Down(format!("the database does not answer ({error})")));
                    pause("the relay", &mut backoff, &error, &give_up).await;
                }
            }
        }
        let left = self.held();
        tracing::warn!(left, "orders stay in the outbox and are published after the next start");
    }

    /// Waits for the next thing to do and does it: publish, note receipts, clear rows or sweep.
    pub async fn step(&mut self) -> Result<Outcome, StepError> {
        if self.writer_gone && self.held() == 0 {
            return Ok(Outcome::Finished);
        }
        // What is late comes first, however busy the queues are.
        let now = Instant::now();
        if self.settle_at.is_some_and(|at| at <= now) {
            return self.settle().await;
        }
        if self.sweep_at <= now {
            return self.sweep().await;
        }
        let wake_at = self.settle_at.map_or(self.sweep_at, |at| at.min(self.sweep_at));
        let room = self.room();
        let (mut receipts, mut orders) = (Vec::new(), Vec::new());
        tokio::select! {
            biased;
            () = self.give_up.cancelled() => {}
            () = sleep_until(wake_at) => {}
            _ = self.receipts.recv_many(&mut receipts, BATCH), if !self.in_flight.is_empty() => self.note(receipts),
            count = self.fresh.recv_many(&mut orders, room), if room > 0 && !self.writer_gone => {
                self.writer_gone = count == 0;
                self.publish_all(&orders);
                return Ok(Outcome::Worked(count));
            }
        }
        Ok(Outcome::Idle)
    }

    /// How many orders were taken over and are not done with.
    fn held(&self) -> usize {
        self.in_flight.len() + self.acknowledged.len() + self.failed.len()
    }

    /// How many more orders may be handed to the broker's client.
    fn room(&self) -> usize {
        IN_FLIGHT.saturating_sub(self.held()).min(BATCH)
    }

    fn publish_all(&mut self, orders: &[OrderPlaced]) {
        for order in orders {
            match self.publisher.publish(order) {
                Ok(()) => _ = self.in_flight.insert(order.order_id),
                Err(error) => self.refused(order.order_id, &error),
            }
        }
    }

    fn note(&mut self, receipts: Vec<Receipt>) {
        for Receipt { order_id, outcome, took } in receipts {
            self.in_flight.remove(&order_id);
            match outcome {
                Ok(()) => {
                    self.metrics.produced();
                    self.metrics.step_done(Step::Publish, took);
                    self.acknowledged.push(order_id);
                    self.refusals.reset();
                    self.refusal = None;
                }
                Err(error) => self.refused(order_id, &error),
            }
        }
        self.settle_at.get_or_insert(Instant::now() + SETTLE_AFTER);
    }

    fn refused(&mut self, order_id: OrderId, error: &dyn std::fmt::Display) {
        // The first of a series is logged; a broker that refuses one mostly refuses all.
        if self.failed.is_empty() {
            let pause = self.refusals.next_pause();
            self.hold_until = Instant::now() + pause;
            tracing::warn!(%order_id, %error, "an order was not published; it stays in the outbox for {pause:?}");
        }
        self.refusal = Some(error.to_string());
        self.failed.push(order_id);
        self.settle_at.get_or_insert(Instant::now() + SETTLE_AFTER);
    }

    /// Clears the rows of acknowledged orders and gives the others back.
    async fn settle(&mut self) -> Result<Outcome, StepError> {
        let settled = self.acknowledged.len() + self.failed.len();
        if !self.acknowledged.is_empty() {
            self.store.mark_sent(&self.acknowledged).await?;
            self.acknowledged.clear();
        }
        if !self.failed.is_empty() {
            self.store.release(&self.failed).await?;
            self.failed.clear();
        }
        self.settle_at = None;
        Ok(Outcome::Worked(settled))
    }

    /// Publishes rows that nobody alive holds in memory.
    async fn sweep(&mut self) -> Result<Outcome, StepError> {
        let now = Instant::now();
        // After an outage of the database all claims have run out. Each replica renews its own
        // before any takes another's, or what is published already would be published again.
        let silent = self.swept_at.is_none_or(|at| now - at > SILENT_AFTER);
        let held_back = self.writer_gone || now < self.hold_until || silent;
        let room = if held_back { 0 } else { self.room() };
        let mut found = self.store.take_unsent(room).await?;
        self.swept_at = Some(now);
        // A full batch means that there may be more.
        let more = room > 0 && found.len() == room;
        self.sweep_at = Instant::now() + if more { Duration::ZERO } else { self.sweep_every };
        self.publish_all(&found);
        if !more && !held_back {
            let lost = self.search().await?;
            self.publish_all(&lost);
            found.extend(lost);
        }
        if found.is_empty() && !held_back {
            self.refusal = None;
        }
        Ok(if found.is_empty() { Outcome::Idle } else { Outcome::Worked(found.len()) })
    }

    /// Rows that became ours by a write whose answer got lost, so that nobody holds them.
    async fn search(&mut self) -> Result<Vec<OrderPlaced>, StepError> {
        // What still waits to be received is held too.
        if Instant::now() < self.search_at || self.held() > SEARCH_HOLDING || !self.fresh.is_empty() {
            return Ok(Vec::new());
        }
        let held: Vec<OrderId> =
            self.in_flight.iter().chain(&self.acknowledged).chain(&self.failed).copied().collect();
        let lost = self.store.take_lost(&held, BATCH).await?;
        self.search_at = Instant::now() + SEARCH_EVERY;
        if !lost.is_empty() {
            tracing::warn!(
                orders = lost.len(),
                "orders were claimed by a write whose answer got lost; publishing them"
            );
        }
        Ok(lost)
    }
}
