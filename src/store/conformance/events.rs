//! The events of all orders in one order, and the places of those who read them.

use std::{collections::HashMap, sync::Arc, time::Duration};

use serde_json::json;

use super::{DELAYS, Fixture, incoming, new_order, new_orders, seconds, start};
use crate::{
    order::{Cursor, EventKind, FeedEvent, OrderFacts, OrderId, Size, Status},
    store::{Arrival, FeedPage, FeedQuery, Horizon, IdempotencyKey, Lease, NewOrder, Outbox, Span, Store},
};

/// How often it is looked before a test fails: other tests' transactions hold the horizon of a shared server back.
const LOOKS: usize = 100_000;

fn span(after: Cursor, upto: Cursor) -> Span {
    Span { after, upto }
}

/// Of all that is there behind a place.
fn behind(after: Cursor) -> Span {
    span(after, Cursor(i64::MAX))
}

fn cursors(events: &[FeedEvent]) -> Vec<Cursor> {
    events.iter().map(|event| event.cursor).collect()
}

/// Looks until everything is settled.
pub(crate) async fn settled(store: &dyn Store) -> Horizon {
    for _ in 0..LOOKS {
        let horizon = store.horizon().await.expect("looks");
        assert!(horizon.settled <= horizon.last, "{horizon:?}");
        if horizon.settled == horizon.last {
            return horizon;
        }
        tokio::task::yield_now().await;
    }
    panic!("nobody has anything open, and not all is settled");
}

impl Fixture {
    async fn read(&self, query: FeedQuery) -> FeedPage {
        self.replica.events(&query).await.expect("reads")
    }

    async fn all_events(&self) -> Vec<FeedEvent> {
        let query = FeedQuery { span: behind(Cursor::START), event: None, limit: 100_000 };
        let page = self.read(query).await;
        assert!(!page.more && page.examined == page.events.last().map(|last| last.cursor), "{page:?}");
        page.events
    }

    async fn arrivals(&self, spans: &[Span], limit: usize) -> Vec<Cursor> {
        let arrivals = self.replica.arrivals(spans, limit).await.expect("reads");
        arrivals.iter().map(|arrival| arrival.cursor).collect()
    }
}

/// Promise 8: who was away misses nothing. Every way in which an event is written, in the order of its commit.
pub(crate) async fn every_event_lies_in_one_order(t: Fixture) {
    let nothing = Horizon { found: true, ..Horizon::default() };
    assert_eq!(t.store.horizon().await.expect("looks"), nothing);
    assert_eq!((t.all_events().await, t.arrivals(&[behind(Cursor::START)], 9).await), (vec![], vec![]));

    let orders = new_orders(4);
    let told = NewOrder { meta: Some(json!({"source": "test", "note": "for Ada"})), ..orders[0].clone() };
    let keyed = NewOrder { key: Some(IdempotencyKey::open("key")), ..orders[1].clone() };
    t.place(&[told]).await;
    t.store.place(&[keyed, orders[2].clone()], Outbox::Anyones).await.expect("places");
    t.store.admit(&[incoming(&orders[3], start())]).await.expect("admits");
    t.clock.advance(seconds(DELAYS[0]));
    assert_eq!(t.advance().await.len(), 4);

    let events = t.all_events().await;
    assert!(events.is_sorted_by(|one, other| one.cursor < other.cursor), "{events:?}");
    assert_eq!(events.len(), 12);
    let placed: Vec<OrderId> = events[..8].iter().step_by(2).map(|event| event.order_id).collect();
    assert_eq!(placed, orders.iter().map(|order| order.order_id).collect::<Vec<_>>(), "oldest first");
    for order in &orders {
        let found = t.find(order.order_id).await;
        let mine: Vec<&FeedEvent> = events.iter().filter(|event| event.order_id == order.order_id).collect();
        assert_eq!(mine.iter().map(|event| event.seq).collect::<Vec<_>>(), [1, 2, 3]);
        let told = mine.iter().map(|event| (event.event, event.timestamp));
        assert!(told.eq(found.events.iter().map(|event| (event.event, event.timestamp))), "{mine:?}");
        let statuses: Vec<Status> = mine.iter().map(|event| event.status).collect();
        assert_eq!(statuses, [Status::Placed, Status::Placed, Status::Preparing]);
    }
    let metas: Vec<_> =
        events.iter().map(|event| serde_json::to_value(&event.meta).expect("serialises")).collect();
    assert_eq!((&metas[0], &metas[6]), (&json!({"source": "test"}), &json!({"offset": 7})));
    assert_eq!(metas.iter().filter(|meta| meta.is_null()).count(), 10);

    let arrivals = t.replica.arrivals(&[behind(Cursor::START)], 100).await.expect("reads");
    let of = |event: &FeedEvent| Arrival { cursor: event.cursor, order_id: event.order_id, seq: event.seq };
    assert_eq!(arrivals, events.iter().map(of).collect::<Vec<_>>());
    let last = events.last().map(|event| event.cursor).expect("twelve");
    for store in [&t.store, &t.replica] {
        let horizon = settled(&**store).await;
        assert_eq!(horizon, Horizon { settled: last, last, held: Duration::ZERO, found: true });
    }
}

