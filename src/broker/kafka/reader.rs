//! Reads a topic from its beginning to where it ends now, outside the consumer group: for audits and
//! for people who look at dead letters.

use std::time::Duration;

use chrono::DateTime;
use rdkafka::{
    ClientContext, Message, Offset, TopicPartitionList,
    client::Client,
    config::FromClientConfigAndContext,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
    metadata::MetadataPartition,
    producer::Producer as _,
};

use super::{Context, Kafka, KafkaPublisher, headers::LEFT_OUT, subscription::record};
use crate::{
    broker::{BrokerError, Record},
    order::Timestamp,
};

/// How long the broker may be silent.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The same for one question where somebody asks again soon.
const LOOK_TIMEOUT: Duration = Duration::from_secs(2);
/// For a reader beside the service's own clients: it fetches little at a time.
const FRUGAL: &[(&str, &str)] = &[("queued.max.messages.kbytes", "1024"), ("fetch.max.bytes", "1048576")];

/// What a topic held when it was read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TopicExtent {
    /// Messages read.
    pub messages: u64,
    /// Whether the beginning is gone: retention has deleted messages.
    pub truncated: bool,
}

/// A part of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OffsetRange {
    /// The partition.
    pub partition: i32,
    /// The first offset.
    pub from: i64,
    /// The offset after the last.
    pub to: i64,
}

/// A message with its headers, as the dead-letter topic holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// The message.
    pub record: Record,
    /// Its headers; values that are not text are shown with replacement characters.
    pub headers: Vec<(String, String)>,
    /// When it was written; 1970 if nobody knows.
    pub written: Timestamp,
}

/// The header of a note that a dead letter was requeued; its value is the dead letter's place.
pub(super) const REQUEUED: &str = "dlq_requeued";

impl DeadLetter {
    /// Where it lies in the dead-letter topic, `partition:offset`.
    pub fn place(&self) -> String {
        format!("{}:{}", self.record.partition, self.record.offset)
    }

    /// The place of the dead letter that this notes to be requeued; `None` if it is a dead letter itself.
    pub fn notes_requeue_of(&self) -> Option<&str> {
        self.header(REQUEUED)
    }
    /// Whether a part of the message was too large to be copied; it is found where the headers say.
    pub fn is_partial(&self) -> bool {
        self.header("dlq_reason") == Some("too_large") || self.header(LEFT_OUT).is_some()
    }

    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

impl Kafka {
    /// Hands every message of the topic to `each`. Blocks; run it where that is allowed.
    pub fn read_all(
        &self,
        topic: &str,
        mut each: impl FnMut(DeadLetter),
    ) -> Result<TopicExtent, BrokerError> {
        let consumer = self.reader(&[])?;
        let whole = self.ranges(consumer.client(), topic, TIMEOUT)?;
        let mut extent = TopicExtent { truncated: whole.iter().any(|range| range.from > 0), messages: 0 };
        self.read_with(&consumer, topic, &whole, |dead_letter| {
            extent.messages += 1;
            each(dead_letter);
        })?;
        Ok(extent)
    }

    /// Where the partitions of the dead-letter topic begin and end now. Needs no client of its own. Blocks.
    pub fn dead_letters(&self, publisher: &KafkaPublisher) -> Result<Vec<OffsetRange>, BrokerError> {
        self.ranges(publisher.client().client(), &self.settings.dlq_topic, LOOK_TIMEOUT)
    }

    /// Hands these messages of the dead-letter topic to `each`. Blocks.
    pub fn read_dead_letters(
        &self,
        ranges: &[OffsetRange],
        each: impl FnMut(DeadLetter),
    ) -> Result<(), BrokerError> {
        self.read_with(&self.reader(FRUGAL)?, &self.settings.dlq_topic, ranges, each)
    }

