//! The topics: created where they are missing, and looked at.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use rdkafka::{
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    config::FromClientConfigAndContext,
    error::{KafkaError, RDKafkaErrorCode as Code},
    metadata::{Metadata, MetadataPartition, MetadataTopic},
    producer::Producer as _,
};
use tokio::{sync::watch, time::Instant};
use tracing::info;

use super::{Context, Kafka, KafkaPublisher, KafkaSettings, producer::Client};
use crate::broker::{BrokerError, Partitions};

/// How long one call of the admin client may take.
const ADMIN_TIMEOUT: Duration = Duration::from_secs(3);
/// How long the health probe waits for metadata.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
/// Pause after a topic could not be created.
const CREATE_AGAIN: Duration = Duration::from_secs(5);
/// How long a topic that was there is gone before it is created again, so that every replica has seen it:
/// librdkafka keeps its place in the old one and would pass over what comes first in the new one.
const CREATE_ANEW: Duration = Duration::from_secs(3);
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

/// What the last looks at a topic have shown.
#[derive(Default)]
enum Seen {
    #[default]
    Nothing,
    There,
    GoneSince(Instant),
    /// It could not be created then, and why.
    NotCreated(Instant, String),
}

/// A topic that may have to be created.
#[derive(Default)]
struct Looks {
    last: Seen,
    /// Changes when it is found gone that was there.
    losses: watch::Sender<()>,
}

/// The topics that may have to be created, by name.
#[derive(Default)]
pub(super) struct Topics(Mutex<HashMap<String, Looks>>);

impl Topics {
    fn looks(&self) -> MutexGuard<'_, HashMap<String, Looks>> {
        self.0.lock().expect("no holder panics")
    }

    /// Changes when a topic is found gone that was there: what is remembered of it holds no longer.
    pub(super) fn losses(&self, topic: &str) -> watch::Receiver<()> {
        self.looks().entry(topic.to_owned()).or_default().losses.subscribe()
    }

    fn note(&self, topic: &str, seen: Seen) {
        self.looks().entry(topic.to_owned()).or_default().last = seen;
    }

    /// Why a topic that is missing is not to be created yet.
    fn not_yet(&self, topic: &str) -> Option<String> {
        let mut looks = self.looks();
        let looks = looks.entry(topic.to_owned()).or_default();
        if let Seen::There = looks.last {
            looks.last = Seen::GoneSince(Instant::now());
            looks.losses.send_replace(());
        }
        match &looks.last {
            Seen::GoneSince(since) if since.elapsed() < CREATE_ANEW => {
                Some(format!("is gone and is created anew {CREATE_ANEW:?} later"))
            }
            // Asking needs a client of its own.
            Seen::NotCreated(at, reason) if at.elapsed() < CREATE_AGAIN => Some(reason.clone()),
            _ => None,
        }
    }
}

impl Kafka {
    /// Asks the cluster for the orders topic, which it creates if it is missing, and tells the publisher what
    /// it says.
    pub async fn probe(&self, publisher: &Arc<KafkaPublisher>) -> Result<(), BrokerError> {
        let topic = &self.settings.topic;
        let metadata =
            self.metadata(publisher.client(), topic).await.inspect_err(|_| publisher.unreachable())?;
        publisher.seen(partitions(&metadata, topic));
        self.ensure(&metadata, topic, "KAFKA_TOPIC").await?;
        self.context.all_is_well();
        Ok(())
    }

    /// Creates the dead-letter topic if it is missing. Answers whether it was: it may not be readable yet.
    pub async fn ensure_dead_letter_topic(
        &self,
        publisher: &Arc<KafkaPublisher>,
    ) -> Result<bool, BrokerError> {
        let topic = &self.settings.dlq_topic;
        let metadata = self.metadata(publisher.client(), topic).await?;
        self.ensure(&metadata, topic, "KAFKA_DLQ_TOPIC").await
    }

    /// Changes when the dead-letter topic is found gone that was there.
    pub fn dead_letter_topic_losses(&self) -> watch::Receiver<()> {
        self.topics.losses(&self.settings.dlq_topic)
    }

