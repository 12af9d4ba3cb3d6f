//! The client against the embedded broker: groups, offsets, dead letters and health.

use std::{collections::HashMap, sync::Arc, time::Duration};

use rdkafka::{
    ClientConfig,
    producer::{BaseProducer, BaseRecord, Producer as _},
    types::RDKafkaRespErr,
};
use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};

use super::{Kafka, KafkaSettings};
use crate::{
    broker::{
        BrokerError, BrokerMonitor, DeadLetterMonitor, EmbeddedBroker, IN_FLIGHT, KafkaPublisher, Partitions,
        Publisher as _, Record, Subscription,
    },
    order::{
        IdMint, OrderDetails, OrderPlaced, Reject, RejectReason, Timestamp, dead_letter::DeadLetterBacklog,
    },
    telemetry::{
        health::{self, Health},
        metrics::Metrics,
    },
};

const PATIENCE: Duration = Duration::from_secs(30);

fn settings(broker: &EmbeddedBroker) -> KafkaSettings {
    KafkaSettings {
        brokers: broker.address(),
        topic: "orders.v1".to_owned(),
        dlq_topic: "orders.v1.dlq".to_owned(),
        events_topic: None,
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

/// Puts messages on a topic as another producer would.
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
    let mut first = kafka.subscribe();
    let records = read(&mut first, 3).await;
    assert_eq!(values(&records), ["one", "two", "three"]);
    first.handled(&records[..1]).expect("stores");
    Box::new(first).close().await;

    let mut second = kafka.subscribe();
    assert_eq!(values(&read(&mut second, 2).await), ["two", "three"]);
}

/// A partition whose offset can't be stored keeps no other from it.
#[tokio::test(flavor = "multi_thread")]
async fn an_offset_that_cant_be_stored_holds_up_no_other() {
    let (broker, kafka) = start();
    put(&broker, &["one", "two", "three"]);
    let mut first = kafka.subscribe();
    let records = read(&mut first, 3).await;
    let nowhere = (90..120).map(|partition| Record { partition, ..records[0].clone() });
    let handled: Vec<Record> = records[..2].iter().cloned().chain(nowhere).collect();
    assert!(first.handled(&handled).is_err(), "it is said nevertheless");
    Box::new(first).close().await;

    let mut second = kafka.subscribe();
    assert_eq!(values(&read(&mut second, 1).await), ["three"]);
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
        ..Record::default()
    };
    let reject = Reject { reason: RejectReason::NotJson, detail: "line 1".to_owned() };
    publisher.dead_letter(&record(b"{".to_vec()), &reject).await.expect("acknowledged");
    publisher.dead_letter(&record(vec![b'x'; 20_000]), &reject).await.expect("acknowledged");

    let dead_letters = Kafka::new(
        KafkaSettings { topic: "orders.v1.dlq".to_owned(), ..settings(&broker) },
        Arc::new(Metrics::new()),
    );
    let mut subscription = dead_letters.subscribe();
    let records = read(&mut subscription, 2).await;
    assert_eq!(values(&records), ["{", ""], "what is too large is only referred to");
    assert_eq!(records[0].key.as_deref(), Some(&b"key"[..]));
}

/// What others need to find the message's origin is not ours to lose.
#[tokio::test(flavor = "multi_thread")]
async fn headers_and_time_are_kept_and_given_back() {
    let (broker, kafka) = start();
    let publisher = kafka.publisher(mpsc::channel(IN_FLIGHT).0).expect("connects");
    let kept = [("traceparent", Some(b"00-ab".to_vec())), ("raw", Some(vec![0xff, 0])), ("none", None)];
    // One that would pass for a note, and one that comes twice.
    let forged = [("dlq_requeued", Some(b"0:0".to_vec())), ("traceparent", Some(b"00-cd".to_vec()))];
    let own = |headers: &[(&str, Option<Vec<u8>>)]| -> Vec<(String, Option<Vec<u8>>)> {
        headers.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect()
    };
    let record = Record {
        topic: "orders.v1".to_owned(),
        key: Some(b"k".to_vec()),
        value: Some(b"{".to_vec()),
        headers: own(&[&kept[..], &forged[..]].concat()),
        written: Some(1_767_323_045_678),
        ..Record::default()
    };
    let reject = Reject { reason: RejectReason::NotJson, detail: String::new() };
    publisher.dead_letter(&record, &reject).await.expect("acknowledged");
    let many = Record { headers: own(&[("big", Some(vec![b'x'; 20_000]))]), ..record.clone() };
    publisher.dead_letter(&many, &reject).await.expect("acknowledged");

    let kafka = Arc::new(kafka);
    let read = async |topic: &'static str| {
        let kafka = Arc::clone(&kafka);
        let all = tokio::task::spawn_blocking(move || {
            let mut all = Vec::new();
            kafka.read_all(topic, |dead_letter| all.push(dead_letter))?;
            Ok::<_, BrokerError>(all)
        });
        all.await.expect("no panic").expect("reads")
    };
    let dead_letters = read("orders.v1.dlq").await;
    let (whole, partial): (Vec<_>, Vec<_>) =
        dead_letters.into_iter().partition(|dead_letter| !dead_letter.is_partial());
    assert_eq!((whole.len(), partial.len()), (1, 1));
    assert_eq!(partial[0].header("dlq_headers_left_out"), Some("20003"));
    assert_eq!(whole[0].notes_requeue_of(), None);
    assert_eq!(whole[0].header("dlq_time"), Some("2026-01-02T03:04:05.678Z"));
    publisher.requeued(&whole[0]).await.expect("acknowledged");
    let back = read("orders.v1").await.pop().expect("it is back").record;
    let place = whole[0].place().into_bytes();
    let expected = [&[("requeued_from", Some(place))], &kept[..], &forged[1..]].concat();
    assert_eq!((back.headers, back.written), (own(&expected), Some(1_767_323_045_678)));
    drop(broker);
}

