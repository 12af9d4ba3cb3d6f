//! Properties for the Kafka client as people write them, and what is said of those that it does not take.
//!
//! Invariant: no part of a value is ever told; it may be of a password.

use std::{fmt, str::FromStr, thread};

use rdkafka::{
    ClientConfig,
    config::FromClientConfigAndContext,
    consumer::BaseConsumer,
    error::KafkaError,
    producer::{BaseProducer, DefaultProducerContext},
    types::RDKafkaConfRes,
};

use super::{Kafka, KafkaSettings};

/// How a comma inside a value is written.
const COMMA: &str = "a comma inside a value is written \\,";

/// `name=value` pairs with commas between; a comma inside a value is written `\,` and a backslash before a
/// comma or a backslash `\\`.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Properties(Vec<(String, String)>);

impl Properties {
    /// Names and values.
    pub fn iter(&self) -> impl Iterator<Item = &(String, String)> {
        self.0.iter()
    }
}

impl fmt::Debug for Properties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<String> = self.iter().map(|(name, _)| format!("{name}=***")).collect();
        f.write_str(&names.join(","))
    }
}

impl FromStr for Properties {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let pairs: Result<Vec<_>, String> = split(text).iter().map(|pair| property(pair)).collect();
        pairs.map(Self)
    }
}

/// The parts between commas, without the backslashes that keep commas inside.
fn split(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut chars = text.chars().peekable();
    while let Some(char) = chars.next() {
        let last = parts.len() - 1;
        match char {
            ',' => parts.push(String::new()),
            '\\' => parts[last].push(chars.next_if(|next| [',', '\\'].contains(next)).unwrap_or('\\')),
            char => parts[last].push(char),
        }
    }
    parts
}

fn property(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, _)) if ["bootstrap.servers", "group.id"].contains(&name.trim()) => {
            Err("must not hold what has a setting of its own: KAFKA_BROKERS, KAFKA_GROUP".to_owned())
        }
        Some((name, value)) if !name.trim().is_empty() => Ok((name.trim().to_owned(), value.to_owned())),
        _ => Err(format!("must be name=value pairs with commas between; {COMMA}")),
    }
}

impl Kafka {
    /// Whether the client takes these properties, each alone and all together.
    pub fn check_properties(settings: &KafkaSettings) -> Result<(), String> {
        let kafka = Self::new(settings.clone(), std::sync::Arc::default());
        let (producer, consumer) = (kafka.producer_config(), kafka.consumer_config());
        for config in [&producer, &kafka.event_producer_config(), &consumer] {
            config.create_native_config().map_err(|error| complaint(&error, settings))?;
        }
        // What contradicts each other shows when a client is made.
        if !settings.brokers.is_empty() && !settings.properties.is_empty() {
            let consumer = BaseConsumer::from_config_and_context(&consumer, kafka.context.clone());
            let producer = BaseProducer::from_config_and_context(&producer, DefaultProducerContext);
            let made = consumer.and_then(|consumer| Ok((consumer, producer?)));
            let clients = made.map_err(|error| complaint(&error, settings))?;
            // Dropping waits for their threads.
            drop(thread::spawn(move || drop(clients)));
        }
        Ok(())
    }
}

/// What is wrong, without what was given.
fn complaint(error: &KafkaError, settings: &KafkaSettings) -> String {
    match error {
        KafkaError::ClientConfig(RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN, _, name, _) => {
            match settings.properties.iter().position(|(known, _)| known == name) {
                // It follows no value, so it can't be a part of one; but it may be one that was given alone.
                Some(0) if is_nearly_known(name) => format!("there is none named {name}"),
                at => {
                    format!("there is none with the name of number {}; {COMMA}", at.unwrap_or_default() + 1)
                }
            }
        }
        error => told(error),
    }
}

/// Letters of names.
const LETTERS: &str = "abcdefghijklmnopqrstuvwxyz0123456789._";
/// No name is as long.
const LONGEST: usize = 64;

/// Whether one character is missing, one too many, another, or two have changed places, in a name that there is.
fn is_nearly_known(name: &str) -> bool {
    if name.len() > LONGEST || !name.chars().all(|char| LETTERS.contains(char)) {
        return false;
    }
    let is_known = |name: &str| match ClientConfig::new().set(name, "").create_native_config() {
        Err(KafkaError::ClientConfig(answer, ..)) => answer != RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN,
        answer => answer.is_ok(),
    };
    (0..=name.len()).any(|at| {
        let (before, after) = name.split_at(at);
        let without = after.get(1..);
        let swapped =
            after.get(..2).map(|two| two.chars().rev().chain(after[2..].chars()).collect::<String>());
        let others = |rest: &str| LETTERS.chars().any(|letter| is_known(&format!("{before}{letter}{rest}")));
        others(after)
            || without.is_some_and(|rest| is_known(&format!("{before}{rest}")) || others(rest))
            || swapped.is_some_and(|rest| is_known(&format!("{before}{rest}")))
    })
}

