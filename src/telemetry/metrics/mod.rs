//! Every series of `/metrics`, declared once. The specification's names are verbatim; every label
//! set that is known beforehand stands at 0 from the start.

mod feed;
mod fresh;
mod gauges;
mod labels;
mod reports;

#[cfg(test)]
mod tests;

use std::{sync::atomic::AtomicI32, time::Duration};

use prometheus::{
    Encoder, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    Opts, Registry, TextEncoder, core::Collector,
};

pub use labels::{Consumed, ReportResult, Step};

use feed::FeedSeries;
use gauges::Freshness;
use reports::ReportSeries;

use crate::order::{RejectReason, Status, Transition};

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

/// All series of the process.
pub struct Metrics {
    registry: Registry,
    http_requests: IntCounterVec,
    http_duration: HistogramVec,
    event_streams: IntGauge,
    orders_produced: IntCounter,
    orders_consumed: IntCounter,
    transitions: IntCounterVec,
    reports: ReportSeries,
    steps: [Histogram; 5],
    db_write: Histogram,
    db_errors: IntCounter,
    in_progress: GaugeVec,
    outbox_pending: Gauge,
    outbox_oldest: Gauge,
    overdue: Gauge,
    consumer_messages: [IntCounter; 4],
    consumer_lag: Gauge,
    consumer_up: Gauge,
    keys_up: Gauge,
    feed: FeedSeries,
    dead_letters: IntCounterVec,
    dead_letters_waiting: GaugeVec,
    partition_unavailable: GaugeVec,
    fresh: Freshness,
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
            "Duration of a step: place and report (hand-in to commit), publish (to acknowledgement), admit and advance (a batch)",
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
                IntGauge::new("http_event_streams", "Clients that follow an order or the feed"),
            ),
            orders_produced: counter(r, "orders_produced_total", "Orders acknowledged by the broker"),
            orders_consumed: counter(r, "orders_consumed_total", "Messages of the orders topic handled"),
            transitions: counter_vec(r, "status_transitions_total", "Steps made", &["from", "to"]),
            reports: ReportSeries::new(r),
            steps: Step::ALL.map(|step| steps.with_label_values(&[step.as_str()])),
            db_write: histogram(r, "db_write_latency_seconds", "Duration of a write transaction", DB_BUCKETS),
            db_errors: counter(r, "db_errors_total", "Database calls that failed or took too long"),
            in_progress: gauge_vec(
                r,
                "orders_in_progress",
                "Orders not yet delivered, in the whole database, each status counted up to 10,000; NaN if not known",
                &["status"],
            ),
            outbox_pending: gauge(
                r,
                "outbox_pending",
                "Orders that no broker has acknowledged yet, counted up to 10,000; NaN if not known",
            ),
            outbox_oldest: gauge(
                r,
                "outbox_oldest_timestamp_seconds",
                "When the oldest unacknowledged order was placed, 0 if there is none; NaN if not known",
            ),
            overdue: gauge(
                r,
                "pipeline_overdue_seconds",
                "How late the most overdue step is, at least, NaN if not known",
            ),
            consumer_messages: Consumed::ALL
                .map(|result| consumer_messages.with_label_values(&[result.as_str()])),
            consumer_lag: gauge(
                r,
                "consumer_lag",
                "Messages of this replica's partitions not yet consumed, NaN if not known",
            ),
            consumer_up: gauge(
                r,
                "consumer_up",
                "Whether this replica's partitions are read and all their messages handled, 1, or not, 0; NaN until known",
            ),
            keys_up: gauge(
                r,
                "keys_up",
                "Whether it is known which keys are good, and their use is noted, 1, or not, 0; NaN where nobody is asked for one",
            ),
            feed: FeedSeries::new(r),
            dead_letters: counter_vec(r, "dead_letters_total", "New dead letters", &["reason"]),
            dead_letters_waiting: gauge_vec(
                r,
                "dead_letters_waiting",
                "Dead letters that nobody has requeued, NaN if not known",
                &["reason"],
            ),
            partition_unavailable: gauge_vec(
                r,
                "partition_unavailable",
                "Partitions of the orders topic that take no orders, 1, or do, 0; NaN if not known",
                &["partition"],
            ),
            partitions: AtomicI32::new(0),
            fresh: Freshness::default(),
            registry,
        };
        metrics.declare_known_labels();
        metrics
    }

    fn declare_known_labels(&self) {
        for from in Status::ALL {
            // And every step can be taken back.
            for to in Status::ALL.into_iter().filter(|to| from.may_become(*to) || from.may_go_back_to(*to)) {
                self.transitions.with_label_values(&[from.as_str(), to.as_str()]);
            }
        }
        for reason in RejectReason::ALL {
            self.dead_letters.with_label_values(&[reason.as_str()]);
        }
        self.dead_letters(None);
        self.backlog(None);
        self.overdue(None);
        self.in_progress(None);
        self.orders_late(None);
        self.lag(None);
        self.consumer_up(None);
        self.keys_up(None);
        self.events_behind(None);
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

    /// A message became a dead letter.
    pub fn dead_letter(&self, reason: RejectReason) {
        self.dead_letters.with_label_values(&[reason.as_str()]).inc();
    }

    /// Orders took these steps.
    pub fn transitioned(&self, transitions: &[Transition]) {
        for step in transitions {
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

    /// Everything in Prometheus' text format, of [`CONTENT_TYPE`].
    pub fn render(&self) -> prometheus::Result<Vec<u8>> {
        self.forget_what_is_old();
        let mut text = Vec::with_capacity(64 * 1024);
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
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

fn gauge(registry: &Registry, name: &str, help: &str) -> Gauge {
    register(registry, Gauge::new(name, help))
}

fn gauge_vec(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> GaugeVec {
    register(registry, GaugeVec::new(Opts::new(name, help), labels))
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
