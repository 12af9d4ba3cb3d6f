//! Subscribers, places and the poller in virtual time.

use super::*;
use crate::{
    store::{
        OrderStore as _, Outbox,
        conformance::new_orders,
        memory::{Database, MemoryStore},
    },
    time::VirtualClock,
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
        let notifier = Notifier::new(here.clone(), OrderLoader::new(here), 2, stop.clone());
        tokio::spawn(Arc::clone(&notifier).poll());
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

fn positions(news: Option<Result<Vec<Event>, StoreError>>) -> Vec<u8> {
    news.expect("goes on").expect("reads").iter().map(|event| event.event.seq()).collect()
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

/// Each step of a whole life, made elsewhere a moment after it was due.
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

/// The store is asked once when somebody comes, and then not before the step is due.
#[tokio::test(start_paused = true)]
async fn an_idle_follower_costs_nothing() {
    let t = World::new().await;
    let subscribers = (t.notifier.subscribe(t.order_id, None), t.notifier.subscribe(t.order_id, None));
    sleep(Duration::from_millis(2_900)).await;
    assert_eq!(t.looks(), 1);
    sleep(Duration::from_secs(1)).await;
    assert!((4..=6).contains(&t.looks()), "due and not made: {}", t.looks());
    drop(subscribers);
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

/// Promise 5: memory, queues and time are bounded.
#[tokio::test(start_paused = true)]
async fn places_are_limited_and_given_back() {
    let t = World::new().await;
    let follow = |client| t.notifier.subscribe(t.order_id, client);
    let (first, second) = (follow(None), follow(None));
    assert!(second.is_ok());
    assert_eq!(follow(None).err(), Some(NoPlace::ForAnybody));
    drop(first);
    assert!(follow(None).is_ok());
    drop(second);
    assert_eq!((t.notifier.subscribers(), t.notifier.orders().followed.len()), (0, 0));
}

/// Promise 5: memory, queues and time are bounded. One client leaves half of the places to others.
#[tokio::test(start_paused = true)]
async fn a_client_has_at_most_half_of_the_places() {
    let t = World::new().await;
    let follow = |last| t.notifier.subscribe(t.order_id, Some(IpAddr::from([192, 0, 2, last])));
    let greedy = follow(1).expect("a place");
    assert_eq!(follow(1).err(), Some(NoPlace::ForThisClient));
    let other = follow(2).expect("the others have theirs");
    assert_eq!(follow(1).err(), Some(NoPlace::ForAnybody));
    drop(greedy);
    assert!(follow(1).is_ok());
    drop(other);
    assert_eq!((t.notifier.subscribers(), t.notifier.orders().clients.len()), (0, 0));
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
}
