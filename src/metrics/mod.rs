//! Every series of `/metrics`, declared once. The specification's names are verbatim; every label
//! set that is known beforehand stands at 0 from the start.

#[cfg(test)]
mod tests;

use std::{
    sync::atomic::{AtomicI32, Ordering},
    time::Duration,
};

use prometheus::{
    Encoder, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    Opts, Registry, TextEncoder, core::Collector,
};

use crate::{
    letters::{Waiting, reasons},
    order::{RejectReason, Status},
    store::{Backlog, Move},
};

/// The content type of [`Metrics::render`]; Prometheus 3 refuses a scrape without the right one.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// HTTP answers come from memory or one query: 1 ms to 5 s, behind the store's deadline.
const HTTP_BUCKETS: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0];
/// From a commit on a fast disk to the store's deadline of 2 s.
const DB_BUCKETS: &[f64] = &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0];
/// As the database's, and up to a broker that was away for a minute.
const STEP_BUCKETS: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 15.0, 60.0];

/// Partitions beyond have no series of their own.
const MAX_PARTITIONS: i32 = 1_000;

/// A step of the pipeline, the label of `pipeline_step_duration_seconds`.
#[derive(Debug, Clone, Copy)]
pub enum Step {
    /// From the moment an order is handed in to its commit.
    Place,
    /// From the hand-over to the Kafka client to the broker's acknowledgement.
    Publish,
    /// Taking over one batch of messages.
    Admit,
    /// Moving one batch of due orders.
    Advance,
}

impl Step {
    const ALL: [Self; 4] = [Self::Place, Self::Publish, Self::Admit, Self::Advance];

    fn as_str(self) -> &'static str {
        match self {
            Self::Place => "place",
            Self::Publish => "publish",
            Self::Admit => "admit",
            Self::Advance => "advance",
        }
    }
}

/// What became of a consumed message, the label of `consumer_messages_total`.
#[derive(Debug, Clone, Copy)]
pub enum Consumed {
    /// An unknown order, now stored.
    Admitted,
    /// A known order.
    Known,
    /// Set aside as a dead letter.
    Rejected,
    /// No value: counted and skipped.
    Tombstone,
}

impl Consumed {
    const ALL: [Self; 4] = [Self::Admitted, Self::Known, Self::Rejected, Self::Tombstone];

    fn as_str(self) -> &'static str {
        match self {
            Self::Admitted => "admitted",
            Self::Known => "known",
            Self::Rejected => "rejected",
            Self::Tombstone => "tombstone",
        }
    }
}

