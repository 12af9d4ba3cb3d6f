//! Looks after the broker: creates the orders topic whenever it is missing, and says whether it is up.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{Kafka, KafkaPublisher};
use crate::telemetry::health::Health;

/// Pause between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Watches one cluster.
pub struct BrokerMonitor {
    kafka: Arc<Kafka>,
    publisher: Arc<KafkaPublisher>,
    health: watch::Sender<Health>,
    down_since: Option<Instant>,
}

impl BrokerMonitor {
    /// A monitor that reports to `health`.
    pub fn new(kafka: Arc<Kafka>, publisher: Arc<KafkaPublisher>, health: watch::Sender<Health>) -> Self {
        Self { kafka, publisher, health, down_since: None }
    }

    /// Works until told to stop.
    pub async fn run(mut self, stop: CancellationToken) {
        let work = async {
            loop {
                self.step().await;
                sleep(LOOK_EVERY).await;
            }
        };
        stop.run_until_cancelled(work).await;
    }

    /// Looks once; logs only when the answer changes.
    pub async fn step(&mut self) {
        let health = match self.kafka.probe(&self.publisher).await {
            Ok(()) => {
                if let Some(since) = self.down_since.take() {
                    info!(after = ?since.elapsed(), "orders can be published again");
                }
                Health::Up
            }
            Err(error) => {
                if self.down_since.is_none() {
                    self.down_since = Some(Instant::now());
                    warn!(%error, "no order can be published; they are accepted and wait in the outbox");
                }
                Health::Down(error.to_string())
            }
        };
        self.health.send_replace(health);
    }
}
