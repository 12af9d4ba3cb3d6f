//! What makes due steps.

use std::time::Duration;

use chrono::TimeDelta;

use super::{DELAYS, Fixture, assert_consistent, new_order, new_orders, seconds, start};
use crate::{
    order::{OrderId, StageDelays, Status},
    store::{Due, DueKey, DueOrders, Page, Transition},
    time::Clock as _,
};

/// Promise 4: timers are rows. Never early, in order, one row per step.
pub(crate) async fn orders_move_when_due_and_never_before(t: Fixture) {
    let order = new_order();
    t.place(std::slice::from_ref(&order)).await;
    let mut reached = Status::Placed;
    for (seq, delay) in (3..).zip(DELAYS) {
        let advance = t.store.advance(10).await.expect("advances");
        assert_eq!((advance.transitions, advance.next_due_in), (vec![], Some(seconds(delay))));
        let listed = t.store.list(&Page { status: None, before: None, limit: 1 }).await.expect("lists");
        let due = [listed[0].due_at, t.find(order.order_id).await.order.due_at];
        assert_eq!(due, [Some(t.clock.now() + seconds(delay)); 2], "as it was written");
        t.clock.advance(seconds(delay).saturating_sub(Duration::from_millis(1)));
        assert_eq!(t.advance().await, [], "1 ms early");
        t.clock.advance(Duration::from_millis(1));
        let next = reached.next().expect("not the end");
        assert_eq!(
            t.advance().await,
            [Transition { order_id: order.order_id, from: reached, to: next, seq }]
        );
        let found = t.find(order.order_id).await;
        assert_consistent(&found);
        assert_eq!((found.order.status, found.order.updated_at), (next, t.clock.now()));
        reached = next;
    }
    assert_eq!(reached, Status::Delivered);
    let advance = t.store.advance(10).await.expect("advances");
    assert_eq!((advance.transitions, advance.next_due_in), (vec![], None));
}

/// Promise 4: timers are rows. A late step is made once, and the next counts from there.
pub(crate) async fn an_overdue_step_does_not_shorten_the_next(t: Fixture) {
    let order = new_order();
    t.place(std::slice::from_ref(&order)).await;
    t.clock.advance(seconds(3_600));
    assert_eq!(t.overdue(seconds(9_999), 9).await.most, seconds(3_597), "however little is asked for");
    assert_eq!(t.advance().await.len(), 1);
    assert_eq!(t.store.advance(10).await.expect("advances").next_due_in, Some(seconds(DELAYS[1])));
}

pub(crate) async fn a_limit_leaves_the_rest_for_the_next_call(t: Fixture) {
    t.place(&new_orders(5)).await;
    t.clock.advance(seconds(DELAYS[0]));
    let first = t.store.advance(2).await.expect("advances");
    assert_eq!((first.transitions.len(), first.next_due_in), (2, Some(Duration::ZERO)));
    assert_eq!(t.advance().await.len(), 3);
}

/// Promise 3: an effect happens once. Whatever a clock does, stamps do not go back.
pub(crate) async fn a_clock_that_steps_back_delays_but_never_reorders(t: Fixture) {
    let order = new_order();
    t.place(std::slice::from_ref(&order)).await;
    t.clock.set(start() - TimeDelta::hours(2));
    assert_eq!(t.advance().await, []);
    t.clock.set(start() + TimeDelta::hours(24));
    assert_eq!(t.advance().await.len(), 1);
    t.clock.set(start());
    assert_eq!(t.advance().await, []);
    assert_consistent(&t.find(order.order_id).await);
}

/// Promise 4: timers are rows. Orders that can't be moved are left out, and the others go.
pub(crate) async fn those_left_out_stay_until_they_are_named(t: Fixture) {
    let orders = new_orders(3);
    let [first, left_out, last] = [0, 1, 2].map(|n| orders[n].order_id);
    // All are due at the same time.
    t.place(&orders).await;
    let soonest = |limit, after| Due::Soonest { limit, after };
    let overlooked = |limit, after, except| Due::Overlooked { limit, after, except };
    let due = async |due: Due<'_>| t.store.due(due).await.expect("reads");
    assert_eq!(due(soonest(10, None)).await, DueOrders::default());
    t.clock.advance(seconds(DELAYS[0]));
    let place = |order_id| Some(DueKey { due_at: t.clock.now(), order_id });
    let two = DueOrders { order_ids: vec![first, left_out], last: place(left_out) };
    assert_eq!(due(soonest(2, None)).await, two, "most overdue first, then by id");
    assert_eq!(due(soonest(9, two.last)).await.order_ids, [last]);

    let moved = async |due: Due<'_>| -> Vec<OrderId> {
        let transitions =
            t.store.advance_due(due, &StageDelays::default()).await.expect("advances").transitions;
        transitions.into_iter().map(|step| step.order_id).collect()
    };
    assert_eq!(moved(soonest(9, two.last)).await, [last]);
    let looked = t.store.advance_due(soonest(9, two.last), &StageDelays::default()).await.expect("advances");
    assert_eq!(
        (looked.transitions, looked.next_due_in),
        (vec![], Some(seconds(DELAYS[1]))),
        "and no look is due for those before"
    );
    // Below the mark they are overlooked; these looks are for parts, in turn.
    t.clock.advance(Duration::from_millis(1_500));
    assert_eq!(moved(soonest(9, two.last)).await, []);
    let mut found = Vec::new();
    let except = [left_out];
    for _ in 0..2 {
        found.extend(moved(overlooked(9, None, &except)).await);
        found.extend(moved(overlooked(9, two.last, &[])).await);
    }
    assert_eq!(found, [first]);
    assert_eq!(moved(Due::SecondChance(&[first, left_out, last])).await, [left_out]);
    assert_eq!(moved(Due::Alone(left_out)).await, []);
    t.clock.advance(seconds(DELAYS[1]));
    assert_eq!(moved(Due::Alone(left_out)).await, [left_out]);
}
