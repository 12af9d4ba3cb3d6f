//! Pages, followers and the reader in virtual time.

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    order::{OrderId, StageDelays, Status, Timestamp},
    store::{
        Due, OrderStore as _, Outbox, Store,
        conformance::new_orders,
        memory::{Database, Log, MemoryStore},
    },
    telemetry::metrics::Metrics,
    time::VirtualClock,
    tracker::{Notifier, OrderLoader},
};

struct World {
    feed: Arc<Feed>,
    notifier: Arc<Notifier>,
    store: Arc<MemoryStore>,
    database: Arc<Mutex<Database>>,
    _stop: tokio_util::sync::DropGuard,
}

impl World {
    fn new() -> Self {
        let database = Arc::default();
        let at = "2026-01-02T03:04:05Z".parse().expect("a moment");
        let store = Arc::new(MemoryStore::new(Arc::clone(&database), Arc::new(VirtualClock::new(at)), 1));
        let (log, stop): (Arc<dyn Store>, _) = (store.clone(), CancellationToken::new());
        let places = Places::new(2, stop.clone());
        let loader = OrderLoader::new(log.clone());
        let notifier = Notifier::new(loader, Arc::clone(&places));
        let feed = Feed::new(log.clone(), places);
        let metrics = Arc::new(Metrics::new());
        let reader = EventReader { log, notifier: Arc::clone(&notifier), feed: Arc::clone(&feed), metrics };
        tokio::spawn(reader.run(stop.clone()));
        Self { feed, notifier, store, database, _stop: stop.drop_guard() }
    }

    async fn place(&self, orders: u64) {
        self.store.place(&new_orders(orders), Outbox::Mine).await.expect("places");
    }

    async fn step(&self, order_id: OrderId) {
        let delays = StageDelays::default();
        let advance = self.store.advance_due(Due::Alone(order_id), &delays).await.expect("advances");
        assert_eq!(advance.transitions.len(), 1);
    }

    /// Draws an id as a transaction does that has not ended.
    fn draw(&self) -> i64 {
        self.database.lock().expect("no panic").log.draw()
    }

    fn end(&self, id: i64, event: Option<FeedEvent>) {
        self.database.lock().expect("no panic").log.end(id, event);
    }

    async fn all(&self, limit: usize) -> Vec<i64> {
        let (mut found, mut after) = (Vec::new(), Cursor::START);
        loop {
            let page = self.feed.page(after, None, limit).await.expect("reads");
            found.extend(ids(&page.events));
            after = page.next;
            if page.caught_up {
                return found;
            }
        }
    }
}

fn ids(events: &[FeedEvent]) -> Vec<i64> {
    events.iter().map(|event| event.cursor.0).collect()
}

fn event(id: i64, order_id: OrderId, seq: u32) -> FeedEvent {
    FeedEvent::new(
        (Cursor(id), order_id, seq),
        EventKind::Reached(Status::Preparing),
        Timestamp::UNIX_EPOCH,
        None,
    )
}

#[tokio::test(start_paused = true)]
async fn pages_hold_every_event_once() {
    let t = World::new();
    t.place(50).await;
    for limit in [1, 7, 100, 1_000] {
        assert_eq!(t.all(limit).await, (1..=100).collect::<Vec<_>>(), "{limit}");
    }
    let page = t.feed.page(Cursor(98), None, 2).await.expect("reads");
    assert_eq!((page.next, page.caught_up), (Cursor(100), true), "nothing is left");
    let created = t.feed.page(Cursor(90), Some(EventKind::Created), 3).await.expect("reads");
    assert_eq!(
        (ids(&created.events), created.next, created.caught_up),
        (vec![91, 93, 95], Cursor(95), false)
    );
    assert_eq!(t.feed.now().await, Ok(Cursor(100)));
    assert_eq!(t.feed.page(Cursor(101), None, 1).await, Err(FeedError::Ahead(Cursor(100))));
}

/// Promise 8: who was away misses nothing. An event that commits late is not passed over.
#[tokio::test(start_paused = true)]
async fn a_cursor_waits_for_what_commits_late() {
    let t = World::new();
    t.place(1).await;
    let late = t.draw();
    t.place(1).await;
    let mut follower = t.feed.follow(Cursor::START, None, None).expect("a place");
    assert_eq!(ids(&follower.news(100).await.expect("reads")), [1, 2]);
    let (news, ()) = tokio::join!(follower.news(100), async {
        sleep(Duration::from_secs(3)).await;
        t.end(late, Some(event(late, new_orders(1)[0].order_id, 1)));
    });
    assert_eq!(ids(&news.expect("reads")), [3, 4, 5]);
    // An id that was drawn in vain is waited for as well, and holds nothing up afterwards.
    let vain = t.draw();
    t.place(1).await;
    let (news, ()) = tokio::join!(follower.news(100), async {
        sleep(Duration::from_secs(3)).await;
        t.end(vain, None);
    });
    assert_eq!(ids(&news.expect("reads")), [7, 8]);
    // As is one behind which nothing came at first.
    let vain = t.draw();
    t.end(vain, None);
    sleep(Duration::from_secs(1)).await;
    let (news, ()) = tokio::join!(follower.news(100), async {
        sleep(Duration::from_secs(3)).await;
        t.place(1).await;
    });
    assert_eq!(ids(&news.expect("reads")), [10, 11]);
    assert_eq!(t.all(3).await, [1, 2, 3, 4, 5, 7, 8, 10, 11]);
}

