//! What librdkafka tells us besides messages: logs and errors.

use std::sync::{Arc, Mutex};

use rdkafka::{
    ClientContext,
    config::RDKafkaLogLevel,
    consumer::ConsumerContext,
    error::{KafkaError, RDKafkaErrorCode},
};
use tracing::{debug, error};

use super::{super::BrokerError, properties::told};

/// Shared by all clients of a cluster.
#[derive(Clone, Default)]
pub(super) struct Context {
    /// The reason behind the last error: codes alone say "local: all broker connections are down".
    last_reason: Arc<Mutex<Option<String>>>,
}

impl Context {
    /// Forgets the last reason: all is well now.
    pub(super) fn all_is_well(&self) {
        *self.last_reason.lock().expect("no holder panics") = None;
    }

    /// What is wrong, with the address and the setting to look at, where the client has said it.
    pub(super) fn explain(&self, error: &KafkaError) -> BrokerError {
        let text = told(error);
        let Some(setting) = error.rdkafka_error_code().and_then(setting) else { return BrokerError(text) };
        // The code alone says no more than that.
        let reason = self.last_reason.lock().expect("no holder panics").clone();
        let text = reason.unwrap_or(text);
        // A connection that was refused looks like one that broke.
        let secured = ["SASL", "SSL", "uthenticat"].iter().any(|word| text.contains(word));
        let setting = if secured { "KAFKA_PROPERTIES" } else { setting };
        BrokerError(format!("{text} ({setting})"))
    }
}

/// The setting to look at when the cluster can't be reached; nothing for what it answers.
fn setting(code: RDKafkaErrorCode) -> Option<&'static str> {
    use RDKafkaErrorCode as Code;
    Some(match code {
        Code::BrokerTransportFailure | Code::AllBrokersDown | Code::Resolve | Code::OperationTimedOut => {
            "KAFKA_BROKERS"
        }
        Code::SSL
        | Code::Authentication
        | Code::SaslAuthenticationFailed
        | Code::UnsupportedSASLMechanism => "KAFKA_PROPERTIES",
        _ => return None,
    })
}

impl ClientContext for Context {
    /// librdkafka logs each failed attempt of each client; the health probe says it once.
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        if matches!(level, RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical) {
            error!(facility, message, "kafka client");
        } else {
            debug!(facility, message, "kafka client");
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        debug!(%error, reason, "kafka client");
        // It follows each single failure and says less.
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown) {
            return;
        }
        *self.last_reason.lock().expect("no holder panics") = Some(reason.to_owned());
    }
}

impl ConsumerContext for Context {}
