//! Who follows which order, and what wakes them when it moves.
//!
//! A wake-up says how far an order is and nothing else; what is shown is read from the store, so a slow
//! follower costs a query and misses nothing. A step made here wakes at once ([`Notifier::committed`]). For
//! those made by other replicas the poller knows when each followed order is due, and from then on asks.
//!
//! Invariant: nobody is told of a step that was not read from the database.

#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::{
    order::{Event, EventKind, OrderId, Status, Transition, promises::LIVE_WITHIN},
    store::{Position, Store, StoreError},
    tracker::OrderLoader,
};

/// Pause between two looks at orders that are due.
const LOOK_EVERY: Duration = Duration::from_millis(200);
const _: () = assert!(LOOK_EVERY.as_millis() < LIVE_WITHIN.as_millis(), "a step is seen in time");
/// How long the store's word on the next step is believed: its clock may be set.
const ASK_AGAIN: Duration = Duration::from_secs(30);
/// Pause after a read that failed or brought nothing.
const READ_AGAIN: Duration = Duration::from_millis(500);

/// Who follows which order.
pub struct Notifier {
    store: Arc<dyn Store>,
    /// Where timelines are read, by all at once when many orders move together.
    loader: OrderLoader,
    /// Most followers at once.
    places: usize,
    stop: CancellationToken,
    orders: Mutex<Orders>,
    /// There is something to ask for earlier than the poller knows.
    sooner: Notify,
}

#[derive(Default)]
struct Orders {
    subscribers: usize,
    /// How many of them each client is; none is 0.
    clients: HashMap<IpAddr, usize>,
    followed: HashMap<OrderId, Followed>,
}

/// An order with at least one follower.
struct Followed {
    /// How far the order is, as far as anybody here knows.
    reached: watch::Sender<Option<Status>>,
    /// When to ask the store; `None` at the end.
    ask_at: Option<Instant>,
}

impl Followed {
    fn wake(&self, reached: Status) {
        self.reached.send_if_modified(|known| {
            let news = *known < Some(reached);
            if news {
                *known = Some(reached);
            }
            news
        });
    }
}

impl Notifier {
    /// At most `places` followers of what is in `store`, until `stop`.
    pub fn new(
        store: Arc<dyn Store>,
        loader: OrderLoader,
        places: usize,
        stop: CancellationToken,
    ) -> Arc<Self> {
        Arc::new(Self { store, loader, places, stop, orders: Mutex::default(), sooner: Notify::new() })
    }

