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

    /// An error with the reason that librdkafka last gave.
    pub(super) fn explain(&self, error: &KafkaError) -> BrokerError {
        let code = told(error);
        if matches!(error, KafkaError::ClientConfig(..)) {
            return BrokerError(code);
        }
        match &*self.last_reason.lock().expect("no holder panics") {
            Some(reason) => BrokerError(format!("{code}: {reason}")),
            None => BrokerError(code),
        }
    }
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
