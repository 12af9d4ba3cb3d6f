//! A model of the topic: one log that many may write and the group reads, in partitions for those who write.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tokio::{
    sync::{Notify, mpsc},
    time::{Instant, sleep},
};

use crate::{
    broker::{Blame, BrokerError, Partitions, Publisher, Receipt, Record, Refusal, Subscription},
    order::{OrderPlaced, Reject},
    telemetry::health::Health,
};

/// How many partitions there are.
pub(super) const PARTITIONS: i32 = 3;

/// What the broker keeps, and what it does wrong.
pub(super) struct Topic {
    pub(super) log: Mutex<Vec<(Vec<u8>, Vec<u8>)>>,
    committed: AtomicUsize,
    grown: Notify,
    /// When the broker is away, in milliseconds of the story.
    pub(super) outage: std::ops::Range<u64>,
    /// When one partition is away, which, and whether the cluster says so.
    pub(super) lame: Lame,
    /// Of a thousand messages so many are refused, and of batches so many are read again.
    pub(super) wrong: u32,
    begun: Instant,
    random: Mutex<StdRng>,
    pub(super) dead_letters: AtomicU64,
}

/// A partition that is away for some time.
#[derive(Debug, Clone)]
pub(super) struct Lame {
    pub(super) partition: i32,
    pub(super) outage: std::ops::Range<u64>,
    pub(super) known: bool,
}

impl Topic {
    pub(super) fn new(seed: u64, outage: std::ops::Range<u64>, lame: Lame, wrong: u32) -> Arc<Self> {
        Arc::new(Self {
            lame,
            log: Mutex::default(),
            committed: AtomicUsize::new(0),
            grown: Notify::new(),
            outage,
            wrong,
            begun: Instant::now(),
            random: Mutex::new(StdRng::seed_from_u64(seed)),
            dead_letters: AtomicU64::new(0),
        })
    }

    pub(super) fn append(&self, key: &[u8], value: &[u8]) {
        self.log.lock().expect("no panic").push((key.to_vec(), value.to_vec()));
        self.grown.notify_waiters();
    }

    fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// How long until the broker answers: a few milliseconds, or the rest of its outage.
    fn answers_in(&self) -> Duration {
        self.answers_for(None)
    }

    /// The same for one partition.
    fn answers_for(&self, partition: Option<i32>) -> Duration {
        let now = self.now();
        let rest = |outage: &std::ops::Range<u64>| if outage.contains(&now) { outage.end - now } else { 0 };
        let lame = if partition == Some(self.lame.partition) { rest(&self.lame.outage) } else { 0 };
        let away = rest(&self.outage).max(lame);
        Duration::from_millis(away + self.random.lock().expect("no panic").random_range(1..20))
    }

    fn goes_wrong(&self) -> bool {
        self.random.lock().expect("no panic").random_range(0..1_000) < self.wrong
    }
}

/// A client that hands receipts over some time later.
pub(super) struct Client {
    pub(super) topic: Arc<Topic>,
    pub(super) receipts: mpsc::Sender<Receipt>,
}

#[async_trait]
impl Publisher for Client {
    fn partitions(&self) -> Arc<Partitions> {
        let (now, lame) = (self.topic.now(), &self.topic.lame);
        let reachable = !self.topic.outage.contains(&now);
        let leaderless = (lame.known && lame.outage.contains(&now)).then_some(lame.partition);
        let topic = "orders.v1".to_owned();
        Arc::new(Partitions {
            topic,
            count: PARTITIONS,
            leaderless: leaderless.into_iter().collect(),
            reachable,
        })
    }

    fn publish(&self, message: &OrderPlaced, partition: Option<i32>) -> Result<(), Refusal> {
        let (topic, receipts, order_id) = (Arc::clone(&self.topic), self.receipts.clone(), message.order_id);
        let value = serde_json::to_vec(message).expect("serialises");
        let (since, refused) = (Instant::now(), topic.goes_wrong());
        let blame = [Blame::Message, Blame::Partition, Blame::Everything][usize::from(value[20] % 3)];
        tokio::spawn(async move {
            sleep(topic.answers_for(partition)).await;
            if !refused {
                topic.append(order_id.to_string().as_bytes(), &value);
            }
            let outcome = if refused { Err(Refusal { blame, reason: "refused".to_owned() }) } else { Ok(()) };
            drop(receipts.try_send(Receipt { order_id, outcome, took: since.elapsed() }));
        });
        Ok(())
    }

    async fn dead_letter(&self, _: &Record, _: &Reject) -> Result<(), BrokerError> {
        sleep(self.topic.answers_in()).await;
        self.topic.dead_letters.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// A member of the group: begins where the group has committed, and now and then reads again.
pub(super) struct Member {
    topic: Arc<Topic>,
    next: usize,
}

impl Member {
    pub(super) fn new(topic: Arc<Topic>) -> Self {
        let next = topic.committed.load(Ordering::Relaxed);
        Self { topic, next }
    }
}

#[async_trait]
impl Subscription for Member {
    async fn next_batch(&mut self, max: usize) -> Result<Vec<Record>, BrokerError> {
        sleep(self.topic.answers_in()).await;
        if self.topic.goes_wrong() {
            return Err(BrokerError("the group is rebalancing".to_owned()));
        }
        if self.topic.goes_wrong() {
            self.next = 0;
        }
        loop {
            let grown = self.topic.grown.notified();
            let log = self.topic.log.lock().expect("no panic").clone();
            if self.next < log.len() {
                let batch: Vec<Record> =
                    (self.next..log.len()).take(max).map(|offset| record(offset, &log[offset])).collect();
                self.next += batch.len();
                return Ok(batch);
            }
            grown.await;
        }
    }

    fn handled(&mut self, records: &[Record]) -> Result<(), BrokerError> {
        let end = records.last().and_then(|last| usize::try_from(last.offset + 1).ok()).unwrap_or(0);
        self.topic.committed.fetch_max(end, Ordering::Relaxed);
        Ok(())
    }

    /// Goes on giving what nobody asks for.
    fn hold_back(&mut self, _: &BTreeSet<i32>) -> Result<(), BrokerError> {
        Ok(())
    }

    fn lost(&mut self) -> BTreeSet<i32> {
        BTreeSet::new()
    }

    fn health(&self) -> Health {
        Health::Up
    }

    async fn close(self: Box<Self>) {}
}

fn record(offset: usize, (key, value): &(Vec<u8>, Vec<u8>)) -> Record {
    Record {
        topic: "orders.v1".to_owned(),
        partition: 0,
        offset: i64::try_from(offset).expect("small"),
        key: Some(key.clone()),
        value: Some(value.clone()),
        ..Record::default()
    }
}
