//! One story: replicas, customers, trouble, and the check at the end.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use chrono::TimeDelta;
use futures::future::OptionFuture;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep},
};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    super::start,
    customers::{Following, customer},
    feed::{self, FeedReader, Way},
    frozen::Freezer,
    kitchens::Reporter,
    topic::{Client, Lame, Member, PARTITIONS, Topic},
};
use crate::{
    broker::{IN_FLIGHT, Publisher},
    order::{
        AuditedOrder, Cursor, Event, FeedEvent, OrderId, OrderPlaced, Rules, StageDelays, Start, Status,
    },
    pipeline::{
        BatchWriter, Consumer, Relay, ReportWriter, Scheduler,
        tests::doubles::{Fate, Troubled},
    },
    store::{
        Insight as _, OrderStore as _, Portion, Store,
        memory::{Database, MemoryStore, transaction::Course},
    },
    telemetry::{
        health::{HealthRegistry, Part},
        metrics::Metrics,
    },
    time::{Alarm, VirtualClock},
    tracker::{self, EventReader, Feed, Notifier, OrderLoader, PlaceQueue, Places, ReportQueue, Transitions},
};

const DELAYS_MS: [u64; 3] = [0, 300, 2_000];
const ORDERS: usize = 12;
/// How long trouble may last, in milliseconds of the story.
pub(super) const TROUBLE: u64 = 20_000;

/// What may go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Faults {
    None,
    Any,
}

/// A running replica; dropping it is kill -9.
pub(super) struct Replica {
    pub(super) queue: PlaceQueue,
    pub(super) reports: ReportQueue,
    pub(super) notifier: Arc<Notifier>,
    pub(super) feed: Arc<Feed>,
    freezer: Freezer,
    _tasks: JoinSet<()>,
    /// Ends those who follow here.
    _gone: DropGuard,
}