/// All series of the process.
pub struct Metrics {
    registry: Registry,
    http_requests: IntCounterVec,
    http_duration: HistogramVec,
    event_streams: IntGauge,
    orders_produced: IntCounter,
    orders_consumed: IntCounter,
    transitions: IntCounterVec,
    steps: [Histogram; 4],
    db_write: Histogram,
    db_errors: IntCounter,
    in_progress: GaugeVec,
    outbox_pending: Gauge,
    outbox_oldest: Gauge,
    overdue: Gauge,
    consumer_messages: [IntCounter; 4],
    consumer_lag: IntGauge,
    dead_letters: IntCounterVec,
    letters_waiting: GaugeVec,
    partition_unavailable: GaugeVec,
    partitions: AtomicI32,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Declares every series.
    pub fn new() -> Self {
        let registry = Registry::new();
        let r = &registry;
        let http_labels = &["route", "method", "status"];
        let steps = histogram_vec(
            r,
            "pipeline_step_duration_seconds",
            "Duration of a step: place (hand-in to commit), publish (to acknowledgement), admit and advance (a batch)",
            STEP_BUCKETS,
            &["step"],
        );
        let consumer_messages = counter_vec(
            r,
            "consumer_messages_total",
            "Messages consumed, by what became of them",
            &["result"],
        );
        let metrics = Self {
            http_requests: counter_vec(r, "http_requests_total", "Requests answered", http_labels),
            http_duration: histogram_vec(
                r,
                "http_request_duration_seconds",
                "Time from a request's head to the head of its answer",
                HTTP_BUCKETS,
                http_labels,
            ),
            event_streams: register(
                r,
                IntGauge::new("http_event_streams", "Clients that follow an order just now"),
            ),
            orders_produced: counter(r, "orders_produced_total", "Orders acknowledged by the broker"),
            orders_consumed: counter(r, "orders_consumed_total", "Messages of the orders topic handled"),
            transitions: counter_vec(r, "status_transitions_total", "Steps made", &["from", "to"]),
            steps: Step::ALL.map(|step| steps.with_label_values(&[step.as_str()])),
            db_write: histogram(r, "db_write_latency_seconds", "Duration of a write transaction", DB_BUCKETS),
            db_errors: counter(r, "db_errors_total", "Database calls that failed or took too long"),
            in_progress: register(
                r,
                GaugeVec::new(
                    Opts::new(
                        "orders_in_progress",
                        "Orders not yet delivered, in the whole database, each status counted up to 10,000; NaN if not known",
                    ),
                    &["status"],
                ),
            ),
            outbox_pending: register(
                r,
                Gauge::new(
                    "outbox_pending",
                    "Orders that no broker has acknowledged yet, counted up to 10,000; NaN if not known",
                ),
            ),
            outbox_oldest: register(
                r,
                Gauge::new(
                    "outbox_oldest_timestamp_seconds",
                    "When the oldest unacknowledged order was placed, 0 if there is none",
                ),
            ),
            overdue: register(r, Gauge::new("pipeline_overdue_seconds", "How late the most overdue step is")),
            consumer_messages: Consumed::ALL
                .map(|result| consumer_messages.with_label_values(&[result.as_str()])),
            consumer_lag: register(
                r,
                IntGauge::new("consumer_lag", "Messages of this replica's partitions not yet consumed"),
            ),
            dead_letters: counter_vec(r, "dead_letters_total", "Messages set aside", &["reason"]),
            letters_waiting: register(
                r,
                GaugeVec::new(
                    Opts::new(
                        "dead_letters_waiting",
                        "Letters on the dead-letter topic not put back, NaN until it was read",
                    ),
                    &["reason"],
                ),
            ),
            partition_unavailable: register(
                r,
                GaugeVec::new(
                    Opts::new(
                        "partition_unavailable",
                        "Partitions of the orders topic that take no orders, 1, or do, 0",
                    ),
                    &["partition"],
                ),
            ),
            partitions: AtomicI32::new(0),
            registry,
        };
        metrics.declare_known_labels();
        metrics
    }

