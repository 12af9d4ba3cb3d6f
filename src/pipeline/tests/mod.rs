//! The loops, stepped by hand: the real store on a manual clock, the real Kafka client against the
//! embedded broker, and doubles only where trouble has to be made.

mod bad_orders;
mod batch_writer;
mod consumer;
mod doubles;
mod events;
mod fate;
mod key_reader;
mod outbox;
mod partitions;
mod relay;
mod report_writer;
mod scheduler;
mod simulation;
mod slow_messages;
mod slow_orders;
mod stuck;

use std::{path::Path, sync::Arc, time::Duration};

use rdkafka::{
    ClientConfig, Message as _, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _},
    message::OwnedMessage,
};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{BatchWriter, Outcome, Relay};
use crate::{
    broker::{EmbeddedBroker, IN_FLIGHT, Kafka, KafkaPublisher, KafkaSettings, Publisher},
    order::{IdMint, OrderDetails, OrderId, OrderPlaced, Start, Timestamp},
    store::{NewOrder, Portion, SqliteStore, Store},
    telemetry::metrics::Metrics,
    time::{Alarm, ManualClock},
    tracker::{self, PlaceQueue, PlaceRequest, Transitions},
};
use doubles::Troubled;

const TOPIC: &str = "orders.v1";
const DLQ_TOPIC: &str = "orders.v1.dlq";
const PARTITIONS: i32 = 3;
/// How long a test waits for the broker before it fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// The first of the default delays.
const FIRST_DELAY: Duration = Duration::from_secs(3);

fn start() -> Timestamp {
    "2026-01-02T03:04:05Z".parse().expect("a moment")
}

fn details(name: &str) -> OrderDetails {
    OrderDetails::new(name, "1 High St", "pizza", "large").expect("valid")
}

async fn open_store(folder: &Path, clock: Arc<ManualClock>) -> Arc<dyn Store> {
    Arc::new(SqliteStore::open(folder, clock).await.expect("opens"))
}

/// A store, a queue with its writer, and what they share.
struct Kitchen {
    store: Arc<dyn Store>,
    clock: Arc<ManualClock>,
    alarm: Arc<Alarm>,
    transitions: Arc<Transitions>,
    metrics: Arc<Metrics>,
    queue: PlaceQueue,
    writer: BatchWriter,
    /// Orders with keys, for a writer of their own.
    keyed: Option<mpsc::Receiver<PlaceRequest>>,
    fresh: Option<mpsc::Receiver<OrderPlaced>>,
    _folder: TempDir,
}

impl Kitchen {
    async fn open() -> Self {
        Self::with(|store| store, 100).await
    }

    /// A kitchen whose store is wrapped, and whose writer may hand `room` orders to the relay.
    async fn with(wrap: impl FnOnce(Arc<dyn Store>) -> Arc<dyn Store>, room: usize) -> Self {
        let folder = TempDir::new().expect("a folder");
        let clock = Arc::new(ManualClock::new(start()));
        let store = wrap(open_store(folder.path(), clock.clone()).await);
        let (queue, requests) = tracker::place_queue();
        let (fresh_in, fresh) = mpsc::channel(room);
        let (alarm, metrics) = (Arc::new(Alarm::default()), Arc::new(Metrics::new()));
        let transitions = Transitions::unfollowed(&store, Arc::clone(&metrics), Arc::clone(&alarm));
        let writer = BatchWriter {
            requests: requests.keyless,
            store: store.clone(),
            fresh: fresh_in,
            transitions: Arc::clone(&transitions),
            start: Start::timer(FIRST_DELAY),
            clock: clock.clone(),
            metrics: Arc::clone(&metrics),
            mint: Arc::default(),
            random: rand::make_rng(),
            hurry: CancellationToken::new(),
            portion: Portion::new(512),
        };
        let (keyed, fresh) = (Some(requests.keyed), Some(fresh));
        Self { store, clock, alarm, transitions, metrics, queue, writer, keyed, fresh, _folder: folder }
    }

    /// A kitchen whose store meets what is put into its script.
    async fn troubled() -> (Self, Arc<Troubled>) {
        let mut troubled = None;
        let wrap = |store| -> Arc<dyn Store> { troubled.insert(Arc::new(Troubled::new(store, []))).clone() };
        let kitchen = Self::with(wrap, 100).await;
        (kitchen, troubled.expect("made just now"))
    }

    /// Hands `count` orders in, lets the writer write once, and answers their ids.
    async fn place(&mut self, count: usize) -> Vec<OrderId> {
        let placed = (0..count).map(|n| self.queue.place(details(&format!("customer {n}")), None, None));
        let (accepted, _) = tokio::join!(futures::future::join_all(placed), self.writer.step());
        accepted.into_iter().map(|accepted| accepted.expect("accepted").order_id).collect()
    }

