//! The scheduler beside orders that can't be moved, or not in time; in memory and in virtual time.

use std::{collections::HashSet, sync::Arc, time::Duration};

use tokio::time::{Instant, advance, sleep};

use super::{Outcome, doubles::Troubled, ids, new_orders, start, stuck::Stuck};
use crate::{
    order::{EventKind, OrderId, Reason, Report, Rules, Source, StageDelays, Status},
    pipeline::Scheduler,
    store::{NewOrder, OrderReport, OrderStore as _, Outbox, Store, memory::MemoryStore},
    telemetry::{health::Health, metrics::Metrics},
    time::{Alarm, ManualClock},
    tracker::Transitions,
};

/// Longer than any first pause.
const LATER: Duration = Duration::from_secs(2);

/// A loop and what it works on.
struct Rig {
    clock: Arc<ManualClock>,
    store: Arc<Troubled>,
    scheduler: Scheduler,
    orders: Vec<NewOrder>,
}

impl Rig {
    fn new(made: impl FnOnce(Troubled) -> Troubled) -> Self {
        let clock = Arc::new(ManualClock::new(start()));
        let memory = MemoryStore::new(Arc::default(), clock.clone(), 1);
        let store = Arc::new(made(Troubled::new(Arc::new(memory), [])));
        let shared: Arc<dyn Store> = store.clone();
        let (alarm, metrics) = (Arc::new(Alarm::default()), Arc::new(Metrics::new()));
        let transitions = Transitions::unfollowed(&shared, Arc::clone(&metrics), Arc::clone(&alarm));
        let scheduler = Scheduler::new(shared, alarm, transitions, metrics, StageDelays::default());
        Self { clock, store, scheduler, orders: new_orders(6_000) }
    }

    /// Places more orders, and lets the time pass in which they become due.
    async fn become_due(&mut self, count: usize) -> Vec<OrderId> {
        let more: Vec<NewOrder> = self.orders.drain(..count).collect();
        for some in more.chunks(500) {
            self.store.place(some, Outbox::Mine).await.expect("places");
        }
        self.clock.advance(Duration::from_secs(3));
        ids(&more)
    }

    fn bad(&self, slow: bool, orders: impl IntoIterator<Item = OrderId>) {
        let bad = if slow { &self.store.stuck.slow } else { &self.store.stuck.refused };
        bad.lock().expect("no panic").extend(orders);
    }

    /// Those of these that have not moved.
    async fn still_placed(&self, orders: &[OrderId]) -> HashSet<OrderId> {
        let positions = self.store.positions(orders).await.expect("reads");
        let placed = positions.into_iter().filter(|position| position.status == Status::Placed);
        placed.map(|position| position.order_id).collect()
    }

    /// What was asked since the last time, of one kind: how many each.
    fn asked(&self, kind: &str) -> Vec<usize> {
        let mut asked = self.store.stuck.asked.lock().expect("no panic");
        let of_kind = asked.iter().filter(|(what, _)| *what == kind).map(|(_, count)| *count).collect();
        asked.clear();
        of_kind
    }

    /// Looks until nothing more is due; answers how often.
    async fn look(&self) -> usize {
        let mut looks = 1;
        while self.scheduler.step().await.expect("goes on") != Outcome::Idle {
            looks += 1;
        }
        looks
    }

    /// How long it takes until all of these have moved while the second loop works, at least as long as `time`.
    async fn moves_within(&self, orders: &[OrderId], time: Duration) -> Duration {
        let began = Instant::now();
        let moved = async {
            while !self.still_placed(orders).await.is_empty() {
                sleep(Duration::from_millis(10)).await;
            }
            began.elapsed()
        };
        tokio::join!(moved, self.sort_for(time)).0
    }

    /// What the loops beside it do within a time.
    async fn sort_for(&self, time: Duration) {
        let until = Instant::now() + time;
        while Instant::now() < until {
            let done = [self.scheduler.sort().await, self.scheduler.try_again().await];
            if !done.iter().any(|done| matches!(done, Ok(Outcome::Worked(_)))) {
                sleep(Duration::from_millis(250)).await;
            }
        }
    }
}

/// Promise 4: timers are rows. Many that are too slow keep nobody waiting who was in their company, neither when
/// they are found nor when they are tried again.
#[tokio::test(start_paused = true)]
async fn slow_orders_keep_nobody_waiting() {
    let mut rig = Rig::new(|store| store);
    let orders = rig.become_due(60).await;
    let slow: HashSet<OrderId> = orders.iter().copied().step_by(3).collect();
    rig.bad(true, slow.iter().copied());
    rig.look().await;
    let found = Instant::now();
    while rig.still_placed(&orders).await.len() > slow.len() {
        rig.sort_for(Duration::from_millis(1)).await;
    }
    assert!(found.elapsed() < Duration::from_secs(20), "{:?}", found.elapsed());
    rig.asked("");
    rig.sort_for(Duration::from_secs(30)).await;
    assert!(rig.asked("alone").len() < 8, "they take a part of the time only");

    // All that were put off are due again, and a new one is slow, in company.
    advance(Duration::from_mins(10)).await;
    let orders = rig.become_due(20).await;
    rig.bad(true, [orders[0]]);
    rig.look().await;
    rig.asked("");
    let took = rig.moves_within(&orders[1..], Duration::from_millis(1)).await;
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert!(rig.asked("alone").len() <= 2, "those in company go first");
}

