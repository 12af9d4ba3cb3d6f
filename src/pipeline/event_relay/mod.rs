//! From the table of events to their topic, in the order of their ids.
//!
//! One replica writes at a time: the one that has the place named after the topic, a lease that it renews while it
//! lives. Any other takes it over some three seconds after the last sign of life, and begins at the last place that was
//! noted; so events may come twice, and none is passed over.
//!
//! Invariant: an event is handed to the producer only after its order's previous one was acknowledged, or lies before the
//! cursor. So whatever arrives late, from whichever replica, is a repeat or the next of its order, and no time limit has
//! to hold for that.

mod set;
mod trouble;
mod writer;

use std::{
    pin::pin,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until, timeout_at},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    broker::EventPublisher,
    order::{Cursor, Timestamp},
    store::{EventLog, Lease, StoreError},
    telemetry::{health::Health, metrics::Metrics},
    time::{
        Clock,
        deadlines::{WRITER_LEASE, WRITER_RENEWS},
    },
    tracker::Feed,
};
use trouble::{Matter, Trouble};
use writer::Writer;

/// How often a replica asks for the place that another one has.
const ASK_EVERY: Duration = Duration::from_millis(500);
/// A look at the events that is older says nothing of now.
const LOOKED_WITHIN: Duration = Duration::from_secs(5);
/// How often the place is moved on while events are acknowledged.
const MOVE_EVERY: Duration = Duration::from_millis(200);
/// How soon a sign of life that failed is given again.
const RENEW_AGAIN: Duration = Duration::from_millis(250);

/// Puts every event on its topic, while no other replica does.
pub struct EventRelay {
    log: Arc<dyn EventLog>,
    feed: Arc<Feed>,
    publisher: Arc<dyn EventPublisher>,
    /// The topic's name, and the place's: another topic has a place of its own.
    topic: String,
    metrics: Arc<Metrics>,
    clock: Arc<dyn Clock>,
    /// Since when the oldest event waits that is not acknowledged.
    waits_since: Mutex<Option<Timestamp>>,
    trouble: Trouble,
}

impl EventRelay {
    /// Of what is in `log` and told by `feed`; says through `health` what holds events up.
    pub fn new(
        log: Arc<dyn EventLog>,
        feed: Arc<Feed>,
        publisher: Arc<dyn EventPublisher>,
        topic: String,
        metrics: Arc<Metrics>,
        clock: Arc<dyn Clock>,
        health: watch::Sender<Health>,
    ) -> Self {
        let (waits_since, trouble) = (Mutex::default(), Trouble::new(health));
        Self { log, feed, publisher, topic, metrics, clock, waits_since, trouble }
    }

    /// Asks for the place and writes while it has it, until told to stop. Then it ends the set that is under way, as long
    /// as it is not told to give up.
    pub async fn run(self, stop: CancellationToken, give_up: CancellationToken) {
        give_up.run_until_cancelled(self.work(&stop)).await;
    }

    async fn work(&self, stop: &CancellationToken) {
        while !stop.is_cancelled() {
            let asked = Instant::now();
            match self.log.lease(&self.topic, WRITER_LEASE).await {
                Ok(lease) => {
                    self.trouble.is_over(Matter::Place);
                    if let Some(lease) = lease {
                        self.hold(lease, asked, stop).await;
                    }
                }
                Err(error) => self.trouble.is(Matter::Place, Health::Down(no_place(&error))),
            }
            stop.run_until_cancelled(sleep(ASK_EVERY)).await;
        }
    }

    /// Writes as long as the place is this replica's.
    async fn hold(&self, lease: Lease, since: Instant, stop: &CancellationToken) {
        let (topic, cursor) = (&self.topic, lease.cursor);
        info!(topic, %cursor, "this replica writes the events");
        let (acknowledged, noted) = watch::channel(cursor);
        let kept = {
            let writer = Writer::new(self, acknowledged, stop);
            let (mut keeping, mut writing) = (pin!(self.keep(lease, since, noted)), pin!(writer.run()));
            tokio::select! {
                biased;
                kept = &mut keeping => kept,
                () = &mut writing => keeping.await,
            }
        };
        self.publisher.close();
        self.waits(None);
        self.metrics.events_behind(None);
        self.trouble.is_over(Matter::Reading);
        self.trouble.is_over(Matter::Topic);
        if let Some(lease) = kept {
            // Who can't give it back leaves it to run out.
            drop(self.log.give_back(&self.topic, lease).await);
        } else {
            warn!(topic, "this replica does not write the events any more");
        }
    }

    /// Renews the lease and notes what was acknowledged. Answers the lease once the writer has ended; `None` as soon as
    /// it is not this replica's any more.
    async fn keep(
        &self,
        mut lease: Lease,
        mut since: Instant,
        mut acknowledged: watch::Receiver<Cursor>,
    ) -> Option<Lease> {
        let (mut tried, mut due) = (since, since + WRITER_RENEWS);
        loop {
            let writes = match timeout_at(due, acknowledged.changed()).await {
                Ok(Ok(())) => {
                    // What is noted later is noted together.
                    sleep_until(due.min(tried + MOVE_EVERY)).await;
                    true
                }
                Ok(Err(_)) => false,
                Err(_) => true,
            };
            let to = *acknowledged.borrow_and_update();
            tried = Instant::now();
            match self.log.move_on(&self.topic, lease, to, WRITER_LEASE).await {
                Ok(renewed) => {
                    self.trouble.is_over(Matter::Place);
                    (lease, since, due) = (renewed?, tried, tried + WRITER_RENEWS);
                }
                Err(error) => {
                    self.trouble.is(Matter::Place, Health::Down(no_place(&error)));
                    if !writes || since.elapsed() >= WRITER_LEASE {
                        return None;
                    }
                    due = Instant::now() + RENEW_AGAIN;
                }
            }
            self.tell_age();
            if !writes {
                return Some(lease);
            }
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Option<Timestamp>> {
        self.waits_since.lock().expect("no holder panics")
    }

    fn waits(&self, since: Option<Timestamp>) {
        *self.waiting() = since;
    }

    /// What is settled and can't be read, or not even looked for, has waited for nobody knows how long.
    fn tell_age(&self) {
        let since = *self.waiting();
        let age =
            since.map_or(Duration::ZERO, |since| (self.clock.now() - since).to_std().unwrap_or_default());
        let looks = self.feed.looked().is_some_and(|ago| ago < LOOKED_WITHIN);
        let known = looks && !self.trouble.is_there(Matter::Reading);
        self.metrics.events_behind(known.then_some(age));
    }
}

fn no_place(error: &StoreError) -> String {
    format!("the database does not answer ({error})")
}
