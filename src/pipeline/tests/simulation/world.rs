//! One story: replicas, customers, trouble, and the check at the end.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use chrono::TimeDelta;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tokio::{
    sync::{Notify, mpsc},
    task::JoinSet,
    time::{Instant, sleep},
};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    super::{details, start},
    topic::{Client, Lame, Member, PARTITIONS, Topic},
};
use crate::{
    broker::{IN_FLIGHT, Publisher},
    order::{OrderId, OrderPlaced, StageDelays, Status},
    pipeline::{
        BatchWriter, Consumer, Relay, Scheduler,
        tests::doubles::{Fate, Troubled},
    },
    store::{
        Insight as _, OrderStore as _, Store,
        memory::{Database, MemoryStore},
    },
    telemetry::{
        health::{HealthRegistry, Part},
        metrics::Metrics,
    },
    time::{Alarm, VirtualClock},
    tracker::{self, EventReader, Feed, Notifier, OrderLoader, PlaceError, PlaceQueue, Places, Transitions},
};

const DELAYS_MS: [u64; 3] = [0, 300, 2_000];
const ORDERS: usize = 12;
/// How long trouble may last, in milliseconds of the story.
const TROUBLE: u64 = 20_000;

/// What may go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Faults {
    None,
    Any,
}

/// A running replica; dropping it is kill -9.
struct Replica {
    queue: PlaceQueue,
    notifier: Arc<Notifier>,
    _tasks: JoinSet<()>,
    /// Ends those who follow here.
    _gone: DropGuard,
}

type Replicas = Arc<Mutex<Vec<Option<Replica>>>>;

pub(super) struct World {
    random: StdRng,
    trouble: Faults,
    delay: Duration,
    begun: Instant,
    clock: Arc<VirtualClock>,
    database: Arc<Mutex<Database>>,
    topic: Arc<Topic>,
    metrics: Arc<Metrics>,
    replicas: Replicas,
    born: u64,
}

