//! The one place that tells a message's fault from a partition's, and both from the topic's, the
//! cluster's or a setting's.

use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

use crate::broker::{Blame, Refusal};

/// What is to be said of a message that was not taken.
pub(super) fn refusal(error: &KafkaError, topic: &str, partition: Option<i32>) -> Refusal {
    let code = error.rdkafka_error_code();
    let said = code.map_or_else(|| error.to_string(), |code| code.to_string());
    // What is about the topic as a whole is no better known by its partition.
    let blame = code.map_or(Blame::Everything, blame);
    let partition = partition.filter(|partition| *partition >= 0 && blame != Blame::Everything);
    let place = partition.map_or_else(String::new, |partition| format!(", partition {partition}"));
    let advice = code.and_then(advice).map_or_else(String::new, |advice| format!("; {advice}"));
    Refusal { blame, reason: format!("{said} (topic {topic}{place}{advice})") }
}

fn blame(code: Code) -> Blame {
    match code {
        Code::MessageSizeTooLarge
        | Code::MessageBatchTooLarge
        | Code::InvalidMessage
        | Code::InvalidMessageSize
        | Code::InvalidRecord
        | Code::InvalidTimestamp
        | Code::BadMessage
        | Code::KeySerialization
        | Code::ValueSerialization => Blame::Message,
        Code::UnknownPartition
        | Code::LeaderNotAvailable
        | Code::NotLeaderForPartition
        | Code::ReplicaNotAvailable
        | Code::NotEnoughReplicas
        | Code::NotEnoughReplicasAfterAppend
        | Code::ISRInsufficient
        | Code::KafkaStorageError
        | Code::FencedLeaderEpoch
        | Code::UnknownLeaderEpoch
        // Of orders only where KAFKA_PROPERTIES set a time-out for messages.
        | Code::MessageTimedOut => Blame::Partition,
        _ => Blame::Everything,
    }
}

/// Which setting it is about.
fn advice(code: Code) -> Option<&'static str> {
    Some(match code {
        Code::MessageSizeTooLarge | Code::MessageBatchTooLarge => {
            "more is allowed by the topic's max.message.bytes and by message.max.bytes in KAFKA_PROPERTIES"
        }
        Code::TopicAuthorizationFailed => {
            "the user in KAFKA_PROPERTIES lacks the right Write on it, or KAFKA_TOPIC (for dead letters KAFKA_DLQ_TOPIC, for events KAFKA_EVENTS_TOPIC) names another one than was meant"
        }
        Code::ClusterAuthorizationFailed => {
            "the user in KAFKA_PROPERTIES lacks the right IdempotentWrite on the cluster"
        }
        Code::SaslAuthenticationFailed | Code::Authentication => "KAFKA_PROPERTIES hold user and password",
        Code::UnknownTopic | Code::UnknownTopicOrPartition => {
            "KAFKA_TOPIC, for dead letters KAFKA_DLQ_TOPIC, for events KAFKA_EVENTS_TOPIC, names one that is not there"
        }
        Code::InvalidTopic => {
            "KAFKA_TOPIC, for dead letters KAFKA_DLQ_TOPIC, for events KAFKA_EVENTS_TOPIC, names one that the cluster does not allow"
        }
        Code::PolicyViolation => "a policy of the cluster forbids it",
        Code::InvalidRequiredAcks => "acks in KAFKA_PROPERTIES must be all",
        Code::UnsupportedForMessageFormat => "its message.format.version is too old for headers",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: Code) -> Refusal {
        refusal(&KafkaError::MessageProduction(code), "orders.v1", Some(3))
    }

    /// Promise 6: it says what is wrong. And who has to wait for it.
    #[test]
    fn faults_of_messages_partitions_and_settings_are_told_apart() {
        for code in [Code::MessageSizeTooLarge, Code::InvalidRecord, Code::InvalidMessage] {
            assert_eq!(refused(code).blame, Blame::Message, "{code}");
        }
        for code in [Code::UnknownPartition, Code::NotEnoughReplicas, Code::NotLeaderForPartition] {
            assert_eq!(refused(code).blame, Blame::Partition, "{code}");
        }
        for code in [
            Code::TopicAuthorizationFailed,
            Code::ClusterAuthorizationFailed,
            Code::UnknownTopicOrPartition,
            Code::PolicyViolation,
            Code::QueueFull,
            Code::Fatal,
            Code::PurgeQueue,
        ] {
            assert_eq!(refused(code).blame, Blame::Everything, "{code}");
        }
    }

    /// Promise 6: it says what is wrong. With the topic, the partition and the setting.
    #[test]
    fn a_refusal_names_topic_and_setting() {
        let reason = refused(Code::UnknownPartition).reason;
        assert!(reason.ends_with("(topic orders.v1, partition 3)"), "{reason}");
        let reason = refused(Code::TopicAuthorizationFailed).reason;
        assert!(reason.contains("(topic orders.v1; ") && reason.contains("KAFKA_PROPERTIES"), "{reason}");
    }
}
