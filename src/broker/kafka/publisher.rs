//! Publishing: hand over, and pass the broker's answer on as a receipt.

use std::sync::{Arc, RwLock};

use async_trait::async_trait;
use rdkafka::{ClientConfig, message::OwnedHeaders};
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

use super::{
    Context, KafkaSettings,
    headers::{first_written, headers, of_dead_letter, of_requeued},
    producer::{Client, Delivery, DeliveryContext, Producer, answer, record},
    reader::{DeadLetter, REQUEUED},
    refusal::refusal,
};
use crate::{
    broker::{Blame, BrokerError, Partitions, Publisher, Receipt, Record, Refusal},
    order::{MAX_MESSAGE_BYTES, OrderPlaced, Reject},
};

/// The producing side of the Kafka client.
pub struct KafkaPublisher {
    topic: String,
    dlq_topic: String,
    producer: Producer,
    partitions: RwLock<Arc<Partitions>>,
    /// Whether keys go where [`Partitions::of`] says; not if `KAFKA_PROPERTIES` name another partitioner.
    usual_partitioner: bool,
}

/// Those that take the same partition for a key as [`Partitions::of`].
const USUAL_PARTITIONERS: [&str; 2] = ["murmur2", "murmur2_random"];

impl KafkaPublisher {
    pub(super) fn new(
        config: ClientConfig,
        settings: &KafkaSettings,
        context: Context,
        receipts: mpsc::Sender<Receipt>,
    ) -> Result<Self, BrokerError> {
        let (topic, dlq_topic) = (settings.topic.clone(), settings.dlq_topic.clone());
        let usual = config.get("partitioner").is_none_or(|name| USUAL_PARTITIONERS.contains(&name));
        let partitions = Partitions { topic: topic.clone(), ..Partitions::default() };
        Ok(Self {
            topic,
            dlq_topic,
            producer: Producer::connect(config, DeliveryContext { context, receipts })?,
            partitions: RwLock::new(Arc::new(partitions)),
            usual_partitioner: usual,
        })
    }

    /// The topic was looked at.
    pub(super) fn seen(&self, mut partitions: Partitions) {
        if !self.usual_partitioner {
            partitions.count = 0;
        }
        *self.partitions.write().expect("no holder panics") = Arc::new(partitions);
    }

    /// The topic could not be looked at; what was known of it may still be true.
    pub(super) fn unreachable(&self) {
        Arc::make_mut(&mut self.partitions.write().expect("no holder panics")).reachable = false;
    }

    pub(super) fn client(&self) -> Arc<Client> {
        self.producer.client()
    }
}

impl KafkaPublisher {
    /// Puts the message of a dead letter back on the orders topic, then notes that beside the
    /// dead letter. If the note fails the message may be requeued again, which changes nothing.
    pub async fn requeued(&self, dead_letter: &DeadLetter) -> Result<(), BrokerError> {
        let place = dead_letter.place();
        let Record { key, value, .. } = &dead_letter.record;
        let (own, written) = (of_requeued(dead_letter), first_written(dead_letter));
        self.acknowledged(&self.topic, key.as_deref(), value.as_deref(), own, written).await?;
        let note = headers(&[(REQUEUED, &place)]);
        Ok(self.acknowledged(&self.dlq_topic, key.as_deref(), Some(b""), note, None).await?)
    }

    /// Sends and waits for the broker's answer.
    async fn acknowledged(
        &self,
        topic: &str,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: OwnedHeaders,
        written: Option<i64>,
    ) -> Result<(), Refusal> {
        let (answered, outcome) = oneshot::channel();
        let mut record = record(topic, key, value, headers, Delivery::Other(answered));
        record.timestamp = written;
        self.producer.send(record).map_err(|error| refusal(&error, topic, None))?;
        answer(outcome).await
    }
}

impl From<Refusal> for BrokerError {
    fn from(refusal: Refusal) -> Self {
        Self(refusal.reason)
    }
}

#[async_trait]
impl Publisher for KafkaPublisher {
    fn partitions(&self) -> Arc<Partitions> {
        Arc::clone(&self.partitions.read().expect("no holder panics"))
    }

    fn publish(&self, message: &OrderPlaced, partition: Option<i32>) -> Result<(), Refusal> {
        let key = message.order_id.to_string();
        let value = serde_json::to_vec(message)
            .map_err(|error| Refusal { blame: Blame::Message, reason: error.to_string() })?;
        // CloudEvents 1.0, binary mode: the value stays the specification's, the rest is headers.
        let headers = headers(&[
            ("ce_specversion", "1.0"),
            ("ce_id", &message.event_id()),
            ("ce_type", "order.placed.v1"),
            ("ce_source", "/order-tracker"),
            ("ce_subject", &key),
            ("ce_time", &message.created_at.to_rfc3339_opts(chrono::SecondsFormat::Millis, true)),
            ("content-type", "application/json"),
        ]);
        let delivery = Delivery::Order { order_id: message.order_id, since: Instant::now() };
        let mut record = record(&self.topic, Some(key.as_bytes()), Some(&value), headers, delivery);
        record.partition = partition;
        self.producer.send(record).map_err(|error| refusal(&error, &self.topic, partition))
    }

    async fn dead_letter(&self, record: &Record, reject: &Reject) -> Result<(), BrokerError> {
        // What is too large stays where it is; topic, partition and offset lead there.
        let small = |bytes: &Option<Vec<u8>>| {
            bytes.as_deref().filter(|bytes| bytes.len() <= MAX_MESSAGE_BYTES).map(<[u8]>::to_vec)
        };
        let (key, value) = (small(&record.key), small(&record.value));
        let value = value.as_deref().or(Some(b""));
        let whole = of_dead_letter(record, reject, true);
        match self.acknowledged(&self.dlq_topic, key.as_deref(), value, whole, None).await {
            // Something of it is what the topic does not take; ours alone it does.
            Err(Refusal { blame: Blame::Message, .. }) => {
                let ours = of_dead_letter(record, reject, false);
                Ok(self.acknowledged(&self.dlq_topic, key.as_deref(), Some(b""), ours, None).await?)
            }
            outcome => Ok(outcome?),
        }
    }
}