impl World {
    pub(super) fn new(seed: u64, trouble: Faults) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let quiet = trouble == Faults::None;
        let outage_begins = random.random_range(0..TROUBLE / 2);
        let outage =
            if quiet { 0..0 } else { outage_begins..outage_begins + random.random_range(0..TROUBLE / 2) };
        let wrong = if quiet { 0 } else { random.random_range(0..150) };
        let mut lame =
            Lame { partition: random.random_range(0..PARTITIONS), outage: 0..0, known: random.random() };
        if !quiet {
            let begins = random.random_range(0..TROUBLE);
            lame.outage = begins..begins + random.random_range(0..TROUBLE);
        }
        Self {
            topic: Topic::new(random.random(), outage, lame, wrong),
            delay: Duration::from_millis(DELAYS_MS[random.random_range(0..DELAYS_MS.len())]),
            random,
            trouble,
            begun: Instant::now(),
            clock: Arc::new(VirtualClock::new(start())),
            database: Arc::default(),
            metrics: Arc::default(),
            replicas: Arc::default(),
            born: 0,
        }
    }

    /// Lives through the story and checks what is left.
    pub(super) async fn run(mut self) {
        for _ in 0..self.random.random_range(1..=3) {
            let replica = self.give_birth();
            self.replicas.lock().expect("no panic").push(Some(replica));
        }
        let mut customers = JoinSet::new();
        for n in 0..ORDERS {
            let (replicas, seed) = (Arc::clone(&self.replicas), self.random.random());
            let (view, late) = (self.view(), self.late());
            customers.spawn(async move {
                let (n, order_id, replicas) = customer(n, replicas, seed).await;
                follow(order_id, replicas, seed, view, late).await;
                (n, order_id)
            });
        }
        if self.trouble == Faults::Any {
            self.make_trouble().await;
        }
        let mut accepted = HashMap::new();
        while let Some(order) = customers.join_next().await {
            let (n, order_id) = order.expect("no panic");
            accepted.insert(n, order_id);
        }
        self.come_to_rest().await;
        self.check(&accepted).await;
    }

    /// How late a step may be seen, where nothing is in the way.
    fn late(&self) -> Option<TimeDelta> {
        (self.trouble == Faults::None).then_some(TimeDelta::milliseconds(300))
    }

    fn view(&mut self) -> MemoryStore {
        self.born += 1;
        MemoryStore::new(Arc::clone(&self.database), self.clock.clone(), self.born)
    }

    /// Starts the real loops on a store that fails, as long as there is trouble.
    fn give_birth(&mut self) -> Replica {
        let random = Box::new(StdRng::seed_from_u64(self.random.random()));
        let (wrong, begun, until) = (self.topic.wrong, self.begun, u128::from(TROUBLE));
        let fate = Fate::Dice { random, wrong, begun, until };
        let store: Arc<dyn Store> = Arc::new(Troubled::with(Arc::new(self.view()), fate));
        let (queue, requests) = tracker::place_queue();
        let (fresh_in, fresh) = mpsc::channel(self.random.random_range(1..20));
        let (receipts_in, receipts) = mpsc::channel(IN_FLIGHT);
        let publisher: Arc<dyn Publisher> =
            Arc::new(Client { topic: self.topic.clone(), receipts: receipts_in });
        let (alarm, metrics) = (Arc::new(Alarm::default()), Arc::clone(&self.metrics));
        let stop = CancellationToken::new();
        let gone = CancellationToken::new();
        let (places, wake) = (Places::new(ORDERS), Arc::<Notify>::default());
        let notifier =
            Notifier::new(OrderLoader::new(store.clone()), places.clone(), wake.clone(), gone.clone());
        let feed = Feed::new(store.clone(), places, wake.clone());
        let reader = EventReader {
            log: store.clone(),
            notifier: notifier.clone(),
            feed,
            wake: wake.clone(),
            metrics: metrics.clone(),
        };
        let transitions = Transitions::new(notifier.clone(), metrics.clone(), alarm.clone(), wake);
        let (mint, parts) = (Arc::default(), HealthRegistry::default());
        let writer = |requests, seed| BatchWriter {
            requests,
            store: store.clone(),
            fresh: fresh_in.clone(),
            transitions: transitions.clone(),
            first_delay: self.delay,
            clock: self.clock.clone(),
            metrics: metrics.clone(),
            mint: Arc::clone(&mint),
            random: StdRng::seed_from_u64(seed),
            hurry: stop.clone(),
            portion: crate::store::Portion::new(512),
        };
        let relay = Relay::new(
            store.clone(),
            publisher.clone(),
            fresh,
            receipts,
            metrics.clone(),
            self.clock.clone(),
            stop.clone(),
        );
        let member = Box::new(Member::new(self.topic.clone()));
        let consumer =
            Consumer::new(member, store.clone(), publisher, transitions.clone(), metrics.clone(), self.delay);
        let mut tasks = JoinSet::new();
        tasks.spawn(writer(requests.keyless, self.random.random()).run());
        tasks.spawn(writer(requests.keyed, self.random.random()).run());
        drop(fresh_in);
        tasks.spawn(relay.run(parts.reporter(Part::Relay)));
        tasks.spawn(consumer.run(stop.clone(), parts.reporter(Part::Consumer)));
        tasks.spawn(reader.run(gone.clone()));
        tasks.spawn(
            Scheduler::new(store, alarm, transitions, metrics, StageDelays::uniform(self.delay))
                .run(stop, parts.reporter(Part::Scheduler)),
        );
        Replica { queue, notifier, _tasks: tasks, _gone: gone.drop_guard() }
    }

    /// Kills replicas, starts new ones, and puts strange messages on the topic.
    async fn make_trouble(&mut self) {
        let mut left = TROUBLE;
        while left > 0 {
            let pause = self.random.random_range(100..4_000).min(left);
            left -= pause;
            sleep(Duration::from_millis(pause)).await;
            match self.random.random_range(0..3) {
                0 => self.topic.append(b"others", b"not an order"),
                1 => {
                    let copy = self.topic.log.lock().expect("no panic").first().cloned();
                    if let Some((key, value)) = copy {
                        self.topic.append(&key, &value);
                    }
                }
                _ => {
                    let count = self.replicas.lock().expect("no panic").len();
                    let victim = self.random.random_range(0..count);
                    drop(self.replicas.lock().expect("no panic")[victim].take());
                    sleep(Duration::from_millis(self.random.random_range(0..2_000))).await;
                    let successor = self.give_birth();
                    self.replicas.lock().expect("no panic")[victim] = Some(successor);
                }
            }
        }
    }

    /// Waits until all is delivered and published.
    async fn come_to_rest(&mut self) {
        let view = self.view();
        loop {
            let counts = view.count(&Status::ALL).await.expect("reads").orders;
            if Status::open().all(|status| counts[status] == 0)
                && view.backlog().await.expect("reads").unsent == 0
            {
                return;
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    async fn check(&mut self, accepted: &HashMap<usize, OrderId>) {
        let view = self.view();
        let page = view.audit(None, usize::MAX).await.expect("reads");
        assert_eq!(page.orders.len(), ORDERS, "each order once");
        for order in &page.orders {
            assert_eq!(order.violations(page.now), [], "{order:?}");
            assert_eq!((order.status, order.events.len()), (Status::Delivered, 6));
            let stamps =
                order.events[1..].windows(2).map(|pair| (pair[1].timestamp - pair[0].timestamp).to_std());
            assert!(stamps.into_iter().all(|gap| gap.expect("forward") >= self.delay), "early: {order:?}");
        }
        let stored: HashSet<OrderId> = page.orders.iter().map(|order| order.order_id).collect();
        assert_eq!(
            accepted.values().copied().collect::<HashSet<_>>(),
            stored,
            "what was told is what there is"
        );

        let log = self.topic.log.lock().expect("no panic").clone();
        let sent: Vec<OrderId> = log
            .iter()
            .filter_map(|(key, value)| Some(OrderPlaced::parse(Some(key), value).ok()?.order_id))
            .collect();
        assert_eq!(sent.iter().copied().collect::<HashSet<_>>(), stored, "on the topic");
        if self.trouble == Faults::None {
            assert_eq!(sent.len(), ORDERS, "no duplicate without trouble");
        }
    }
}

/// Places one order, again with the same key until it is told an id, at whichever replica lives.
async fn customer(n: usize, replicas: Replicas, seed: u64) -> (usize, OrderId, Replicas) {
    let mut random = StdRng::seed_from_u64(seed);
    sleep(Duration::from_millis(random.random_range(0..TROUBLE))).await;
    loop {
        let queue = {
            let replicas = replicas.lock().expect("no panic");
            let chosen = random.random_range(0..replicas.len());
            replicas[chosen].as_ref().map(|replica| replica.queue.clone())
        };
        let details = details(&format!("customer {n}"));
        let outcome = match queue {
            Some(queue) => queue.place(details, Some(format!("key {n}")), None).await,
            None => Err(PlaceError::Closed),
        };
        match outcome {
            Ok(accepted) => return (n, accepted.order_id, replicas),
            Err(error) => {
                assert!(!matches!(error, PlaceError::KeyReused | PlaceError::Refused(_)), "{error}");
            }
        }
        sleep(Duration::from_millis(random.random_range(50..500))).await;
    }
}

/// Follows an order to its end, at another replica when one dies: each event once, in order and in time.
async fn follow(
    order_id: OrderId,
    replicas: Replicas,
    luck: u64,
    view: MemoryStore,
    late: Option<TimeDelta>,
) {
    let mut random = StdRng::seed_from_u64(luck);
    let mut seen = 0;
    while seen < 6 {
        let notifier = {
            let replicas = replicas.lock().expect("no panic");
            let chosen = random.random_range(0..replicas.len());
            replicas[chosen].as_ref().map(|replica| replica.notifier.clone())
        };
        let Some(notifier) = notifier else {
            sleep(Duration::from_millis(random.random_range(50..500))).await;
            continue;
        };
        let mut subscriber = notifier.subscribe(order_id, None).expect("a place");
        let mut news = Some(view.find(order_id).await.expect("reads").expect("is stored").events);
        news.as_mut().expect("just read").retain(|event| event.event.seq() > seen);
        let mut first = true;
        while let Some(events) = news {
            for event in events {
                assert_eq!(event.event.seq(), seen + 1, "{order_id}");
                seen += 1;
                let age = view.now() - event.timestamp;
                assert!(
                    first || late.is_none_or(|late| age <= late),
                    "{order_id}: {seen} is seen after {age}"
                );
            }
            first = false;
            let next = if seen < 6 { subscriber.news(seen).await } else { None };
            news = next.map(|news| news.expect("reads"));
        }
    }
}
