//! Group commit: all orders that wait at the desk at one moment are stored in one transaction.
//!
//! There is no timer: an idle writer writes a lone order at once, a busy one finds more waiting. But
//! before it goes it lets the handlers run that have something to do: what has reached the process comes along.
//! Ids are chosen before the first try, so that a retry after a lost answer finds the order stored.

use std::{sync::Arc, time::Duration};

use rand::{RngExt as _, rngs::StdRng};
use tokio::{
    sync::{mpsc, mpsc::Permit},
    task::yield_now,
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use super::{Backoff, Outcome, pause};
use crate::{
    bell::Bell,
    clock::Clock,
    desk::{Accepted, Answer, DeskError, Slip},
    metrics::{Metrics, Step},
    order::{IdMint, OrderPlaced},
    store::{NewOrder, Outbox, Placement, Store, StoreError},
};

/// Most orders in one transaction.
const BATCH: usize = 512;
/// So many have paid for their commit: nobody else is waited for, or the database would have nothing to do meanwhile.
const ENOUGH: usize = 64;
/// How long a batch is retried before its callers are told that the database is away.
const RETRY_FOR: Duration = Duration::from_millis(1500);

/// Writes orders. Ends when every [`crate::desk::Desk`] is dropped and all slips are answered.
pub struct Writer {
    /// Where slips wait.
    pub inbox: mpsc::Receiver<Slip>,
    /// Where they are stored.
    pub store: Arc<dyn Store>,
    /// To the relay: orders to publish from memory.
    pub fresh: mpsc::Sender<OrderPlaced>,
    /// Tells the progress loop when the first step of a new order is due.
    pub bell: Arc<Bell>,
    /// How long after being placed that is.
    pub first_delay: Duration,
    /// For the time part of ids.
    pub clock: Arc<dyn Clock>,
    /// What is measured.
    pub metrics: Arc<Metrics>,
    /// Makes ids, out of these random bits: nobody must be able to guess one.
    pub mint: IdMint,
    /// A cryptographic generator.
    pub random: StdRng,
    /// Cuts retries short.
    pub hurry: CancellationToken,
}

impl Writer {
    /// Works until there is nothing more to come.
    pub async fn run(mut self) {
        while self.step().await != Outcome::Finished {}
    }

    /// Waits for slips and stores all that wait.
    pub async fn step(&mut self) -> Outcome {
        let slips = self.gather().await;
        if slips.is_empty() {
            return Outcome::Finished;
        }
        // Whoever has given up waiting was told so; an order must not appear after that.
        let awaited = slips.into_iter().filter(|slip| !slip.answer.is_closed());
        let (orders, waiting): (Vec<NewOrder>, Vec<_>) = awaited.map(|slip| self.new_order(slip)).unzip();
        let mut answers = self.place(&orders).await.into_iter();
        for (since, answer) in waiting {
            self.metrics.step_done(Step::Place, since.elapsed());
            // A caller that has left meanwhile finds the order by its idempotency key.
            drop(answer.send(answers.next().unwrap_or(Err(DeskError::Unavailable))));
        }
        Outcome::Worked(orders.len())
    }

    /// All slips that wait, and those that requests bring which are here already; none if nothing comes any more.
    async fn gather(&mut self) -> Vec<Slip> {
        let mut slips = Vec::new();
        let mut more = self.inbox.recv_many(&mut slips, BATCH).await;
        while more > 0 && slips.len() < ENOUGH {
            // Every handler that can run does, after a look at the sockets.
            yield_now().await;
            let before = slips.len();
            let waiting = std::iter::from_fn(|| self.inbox.try_recv().ok());
            slips.extend(waiting.take(BATCH - before));
            more = slips.len() - before;
        }
        slips
    }

    fn new_order(&mut self, slip: Slip) -> (NewOrder, (Instant, Answer)) {
        let Slip { draft, key, meta, since, answer } = slip;
        let millis = self.clock.now().timestamp_millis().unsigned_abs();
        let order_id = self.mint.mint(millis, self.random.random());
        (NewOrder { order_id, draft, key, meta }, (since, answer))
    }

    async fn place(&mut self, orders: &[NewOrder]) -> Vec<Result<Accepted, DeskError>> {
        self.place_until(orders, Instant::now() + RETRY_FOR).await
    }

    async fn place_until(
        &mut self,
        orders: &[NewOrder],
        give_up: Instant,
    ) -> Vec<Result<Accepted, DeskError>> {
        match self.place_with_retries(orders, give_up).await {
            Ok(accepted) => accepted,
            Err(error) if error.is_transient() => {
                warn!(%error, orders = orders.len(), "orders are not accepted");
                vec![Err(DeskError::Unavailable); orders.len()]
            }
            // One that the database refuses must not take its neighbours with it.
            Err(_) if orders.len() > 1 => {
                let mut answers = Vec::with_capacity(orders.len());
                for order in orders {
                    let alone = std::slice::from_ref(order);
                    // One deadline for the whole batch: behind it others wait.
                    if Instant::now() < give_up {
                        answers.extend(Box::pin(self.place_until(alone, give_up)).await);
                    } else {
                        answers.push(Err(DeskError::Unavailable));
                    }
                }
                answers
            }
            Err(error) => {
                error!(%error, "an order is not accepted");
                vec![Err(DeskError::from(&error)); orders.len()]
            }
        }
    }

    async fn place_with_retries(
        &self,
        orders: &[NewOrder],
        give_up: Instant,
    ) -> Result<Vec<Result<Accepted, DeskError>>, StoreError> {
        if orders.is_empty() {
            return Ok(Vec::new());
        }
        let mut backoff = Backoff::default();
        // Room at the relay is reserved before the commit, and once for all tries: an order that the
        // outbox says is ours must be in our memory, or nobody would publish it.
        let mut seats = self.fresh.try_reserve_many(orders.len()).ok();
        let outbox = if seats.is_some() { Outbox::Mine } else { Outbox::Anyones };
        loop {
            match self.store.place(orders, outbox).await {
                Ok(placements) => {
                    self.bell.ring_in(self.first_delay);
                    let seat = || seats.as_mut().and_then(Iterator::next);
                    return Ok(answer_all(orders, placements, seat));
                }
                Err(error)
                    if error.is_transient() && Instant::now() < give_up && !self.hurry.is_cancelled() =>
                {
                    pause("writing orders", &mut backoff, &error, &self.hurry).await;
                }
                Err(error) => return Err(error),
            }
        }
    }
}

fn answer_all<'a>(
    orders: &[NewOrder],
    placements: Vec<Placement>,
    mut seat: impl FnMut() -> Option<Permit<'a, OrderPlaced>>,
) -> Vec<Result<Accepted, DeskError>> {
    let pairs = orders.iter().zip(placements);
    pairs
        .map(|(order, placement)| match placement {
            Placement::Placed(message) => {
                if let Some(seat) = seat() {
                    seat.send(message);
                }
                Ok(Accepted { order_id: order.order_id, replayed: false })
            }
            Placement::Replayed(order_id) => Ok(Accepted { order_id, replayed: true }),
            Placement::KeyReused => Err(DeskError::KeyReused),
        })
        .collect()
}