pub(super) type Replicas = Arc<Mutex<Vec<Option<Replica>>>>;

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
        let (end, readers) = self.read_the_feed();
        let mut customers = JoinSet::new();
        for n in 0..ORDERS {
            let (replicas, seed) = (Arc::clone(&self.replicas), self.random.random());
            let (view, late, reported) = (self.view(), self.late(), self.random.random_ratio(1, 2));
            customers.spawn(async move {
                let (order_id, replicas) = customer(n, Arc::clone(&replicas), seed).await;
                let (following, over) = Following::new(order_id, Arc::clone(&replicas), seed, view, late);
                let kitchen = async {
                    let kitchen = reported.then(|| Reporter::new(order_id, replicas, seed).run());
                    let told = OptionFuture::from(kitchen).await;
                    over.send_replace(true);
                    told
                };
                let (told, ()) = tokio::join!(kitchen, following.run());
                (n, Accepted { order_id, told })
            });
        }
        if self.trouble == Faults::Any {
            self.make_trouble().await;
        }
        let mut accepted = HashMap::new();
        while let Some(order) = customers.join_next().await {
            let (n, order) = order.expect("no panic");
            accepted.insert(n, order);
        }
        self.come_to_rest().await;
        let written = self.check(&accepted).await;
        let all = feed::all_events(&self.view()).await;
        assert_eq!(all.len(), written);
        end.send_replace(all.last().map(|last| last.cursor));
        for told in readers.join_all().await {
            feed::check(&told, &all);
        }
    }

    /// Some that follow everything from the beginning, to an end that is told.
    fn read_the_feed(&mut self) -> (watch::Sender<Option<Cursor>>, JoinSet<Vec<FeedEvent>>) {
        let (end, mut readers) = (watch::Sender::new(None), JoinSet::new());
        for way in [Way::Stream, Way::Pages] {
            let (view, late, luck) = (self.view(), self.late(), self.random.random());
            let (replicas, last) = (Arc::clone(&self.replicas), end.subscribe());
            readers.spawn(FeedReader { way, replicas, luck, view, late, last }.run());
        }
        (end, readers)
    }

    /// How transactions go: some stay open for as long as three seconds, and some of them are in vain.
    fn courses(&mut self) -> impl FnMut() -> Course + Send + 'static {
        let mut random = StdRng::seed_from_u64(self.random.random());
        let (begun, late) = (self.begun, if self.trouble == Faults::None { 0 } else { self.topic.wrong });
        move || {
            let strikes =
                begun.elapsed() < Duration::from_millis(TROUBLE) && random.random_range(0..1_000) < 2 * late;
            if !strikes {
                return Course::default();
            }
            let open = Duration::from_millis(random.random_range(0..3_000));
            Course { open, in_vain: random.random_ratio(1, 4) }
        }
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
        let view = self.view().with_courses(self.courses());
        let store: Arc<dyn Store> = Arc::new(Troubled::with(Arc::new(view), fate));
        let (queue, requests) = tracker::place_queue();
        let (reports, batches) = tracker::report_queue();
        let (fresh_in, fresh) = mpsc::channel(self.random.random_range(1..20));
        let (receipts_in, receipts) = mpsc::channel(IN_FLIGHT);
        let publisher: Arc<dyn Publisher> =
            Arc::new(Client { topic: self.topic.clone(), receipts: receipts_in });
        let (alarm, metrics) = (Arc::new(Alarm::default()), Arc::clone(&self.metrics));
        let stop = CancellationToken::new();
        let gone = CancellationToken::new();
        let places = Places::new(ORDERS, gone.clone());
        let loader = OrderLoader::new(store.clone());
        let notifier = Notifier::new(loader, Arc::clone(&places));
        let feed = Feed::new(store.clone(), places);
        let transitions = Transitions::new(notifier.clone(), metrics.clone(), alarm.clone());
        let reader = EventReader {
            log: store.clone(),
            notifier: notifier.clone(),
            feed: feed.clone(),
            metrics: metrics.clone(),
        };
        let (mint, parts) = (Arc::default(), HealthRegistry::default());
        let writer = |requests, seed| BatchWriter {
            requests,
            store: store.clone(),
            fresh: fresh_in.clone(),
            transitions: transitions.clone(),
            start: Start::timer(self.delay),
            clock: self.clock.clone(),
            metrics: metrics.clone(),
            mint: Arc::clone(&mint),
            random: StdRng::seed_from_u64(seed),
            hurry: stop.clone(),
            portion: Portion::new(512),
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
        let consumer = Consumer::new(
            member,
            store.clone(),
            publisher,
            transitions.clone(),
            metrics.clone(),
            Start::timer(self.delay),
        );
        let (freezer, mut tasks) = (Freezer::new(), JoinSet::new());
        tasks.spawn(freezer.run(writer(requests.keyless, self.random.random()).run()));
        tasks.spawn(freezer.run(writer(requests.keyed, self.random.random()).run()));
        let report_writer = ReportWriter::new(
            batches,
            store.clone(),
            Rules { delays: StageDelays::uniform(self.delay), ..Rules::default() },
            transitions.clone(),
            metrics.clone(),
            stop.clone(),
        );
        tasks.spawn(freezer.run(report_writer.run()));
        drop(fresh_in);
        tasks.spawn(freezer.run(relay.run(parts.reporter(Part::Relay))));
        tasks.spawn(freezer.run(consumer.run(stop.clone(), parts.reporter(Part::Consumer))));
        tasks.spawn(freezer.run(reader.run(stop.clone())));
        let scheduler = Scheduler::new(store, alarm, transitions, metrics, StageDelays::uniform(self.delay));
        tasks.spawn(freezer.run(scheduler.run(stop, parts.reporter(Part::Scheduler))));
        Replica { queue, reports, notifier, feed, freezer, _tasks: tasks, _gone: gone.drop_guard() }
    }

    /// Kills and freezes replicas, starts new ones, and puts strange messages on the topic.
    async fn make_trouble(&mut self) {
        let mut left = TROUBLE;
        while left > 0 {
            let pause = self.random.random_range(100..4_000).min(left);
            left -= pause;
            sleep(Duration::from_millis(pause)).await;
            match self.random.random_range(0..4) {
                0 => self.topic.append(b"others", b"not an order"),
                1 => {
                    let copy = self.topic.log.lock().expect("no panic").first().cloned();
                    if let Some((key, value)) = copy {
                        self.topic.append(&key, &value);
                    }
                }
                2 => self.freeze(),
                _ => {
                    let victim = self.victim();
                    drop(self.replicas.lock().expect("no panic")[victim].take());
                    sleep(Duration::from_millis(self.random.random_range(0..2_000))).await;
                    let successor = self.give_birth();
                    self.replicas.lock().expect("no panic")[victim] = Some(successor);
                }
            }
        }
    }

    fn victim(&mut self) -> usize {
        let count = self.replicas.lock().expect("no panic").len();
        self.random.random_range(0..count)
    }

    /// Stops a replica for as long as ten seconds.
    fn freeze(&mut self) {
        let (victim, pause) = (self.victim(), Duration::from_millis(self.random.random_range(0..10_000)));
        let replicas = self.replicas.lock().expect("no panic");
        let Some(freezer) = replicas[victim].as_ref().map(|replica| replica.freezer.clone()) else { return };
        freezer.freeze();
        tokio::spawn(async move {
            sleep(pause).await;
            freezer.thaw();
        });
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

    /// Answers how many events there are.
    async fn check(&mut self, accepted: &HashMap<usize, Accepted>) -> usize {
        let view = self.view();
        let page = view.audit(None, usize::MAX).await.expect("reads");
        assert_eq!(page.orders.len(), ORDERS, "each order once");
        for order in &page.orders {
            assert_eq!(order.violations(page.now), [], "{order:?}");
            let told = accepted.values().find(|accepted| accepted.order_id == order.order_id);
            match told.and_then(|accepted| accepted.told.as_ref()) {
                Some(told) => check_reported(&view, order.order_id, told).await,
                None => self.check_plain(order),
            }
        }
        let stored: HashSet<OrderId> = page.orders.iter().map(|order| order.order_id).collect();
        assert_eq!(
            accepted.values().map(|accepted| accepted.order_id).collect::<HashSet<_>>(),
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
        page.orders.iter().map(|order| order.events.len()).sum()
    }

    /// An order that only timers have moved.
    fn check_plain(&self, order: &AuditedOrder) {
        assert_eq!((order.status, order.events.len()), (Status::Delivered, 6));
        let stamps =
            order.events[1..].windows(2).map(|pair| (pair[1].timestamp - pair[0].timestamp).to_std());
        assert!(stamps.into_iter().all(|gap| gap.expect("forward") >= self.delay), "early: {order:?}");
    }
}

/// What an accepted order's customer and kitchen were told.
struct Accepted {
    order_id: OrderId,
    /// The events of each report that was said to have happened, where somebody reported.
    told: Option<Vec<Vec<Event>>>,
}

/// Of an order that somebody reported of: what was told is there as it was told, and each report once.
async fn check_reported(view: &MemoryStore, order_id: OrderId, told: &[Vec<Event>]) {
    let found = view.find(order_id).await.expect("reads").expect("is stored");
    assert!(found.order.status.is_final(), "{found:?}");
    for events in told {
        let first = usize::try_from(events[0].seq).expect("small") - 1;
        assert_eq!(found.events[first..][..events.len()], events[..], "{order_id}");
    }
    let mut stations = HashSet::new();
    for event in &found.events {
        if let Some(station) = event.meta.as_ref().and_then(|meta| meta.get("station")) {
            assert!(stations.insert(station), "reported twice: {event:?}");
        }
    }
    assert!(stations.len() >= told.len(), "{found:?}");
}
