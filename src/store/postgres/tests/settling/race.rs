//! Sessions that write events side by side and end in any order, some of them in vain.

use std::sync::atomic::{AtomicUsize, Ordering};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use sqlx::Row as _;
use tokio::{task::JoinSet, time::sleep};

use super::*;
use crate::order::FeedEvent;

const WRITERS: usize = 6;
const TRANSACTIONS: usize = 60;
const ORDERS: usize = 10;

/// Steps of one session, on orders that others move too.
async fn write(mut session: PgConnection, order_ids: Arc<[OrderId]>, mut random: StdRng) {
    for _ in 0..TRANSACTIONS {
        step(&mut session, order_ids[random.random_range(0..order_ids.len())]).await;
        if random.random_ratio(1, 10) {
            run(&mut session, "SELECT nextval('order_events_id_seq')").await.expect("draws in vain");
        }
        // Most are over at once, so that few beside it hide one that is not.
        if random.random_ratio(1, 4) {
            sleep(Duration::from_millis(random.random_range(0..30))).await;
        }
        let end = if random.random_ratio(1, 6) { "ROLLBACK" } else { "COMMIT" };
        run(&mut session, end).await.expect(end);
        if random.random_ratio(1, 4) {
            sleep(Duration::from_millis(random.random_range(0..10))).await;
        }
    }
}

/// New orders beside them, by the service's own verb.
async fn arrive(store: Arc<PgStore>, mut random: StdRng) {
    for _ in 0..TRANSACTIONS {
        let orders: Vec<NewOrder> = (0..random.random_range(1..4)).map(|_| new_order()).collect();
        store.place(&orders, Outbox::Anyones).await.expect("places");
    }
}

/// Reads on from a cursor at any of these replicas, page by page, until nobody writes and nothing is left.
async fn follow(
    replicas: Vec<Arc<PgStore>>,
    writing: Arc<AtomicUsize>,
    mut random: StdRng,
) -> Vec<FeedEvent> {
    let (mut read, mut after) = (Vec::new(), Cursor::START);
    loop {
        let is_over = writing.load(Ordering::Acquire) == 0;
        let store = &replicas[random.random_range(0..replicas.len())];
        let horizon = store.horizon().await.expect("looks");
        while after < horizon.settled {
            let (span, limit) = (Span { after, upto: horizon.settled }, random.random_range(1..40));
            let page = store.events(&FeedQuery { span, event: None, limit }).await.expect("reads");
            after = if page.more { page.examined.expect("something came") } else { horizon.settled };
            read.extend(page.events);
        }
        if is_over && after == horizon.last {
            return read;
        }
    }
}

/// Promise 8: who was away misses nothing. Whoever reads up to the horizon, at one replica or at several in turn, reads
/// every event that was committed, once, and those of an order in their order.
#[tokio::test]
#[cfg_attr(not(with_postgres), ignore = "left out: needs PG_DSN")]
async fn every_event_is_read_once_whenever_it_commits() {
    let seed: u64 = rand::random();
    let mut random = StdRng::seed_from_u64(seed);
    let mut more = || StdRng::seed_from_u64(random.random());
    let (database, store) = replica().await;
    let clock = Arc::new(ManualClock::new(start()));
    let other = database.replica(&clock).await;
    let mut order_ids = Vec::new();
    for _ in 0..ORDERS {
        order_ids.push(place(&store).await);
    }
    let (order_ids, writing): (Arc<[OrderId]>, _) = (order_ids.into(), Arc::new(AtomicUsize::new(1)));
    let mut readers = JoinSet::new();
    for replicas in [vec![store.clone()], vec![other.clone()], vec![store.clone(), other.clone()]] {
        readers.spawn(follow(replicas, Arc::clone(&writing), more()));
    }
    let mut writers = JoinSet::new();
    for _ in 0..WRITERS {
        writers.spawn(write(console(&database).await, Arc::clone(&order_ids), more()));
    }
    writers.spawn(arrive(Arc::clone(&other), more()));
    writers.spawn(reports::tell(Arc::clone(&store), Arc::clone(&order_ids), more(), TRANSACTIONS));
    while let Some(writer) = writers.join_next().await {
        writer.expect("writes");
    }
    writing.store(0, Ordering::Release);

    let mut console = console(&database).await;
    let rows = sqlx::query("SELECT id, order_id, seq FROM order_events ORDER BY id");
    let rows = rows.fetch_all(&mut console).await.expect("reads");
    let written: Vec<(i64, String, i32)> =
        rows.iter().map(|row| (row.get("id"), row.get("order_id"), row.get("seq"))).collect();
    assert!(written.len() > 400, "{}", written.len());
    while let Some(read) = timeout(PATIENCE, readers.join_next()).await.expect("comes to an end") {
        let seq = |event: &FeedEvent| i32::try_from(event.seq).expect("small");
        let read = read.expect("reads");
        let read: Vec<_> =
            read.iter().map(|event| (event.cursor.0, event.order_id.to_string(), seq(event))).collect();
        assert_eq!(read, written, "seed {seed}");
    }
    for order_id in order_ids.iter().map(OrderId::to_string) {
        let seqs: Vec<i32> = written.iter().filter(|row| row.1 == order_id).map(|row| row.2).collect();
        assert!(seqs.iter().copied().eq((1..).take(seqs.len())), "seed {seed}, {order_id}: {seqs:?}");
    }
}
