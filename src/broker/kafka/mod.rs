//! The Kafka client: settings, topics and health. This folder alone names rdkafka's clients.
//!
//! Every property that a promise rests on is set here, with its reason; `KAFKA_PROPERTIES` come
//! after and may override them.

mod context;
mod events;
mod headers;
mod member;
mod producer;
mod properties;
mod publisher;
mod reader;
mod refusal;
mod subscription;
mod topics;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use rdkafka::ClientConfig;
use tokio::sync::mpsc;

pub use events::KafkaEventPublisher;
pub use properties::Properties;
pub use publisher::KafkaPublisher;
pub use reader::{DeadLetter, OffsetRange, TopicExtent};
pub use subscription::KafkaSubscription;

use super::{BrokerError, Receipt};
use crate::{telemetry::metrics::Metrics, time::deadlines::EVENT_TRY};
use context::Context;
use member::MemberContext;
use topics::Topics;

/// How to reach the cluster and what things are called there.
#[derive(Debug, Clone)]
pub struct KafkaSettings {
    /// Bootstrap servers, comma-separated.
    pub brokers: String,
    /// Where orders go.
    pub topic: String,
    /// Where messages go that can't become orders.
    pub dlq_topic: String,
    /// Where events go, if they are written.
    pub events_topic: Option<String>,
    /// Used when a topic is created.
    pub partitions: i32,
    /// Used when a topic is created.
    pub replication: i32,
    /// The consumer group of all replicas.
    pub group: String,
    /// Handed to the client as they are.
    pub properties: Vec<(String, String)>,
    /// Whether this is librdkafka's mock cluster, which settles groups faster with `range` and
    /// knows no admin calls.
    pub embedded: bool,
}

/// A cluster, reachable or not.
pub struct Kafka {
    settings: KafkaSettings,
    context: Context,
    metrics: Arc<Metrics>,
    topics: Topics,
}

impl Kafka {
    /// Describes a cluster; connects to nothing yet.
    pub fn new(settings: KafkaSettings, metrics: Arc<Metrics>) -> Self {
        Self { settings, context: Context::default(), metrics, topics: Topics::default() }
    }

    fn base_config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.settings.brokers)
            .set("client.id", "order-tracker")
            // The default of 10 s is how late one would notice that the broker is back.
            .set("reconnect.backoff.max.ms", "1000")
            .set("topic.metadata.refresh.interval.ms", "10000");
        if !self.settings.embedded {
            // Where brokers make topics that are asked for, the probe would: with their defaults, not our settings.
            config.set("allow.auto.create.topics", "false");
        }
        config
    }

    fn with_properties(&self, mut config: ClientConfig) -> ClientConfig {
        for (name, value) in &self.settings.properties {
            config.set(name, value);
        }
        config
    }

    fn producer_config(&self) -> ClientConfig {
        // For ever: a message given up locally and sent again later would be a duplicate. The
        // relay bounds how many wait.
        self.config_of_producer("0")
    }

    /// A message is given up before another replica may have the place of the one that handed it over. What was given
    /// up is sent again, and readers keep the highest position: an event may come twice, but never out of order.
    fn event_producer_config(&self) -> ClientConfig {
        let mut config = self.config_of_producer("0");
        // Whatever the properties say, which are for orders.
        config.remove("delivery.timeout.ms");
        config.set("message.timeout.ms", EVENT_TRY.as_millis().to_string());
        config
    }

    fn config_of_producer(&self, message_timeout: &str) -> ClientConfig {
        let mut config = self.base_config();
        config
            // No duplicate from the client's own retries, no gap, and no acknowledgement before
            // every in-sync replica has the message.
            .set("enable.idempotence", "true")
            .set("acks", "all")
            // Same partition for a key as every Java client.
            .set("partitioner", "murmur2_random")
            .set("linger.ms", "1")
            .set("message.timeout.ms", message_timeout);
        self.with_properties(config)
    }

    fn consumer_config(&self) -> ClientConfig {
        let mut config = self.base_config();
        config
            .set("group.id", &self.settings.group)
            // A new group must see what was placed before it joined.
            .set("auto.offset.reset", "earliest")
            // Only what the database has taken is stored, and only what is stored is committed.
            .set("enable.auto.offset.store", "false")
            .set("enable.auto.commit", "true")
            .set("auto.commit.interval.ms", "1000")
            .set("queued.max.messages.kbytes", "16384")
            // What arrives is nearly all our own, stored already: in large batches that costs a statement
            // for hundreds of orders. Another producer's order waits this long at most.
            .set("fetch.min.bytes", "1000000")
            .set("fetch.wait.max.ms", "100")
            .set("statistics.interval.ms", "5000");
        // With the other group protocol the cluster decides these, and the client refuses them.
        if !self
            .settings
            .properties
            .iter()
            .any(|(name, value)| name == "group.protocol" && value == "consumer")
        {
            let strategy = if self.settings.embedded { "range" } else { "cooperative-sticky" };
            config
                .set("session.timeout.ms", "6000")
                .set("heartbeat.interval.ms", "2000")
                .set("partition.assignment.strategy", strategy);
        }
        self.with_properties(config)
    }

    /// Makes the client that publishes; receipts arrive on `receipts`, whose capacity must be
    /// [`super::IN_FLIGHT`].
    pub fn publisher(&self, receipts: mpsc::Sender<Receipt>) -> Result<KafkaPublisher, BrokerError> {
        KafkaPublisher::new(self.producer_config(), &self.settings, self.context.clone(), receipts)
    }

    /// What puts events on their topic, which makes its client when it is first asked; `None` if none are written.
    pub fn events(self: &Arc<Self>) -> Option<KafkaEventPublisher> {
        Some(KafkaEventPublisher::new(Arc::clone(self), self.settings.events_topic.clone()?))
    }

    /// The client that consumes; it subscribes to the topic when it is first asked for messages.
    pub fn subscribe(&self) -> KafkaSubscription {
        let context = MemberContext::new(self.context.clone(), Arc::clone(&self.metrics));
        let losses = self.topics.losses(&self.settings.topic);
        KafkaSubscription::new(self.consumer_config(), &self.settings, context, losses)
    }
}