/// Repeating a call writes no event, and what is not known is not made up.
pub(crate) async fn repeated_calls_tell_nothing_new(t: Fixture) {
    let orders = new_orders(2);
    let keyed = NewOrder { key: Some(IdempotencyKey::open("key")), ..orders[0].clone() };
    for _ in 0..3 {
        t.place(&[keyed.clone(), orders[1].clone()]).await;
        t.store.admit(&[incoming(&orders[0], start())]).await.expect("admits");
        t.advance().await;
    }
    assert_eq!(t.all_events().await.len(), 4);
    t.deliver_all().await;
    let events = t.all_events().await;
    assert_eq!(events.len(), 12);
    let mut reached: HashMap<OrderId, u32> = HashMap::new();
    for event in &events {
        let before = reached.insert(event.order_id, event.seq).unwrap_or_default();
        assert_eq!(event.seq, before + 1, "{event:?}");
    }
}

/// A page says how far it looked, and whether there is more.
pub(crate) async fn a_page_of_events_says_where_it_ends(t: Fixture) {
    t.place(&new_orders(5)).await;
    let ids = cursors(&t.all_events().await);
    let page = async |span, limit| {
        let page = t.read(FeedQuery { span, event: None, limit }).await;
        (cursors(&page.events), page.examined, page.more)
    };
    let start = behind(Cursor::START);
    assert_eq!(page(start, 4).await, (ids[..4].to_vec(), Some(ids[3]), true));
    assert_eq!(
        page(behind(ids[3]), 6).await,
        (ids[4..].to_vec(), Some(ids[9]), false),
        "exactly what is left"
    );
    assert_eq!(page(behind(ids[3]), 5).await, (ids[4..9].to_vec(), Some(ids[8]), true));
    assert_eq!(page(behind(ids[9]), 5).await, (vec![], None, false));
    assert_eq!(page(span(ids[2], ids[5]), 3).await, (ids[3..6].to_vec(), Some(ids[5]), false));
    assert_eq!(page(span(ids[2], ids[5]), 2).await, (ids[3..5].to_vec(), Some(ids[4]), true));
    for nothing in [span(ids[4], ids[4]), span(ids[5], ids[2]), span(Cursor(i64::MAX), Cursor(i64::MAX))] {
        assert_eq!(page(nothing, 5).await, (vec![], None, false), "{nothing:?}");
    }
}

