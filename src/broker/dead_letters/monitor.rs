//! Watches the dead-letter topic, which it creates whenever it is missing: how many dead letters lie there that nobody
//! has requeued.
//!
//! Each replica asks where the topic ends and reads only what is new, so all tell the same, also after
//! a restart. The reader lives for one reading: it costs threads and buffers.

use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, task::spawn_blocking, time::sleep};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::super::{BrokerError, Kafka, KafkaPublisher};
use super::index::{DeadLetterIndex, Entry};
use crate::{
    order::dead_letter::DeadLetterBacklog,
    telemetry::{
        health::{self, Health},
        metrics::Metrics,
    },
};

/// Pause between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// The same after one that failed.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// After so many failures in a row they are logged: a broker that goes away is the broker watch's to say, which
/// may notice it a moment later.
const LOGGED_AT: u32 = 2;

/// Watches one cluster's dead letters.
pub struct DeadLetterMonitor {
    kafka: Arc<Kafka>,
    publisher: Arc<KafkaPublisher>,
    broker: health::Watcher,
    waiting: watch::Sender<Option<DeadLetterBacklog>>,
    metrics: Arc<Metrics>,
    index: DeadLetterIndex,
    health: watch::Sender<Health>,
    failures: u32,
    /// Changes when the topic is gone.
    losses: watch::Receiver<()>,
}

impl DeadLetterMonitor {
    /// A watch that reports to `waiting`, `health` and the metrics while `broker` is up.
    pub fn new(
        kafka: Arc<Kafka>,
        publisher: Arc<KafkaPublisher>,
        broker: health::Watcher,
        waiting: watch::Sender<Option<DeadLetterBacklog>>,
        metrics: Arc<Metrics>,
        health: watch::Sender<Health>,
    ) -> Self {
        let losses = kafka.dead_letter_topic_losses();
        let index = DeadLetterIndex::default();
        Self { kafka, publisher, broker, waiting, metrics, index, health, failures: 0, losses }
    }

    /// Works until told to stop.
    pub async fn run(mut self, stop: CancellationToken) {
        let work = async {
            loop {
                // That the broker is away is the broker watch's to say.
                if *self.broker.borrow() != Health::Up {
                    self.metrics.dead_letters(None);
                    self.health.send_replace(Health::Unknown);
                }
                if self.broker.wait_for(|health| *health == Health::Up).await.is_err() {
                    return std::future::pending::<()>().await;
                }
                self.step().await;
                let well = *self.health.borrow() == Health::Up;
                sleep(if well { LOOK_EVERY } else { LOOK_AGAIN }).await;
            }
        };
        stop.run_until_cancelled(work).await;
    }

    /// Looks once. What was known stays known if that fails; it is logged once per series.
    pub async fn step(&mut self) {
        let health = match self.look().await {
            Ok(()) => {
                if std::mem::take(&mut self.failures) >= LOGGED_AT {
                    info!("dead letters are counted again");
                }
                let waiting = self.index.waiting();
                self.metrics.dead_letters(Some(&waiting));
                self.waiting.send_replace(Some(waiting));
                Health::Up
            }
            Err(error) => {
                self.failures += 1;
                if self.failures == LOGGED_AT {
                    warn!(%error, "the dead-letter topic can't be used; trying again");
                }
                self.metrics.dead_letters(None);
                Health::Down(error.to_string())
            }
        };
        self.health.send_replace(health);
    }

    async fn look(&mut self) -> Result<(), BrokerError> {
        let ensured = self.kafka.ensure_dead_letter_topic(&self.publisher).await;
        if self.losses.has_changed().unwrap_or_default() {
            self.losses.mark_unchanged();
            self.index = DeadLetterIndex::default();
        }
        // One that was made just now is empty.
        if ensured? {
            return Ok(());
        }
        let (kafka, publisher) = (Arc::clone(&self.kafka), Arc::clone(&self.publisher));
        let extent = blocking(move || kafka.dead_letters(&publisher)).await?;
        let unread = self.index.unread(&extent);
        if unread.is_empty() {
            return Ok(());
        }
        let (kafka, ranges) = (Arc::clone(&self.kafka), unread.clone());
        let entries = blocking(move || {
            let mut entries = Vec::new();
            kafka.read_dead_letters(&ranges, |dead_letter| entries.extend(Entry::of(&dead_letter)))?;
            Ok(entries)
        });
        self.index.enter(&unread, entries.await?);
        Ok(())
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BrokerError> + Send + 'static,
) -> Result<T, BrokerError> {
    spawn_blocking(work).await.map_err(|error| BrokerError(error.to_string()))?
}