/// An error of the client without the value that it may show.
pub(super) fn told(error: &KafkaError) -> String {
    match error {
        KafkaError::ClientConfig(RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN, ..) => {
            format!("KAFKA_PROPERTIES name a property that there is not; {COMMA}")
        }
        KafkaError::ClientConfig(_, _, name, _) => {
            format!("the value of {name} is not allowed; librdkafka's CONFIGURATION.md tells what is")
        }
        KafkaError::ClientCreation(reason) => reason.clone(),
        error => error.rdkafka_error_code().map_or_else(|| error.to_string(), |code| code.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use rand::RngExt as _;

    use super::*;

    fn parsed(text: &str) -> Vec<(String, String)> {
        text.parse::<Properties>().expect("valid").0
    }

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    fn settings(properties: Properties) -> KafkaSettings {
        KafkaSettings {
            brokers: "127.0.0.1:9".to_owned(),
            topic: "orders.v1".to_owned(),
            dlq_topic: "orders.v1.dlq".to_owned(),
            events_topic: None,
            partitions: 1,
            replication: 1,
            group: "test".to_owned(),
            properties: properties.0,
            embedded: false,
        }
    }

    #[test]
    fn a_value_may_hold_anything() {
        let two = [pair("sasl.username", "tom"), pair("sasl.password", "a,b=c")];
        assert_eq!(parsed(r"sasl.username=tom,sasl.password=a\,b=c"), two);
        assert_eq!(parsed(r"a=x\\,b=\d\e\"), [pair("a", r"x\"), pair("b", r"\d\e\")]);
        assert_eq!(parsed(r"a=\\\,"), [pair("a", r"\,")]);
        assert!("a=b,".parse::<Properties>().is_err());
        assert!("a=b, group.id =c".parse::<Properties>().is_err());
    }

    /// Whatever a password is, written as it should be it arrives, and written without care it is not told.
    #[test]
    fn no_part_of_a_secret_is_told() {
        let mut random = rand::rng();
        for _ in 0..100 {
            let alphabet: Vec<char> = "Qx7,=\\ Zé%/@:".chars().collect();
            let secret: String = (0..12).map(|_| alphabet[random.random_range(0..alphabet.len())]).collect();
            let escaped = secret.replace('\\', r"\\").replace(',', r"\,");
            assert_eq!(parsed(&format!("sasl.password={escaped},acks=all"))[0].1, secret);

            let careless = format!("sasl.username=tom,sasl.password={secret}");
            let complaint = match careless.parse::<Properties>() {
                Ok(properties) => Kafka::check_properties(&settings(properties)).err(),
                Err(complaint) => Some(complaint),
            };
            let complaint = complaint.unwrap_or_default();
            for told in ["Q", "x7", "Z", "é"] {
                assert!(!secret.contains(told) || !complaint.contains(told), "{complaint}");
            }
        }
    }

    /// Promise 6: it says what is wrong. The new group protocol forbids what the old one needs.
    #[test]
    fn both_group_protocols_are_taken_and_contradictions_are_not() {
        let check = |text: &str| Kafka::check_properties(&settings(text.parse().expect("valid")));
        assert_eq!(check("group.protocol=classic"), Ok(()));
        assert_eq!(check("group.protocol=consumer"), Ok(()));
        assert_eq!(check("session.timeout.ms=10000"), Ok(()));
        let refused = check("group.protocol=consumer,session.timeout.ms=10000").expect_err("contradicts");
        assert!(refused.contains("session.timeout.ms") && !refused.contains("10000"), "{refused}");
        let refused = check("acks=many").expect_err("no number");
        assert!(refused.contains("acks") && !refused.contains("many"), "{refused}");
        assert_eq!(check("ack=all"), Err("there is none named ack".to_owned()));
        for near in ["sasl.pasword=x", "sasl.passwordd=x", "sasl.passwort=x", "sasl.apssword=x"] {
            let name = near.trim_end_matches("=x");
            assert_eq!(check(near), Err(format!("there is none named {name}")));
        }
        // A password alone may end like a name.
        for alone in ["c2VjcmV0UGFzcw==", "c2vjcmv0ugfzcw==", "s3cret=", "correct.horse.battery=staple"] {
            let complaint = check(alone).expect_err("no property");
            assert_eq!(complaint, format!("there is none with the name of number 1; {COMMA}"));
        }
    }
}
