//! The topic seen from outside: all that is on it, messages of our own, and the group's offsets.

use std::{collections::HashMap, time::Duration};

use anyhow::{Context as _, Result, ensure};
use chrono::{DateTime, Utc};
use rdkafka::{
    ClientConfig, Message as _, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, CommitMode, Consumer as _},
    error::RDKafkaErrorCode,
    message::{Headers as _, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, Producer as _},
};
use tokio::{
    task::spawn_blocking,
    time::{Instant, sleep},
};

/// How long the cluster may take for an answer.
const PATIENCE: Duration = Duration::from_secs(15);
/// Largest message that the tests send or read.
pub(crate) const MAX_BYTES: &str = "16000000";

/// A message as it lies on the topic, or is to be put there.
#[derive(Debug, Clone, Default)]
pub(crate) struct Message {
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) headers: HashMap<String, String>,
    /// Where it was found.
    pub(crate) partition: i32,
    /// Its stamp: when it was appended, if the topic was told to stamp so.
    pub(crate) stamp: Option<DateTime<Utc>>,
}

impl Message {
    /// The key as text.
    pub(crate) fn key(&self) -> String {
        String::from_utf8_lossy(self.key.as_deref().unwrap_or_default()).into_owned()
    }
}

/// A topic of a cluster.
#[derive(Debug, Clone)]
pub(crate) struct Topic {
    pub(crate) brokers: String,
    pub(crate) name: String,
}

