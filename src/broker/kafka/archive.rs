//! Reads a topic from its beginning to where it ends now, outside the consumer group: for audits and
//! for people who look at dead letters.

use std::time::Duration;

use rdkafka::{
    Message, Offset, TopicPartitionList,
    config::FromClientConfigAndContext,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
    message::Headers as _,
};

use super::{Context, Kafka, subscription::record};
use crate::broker::{BrokerError, Record};

/// How long the broker may be silent.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What a topic held when it was read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Extent {
    /// Messages read.
    pub messages: u64,
    /// Whether the beginning is gone: retention has deleted messages.
    pub truncated: bool,
}

/// A message with its headers, as the dead-letter topic holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// The message.
    pub record: Record,
    /// Its headers; values that are not text are shown with replacement characters.
    pub headers: Vec<(String, String)>,
}

/// The header of a note that a letter was put back; its value is the letter's place.
pub(super) const REQUEUED: &str = "dlq_requeued";

impl Letter {
    /// Where it lies in the dead-letter topic, `partition:offset`.
    pub fn place(&self) -> String {
        format!("{}:{}", self.record.partition, self.record.offset)
    }

    /// The place of the letter that this notes to be put back; `None` if it is a letter itself.
    pub fn notes_requeue_of(&self) -> Option<&str> {
        self.header(REQUEUED)
    }
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

impl Kafka {
    /// Hands every message of the topic to `each`. Blocks; run it where that is allowed.
    pub fn read_all(&self, topic: &str, mut each: impl FnMut(Letter)) -> Result<Extent, BrokerError> {
        let explain = |error: KafkaError| self.context.explain(&error);
        let consumer = self.reader()?;
        let mut extent = Extent::default();
        let mut ends = Vec::new();
        let mut partitions = TopicPartitionList::new();
        for partition in self.partitions(&consumer, topic)? {
            let (low, high) = consumer.fetch_watermarks(topic, partition, TIMEOUT).map_err(explain)?;
            extent.truncated |= low > 0;
            if low < high {
                ends.push((partition, high));
                partitions.add_partition_offset(topic, partition, Offset::Offset(low)).map_err(explain)?;
            }
        }
        consumer.assign(&partitions).map_err(explain)?;
        while !ends.is_empty() {
            let message = match consumer.poll(TIMEOUT) {
                Some(Ok(message)) => message,
                // The last offsets may be no messages: markers, or compacted away.
                Some(Err(KafkaError::PartitionEOF(read))) => {
                    ends.retain(|(partition, _)| *partition != read);
                    continue;
                }
                Some(Err(error)) => return Err(explain(error)),
                None => return Err(BrokerError(format!("topic {topic} was not readable for {TIMEOUT:?}"))),
            };
            let (partition, offset) = (message.partition(), message.offset());
            if ends.iter().any(|(unread, end)| *unread == partition && offset < *end) {
                extent.messages += 1;
                each(letter(&message));
            }
            ends.retain(|(unread, end)| *unread != partition || offset + 1 < *end);
        }
        Ok(extent)
    }

    /// Reads one message. Blocks; run it where that is allowed.
    pub fn read_one(&self, topic: &str, partition: i32, offset: i64) -> Result<Letter, BrokerError> {
        let consumer = self.reader()?;
        let mut place = TopicPartitionList::new();
        place
            .add_partition_offset(topic, partition, Offset::Offset(offset))
            .and_then(|()| consumer.assign(&place))
            .map_err(|error| self.context.explain(&error))?;
        match consumer.poll(TIMEOUT) {
            Some(Ok(message)) if message.offset() == offset => Ok(letter(&message)),
            Some(Err(error)) if !matches!(error, KafkaError::PartitionEOF(_)) => {
                Err(self.context.explain(&error))
            }
            _ => Err(BrokerError(format!("topic {topic} has no message at {partition}:{offset}"))),
        }
    }

    fn reader(&self) -> Result<BaseConsumer<Context>, BrokerError> {
        let mut config = self.with_properties(self.base_config());
        // A group is demanded but never joined.
        config
            .set("group.id", format!("{}-reader", self.settings.group))
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true");
        BaseConsumer::from_config_and_context(&config, self.context.clone())
            .map_err(|error| self.context.explain(&error))
    }

    fn partitions(&self, consumer: &BaseConsumer<Context>, topic: &str) -> Result<Vec<i32>, BrokerError> {
        let metadata =
            consumer.fetch_metadata(Some(topic), TIMEOUT).map_err(|error| self.context.explain(&error))?;
        let found = metadata.topics().iter().find(|found| found.name() == topic && found.error().is_none());
        let found = found.ok_or_else(|| BrokerError(format!("there is no topic {topic}")))?;
        Ok(found.partitions().iter().map(rdkafka::metadata::MetadataPartition::id).collect())
    }
}

fn letter(message: &impl Message) -> Letter {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let headers = message.headers().map(|headers| {
        headers.iter().map(|header| (header.key.to_owned(), text(header.value.unwrap_or_default()))).collect()
    });
    Letter { record: record(message), headers: headers.unwrap_or_default() }
}
