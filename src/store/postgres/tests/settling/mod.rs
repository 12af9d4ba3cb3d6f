//! How far events are settled where several sessions write, on PostgreSQL.

mod cost;
mod race;
mod reports;

use std::{sync::Arc, time::Duration};

use sqlx::{ConnectOptions as _, PgConnection};
use tokio::time::timeout;

use super::{super::PgStore, Database, new_order, plans::old_snapshot, run};
use crate::{
    order::{Cursor, OrderId, OrderPlaced, StageDelays, Status, Timestamp},
    store::{
        Due, EventLog as _, FeedQuery, Holder, IdempotencyKey, Incoming, Maintenance as _, NewOrder,
        OrderStore as _, Outbox, Span, StoreError, conformance::start,
    },
    time::ManualClock,
};

/// How long a test waits for something before it fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// How often it looks for what must not be.
const LOOKS: usize = 20;
pub(crate) const LASTING: Duration = Duration::from_secs(5);

pub(crate) async fn replica() -> (Database, Arc<PgStore>) {
    let database = Database::create().await;
    let store = database.replica(&Arc::new(ManualClock::new(start()))).await;
    (database, store)
}

pub(crate) async fn console(database: &Database) -> PgConnection {
    database.options().connect().await.expect("connects")
}

pub(crate) async fn place(store: &PgStore) -> OrderId {
    let order = new_order();
    store.place(std::slice::from_ref(&order), Outbox::Anyones).await.expect("places");
    order.order_id
}

/// The ids of the events between two places.
pub(crate) async fn read(store: &PgStore, after: i64, upto: i64) -> Vec<i64> {
    let span = Span { after: Cursor(after), upto: Cursor(upto) };
    let page = store.events(&FeedQuery { span, event: None, limit: 1_000 }).await.expect("reads");
    page.events.iter().map(|event| event.cursor.0).collect()
}

/// Makes the next step of an order as the service does, and leaves the transaction open.
pub(crate) async fn step(console: &mut PgConnection, order_id: OrderId) {
    run(console, "BEGIN").await.expect("begins");
    let step = format!(
        "WITH moved AS (
             UPDATE orders SET status = 'PREPARING', seq = seq + 1 WHERE order_id = '{order_id}' RETURNING order_id, seq)
         INSERT INTO order_events (order_id, event, seq, \"timestamp\") SELECT order_id, 'PREPARING', seq, now() FROM moved"
    );
    run(console, &step).await.expect("writes");
}

/// Looks until it is so far.
pub(crate) async fn settled_to(store: &PgStore, upto: i64) {
    let reached = async { while store.horizon().await.expect("looks").settled < Cursor(upto) {} };
    timeout(PATIENCE, reached).await.expect("nothing holds it back");
}

/// The horizon stays where it is, however often it is looked for.
async fn assert_held(store: &PgStore, settled: i64, last: i64) {
    for _ in 0..LOOKS {
        let horizon = store.horizon().await.expect("looks");
        assert_eq!((horizon.settled, horizon.last), (Cursor(settled), Cursor(last)));
    }
}

/// Promise 8: who was away misses nothing. An event that commits late is read in its place, once.
#[tokio::test]
#[cfg_attr(not(with_postgres), ignore = "left out: needs PG_DSN")]
async fn what_commits_late_is_not_passed_over() {
    let (database, store) = replica().await;
    let order_id = place(&store).await;
    settled_to(&store, 2).await;
    let mut late = console(&database).await;
    step(&mut late, order_id).await;
    place(&store).await;
    assert_eq!(read(&store, 0, i64::MAX).await, [1, 2, 4, 5], "whoever reads on from here never sees 3");
    assert_held(&store, 2, 5).await;
    let held = store.horizon().await.expect("looks").held;
    assert!(held > Duration::ZERO, "it says for how long");
    assert_eq!(read(&store, 0, 2).await, [1, 2]);
    run(&mut late, "COMMIT").await.expect("commits");
    settled_to(&store, 5).await;
    assert_eq!(read(&store, 2, 5).await, [3, 4, 5]);
    assert_eq!(store.horizon().await.expect("looks").held, Duration::ZERO);
}