impl Topic {
    fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.brokers)
            .set("log_level", "0")
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

    /// Creates it with this limit to a message.
    pub(crate) async fn create(&self, max_bytes: &str) -> Result<()> {
        let topic =
            NewTopic::new(&self.name, 6, TopicReplication::Fixed(1)).set("max.message.bytes", max_bytes);
        let results = self.admin()?.create_topics([&topic], &AdminOptions::new()).await?;
        ensure!(results.iter().all(Result::is_ok), "can't create {}: {results:?}", self.name);
        Ok(())
    }

    /// Creates it with a partition on each of these brokers, and its dead-letter topic with all partitions on the
    /// first of them. Messages bear the moment at which they were appended.
    pub(crate) async fn create_on(&self, brokers: &[i32]) -> Result<()> {
        let dead_letters = format!("{}.dlq", self.name);
        let placed: Vec<&[i32]> = brokers.chunks(1).collect();
        let first: Vec<&[i32]> = brokers.iter().map(|_| placed[0]).collect();
        let count = i32::try_from(brokers.len())?;
        let topics = [
            NewTopic::new(&self.name, count, TopicReplication::Variable(&placed))
                .set("message.timestamp.type", "LogAppendTime"),
            NewTopic::new(&dead_letters, count, TopicReplication::Variable(&first)),
        ];
        let (admin, deadline) = (self.admin()?, Instant::now() + PATIENCE);
        loop {
            // A broker that has just come is not in the cluster yet.
            let results = admin.create_topics(&topics, &AdminOptions::new()).await?;
            let missing = results.iter().any(|result| {
                result.as_ref().is_err_and(|(_, code)| *code != RDKafkaErrorCode::TopicAlreadyExists)
            });
            if !missing {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "can't create {}: {results:?}", self.name);
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Makes the cluster remember offsets on the brokers that it has now: a group is coordinated there.
    pub(crate) async fn coordinate(&self, group: &str) -> Result<()> {
        let (topic, group) = (self.clone(), group.to_owned());
        spawn_blocking(move || {
            let mut asked = TopicPartitionList::new();
            asked.add_partition(&topic.name, 0);
            topic.consumer(&group)?.committed_offsets(asked, PATIENCE)?;
            Ok(())
        })
        .await?
    }

    /// Deletes it, if it can be done: a clean stack restarts faster.
    pub(crate) async fn delete(&self) {
        let Ok(admin) = self.admin() else { return };
        let options = AdminOptions::new().request_timeout(Some(Duration::from_secs(5)));
        drop(admin.delete_topics(&[&self.name, &format!("{}.dlq", self.name)], &options).await);
    }

    /// Everything that is on it now, each partition in its order.
    pub(crate) async fn read(&self) -> Result<Vec<Message>> {
        let topic = self.clone();
        spawn_blocking(move || topic.read_now()).await?
    }

    fn read_now(&self) -> Result<Vec<Message>> {
        let consumer = self.consumer("faults-reader")?;
        let mut left: HashMap<i32, i64> = HashMap::new();
        let mut assignment = TopicPartitionList::new();
        for (partition, end) in self.ends(&consumer)? {
            assignment.add_partition_offset(&self.name, partition, Offset::Beginning)?;
            left.insert(partition, end);
        }
        left.retain(|_, end| *end > 0);
        consumer.assign(&assignment)?;
        let (mut messages, deadline) = (Vec::new(), Instant::now() + PATIENCE * 2);
        while !left.is_empty() {
            ensure!(Instant::now() < deadline, "{} can't be read to its end", self.name);
            let Some(message) = consumer.poll(Duration::from_millis(100)) else { continue };
            let message = message?;
            if left.get(&message.partition()).is_some_and(|end| message.offset() + 1 >= *end) {
                left.remove(&message.partition());
            }
            let header = |header: rdkafka::message::Header<'_, &[u8]>| {
                let value = String::from_utf8_lossy(header.value.unwrap_or_default()).into_owned();
                (header.key.to_owned(), value)
            };
            messages.push(Message {
                key: message.key().map(<[u8]>::to_vec),
                value: message.payload().map(<[u8]>::to_vec),
                partition: message.partition(),
                stamp: message.timestamp().to_millis().and_then(DateTime::from_timestamp_millis),
                headers: message.headers().map(|all| all.iter().map(header).collect()).unwrap_or_default(),
            });
        }
        Ok(messages)
    }

    /// Where each partition ends.
    fn ends(&self, consumer: &BaseConsumer) -> Result<Vec<(i32, i64)>> {
        let metadata = consumer.fetch_metadata(Some(&self.name), PATIENCE)?;
        let topic = metadata.topics().first().context("no such topic")?;
        let end =
            |partition: i32| Ok((partition, consumer.fetch_watermarks(&self.name, partition, PATIENCE)?.1));
        topic.partitions().iter().map(|partition| end(partition.id())).collect()
    }

    /// Puts messages on it and waits until the broker has them.
    pub(crate) async fn send(&self, messages: Vec<Message>) -> Result<()> {
        let topic = self.clone();
        spawn_blocking(move || topic.send_now(&messages)).await?
    }

    fn send_now(&self, messages: &[Message]) -> Result<()> {
        let mut config = self.config();
        config.set("message.max.bytes", MAX_BYTES).set("partitioner", "murmur2_random");
        let producer: BaseProducer = config.create()?;
        for message in messages {
            let mut record = BaseRecord::<[u8], [u8]>::to(&self.name).headers(OwnedHeaders::new());
            record.key = message.key.as_deref();
            record.payload = message.value.as_deref();
            producer.send(record).map_err(|(error, _)| error)?;
            producer.poll(Duration::ZERO);
        }
        producer.flush(PATIENCE)?;
        ensure!(producer.in_flight_count() == 0, "the broker did not take all messages");
        Ok(())
    }

    /// How many messages the group has not handled yet, as the broker knows it.
    pub(crate) async fn lag(&self, group: &str) -> Result<i64> {
        let (topic, group) = (self.clone(), group.to_owned());
        spawn_blocking(move || topic.lag_now(&group)).await?
    }

    fn lag_now(&self, group: &str) -> Result<i64> {
        let consumer = self.consumer(group)?;
        let ends = self.ends(&consumer)?;
        let mut asked = TopicPartitionList::new();
        for (partition, _) in &ends {
            asked.add_partition(&self.name, *partition);
        }
        let committed = consumer.committed_offsets(asked, PATIENCE)?;
        let offset = |partition: i32| match committed.find_partition(&self.name, partition)?.offset() {
            Offset::Offset(offset) => Some(offset),
            _ => None,
        };
        Ok(ends.iter().map(|(partition, end)| end - offset(*partition).unwrap_or(0)).sum())
    }

    /// Waits until the group has handled all; answers how long that took.
    pub(crate) async fn caught_up(&self, group: &str, patience: Duration) -> Result<Duration> {
        let started = Instant::now();
        loop {
            let lag = self.lag(group).await;
            if matches!(lag, Ok(0)) {
                return Ok(started.elapsed());
            }
            ensure!(started.elapsed() < patience, "the group does not catch up: {lag:?}");
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Makes an idle group begin anew.
    pub(crate) async fn rewind(&self, group: &str) -> Result<()> {
        let (topic, group) = (self.clone(), group.to_owned());
        spawn_blocking(move || {
            let consumer = topic.consumer(&group)?;
            let mut offsets = TopicPartitionList::new();
            for (partition, _) in topic.ends(&consumer)? {
                offsets.add_partition_offset(&topic.name, partition, Offset::Offset(0))?;
            }
            Ok(consumer.commit(&offsets, CommitMode::Sync)?)
        })
        .await?
    }
}
