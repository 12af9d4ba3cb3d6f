//! Group commit: all orders that wait at one moment are stored in one transaction.
//!
//! There is no timer: an idle writer writes a lone order at once, a busy one finds more waiting. But
//! before it goes it lets the handlers run that have something to do: what has reached the process comes along.
//! Ids are chosen before the first try, so that a retry after a lost answer finds the order stored.

use std::sync::{Arc, Mutex};

use rand::{RngExt as _, rngs::StdRng};
use serde_json::Value;
use tokio::{
    sync::{mpsc, mpsc::Permit},
    task::yield_now,
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use super::{Outcome, pause};
use crate::{
    order::{IdMint, OrderDetails, OrderId, OrderPlaced, Start},
    store::{IdempotencyKey, NewOrder, OrderStore, Outbox, Placement, Portion, StoreError, in_portions},
    telemetry::{
        RequestId,
        metrics::{Metrics, Step},
    },
    time::{Backoff, Clock, deadlines::RETRY as RETRY_FOR},
    tracker::{Accepted, PlaceError, PlaceRequest, Transitions},
};

/// Most orders in one transaction.
pub const WRITTEN_AT_ONCE: usize = 512;
/// So many have paid for their commit: nobody else is waited for, or the database would have nothing to do meanwhile.
const ENOUGH: usize = 64;

/// Writes orders. Ends when every [`crate::tracker::PlaceQueue`] is dropped and all requests are answered.
pub struct BatchWriter {
    /// Where requests wait.
    pub requests: mpsc::Receiver<PlaceRequest>,
    /// Where they are stored.
    pub store: Arc<dyn OrderStore>,
    /// To the relay: orders to publish from memory.
    pub fresh: mpsc::Sender<OrderPlaced>,
    /// Told when the first step of a new order is due.
    pub transitions: Arc<Transitions>,
    /// How long after being placed that is.
    pub start: Start,
    /// For the time part of ids.
    pub clock: Arc<dyn Clock>,
    /// What is measured.
    pub metrics: Arc<Metrics>,
    /// Makes ids, out of random bits: nobody must be able to guess one. They rise whichever writer asks.
    pub mint: Arc<Mutex<IdMint>>,
    /// A cryptographic generator.
    pub random: StdRng,
    /// Cuts retries short.
    pub hurry: CancellationToken,
    /// How many orders the database takes in time.
    pub portion: Portion,
}

impl BatchWriter {
    /// Works until there is nothing more to come.
    pub async fn run(mut self) {
        while self.step().await != Outcome::Finished {}
    }

    /// Waits for requests and stores all that wait.
    pub async fn step(&mut self) -> Outcome {
        let requests = self.gather().await;
        if requests.is_empty() {
            return Outcome::Finished;
        }
        // Whoever has given up waiting was told so; an order must not appear after that.
        let awaited = requests.into_iter().filter(|request| !request.answer.is_closed());
        let (mut orders, mut requests, mut waiting) = (Vec::new(), Vec::new(), Vec::new());
        for request in awaited {
            requests.push(request.request);
            waiting.push((request.since, request.answer));
            orders.push(self.new_order(request.details, request.key, request.meta));
        }
        let placing = self.place_until(&orders, &requests, Instant::now() + RETRY_FOR);
        // Whatever is logged meanwhile is about all of them.
        let asking = requests.iter().flatten().copied().collect();
        let mut answers = RequestId::during_all(asking, placing).await.into_iter();
        for (since, answer) in waiting {
            self.metrics.step_done(Step::Place, since.elapsed());
            // A caller that has left meanwhile finds the order by its idempotency key.
            drop(answer.send(answers.next().unwrap_or(Err(PlaceError::Unavailable))));
        }
        Outcome::Worked(orders.len())
    }

    /// All requests that wait, and those that requests bring which are here already; none if nothing comes any more.
    async fn gather(&mut self) -> Vec<PlaceRequest> {
        let mut requests = Vec::new();
        let batch = self.portion.size();
        let mut more = self.requests.recv_many(&mut requests, batch).await;
        while more > 0 && requests.len() < ENOUGH.min(batch) {
            // Every handler that can run does, after a look at the sockets.
            yield_now().await;
            let before = requests.len();
            let waiting = std::iter::from_fn(|| self.requests.try_recv().ok());
            requests.extend(waiting.take(batch - before));
            more = requests.len() - before;
        }
        requests
    }

    fn new_order(
        &mut self,
        details: OrderDetails,
        key: Option<IdempotencyKey>,
        meta: Option<Value>,
    ) -> NewOrder {
        let millis = self.clock.now().timestamp_millis().unsigned_abs();
        let order_id = self.mint.lock().expect("no holder panics").mint(millis, self.random.random());
        NewOrder { order_id, details, key, meta, start: self.start }
    }

    /// Each order has its own answer: one that the database refuses takes no neighbours with it.
    async fn place_until(
        &self,
        orders: &[NewOrder],
        requests: &[Option<RequestId>],
        give_up: Instant,
    ) -> Vec<Result<Accepted, PlaceError>> {
        let answers =
            in_portions(&self.portion, orders.len(), |part| self.place_with_retries(&orders[part], give_up))
                .await;
        let unavailable = answers.iter().filter_map(|answer| answer.as_ref().err());
        let mut unavailable = unavailable.filter(|error| error.is_transient());
        if let Some(error) = unavailable.next() {
            warn!(%error, orders = 1 + unavailable.count(), "orders are not accepted");
        }
        let answer = |((answer, order), request): ((Result<_, StoreError>, &NewOrder), _)| {
            answer.unwrap_or_else(|error| {
                if !error.is_transient() {
                    tell_refusal(order.order_id, &error, request);
                }
                Err(PlaceError::from(&error))
            })
        };
        answers.into_iter().zip(orders).zip(requests.iter().copied()).map(answer).collect()
    }

    async fn place_with_retries(
        &self,
        orders: &[NewOrder],
        give_up: Instant,
    ) -> Result<Vec<Result<Accepted, PlaceError>>, StoreError> {
        let mut backoff = Backoff::default();
        // Room at the relay is reserved before the commit, and once for all tries: an order that the
        // outbox says is ours must be in our memory, or nobody would publish it.
        let mut permits = self.fresh.try_reserve_many(orders.len()).ok();
        let outbox = if permits.is_some() { Outbox::Mine } else { Outbox::Anyones };
        loop {
            match self.store.place(orders, outbox).await {
                Ok(placements) => {
                    self.transitions.placed(self.start.due_in);
                    let permit = || permits.as_mut().and_then(Iterator::next);
                    return Ok(answer_all(orders, placements, permit));
                }
                // Fewer may go where many were too much, and one whose key is held must not hold up its neighbours.
                Err(error @ StoreError::Timeout(_)) if Instant::now() < give_up => return Err(error),
                Err(error)
                    if error.is_transient() && Instant::now() < give_up && !self.hurry.is_cancelled() =>
                {
                    let pause = pause("writing orders", &mut backoff, &error);
                    self.hurry.run_until_cancelled(pause).await;
                }
                // Behind this one others wait.
                Err(StoreError::Timeout(limit)) => {
                    self.portion.too_much(orders.len());
                    return Err(StoreError::Unavailable(StoreError::Timeout(limit).to_string()));
                }
                Err(error) => return Err(error),
            }
        }
    }
}

fn tell_refusal(order_id: OrderId, error: &StoreError, request: Option<RequestId>) {
    let tell = || error!(%order_id, %error, "an order is not accepted");
    match request {
        Some(request) => request.within(tell),
        None => tell(),
    }
}

fn answer_all<'a>(
    orders: &[NewOrder],
    placements: Vec<Placement>,
    mut permit: impl FnMut() -> Option<Permit<'a, OrderPlaced>>,
) -> Vec<Result<Accepted, PlaceError>> {
    let pairs = orders.iter().zip(placements);
    pairs
        .map(|(order, placement)| match placement {
            Placement::Placed(message) => {
                if let Some(permit) = permit() {
                    permit.send(message);
                }
                Ok(Accepted { order_id: order.order_id, replayed: false })
            }
            Placement::Replayed(order_id) => Ok(Accepted { order_id, replayed: true }),
            Placement::KeyReused => Err(PlaceError::KeyReused),
        })
        .collect()
}