/// Promise 8: who was away misses nothing. What was drawn before a mark and is still open is waited for, however
/// many marks were made since.
#[tokio::test]
#[cfg_attr(not(with_postgres), ignore = "left out: needs PG_DSN")]
async fn every_mark_waits_for_those_before_it() {
    let (database, store) = replica().await;
    let order_ids = [place(&store).await, place(&store).await];
    settled_to(&store, 4).await;
    let (mut first, mut second) = (console(&database).await, console(&database).await);
    step(&mut first, order_ids[0]).await;
    for n in 1..=100 {
        place(&store).await;
        assert_held(&store, 4, 5 + 2 * n).await;
    }
    step(&mut second, order_ids[1]).await;
    place(&store).await;
    assert_held(&store, 4, 208).await;
    run(&mut first, "COMMIT").await.expect("commits");
    // More than all marks that are kept, so the last one of them is settled first.
    timeout(PATIENCE, async { while store.horizon().await.expect("looks").settled < Cursor(100) {} })
        .await
        .expect("only the second is open");
    for _ in 0..LOOKS {
        let horizon = store.horizon().await.expect("looks");
        assert!(horizon.settled < Cursor(206), "{horizon:?}");
    }
    run(&mut second, "ROLLBACK").await.expect("rolls back");
    settled_to(&store, 208).await;
    assert_eq!(read(&store, 4, 208).await, (5..=208).filter(|id| *id != 206).collect::<Vec<_>>());
}

/// What was drawn in vain holds up nobody.
#[tokio::test]
#[cfg_attr(not(with_postgres), ignore = "left out: needs PG_DSN")]
async fn a_jump_of_the_sequence_is_no_hole() {
    let (database, store) = replica().await;
    let order_id = place(&store).await;
    let mut console = console(&database).await;
    step(&mut console, order_id).await;
    run(&mut console, "SELECT nextval('order_events_id_seq') FROM generate_series(1, 100)")
        .await
        .expect("draws");
    run(&mut console, "ROLLBACK").await.expect("rolls back");
    // Not even a transaction id was taken for this one.
    run(&mut console, "SELECT nextval('order_events_id_seq')").await.expect("draws");
    settled_to(&store, 104).await;
    place(&store).await;
    settled_to(&store, 106).await;
    assert_eq!(read(&store, 0, 106).await, [1, 2, 105, 106]);
}

/// Who holds the horizon back, once it is one of these; other tests hold it for moments.
pub(crate) async fn held_by(store: &PgStore, session: &str) -> Holder {
    let look = async {
        loop {
            if let Some(holder) =
                store.holder().await.expect("looks").filter(|holder| holder.session == session)
            {
                return holder;
            }
        }
    };
    timeout(PATIENCE, look).await.expect("it is the one")
}

pub(crate) async fn pid(console: &mut PgConnection) -> i32 {
    sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(console).await.expect("tells")
}

/// A transaction that writes holds the horizon back wherever it is on the server, and is named; one that reads does not.
#[tokio::test]
#[cfg_attr(not(with_postgres), ignore = "left out: needs PG_DSN")]
async fn the_horizon_waits_for_writers_of_the_whole_server() {
    let ((database, store), elsewhere) = (replica().await, Database::create().await);
    place(&store).await;
    settled_to(&store, 2).await;
    let options = elsewhere.options().application_name("left open");
    let mut open = options.connect().await.expect("connects");
    run(&mut open, "BEGIN").await.expect("begins");
    run(&mut open, "CREATE TABLE theirs ()").await.expect("writes");
    place(&store).await;
    assert_held(&store, 2, 4).await;
    let session = format!("pid {}", pid(&mut open).await);
    let holder = held_by(&store, &session).await;
    let name = elsewhere.options().get_database().expect("has a name").to_owned();
    assert_eq!((holder.application.as_str(), holder.database), ("left open", name));
    assert!(holder.age.is_some_and(|age| age > Duration::ZERO && age < PATIENCE), "{:?}", holder.age);
    run(&mut open, "ROLLBACK").await.expect("ends");
    settled_to(&store, 4).await;

    let here = old_snapshot(console(&database).await).await;
    let there = elsewhere.options().connect().await.expect("connects");
    let mut there = there;
    run(&mut there, "BEGIN ISOLATION LEVEL REPEATABLE READ").await.expect("begins");
    run(&mut there, "SELECT count(*) FROM pg_class").await.expect("reads");
    place(&store).await;
    settled_to(&store, 6).await;
    drop((here, there));
}

