//! Another system on the same topic: a plain Kafka client.

use std::{collections::HashMap, time::Duration};

use rdkafka::{
    ClientConfig, Message as _, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _, StreamConsumer},
    message::{BorrowedMessage, Headers as _},
    producer::{FutureProducer, FutureRecord},
};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::harness::{Service, details};

/// Where orders go.
pub(crate) const TOPIC: &str = "orders.v1";
/// Where messages go that can't become orders.
pub(crate) const DLQ: &str = "orders.v1.dlq";
const PARTITIONS: i32 = 6;
const PATIENCE: Duration = Duration::from_secs(20);

/// A message as it was read.
#[derive(Debug)]
pub(crate) struct DeadLetter {
    pub(crate) key: Option<String>,
    pub(crate) value: Vec<u8>,
    pub(crate) headers: HashMap<String, String>,
}

impl DeadLetter {
    fn from(message: &BorrowedMessage<'_>) -> Self {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
        let headers = message.headers().map(|headers| {
            headers
                .iter()
                .map(|header| (header.key.to_owned(), text(header.value.expect("a value"))))
                .collect()
        });
        Self {
            key: message.key().map(text),
            value: message.payload().unwrap_or_default().to_vec(),
            headers: headers.unwrap_or_default(),
        }
    }

    /// The value as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.value).expect("JSON")
    }
}

/// A client of a service's embedded broker.
pub(crate) struct Kafka {
    config: ClientConfig,
    producer: FutureProducer,
}

impl Kafka {
    pub(crate) fn of(service: &Service) -> Self {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &service.brokers).set("group.id", "tests");
        let producer = config.create().expect("a producer");
        Self { config, producer }
    }

    /// Puts a message on the orders topic and answers its partition and offset.
    pub(crate) async fn put(&self, key: Option<&str>, value: Option<&[u8]>) -> (i32, i64) {
        let mut record: FutureRecord<'_, str, [u8]> = FutureRecord::to(TOPIC);
        record.key = key;
        record.payload = value;
        let delivery = self.producer.send(record, PATIENCE).await.expect("acknowledged");
        (delivery.partition, delivery.offset)
    }

    /// All that is on a topic now.
    pub(crate) async fn all(&self, topic: &'static str) -> Vec<DeadLetter> {
        let config = self.config.clone();
        let count = tokio::task::spawn_blocking(move || {
            let consumer: BaseConsumer = config.create().expect("a consumer");
            (0..PARTITIONS)
                .map(|partition| {
                    let marks = consumer.fetch_watermarks(topic, partition, PATIENCE);
                    let (low, high) = marks.expect("watermarks");
                    usize::try_from(high - low).expect("a count")
                })
                .sum()
        });
        self.read(topic, count.await.expect("no panic")).await
    }

    /// Waits for so many messages from the beginning of a topic.
    pub(crate) async fn read(&self, topic: &str, count: usize) -> Vec<DeadLetter> {
        let consumer: StreamConsumer = self.config.create().expect("a consumer");
        let mut places = TopicPartitionList::new();
        for partition in 0..PARTITIONS {
            places.add_partition_offset(topic, partition, Offset::Beginning).expect("a place");
        }
        consumer.assign(&places).expect("assigned");
        let mut dead_letters = Vec::new();
        while dead_letters.len() < count {
            let message = timeout(PATIENCE, consumer.recv()).await;
            let message =
                message.unwrap_or_else(|_| panic!("{topic} holds only {} of {count}", dead_letters.len()));
            dead_letters.push(DeadLetter::from(&message.expect("a message")));
        }
        dead_letters
    }
}

/// A message that another system might have written.
pub(crate) fn foreign(order_id: &str) -> Value {
    let mut message = details("ramen");
    message["order_id"] = json!(order_id);
    message["status"] = json!("PLACED");
    message["created_at"] = json!("2026-01-02T03:04:05.678Z");
    message
}