    async fn unsent(&self) -> u64 {
        self.store.backlog().await.expect("reads").unsent
    }
}

/// The embedded broker with a client on it.
struct Broker {
    embedded: EmbeddedBroker,
    kafka: Kafka,
    publisher: Arc<KafkaPublisher>,
    receipts: Option<mpsc::Receiver<crate::broker::Receipt>>,
}

impl Broker {
    fn start() -> Self {
        Self::with(&[])
    }

    /// With properties of the client's own.
    fn with(properties: &[(&str, &str)]) -> Self {
        let embedded =
            EmbeddedBroker::start(&[(TOPIC, PARTITIONS), (DLQ_TOPIC, PARTITIONS)]).expect("starts");
        let settings = KafkaSettings {
            brokers: embedded.address(),
            topic: TOPIC.to_owned(),
            dlq_topic: DLQ_TOPIC.to_owned(),
            events_topic: None,
            partitions: PARTITIONS,
            replication: 1,
            group: "order-tracker".to_owned(),
            properties: properties.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
            embedded: true,
        };
        let (receipts_in, receipts) = mpsc::channel(IN_FLIGHT);
        let kafka = Kafka::new(settings, Arc::new(Metrics::new()));
        let publisher = Arc::new(kafka.publisher(receipts_in).expect("connects"));
        Self { embedded, kafka, publisher, receipts: Some(receipts) }
    }

    /// A relay between this kitchen and this broker.
    fn relay(&mut self, kitchen: &mut Kitchen) -> Relay {
        self.relay_through(kitchen, self.publisher.clone())
    }

    /// The same through a publisher of the test's own.
    fn relay_through(&mut self, kitchen: &mut Kitchen, publisher: Arc<dyn Publisher>) -> Relay {
        Relay::new(
            Arc::clone(&kitchen.store),
            publisher,
            kitchen.fresh.take().expect("one relay"),
            self.receipts.take().expect("one relay"),
            Arc::clone(&kitchen.metrics),
            kitchen.clock.clone(),
            CancellationToken::new(),
        )
    }

    /// Everything on a topic right now.
    fn read(&self, topic: &str) -> Vec<OwnedMessage> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", self.embedded.address())
            .set("group.id", "test")
            .set("enable.partition.eof", "true")
            .create()
            .expect("connects");
        let mut partitions = TopicPartitionList::new();
        for partition in 0..PARTITIONS {
            partitions.add_partition_offset(topic, partition, Offset::Beginning).expect("valid");
        }
        consumer.assign(&partitions).expect("assigns");
        let (mut messages, mut ended) = (Vec::new(), 0);
        while ended < PARTITIONS {
            match consumer.poll(PATIENCE).expect("the broker answers in time") {
                Ok(message) => messages.push(message.detach()),
                Err(rdkafka::error::KafkaError::PartitionEOF(_)) => ended += 1,
                Err(error) => panic!("{error}"),
            }
        }
        messages
    }

    /// The keys on the orders topic, sorted.
    fn keys(&self) -> Vec<String> {
        let key =
            |message: OwnedMessage| String::from_utf8(message.key().expect("a key").to_vec()).expect("text");
        let mut keys: Vec<String> = self.read(TOPIC).into_iter().map(key).collect();
        keys.sort();
        keys
    }
}

/// `count` orders as the writer would make them, with rising ids.
fn new_orders(count: u64) -> Vec<NewOrder> {
    let mut mint = IdMint::default();
    let order = |n| NewOrder {
        order_id: mint.mint(start().timestamp_millis().unsigned_abs() + n, rand::random()),
        details: details("Ada"),
        key: None,
        meta: None,
        start: Start::timer(FIRST_DELAY),
    };
    (0..count).map(order).collect()
}

fn ids(orders: &[NewOrder]) -> Vec<OrderId> {
    orders.iter().map(|order| order.order_id).collect()
}

/// Steps the relay until `done`, or fails when the broker takes too long.
async fn step_until(relay: &mut Relay, done: impl AsyncFn() -> bool) {
    let work = async {
        while !done().await {
            relay.step().await.expect("the store works");
        }
    };
    tokio::time::timeout(PATIENCE, work).await.expect("in time");
}

fn texts(ids: &[OrderId]) -> Vec<String> {
    let mut texts: Vec<String> = ids.iter().map(OrderId::to_string).collect();
    texts.sort();
    texts
}
