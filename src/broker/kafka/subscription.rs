//! Consuming: batches out, offsets back only after the work is done.

use std::{collections::HashMap, time::Duration};

use async_trait::async_trait;
use futures::FutureExt as _;
use rdkafka::{
    ClientConfig, Message,
    config::FromClientConfigAndContext,
    consumer::{CommitMode, Consumer, StreamConsumer},
    error::{KafkaError, RDKafkaErrorCode},
    message::BorrowedMessage,
};
use tokio::time::timeout;
use tracing::{debug, warn};

use super::Context;
use crate::broker::{BrokerError, Record, Subscription};

/// How long leaving the group may take; librdkafka has been seen to wait for ever there.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// The consuming side of the Kafka client.
pub struct KafkaSubscription {
    consumer: StreamConsumer<Context>,
    context: Context,
}

impl KafkaSubscription {
    pub(super) fn new(config: &ClientConfig, topic: &str, context: Context) -> Result<Self, BrokerError> {
        let explain = |error: KafkaError| context.explain(&error);
        let consumer: StreamConsumer<Context> =
            StreamConsumer::from_config_and_context(config, context.clone()).map_err(explain)?;
        consumer.subscribe(&[topic]).map_err(explain)?;
        Ok(Self { consumer, context })
    }

    async fn first(&self) -> Result<BorrowedMessage<'_>, BrokerError> {
        loop {
            match self.consumer.recv().await {
                Ok(message) => return Ok(message),
                Err(error) if passes_by_itself(&error) => debug!(%error, "the consumer waits"),
                Err(error) => return Err(self.context.explain(&error)),
            }
        }
    }
}

/// Trouble that librdkafka mends by itself, and that the broker watch reports once.
fn passes_by_itself(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        error,
        KafkaError::MessageConsumption(
            Code::BrokerTransportFailure | Code::AllBrokersDown | Code::OperationTimedOut | Code::Resolve
                // Until the topic is created.
                | Code::UnknownTopicOrPartition | Code::UnknownTopic
        )
    )
}

pub(super) fn record(message: &impl Message) -> Record {
    Record {
        topic: message.topic().to_owned(),
        partition: message.partition(),
        offset: message.offset(),
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
    }
}

#[async_trait]
impl Subscription for KafkaSubscription {
    async fn next_batch(&mut self, max: usize) -> Result<Vec<Record>, BrokerError> {
        let mut batch = vec![record(&self.first().await?)];
        while batch.len() < max
            && let Some(Ok(message)) = self.consumer.recv().now_or_never()
        {
            batch.push(record(&message));
        }
        Ok(batch)
    }

    fn handled(&mut self, records: &[Record]) -> Result<(), BrokerError> {
        let mut last: HashMap<(&str, i32), i64> = HashMap::new();
        for record in records {
            let offset = last.entry((&record.topic, record.partition)).or_insert(record.offset);
            *offset = record.offset.max(*offset);
        }
        for ((topic, partition), offset) in last {
            match self.consumer.store_offset(topic, partition, offset) {
                Ok(()) => {}
                // The partition went to another member meanwhile; it reads these again and finds
                // them known.
                Err(KafkaError::StoreOffset(RDKafkaErrorCode::State)) => {
                    debug!(topic, partition, offset, "partition is no longer ours");
                }
                Err(error) => return Err(self.context.explain(&error)),
            }
        }
        Ok(())
    }

    async fn close(self: Box<Self>) {
        let closed = tokio::task::spawn_blocking(move || {
            match self.consumer.commit_consumer_state(CommitMode::Sync) {
                Ok(()) | Err(KafkaError::ConsumerCommit(RDKafkaErrorCode::NoOffset)) => {}
                Err(error) => warn!(%error, "offsets are not committed; those messages come again"),
            }
            drop(self.consumer);
        });
        if timeout(CLOSE_TIMEOUT, closed).await.is_err() {
            warn!("leaving the consumer group takes too long and is left to the broker");
        }
    }
}
