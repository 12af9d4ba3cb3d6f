//! The series of the feed and of the topic of events.

use std::time::Duration;

use prometheus::{Gauge, IntCounter, Registry};

use super::{Metrics, counter, gauge};

/// These series.
pub(super) struct FeedSeries {
    horizon_age: Gauge,
    events_produced: IntCounter,
    events_left_out: IntCounter,
    events_behind: Gauge,
}

impl FeedSeries {
    pub(super) fn new(r: &Registry) -> Self {
        let series = Self {
            horizon_age: gauge(
                r,
                "feed_horizon_age_seconds",
                "How long events have waited to be settled, 0 if none does; NaN if not known, as on a replica where nobody follows",
            ),
            events_produced: counter(r, "events_produced_total", "Events acknowledged by the broker"),
            events_left_out: counter(
                r,
                "events_left_out_total",
                "Events that can't be written to their topic and were passed over; the log names each",
            ),
            events_behind: gauge(
                r,
                "events_behind_seconds",
                "How long the oldest settled event waits for its topic, 0 if none does; NaN on replicas that do not write it, or if not known",
            ),
        };
        for gauge in [&series.horizon_age, &series.events_behind] {
            gauge.set(f64::NAN);
        }
        series
    }
}

impl Metrics {
    /// How long events have waited to be settled; `None` if nobody looks.
    pub fn horizon_age(&self, age: Option<Duration>) {
        self.fresh.horizon.told(age.is_some());
        self.feed.horizon_age.set(age.map_or(f64::NAN, |age| age.as_secs_f64()));
    }

    /// So many events were acknowledged by the broker.
    pub fn events_produced(&self, count: u64) {
        self.feed.events_produced.inc_by(count);
    }

    /// An event can't be written and was passed over.
    pub fn event_left_out(&self) {
        self.feed.events_left_out.inc();
    }

    /// Nobody writes events, so nothing waits for their topic: that has no series.
    pub fn without_events_topic(&self) {
        // Not there is as good as removed.
        drop(self.registry.unregister(Box::new(self.feed.events_behind.clone())));
    }

    /// How long the oldest settled event waits for its topic; `None` where that is not this replica's work.
    pub fn events_behind(&self, behind: Option<Duration>) {
        self.fresh.events.told(behind.is_some());
        self.feed.events_behind.set(behind.map_or(f64::NAN, |behind| behind.as_secs_f64()));
    }
}