/// Promise 5: memory, queues and time are bounded. Who looks for what is rare is told how far it was looked.
pub(crate) async fn a_kind_is_looked_for_among_so_many(t: Fixture) {
    for part in new_orders(FeedQuery::EXAMINED as u64 / 2 + 1).chunks(1_000) {
        t.place(part).await;
    }
    let ids: Vec<Cursor> = t.arrivals(&[behind(Cursor::START)], 100_000).await;
    let (all, most) = (ids.len(), FeedQuery::EXAMINED);
    assert_eq!(all, most + 2);
    let page = async |after, event, limit| {
        let page = t.read(FeedQuery { span: behind(after), event: Some(event), limit }).await;
        assert!(page.events.iter().all(|found| found.event == event), "{:?}", page.events.first());
        (cursors(&page.events), page.examined, page.more)
    };
    let (rare, placed) = (EventKind::Reached(Status::Delivered), EventKind::Reached(Status::Placed));
    assert_eq!(page(Cursor::START, rare, 9).await, (vec![], Some(ids[most - 1]), true), "none among so many");
    assert_eq!(page(ids[most - 1], rare, 9).await, (vec![], Some(ids[all - 1]), false), "nor among the rest");
    assert_eq!(page(ids[1], rare, 9).await, (vec![], Some(ids[all - 1]), false), "exactly so many");
    assert_eq!(page(ids[all - 1], rare, 9).await, (vec![], None, false));

    let second =
        |range: std::ops::Range<usize>| ids[range].iter().skip(1).step_by(2).copied().collect::<Vec<_>>();
    assert_eq!(page(Cursor::START, placed, 3).await, (second(0..6), Some(ids[5]), true));
    assert_eq!(
        page(ids[all - 6], placed, 3).await,
        (second(all - 6..all)[..3].to_vec(), Some(ids[all - 1]), false)
    );
    assert_eq!(page(Cursor::START, placed, most).await, (second(0..most), Some(ids[most - 1]), true));
    let created = page(ids[all - 5], EventKind::Created, 9).await;
    assert_eq!(created, (vec![ids[all - 4], ids[all - 2]], Some(ids[all - 1]), false));
}

/// What became visible in gaps and above them, settled or not.
pub(crate) async fn arrivals_are_looked_for_in_every_gap(t: Fixture) {
    t.place(&new_orders(6)).await;
    let ids = cursors(&t.all_events().await);
    let gaps = [span(ids[0], ids[2]), span(ids[4], ids[4]), span(ids[5], ids[8]), behind(ids[9])];
    let found = [&ids[1..3], &ids[6..9], &ids[10..]].concat();
    assert_eq!(t.arrivals(&gaps, 100).await, found);
    for limit in [0, 1, 2, 4, 6] {
        assert_eq!(t.arrivals(&gaps, limit).await, found[..limit], "{limit}");
    }
    assert_eq!(t.arrivals(&[], 100).await, []);
    assert_eq!(t.arrivals(&[behind(ids[11]), span(ids[3], ids[1])], 100).await, []);
}

/// Promise 8: who was away misses nothing. What goes out with every event of an order.
pub(crate) async fn facts_are_what_never_changes(t: Fixture) {
    let orders = new_orders(3);
    t.place(&orders).await;
    let ids: Vec<OrderId> = orders.iter().map(|order| order.order_id).collect();
    let facts = async |ids: &[OrderId]| {
        let mut facts = t.replica.facts(ids).await.expect("reads");
        facts.sort_by_key(|(order_id, _)| *order_id);
        facts
    };
    let ordered = OrderFacts { item: "pizza".to_owned(), size: Size::Large, created_at: start() };
    let before = facts(&[ids[2], new_order().order_id, ids[0]]).await;
    assert_eq!(before, [(ids[0], ordered.clone()), (ids[2], ordered)]);
    t.deliver_all().await;
    assert_eq!(facts(&[ids[0], ids[2]]).await, before);
    assert_eq!(facts(&[]).await, []);
}

