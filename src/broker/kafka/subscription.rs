//! Consuming: batches out, offsets back only after the work is done.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use async_trait::async_trait;
use futures::FutureExt as _;
use rdkafka::{
    ClientConfig, Message, TopicPartitionList,
    config::FromClientConfigAndContext,
    consumer::{CommitMode, Consumer, StreamConsumer},
    error::{KafkaError, RDKafkaErrorCode as Code},
    message::Headers,
};
use tokio::{sync::watch, time::timeout};
use tracing::{debug, warn};

use super::{KafkaSettings, MemberContext, STATISTICS_MS};
use crate::{
    broker::{BrokerError, Record, Subscription},
    telemetry::health::Health,
};

/// How long leaving the group may take; librdkafka has been seen to wait for ever there.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// The consuming side of the Kafka client.
pub struct KafkaSubscription {
    config: ClientConfig,
    topic: String,
    group: String,
    context: MemberContext,
    /// Made when it is first asked, and made anew if it is beyond recovery.
    consumer: Option<StreamConsumer<MemberContext>>,
    held_back: BTreeSet<i32>,
    /// Changes when the topic is gone.
    losses: watch::Receiver<()>,
}

impl KafkaSubscription {
    pub(super) fn new(
        config: ClientConfig,
        settings: &KafkaSettings,
        context: MemberContext,
        losses: watch::Receiver<()>,
    ) -> Self {
        let (topic, group) = (settings.topic.clone(), settings.group.clone());
        Self { config, topic, group, context, consumer: None, held_back: BTreeSet::new(), losses }
    }

    /// Forgets the client and where it was; the next one asks the group.
    fn give_up(&mut self) {
        self.losses.mark_unchanged();
        self.context = self.context.renewed();
        self.held_back.clear();
        let dead = self.consumer.take();
        // Dropping waits for its threads.
        tokio::task::spawn_blocking(move || drop(dead));
    }

    /// Subscribes, if it has not, or if an error has ended what the client does.
    fn connect(&mut self) -> Result<(), KafkaError> {
        let fatal = self.consumer.as_ref().and_then(|consumer| consumer.client().fatal_error());
        if let Some((code, reason)) = &fatal {
            warn!(%code, reason, "the kafka consumer is beyond recovery and is replaced");
        }
        let topic_is_lost = self.losses.has_changed().unwrap_or_default();
        if fatal.is_some() || topic_is_lost || self.context.is_worn_out() {
            self.give_up();
        }
        if self.consumer.is_none() {
            let consumer: StreamConsumer<MemberContext> =
                StreamConsumer::from_config_and_context(&self.config, self.context.clone())?;
            consumer.subscribe(&[&self.topic])?;
            self.consumer = Some(consumer);
        }
        Ok(())
    }

    /// Whether the client tells its statistics as often as we ask it to; `KAFKA_PROPERTIES` may say otherwise.
    fn tells(&self) -> bool {
        self.config.get("statistics.interval.ms") == Some(STATISTICS_MS)
    }

    fn explain(&self, error: &KafkaError) -> BrokerError {
        let denied = match error.rdkafka_error_code() {
            Some(Code::GroupAuthorizationFailed) => format!("the group {} (KAFKA_GROUP)", self.group),
            Some(Code::TopicAuthorizationFailed) => format!("topic {} (KAFKA_TOPIC)", self.topic),
            _ => return self.context.context.explain(error),
        };
        BrokerError(format!("the user in KAFKA_PROPERTIES lacks the right Read on {denied}"))
    }

    /// An error that is told once: it lasts until something shows that it is over.
    fn fails(&self, error: &KafkaError) -> BrokerError {
        let error = self.explain(error);
        self.context.failed(error.to_string());
        error
    }

    async fn first(&self, consumer: &StreamConsumer<MemberContext>) -> Result<Record, BrokerError> {
        loop {
            match consumer.recv().await {
                Ok(message) => return Ok(record(&message)),
                Err(error) if passes_by_itself(&error) => debug!(%error, "the consumer waits"),
                Err(error) => return Err(self.fails(&error)),
            }
        }
    }
}