    fn orders(&self) -> MutexGuard<'_, Orders> {
        self.orders.lock().expect("no holder panics")
    }

    /// How many follow just now.
    pub fn subscribers(&self) -> usize {
        self.orders().subscribers
    }

    /// A follower of an order for this client, as far as it is known. Whoever follows first and reads the
    /// timeline then misses no step.
    pub fn subscribe(
        self: &Arc<Self>,
        order_id: OrderId,
        client: Option<IpAddr>,
    ) -> Result<Subscriber, NoPlace> {
        let mut orders = self.orders();
        if orders.subscribers == self.places {
            return Err(NoPlace::ForAnybody);
        }
        if let Some(client) = client {
            let share = (self.places / 2).max(1);
            let held = orders.clients.get(&client).copied().unwrap_or_default();
            if held >= share {
                return Err(NoPlace::ForThisClient);
            }
            orders.clients.insert(client, held + 1);
        }
        orders.subscribers += 1;
        let followed = orders.followed.entry(order_id).or_insert_with(|| {
            self.sooner.notify_one();
            Followed { reached: watch::Sender::new(None), ask_at: Some(Instant::now()) }
        });
        Ok(Subscriber { order_id, client, reached: followed.reached.subscribe(), notifier: Arc::clone(self) })
    }

    /// These steps were made here, and are committed.
    pub fn committed(&self, transitions: &[Transition]) {
        let mut orders = self.orders();
        if orders.followed.is_empty() {
            return;
        }
        for step in transitions {
            if let Some(followed) = orders.followed.get_mut(&step.order_id) {
                followed.wake(step.to);
                // When the next step is due, only the store can say.
                followed.ask_at = step.to.next().map(|_| Instant::now());
                self.sooner.notify_one();
            }
        }
    }

    /// Looks out for steps that others make, until told to stop.
    pub async fn poll(self: Arc<Self>) {
        let work = async {
            let mut failing = false;
            loop {
                let (due, next) = self.due();
                if due.is_empty() {
                    tokio::select! {
                        () = sleep_until(next) => {}
                        () = self.sooner.notified() => {}
                    }
                    continue;
                }
                match self.store.positions(&due).await {
                    Ok(positions) => {
                        failing = false;
                        self.learn(&due, &positions);
                    }
                    // Once a series: with the database away every look fails.
                    Err(error) => {
                        if !failing {
                            warn!(%error, "followed orders can't be looked at; trying again");
                        }
                        failing = true;
                    }
                }
                sleep(LOOK_EVERY).await;
            }
        };
        self.stop.run_until_cancelled(work).await;
    }

    /// The followed orders that are to be asked for now, and when the next one is.
    fn due(&self) -> (Vec<OrderId>, Instant) {
        let now = Instant::now();
        let (mut due, mut next) = (Vec::new(), now + ASK_AGAIN);
        for (order_id, followed) in &self.orders().followed {
            match followed.ask_at {
                Some(at) if at <= now => due.push(*order_id),
                Some(at) => next = next.min(at),
                None => {}
            }
        }
        (due, next)
    }

    /// Wakes where an order is further than known, and notes when to ask again.
    fn learn(&self, asked: &[OrderId], positions: &[Position]) {
        let now = Instant::now();
        let mut orders = self.orders();
        for order_id in asked {
            if let Some(followed) = orders.followed.get_mut(order_id) {
                followed.ask_at = Some(now + ASK_AGAIN);
            }
        }
        for Position { order_id, status, due_in } in positions {
            let Some(followed) = orders.followed.get_mut(order_id) else { continue };
            followed.wake(*status);
            // A step that was made here meanwhile makes this answer an old one.
            let old = *followed.reached.borrow() > Some(*status);
            let wait = if old { Some(Duration::ZERO) } else { *due_in };
            followed.ask_at = wait.map(|wait| now + wait.min(ASK_AGAIN));
        }
    }
}

/// Why nobody more may follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoPlace {
    /// All places are taken.
    ForAnybody,
    /// This client has half of them.
    ForThisClient,
}

/// Follows one order; dropping it ends that.
pub struct Subscriber {
    order_id: OrderId,
    client: Option<IpAddr>,
    reached: watch::Receiver<Option<Status>>,
    notifier: Arc<Notifier>,
}

impl Subscriber {
    /// Waits for events after the position `seen` and reads them; `None` when the service stops. An error is one that
    /// reading again does not mend.
    pub async fn news(&mut self, seen: u8) -> Option<Result<Vec<Event>, StoreError>> {
        let stop = self.notifier.stop.clone();
        let work = async {
            loop {
                let further = |status: &Option<Status>| status.is_some_and(|at| position(at) > seen);
                self.reached.wait_for(further).await.ok()?;
                match self.read(seen).await {
                    Ok(news) if !news.is_empty() => return Some(Ok(news)),
                    Ok(_) => debug!(order_id = %self.order_id, "the wake-up was ahead of the store"),
                    Err(error) if error.is_transient() => debug!(%error, "a follower will read again"),
                    Err(error) => return Some(Err(error)),
                }
                sleep(READ_AGAIN).await;
            }
        };
        stop.run_until_cancelled(work).await.flatten()
    }

    async fn read(&self, seen: u8) -> Result<Vec<Event>, StoreError> {
        let found = self.notifier.loader.find(self.order_id).await?;
        let events = found.iter().flat_map(|tracked| &tracked.events);
        Ok(events.filter(|event| event.event.seq() > seen).cloned().collect())
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        let mut orders = self.notifier.orders();
        orders.subscribers -= 1;
        if let Some(client) = self.client
            && let Some(held) = orders.clients.get_mut(&client)
        {
            *held -= 1;
            if *held == 0 {
                orders.clients.remove(&client);
            }
        }
        let last = |followed: &Followed| followed.reached.receiver_count() == 1;
        if orders.followed.get(&self.order_id).is_some_and(last) {
            orders.followed.remove(&self.order_id);
        }
    }
}

fn position(status: Status) -> u8 {
    EventKind::Reached(status).seq()
}