/// A row that somebody has made unreadable is left out and holds up nobody.
pub(crate) async fn an_odd_event_is_passed_over(t: Fixture) {
    let Some(dialect) = &t.dialect else { return };
    for statement in dialect.allow_odd {
        (t.by_hand)(statement).await.expect(statement);
    }
    let orders = new_orders(4);
    t.place(&orders).await;
    let (at, odd_at) = ((dialect.stamp)(start()), dialect.odd_moments[0]);
    let (odd, good) = (orders[1].order_id, orders[2].order_id);
    let write = |id: &str, event: &str, seq: u32, at: &str| {
        format!(
            "INSERT INTO order_events (order_id, event, seq, \"timestamp\") VALUES ('{id}', '{event}', {seq}, {at})"
        )
    };
    let no_id = format!(
        "INSERT INTO orders (order_id, customer_name, address, item, size, status, seq, created_at, updated_at)
         VALUES ('AAA', 'Ada', '1 High St', 'soup', 'small', 'PLACED', 1, {at}, {at})"
    );
    for statement in [
        no_id,
        write("AAA", "CREATED", 1, &at),
        write(&odd.to_string(), "PREPARING", 3, odd_at),
        write(&good.to_string(), "PREPARING", 3, &at),
    ] {
        (t.by_hand)(&statement).await.expect(&statement);
    }
    let seqs =
        |page: FeedPage| page.events.iter().map(|event| (event.order_id, event.seq)).collect::<Vec<_>>();
    let all = FeedQuery { span: behind(Cursor::START), event: None, limit: 100 };
    let page = t.read(all).await;
    let horizon = settled(&*t.store).await;
    assert_eq!((page.examined, page.more), (Some(horizon.last), false));
    let mut expected: Vec<_> =
        orders.iter().flat_map(|order| [(order.order_id, 1), (order.order_id, 2)]).collect();
    expected.push((good, 3));
    assert_eq!(seqs(page), expected);

    // One by one, as who meets each odd row alone.
    let (mut after, mut found) = (Cursor::START, Vec::new());
    loop {
        let page = t.read(FeedQuery { span: behind(after), limit: 1, ..all }).await;
        let Some(examined) = page.examined else { break };
        assert!(examined > after && page.more == (examined < horizon.last), "{page:?}");
        after = examined;
        found.extend(seqs(page));
    }
    assert_eq!((found, after), (expected, horizon.last));
    let kind = Some(EventKind::Reached(Status::Preparing));
    let page = t.read(FeedQuery { event: kind, ..all }).await;
    assert_eq!((page.examined, seqs(page)), (Some(horizon.last), vec![(good, 3)]));
    // What became visible is told by its place alone, readable or not; but under an odd id nobody follows.
    assert_eq!(t.arrivals(&[behind(Cursor::START)], 100).await.len(), 10);
}

/// Promise 8: who was away misses nothing. What a newer version writes is not passed over: who can't read it waits in
/// front of it, and who asks for another kind does not.
pub(crate) async fn an_unknown_kind_of_event_is_waited_at(t: Fixture) {
    let Some(dialect) = &t.dialect else { return };
    for statement in dialect.allow_odd {
        (t.by_hand)(statement).await.expect(statement);
    }
    let orders = new_orders(2);
    t.place(&orders[..1]).await;
    let (id, at) = (orders[0].order_id, (dialect.stamp)(start()));
    let newer = format!(
        "INSERT INTO order_events (order_id, event, seq, \"timestamp\") VALUES ('{id}', 'OF_A_NEWER_VERSION', 3, {at})"
    );
    (t.by_hand)(&newer).await.expect("writes");
    let all = FeedQuery { span: behind(Cursor::START), event: None, limit: 100 };
    let created = FeedQuery { event: Some(EventKind::Created), ..all };
    let page = t.read(created).await;
    assert_eq!((page.events.len(), page.examined, page.more), (1, Some(Cursor(3)), false));
    t.place(&orders[1..]).await;
    let page = t.read(all).await;
    assert_eq!(
        (cursors(&page.events), page.examined, page.more),
        (vec![Cursor(1), Cursor(2)], Some(Cursor(2)), true)
    );
    let error =
        t.replica.events(&FeedQuery { span: behind(Cursor(2)), ..all }).await.expect_err("is not known");
    assert!(error.to_string().contains("event"), "{error}");
    let page = t.read(created).await;
    assert_eq!((page.events.len(), page.examined, page.more), (2, Some(Cursor(5)), false));
}

const LASTING: Duration = Duration::from_secs(5);
/// A millisecond less.
const ALMOST: Duration = Duration::from_millis(4_999);
const PLACE: &str = "reader";

async fn lease(store: &Arc<dyn Store>) -> Option<Lease> {
    store.lease(PLACE, LASTING).await.expect("leases")
}

async fn move_on(store: &Arc<dyn Store>, lease: Lease, to: i64) -> Option<Lease> {
    store.move_on(PLACE, lease, Cursor(to), LASTING).await.expect("moves")
}

