//! The topics: created where they are missing, and looked at.

use std::{sync::Arc, time::Duration};

use rdkafka::{
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    error::RDKafkaErrorCode,
    metadata::{Metadata, MetadataPartition, MetadataTopic},
    producer::Producer as _,
};

use super::{Context, Kafka, KafkaPublisher, KafkaSettings};
use crate::broker::{BrokerError, Partitions};

/// How long one call of the admin client may take.
const ADMIN_TIMEOUT: Duration = Duration::from_secs(3);
/// How long the health probe waits for metadata.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
/// In how many replicas a message must be before it is acknowledged, where there are as many: with one
/// alone it would be lost with its leader.
const MIN_INSYNC_REPLICAS: [&str; 2] = ["1", "2"];

/// A topic as it is created.
fn new_topic<'a>(name: &'a str, settings: &KafkaSettings) -> NewTopic<'a> {
    let in_sync = MIN_INSYNC_REPLICAS[usize::from(settings.replication > 1)];
    NewTopic::new(name, settings.partitions, TopicReplication::Fixed(settings.replication))
        .set("min.insync.replicas", in_sync)
}

fn partitions(metadata: &Metadata, topic: &str) -> Partitions {
    let found = metadata.topics().iter().find(|found| found.name() == topic);
    let partitions = found.map(MetadataTopic::partitions).unwrap_or_default();
    Partitions {
        topic: topic.to_owned(),
        count: i32::try_from(partitions.len()).unwrap_or_default(),
        leaderless: partitions.iter().filter(|found| found.leader() < 0).map(MetadataPartition::id).collect(),
        reachable: true,
    }
}

impl Kafka {
    /// Creates both topics where they are missing.
    pub async fn ensure_topics(&self) -> Result<(), BrokerError> {
        if self.settings.embedded {
            return Ok(());
        }
        let config = self.with_properties(self.base_config());
        let admin: AdminClient<Context> =
            rdkafka::config::FromClientConfigAndContext::from_config_and_context(
                &config,
                self.context.clone(),
            )
            .map_err(|error| self.context.explain(&error))?;
        let topics =
            [&self.settings.topic, &self.settings.dlq_topic].map(|name| new_topic(name, &self.settings));
        let options =
            AdminOptions::new().request_timeout(Some(ADMIN_TIMEOUT)).operation_timeout(Some(ADMIN_TIMEOUT));
        let results = admin.create_topics(&topics, &options).await;
        // Dropping waits for the client's threads.
        tokio::task::spawn_blocking(move || drop(admin));
        let results = results.map_err(|error| self.context.explain(&error))?;
        for result in results {
            match result {
                Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((topic, code)) => {
                    return Err(BrokerError(format!("can't create topic {topic}: {code}")));
                }
            }
        }
        Ok(())
    }

    /// Asks the cluster for the topic's metadata, and tells the publisher what it says; an answer means
    /// that the cluster is there.
    pub async fn probe(&self, publisher: &Arc<KafkaPublisher>) -> Result<(), BrokerError> {
        let (client, topic) = (publisher.client(), self.settings.topic.clone());
        let probe =
            tokio::task::spawn_blocking(move || client.client().fetch_metadata(Some(&topic), PROBE_TIMEOUT));
        let metadata = probe
            .await
            .map_err(|error| BrokerError(error.to_string()))?
            .map_err(|error| self.context.explain(&error));
        let metadata = metadata.inspect_err(|_| publisher.unreachable())?;
        publisher.seen(partitions(&metadata, &self.settings.topic));
        if let Some(code) = metadata.topics().iter().find_map(MetadataTopic::error) {
            Err(BrokerError(format!("topic {}: {:?}", self.settings.topic, RDKafkaErrorCode::from(code))))
        } else {
            self.context.all_is_well();
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rdkafka::admin::NewPartitions;
    use tokio::sync::mpsc;

    use super::*;
    use crate::{broker::IN_FLIGHT, metrics::Metrics};

    fn settings(brokers: &str, replication: i32) -> KafkaSettings {
        KafkaSettings {
            brokers: brokers.to_owned(),
            topic: format!("test_{:016x}", rand::random::<u64>()),
            dlq_topic: format!("test_{:016x}.dlq", rand::random::<u64>()),
            partitions: 2,
            replication,
            group: "test".to_owned(),
            properties: Vec::new(),
            embedded: false,
        }
    }

    /// A message that only its leader has is lost with it.
    #[test]
    fn a_new_topic_asks_for_two_replicas_where_there_are_two() {
        for (replication, in_sync) in [(1, "1"), (2, "2"), (3, "2"), (5, "2")] {
            let settings = settings("", replication);
            let topic = new_topic("orders.v1", &settings);
            assert_eq!(topic.config, [("min.insync.replicas", in_sync)], "{replication}");
        }
    }

    /// The real thing takes the setting, and partitions that are added to the topic are followed.
    #[tokio::test(flavor = "multi_thread")]
    #[cfg_attr(not(with_kafka), ignore = "left out: needs KAFKA_BROKERS")]
    async fn a_topic_is_made_and_may_grow() {
        let brokers = std::env::var("KAFKA_BROKERS").expect("KAFKA_BROKERS");
        let kafka = Kafka::new(settings(&brokers, 1), Arc::new(Metrics::new()));
        kafka.ensure_topics().await.expect("creates");
        let publisher = Arc::new(kafka.publisher(mpsc::channel(IN_FLIGHT).0).expect("connects"));
        let count = async || {
            drop(kafka.probe(&publisher).await);
            crate::broker::Publisher::partitions(&*publisher).count
        };
        while count().await != 2 {}
        let admin: AdminClient<Context> =
            rdkafka::config::FromClientConfigAndContext::from_config_and_context(
                &kafka.base_config(),
                kafka.context.clone(),
            )
            .expect("connects");
        let grown = [NewPartitions::new(&kafka.settings.topic, 5)];
        admin.create_partitions(&grown, &AdminOptions::new()).await.expect("grows");
        while count().await != 5 {}
    }
}
