//! Rows that somebody has made odd by hand, and how little they change for all others.

use super::{Dialect, Fixture, new_orders, seconds};
use crate::{
    order::{OrderId, StageDelays, Status},
    store::{Due, IdempotencyKey, NewOrder, Outbox, Page, Placement, Republished, Transition, UNSENT_LISTED},
    time::Clock as _,
};

/// Ids that are none, before and after those of all others.
const ODD_IDS: [&str; 3] = ["TEST-1", "AAA", "ORD-01"];

/// Whatever value a column has.
pub(crate) async fn an_odd_row_is_one_orders_trouble(t: Fixture) {
    let Some(dialect) = &t.dialect else { return };
    for statement in dialect.allow_odd {
        t.by_hand(statement).await;
    }
    for id in ODD_IDS {
        t.write_by_hand(dialect, id).await;
        every_verb_serves_the_others(&t, id, false).await;
    }
    let columns = [
        "status",
        "size",
        "customer_name",
        "address",
        "due_at",
        "created_at",
        "updated_at",
        "event",
        "sent",
        "timestamp",
    ];
    for column in columns {
        let values: &[&str] = match column {
            "due_at" | "created_at" | "updated_at" | "sent" | "timestamp" => dialect.odd_moments,
            "customer_name" | "address" => &["NULL"],
            _ => &["'odd'"],
        };
        for value in values {
            let odd = new_orders(1).remove(0);
            t.store.place(std::slice::from_ref(&odd), Outbox::Anyones).await.expect("places");
            let id = odd.order_id;
            let statement = match column {
                "event" | "timestamp" => {
                    // Or its next step would be refused, which is another story.
                    t.by_hand(&format!(
                        "UPDATE orders SET status = 'DELIVERED', due_at = NULL WHERE order_id = '{id}'"
                    ))
                    .await;
                    let at = (dialect.stamp)(t.clock.now());
                    let (event, at) = if column == "event" { (*value, &*at) } else { ("'COOKING'", *value) };
                    format!(
                        "INSERT INTO order_events (order_id, event, seq, \"timestamp\") VALUES ('{id}', {event}, 3, {at})"
                    )
                }
                "sent" => format!("UPDATE outbox SET created_at = {value} WHERE order_id = '{id}'"),
                column => format!("UPDATE orders SET {column} = {value} WHERE order_id = '{id}'"),
            };
            t.by_hand(&statement).await;
            let found = t.store.find(id).await;
            assert_eq!(
                found.is_err(),
                column != "sent",
                "{column} {value}: it is there, and can't be read: {found:?}"
            );
            every_verb_serves_the_others(&t, &id.to_string(), column == "sent").await;
            // The next one is alone again.
            t.store.mark_sent(&[id]).await.expect("marks");
            let mended = (dialect.stamp)(t.clock.now());
            let mend = format!(
                "UPDATE orders SET status = 'DELIVERED', size = 'small', customer_name = 'Ada', address = 'here',
                     due_at = NULL, created_at = {mended}, updated_at = {mended} WHERE order_id = '{id}'"
            );
            t.by_hand(&mend).await;
        }
    }
}

impl Fixture {
    async fn by_hand(&self, statement: &str) {
        (self.by_hand)(statement).await.unwrap_or_else(|refusal| panic!("{statement}: {refusal}"));
    }

    /// An order under this id, with its timeline and its outbox row.
    async fn write_by_hand(&self, dialect: &Dialect, id: &str) {
        let now = (dialect.stamp)(self.clock.now());
        let order = format!(
            "INSERT INTO orders (order_id, customer_name, address, item, size, status, seq, created_at, updated_at, due_at)
             VALUES ('{id}', 'Ada', '1 High St', 'soup', 'small', 'PLACED', 1, {now}, {now}, {now})"
        );
        let event = format!(
            "INSERT INTO order_events (order_id, event, seq, \"timestamp\") VALUES ('{id}', 'CREATED', 1, {now})"
        );
        let unsent = format!("INSERT INTO outbox (order_id, created_at) VALUES ('{id}', {now})");
        for statement in [order, event, unsent] {
            self.by_hand(&statement).await;
        }
    }
}

/// Two good orders beside the odd one, through every verb, in sets and alone.
async fn every_verb_serves_the_others(t: &Fixture, odd: &str, readable: bool) {
    let orders = new_orders(2);
    let keyed =
        NewOrder { key: Some(IdempotencyKey::open(orders[1].order_id.to_string())), ..orders[1].clone() };
    let placed = t.store.place(&[orders[0].clone(), keyed], Outbox::Anyones).await.expect("places");
    assert!(placed.iter().all(|one| matches!(one, Placement::Placed(_))), "{odd}: {placed:?}");
    let ids = [orders[0].order_id, orders[1].order_id];
    let asked: Vec<OrderId> = odd.parse().into_iter().chain(ids).collect();
    let good = |found: &[OrderId]| ids.iter().all(|id| found.contains(id));

    publish(t, odd, &asked, good).await;
    read(t, odd, &asked, good, readable).await;
    steps(t, odd, &asked, ids).await;
    t.store.heartbeat().await.expect("lives");
    t.store.expire_idempotency_keys(10).await.expect("expires");
}

