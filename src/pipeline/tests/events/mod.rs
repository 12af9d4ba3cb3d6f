//! The relay of events in virtual time: several replicas, one table, one topic, and what goes wrong with each.

mod doubles;
mod faults;

use std::{
    collections::{HashMap, HashSet},
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{details, start};
use crate::{
    order::{Cursor, IdMint, OrderId, StageDelays, Start},
    pipeline::EventRelay,
    store::{
        Due, EventLog as _, FeedQuery, NewOrder, OrderStore as _, Outbox, Span, Store,
        memory::{Database, MemoryStore},
    },
    telemetry::{
        health::{self, Health},
        metrics::Metrics,
    },
    time::VirtualClock,
    tracker::{EventReader, Feed, Notifier, OrderLoader, Places},
};
use doubles::{Client, EventTopic, Fate, Link};

const TOPIC: &str = "order-events.v1";
/// How long a test waits, in virtual time, before it fails.
const PATIENCE: Duration = Duration::from_mins(5);

/// What all replicas share.
struct World {
    clock: Arc<VirtualClock>,
    database: Arc<Mutex<Database>>,
    store: MemoryStore,
    topic: Arc<EventTopic>,
    mint: IdMint,
    born: u64,
}

/// A running replica; dropping it is kill -9.
struct Replica {
    frozen: watch::Sender<bool>,
    cut: Arc<AtomicBool>,
    unreadable: Arc<Mutex<HashSet<OrderId>>>,
    stop: CancellationToken,
    health: health::Watcher,
    metrics: Arc<Metrics>,
    tasks: JoinSet<()>,
}

/// Works only while its process does not stand still.
async fn freezable(work: impl Future<Output = ()>, mut frozen: watch::Receiver<bool>) {
    let mut work = pin!(work);
    while frozen.wait_for(|frozen| !frozen).await.is_ok() {
        tokio::select! {
            biased;
            _ = frozen.wait_for(|frozen| *frozen) => {}
            () = &mut work => return,
        }
    }
}

impl World {
    fn new() -> Self {
        let (clock, database) = (Arc::new(VirtualClock::new(start())), Arc::<Mutex<Database>>::default());
        let store = MemoryStore::new(Arc::clone(&database), clock.clone(), 0);
        Self { clock, database, store, topic: EventTopic::new(), mint: IdMint::default(), born: 0 }
    }

    fn replica(&mut self) -> Replica {
        self.born += 1;
        let inner: Arc<dyn Store> =
            Arc::new(MemoryStore::new(Arc::clone(&self.database), self.clock.clone(), self.born));
        let (frozen, stop) = (watch::Sender::new(false), CancellationToken::new());
        let (metrics, places) = (Arc::new(Metrics::new()), Places::new(1, stop.clone()));
        let (cut, unreadable) = (Arc::<AtomicBool>::default(), Arc::<Mutex<HashSet<OrderId>>>::default());
        let loader = OrderLoader::new(inner.clone());
        let notifier = Notifier::new(loader, Arc::clone(&places));
        let feed = Feed::new(inner.clone(), places);
        let (log, metrics_of_reader) = (Arc::clone(&inner), Arc::clone(&metrics));
        let reader = EventReader { log, notifier, feed: Arc::clone(&feed), metrics: metrics_of_reader };
        let deliveries = Mutex::default();
        let client = Client { topic: Arc::clone(&self.topic), frozen: frozen.subscribe(), deliveries };
        let (telling, health) = health::channel();
        let relay = EventRelay::new(
            Arc::new(Link { inner, cut: Arc::clone(&cut), unreadable: Arc::clone(&unreadable) }),
            feed,
            Arc::new(client),
            TOPIC.to_owned(),
            Arc::clone(&metrics),
            self.clock.clone(),
            telling,
        );
        let mut tasks = JoinSet::new();
        tasks.spawn(freezable(reader.run(CancellationToken::new()), frozen.subscribe()));
        tasks.spawn(freezable(relay.run(stop.clone(), CancellationToken::new()), frozen.subscribe()));
        Replica { frozen, cut, unreadable, stop, health, metrics, tasks }
    }

    /// Places so many orders; each begins with two events.
    async fn place(&mut self, count: usize) -> Vec<OrderId> {
        let begun = start().timestamp_millis().unsigned_abs();
        let order = |order_id| NewOrder {
            order_id,
            details: details("Ada"),
            key: None,
            meta: None,
            start: Start::timer(Duration::ZERO),
        };
        let orders: Vec<NewOrder> =
            (0..count).map(|_| order(self.mint.mint(begun, rand::random()))).collect();
        self.store.place(&orders, Outbox::Anyones).await.expect("places");
        orders.iter().map(|order| order.order_id).collect()
    }

    /// Makes a step of each order that is due.
    async fn advance(&self) {
        let soon = StageDelays::uniform(Duration::from_millis(1));
        self.store.advance_due(Due::Soonest { limit: 1_000, after: None }, &soon).await.expect("advances");
    }

    /// How far each order is, and the last event.
    async fn events(&self) -> (HashMap<OrderId, u32>, Cursor) {
        let span = Span { after: Cursor::START, upto: Cursor(i64::MAX) };
        let page =
            self.store.events(&FeedQuery { span, event: None, limit: usize::MAX }).await.expect("reads");
        let mut reached = HashMap::new();
        for event in &page.events {
            reached.insert(event.order_id, event.seq);
        }
        (reached, page.examined.unwrap_or_default())
    }

    /// Waits until all there is was written; answers how long that took and how many repeats there are.
    async fn settled(&self) -> (Duration, usize) {
        let ((expected, last), begun) = (self.events().await, Instant::now());
        let work = async {
            while self.store.place_of(TOPIC).await.expect("reads").unwrap_or_default() < last {
                sleep(Duration::from_millis(10)).await;
            }
        };
        let in_time = timeout(PATIENCE, work).await.is_ok();
        assert!(in_time, "{:?} of {last}: {:?}", self.store.place_of(TOPIC).await, self.topic.messages());
        (begun.elapsed(), self.topic.repeats(&expected))
    }

    /// Waits until so many messages are on the topic; answers how long that took.
    async fn written(&self, count: usize) -> Duration {
        let begun = Instant::now();
        let work = async {
            while self.topic.messages().len() < count {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(PATIENCE, work).await.expect("in time");
        begun.elapsed()
    }
}

impl Replica {
    fn metric(&self, name: &str) -> String {
        let text = String::from_utf8(self.metrics.render().expect("renders")).expect("text");
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.expect("a series").to_owned()
    }

    async fn says(&mut self, expected: impl Fn(&Health) -> bool) -> Health {
        let told = self.health.wait_for(expected);
        timeout(PATIENCE, told).await.expect("in time").expect("lives").clone()
    }
}

/// Promise 2: everything accepted reaches the topic. Without faults each event once, in order, by one replica, which says
/// how it is; the others have nothing to say.
#[tokio::test(start_paused = true)]
async fn every_event_is_written_once_by_one_replica() {
    let mut world = World::new();
    let (first, second) = (world.replica(), world.replica());
    world.place(50).await;
    for _ in 0..4 {
        world.advance().await;
        sleep(Duration::from_millis(300)).await;
    }
    assert_eq!(world.settled().await.1, 0);
    assert_eq!(world.topic.messages().len(), 300);
    let produced = [&first, &second].map(|replica| replica.metric("events_produced_total"));
    assert!(produced == ["300", "0"] || produced == ["0", "300"], "{produced:?}");
    sleep(Duration::from_secs(2)).await;
    let behind = [&first, &second].map(|replica| replica.metric("events_behind_seconds"));
    assert!(behind == ["0", "NaN"] || behind == ["NaN", "0"], "{behind:?}");
    assert_eq!([&first, &second].map(|replica| replica.health.borrow().clone()), [Health::Up, Health::Up]);
}

/// An event is handed over only after its order's previous one was acknowledged, however late and out of order a client
/// answers, and whatever it says of what it has given up.
#[tokio::test(start_paused = true)]
async fn events_of_an_order_stay_in_order() {
    let mut world = World::new();
    let mut dice = 0_u64;
    world.topic.judged(move |_| {
        dice += 1;
        match dice % 11 {
            3 => Fate::Refused(crate::broker::Blame::Partition),
            7 => Fate::Late(dice * 137 % 9_000),
            n => Fate::Taken(n * 70 % 300),
        }
    });
    let _replica = world.replica();
    world.place(20).await;
    for _ in 0..4 {
        world.advance().await;
    }
    world.settled().await;
    // What was given up comes at last; it is a repeat.
    sleep(Duration::from_secs(10)).await;
    assert!(world.settled().await.1 > 0);
}

/// A deploy is no failure: nothing comes twice, and the next replica goes on at once.
#[tokio::test(start_paused = true)]
async fn a_replica_that_stops_gives_its_place_back() {
    let mut world = World::new();
    world.topic.judged(|event| Fate::Taken(u64::from(event.seq) * 40));
    let mut first = world.replica();
    world.place(5).await;
    world.written(3).await;
    let second = world.replica();
    first.stop.cancel();
    first.tasks.join_next().await.expect("ends").expect("no panic");
    assert!(world.topic.messages().len() >= 10, "the set under way was ended");
    world.place(5).await;
    let (took, repeats) = world.settled().await;
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert_eq!((repeats, &*second.metric("events_produced_total")), (0, "10"));
    assert_eq!(first.metric("events_behind_seconds"), "NaN");
}
