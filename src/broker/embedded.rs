//! The broker for the first hour: librdkafka's mock cluster inside this process.
//!
//! It speaks the real protocol on a loopback port, so `kcat` works against it, and forgets
//! everything at exit, which is harmless: the database is the truth.

use rdkafka::{mocking::MockCluster, producer::DefaultProducerContext};

use super::BrokerError;

/// A Kafka cluster of one broker that lives as long as this value.
pub struct EmbeddedBroker {
    cluster: MockCluster<'static, DefaultProducerContext>,
}

impl EmbeddedBroker {
    /// Starts the cluster on a free loopback port, with these topics.
    pub fn start(topics: &[(&str, i32)]) -> Result<Self, BrokerError> {
        let failed = |error| BrokerError(format!("the embedded broker did not start: {error}"));
        let cluster = MockCluster::new(1).map_err(failed)?;
        for (topic, partitions) in topics {
            cluster.create_topic(topic, *partitions, 1).map_err(failed)?;
        }
        Ok(Self { cluster })
    }

    /// The address for clients, `127.0.0.1:port`.
    pub fn address(&self) -> String {
        self.cluster.bootstrap_servers()
    }

    /// The cluster itself, to make it fail in tests.
    pub fn cluster(&self) -> &MockCluster<'static, DefaultProducerContext> {
        &self.cluster
    }
}