/// Promise 3: an effect happens once. One replica at a time has a place, and an earlier one can change nothing.
pub(crate) async fn a_place_is_held_by_one_replica(t: Fixture) {
    assert_eq!(t.store.place_of(PLACE).await, Ok(None));
    let first = lease(&t.store).await.expect("is free");
    assert_eq!((first.cursor, t.replica.place_of(PLACE).await), (Cursor::START, Ok(Some(Cursor::START))));
    // Somebody else's has nothing to do with it.
    let other = t.replica.lease("other", LASTING).await.expect("leases").expect("is free");
    assert_eq!(
        t.replica.move_on("other", other, Cursor(99), LASTING).await.expect("moves").map(|it| it.cursor),
        Some(Cursor(99))
    );

    t.held_elsewhere_is_refused().await;
    let moved = move_on(&t.store, first, 7).await.expect("is held");
    assert_eq!(moved, Lease { cursor: Cursor(7), ..first });
    assert_eq!(move_on(&t.store, first, 9).await, None, "an answer of before says nothing");
    // Who moves on keeps it beyond the time of the first lease.
    t.clock.advance(ALMOST);
    let moved = move_on(&t.store, moved, 8).await.expect("is held");
    t.clock.advance(ALMOST);
    t.held_elsewhere_is_refused().await;
    assert_eq!(t.replica.place_of(PLACE).await, Ok(Some(Cursor(8))));

    // It ran out, and nobody came: it is still the last one's.
    t.clock.advance(Duration::from_millis(1));
    let moved = move_on(&t.store, moved, 9).await.expect("nobody else came");
    t.clock.advance(LASTING);
    let second = t.taken_over().await;
    assert_eq!((second.cursor, second.term > moved.term), (Cursor(9), true));
    assert_eq!(move_on(&t.store, moved, 10).await, None);
    t.store.give_back(PLACE, moved).await.expect("changes nothing");
    assert_eq!(t.replica.place_of(PLACE).await, Ok(Some(Cursor(9))));
    let kept = move_on(&t.replica, second, 11).await.expect("is held");
    t.replica.give_back(PLACE, kept).await.expect("gives back");
    let third = lease(&t.store).await.expect("is free at once");
    assert_eq!((third.cursor, third.term > second.term), (Cursor(11), true));
    assert_eq!(move_on(&t.replica, kept, 12).await, None);
}

/// Who lost the answer takes its place anew, and what it held before is void.
pub(crate) async fn a_place_may_be_taken_anew(t: Fixture) {
    let first = lease(&t.store).await.expect("is free");
    let moved = move_on(&t.store, first, 3).await.expect("is held");
    let again = lease(&t.store).await.expect("is its own");
    assert_eq!((again.cursor, again.term > moved.term), (Cursor(3), true));
    assert_eq!(move_on(&t.store, moved, 4).await, None);
    assert!(move_on(&t.store, again, 4).await.is_some());
}

/// A place that a person has set back is read again from there.
pub(crate) async fn a_place_set_by_hand_counts(t: Fixture) {
    let Some(dialect) = &t.dialect else { return };
    let first = lease(&t.store).await.expect("is free");
    let moved = move_on(&t.store, first, 50).await.expect("is held");
    (t.by_hand)("UPDATE feed_cursors SET cursor = 20").await.expect("sets back");
    assert_eq!(move_on(&t.store, moved, 60).await, None, "the holder is not where it was");
    t.store.give_back(PLACE, moved).await.expect("changes nothing");
    let next = lease(&t.store).await.expect("is its own");
    assert_eq!(next.cursor, Cursor(20));
    assert!(move_on(&t.store, next, 21).await.is_some());
    for nowhere in ["-1", "NULL"] {
        let set = format!("{}UPDATE feed_cursors SET cursor = {nowhere}", dialect.checked);
        (t.by_hand)(&set).await.expect_err("is no place");
    }
}

impl Fixture {
    fn is_alone(&self) -> bool {
        Arc::ptr_eq(&self.store, &self.replica)
    }

    /// Where there can be only one replica, the place is another process's by hand.
    async fn held_elsewhere_is_refused(&self) {
        if !self.is_alone() {
            return assert_eq!(lease(&self.replica).await, None);
        }
        let hand_over =
            |by: i64| format!("UPDATE feed_cursors SET held_by = held_by + {by} WHERE name = '{PLACE}'");
        (self.by_hand)(&hand_over(1)).await.expect("hands over");
        assert_eq!(lease(&self.store).await, None);
        (self.by_hand)(&hand_over(-1)).await.expect("hands back");
    }

    async fn taken_over(&self) -> Lease {
        lease(&self.replica).await.expect("it has run out")
    }
}
