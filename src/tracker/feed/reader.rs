//! The one reader of events: it looks how far they are settled, and rings for what became visible.

use std::{mem, sync::Arc, time::Duration};

use tokio::{
    sync::Notify,
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{Feed, unseen::Unseen};
use crate::{
    order::{Cursor, promises::LIVE_WITHIN},
    store::{Horizon, Store, StoreError},
    telemetry::metrics::Metrics,
    tracker::Notifier,
};

/// Pause from one look to the next while something happens.
const EVERY: Duration = Duration::from_millis(50);
/// The same while nothing does.
const IDLE: Duration = Duration::from_millis(250);
const _: () = assert!(IDLE.as_millis() < LIVE_WITHIN.as_millis(), "a step is seen in time");
/// Most transactions end within so long: a second look at those that were open settles what they wrote.
const MOMENT: Duration = Duration::from_millis(10);
/// How far below the last id one looks for what was drawn and not visible when a look is the first.
const DRAWN: i64 = 4_096;
/// Most events that one query reads.
const PAGE: usize = 1_000;
/// From this age on it is told who holds the horizon back.
const TELL_AFTER: Duration = Duration::from_secs(5);

/// Reads events for all followers of one replica.
pub struct EventReader {
    /// Where they are.
    pub log: Arc<dyn Store>,
    /// Who is told of each order.
    pub notifier: Arc<Notifier>,
    /// Who is told of all.
    pub feed: Arc<Feed>,
    /// Rung when something was committed here, or somebody follows.
    pub wake: Arc<Notify>,
    /// Where the age of the horizon is told.
    pub metrics: Arc<Metrics>,
}

/// What a reader that is awake knows.
struct Sight {
    unseen: Unseen,
    horizon: Horizon,
    /// Whether it was told who holds the horizon back.
    told: bool,
}

impl EventReader {
    /// Looks as long as anybody follows, until told to stop.
    pub async fn run(self, stop: CancellationToken) {
        stop.run_until_cancelled(async {
            loop {
                if self.is_wanted() {
                    self.stay_awake().await;
                } else {
                    self.metrics.horizon_age(None);
                    self.wake.notified().await;
                }
            }
        })
        .await;
    }

    fn is_wanted(&self) -> bool {
        self.notifier.is_followed() || self.feed.is_followed()
    }

    async fn stay_awake(&self) {
        let (mut sight, mut failing) = (None, false);
        while self.is_wanted() {
            let begun = Instant::now();
            let outcome = self.look(&mut sight).await;
            self.feed.known.send_modify(|known| {
                known.looks += 1;
                known.trouble = outcome.as_ref().err().cloned();
                if let Ok((horizon, _)) = &outcome {
                    (known.horizon, known.looked) = (Some(*horizon), Some(begun));
                }
            });
            let pause = match outcome {
                Ok((_, true)) => EVERY,
                Ok((_, false)) => IDLE,
                // Once a series: with the database away every look fails.
                Err(error) => {
                    self.metrics.horizon_age(None);
                    if !mem::replace(&mut failing, true) {
                        warn!(%error, "events can't be read; trying again");
                    }
                    IDLE
                }
            };
            failing &= self.feed.known.borrow().trouble.is_some();
            sleep_until(begun + EVERY).await;
            tokio::select! {
                () = sleep_until(begun + pause) => {}
                () = self.wake.notified() => {}
            }
        }
    }

    /// One look; answers how far the events are settled, and whether there was anything new or there is more to come.
    async fn look(&self, sight: &mut Option<Sight>) -> Result<(Horizon, bool), StoreError> {
        let before = sight.as_ref().map(|sight| sight.horizon);
        let mut horizon = self.log.horizon().await?;
        if horizon.settled < horizon.last && before.is_none_or(|before| before.last < horizon.last) {
            sleep(MOMENT).await;
            horizon = self.log.horizon().await?;
        }
        let first = sight.is_none();
        let sight = sight.get_or_insert_with(|| {
            let floor = Cursor(horizon.last.0 - DRAWN).max(horizon.settled);
            Sight { unseen: Unseen::after(floor), horizon, told: false }
        });
        sight.horizon = horizon;
        if first {
            // What became visible while nobody looked is not told one by one.
            self.notifier.call_all();
        }
        self.ring(&mut sight.unseen, horizon).await?;
        self.tell_age(sight).await;
        Ok((horizon, before != Some(horizon) || horizon.settled < horizon.last && horizon.held < TELL_AFTER))
    }

    /// Rings for everything that has become visible, be it settled or not.
    async fn ring(&self, unseen: &mut Unseen, horizon: Horizon) -> Result<(), StoreError> {
        if self.notifier.is_followed() {
            loop {
                let arrivals = self.log.arrivals(&unseen.spans(), PAGE).await?;
                self.notifier.arrived(&arrivals);
                unseen.saw(arrivals.iter().map(|arrival| arrival.cursor));
                if arrivals.len() < PAGE {
                    break;
                }
            }
        }
        unseen.settle(horizon.settled);
        Ok(())
    }

    async fn tell_age(&self, sight: &mut Sight) {
        let held = sight.horizon.held;
        self.metrics.horizon_age(Some(held));
        if held < TELL_AFTER {
            if mem::replace(&mut sight.told, false) {
                info!("the feed goes on");
            }
            return;
        }
        if mem::replace(&mut sight.told, true) {
            return;
        }
        let held = held.as_secs();
        match self.log.holder().await {
            Ok(Some(holder)) => {
                let age = holder.age.map(|age| age.as_secs());
                let (session, application, database) = (holder.session, holder.application, holder.database);
                warn!(
                    held_seconds = held,
                    session,
                    application,
                    database,
                    transaction_seconds = age,
                    "an open transaction holds the feed back"
                );
            }
            Ok(None) => warn!(held_seconds = held, "the feed is held back, and no open transaction is seen"),
            Err(error) => {
                warn!(held_seconds = held, %error, "the feed is held back, and by whom can't be read");
            }
        }
    }
}
