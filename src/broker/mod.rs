//! The broker carries messages, at least once; the tables absorb what comes twice.
//!
//! The pipeline sees the three traits here. `kafka` implements them for a real cluster and for the
//! `embedded` one alike: there is one code path.

mod dead_letters;
mod embedded;
mod kafka;
mod monitor;
mod partitions;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use async_trait::async_trait;

pub use dead_letters::DeadLetterMonitor;
pub use embedded::EmbeddedBroker;
pub use kafka::{
    DeadLetter, Kafka, KafkaEventPublisher, KafkaPublisher, KafkaSettings, KafkaSubscription, OffsetRange,
    Properties, TopicExtent,
};
pub use monitor::BrokerMonitor;
pub use partitions::Partitions;

use crate::{
    order::{EventMessage, OrderId, OrderPlaced, Reject},
    telemetry::health::Health,
};

// Also the capacity of the receipt channel, so that a receipt always finds a place.
pub use crate::order::promises::IN_FLIGHT;

/// Puts orders on the topic.
#[async_trait]
pub trait Publisher: Send + Sync + 'static {
    /// What is known of the topic. Never waits.
    fn partitions(&self) -> Arc<Partitions>;

    /// Hands an order to the client, for this partition or for the one that the client chooses; a
    /// [`Receipt`] follows on the channel given to the publisher when it was made, unless this answers an
    /// error. Never waits.
    fn publish(&self, message: &OrderPlaced, partition: Option<i32>) -> Result<(), Refusal>;

    /// Puts a message that can't become an order on the dead-letter topic and waits for the
    /// acknowledgement.
    async fn dead_letter(&self, record: &Record, reject: &Reject) -> Result<(), BrokerError>;
}

/// Puts events on their topic.
#[async_trait]
pub trait EventPublisher: Send + Sync + 'static {
    /// Looks at the topic and creates it if it is missing.
    async fn look(&self) -> Result<(), Refusal>;

    /// Puts these on the topic and waits for the broker's answer to each; answers in the order given. They are sent
    /// side by side, so of one order there is one at most.
    async fn publish(&self, messages: &[&EventMessage]) -> Vec<Result<(), Refusal>>;

    /// Gives the client up, with what it has not sent; the next call makes another.
    fn close(&self);
}

/// What the broker said to one order.
#[derive(Debug)]
pub struct Receipt {
    /// Which order.
    pub order_id: OrderId,
    /// Acknowledged by all in-sync replicas, or not.
    pub outcome: Result<(), Refusal>,
    /// How long the answer took.
    pub took: Duration,
}

/// A message was not taken, by the broker or by its client.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{reason}")]
pub struct Refusal {
    /// Whose fault it is.
    pub blame: Blame,
    /// What was said, with the topic and, where there is one, the setting that it is about.
    pub reason: String,
}

/// Whose fault it is that a message was not taken, and so who else has to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// The message's own; all others may go.
    Message,
    /// Its partition's; others may go.
    Partition,
    /// The topic's, the cluster's or a setting's: none can go.
    Everything,
}

/// Reads the topic as a member of the consumer group.
#[async_trait]
pub trait Subscription: Send + 'static {
    /// Waits for a message and takes those that have arrived with it, up to `max`.
    /// Cancel safe: what was taken is not lost, it comes again.
    async fn next_batch(&mut self, max: usize) -> Result<Vec<Record>, BrokerError>;

    /// Says that these were handled; their offsets are committed soon after, and at the close.
    fn handled(&mut self, records: &[Record]) -> Result<(), BrokerError>;

    /// Takes no more messages from these partitions, and again from all others.
    fn hold_back(&mut self, partitions: &BTreeSet<i32>) -> Result<(), BrokerError>;

    /// Partitions that this member has lost since it was asked last. Whoever has them now, perhaps this
    /// member again, reads what was not handled once more.
    fn lost(&mut self) -> BTreeSet<i32>;

    /// Whether the topic can be read: whether this is a member of the group.
    fn health(&self) -> Health;

    /// Commits what was handled and leaves the group.
    async fn close(self: Box<Self>);
}

/// A message as it came.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    /// Where it was read.
    pub topic: String,
    /// Where it was read.
    pub partition: i32,
    /// Where it was read.
    pub offset: i64,
    /// The key, if there is one.
    pub key: Option<Vec<u8>>,
    /// The value; `None` is a tombstone.
    pub value: Option<Vec<u8>>,
    /// Its headers.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    /// When it was written, in milliseconds since 1970, if it says so.
    pub written: Option<i64>,
}

/// The broker could not do it.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct BrokerError(pub String);
