//! Subscribers and the reader of events in virtual time.

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    store::{
        OrderStore as _, Outbox, Store,
        conformance::new_orders,
        memory::{Database, MemoryStore},
    },
    telemetry::metrics::Metrics,
    time::VirtualClock,
    tracker::{EventReader, Feed},
};

/// One order, 3 s before its first step.
struct World {
    notifier: Arc<Notifier>,
    /// Another replica.
    elsewhere: MemoryStore,
    database: Arc<Mutex<Database>>,
    order_id: OrderId,
    stop: CancellationToken,
}

impl World {
    async fn new() -> Self {
        let database = Arc::default();
        let at = "2026-01-02T03:04:05Z".parse().expect("a moment");
        let clock = Arc::new(VirtualClock::new(at));
        let replica = |n| MemoryStore::new(Arc::clone(&database), clock.clone(), n);
        let here: Arc<dyn Store> = Arc::new(replica(1));
        let (elsewhere, stop) = (replica(2), CancellationToken::new());
        let orders = new_orders(1);
        let order_id = orders[0].order_id;
        elsewhere.place(&orders, Outbox::Mine).await.expect("places");
        let places = Places::new(2, stop.clone());
        let loader = OrderLoader::new(here.clone());
        let notifier = Notifier::new(loader, Arc::clone(&places));
        let feed = Feed::new(here.clone(), places);
        let metrics = Arc::new(Metrics::new());
        let reader = EventReader { log: here, notifier: Arc::clone(&notifier), feed, metrics };
        tokio::spawn(reader.run(stop.clone()));
        Self { notifier, elsewhere, database: Arc::clone(&database), order_id, stop }
    }

    fn looks(&self) -> usize {
        self.database.lock().expect("no panic").looks
    }

    fn away(&self, away: bool) {
        self.database.lock().expect("no panic").away = away;
    }
}

async fn timed<T>(work: impl Future<Output = T>) -> (T, u128) {
    let started = Instant::now();
    (work.await, started.elapsed().as_millis())
}

fn positions(news: Option<Result<Vec<Event>, StoreError>>) -> Vec<u32> {
    news.expect("goes on").expect("reads").iter().map(|event| event.seq).collect()
}

#[tokio::test(start_paused = true)]
async fn a_step_made_here_rings_at_once() {
    let t = World::new().await;
    let mut subscriber = t.notifier.subscribe(t.order_id, None).expect("a place");
    sleep(Duration::from_secs(3)).await;
    let transitions = t.elsewhere.advance(9).await.expect("advances").transitions;
    t.notifier.committed(&transitions);
    let (news, took) = timed(subscriber.news(2)).await;
    assert_eq!((positions(news), took), (vec![3], 0));
}

/// Each step of a whole life, made elsewhere at any moment.
#[tokio::test(start_paused = true)]
async fn a_step_made_elsewhere_is_seen_in_time() {
    let t = World::new().await;
    let mut subscriber = t.notifier.subscribe(t.order_id, None).expect("a place");
    for (seen, delay) in [(2, 3_000), (3, 5_000), (4, 7_000), (5, 10_000)] {
        let late = 37 * u64::from(seen);
        let step = async {
            sleep(Duration::from_millis(delay + late)).await;
            assert_eq!(t.elsewhere.advance(9).await.expect("advances").transitions.len(), 1);
            Instant::now()
        };
        let (news, made) = tokio::join!(subscriber.news(seen), step);
        assert_eq!(positions(news), [seen + 1]);
        assert!(made.elapsed() < Duration::from_millis(300), "{:?}", made.elapsed());
    }
}

/// What was committed between a follower's reading and the reader's first look is not told one by one.
#[tokio::test(start_paused = true)]
async fn a_step_made_while_the_reader_wakes_is_seen() {
    let t = World::new().await;
    sleep(Duration::from_secs(3)).await;
    let mut subscriber = t.notifier.subscribe(t.order_id, None).expect("a place");
    // The timeline was read here, up to 2; the reader has not looked yet.
    assert_eq!(t.elsewhere.advance(9).await.expect("advances").transitions.len(), 1);
    let (news, took) = timed(subscriber.news(2)).await;
    assert_eq!(positions(news), [3]);
    assert!(took < 300, "{took} ms");
}

/// The database is asked four times a second while somebody follows, however many do, and not at all otherwise.
#[tokio::test(start_paused = true)]
async fn followers_share_a_few_looks_a_second() {
    let t = World::new().await;
    sleep(Duration::from_mins(10)).await;
    assert_eq!(t.looks(), 0, "nobody follows");
    let subscribers = (t.notifier.subscribe(t.order_id, None), t.notifier.subscribe(t.order_id, None));
    sleep(Duration::from_secs(2)).await;
    let first = t.looks();
    sleep(Duration::from_secs(10)).await;
    assert!((38..=41).contains(&(t.looks() - first)), "{}", t.looks() - first);
    drop(subscribers);
    sleep(Duration::from_secs(1)).await;
    let asked = t.looks();
    sleep(Duration::from_mins(10)).await;
    assert_eq!(t.looks(), asked);
}

#[tokio::test(start_paused = true)]
async fn trouble_only_delays() {
    let t = World::new().await;
    let mut subscriber = t.notifier.subscribe(t.order_id, None).expect("a place");
    sleep(Duration::from_millis(2_500)).await;
    t.away(true);
    sleep(Duration::from_secs(5)).await;
    t.elsewhere.advance(9).await.expect("advances");
    let back = async {
        sleep(Duration::from_secs(5)).await;
        t.away(false);
        Instant::now()
    };
    let (news, back) = tokio::join!(subscriber.news(2), back);
    assert_eq!(positions(news), [3]);
    assert!(back.elapsed() < Duration::from_secs(1), "{:?}", back.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_stop_ends_every_wait() {
    let t = World::new().await;
    let mut subscriber = t.notifier.subscribe(t.order_id, None).expect("a place");
    t.away(true);
    let (news, ()) = tokio::join!(timed(subscriber.news(2)), async {
        sleep(Duration::from_mins(1)).await;
        t.stop.cancel();
    });
    assert!(matches!(news, (None, 60_000)), "{news:?}");
    drop(subscriber);
    assert_eq!((t.notifier.subscribers(), t.notifier.is_followed()), (0, false));
}
