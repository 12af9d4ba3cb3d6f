//! Who follows which order, and what wakes them when it moves.
//!
//! A wake-up says how far an order is and nothing else; what is shown is read from the store, so a slow
//! follower costs a query and misses nothing. A step made here wakes at once ([`Notifier::committed`]); those made
//! elsewhere do when the reader of events sees them ([`Notifier::arrived`]).
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

use tokio::{sync::watch, time::sleep};
use tracing::debug;

use super::places::{NoPlace, Place, Places};
use crate::{
    order::{Event, OrderId, Transition},
    store::{Arrival, StoreError},
    tracker::OrderLoader,
};

/// Pause after a read that failed or brought less than was promised.
const READ_AGAIN: Duration = Duration::from_millis(500);

/// Who follows which order.
pub struct Notifier {
    /// Where timelines are read, by all at once when many orders move together.
    loader: OrderLoader,
    places: Arc<Places>,
    followed: Mutex<HashMap<OrderId, watch::Sender<Reached>>>,
}

/// How far an order is, as far as anybody here knows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Reached {
    seq: u32,
    /// How often followers were asked to look whatever is known.
    calls: u64,
}

impl Notifier {
    /// Of these places.
    pub fn new(loader: OrderLoader, places: Arc<Places>) -> Arc<Self> {
        Arc::new(Self { loader, places, followed: Mutex::default() })
    }

    /// The reader of events looks at once.
    pub fn wake_reader(&self) {
        self.places.wake_reader();
    }

    fn followed(&self) -> MutexGuard<'_, HashMap<OrderId, watch::Sender<Reached>>> {
        self.followed.lock().expect("no holder panics")
    }

    /// How many follow anything just now.
    pub fn subscribers(&self) -> usize {
        self.places.taken()
    }

    /// Whether anybody follows an order.
    pub fn is_followed(&self) -> bool {
        !self.followed().is_empty()
    }

    /// A follower of an order for this client, as far as it is known. Whoever follows first and reads the
    /// timeline then misses no step.
    pub fn subscribe(
        self: &Arc<Self>,
        order_id: OrderId,
        client: Option<IpAddr>,
    ) -> Result<Subscriber, NoPlace> {
        let place = self.places.take(client)?;
        let mut followed = self.followed();
        if followed.is_empty() {
            self.places.wake_reader();
        }
        let reached = followed.entry(order_id).or_insert_with(|| watch::Sender::new(Reached::default()));
        let reached = reached.subscribe();
        let calls = reached.borrow().calls;
        Ok(Subscriber { order_id, reached, calls, notifier: Arc::clone(self), _place: place })
    }

    /// These steps were made here, and are committed.
    pub fn committed(&self, transitions: &[Transition]) {
        self.reached(transitions.iter().map(|step| (step.order_id, step.seq)));
    }

    /// These events have become visible, whoever made them.
    pub fn arrived(&self, arrivals: &[Arrival]) {
        self.reached(arrivals.iter().map(|arrival| (arrival.order_id, arrival.seq)));
    }

    /// These orders have reached these positions.
    pub fn reached(&self, news: impl Iterator<Item = (OrderId, u32)>) {
        let followed = self.followed();
        if followed.is_empty() {
            return;
        }
        for (order_id, seq) in news {
            if let Some(followed) = followed.get(&order_id) {
                followed.send_if_modified(|known| {
                    let further = known.seq < seq;
                    known.seq = known.seq.max(seq);
                    further
                });
            }
        }
    }

    /// Everybody is to look: nobody knows what became visible meanwhile.
    pub fn call_all(&self) {
        for followed in self.followed().values() {
            followed.send_modify(|known| known.calls += 1);
        }
    }
}

/// Follows one order; dropping it ends that.
pub struct Subscriber {
    order_id: OrderId,
    reached: watch::Receiver<Reached>,
    /// The calls that were followed.
    calls: u64,
    notifier: Arc<Notifier>,
    _place: Place,
}

impl Subscriber {
    /// Waits for events after the position `seen` and reads them; `None` when the service stops. An error is one that
    /// reading again does not mend.
    pub async fn news(&mut self, seen: u32) -> Option<Result<Vec<Event>, StoreError>> {
        let stop = self.notifier.places.stop().clone();
        let work = async {
            loop {
                let calls = self.calls;
                let further = |known: &Reached| known.seq > seen || known.calls > calls;
                let known = *self.reached.wait_for(further).await.ok()?;
                match self.read(seen).await {
                    Ok(news) if !news.is_empty() => {
                        self.calls = known.calls;
                        return Some(Ok(news));
                    }
                    Ok(_) if known.seq <= seen => {
                        self.calls = known.calls;
                        continue;
                    }
                    Ok(_) => debug!(order_id = %self.order_id, "the wake-up was ahead of the store"),
                    Err(error) if error.is_transient() => debug!(%error, "a follower will read again"),
                    Err(error) => return Some(Err(error)),
                }
                sleep(READ_AGAIN).await;
            }
        };
        stop.run_until_cancelled(work).await.flatten()
    }

    async fn read(&self, seen: u32) -> Result<Vec<Event>, StoreError> {
        let found = self.notifier.loader.find(self.order_id).await?;
        let events = found.iter().flat_map(|found| &found.tracked.events);
        Ok(events.filter(|event| event.seq > seen).cloned().collect())
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        let mut followed = self.notifier.followed();
        let last = |followed: &watch::Sender<Reached>| followed.receiver_count() == 1;
        if followed.get(&self.order_id).is_some_and(last) {
            followed.remove(&self.order_id);
        }
    }
}