    /// Creates a topic of events if it is missing.
    pub(super) async fn ensure_events_topic(
        &self,
        client: Arc<Client>,
        topic: &str,
    ) -> Result<(), BrokerError> {
        let metadata = self.metadata(client, topic).await?;
        self.ensure(&metadata, topic, "KAFKA_EVENTS_TOPIC").await.map(|_| ())
    }

    async fn metadata(&self, client: Arc<Client>, topic: &str) -> Result<Metadata, BrokerError> {
        let topic = topic.to_owned();
        let ask =
            tokio::task::spawn_blocking(move || client.client().fetch_metadata(Some(&topic), PROBE_TIMEOUT));
        let answer = ask.await.map_err(|error| BrokerError(error.to_string()))?;
        answer.map_err(|error| self.context.explain(&error))
    }

    /// A topic that is there needs no right to create one. Answers whether it was missing.
    async fn ensure(&self, metadata: &Metadata, topic: &str, setting: &str) -> Result<bool, BrokerError> {
        let found = metadata.topics().iter().find(|found| found.name() == topic);
        match found.map(|found| found.error().map(Code::from)) {
            Some(None) => {
                self.topics.note(topic, Seen::There);
                Ok(false)
            }
            // A cluster of ours to test with knows no calls that create topics.
            None | Some(Some(Code::UnknownTopic | Code::UnknownTopicOrPartition))
                if !self.settings.embedded =>
            {
                let told = |what: String| BrokerError(format!("topic {topic} ({setting}) {what}"));
                if let Some(reason) = self.topics.not_yet(topic) {
                    return Err(told(reason));
                }
                self.create(topic).await.map_err(|reason| {
                    let reason = format!("is missing and can't be created: {reason}");
                    self.topics.note(topic, Seen::NotCreated(Instant::now(), reason.clone()));
                    told(reason)
                })?;
                Ok(true)
            }
            None => Err(BrokerError(format!("topic {topic} ({setting}) is missing"))),
            Some(Some(code)) => {
                let reason = reason(code, &self.settings, "Describe (which Read and Write bring along)");
                Err(BrokerError(format!("topic {topic} ({setting}) can't be looked at: {reason}")))
            }
        }
    }

    async fn create(&self, topic: &str) -> Result<(), String> {
        let explain = |error: KafkaError| self.context.explain(&error).to_string();
        let config = self.with_properties(self.base_config());
        let admin: AdminClient<Context> =
            FromClientConfigAndContext::from_config_and_context(&config, self.context.clone())
                .map_err(explain)?;
        let options =
            AdminOptions::new().request_timeout(Some(ADMIN_TIMEOUT)).operation_timeout(Some(ADMIN_TIMEOUT));
        let results = admin.create_topics(&[new_topic(topic, &self.settings)], &options).await;
        // Dropping waits for the client's threads.
        tokio::task::spawn_blocking(move || drop(admin));
        match results.map_err(explain)?.pop() {
            None | Some(Ok(_) | Err((_, Code::TopicAlreadyExists))) => {
                info!(topic, "a topic is created");
                Ok(())
            }
            Some(Err((_, code))) => Err(reason(code, &self.settings, "Create on it or on the cluster")),
        }
    }
}

