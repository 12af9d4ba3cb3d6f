//! Replicas beside orders that take longer than any call may, in memory and in virtual time.

use std::{collections::HashSet, sync::Arc, time::Duration};

use rand::{SeedableRng as _, rngs::StdRng};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{
    doubles::{Fate, Troubled},
    new_orders, start,
};
use crate::{
    order::{OrderId, StageDelays, Status, promises::OVERDUE_AFTER},
    pipeline::Scheduler,
    store::{NewOrder, OrderStore as _, Outbox, Store, memory::MemoryStore},
    telemetry::{health::Health, metrics::Metrics},
    time::{Alarm, VirtualClock},
    tracker::Transitions,
};

/// Between two good orders.
const EVERY: Duration = Duration::from_millis(30);
/// Longer than all delays of an order together, and than it takes to find who can't be moved.
const UNTIL_ALL_IS_DONE: Duration = Duration::from_mins(1);

/// Replicas that are placed `good` orders, one after the other, and `slow` ones, `together` in one set and so long one
/// after the other. Answers how late the latest step of a good one was.
async fn latest(replicas: usize, good: usize, slow: (usize, usize, Duration)) -> Duration {
    let (slow, together, apart) = slow;
    let fate =
        Fate::Dice { random: Box::new(StdRng::seed_from_u64(7)), wrong: 0, begun: Instant::now(), until: 0 };
    let memory = MemoryStore::new(Arc::default(), Arc::new(VirtualClock::new(start())), 1);
    let store = Arc::new(Troubled::with(Arc::new(memory), fate));
    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    for _ in 0..replicas {
        let shared: Arc<dyn Store> = store.clone();
        let (alarm, metrics) = (Arc::new(Alarm::default()), Arc::new(Metrics::new()));
        let transitions = Transitions::unfollowed(&shared, Arc::clone(&metrics), Arc::clone(&alarm));
        let scheduler = Scheduler::new(shared, alarm, transitions, metrics, StageDelays::default());
        tasks.spawn(scheduler.run(stop.clone(), watch::channel(Health::Up).0));
    }
    let mut orders = new_orders((good + slow) as u64);
    let slow = orders.split_off(good);
    let marked: HashSet<OrderId> = slow.iter().map(|order| order.order_id).collect();
    *store.stuck.slow.lock().expect("no panic") = marked;
    let sets = slow.chunks(together).map(<[NewOrder]>::to_vec).collect();
    let good_ones = orders.chunks(1).map(<[NewOrder]>::to_vec).collect();
    tokio::join!(place(&store, good_ones, EVERY), place(&store, sets, apart));
    sleep(UNTIL_ALL_IS_DONE).await;
    stop.cancel();
    tasks.join_all().await;

    let found = store.find_all(&super::ids(&orders)).await.expect("reads");
    let found = found.orders;
    assert_eq!(found.len(), good);
    let mut latest = Duration::ZERO;
    for found in found {
        assert_eq!(found.order.status, Status::Delivered, "{}", found.order.order_id);
        for pair in found.events[1..].windows(2) {
            let status = pair[0].event.status().expect("nothing but steps");
            let delay = StageDelays::default().after(status).expect("on its way");
            latest = latest
                .max((pair[1].timestamp - pair[0].timestamp - to_delta(delay)).to_std().unwrap_or_default());
        }
    }
    latest
}

fn to_delta(delay: Duration) -> chrono::TimeDelta {
    chrono::TimeDelta::from_std(delay).expect("short")
}

async fn place(store: &Troubled, sets: Vec<Vec<NewOrder>>, apart: Duration) {
    let begun = Instant::now();
    for (nth, set) in (0..).zip(sets) {
        sleep_until(begun + apart * nth).await;
        store.place(&set, Outbox::Mine).await.expect("places");
    }
}

/// Promise 4: timers are rows. However many that can't be moved in time become due, together or one look after the other,
/// what one call may take is not spent twice in the way of others.
#[tokio::test(start_paused = true)]
async fn slow_orders_do_not_add_up() {
    for replicas in 1..=3 {
        for slow in [
            (20, 20, EVERY),
            (20, 1, Duration::from_millis(100)),
            (20, 1, Duration::from_millis(300)),
            (200, 1, Duration::from_millis(50)),
        ] {
            let latest = latest(replicas, 400, slow).await;
            assert!(latest < OVERDUE_AFTER, "{latest:?} with {replicas} replicas beside {slow:?}");
        }
    }
}
