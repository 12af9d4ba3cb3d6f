//! The broker for the first hour: librdkafka's mock cluster inside this process.
//!
//! It speaks the real protocol on a loopback port, so `kcat` works against it, and forgets
//! everything at exit, which is harmless: the database is the truth.

use std::{
    net::TcpStream,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use rdkafka::{mocking::MockCluster, producer::DefaultProducerContext};

use super::BrokerError;

/// How long a call to the cluster takes when nothing goes wrong.
const CALL: Duration = Duration::from_millis(5);

/// Runs calls to the cluster. Two in a row may share one wake-up, and the second then waits until
/// the cluster's loop looks again by itself, a second later; a connection wakes it at once.
fn awake<T>(address: &str, calls: impl FnOnce() -> T) -> T {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let nudge = scope.spawn(|| {
            thread::park_timeout(CALL);
            while !done.load(Ordering::Acquire) {
                drop(TcpStream::connect(address));
                thread::park_timeout(CALL);
            }
        });
        let answer = calls();
        done.store(true, Ordering::Release);
        nudge.thread().unpark();
        answer
    })
}

/// A Kafka cluster of one broker that lives as long as this value.
pub struct EmbeddedBroker {
    cluster: MockCluster<'static, DefaultProducerContext>,
}

impl EmbeddedBroker {
    /// Starts the cluster on a free loopback port, with these topics.
    pub fn start(topics: &[(&str, i32)]) -> Result<Self, BrokerError> {
        let failed = |error| BrokerError(format!("the embedded broker did not start: {error}"));
        let cluster = MockCluster::new(1).map_err(failed)?;
        let create =
            || topics.iter().try_for_each(|(topic, partitions)| cluster.create_topic(topic, *partitions, 1));
        awake(&cluster.bootstrap_servers(), create).map_err(failed)?;
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
