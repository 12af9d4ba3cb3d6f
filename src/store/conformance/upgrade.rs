//! Orders that were under way when an earlier version of the service stopped. Each adapter writes them into each
//! schema so far, brings that up to date, and sees them go on: so a new migration is tried as soon as it is there.

use std::collections::HashMap;

use super::{
    DELAYS, Fixture, assert_consistent, events::settled, keys::drawn, new_order, new_orders, seconds, start,
};
use crate::{
    keys::KeyCreation,
    order::{Cursor, EventKind, OrderId, Role, Status, Timestamp},
    store::{Backlog, FeedQuery, NewOrder, Span},
    time::Clock as _,
};

/// An order in every status, and what a console writes to have them in the first schema; `stamp`
/// says how the dialect writes a moment.
pub(crate) fn under_way(stamp: impl Fn(Timestamp) -> String) -> (Vec<OrderId>, Vec<String>) {
    let (mut ids, mut statements) = (Vec::new(), Vec::new());
    for (order, status) in new_orders(5).iter().zip(Status::ALL) {
        let (id, last) = (order.order_id, EventKind::Reached(status));
        let events: Vec<EventKind> = EventKind::ALL.into_iter().take_while(|kind| *kind <= last).collect();
        let moment = |n: usize| start() - seconds(60) + seconds(i64::try_from(n).unwrap_or_default());
        let reached = moment(events.len() - 1);
        let due = DELAYS.get(events.len() - 2).map(|delay| stamp(reached + seconds(*delay)));
        let due = due.unwrap_or_else(|| "NULL".to_owned());
        let (created, updated) = (stamp(moment(0)), stamp(reached));
        statements.push(format!(
            "INSERT INTO orders (order_id, customer_name, address, item, size, status, seq, created_at, updated_at, due_at)
             VALUES ('{id}', 'Ada', '1 High St', 'soup', 'small', '{status}', {}, {created}, {updated}, {due})",
            events.len()
        ));
        for (n, event) in events.iter().enumerate() {
            let (at, seq) = (stamp(moment(n)), n + 1);
            let insert = "INSERT INTO order_events (order_id, event, seq, \"timestamp\")";
            statements.push(format!("{insert} VALUES ('{id}', '{event}', {seq}, {at})"));
        }
        ids.push(id);
    }
    (ids, statements)
}

/// They all go on from where they were, each step once, beside a new one.
///
/// Promise 1: accepted means durable. Promise 3: an effect happens once.
pub(crate) async fn they_go_on(t: Fixture, ids: Vec<OrderId>) {
    for id in &ids {
        assert_consistent(&t.find(*id).await);
    }
    let new: NewOrder = new_order();
    t.place(std::slice::from_ref(&new)).await;
    assert_eq!(t.deliver_all().await, 4 + 3 + 2 + 1 + 4, "the steps that were missing, and no other");
    for id in ids.iter().chain([&new.order_id]) {
        let found = t.find(*id).await;
        assert_consistent(&found);
        assert_eq!(found.order.status, Status::Delivered);
    }
    let audited = t.store.audit(None, 100).await.expect("reads").orders;
    assert!(audited.iter().all(|order| order.violations(t.clock.now()).is_empty()), "{audited:?}");
    let Backlog { unsent, .. } = t.backlog().await;
    assert_eq!(unsent, 1, "the new one waits to be sent");
    let (last, mut reached) = (settled(&*t.store).await.last, HashMap::new());
    let span = Span { after: Cursor::START, upto: last };
    let feed = t.store.events(&FeedQuery { span, event: None, limit: 100 }).await.expect("reads").events;
    assert_eq!(feed.len(), 6 * (ids.len() + 1), "what happened before is told too");
    for event in feed {
        let before = reached.insert(event.order_id, event.seq).unwrap_or_default();
        assert_eq!(event.seq, before + 1, "{event:?}");
    }
    let (_, key) = drawn("site", Role::Shop);
    assert_eq!(t.store.create_key(&key).await, Ok(KeyCreation::Created));
    t.store.lease("reader", seconds(5)).await.expect("leases").expect("is free");
}