/// The same for one that is prepared, which has no session. Needs a server that takes them, as `tools/stack` has it.
#[tokio::test]
#[cfg_attr(not(with_postgres), ignore = "left out: needs PG_DSN")]
async fn a_prepared_transaction_is_named() {
    let (database, store) = replica().await;
    let mut open = console(&database).await;
    let most: i32 = sqlx::query_scalar("SELECT current_setting('max_prepared_transactions')::integer")
        .fetch_one(&mut open)
        .await
        .expect("tells");
    if most == 0 {
        // Where nobody can prepare one, none holds anything back.
        return;
    }
    let order_id = place(&store).await;
    settled_to(&store, 2).await;
    let name = format!("prepared {:016x}", rand::random::<u64>());
    step(&mut open, order_id).await;
    run(&mut open, &format!("PREPARE TRANSACTION '{name}'")).await.expect("prepares");
    place(&store).await;
    assert_held(&store, 2, 5).await;
    let holder = held_by(&store, &format!("prepared transaction {name}")).await;
    assert_eq!(Some(holder.database.as_str()), database.options().get_database());
    assert!(holder.age.is_some(), "{holder:?}");
    run(&mut open, &format!("COMMIT PREPARED '{name}'")).await.expect("commits");
    settled_to(&store, 5).await;
    assert_eq!(read(&store, 2, 5).await, [3, 4, 5]);
}

/// Draws an id for an event only for who holds a transaction id.
const GUARD: [&str; 2] = [
    "CREATE FUNCTION guarded_event_id() RETURNS bigint LANGUAGE plpgsql AS $$
     BEGIN
         IF pg_current_xact_id_if_assigned() IS NULL THEN
             RAISE EXCEPTION 'an event id is drawn before a transaction id';
         END IF;
         RETURN nextval('order_events_id_seq');
     END $$",
    "ALTER TABLE order_events ALTER COLUMN id SET DEFAULT guarded_event_id()",
];

/// Promise 8: who was away misses nothing. The horizon rests on this: whoever draws an event id holds a transaction
/// id by then, in every verb that writes events.
#[tokio::test]
#[cfg_attr(not(with_postgres), ignore = "left out: needs PG_DSN")]
async fn a_writer_holds_its_transaction_before_it_draws_an_id() {
    let (database, clock) = (Database::create().await, Arc::new(ManualClock::new(start())));
    let store = database.replica(&clock).await;
    let order_id = place(&store).await;
    let mut console = console(&database).await;
    for statement in GUARD {
        run(&mut console, statement).await.expect(statement);
    }
    // The event first and then its order, or the event alone: the guard tells.
    for wrong in [
        format!("INSERT INTO order_events (order_id, event, seq, \"timestamp\") VALUES ('{order_id}', 'PREPARING', 3, now())"),
        format!(
            "WITH told AS (
                 INSERT INTO order_events (order_id, event, seq, \"timestamp\") VALUES ('{order_id}', 'PREPARING', 3, now())
                 RETURNING order_id, seq)
             UPDATE orders SET seq = told.seq FROM told WHERE orders.order_id = told.order_id"
        ),
    ] {
        let refusal = run(&mut console, &wrong).await.expect_err("draws first").to_string();
        assert!(refusal.contains("before a transaction id"), "{refusal}");
    }

    let keyed =
        || NewOrder { key: Some(IdempotencyKey::open(rand::random::<u64>().to_string())), ..new_order() };
    let orders: Vec<NewOrder> = (0..4).map(|_| new_order()).chain((0..4).map(|_| keyed())).collect();
    store.place(&orders[..2], Outbox::Mine).await.expect("places");
    store.place(&orders[2..4], Outbox::Anyones).await.expect("places");
    for set in [&orders[4..5], &orders[5..], &orders[..]] {
        // The last time all are there already, under their keys.
        store.place(set, Outbox::Mine).await.expect("places");
    }
    let incoming = |order: NewOrder| Incoming {
        placed: OrderPlaced::new(order.order_id, order.details, Timestamp::default()),
        meta: None,
        start: order.start,
    };
    store
        .admit(&[incoming(new_order()), incoming(orders[0].clone()), incoming(new_order())])
        .await
        .expect("admits");

    let ids: Vec<OrderId> = orders.iter().map(|order| order.order_id).collect();
    let (instant, mut steps) = (StageDelays::uniform(Duration::ZERO), 0);
    clock.advance(Duration::from_secs(4));
    let soonest = Due::Soonest { limit: 100, after: None };
    for (due, delays) in [
        (Due::Alone(ids[0]), &instant),
        (Due::Alone(ids[1]), &StageDelays::default()),
        (Due::SecondChance(&ids[2..4]), &instant),
        (Due::SecondChance(&ids[4..6]), &StageDelays::default()),
        (Due::Soonest { limit: 1, after: None }, &instant),
        (soonest, &StageDelays::default()),
    ] {
        steps += store.advance_due(due, delays).await.expect("advances").transitions.len();
    }
    let before = steps;
    clock.advance(Duration::from_mins(1));
    // Those that a look has passed over.
    let mut held = self::console(&database).await;
    run(&mut held, "BEGIN").await.expect("begins");
    run(&mut held, &format!("SELECT 1 FROM orders WHERE order_id = '{}' FOR UPDATE", ids[1]))
        .await
        .expect("locks");
    steps += store.advance_due(soonest, &instant).await.expect("advances").transitions.len();
    run(&mut held, "ROLLBACK").await.expect("ends");
    clock.advance(Duration::from_mins(1));
    store.advance_due(soonest, &instant).await.expect("looks");
    for _ in 0..4 {
        let overlooked = Due::Overlooked { limit: 100, after: None, except: &[] };
        steps += store.advance_due(overlooked, &instant).await.expect("advances").transitions.len();
    }
    assert!(before >= 4 * 3 + 1 + 2, "{before}");
    assert_eq!(steps, 11 * 4, "each to its end");
    reports::report_everything(&store).await;
}