/// Whoever knows a partition beforehand must know the one that every client takes for the key.
#[tokio::test(flavor = "multi_thread")]
async fn an_order_goes_where_the_client_would_put_it() {
    let broker = EmbeddedBroker::start(&[("orders.v1", 7), ("orders.v1.dlq", 1)]).expect("starts");
    let kafka = Kafka::new(settings(&broker), Arc::new(Metrics::new()));
    let (receipts, mut answers) = mpsc::channel(IN_FLIGHT);
    let publisher = Arc::new(kafka.publisher(receipts).expect("connects"));
    assert_eq!(publisher.partitions().count, 0, "nobody has asked yet");
    kafka.probe(&publisher).await.expect("answers");
    let partitions = publisher.partitions();
    assert_eq!((partitions.count, partitions.reachable), (7, true));

    let (mut mint, mut expected) = (IdMint::default(), HashMap::new());
    for n in 0..400 {
        let details = OrderDetails::new("Ada", "1 High St", "pizza", "large").expect("valid");
        let message = OrderPlaced::new(mint.mint(n, rand::random()), details, Timestamp::UNIX_EPOCH);
        let ours = partitions.of(message.order_id).expect("known");
        // Half of them are left to the client.
        publisher.publish(&message, (n % 2 == 0).then_some(ours)).expect("takes");
        expected.insert(message.order_id.to_string(), ours);
    }
    for _ in 0..400 {
        let receipt = timeout(PATIENCE, answers.recv()).await.expect("in time").expect("a receipt");
        receipt.outcome.expect("acknowledged");
    }
    let mut found = HashMap::new();
    let read = tokio::task::spawn_blocking(move || {
        kafka.read_all("orders.v1", |dead_letter| {
            let key = String::from_utf8(dead_letter.record.key.expect("a key")).expect("text");
            found.insert(key, dead_letter.record.partition);
        })?;
        Ok::<_, BrokerError>(found)
    });
    assert_eq!(read.await.expect("no panic").expect("reads"), expected);

    broker.cluster().broker_down(1).expect("goes down");
    let kafka = Kafka::new(settings(&broker), Arc::new(Metrics::new()));
    kafka.probe(&publisher).await.expect_err("nobody answers");
    let known = Partitions { reachable: false, ..(*partitions).clone() };
    assert_eq!(*publisher.partitions(), known, "what was known may still be true");
}

/// Topics are made as the settings say, not as a cluster makes them whose brokers do so when asked for one.
#[test]
fn brokers_are_not_to_make_topics_by_themselves() {
    let (broker, embedded) = start();
    let real = KafkaSettings { embedded: false, ..settings(&broker) };
    let real = Kafka::new(real, Arc::new(Metrics::new()));
    for (kafka, allowed) in [(real, Some("false")), (embedded, None)] {
        for config in [kafka.producer_config(), kafka.consumer_config()] {
            assert_eq!(config.get("allow.auto.create.topics"), allowed);
        }
    }
}

/// A partitioner of somebody's own puts a key where we can't tell.
#[tokio::test(flavor = "multi_thread")]
async fn another_partitioner_is_left_alone() {
    let (broker, _) = start();
    for (name, count) in [("consistent", 0), ("murmur2", 2)] {
        let properties = vec![("partitioner".to_owned(), name.to_owned())];
        let kafka = Kafka::new(KafkaSettings { properties, ..settings(&broker) }, Arc::new(Metrics::new()));
        let publisher = Arc::new(kafka.publisher(mpsc::channel(1).0).expect("connects"));
        kafka.probe(&publisher).await.expect("answers");
        assert_eq!(publisher.partitions().count, count, "{name}");
    }
}