/// What is to be said of a call about a topic, with the right that it needs and the setting that it is about.
fn reason(code: Code, settings: &KafkaSettings, right: &str) -> String {
    match code {
        Code::TopicAuthorizationFailed | Code::ClusterAuthorizationFailed => {
            format!("the user in KAFKA_PROPERTIES lacks the right {right}")
        }
        Code::InvalidReplicationFactor => format!(
            "the cluster has fewer brokers than KAFKA_TOPIC_REPLICATION asks for ({})",
            settings.replication
        ),
        Code::InvalidPartitions => {
            format!("the cluster does not allow KAFKA_TOPIC_PARTITIONS ({})", settings.partitions)
        }
        Code::PolicyViolation => "a policy of the cluster forbids it".to_owned(),
        code => code.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rdkafka::admin::NewPartitions;
    use tokio::sync::mpsc;

    use super::*;
    use crate::{broker::IN_FLIGHT, telemetry::metrics::Metrics};

    fn settings(brokers: &str, replication: i32) -> KafkaSettings {
        KafkaSettings {
            brokers: brokers.to_owned(),
            topic: format!("test_{:016x}", rand::random::<u64>()),
            dlq_topic: format!("test_{:016x}.dlq", rand::random::<u64>()),
            events_topic: Some(format!("test_{:016x}.events", rand::random::<u64>())),
            partitions: 2,
            replication,
            group: "test".to_owned(),
            properties: Vec::new(),
            embedded: false,
        }
    }

    /// Clients of the real cluster, on topics of their own.
    fn clients(replication: i32) -> (Kafka, Arc<KafkaPublisher>) {
        let brokers = std::env::var("KAFKA_BROKERS").expect("KAFKA_BROKERS");
        let kafka = Kafka::new(settings(&brokers, replication), Arc::new(Metrics::new()));
        let publisher = Arc::new(kafka.publisher(mpsc::channel(IN_FLIGHT).0).expect("connects"));
        (kafka, publisher)
    }

    fn admin(kafka: &Kafka) -> AdminClient<Context> {
        FromClientConfigAndContext::from_config_and_context(&kafka.base_config(), kafka.context.clone())
            .expect("connects")
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
        let (kafka, publisher) = clients(1);
        let count = async || {
            drop(kafka.probe(&publisher).await);
            crate::broker::Publisher::partitions(&*publisher).count
        };
        // As the settings say, also where brokers make topics by themselves, as these do.
        let first = async {
            loop {
                match count().await {
                    0 => {}
                    count => return count,
                }
            }
        };
        assert_eq!(first.await, 2);
        let grown = [NewPartitions::new(&kafka.settings.topic, 5)];
        admin(&kafka).create_partitions(&grown, &AdminOptions::new()).await.expect("grows");
        while count().await != 5 {}
    }

    /// "Created if missing" holds at any time; once one was there, not before all can have seen that it is gone.
    #[tokio::test(flavor = "multi_thread")]
    #[cfg_attr(not(with_kafka), ignore = "left out: needs KAFKA_BROKERS")]
    async fn a_topic_that_was_deleted_is_made_again() {
        let (kafka, publisher) = clients(1);
        let events = kafka.settings.events_topic.as_deref().expect("is set");
        let names = [kafka.settings.topic.as_str(), kafka.settings.dlq_topic.as_str(), events];
        let all = async || {
            loop {
                let mut there = true;
                for name in names {
                    let metadata = kafka.metadata(publisher.client(), name).await.expect("answers");
                    there &= partitions(&metadata, name).count == 2;
                }
                let outcomes = [
                    kafka.probe(&publisher).await.err(),
                    kafka.ensure_dead_letter_topic(&publisher).await.err(),
                    kafka.ensure_events_topic(publisher.client(), events).await.err(),
                ];
                for error in outcomes.into_iter().flatten() {
                    assert!(error.0.ends_with("is gone and is created anew 3s later"), "{error}");
                }
                if there {
                    return;
                }
            }
        };
        all().await;
        let losses = names.map(|name| kafka.topics.losses(name));
        admin(&kafka).delete_topics(&names, &AdminOptions::new()).await.expect("deletes");
        while kafka.metadata(publisher.client(), names[0]).await.expect("answers").topics()[0]
            .error()
            .is_none()
        {}
        let gone = Instant::now();
        all().await;
        assert!(gone.elapsed() >= CREATE_ANEW);
        assert!(losses.iter().all(|losses| losses.has_changed().expect("has a sender")));
    }

    /// A topic that can't be made is named, with the setting that is in the way.
    #[tokio::test(flavor = "multi_thread")]
    #[cfg_attr(not(with_kafka), ignore = "left out: needs KAFKA_BROKERS")]
    async fn a_topic_that_cant_be_made_is_named() {
        let (kafka, publisher) = clients(9);
        let error = kafka.probe(&publisher).await.expect_err("nine brokers").to_string();
        let expected = format!(
            "topic {} (KAFKA_TOPIC) is missing and can't be created: the cluster has fewer brokers than \
             KAFKA_TOPIC_REPLICATION asks for (9)",
            kafka.settings.topic
        );
        assert_eq!(error, expected);
    }
}
