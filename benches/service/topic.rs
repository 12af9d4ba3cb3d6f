//! A reader at the end of the topic that notes when each order is seen.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Instant,
};

use anyhow::Result;
use order_tracker::order::OrderId;
use rdkafka::Offset;
use testkit::TopicReader;

use crate::stack::Stack;

type Seen = Arc<Mutex<HashMap<OrderId, Instant>>>;

/// Reads from the moment it is made until it is dropped.
pub(crate) struct Reader {
    seen: Seen,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Reader {
    pub(crate) fn new(brokers: &str, stack: &Stack) -> Result<Self> {
        // The embedded broker lets every reader wait for as long as it may, whatever comes meanwhile.
        let hurried = [("fetch.wait.max.ms", "2")];
        let properties = if stack.broker_is_embedded() { &hurried[..] } else { &[] };
        let mut reader = stack.topic(brokers).reader(Offset::End, properties)?;
        let (seen, stop) = (Seen::default(), Arc::new(AtomicBool::new(false)));
        let thread = {
            let (seen, stop) = (Arc::clone(&seen), Arc::clone(&stop));
            thread::spawn(move || read(&mut reader, &seen, &stop))
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

fn read(reader: &mut TopicReader, seen: &Seen, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let Ok(Some(message)) = reader.poll() else { continue };
        let id = message.key.and_then(|key| key.parse().ok());
        if let Some(id) = id {
            seen.lock().unwrap_or_else(PoisonError::into_inner).entry(id).or_insert_with(Instant::now);
        }
    }
}