/// Promise 6: it says what is wrong.
#[tokio::test(flavor = "multi_thread")]
async fn the_watch_tells_a_broker_that_is_away() {
    let (broker, kafka) = start();
    let (receipts, _kept) = mpsc::channel(IN_FLIGHT);
    let publisher = Arc::new(kafka.publisher(receipts).expect("connects"));
    let (health, seen) = health::channel();
    let mut watch = BrokerMonitor::new(Arc::new(kafka), publisher, health);
    watch.step().await;
    assert_eq!(*seen.borrow(), Health::Up);

    broker.cluster().broker_down(1).expect("goes down");
    watch.step().await;
    let address = broker.address();
    let named = |reason: &str| reason.contains(&address) && reason.ends_with(" (KAFKA_BROKERS)");
    assert!(matches!(&*seen.borrow(), Health::Down(reason) if named(reason)), "{:?}", seen.borrow());

    broker.cluster().broker_up(1).expect("comes back");
    let back = async {
        while *seen.borrow() != Health::Up {
            watch.step().await;
        }
    };
    timeout(PATIENCE, back).await.expect("in time");
}

/// A replica as far as dead letters go.
struct Replica {
    kafka: Arc<Kafka>,
    publisher: Arc<KafkaPublisher>,
    watch: DeadLetterMonitor,
    waiting: watch::Receiver<Option<DeadLetterBacklog>>,
}

impl Replica {
    fn start(settings: KafkaSettings) -> Self {
        let metrics = Arc::new(Metrics::new());
        let kafka = Arc::new(Kafka::new(settings, Arc::clone(&metrics)));
        // Nothing is published but dead letters, which send no receipts.
        let publisher = Arc::new(kafka.publisher(mpsc::channel(1).0).expect("connects"));
        let (report, waiting) = watch::channel(None);
        let (_, broker) = health::channel();
        let watch = DeadLetterMonitor::new(
            Arc::clone(&kafka),
            Arc::clone(&publisher),
            broker,
            report,
            metrics,
            health::channel().0,
        );
        Self { kafka, publisher, watch, waiting }
    }

    async fn dead_letter(&self, key: &str, reason: RejectReason) {
        let record = Record {
            topic: "orders.v1".to_owned(),
            partition: 0,
            offset: 0,
            key: Some(key.as_bytes().to_vec()),
            value: Some(b"{".to_vec()),
            ..Record::default()
        };
        let reject = Reject { reason, detail: String::new() };
        self.publisher.dead_letter(&record, &reject).await.expect("acknowledged");
    }

    async fn requeued(&self, place: &str) {
        let (partition, offset) = place.split_once(':').expect("a place");
        let (kafka, at) = (Arc::clone(&self.kafka), (partition.parse(), offset.parse()));
        let dead_letter = tokio::task::spawn_blocking(move || {
            kafka.read_one("orders.v1.dlq", at.0.expect("a partition"), at.1.expect("an offset"))
        });
        let dead_letter = dead_letter.await.expect("no panic").expect("a dead letter");
        self.publisher.requeued(&dead_letter).await.expect("acknowledged");
    }

    async fn look(&mut self) -> Option<DeadLetterBacklog> {
        self.watch.step().await;
        self.waiting.borrow().clone()
    }

    async fn by_reason(&mut self) -> Vec<(&'static str, u64)> {
        self.look().await.expect("read").by_reason.into_iter().collect()
    }
}

/// The same on every replica, whenever it was started.
#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_wait_until_they_are_requeued_across_restarts() {
    let (broker, _) = start();
    let mut first = Replica::start(settings(&broker));
    assert_eq!(first.by_reason().await, []);
    for (key, reason) in
        [("a", RejectReason::NotJson), ("b", RejectReason::NotJson), ("c", RejectReason::InvalidField)]
    {
        first.dead_letter(key, reason).await;
    }
    let three = first.look().await.expect("read");
    assert_eq!(three.by_reason.into_iter().collect::<Vec<_>>(), [("invalid_field", 1), ("not_json", 2)]);

    let mut restarted = Replica::start(settings(&broker));
    assert_eq!(restarted.by_reason().await, first.by_reason().await);
    let dead_letter =
        three.newest.iter().find(|dead_letter| dead_letter.reason == "not_json").expect("one of two");
    restarted.requeued(&dead_letter.place).await;
    for replica in [&mut first, &mut restarted, &mut Replica::start(settings(&broker))] {
        assert_eq!(replica.by_reason().await, [("invalid_field", 1), ("not_json", 1)]);
    }
}

/// Promise 6: it says what is wrong. What can't be read is not said to be nothing.
#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_that_cant_be_read_are_not_none() {
    let (broker, _) = start();
    let elsewhere = KafkaSettings { dlq_topic: "missing".to_owned(), ..settings(&broker) };
    let error = RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART;
    broker.cluster().topic_error("missing", error).expect("sets");
    assert_eq!(Replica::start(elsewhere).look().await, None);

    let mut replica = Replica::start(settings(&broker));
    replica.dead_letter("a", RejectReason::NotJson).await;
    let known = replica.look().await.expect("read");
    replica.dead_letter("a", RejectReason::NotJson).await;
    broker.cluster().broker_down(1).expect("goes down");
    assert_eq!(replica.look().await, Some(known), "as of then");
}
