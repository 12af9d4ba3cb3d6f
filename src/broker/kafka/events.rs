//! Putting events on their topic: by a client of its own, made when it is first needed, that waits for each answer.

use std::{
    sync::{Arc, Mutex, MutexGuard},
    thread,
};

use async_trait::async_trait;
use chrono::SecondsFormat;
use rdkafka::message::OwnedHeaders;
use tokio::sync::{mpsc, oneshot};

use super::{
    Kafka,
    headers::headers,
    producer::{Delivery, DeliveryContext, Producer, answer, record},
    refusal::refusal,
};
use crate::{
    broker::{Blame, BrokerError, EventPublisher, Refusal},
    order::EventMessage,
};

/// The client that puts events on their topic.
pub struct KafkaEventPublisher {
    kafka: Arc<Kafka>,
    topic: String,
    producer: Mutex<Option<Arc<Producer>>>,
}

/// An event as it is sent; the same event is the same bytes each time.
struct Encoded {
    key: String,
    value: Vec<u8>,
    headers: OwnedHeaders,
}

impl Encoded {
    /// `CloudEvents` 1.0, binary mode: the value is the event's own, the rest is headers.
    fn new(message: &EventMessage) -> serde_json::Result<Self> {
        let (value, event) = (serde_json::to_vec(message)?, &message.event);
        let key = event.order_id.to_string();
        let headers = headers(&[
            ("ce_specversion", "1.0"),
            ("ce_id", &event.event_id()),
            ("ce_type", &format!("order.{}.v1", event.event.as_str().to_ascii_lowercase())),
            ("ce_source", "/order-tracker/events"),
            ("ce_subject", &key),
            ("ce_time", &event.timestamp.to_rfc3339_opts(SecondsFormat::Millis, true)),
            ("content-type", "application/json"),
        ]);
        Ok(Self { key, value, headers })
    }
}

impl KafkaEventPublisher {
    pub(super) fn new(kafka: Arc<Kafka>, topic: String) -> Self {
        Self { kafka, topic, producer: Mutex::default() }
    }

    fn kept(&self) -> MutexGuard<'_, Option<Arc<Producer>>> {
        self.producer.lock().expect("no holder panics")
    }

    fn producer(&self) -> Result<Arc<Producer>, BrokerError> {
        let mut kept = self.kept();
        if let Some(producer) = &*kept {
            return Ok(Arc::clone(producer));
        }
        // Nobody sends orders through it.
        let context = DeliveryContext { context: self.kafka.context.clone(), receipts: mpsc::channel(1).0 };
        let producer = Arc::new(Producer::connect(self.kafka.event_producer_config(), context)?);
        *kept = Some(Arc::clone(&producer));
        Ok(producer)
    }

    /// Hands a message over; answers where the broker's answer will be.
    fn send(
        &self,
        producer: &Producer,
        message: &EventMessage,
    ) -> Result<oneshot::Receiver<Result<(), Refusal>>, Refusal> {
        let Encoded { key, value, headers } = Encoded::new(message)
            .map_err(|error| Refusal { blame: Blame::Message, reason: error.to_string() })?;
        let (answered, outcome) = oneshot::channel();
        let delivery = Delivery::Other(answered);
        let record = record(&self.topic, Some(key.as_bytes()), Some(&value), headers, delivery);
        producer.send(record).map_err(|error| refusal(&error, &self.topic, None))?;
        Ok(outcome)
    }
}

/// Without a client, or without its topic, nothing can be sent.
fn nothing_goes(error: BrokerError) -> Refusal {
    Refusal { blame: Blame::Everything, reason: error.0 }
}

#[async_trait]
impl EventPublisher for KafkaEventPublisher {
    async fn look(&self) -> Result<(), Refusal> {
        let client = self.producer().map_err(nothing_goes)?.client();
        self.kafka.ensure_events_topic(client, &self.topic).await.map_err(nothing_goes)
    }

    async fn publish(&self, messages: &[&EventMessage]) -> Vec<Result<(), Refusal>> {
        let producer = match self.producer().map_err(nothing_goes) {
            Ok(producer) => producer,
            Err(refusal) => return vec![Err(refusal); messages.len()],
        };
        let sent: Vec<_> = messages.iter().map(|message| self.send(&producer, message)).collect();
        let mut outcomes = Vec::with_capacity(sent.len());
        for sent in sent {
            outcomes.push(match sent {
                Ok(outcome) => answer(outcome).await,
                Err(refusal) => Err(refusal),
            });
        }
        outcomes
    }

    fn close(&self) {
        if let Some(producer) = self.kept().take() {
            // Dropping waits for its threads.
            drop(thread::spawn(move || drop(producer)));
        }
    }
}

