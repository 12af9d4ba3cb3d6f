//! Publishing: hand over, and pass the broker's answer on as a receipt.

use std::sync::{Arc, RwLock};

use async_trait::async_trait;
use rdkafka::{
    ClientConfig, ClientContext, Message,
    config::FromClientConfigAndContext,
    error::KafkaError,
    message::{DeliveryResult, OwnedHeaders},
    producer::{BaseRecord, NoCustomPartitioner, Producer, ProducerContext, ThreadedProducer},
};
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};
use tracing::{error, warn};

use super::{
    Context, KafkaSettings,
    headers::{first_written, headers, of_dead_letter, of_requeued},
    reader::{DeadLetter, REQUEUED},
    refusal,
};
use crate::{
    broker::{Blame, BrokerError, Partitions, Publisher, Receipt, Record, Refusal},
    order::{MAX_MESSAGE_BYTES, OrderId, OrderPlaced, Reject},
};

/// Travels with a message through librdkafka and comes back with the answer.
pub(super) enum Delivery {
    Order { order_id: OrderId, since: Instant },
    Other(oneshot::Sender<Result<(), Refusal>>),
}

/// Turns delivery reports into receipts.
#[derive(Clone)]
pub(super) struct DeliveryContext {
    context: Context,
    receipts: mpsc::Sender<Receipt>,
}

impl ClientContext for DeliveryContext {
    fn log(&self, level: rdkafka::config::RDKafkaLogLevel, facility: &str, message: &str) {
        self.context.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.context.error(error, reason);
    }
}

impl ProducerContext for DeliveryContext {
    type DeliveryOpaque = Box<Delivery>;

    fn delivery(&self, result: &DeliveryResult<'_>, delivery: Self::DeliveryOpaque) {
        let refused = |(error, message): &(_, rdkafka::message::BorrowedMessage<'_>)| {
            refusal::refusal(error, message.topic(), Some(message.partition()))
        };
        let outcome = result.as_ref().map(drop).map_err(refused);
        match *delivery {
            Delivery::Order { order_id, since } => {
                let receipt = Receipt { order_id, outcome, took: since.elapsed() };
                // The channel holds as many as may be in flight; it is closed only once the relay
                // is gone, and then the outbox row speaks for the order.
                if let Err(mpsc::error::TrySendError::Full(receipt)) = self.receipts.try_send(receipt) {
                    error!(order_id = %receipt.order_id, "more receipts than orders in flight; one is dropped");
                }
            }
            // Nobody listens any more if the consumer was stopped; the message comes again then.
            Delivery::Other(answer) => drop(answer.send(outcome)),
        }
    }
}

type Client = ThreadedProducer<DeliveryContext, NoCustomPartitioner>;

/// The producing side of the Kafka client.
pub struct KafkaPublisher {
    config: ClientConfig,
    context: DeliveryContext,
    topic: String,
    dlq_topic: String,
    client: RwLock<Arc<Client>>,
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
        let context = DeliveryContext { context, receipts };
        let client = Self::connect(&config, &context)?;
        let (topic, dlq_topic) = (settings.topic.clone(), settings.dlq_topic.clone());
        let usual = config.get("partitioner").is_none_or(|name| USUAL_PARTITIONERS.contains(&name));
        let partitions = Partitions { topic: topic.clone(), ..Partitions::default() };
        Ok(Self {
            config,
            context,
            topic,
            dlq_topic,
            client: RwLock::new(Arc::new(client)),
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

    fn connect(config: &ClientConfig, context: &DeliveryContext) -> Result<Client, BrokerError> {
        ThreadedProducer::from_config_and_context(config, context.clone())
            .map_err(|error| context.context.explain(&error))
    }

    pub(super) fn client(&self) -> Arc<Client> {
        Arc::clone(&self.client.read().expect("no holder panics"))
    }

    /// An idempotent producer that has met a fatal error (its sequence is lost, say, because the
    /// broker lost its log) never sends again. Puts a new one in its place.
    fn replace_if_dead(&self) -> Result<(), BrokerError> {
        let mut current = self.client.write().expect("no holder panics");
        let Some((code, reason)) = current.client().fatal_error() else { return Ok(()) };
        warn!(%code, reason, "the kafka producer is beyond recovery and is replaced");
        let dead = std::mem::replace(&mut *current, Arc::new(Self::connect(&self.config, &self.context)?));
        // Dropping waits for its threads and hands out what it held as failed receipts.
        tokio::task::spawn_blocking(move || drop(dead));
        Ok(())
    }

    fn send(&self, record: BaseRecord<'_, [u8], [u8], Box<Delivery>>) -> Result<(), KafkaError> {
        self.client().send(record).map_err(|(error, _)| {
            if let Err(error) = self.replace_if_dead() {
                warn!(%error, "a new kafka producer can't be made");
            }
            error
        })
    }
}

fn record<'a>(
    topic: &'a str,
    key: Option<&'a [u8]>,
    value: Option<&'a [u8]>,
    headers: OwnedHeaders,
    delivery: Delivery,
) -> BaseRecord<'a, [u8], [u8], Box<Delivery>> {
    let mut record = BaseRecord::with_opaque_to(topic, Box::new(delivery)).headers(headers);
    record.key = key;
    record.payload = value;
    record
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
        let (answer, outcome) = oneshot::channel();
        let mut record = record(topic, key, value, headers, Delivery::Other(answer));
        record.timestamp = written;
        self.send(record).map_err(|error| refusal::refusal(&error, topic, None))?;
        let gone = |_| Refusal { blame: Blame::Everything, reason: "the kafka producer is gone".to_owned() };
        outcome.await.map_err(gone)?
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
        self.send(record).map_err(|error| refusal::refusal(&error, &self.topic, partition))
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
