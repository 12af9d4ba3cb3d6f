//! A topic seen from outside: all that is on it, messages of our own, and a group's offsets.

use std::{
    collections::HashMap,
    mem,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use chrono::{DateTime, Utc};
use rdkafka::{
    ClientConfig, ClientContext, Message as _, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, CommitMode, Consumer as _},
    error::RDKafkaErrorCode,
    message::{BorrowedMessage, DeliveryResult, Header, Headers as _, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext},
};
use serde_json::Value;
use tokio::{
    task::spawn_blocking,
    time::{Instant, sleep},
};

use crate::until;

/// How long the cluster may take for an answer.
const PATIENCE: Duration = Duration::from_secs(20);
/// Pause between two looks at the cluster.
const PAUSE: Duration = Duration::from_millis(100);
/// Largest message that the tests send or read.
pub const MAX_BYTES: &str = "16000000";

/// A message as it lies on the topic, or is to be put there.
#[derive(Debug, Clone, Default)]
pub struct Message {
    /// Which order it is about.
    pub key: Option<String>,
    /// A tombstone has none.
    pub value: Option<Vec<u8>>,
    /// What is said of it.
    pub headers: HashMap<String, String>,
    /// Where it was found, or is to go; without one the key decides.
    pub partition: Option<i32>,
    /// Its stamp: when it was appended, if the topic was told to stamp so.
    pub stamp: Option<DateTime<Utc>>,
}

impl Message {
    fn of(message: &BorrowedMessage<'_>) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let header = |header: rdkafka::message::Header<'_, &[u8]>| {
            (header.key.to_owned(), text(header.value.unwrap_or_default()))
        };
        Self {
            key: message.key().map(text),
            value: message.payload().map(<[u8]>::to_vec),
            headers: message.headers().map(|all| all.iter().map(header).collect()).unwrap_or_default(),
            partition: Some(message.partition()),
            stamp: message.timestamp().to_millis().and_then(DateTime::from_timestamp_millis),
        }
    }

    /// The value as JSON; null if it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(self.value.as_deref().unwrap_or_default()).unwrap_or_default()
    }
}

/// A topic of a cluster.
#[derive(Debug, Clone)]
pub struct Topic {
    /// Where the cluster is.
    pub brokers: String,
    /// What it is called.
    pub name: String,
}

impl Topic {
    /// A topic that need not be there yet.
    pub fn new(brokers: &str, name: &str) -> Self {
        Self { brokers: brokers.to_owned(), name: name.to_owned() }
    }

    /// Where the service puts messages of this topic that can't become orders.
    #[must_use]
    pub fn dead_letters(&self) -> Self {
        Self::new(&self.brokers, &format!("{}.dlq", self.name))
    }

    /// What the topic of events beside a topic of orders is called here.
    pub(crate) fn events_of(name: &str) -> String {
        format!("{name}.events")
    }

    /// Where the service tells of every event of this topic's orders.
    #[must_use]
    pub fn events(&self) -> Self {
        Self::new(&self.brokers, &Self::events_of(&self.name))
    }

    fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.brokers)
            .set("log_level", "0")
            // Topics are to be the service's.
            .set("allow.auto.create.topics", "false");
        config
    }

    fn consumer(&self, group: &str) -> Result<BaseConsumer> {
        let mut config = self.config();
        config.set("group.id", group).set("enable.auto.commit", "false");
        Ok(config.create()?)
    }

    fn admin(&self) -> Result<AdminClient<DefaultClientContext>> {
        Ok(self.config().create()?)
    }

    /// Does something that waits for the cluster.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let topic = self.clone();
        spawn_blocking(move || work(&topic)).await?
    }

    /// Creates it with so many partitions and this limit to a message.
    pub async fn create(&self, partitions: i32, max_bytes: &str) -> Result<()> {
        let topic = NewTopic::new(&self.name, partitions, TopicReplication::Fixed(1))
            .set("max.message.bytes", max_bytes);
        let results = self.admin()?.create_topics([&topic], &AdminOptions::new()).await?;
        ensure!(results.iter().all(Result::is_ok), "can't create {}: {results:?}", self.name);
        Ok(())
    }

    /// Creates it with a partition on each of these brokers, and its dead-letter topic with all partitions on the
    /// first of them. Messages bear the moment at which they were appended.
    pub async fn create_on(&self, brokers: &[i32]) -> Result<()> {
        let dead_letters = self.dead_letters();
        let placed: Vec<&[i32]> = brokers.chunks(1).collect();
        let first: Vec<&[i32]> = brokers.iter().map(|_| placed[0]).collect();
        let count = i32::try_from(brokers.len())?;
        let topics = [
            NewTopic::new(&self.name, count, TopicReplication::Variable(&placed))
                .set("message.timestamp.type", "LogAppendTime"),
            NewTopic::new(&dead_letters.name, count, TopicReplication::Variable(&first)),
        ];
        let admin = self.admin()?;
        // A broker that has just come is not in the cluster yet.
        until(PATIENCE, "the topics are made", async || {
            let results = admin.create_topics(&topics, &AdminOptions::new()).await?;
            let missing = results.iter().any(|result| {
                result.as_ref().is_err_and(|(_, code)| *code != RDKafkaErrorCode::TopicAlreadyExists)
            });
            Ok((!missing).then_some(()))
        })
        .await
    }

    /// Deletes it.
    pub async fn delete(&self) -> Result<()> {
        let options = AdminOptions::new().request_timeout(Some(Duration::from_secs(5)));
        let results = self.admin()?.delete_topics(&[&self.name], &options).await?;
        ensure!(results.iter().all(Result::is_ok), "can't delete {}: {results:?}", self.name);
        Ok(())
    }

    /// Begins to read it, all partitions from `offset` on. Waits for the cluster.
    pub fn reader(&self, offset: Offset, properties: &[(&str, &str)]) -> Result<TopicReader> {
        let mut config = self.config();
        config.set("group.id", "tests").set("enable.auto.commit", "false");
        for (name, value) in properties {
            config.set(*name, *value);
        }
        let consumer: BaseConsumer = config.create()?;
        let (mut assignment, mut left) = (TopicPartitionList::new(), HashMap::new());
        for (partition, (low, high)) in self.extents(&consumer)? {
            assignment.add_partition_offset(&self.name, partition, offset)?;
            if low < high {
                left.insert(partition, high);
            }
        }
        consumer.assign(&assignment)?;
        Ok(TopicReader { consumer, left })
    }

    /// Everything that is on it now, each partition in its order.
    pub async fn read(&self) -> Result<Vec<Message>> {
        self.read_until(|reader, _| reader.left.is_empty()).await
    }

    /// Waits for so many messages from its beginning.
    pub async fn read_some(&self, count: usize) -> Result<Vec<Message>> {
        self.read_until(move |_, messages| messages.len() >= count).await
    }

    async fn read_until(
        &self,
        done: impl Fn(&TopicReader, &[Message]) -> bool + Send + 'static,
    ) -> Result<Vec<Message>> {
        self.blocking(move |topic| {
            let mut reader = topic.reader(Offset::Beginning, &[])?;
            let (mut messages, deadline) = (Vec::new(), Instant::now() + PATIENCE * 2);
            while !done(&reader, &messages) {
                let so_far = messages.len();
                ensure!(Instant::now() < deadline, "only {so_far} messages can be read of {}", topic.name);
                messages.extend(reader.poll()?);
            }
            Ok(messages)
        })
        .await
    }

    /// Where each partition begins and ends; nothing if it is not there.
    fn extents(&self, consumer: &BaseConsumer) -> Result<Vec<(i32, (i64, i64))>> {
        let metadata = consumer.fetch_metadata(Some(&self.name), PATIENCE)?;
        let topic = metadata.topics().first().context("no such topic")?;
        let extent =
            |partition: i32| Ok((partition, consumer.fetch_watermarks(&self.name, partition, PATIENCE)?));
        topic.partitions().iter().map(|partition| extent(partition.id())).collect()
    }

    /// How many messages each partition holds; nothing if it is not there.
    pub async fn counts(&self) -> Result<Vec<i64>> {
        self.blocking(|topic| {
            let extents = topic.extents(&topic.consumer("tests")?)?;
            Ok(extents.into_iter().map(|(_, (low, high))| high - low).collect())
        })
        .await
    }

    /// Puts messages on it and waits until the broker has them; answers where each came, as they were acknowledged.
    pub async fn send(&self, messages: Vec<Message>) -> Result<Vec<(i32, i64)>> {
        self.blocking(move |topic| topic.send_now(&messages)).await
    }

    fn send_now(&self, messages: &[Message]) -> Result<Vec<(i32, i64)>> {
        let mut config = self.config();
        config.set("message.max.bytes", MAX_BYTES).set("partitioner", "murmur2_random");
        let producer: BaseProducer<Deliveries> = config.create_with_context(Deliveries::default())?;
        for message in messages {
            let mut record = BaseRecord::<str, [u8]>::to(&self.name);
            let headers = message.headers.iter().map(|(key, value)| Header { key, value: Some(value) });
            record.headers = Some(headers.fold(OwnedHeaders::new(), OwnedHeaders::insert));
            record.key = message.key.as_deref();
            record.payload = message.value.as_deref();
            record.partition = message.partition;
            producer.send(record).map_err(|(error, _)| error)?;
            producer.poll(Duration::ZERO);
        }
        producer.flush(PATIENCE)?;
        let delivered = mem::take(&mut *producer.context().0.lock().unwrap_or_else(PoisonError::into_inner));
        ensure!(delivered.len() == messages.len(), "{} took {} messages", self.name, delivered.len());
        Ok(delivered)
    }

    /// Makes the cluster remember offsets on the brokers that it has now: a group is coordinated there.
    pub async fn coordinate(&self, group: &str) -> Result<()> {
        let group = group.to_owned();
        self.blocking(move |topic| {
            let mut asked = TopicPartitionList::new();
            asked.add_partition(&topic.name, 0);
            topic.consumer(&group)?.committed_offsets(asked, PATIENCE)?;
            Ok(())
        })
        .await
    }

    /// How many messages the group has not handled yet, as the broker knows it.
    pub async fn lag(&self, group: &str) -> Result<i64> {
        let group = group.to_owned();
        self.blocking(move |topic| topic.lag_now(&group)).await
    }

    fn lag_now(&self, group: &str) -> Result<i64> {
        let consumer = self.consumer(group)?;
        let extents = self.extents(&consumer)?;
        let mut asked = TopicPartitionList::new();
        for (partition, _) in &extents {
            asked.add_partition(&self.name, *partition);
        }
        let committed = consumer.committed_offsets(asked, PATIENCE)?;
        let offset = |partition: i32| match committed.find_partition(&self.name, partition)?.offset() {
            Offset::Offset(offset) => Some(offset),
            _ => None,
        };
        Ok(extents.iter().map(|(partition, (_, high))| high - offset(*partition).unwrap_or(0)).sum())
    }

    /// Waits until the group has handled all; answers how long that took.
    pub async fn caught_up(&self, group: &str, patience: Duration) -> Result<Duration> {
        let started = Instant::now();
        loop {
            let lag = self.lag(group).await;
            if matches!(lag, Ok(0)) {
                return Ok(started.elapsed());
            }
            ensure!(started.elapsed() < patience, "the group does not catch up: {lag:?}");
            sleep(PAUSE).await;
        }
    }

    /// Makes an idle group begin anew.
    pub async fn rewind(&self, group: &str) -> Result<()> {
        let group = group.to_owned();
        self.blocking(move |topic| {
            let consumer = topic.consumer(&group)?;
            let mut offsets = TopicPartitionList::new();
            for (partition, _) in topic.extents(&consumer)? {
                offsets.add_partition_offset(&topic.name, partition, Offset::Offset(0))?;
            }
            Ok(consumer.commit(&offsets, CommitMode::Sync)?)
        })
        .await
    }
}

/// Reads a topic as it grows.
pub struct TopicReader {
    consumer: BaseConsumer,
    /// Where partitions ended when it began that it has not read so far.
    left: HashMap<i32, i64>,
}

impl TopicReader {
    /// The next message, if one comes soon.
    pub fn poll(&mut self) -> Result<Option<Message>> {
        let Some(message) = self.consumer.poll(PAUSE).transpose()? else { return Ok(None) };
        if self.left.get(&message.partition()).is_some_and(|end| message.offset() + 1 >= *end) {
            self.left.remove(&message.partition());
        }
        Ok(Some(Message::of(&message)))
    }
}

/// Where messages came that the broker took.
#[derive(Default)]
struct Deliveries(Mutex<Vec<(i32, i64)>>);

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Ok(message) = result {
            let place = (message.partition(), message.offset());
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push(place);
        }
    }
}