impl Drop for KafkaEventPublisher {
    fn drop(&mut self) {
        self.close();
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::{message::Headers as _, types::RDKafkaRespErr};
    use tokio::time::Instant;

    use super::*;
    use crate::{
        broker::{EmbeddedBroker, KafkaSettings},
        order::{Cursor, EventKind, FeedEvent, IdMint, OrderFacts, Size, Status, Timestamp},
        telemetry::metrics::Metrics,
        time::deadlines::{EVENT_TRY, WRITER_LEASE},
    };

    const TOPIC: &str = "order-events.v1";

    fn publisher(brokers: String) -> (Arc<Kafka>, KafkaEventPublisher) {
        let settings = KafkaSettings {
            brokers,
            topic: "orders.v1".to_owned(),
            dlq_topic: "orders.v1.dlq".to_owned(),
            events_topic: Some(TOPIC.to_owned()),
            partitions: 3,
            replication: 1,
            group: "test".to_owned(),
            properties: Vec::new(),
            embedded: true,
        };
        let kafka = Arc::new(Kafka::new(settings, Arc::new(Metrics::new())));
        let publisher = kafka.events().expect("a topic");
        (kafka, publisher)
    }

    /// The first event of so many orders.
    fn messages(count: u64) -> Vec<EventMessage> {
        let mut mint = IdMint::default();
        let message = |n| {
            let (order_id, at) = (mint.mint(n, 7), Timestamp::UNIX_EPOCH);
            let event = FeedEvent::new((Cursor(1), order_id, 1), EventKind::Created, at, None);
            EventMessage {
                event,
                order: OrderFacts { item: "pizza".to_owned(), size: Size::Large, created_at: at },
            }
        };
        (0..count).map(message).collect()
    }

    fn blames(outcomes: &[Result<(), Refusal>]) -> Vec<Option<Blame>> {
        outcomes.iter().map(|outcome| outcome.as_ref().err().map(|refusal| refusal.blame)).collect()
    }

    /// Each message has its own answer, and a client that was given up makes room for another.
    #[tokio::test(flavor = "multi_thread")]
    async fn events_are_answered_one_by_one() {
        let broker = EmbeddedBroker::start(&[(TOPIC, 3)]).expect("starts");
        let (kafka, publisher) = publisher(broker.address());
        assert!(publisher.kept().is_none(), "who does not write has no client");
        publisher.look().await.expect("is there");
        let mut messages = messages(20);
        // More than the client takes.
        messages[4].order.item = "x".repeat(2_000_000);
        let refused = |at| (at == 4).then_some(Blame::Message);
        let all = messages.iter().collect::<Vec<_>>();
        assert_eq!(blames(&publisher.publish(&all).await), (0..20).map(refused).collect::<Vec<_>>());
        publisher.close();
        assert!(publisher.kept().is_none());
        assert_eq!(blames(&publisher.publish(&all[..4]).await), [None; 4]);
        let read = tokio::task::spawn_blocking(move || {
            let mut keys = Vec::new();
            let extent = kafka.read_all(TOPIC, |message| keys.push(message.record.key.expect("a key")));
            (extent.expect("reads").messages, keys)
        });
        let (count, mut keys) = read.await.expect("reads");
        keys.sort();
        keys.dedup();
        assert_eq!((count, keys.len()), (23, 19));
    }

    /// Promise 6: it says what is wrong. With the topic, and before another replica has the place.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_message_is_given_up_in_time() {
        let broker = EmbeddedBroker::start(&[(TOPIC, 3)]).expect("starts");
        let (_, publisher) = publisher(broker.address());
        publisher.look().await.expect("is there");
        let errors = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION; 1_000];
        broker.cluster().request_errors(rdkafka::types::RDKafkaApiKey::Produce, &errors);
        let (messages, begun) = (messages(3), Instant::now());
        let outcomes = publisher.publish(&messages.iter().collect::<Vec<_>>()).await;
        assert_eq!(blames(&outcomes), [Some(Blame::Partition); 3]);
        assert!((EVENT_TRY..2 * WRITER_LEASE).contains(&begun.elapsed()), "{:?}", begun.elapsed());
        let reason = &outcomes[0].as_ref().expect_err("given up").reason;
        assert!(reason.contains("topic order-events.v1, partition "), "{reason}");
    }

    /// Promise 3: an effect happens once. Who sends an event again sends the same, also after a restart.
    #[test]
    fn an_event_is_the_same_bytes_each_time() {
        let order_id = "ORD-01J00000000000000000000000".parse().expect("an id");
        let at = "2026-01-02T03:04:05.6Z".parse().expect("a moment");
        let meta = serde_json::json!({"source": "kitchen", "note": "for Ada"});
        let kind = EventKind::Reached(Status::OutForDelivery);
        let event = FeedEvent::new((Cursor(12), order_id, 5), kind, at, Some(&meta));
        let order = OrderFacts { item: "pizza".to_owned(), size: Size::Large, created_at: at };
        let first = EventMessage { event, order };
        let again = serde_json::from_slice(&Encoded::new(&first).expect("encodes").value).expect("reads");
        let [first, again] = [&first, &again].map(|message| Encoded::new(message).expect("encodes"));
        let text = |encoded: &Encoded| {
            let headers = encoded
                .headers
                .iter()
                .map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec)));
            (encoded.key.clone(), encoded.value.clone(), headers.collect::<Vec<_>>())
        };
        assert_eq!(text(&first), text(&again));
        let value = r#"{"cursor":"12","order_id":"ORD-01J00000000000000000000000","seq":5,"event":"OUT_FOR_DELIVERY","status":"OUT_FOR_DELIVERY","timestamp":"2026-01-02T03:04:05.600Z","meta":{"source":"kitchen"},"order":{"item":"pizza","size":"large","created_at":"2026-01-02T03:04:05.600Z"}}"#;
        assert_eq!(String::from_utf8(first.value.clone()).expect("text"), value);
        let told: Vec<(String, String)> = text(&first)
            .2
            .into_iter()
            .map(|(key, value)| (key, String::from_utf8(value.expect("a value")).expect("text")))
            .collect();
        let expected = [
            ("ce_specversion", "1.0"),
            ("ce_id", "ORD-01J00000000000000000000000:5"),
            ("ce_type", "order.out_for_delivery.v1"),
            ("ce_source", "/order-tracker/events"),
            ("ce_subject", "ORD-01J00000000000000000000000"),
            ("ce_time", "2026-01-02T03:04:05.600Z"),
            ("content-type", "application/json"),
        ];
        assert_eq!(told, expected.map(|(key, value)| (key.to_owned(), value.to_owned())));
    }
}
