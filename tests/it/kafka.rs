//! Other systems on the same topics.

use serde_json::{Value, json};
use testkit::{MAX_BYTES, Message, Topic};

use crate::{
    harness::{Service, details},
    stack::variable,
};

/// Where orders go.
pub(crate) const TOPIC: &str = "orders.v1";
/// Where messages go that can't become orders.
pub(crate) const DLQ: &str = "orders.v1.dlq";

/// Where events go.
pub(crate) const EVENTS: &str = "order-events.v1";

/// A client of a cluster.
pub(crate) struct Kafka(String);

impl Kafka {
    /// Of a service's embedded broker.
    pub(crate) fn of(service: &Service) -> Self {
        Self(service.brokers.clone())
    }

    /// Of the real one.
    pub(crate) fn of_stack() -> Self {
        Self(variable("KAFKA_BROKERS"))
    }

    fn topic(&self, name: &str) -> Topic {
        Topic::new(&self.0, name)
    }

    /// Puts a message on the orders topic and answers its partition and offset.
    pub(crate) async fn put(&self, key: Option<&str>, value: Option<&[u8]>) -> (i32, i64) {
        self.send(TOPIC, None, key, value).await
    }

    /// Puts what passes for an event on its topic.
    pub(crate) async fn put_event(&self, order_id: &str, seq: u32) {
        let headers = [("ce_id".to_owned(), format!("{order_id}:{seq}"))].into();
        let message = Message { key: Some(order_id.to_owned()), headers, ..Message::default() };
        self.topic(EVENTS).send(vec![message]).await.expect("acknowledged");
    }

    /// Puts a message on a partition.
    pub(crate) async fn put_on(&self, topic: &str, partition: i32, key: &str, value: &str) {
        self.send(topic, Some(partition), Some(key), Some(value.as_bytes())).await;
    }

    async fn send(
        &self,
        topic: &str,
        partition: Option<i32>,
        key: Option<&str>,
        value: Option<&[u8]>,
    ) -> (i32, i64) {
        let (key, value) = (key.map(str::to_owned), value.map(<[u8]>::to_vec));
        let message = Message { key, value, partition, ..Message::default() };
        self.topic(topic).send(vec![message]).await.expect("acknowledged")[0]
    }

    /// All that is on a topic now.
    pub(crate) async fn all(&self, topic: &str) -> Vec<Message> {
        self.topic(topic).read().await.expect("read")
    }

    /// Waits for so many messages from the beginning of a topic.
    pub(crate) async fn read(&self, topic: &str, count: usize) -> Vec<Message> {
        self.topic(topic).read_some(count).await.expect("read")
    }

    /// How many messages each partition of a topic holds; nothing while it is not there.
    pub(crate) async fn counts(&self, topic: &str) -> Vec<i64> {
        self.topic(topic).counts().await.unwrap_or_default()
    }

    pub(crate) async fn create(&self, topics: &[&str]) {
        for topic in topics {
            self.topic(topic).create(4, MAX_BYTES).await.expect("creates");
        }
    }

    pub(crate) async fn delete(&self, topics: &[&str]) {
        for topic in topics {
            self.topic(topic).delete().await.expect("deletes");
        }
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