/// The outbox.
async fn publish(t: &Fixture, odd: &str, asked: &[OrderId], good: impl Fn(&[OrderId]) -> bool) {
    let ids = &asked[asked.len() - 2..];
    assert!(good(&t.store.unclaimed(None, 100).await.expect("reads")), "{odd}");
    let mut one_by_one = (None, Vec::new());
    while let Some(id) = t.store.unclaimed(one_by_one.0, 1).await.expect("reads").pop() {
        one_by_one = (Some(id), [one_by_one.1, vec![id]].concat());
    }
    assert!(good(&one_by_one.1), "{odd}: a page of odd rows is not the end");
    let backlog = t.store.backlog().await.expect("reads");
    assert!(backlog.unsent >= 2 && backlog.first.len() <= UNSENT_LISTED, "{odd}: {backlog:?}");
    assert!(backlog.oldest_unsent.is_some(), "{odd}: {backlog:?}");
    assert_eq!(t.store.claim(ids).await.expect("claims").len(), 2, "{odd}");
    t.store.lost(&[], 100).await.expect("reads");
    assert_eq!(t.store.mark_sent(asked).await.expect("marks"), [], "{odd}");
    let republished = t.store.republish(asked).await.expect("writes");
    assert_eq!(republished, vec![Republished::Queued; asked.len()], "{odd}");
    assert_eq!(t.store.release(asked).await.expect("releases"), [], "{odd}");
    t.store.mark_sent(ids).await.expect("marks");
}

/// What readers and auditors see.
async fn read(t: &Fixture, odd: &str, asked: &[OrderId], good: impl Fn(&[OrderId]) -> bool, readable: bool) {
    let ids = &asked[asked.len() - 2..];
    assert_eq!(t.store.find_all(ids).await.expect("reads").orders.len(), 2, "{odd}");
    let positions = t.store.positions(asked).await.expect("reads");
    assert!(good(&positions.iter().map(|found| found.order_id).collect::<Vec<_>>()), "{odd}");
    for status in [None, Some(Status::Placed)] {
        let listed = t.store.list(&Page { status, before: None, limit: 1_000 }).await.expect("lists");
        assert!(good(&listed.iter().map(|order| order.order_id).collect::<Vec<_>>()), "{odd}");
    }
    let (mut audited, mut unreadable, mut after) = (Vec::new(), Vec::new(), None::<String>);
    loop {
        let page = t.store.audit(after.as_deref(), 1).await.expect("reads");
        audited.extend(page.orders.iter().map(|order| order.order_id));
        unreadable.extend(page.unreadable);
        match page.last {
            Some(last) => after = Some(last),
            None => break,
        }
    }
    assert!(good(&audited), "{odd}");
    assert!(
        readable || unreadable.contains(&odd.to_owned()) || odd_only_in_details(&audited, odd),
        "{odd}: {unreadable:?}"
    );
    t.store.count(&Status::ALL).await.expect("counts");
}

/// An audit does not look at what was ordered.
fn odd_only_in_details(audited: &[OrderId], odd: &str) -> bool {
    odd.parse().is_ok_and(|odd| audited.contains(&odd))
}

/// Steps are made and told, whatever stands beside.
async fn steps(t: &Fixture, odd: &str, asked: &[OrderId], ids: [OrderId; 2]) {
    t.clock.advance(seconds(4));
    let late = t.overdue(seconds(0), 1_000).await;
    assert!(late.most >= seconds(1) && late.orders >= 2, "{odd}: {late:?}");
    let due = t.store.due(Due::Soonest { limit: 1_000, after: None }).await.expect("reads");
    assert!(ids.iter().all(|id| due.order_ids.contains(id)), "{odd}: {due:?}");
    t.store.due(Due::SecondChance(asked)).await.expect("reads");
    let these = t
        .store
        .advance_due(Due::SecondChance(&asked[..asked.len() - 1]), &StageDelays::default())
        .await
        .expect("advances");
    let step = |order_id| Transition { order_id, from: Status::Placed, to: Status::Preparing, seq: 3 };
    assert!(these.transitions.contains(&step(ids[0])), "{odd}: {these:?}");
    let moved = t.store.advance(1_000).await.expect("advances");
    assert!(moved.transitions.contains(&step(ids[1])), "{odd}: {moved:?}");
    t.advance().await;
    t.deliver_all().await;
}