/// A sequence that hands out ids in blocks keeps some in reserve, far below its last value.
#[tokio::test]
#[cfg_attr(not(with_postgres), ignore = "left out: needs PG_DSN")]
async fn ids_in_blocks_are_told_with_what_helps() {
    let (database, store) = replica().await;
    place(&store).await;
    settled_to(&store, 2).await;
    let mut console = console(&database).await;
    run(&mut console, "ALTER SEQUENCE order_events_id_seq CACHE 20").await.expect("alters");
    place(&store).await;
    let error = store.horizon().await.expect_err("nobody can say");
    let remedy = "ALTER SEQUENCE order_events_id_seq CACHE 1";
    assert!(matches!(&error, StoreError::Unavailable(reason) if reason.contains(remedy)), "{error}");
    run(&mut console, remedy).await.expect("alters");
    place(&store).await;
    let last = store.horizon().await.expect("looks").last;
    settled_to(&store, last.0).await;
    assert_eq!(read(&store, 0, last.0).await.len(), 6);
}

/// A replica that has just started knows of what other replicas' readers have read that it was settled.
#[tokio::test]
#[cfg_attr(not(with_postgres), ignore = "left out: needs PG_DSN")]
async fn a_new_replica_begins_where_readers_are() {
    let (database, store) = replica().await;
    let order_id = place(&store).await;
    settled_to(&store, 2).await;
    for (name, to) in [("one", 2), ("behind", 1)] {
        let lease = store.lease(name, LASTING).await.expect("leases").expect("is free");
        store.move_on(name, lease, Cursor(to), LASTING).await.expect("moves").expect("is held");
    }
    let mut late = console(&database).await;
    step(&mut late, order_id).await;
    place(&store).await;
    let clock = Arc::new(ManualClock::new(start()));
    assert_held(&*database.replica(&clock).await, 2, 5).await;
    // A place that somebody has set beyond all events says nothing.
    run(&mut late, "COMMIT").await.expect("commits");
    step(&mut late, order_id).await;
    let mut owner = console(&database).await;
    run(&mut owner, "UPDATE feed_cursors SET cursor = 9000000000 WHERE name = 'behind'").await.expect("sets");
    let started = database.replica(&clock).await;
    assert_held(&started, 2, 6).await;
    run(&mut late, "COMMIT").await.expect("commits");
    settled_to(&started, 6).await;
    assert_eq!(read(&started, 2, 6).await, [3, 4, 5, 6]);
}

/// What was known of ids that are handed out again is forgotten: those of a sequence that somebody has set back.
#[tokio::test]
#[cfg_attr(not(with_postgres), ignore = "left out: needs PG_DSN")]
async fn a_sequence_that_was_set_back_begins_anew() {
    let (database, store) = replica().await;
    let order_ids = [place(&store).await, place(&store).await];
    settled_to(&store, 4).await;
    let (mut owner, mut open, mut late) =
        (console(&database).await, console(&database).await, console(&database).await);
    step(&mut open, order_ids[0]).await;
    run(&mut owner, "SELECT setval('order_events_id_seq', 100)").await.expect("jumps");
    assert_held(&store, 4, 100).await;
    run(&mut owner, "SELECT setval('order_events_id_seq', 5)").await.expect("goes back");
    step(&mut late, order_ids[1]).await;
    place(&store).await;
    run(&mut open, "COMMIT").await.expect("commits");
    assert_held(&store, 0, 8).await;
    run(&mut late, "COMMIT").await.expect("commits");
    settled_to(&store, 8).await;
    assert_eq!(read(&store, 0, 8).await, (1..=8).collect::<Vec<_>>());
}
