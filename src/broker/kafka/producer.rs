//! A client that produces, with another one in its place once it is beyond recovery, and what comes back from it.

use std::sync::{Arc, RwLock};

use rdkafka::{
    ClientConfig, ClientContext, Message,
    config::FromClientConfigAndContext,
    error::KafkaError,
    message::{DeliveryResult, OwnedHeaders},
    producer::{BaseRecord, NoCustomPartitioner, Producer as _, ProducerContext, ThreadedProducer},
};
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};
use tracing::{error, warn};

use super::{Context, refusal::refusal};
use crate::{
    broker::{Blame, BrokerError, Receipt, Refusal},
    order::OrderId,
};

/// Travels with a message through librdkafka and comes back with the answer.
pub(super) enum Delivery {
    Order { order_id: OrderId, since: Instant },
    Other(oneshot::Sender<Result<(), Refusal>>),
}

/// Passes the broker's answers on.
#[derive(Clone)]
pub(super) struct DeliveryContext {
    pub(super) context: Context,
    /// Where the answers to orders go.
    pub(super) receipts: mpsc::Sender<Receipt>,
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
            refusal(error, message.topic(), Some(message.partition()))
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
            // Nobody listens any more if whoever sent it was stopped; the message comes again then.
            Delivery::Other(answer) => drop(answer.send(outcome)),
        }
    }
}

pub(super) type Client = ThreadedProducer<DeliveryContext, NoCustomPartitioner>;

/// A message for the client.
pub(super) type Sent<'a> = BaseRecord<'a, [u8], [u8], Box<Delivery>>;

/// A client that produces.
pub(super) struct Producer {
    config: ClientConfig,
    context: DeliveryContext,
    client: RwLock<Arc<Client>>,
}

impl Producer {
    pub(super) fn connect(config: ClientConfig, context: DeliveryContext) -> Result<Self, BrokerError> {
        let client = RwLock::new(Arc::new(client(&config, &context)?));
        Ok(Self { config, context, client })
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
        let dead = std::mem::replace(&mut *current, Arc::new(client(&self.config, &self.context)?));
        // Dropping waits for its threads and hands out what it held as failed receipts.
        tokio::task::spawn_blocking(move || drop(dead));
        Ok(())
    }

    pub(super) fn send(&self, record: Sent<'_>) -> Result<(), KafkaError> {
        self.client().send(record).map_err(|(error, _)| {
            if let Err(error) = self.replace_if_dead() {
                warn!(%error, "a new kafka producer can't be made");
            }
            error
        })
    }
}

fn client(config: &ClientConfig, context: &DeliveryContext) -> Result<Client, BrokerError> {
    ThreadedProducer::from_config_and_context(config, context.clone())
        .map_err(|error| context.context.explain(&error))
}

/// A message, and where its answer goes.
pub(super) fn record<'a>(
    topic: &'a str,
    key: Option<&'a [u8]>,
    value: Option<&'a [u8]>,
    headers: OwnedHeaders,
    delivery: Delivery,
) -> Sent<'a> {
    let mut record = BaseRecord::with_opaque_to(topic, Box::new(delivery)).headers(headers);
    record.key = key;
    record.payload = value;
    record
}

/// Waits for an answer.
pub(super) async fn answer(outcome: oneshot::Receiver<Result<(), Refusal>>) -> Result<(), Refusal> {
    let gone = |_| Refusal { blame: Blame::Everything, reason: "the kafka producer is gone".to_owned() };
    outcome.await.map_err(gone)?
}