    fn declare_known_labels(&self) {
        for pair in Status::ALL.windows(2) {
            self.transitions.with_label_values(&[pair[0].as_str(), pair[1].as_str()]);
        }
        for status in &Status::ALL[..4] {
            self.in_progress.with_label_values(&[status.as_str()]);
        }
        for reason in RejectReason::ALL {
            self.dead_letters.with_label_values(&[reason.as_str()]);
        }
        for reason in reasons() {
            self.letters_waiting.with_label_values(&[reason]).set(f64::NAN);
        }
        let build: GaugeVec = register(
            &self.registry,
            GaugeVec::new(Opts::new("build_info", "What runs here; always 1"), &["version", "commit"]),
        );
        build.with_label_values(&[env!("CARGO_PKG_VERSION"), env!("BUILD_COMMIT")]).set(1.0);
        #[cfg(target_os = "linux")]
        self.registry
            .register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))
            .expect("registered once");
    }

    /// Declares a route's answer, so that its series start at 0.
    pub fn declare_http(&self, route: &str, method: &str, status: &str) {
        self.http_requests.with_label_values(&[route, method, status]);
        self.http_duration.with_label_values(&[route, method, status]);
    }

    /// A request was answered.
    pub fn http_answered(&self, route: &str, method: &str, status: &str, took: Duration) {
        self.http_requests.with_label_values(&[route, method, status]).inc();
        self.http_duration.with_label_values(&[route, method, status]).observe(took.as_secs_f64());
    }

    /// So many clients follow an order.
    pub fn event_streams(&self, open: usize) {
        self.event_streams.set(i64::try_from(open).unwrap_or(i64::MAX));
    }

    /// A step of the pipeline is done.
    pub fn step_done(&self, step: Step, took: Duration) {
        self.steps[step as usize].observe(took.as_secs_f64());
    }

    /// The broker acknowledged an order.
    pub fn produced(&self) {
        self.orders_produced.inc();
    }

    /// A message was handled.
    pub fn consumed(&self, result: Consumed) {
        self.orders_consumed.inc();
        self.consumer_messages[result as usize].inc();
    }

    /// A message was set aside.
    pub fn dead_letter(&self, reason: RejectReason) {
        self.dead_letters.with_label_values(&[reason.as_str()]).inc();
    }

    /// What waits on the dead-letter topic, as last read.
    #[expect(clippy::cast_precision_loss, reason = "a few thousand")]
    pub fn letters(&self, waiting: &Waiting) {
        for reason in reasons() {
            let count = waiting.by_reason.get(reason).copied().unwrap_or_default();
            self.letters_waiting.with_label_values(&[reason]).set(count as f64);
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
        if (0..MAX_PARTITIONS).contains(&partition) {
            let gauge = self.partition_unavailable.with_label_values(&[partition.to_string()]);
            gauge.set(f64::from(u8::from(unavailable)));
        }
    }

    /// Orders took these steps.
    pub fn moved(&self, moves: &[Move]) {
        for step in moves {
            self.transitions.with_label_values(&[step.from.as_str(), step.to.as_str()]).inc();
        }
    }

    /// A write transaction ended, well or not.
    pub fn db_written(&self, took: Duration) {
        self.db_write.observe(took.as_secs_f64());
    }

    /// A database call failed.
    pub fn db_failed(&self) {
        self.db_errors.inc();
    }

    /// What waits to be done, as last asked; `None` if it could not be read.
    pub fn backlog(&self, backlog: Option<&Backlog>) {
        let told = |gauge: &Gauge, value: fn(&Backlog) -> f64| gauge.set(backlog.map_or(f64::NAN, value));
        told(&self.outbox_pending, |backlog| number(backlog.unsent));
        told(&self.outbox_oldest, |backlog| {
            backlog.oldest_unsent.map_or(0.0, |at| seconds(at.timestamp_millis()))
        });
        told(&self.overdue, |backlog| backlog.overdue.as_secs_f64());
    }

    /// How many orders have each status, as last counted; `None` if they could not be.
    pub fn in_progress(&self, counts: Option<&[u64; 5]>) {
        for status in &Status::ALL[..4] {
            let count = counts.map_or(f64::NAN, |counts| number(counts[*status as usize]));
            self.in_progress.with_label_values(&[status.as_str()]).set(count);
        }
    }

    /// How many messages wait in this replica's partitions.
    pub fn lag(&self, messages: u64) {
        self.consumer_lag.set(signed(messages));
    }

    /// Everything in Prometheus' text format, of [`CONTENT_TYPE`].
    pub fn render(&self) -> prometheus::Result<Vec<u8>> {
        let mut text = Vec::with_capacity(64 * 1024);
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
}

#[expect(clippy::cast_precision_loss, reason = "counted up to 10,000")]
fn number(count: u64) -> f64 {
    count as f64
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds since 1970 fit for 285,000 years")]
fn seconds(millis: i64) -> f64 {
    millis as f64 / 1e3
}

/// Names and labels are constants, so a failure here is a mistake that the first test meets.
fn register<C: Collector + Clone + 'static>(registry: &Registry, metric: prometheus::Result<C>) -> C {
    let metric = metric.expect("a valid name");
    registry.register(Box::new(metric.clone())).expect("registered once");
    metric
}

fn counter(registry: &Registry, name: &str, help: &str) -> IntCounter {
    register(registry, IntCounter::new(name, help))
}

fn counter_vec(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    register(registry, IntCounterVec::new(Opts::new(name, help), labels))
}

fn histogram(registry: &Registry, name: &str, help: &str, buckets: &[f64]) -> Histogram {
    let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
    register(registry, Histogram::with_opts(options))
}

fn histogram_vec(
    registry: &Registry,
    name: &str,
    help: &str,
    buckets: &[f64],
    labels: &[&str],
) -> HistogramVec {
    let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
    register(registry, HistogramVec::new(options, labels))
}
