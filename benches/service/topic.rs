//! A reader at the end of the topic that notes when each order is seen.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use order_tracker::order::OrderId;
use rdkafka::{
    ClientConfig, Message as _, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _},
};

use crate::stack::Stack;

/// How long the cluster may take to say what the topic is.
const PATIENCE: Duration = Duration::from_secs(15);

type Seen = Arc<Mutex<HashMap<OrderId, Instant>>>;

/// Reads from the moment it is made until it is dropped.
pub(crate) struct Reader {
    seen: Seen,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Reader {
    pub(crate) fn new(brokers: &str, stack: &Stack) -> Result<Self> {
        let (topic, mut config) = (stack.topic(), ClientConfig::new());
        config
            .set("bootstrap.servers", brokers)
            .set("group.id", "bench-reader")
            .set("enable.auto.commit", "false")
            .set("log_level", "0");
        if stack.broker_is_embedded() {
            // It lets every reader wait for as long as it may, whatever comes meanwhile.
            config.set("fetch.wait.max.ms", "2");
        }
        let consumer: BaseConsumer = config.create()?;
        let metadata = consumer.fetch_metadata(Some(topic), PATIENCE)?;
        let mut places = TopicPartitionList::new();
        for partition in metadata.topics().first().context("no such topic")?.partitions() {
            places.add_partition_offset(topic, partition.id(), Offset::End)?;
        }
        consumer.assign(&places)?;
        let (seen, stop) = (Seen::default(), Arc::new(AtomicBool::new(false)));
        let thread = {
            let (seen, stop) = (Arc::clone(&seen), Arc::clone(&stop));
            thread::spawn(move || read(&consumer, &seen, &stop))
        };
        Ok(Self { seen, stop, thread: Some(thread) })
    }

    /// When this order was seen.
    pub(crate) fn seen(&self, id: OrderId) -> Option<Instant> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).get(&id).copied()
    }

    /// How many were seen.
    pub(crate) fn count(&self) -> usize {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        drop(self.thread.take().map(JoinHandle::join));
    }
}

fn read(consumer: &BaseConsumer, seen: &Seen, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) else { continue };
        let id = message.key().and_then(|key| std::str::from_utf8(key).ok()?.parse().ok());
        if let Some(id) = id {
            seen.lock().unwrap_or_else(PoisonError::into_inner).entry(id).or_insert_with(Instant::now);
        }
    }
}
