//! What the consumer says of itself.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use tokio::sync::watch;
use tracing::{info, warn};

use super::queue::Why;
use crate::telemetry::{health::Health, metrics::Metrics};

/// Most partitions that are named.
const NAMED: usize = 5;
/// Most reasons of one series that are logged.
const LOGGED: usize = 20;

/// What is to be said of partitions that stand still; nothing if none does.
pub(super) fn health<'a>(troubles: impl Iterator<Item = (i32, &'a Why)>) -> Option<Health> {
    let mut partitions: BTreeMap<String, Vec<i32>> = BTreeMap::new();
    for (partition, why) in troubles {
        let reason = match why {
            // Then no message can be handled, wherever it lies.
            Why::Database(reason) => return Some(Health::Down(format!("messages wait: {reason}"))),
            Why::Message(reason) => format!("a message waits: {reason}"),
            Why::DeadLetter(reason) => {
                format!("a message that is no order can't be written to the dead-letter topic: {reason}")
            }
        };
        partitions.entry(reason).or_default().push(partition);
    }
    let told: Vec<String> = partitions
        .into_iter()
        .map(|(reason, partitions)| format!("{}: {reason}", named(&partitions)))
        .collect();
    (!told.is_empty()).then(|| Health::Degraded(told.join("; ").into()))
}

fn named(partitions: &[i32]) -> String {
    let named: Vec<String> = partitions.iter().take(NAMED).map(i32::to_string).collect();
    let more = partitions.len().saturating_sub(NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let word = if partitions.len() == 1 { "partition" } else { "partitions" };
    format!("{word} {}{more}", named.join(", "))
}

/// Tells the health to those who ask, and each trouble of a series to the log once.
pub(super) struct HealthReporter {
    health: watch::Sender<Health>,
    metrics: Arc<Metrics>,
    logged: BTreeSet<String>,
}

impl HealthReporter {
    pub(super) fn new(health: watch::Sender<Health>, metrics: Arc<Metrics>) -> Self {
        Self { health, metrics, logged: BTreeSet::new() }
    }

    pub(super) fn tell(&mut self, now: Health) {
        match &now {
            Health::Down(_) | Health::Degraded(_) => {
                let reason = now.reason().unwrap_or_default();
                if self.logged.len() < LOGGED && self.logged.insert(reason.clone()) {
                    warn!(reason, "the consumer stands still, at least in part; it tries again by itself");
                }
                self.metrics.consumer_up(Some(false));
            }
            Health::Up => {
                if !std::mem::take(&mut self.logged).is_empty() {
                    info!("the consumer goes on");
                }
                self.metrics.consumer_up(Some(true));
            }
            Health::Unknown => self.metrics.consumer_up(None),
        }
        self.health.send_if_modified(|last| {
            let news = *last != now;
            if news {
                *last = now;
            }
            news
        });
    }
}