/// A transaction left open elsewhere freezes no page: who follows an order is told of what can be seen.
#[tokio::test(start_paused = true)]
async fn orders_are_followed_while_the_horizon_is_held_back() {
    let t = World::new();
    let orders = new_orders(2);
    t.store.place(&orders, Outbox::Mine).await.expect("places");
    let mut subscribers =
        orders.iter().map(|order| t.notifier.subscribe(order.order_id, None).expect("a place"));
    let (mut one, mut other) = (subscribers.next().expect("two"), subscribers.next().expect("two"));
    sleep(Duration::from_secs(1)).await;
    // Somebody else's, which never ends; and the id of a step that commits late.
    let (_open, late) = (t.draw(), t.draw());
    sleep(Duration::from_secs(2)).await;
    t.step(orders[1].order_id).await;
    let asked = Instant::now();
    assert_eq!(other.news(2).await.expect("goes on").expect("reads").len(), 1);
    assert!(asked.elapsed() < Duration::from_millis(300), "{:?}", asked.elapsed());

    t.step(orders[0].order_id).await;
    t.end(late, Some(event(late, orders[0].order_id, 3)));
    let asked = Instant::now();
    assert_eq!(one.news(2).await.expect("goes on").expect("reads").len(), 1);
    assert!(asked.elapsed() < Duration::from_millis(300), "{:?}", asked.elapsed());
    assert_eq!(t.feed.now().await, Ok(Cursor(4)), "cursors wait");
}

/// Promise 5: memory, queues and time are bounded. Very many ids that were drawn in vain beside a transaction that stays open stop nobody.
#[tokio::test(start_paused = true)]
async fn a_storm_of_gaps_stops_nobody() {
    let t = World::new();
    let orders = new_orders(1);
    t.store.place(&orders, Outbox::Mine).await.expect("places");
    let mut subscriber = t.notifier.subscribe(orders[0].order_id, None).expect("a place");
    sleep(Duration::from_secs(1)).await;
    let open = t.draw();
    for _ in 0..1_500 {
        t.place(1).await;
        let vain = t.draw();
        t.end(vain, None);
    }
    sleep(Duration::from_secs(2)).await;
    t.step(orders[0].order_id).await;
    let asked = Instant::now();
    assert_eq!(subscriber.news(2).await.expect("goes on").expect("reads").len(), 1);
    assert!(asked.elapsed() < Duration::from_millis(300), "{:?}", asked.elapsed());
    t.end(open, None);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(t.feed.now().await, Ok(Cursor(2 + 1 + 1_500 * 3 + 1)));
}

/// A database that is of an earlier time again, as after a failover: its ids begin anew, and are told of.
#[tokio::test(start_paused = true)]
async fn ids_that_begin_anew_are_heard_of() {
    let t = World::new();
    t.place(20).await;
    let order = new_orders(1);
    sleep(Duration::from_secs(3)).await;
    let mut follower = t.feed.follow_inside(Cursor(5), None);
    assert_eq!(follower.news(100).await.expect("reads").len(), 35);
    t.database.lock().expect("no panic").log = Log::default();
    t.store.place(&order, Outbox::Mine).await.expect("places");
    let mut subscriber = t.notifier.subscribe(order[0].order_id, None).expect("a place");
    sleep(Duration::from_secs(4)).await;
    t.step(order[0].order_id).await;
    let asked = Instant::now();
    assert_eq!(subscriber.news(2).await.expect("goes on").expect("reads").len(), 1);
    assert!(asked.elapsed() < Duration::from_millis(300), "{:?}", asked.elapsed());
    assert_eq!(t.all(2).await, [1, 2, 3]);
}

/// Whoever follows closely reads from memory: one query serves all, and none is made where nothing happens.
#[tokio::test(start_paused = true)]
async fn the_reader_sleeps_while_nobody_asks() {
    let t = World::new();
    t.place(1).await;
    t.feed.page(Cursor::START, None, 1).await.expect("reads");
    sleep(LINGER + Duration::from_secs(1)).await;
    let looks = || t.database.lock().expect("no panic").looks;
    let before = looks();
    sleep(Duration::from_mins(10)).await;
    assert_eq!(looks(), before);
    let mut follower = t.feed.follow_inside(Cursor(2), None);
    sleep(Duration::from_mins(1)).await;
    assert!(looks() - before <= 241, "{}", looks() - before);
    t.place(1).await;
    assert_eq!(ids(&follower.news(9).await.expect("reads")), [3, 4]);
}

/// Many looks a second would cost more than they tell.
#[tokio::test(start_paused = true)]
async fn there_are_at_most_twenty_looks_a_second() {
    let t = World::new();
    let _follower = t.feed.follow_inside(Cursor::START, None);
    sleep(Duration::from_secs(1)).await;
    let before = t.database.lock().expect("no panic").looks;
    for _ in 0..1_000 {
        t.place(1).await;
        t.feed.places.wake_reader();
        sleep(Duration::from_millis(1)).await;
    }
    let looks = t.database.lock().expect("no panic").looks - before;
    assert!((15..=21).contains(&looks), "{looks}");
}

#[tokio::test(start_paused = true)]
async fn trouble_is_told_to_who_asks_and_only_delays_who_waits() {
    let t = World::new();
    t.place(1).await;
    t.database.lock().expect("no panic").away = true;
    let error = t.feed.page(Cursor::START, None, 9).await.expect_err("away");
    assert!(matches!(error, FeedError::Store(StoreError::Unavailable(_))), "{error:?}");
    let mut follower = t.feed.follow_inside(Cursor::START, None);
    let (news, ()) = tokio::join!(follower.news(9), async {
        sleep(Duration::from_secs(9)).await;
        t.database.lock().expect("no panic").away = false;
    });
    assert_eq!(ids(&news.expect("reads")), [1, 2]);
}