/// Trouble that librdkafka mends by itself, and that the broker monitor reports once.
fn passes_by_itself(error: &KafkaError) -> bool {
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
        headers: message.headers().map(headers).unwrap_or_default(),
        written: message.timestamp().to_millis(),
    }
}

fn headers(headers: &impl Headers) -> Vec<(String, Option<Vec<u8>>)> {
    headers.iter().map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec))).collect()
}

#[async_trait]
impl Subscription for KafkaSubscription {
    async fn next_batch(&mut self, max: usize) -> Result<Vec<Record>, BrokerError> {
        if let Err(error) = self.connect() {
            return Err(self.fails(&error));
        }
        let Some(consumer) = &self.consumer else { return Ok(Vec::new()) };
        let mut losses = self.losses.clone();
        let first = tokio::select! {
            first = self.first(consumer) => Some(first?),
            Ok(()) = losses.changed() => None,
            () = self.context.falls_silent(), if self.tells() => {
                warn!("the kafka consumer stands still and is replaced");
                None
            }
        };
        let Some(first) = first else {
            // Now, so that nothing of the old topic is committed for the new one.
            self.give_up();
            return Ok(Vec::new());
        };
        let Some(consumer) = &self.consumer else { return Ok(Vec::new()) };
        let mut batch = vec![first];
        self.context.reads();
        while batch.len() < max
            && let Some(next) = consumer.recv().now_or_never()
        {
            match next {
                Ok(message) => batch.push(record(&message)),
                Err(error) if passes_by_itself(&error) => debug!(%error, "the consumer waits"),
                // What has come before is not to be lost for it.
                Err(error) => {
                    let error = self.fails(&error);
                    debug!(%error, "the consumer can't read all");
                    break;
                }
            }
        }
        Ok(batch)
    }

    fn handled(&mut self, records: &[Record]) -> Result<(), BrokerError> {
        let Some(consumer) = &self.consumer else { return Ok(()) };
        let mut last: HashMap<(&str, i32), i64> = HashMap::new();
        for record in records {
            let offset = last.entry((&record.topic, record.partition)).or_insert(record.offset);
            *offset = record.offset.max(*offset);
        }
        let mut outcome = Ok(());
        for ((topic, partition), offset) in last {
            match consumer.store_offset(topic, partition, offset) {
                Ok(()) => {}
                // The partition went to another member meanwhile; it reads these again and finds
                // them known.
                Err(KafkaError::StoreOffset(Code::State)) => {
                    debug!(topic, partition, offset, "partition is no longer ours");
                }
                // The others' work is done all the same.
                Err(error) => outcome = Err(self.explain(&error)),
            }
        }
        outcome
    }

    fn hold_back(&mut self, partitions: &BTreeSet<i32>) -> Result<(), BrokerError> {
        let list = |partitions: BTreeSet<i32>| {
            let mut list = TopicPartitionList::new();
            for partition in partitions {
                list.add_partition(&self.topic, partition);
            }
            list
        };
        if let Some(consumer) = &self.consumer {
            // What a partition answers is of no interest: it may be no longer ours.
            consumer.pause(&list(partitions - &self.held_back)).map_err(|error| self.explain(&error))?;
            consumer.resume(&list(&self.held_back - partitions)).map_err(|error| self.explain(&error))?;
        }
        self.context.holds_back(partitions);
        self.held_back.clone_from(partitions);
        Ok(())
    }

    fn lost(&mut self) -> BTreeSet<i32> {
        self.context.lost()
    }

    fn health(&self) -> Health {
        self.context.health(&self.group)
    }

    async fn close(self: Box<Self>) {
        let Some(consumer) = self.consumer else { return };
        let closed = tokio::task::spawn_blocking(move || {
            match consumer.commit_consumer_state(CommitMode::Sync) {
                Ok(()) | Err(KafkaError::ConsumerCommit(Code::NoOffset)) => {}
                Err(error) => warn!(%error, "offsets are not committed; those messages come again"),
            }
            drop(consumer);
        });
        if timeout(CLOSE_TIMEOUT, closed).await.is_err() {
            warn!("leaving the consumer group takes too long and is left to the broker");
        }
    }
}