    fn ranges<C: ClientContext>(
        &self,
        client: &Client<C>,
        topic: &str,
        timeout: Duration,
    ) -> Result<Vec<OffsetRange>, BrokerError> {
        let explain = |error: KafkaError| self.context.explain(&error);
        let metadata = client.fetch_metadata(Some(topic), timeout).map_err(explain)?;
        let found = metadata.topics().iter().find(|found| found.name() == topic && found.error().is_none());
        let found = found.ok_or_else(|| BrokerError(format!("there is no topic {topic}")))?;
        let range = |partition: &MetadataPartition| {
            let partition = partition.id();
            let (from, to) = client.fetch_watermarks(topic, partition, timeout).map_err(explain)?;
            Ok(OffsetRange { partition, from, to })
        };
        found.partitions().iter().map(range).collect()
    }

    fn read_with(
        &self,
        consumer: &BaseConsumer<Context>,
        topic: &str,
        ranges: &[OffsetRange],
        mut each: impl FnMut(DeadLetter),
    ) -> Result<(), BrokerError> {
        let explain = |error: KafkaError| self.context.explain(&error);
        let mut unread: Vec<OffsetRange> =
            ranges.iter().filter(|range| range.from < range.to).copied().collect();
        let mut partitions = TopicPartitionList::new();
        for OffsetRange { partition, from, .. } in &unread {
            partitions.add_partition_offset(topic, *partition, Offset::Offset(*from)).map_err(explain)?;
        }
        consumer.assign(&partitions).map_err(explain)?;
        while !unread.is_empty() {
            let message = match consumer.poll(TIMEOUT) {
                Some(Ok(message)) => message,
                // The last offsets may be no messages: markers, or compacted away.
                Some(Err(KafkaError::PartitionEOF(read))) => {
                    unread.retain(|range| range.partition != read);
                    continue;
                }
                Some(Err(error)) => return Err(explain(error)),
                None => return Err(BrokerError(format!("topic {topic} was not readable for {TIMEOUT:?}"))),
            };
            let (partition, offset) = (message.partition(), message.offset());
            if unread.iter().any(|range| range.partition == partition && offset < range.to) {
                each(dead_letter(&message));
            }
            unread.retain(|range| range.partition != partition || offset + 1 < range.to);
        }
        Ok(())
    }

    /// Reads one message. Blocks; run it where that is allowed.
    pub fn read_one(&self, topic: &str, partition: i32, offset: i64) -> Result<DeadLetter, BrokerError> {
        let consumer = self.reader(&[])?;
        let mut place = TopicPartitionList::new();
        place
            .add_partition_offset(topic, partition, Offset::Offset(offset))
            .and_then(|()| consumer.assign(&place))
            .map_err(|error| self.context.explain(&error))?;
        match consumer.poll(TIMEOUT) {
            Some(Ok(message)) if message.offset() == offset => Ok(dead_letter(&message)),
            Some(Err(error)) if !matches!(error, KafkaError::PartitionEOF(_)) => {
                Err(self.context.explain(&error))
            }
            _ => Err(BrokerError(format!("topic {topic} has no message at {partition}:{offset}"))),
        }
    }

    fn reader(&self, extra: &[(&str, &str)]) -> Result<BaseConsumer<Context>, BrokerError> {
        let mut config = self.with_properties(self.base_config());
        // A group is demanded but never joined.
        config
            .set("group.id", format!("{}-reader", self.settings.group))
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            // What it has not read is no lag of the orders' consumer.
            .set("statistics.interval.ms", "0");
        for (name, value) in extra {
            config.set(*name, *value);
        }
        BaseConsumer::from_config_and_context(&config, self.context.clone())
            .map_err(|error| self.context.explain(&error))
    }
}

fn dead_letter(message: &impl Message) -> DeadLetter {
    let record = record(message);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let headers = record.headers.iter();
    let headers =
        headers.map(|(key, value)| (key.clone(), text(value.as_deref().unwrap_or_default()))).collect();
    let written = record.written.and_then(DateTime::from_timestamp_millis).unwrap_or_default();
    DeadLetter { record, headers, written }
}
