//! The consumer beside messages that the database takes only too slowly, in memory and in virtual time.

use std::{
    collections::{BTreeSet, HashSet},
    sync::{Arc, Mutex, atomic::Ordering},
    time::Duration,
};

use async_trait::async_trait;
use tokio::time::{Instant, sleep_until, timeout};

use super::{
    FIRST_DELAY,
    consumer::{on, record, value},
    doubles::{DeadLetters, Troubled},
    new_orders, start,
};
use crate::{
    broker::{BrokerError, Record, Subscription},
    order::Start,
    pipeline::Consumer,
    store::{NewOrder, memory::MemoryStore},
    telemetry::{health::Health, metrics::Metrics},
    time::{Alarm, VirtualClock},
    tracker::Transitions,
};

/// Between two good messages, after the first ones, which have waited together.
const EVERY: Duration = Duration::from_millis(20);
const FIRST: usize = 400;
/// The partition of those that are slow, and that of all others.
const SLOW: i32 = 1;
const GOOD: i32 = 2;

/// What a member of the group has handed on.
#[derive(Default)]
struct Handled {
    /// Of the good ones: how long each took, by their offsets.
    good: Mutex<Vec<Duration>>,
    slow: Mutex<Vec<i64>>,
}

/// Many good messages with slow ones among them, and more good ones as they come, one after the other.
struct Topic {
    begun: Instant,
    first: Vec<Record>,
    good: Vec<Record>,
    next: usize,
    handled: Arc<Handled>,
    held_back: Arc<Mutex<BTreeSet<i32>>>,
}

impl Topic {
    fn came(&self, offset: usize) -> Instant {
        self.begun + EVERY * u32::try_from(offset.saturating_sub(FIRST)).expect("few")
    }
}

#[async_trait]
impl Subscription for Topic {
    async fn next_batch(&mut self, most: usize) -> Result<Vec<Record>, BrokerError> {
        if !self.first.is_empty() {
            return Ok(std::mem::take(&mut self.first));
        }
        if self.next >= self.good.len() {
            return std::future::pending().await;
        }
        sleep_until(self.came(self.next)).await;
        let come = self.good[self.next..].iter().take(most);
        let come = come.zip(self.next..).take_while(|(_, offset)| self.came(*offset) <= Instant::now());
        let batch: Vec<Record> = come.map(|(record, _)| record.clone()).collect();
        self.next += batch.len();
        Ok(batch)
    }

    fn handled(&mut self, records: &[Record]) -> Result<(), BrokerError> {
        let (mut good, mut slow) =
            (self.handled.good.lock().expect("no panic"), self.handled.slow.lock().expect("no panic"));
        for record in records {
            if record.partition == SLOW {
                slow.push(record.offset);
            } else {
                good.push(self.came(usize::try_from(record.offset).expect("valid")).elapsed());
            }
        }
        Ok(())
    }