/// The same where all that are slow come before the others, and both have failed in one look: others that are moved
/// meanwhile show that the database is not to blame, so nobody waits for it.
#[tokio::test(start_paused = true)]
async fn those_behind_many_slow_ones_are_tried_soon() {
    let mut rig = Rig::new(|store| store);
    let slow = rig.become_due(20).await;
    rig.bad(true, slow.iter().copied());
    let good = rig.become_due(3).await;
    rig.look().await;
    let took = rig.moves_within(&good, Duration::from_secs(10)).await;
    assert!(took < Duration::from_secs(2), "{took:?}");
    let reason = rig.scheduler.health().reason().expect("something is wrong");
    assert!(reason.ends_with("; and 17 more"), "{reason}");
}

/// Promise 4: timers are rows. What was overlooked is looked for whatever comes of those that are slow.
#[tokio::test(start_paused = true)]
async fn what_was_overlooked_is_looked_for_beside_slow_orders() {
    let mut rig = Rig::new(|store| store);
    let orders = rig.become_due(5).await;
    rig.bad(true, orders);
    rig.look().await;
    rig.asked("");
    rig.scheduler.sort().await.expect_err("nothing is moved in time");
    assert_eq!(rig.asked("overlooked").len(), 1);
}

/// Promise 5: memory, queues and time are bounded. However many can't be moved, all others are, those first that
/// become due now; and what can't be moved takes a part of the time.
#[tokio::test(start_paused = true)]
async fn a_class_of_orders_that_is_refused_keeps_no_other_waiting() {
    let refusing_takes = Duration::from_millis(3);
    let mut rig = Rig::new(|store| Troubled { stuck: Stuck { refusing_takes, ..Stuck::default() }, ..store });
    let orders = rig.become_due(5_000).await;
    let good: HashSet<OrderId> = orders.iter().copied().step_by(10).collect();
    rig.bad(false, orders.iter().copied().filter(|id| !good.contains(id)));
    assert!(rig.look().await <= 6, "past all of them at once");
    let punctual = rig.become_due(50).await;
    assert_eq!(rig.look().await, 1);
    assert!(rig.still_placed(&punctual).await.is_empty(), "what becomes due now is moved now");

    let began = Instant::now();
    while rig.still_placed(&orders).await.iter().any(|id| good.contains(id)) {
        rig.sort_for(Duration::from_secs(1)).await;
        assert!(began.elapsed() < Duration::from_mins(3), "{:?}", began.elapsed());
    }
    let reason = rig.scheduler.health().reason().expect("something is wrong");
    assert!(reason.ends_with("; and 1997 more"), "no more are remembered: {reason}");

    rig.asked("");
    let busy = Instant::now();
    rig.sort_for(Duration::from_mins(5)).await;
    let tried = u32::try_from(rig.store.stuck.asked.lock().expect("no panic").len()).expect("few");
    assert!(refusing_takes * tried < busy.elapsed() * 2 / 3, "{tried} calls in {:?}", busy.elapsed());
    assert_eq!(rig.still_placed(&orders).await.len(), 4_500);

    // When the reason is gone, they all go.
    rig.store.stuck.refused.lock().expect("no panic").clear();
    rig.sort_for(Duration::from_mins(6)).await;
    assert!(rig.still_placed(&orders).await.is_empty());
    assert_eq!(rig.scheduler.health(), Health::Up);
}

/// Promise 6: it says what is wrong. What people have cancelled meanwhile waits for nothing any more, however long its pause.
#[tokio::test(start_paused = true)]
async fn what_was_cancelled_is_not_said_to_be_held() {
    let mut rig = Rig::new(|store| store);
    let orders = rig.become_due(2).await;
    rig.bad(false, orders.iter().copied());
    rig.look().await;
    rig.sort_for(Duration::from_mins(10)).await;
    let cancelled = Report {
        reason: Some(Reason::OutOfStock),
        ..Report::of(EventKind::Reached(Status::Cancelled), Source::Kitchen)
    };
    for (order_id, held) in orders.iter().zip([Some(orders[1]), None]) {
        let report = OrderReport { order_id: *order_id, report: cancelled.clone(), if_match: None };
        rig.store.report(&[report], &Rules::default()).await.expect("cancels");
        rig.sort_for(LATER).await;
        let reason = rig.scheduler.health().reason();
        let expected = held
            .map(|held| format!("{held} can't be moved: the database refused: its event is there already"));
        assert_eq!(reason, expected);
    }
}

/// The size that works is kept while little is due, and what is too much is not tried again at the next burst.
#[tokio::test(start_paused = true)]
async fn the_size_that_works_is_remembered() {
    let mut rig = Rig::new(|store| Troubled { most: 600, ..store });
    rig.become_due(650).await;
    rig.look().await;
    rig.sort_for(LATER).await;
    assert!(rig.asked("part").len() > 1, "650 were too much");
    for _ in 0..50 {
        rig.look().await;
        rig.sort_for(LATER).await;
    }
    rig.become_due(500).await;
    rig.asked("");
    rig.scheduler.step().await.expect("moves");
    rig.scheduler.sort().await.expect("sorts");
    let asked = rig.store.stuck.asked.lock().expect("no panic").clone();
    assert_eq!(asked, [("soonest", 325), ("overlooked", 1_000)]);
}
