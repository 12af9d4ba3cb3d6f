//! The client against the embedded broker: groups, offsets, dead letters and health.

use std::{sync::Arc, time::Duration};

use rdkafka::{
    ClientConfig,
    producer::{BaseProducer, BaseRecord, Producer as _},
};
use tokio::{sync::mpsc, time::timeout};

use super::{Kafka, KafkaSettings};
use crate::{
    broker::{BrokerWatch, EmbeddedBroker, IN_FLIGHT, Publisher as _, Record, Subscription},
    health::{self, Condition},
    metrics::Metrics,
    order::{Reject, RejectReason},
};

const PATIENCE: Duration = Duration::from_secs(30);

fn settings(broker: &EmbeddedBroker) -> KafkaSettings {
    KafkaSettings {
        brokers: broker.address(),
        topic: "orders.v1".to_owned(),
        dlq_topic: "orders.v1.dlq".to_owned(),
        partitions: 2,
        replication: 1,
        group: "order-tracker".to_owned(),
        properties: Vec::new(),
        embedded: true,
    }
}

fn start() -> (EmbeddedBroker, Kafka) {
    let broker = EmbeddedBroker::start(&[("orders.v1", 2), ("orders.v1.dlq", 2)]).expect("starts");
    let kafka = Kafka::new(settings(&broker), Arc::new(Metrics::new()));
    (broker, kafka)
}

/// Puts messages on a topic as a stranger would.
fn put(broker: &EmbeddedBroker, values: &[&str]) {
    let producer: BaseProducer =
        ClientConfig::new().set("bootstrap.servers", broker.address()).create().expect("connects");
    for value in values {
        producer
            .send(BaseRecord::to("orders.v1").key("k").payload(*value))
            .map_err(|(error, _)| error)
            .expect("queues");
    }
    producer.flush(PATIENCE).expect("delivers");
}

/// Reads until `count` messages have come.
async fn read(subscription: &mut dyn Subscription, count: usize) -> Vec<Record> {
    let mut records = Vec::new();
    while records.len() < count {
        records
            .extend(timeout(PATIENCE, subscription.next_batch(100)).await.expect("in time").expect("reads"));
    }
    records
}

fn values(records: &[Record]) -> Vec<String> {
    let text = |record: &Record| String::from_utf8(record.value.clone().expect("a value")).expect("text");
    records.iter().map(text).collect()
}

/// Promise 3: an effect happens once. What was not handled comes again, what was handled does not,
/// and a new group begins at the beginning.
#[tokio::test(flavor = "multi_thread")]
async fn offsets_follow_what_was_handled() {
    let (broker, kafka) = start();
    put(&broker, &["one", "two", "three"]);
    let mut first = kafka.subscribe().expect("subscribes");
    let records = read(&mut first, 3).await;
    assert_eq!(values(&records), ["one", "two", "three"]);
    first.handled(&records[..1]).expect("stores");
    Box::new(first).close().await;

    let mut second = kafka.subscribe().expect("subscribes");
    assert_eq!(values(&read(&mut second, 2).await), ["two", "three"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_say_why_and_where_from() {
    let (broker, kafka) = start();
    let (receipts, _kept) = mpsc::channel(IN_FLIGHT);
    let publisher = kafka.publisher(receipts).expect("connects");
    let record = |value: Vec<u8>| Record {
        topic: "orders.v1".to_owned(),
        partition: 1,
        offset: 42,
        key: Some(b"key".to_vec()),
        value: Some(value),
    };
    let reject = Reject { reason: RejectReason::NotJson, detail: "line 1".to_owned() };
    publisher.set_aside(&record(b"{".to_vec()), &reject).await.expect("acknowledged");
    publisher.set_aside(&record(vec![b'x'; 20_000]), &reject).await.expect("acknowledged");

    let letters = Kafka::new(
        KafkaSettings { topic: "orders.v1.dlq".to_owned(), ..settings(&broker) },
        Arc::new(Metrics::new()),
    );
    let mut subscription = letters.subscribe().expect("subscribes");
    let records = read(&mut subscription, 2).await;
    assert_eq!(values(&records), ["{", ""], "what is too large is only referred to");
    assert_eq!(records[0].key.as_deref(), Some(&b"key"[..]));
}

/// Promise 6: it says what is wrong.
#[tokio::test(flavor = "multi_thread")]
async fn the_watch_tells_a_broker_that_is_away() {
    let (broker, kafka) = start();
    let (receipts, _kept) = mpsc::channel(IN_FLIGHT);
    let publisher = Arc::new(kafka.publisher(receipts).expect("connects"));
    let (condition, seen) = health::unknown();
    let mut watch = BrokerWatch::new(Arc::new(kafka), publisher, condition);
    watch.step().await;
    assert_eq!(*seen.borrow(), Condition::Up);

    broker.cluster().broker_down(1).expect("goes down");
    watch.step().await;
    assert!(matches!(&*seen.borrow(), Condition::Down(reason) if !reason.is_empty()), "{:?}", seen.borrow());

    broker.cluster().broker_up(1).expect("comes back");
    let back = async {
        while *seen.borrow() != Condition::Up {
            watch.step().await;
        }
    };
    timeout(PATIENCE, back).await.expect("in time");
}