    fn hold_back(&mut self, partitions: &BTreeSet<i32>) -> Result<(), BrokerError> {
        self.held_back.lock().expect("no panic").clone_from(partitions);
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

fn message(partition: i32, (offset, order): (usize, &NewOrder), name: &str) -> Record {
    let id = order.order_id.to_string();
    let offset = i64::try_from(offset).expect("few");
    on(partition, record(offset, &id, Some(&value(&id, name).to_string())))
}

/// A consumer beside so many slow messages, and good ones for so long.
struct Rig {
    store: Arc<Troubled>,
    consumer: Consumer,
    handled: Arc<Handled>,
    held_back: Arc<Mutex<BTreeSet<i32>>>,
    good: usize,
}

impl Rig {
    fn new(slow: usize, lasting: Duration) -> Self {
        Self::on(slow, lasting, "Ada", |store| store)
    }

    /// The last of the first good ones is for this customer.
    fn on(slow: usize, lasting: Duration, last: &str, wrap: impl FnOnce(Troubled) -> Troubled) -> Self {
        let good = FIRST + usize::try_from(lasting.as_millis() / EVERY.as_millis()).expect("few");
        let orders = new_orders((slow + good) as u64);
        let (slow, others) = orders.split_at(slow);
        let (handled, held_back) = (Arc::new(Handled::default()), Arc::default());
        let name = |at: usize| if at + 1 == FIRST { last } else { "Ada" };
        let good = others.iter().enumerate().map(|order| message(GOOD, order, name(order.0)));
        let good: Vec<Record> = good.collect();
        let mut first = good[..FIRST].to_vec();
        for order in slow.iter().enumerate() {
            first.insert((order.0 + 1) * FIRST / (slow.len() + 1), message(SLOW, order, "slow"));
        }
        let topic = Topic {
            begun: Instant::now(),
            first,
            good,
            next: FIRST,
            handled: Arc::clone(&handled),
            held_back: Arc::clone(&held_back),
        };
        let memory = MemoryStore::new(Arc::default(), Arc::new(VirtualClock::new(start())), 1);
        let store = Arc::new(wrap(Troubled::new(Arc::new(memory), [])));
        let (shared, metrics): (Arc<dyn crate::store::Store>, _) = (store.clone(), Arc::new(Metrics::new()));
        let consumer = Consumer::new(
            Box::new(topic),
            Arc::clone(&shared),
            Arc::new(DeadLetters::default()),
            Transitions::unfollowed(&shared, Arc::clone(&metrics), Arc::new(Alarm::default())),
            metrics,
            Start::timer(FIRST_DELAY),
        );
        Self { store, consumer, handled, held_back, good: others.len() }
    }

    /// How long the good one took that took longest, of all and of those that came after the first half minute.
    async fn longest(&mut self) -> (Duration, Duration) {
        while self.handled.good.lock().expect("no panic").len() < self.good {
            self.consumer.step().await.expect("works");
        }
        let good = self.handled.good.lock().expect("no panic");
        let longest = |some: &[Duration]| some.iter().max().copied().expect("some");
        (longest(&good), longest(&good[FIRST + 1_500..]))
    }
}

/// Promise 5: memory, queues and time are bounded. A consumer is never stuck on one message: while those that the database
/// never takes in time are found, and each time they are tried again, other partitions go on.
#[tokio::test(start_paused = true)]
async fn slow_messages_hold_up_their_partition_only() {
    for (slow, most) in [(1, 1_500), (3, 2_000), (20, 6_000)] {
        let mut rig = Rig::new(slow, Duration::from_mins(2));
        let (longest, later) = rig.longest().await;
        assert!(longest < Duration::from_millis(most), "{longest:?} beside {slow}");
        assert!(later < EVERY * 2, "{later:?} beside {slow} that are tried again");
        assert_eq!(*rig.held_back.lock().expect("no panic"), BTreeSet::from([SLOW]));
        assert_eq!(*rig.handled.slow.lock().expect("no panic"), Vec::<i64>::new());
        let told = rig.consumer.health().reason().expect("it stands still");
        assert_eq!(
            told,
            format!("partition {SLOW}: a message waits: the database did not answer within 1.8s")
        );

        // When nothing holds them any more each goes, after its pause at most.
        rig.store.locked.store(false, Ordering::Relaxed);
        let all = async {
            while rig.handled.slow.lock().expect("no panic").len() < slow {
                rig.consumer.step().await.expect("works");
            }
        };
        timeout(Duration::from_mins(1), all).await.expect("in time");
        let gone: HashSet<i64> = rig.handled.slow.lock().expect("no panic").iter().copied().collect();
        assert_eq!(gone.len(), slow);
        assert_eq!((rig.held_back.lock().expect("no panic").len(), rig.consumer.health()), (0, Health::Up));
    }
}

/// Where one connection makes all writes, as with SQLite, one that is tried alone gives it back while a batch waits for it.
#[tokio::test(start_paused = true)]
async fn who_is_tried_alone_ends_while_others_wait() {
    let one_writer = |store| Troubled { one_writer: Some(tokio::sync::Mutex::default()), ..store };
    let mut rig = Rig::on(3, Duration::from_mins(1), "Ada", one_writer);
    let (longest, _) = rig.longest().await;
    assert!(longest < Duration::from_millis(1_500), "{longest:?}");
    assert_eq!(rig.handled.slow.lock().expect("no panic").len(), 3);
    assert_eq!((rig.held_back.lock().expect("no panic").len(), rig.consumer.health()), (0, Health::Up));
}

/// Partitions whose messages never go do not keep one of another from its turn.
#[tokio::test(start_paused = true)]
async fn partitions_have_turns_at_being_tried_alone() {
    let mut rig = Rig::on(20, Duration::from_mins(2), "once", |store| store);
    let (longest, _) = rig.longest().await;
    assert!(longest < Duration::from_secs(15), "{longest:?}");
    assert_eq!(*rig.held_back.lock().expect("no panic"), BTreeSet::from([SLOW]));
}
