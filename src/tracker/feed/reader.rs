//! The one reader of events: it looks how far they are settled, and wakes the followers of what became visible.

use std::{mem, sync::Arc, time::Duration};

use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{Feed, tail::Tail, unseen::Unseen};
use crate::{
    order::promises::LIVE_WITHIN,
    store::{EventLog, Holder, Horizon, StoreError},
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
/// Most events that one query reads.
const PAGE: usize = 1_000;
/// From this age on it is told who holds the horizon back.
const TELL_AFTER: Duration = Duration::from_secs(5);
/// How often it is asked anew who that is.
const TELL_AGAIN: Duration = Duration::from_secs(30);
/// How often everybody looks by himself while nobody can say what is new.
const CALL_EVERY: Duration = Duration::from_secs(1);

/// Reads events for all followers of one replica.
pub struct EventReader {
    /// Where they are.
    pub log: Arc<dyn EventLog>,
    /// Who is told of each order.
    pub notifier: Arc<Notifier>,
    /// Who is told of all.
    pub feed: Arc<Feed>,
    /// Where the age of the horizon is told.
    pub metrics: Arc<Metrics>,
}

/// What a reader that is awake knows.
struct ReaderState {
    unseen: Unseen,
    horizon: Horizon,
    /// Who was told to hold the horizon back, and when.
    told: Option<(Instant, Option<Holder>)>,
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
                    self.feed.places.reader_woken().await;
                }
            }
        })
        .await;
    }

    fn is_wanted(&self) -> bool {
        self.notifier.is_followed() || self.feed.is_followed()
    }

    async fn stay_awake(&self) {
        let (mut state, mut failing, mut called) = (None, false, Instant::now());
        while self.is_wanted() {
            let begun = Instant::now();
            let outcome = self.look(&mut state).await;
            self.tell(begun, &outcome);
            let pause = match outcome {
                Ok((_, true)) => EVERY,
                Ok((_, false)) => IDLE,
                // Once a series: with the database away every look fails.
                Err(error) => {
                    self.metrics.horizon_age(None);
                    if !mem::replace(&mut failing, true) {
                        warn!(%error, "events can't be read; trying again");
                    }
                    if called.elapsed() >= CALL_EVERY && !error.is_transient() {
                        called = Instant::now();
                        self.notifier.call_all();
                    }
                    IDLE
                }
            };
            failing &= self.feed.known.borrow().trouble.is_some();
            sleep_until(begun + EVERY).await;
            tokio::select! {
                () = sleep_until(begun + pause) => {}
                () = self.feed.places.reader_woken() => {}
            }
        }
    }

    /// Tells those who wait what a look has found.
    fn tell(&self, begun: Instant, outcome: &Result<(Horizon, bool), StoreError>) {
        self.feed.known.send_modify(|known| {
            known.looks += 1;
            known.trouble = outcome.as_ref().err().cloned();
            if let Ok((horizon, _)) = outcome {
                (known.horizon, known.looked) = (Some(*horizon), Some(begun));
            }
        });
        if let Ok((horizon, _)) = outcome {
            self.feed
                .settled
                .send_if_modified(|settled| mem::replace(settled, horizon.settled) != horizon.settled);
        }
    }

    /// One look; answers how far the events are settled, and whether there was anything new or there is more to come.
    async fn look(&self, state: &mut Option<ReaderState>) -> Result<(Horizon, bool), StoreError> {
        let before = state.as_ref().map(|state| state.horizon);
        let horizon = match self.horizon(before).await {
            Ok(horizon) => horizon,
            // Only cursors need it.
            Err(error) => {
                if let Some(state) = state {
                    self.wake_followers(&mut state.unseen).await?;
                }
                return Err(error);
            }
        };
        // The database is another one, or of an earlier time: what was seen there says nothing.
        if before.is_some_and(|before| horizon.settled < before.settled || horizon.last < before.last) {
            *state = None;
            *self.feed.tail.lock().await = Tail::default();
        }
        let first = state.is_none();
        let new = || ReaderState { unseen: Unseen::beyond(horizon), horizon, told: None };
        let state = state.get_or_insert_with(new);
        state.horizon = horizon;
        if !self.notifier.is_followed() {
            // Whoever comes next subscribes first and reads then, so what is visible by now is no news to him.
            state.unseen = Unseen::beyond(horizon);
        }
        self.wake_followers(&mut state.unseen).await?;
        if state.unseen.settle(horizon.settled) || first {
            // What became visible while nobody looked is not told one by one.
            self.notifier.call_all();
        }
        self.tell_age(state).await;
        let moved =
            before.is_none_or(|before| (before.settled, before.last) != (horizon.settled, horizon.last));
        Ok((horizon, moved || horizon.settled < horizon.last && horizon.held < TELL_AFTER))
    }

    async fn horizon(&self, before: Option<Horizon>) -> Result<Horizon, StoreError> {
        let horizon = self.log.horizon().await?;
        if horizon.settled < horizon.last && before.is_none_or(|before| before.last < horizon.last) {
            sleep(MOMENT).await;
            return self.log.horizon().await;
        }
        Ok(horizon)
    }

    /// Wakes the followers of everything that has become visible, be it settled or not.
    async fn wake_followers(&self, unseen: &mut Unseen) -> Result<(), StoreError> {
        if !self.notifier.is_followed() {
            return Ok(());
        }
        let mut spans = unseen.spans();
        loop {
            let arrivals = self.log.arrivals(&spans, PAGE).await?;
            self.notifier.arrived(&arrivals);
            unseen.saw(arrivals.iter().map(|arrival| arrival.cursor));
            let Some(last) = arrivals.last().filter(|_| arrivals.len() == PAGE) else { return Ok(()) };
            spans.retain_mut(|span| {
                span.after = span.after.max(last.cursor);
                span.after < span.upto
            });
        }
    }

    async fn tell_age(&self, state: &mut ReaderState) {
        let held = state.horizon.held;
        self.metrics.horizon_age(Some(held));
        if held < TELL_AFTER {
            if state.told.take().is_some() {
                info!("the feed goes on");
            }
            return;
        }
        if state.told.as_ref().is_some_and(|(at, _)| at.elapsed() < TELL_AGAIN) {
            return;
        }
        let held = held.as_secs();
        let holder = self.log.holder().await;
        let named = holder.as_ref().ok().cloned().flatten();
        let session = |holder: &Option<Holder>| holder.as_ref().map(|holder| holder.session.clone());
        let known = state.told.as_ref().is_some_and(|(_, told)| session(told) == session(&named));
        state.told = Some((Instant::now(), named));
        if known {
            return;
        }
        match holder {
            Ok(Some(Holder { session, application, database, age })) => warn!(
                held_seconds = held,
                session,
                application,
                database,
                transaction_seconds = age.map(|age| age.as_secs()),
                "an open transaction holds the feed back"
            ),
            Ok(None) => warn!(held_seconds = held, "the feed is held back, and no open transaction is seen"),
            Err(error) => {
                warn!(held_seconds = held, %error, "the feed is held back, and by whom can't be read");
            }
        }
    }
}
