//! What a load came to.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard},
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use serde::Serialize;

/// Longest latency that is told from a longer one, in microseconds.
const LONGEST: u64 = 3_600_000_000;

/// Counts answers and their latencies; shared by all connections.
#[derive(Debug)]
pub struct Recorder {
    started: Instant,
    seen: Mutex<Seen>,
}

#[derive(Debug)]
struct Seen {
    latency: Histogram<u64>,
    errors: BTreeMap<String, u64>,
    last: Instant,
}

/// The same at one moment.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// Requests that were answered well.
    pub good: u64,
    /// Requests that were not.
    pub failed: u64,
    /// From the start to the last answer.
    pub seconds: f64,
    /// Good answers a second.
    pub rate: f64,
    /// Of the good answers, in milliseconds.
    pub latency_ms: Latency,
    /// Why the others failed, and how often.
    pub errors: BTreeMap<String, u64>,
}

/// A distribution in milliseconds; each figure is exact to three digits.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Latency {
    /// The shortest.
    pub min: f64,
    /// The mean.
    pub mean: f64,
    /// Half are shorter.
    pub p50: f64,
    /// Nine of ten are shorter.
    pub p90: f64,
    /// 99 % are shorter.
    pub p99: f64,
    /// 99.9 % are shorter.
    #[serde(rename = "p99.9")]
    pub p999: f64,
    /// The longest.
    pub max: f64,
}

/// An empty histogram of microseconds.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LONGEST, 3).expect("the bounds are valid")
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// Adds a time to a histogram of microseconds.
pub fn record(histogram: &mut Histogram<u64>, time: Duration) {
    histogram.saturating_record(micros(time));
}

impl Latency {
    /// Reads the figures off a histogram of microseconds.
    pub fn of(histogram: &Histogram<u64>) -> Self {
        if histogram.is_empty() {
            return Self::default();
        }
        let millis = |micros: u64| Duration::from_micros(micros).as_secs_f64() * 1e3;
        // The histogram rounds up to its resolution; nothing took longer than the longest.
        let max = histogram.max();
        let at = |quantile| round(millis(histogram.value_at_quantile(quantile).min(max)));
        Self {
            min: round(millis(histogram.min())),
            mean: round(histogram.mean() / 1e3),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: round(millis(max)),
        }
    }
}

/// To three digits after the point.
pub(super) fn round(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

impl Recorder {
    pub(super) fn new(started: Instant) -> Self {
        let seen = Seen { latency: histogram(), errors: BTreeMap::new(), last: started };
        Self { started, seen: Mutex::new(seen) }
    }

    pub(super) fn answered(&self, took: Duration) {
        let mut seen = self.seen();
        record(&mut seen.latency, took);
        seen.last = Instant::now();
    }

    pub(super) fn failed(&self, why: String) {
        let mut seen = self.seen();
        *seen.errors.entry(why).or_default() += 1;
        seen.last = Instant::now();
    }

    /// What has been seen so far.
    pub fn summary(&self) -> Summary {
        let seen = self.seen();
        let seconds = (seen.last - self.started).as_secs_f64();
        let good = seen.latency.len();
        Summary {
            good,
            failed: seen.errors.values().sum(),
            seconds: round(seconds),
            rate: round(per_second(good, seconds)),
            latency_ms: Latency::of(&seen.latency),
            errors: seen.errors.clone(),
        }
    }

    /// How many were answered well and how many not.
    pub fn counts(&self) -> (u64, u64) {
        let seen = self.seen();
        (seen.latency.len(), seen.errors.values().sum())
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().expect("no holder panics")
    }
}

/// So many in so many seconds, a second.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
pub(super) fn per_second(count: u64, seconds: f64) -> f64 {
    if seconds > 0.0 { count as f64 / seconds } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_are_told_in_milliseconds() {
        let recorder = Recorder::new(Instant::now());
        for millis in 1..=1000 {
            recorder.answered(Duration::from_millis(millis));
        }
        let Latency { min, mean, p50, p90, p99, p999, max } = recorder.summary().latency_ms;
        for (told, truth) in [
            (min, 1.0),
            (mean, 500.5),
            (p50, 500.0),
            (p90, 900.0),
            (p99, 990.0),
            (p999, 999.0),
            (max, 1000.0),
        ] {
            assert!((told - truth).abs() <= truth / 1000.0, "{told} for {truth}");
        }
    }

    #[test]
    fn failures_are_counted_by_kind_and_leave_the_latencies_alone() {
        let recorder = Recorder::new(Instant::now());
        recorder.answered(Duration::from_millis(5));
        for why in ["503 Service Unavailable", "connection lost", "503 Service Unavailable"] {
            recorder.failed(why.to_owned());
        }
        let summary = recorder.summary();
        assert_eq!((summary.good, summary.failed), (1, 3));
        assert_eq!(summary.errors["503 Service Unavailable"], 2);
        assert!(summary.latency_ms.max <= 5.01);
    }
}
