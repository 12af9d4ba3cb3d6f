//! Gauges that somebody tells from time to time: what nobody has told for too long is not known.

use std::sync::atomic::Ordering;

use prometheus::Gauge;

use super::{MAX_PARTITIONS, Metrics, fresh::Fresh};
use crate::order::{
    Backlog, LateSteps, PerStatus, Status,
    dead_letter::{DeadLetterBacklog, reasons},
};

/// When gauges were told that others set from time to time.
pub(super) struct Freshness {
    backlog: Fresh,
    overdue: Fresh,
    in_progress: Fresh,
    orders_late: Fresh,
    lag: Fresh,
    consumer: Fresh,
    keys: Fresh,
    pub(super) horizon: Fresh,
    pub(super) events: Fresh,
    dead_letters: Fresh,
    partitions: Fresh,
}

impl Default for Freshness {
    /// A few times as long as it takes until they are told again.
    fn default() -> Self {
        Self {
            backlog: Fresh::within(30),
            overdue: Fresh::within(30),
            in_progress: Fresh::within(30),
            orders_late: Fresh::within(30),
            lag: Fresh::within(15),
            consumer: Fresh::within(60),
            keys: Fresh::within(30),
            horizon: Fresh::within(15),
            events: Fresh::within(15),
            dead_letters: Fresh::within(30),
            partitions: Fresh::within(15),
        }
    }
}

impl Metrics {
    /// What waits on the dead-letter topic, as last read; `None` if it can't be.
    pub fn dead_letters(&self, waiting: Option<&DeadLetterBacklog>) {
        self.fresh.dead_letters.told(waiting.is_some());
        for reason in reasons() {
            let count =
                |waiting: &DeadLetterBacklog| waiting.by_reason.get(reason).copied().unwrap_or_default();
            let count = waiting.map_or(f64::NAN, |waiting| number(count(waiting)));
            self.dead_letters_waiting.with_label_values(&[reason]).set(count);
        }
    }

    /// The orders topic has so many partitions.
    pub fn partitions(&self, count: i32) {
        let count = count.min(MAX_PARTITIONS);
        let before = self.partitions.swap(count, Ordering::Relaxed);
        for partition in before..count {
            self.partition_unavailable(partition, false);
        }
        for partition in count..before {
            // Not there is as good as removed.
            drop(self.partition_unavailable.remove_label_values(&[partition.to_string()]));
        }
    }

    /// Whether a partition of the orders topic takes no orders.
    pub fn partition_unavailable(&self, partition: i32, unavailable: bool) {
        self.fresh.partitions.told(true);
        if (0..MAX_PARTITIONS).contains(&partition) {
            let gauge = self.partition_unavailable.with_label_values(&[partition.to_string()]);
            gauge.set(f64::from(u8::from(unavailable)));
        }
    }

    /// What waits to be published, as last asked; `None` if it could not be read.
    pub fn backlog(&self, backlog: Option<&Backlog>) {
        self.fresh.backlog.told(backlog.is_some());
        let told = |gauge: &Gauge, value: fn(&Backlog) -> f64| gauge.set(backlog.map_or(f64::NAN, value));
        told(&self.outbox_pending, |backlog| number(backlog.unsent));
        told(&self.outbox_oldest, |backlog| match (backlog.oldest_unsent, backlog.since) {
            (Some(at), _) => seconds(at.timestamp_millis()),
            (None, None) => 0.0,
            // There may be older ones than those that could be read.
            (None, Some(_)) => f64::NAN,
        });
    }

    /// How late steps are, as last asked; `None` if that could not be read.
    pub fn overdue(&self, late: Option<&LateSteps>) {
        self.fresh.overdue.told(late.is_some());
        self.overdue.set(late.and_then(LateSteps::known).map_or(f64::NAN, |most| most.as_secs_f64()));
    }

    /// How many orders have each status, as last counted; `None` if they could not be.
    pub fn in_progress(&self, counts: Option<&PerStatus<u64>>) {
        self.fresh.in_progress.told(counts.is_some());
        for status in Status::open() {
            let count = counts.map_or(f64::NAN, |counts| number(counts[status]));
            self.in_progress.with_label_values(&[status.as_str()]).set(count);
        }
    }

    /// How many orders people have not moved in time, as last counted; `None` if they could not be.
    pub fn orders_late(&self, counts: Option<&PerStatus<u64>>) {
        self.fresh.orders_late.told(counts.is_some());
        for status in Status::open() {
            let count = counts.map_or(f64::NAN, |counts| number(counts[status]));
            self.reports.late.with_label_values(&[status.as_str()]).set(count);
        }
    }

    /// How many messages wait in this replica's partitions; `None` if nobody knows.
    pub fn lag(&self, messages: Option<u64>) {
        self.fresh.lag.told(messages.is_some());
        self.consumer_lag.set(messages.map_or(f64::NAN, number));
    }

    /// Whether the consumer does its work; `None` until it is known.
    pub fn consumer_up(&self, up: Option<bool>) {
        self.fresh.consumer.told(up.is_some());
        self.consumer_up.set(up.map_or(f64::NAN, |up| f64::from(u8::from(up))));
    }

    /// Whether it is known which keys are good; `None` where nobody is asked for one.
    pub fn keys_up(&self, up: Option<bool>) {
        self.fresh.keys.told(up.is_some());
        self.keys_up.set(up.map_or(f64::NAN, |up| f64::from(u8::from(up))));
    }

    /// What nobody has told for too long is not known any more.
    pub(super) fn forget_what_is_old(&self) {
        let Freshness {
            backlog,
            overdue,
            in_progress,
            orders_late,
            lag,
            consumer,
            keys,
            horizon,
            events,
            dead_letters,
            partitions,
        } = &self.fresh;
        let forget: [(&Fresh, &dyn Fn()); 11] = [
            (backlog, &|| self.backlog(None)),
            (overdue, &|| self.overdue(None)),
            (in_progress, &|| self.in_progress(None)),
            (orders_late, &|| self.orders_late(None)),
            (lag, &|| self.lag(None)),
            // A loop that does not say that it lives does not work.
            (consumer, &|| self.consumer_up.set(0.0)),
            (keys, &|| self.keys_up.set(0.0)),
            (horizon, &|| self.horizon_age(None)),
            (events, &|| self.events_behind(None)),
            (dead_letters, &|| self.dead_letters(None)),
            (partitions, &|| {
                for partition in 0..self.partitions.load(Ordering::Relaxed) {
                    self.partition_unavailable.with_label_values(&[partition.to_string()]).set(f64::NAN);
                }
            }),
        ];
        forget.into_iter().filter(|(fresh, _)| fresh.is_old()).for_each(|(_, forget)| forget());
    }
}

#[expect(clippy::cast_precision_loss, reason = "nobody counts so far")]
fn number(count: u64) -> f64 {
    count as f64
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds since 1970 fit for 285,000 years")]
fn seconds(millis: i64) -> f64 {
    millis as f64 / 1e3
}
