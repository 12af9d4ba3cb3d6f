//! Rows that somebody has made odd by hand, and how little they change for all others, on PostgreSQL.

use std::{sync::Arc, time::Duration};

use sqlx::{ConnectOptions as _, Connection as _, PgConnection};
use tokio::time::Instant;

use super::{Database, new_order, run};
use crate::{
    keys::{KeyCreation, KeyUse},
    order::{OrderId, Role, StageDelays},
    store::{
        Due, IdempotencyKey, KeyStore as _, Maintenance as _, NewOrder, OrderStore as _, Outbox,
        OutboxStore as _, Store, StoreError,
        conformance::{keys::drawn, new_orders, outbox::take, start},
    },
    time::ManualClock,
};

/// A store with two orders, and a console.
async fn two_orders() -> (Database, Arc<ManualClock>, Arc<dyn Store>, [OrderId; 2], PgConnection) {
    let (database, clock) = (Database::create().await, Arc::new(ManualClock::new(start())));
    let store = database.replica(&clock).await;
    let orders: [NewOrder; 2] = [new_order(), new_order()];
    store.place(&orders, Outbox::Mine).await.expect("places");
    let console = database.options().connect().await.expect("connects");
    (database, clock, store, orders.map(|order| order.order_id), console)
}

/// What is no moment is refused; what becomes of it where it stands already, `conformance` says.
#[tokio::test]
#[cfg_attr(not(with_postgres), ignore = "left out: needs PG_DSN")]
async fn infinity_is_refused() {
    let (_database, _clock, _store, [odd, _], mut console) = two_orders().await;
    for column in ["due_at", "created_at", "updated_at", "expected_at", "ready_at"] {
        let odd_row = format!("UPDATE orders SET {column} = 'infinity' WHERE order_id = '{odd}'");
        let refusal = run(&mut console, &odd_row).await.expect_err("is no moment").to_string();
        assert!(refusal.contains("orders_moments_are_finite"), "{refusal}");
    }
}

/// Every verb of the outbox passes over a row that somebody holds, at once, and says that it stays.
#[tokio::test]
#[cfg_attr(not(with_postgres), ignore = "left out: needs PG_DSN")]
async fn a_locked_outbox_row_holds_up_no_other() {
    let (database, clock) = (Database::create().await, Arc::new(ManualClock::new(start())));
    let store = database.replica(&clock).await;
    let orders = new_orders(5);
    store.place(&orders, Outbox::Anyones).await.expect("places");
    let ids: Vec<OrderId> = orders.iter().map(|order| order.order_id).collect();
    let mut console = database.options().connect().await.expect("connects");
    let mut holder = console.begin().await.expect("begins");
    run(&mut holder, &format!("SELECT 1 FROM outbox WHERE order_id = '{}' FOR UPDATE", ids[2]))
        .await
        .expect("locks");
    let asked = Instant::now();
    assert_eq!(take(&*store, 10).await.len(), 4);
    assert_eq!(store.release(&ids).await.expect("releases"), []);
    assert_eq!(take(&*store, 10).await.len(), 4);
    assert_eq!(store.mark_sent(&ids).await.expect("marks"), [ids[2]]);
    assert_eq!(store.mark_sent(&ids).await.expect("marks"), [ids[2]], "as often as it is asked");
    assert!(asked.elapsed() < Duration::from_millis(900), "nobody waits: {:?}", asked.elapsed());
    holder.rollback().await.expect("unlocks");
    assert_eq!(take(&*store, 10).await.len(), 1);
    let mut holder = console.begin().await.expect("begins");
    run(&mut holder, "SELECT 1 FROM outbox FOR UPDATE").await.expect("locks");
    assert_eq!(store.release(&ids).await.expect("releases"), [ids[2]]);
    holder.rollback().await.expect("unlocks");
    assert_eq!(store.mark_sent(&ids).await.expect("marks"), []);
}

/// What somebody holds besides: the row by which a replica says that it lives, and keys that have had their time.
#[tokio::test]
#[cfg_attr(not(with_postgres), ignore = "left out: needs PG_DSN")]
async fn other_locked_rows_are_waited_for_by_nobody() {
    let (database, clock) = (Database::create().await, Arc::new(ManualClock::new(start())));
    let store = database.replica(&clock).await;
    let keyed: Vec<NewOrder> =
        ["a", "b", "c"].map(|key| NewOrder { key: Some(IdempotencyKey::open(key)), ..new_order() }).into();
    store.place(&keyed, Outbox::Anyones).await.expect("places");
    let mut console = database.options().connect().await.expect("connects");
    let mut holder = console.begin().await.expect("begins");
    run(&mut holder, "SELECT 1 FROM relays FOR UPDATE").await.expect("locks");
    run(&mut holder, "SELECT 1 FROM idempotency_keys WHERE key = 'a' FOR UPDATE").await.expect("locks");
    let asked = Instant::now();
    let beat = store.heartbeat().await.expect_err("can't be said");
    assert!(beat.may_be_one(), "{beat}");
    clock.advance(Duration::from_hours(25));
    assert_eq!(store.expire_idempotency_keys(10).await.expect("expires"), 2);
    assert!(asked.elapsed() < Duration::from_millis(900), "nobody waits: {:?}", asked.elapsed());
    holder.rollback().await.expect("unlocks");
    store.heartbeat().await.expect("lives");
    assert_eq!(store.expire_idempotency_keys(10).await.expect("expires"), 1, "the next time");
}

/// An idempotency key that another session holds is waited for by its own order alone, and not for long.
#[tokio::test]
#[cfg_attr(not(with_postgres), ignore = "left out: needs PG_DSN")]
async fn a_key_that_is_held_holds_up_no_order_without_one() {
    let (database, _clock, store, [stored, _], mut console) = two_orders().await;
    let hold = format!("INSERT INTO idempotency_keys VALUES ('', 'held', '{stored}', now())");
    run(&mut console, "BEGIN").await.expect("begins");
    run(&mut console, &hold).await.expect("holds the key");
    let keyed = NewOrder { key: Some(IdempotencyKey::open("held")), ..new_order() };
    let (keyed, keyless) = ([keyed], [new_order()]);
    let asked = Instant::now();
    let keyed_place = async { (store.place(&keyed, Outbox::Mine).await, asked.elapsed()) };
    let keyless_place = async { (store.place(&keyless, Outbox::Mine).await, asked.elapsed()) };
    let ((refused, refused_in), (placed, placed_in)) = tokio::join!(keyed_place, keyless_place);
    placed.expect("places");
    assert!(matches!(refused, Err(StoreError::Timeout(_))), "{refused:?}");
    assert!(placed_in < refused_in, "{placed_in:?}, {refused_in:?}");
    run(&mut console, "ROLLBACK").await.expect("lets it go");
    store.place(&keyed, Outbox::Mine).await.expect("places");
    drop(database);
}

/// Promise 4: timers are rows. A look that meets an order that takes too long is given up soon; its connection makes the
/// next one, and whoever is tried alone has as long as before.
#[tokio::test]
#[cfg_attr(not(with_postgres), ignore = "left out: needs PG_DSN")]
async fn what_moves_orders_is_given_up_soon() {
    let (_database, clock, store, [slow, good], mut console) = two_orders().await;
    let (delays, all) = (StageDelays::default(), Due::Soonest { limit: 9, after: None });
    store.advance_due(all, &delays).await.expect("nothing is due");
    let stall = format!(
        "CREATE FUNCTION stall() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN IF NEW.order_id = '{slow}' THEN PERFORM pg_sleep(3); END IF; RETURN NEW; END $$"
    );
    let trigger = "CREATE TRIGGER stall BEFORE INSERT ON order_events FOR EACH ROW EXECUTE FUNCTION stall()";
    for statement in [&*stall, trigger] {
        run(&mut console, statement).await.expect(statement);
    }
    clock.advance(Duration::from_secs(3));
    let sessions = "SELECT pid FROM pg_stat_activity
        WHERE datname = current_database() AND application_name LIKE 'order-tracker%' ORDER BY pid";
    let before: Vec<i32> = sqlx::query_scalar(sessions).fetch_all(&mut console).await.expect("reads");
    let fails = async |due| {
        let asked = Instant::now();
        let error = store.advance_due(due, &delays).await.expect_err("too slow");
        assert!(matches!(error, StoreError::Timeout(_)), "{error}");
        asked.elapsed()
    };
    let (both, alone) = ([slow, good], [slow]);
    for due in [all, Due::Part(&both), Due::SecondChance(&alone)] {
        let took = fails(due).await;
        assert!(took < Duration::from_secs(1), "{took:?} for {due:?}");
    }
    let moved = store.advance_due(Due::Part(&[good]), &delays).await.expect("moves");
    assert_eq!(moved.orders(), 1);
    let after: Vec<i32> = sqlx::query_scalar(sessions).fetch_all(&mut console).await.expect("reads");
    assert_eq!(after, before);
    assert!(fails(Due::Alone(slow)).await > Duration::from_secs(1), "as long as a statement may take");
}

/// The use of a key whose row another session holds is told again; nobody waits for it, and all others are noted.
#[tokio::test]
#[cfg_attr(not(with_postgres), ignore = "left out: needs PG_DSN")]
async fn a_locked_key_holds_up_no_other() {
    let (database, clock) = (Database::create().await, Arc::new(ManualClock::new(start())));
    let store = database.replica(&clock).await;
    let keys = ["a", "b"].map(|name| drawn(name, Role::Shop).1);
    for key in &keys {
        assert_eq!(store.create_key(key).await, Ok(KeyCreation::Created));
    }
    let uses = keys.each_ref().map(|key| KeyUse { id: key.id.clone(), at: start() });
    let mut console = database.options().connect().await.expect("connects");
    let mut holder = console.begin().await.expect("begins");
    run(&mut holder, "SELECT 1 FROM api_keys WHERE name = 'a' FOR UPDATE").await.expect("locks");
    let asked = Instant::now();
    assert_eq!(store.note_uses(&uses).await, Ok(vec![keys[0].id.clone()]));
    assert!(asked.elapsed() < Duration::from_millis(900), "nobody waits: {:?}", asked.elapsed());
    holder.rollback().await.expect("unlocks");
    let noted = async || {
        let listed = store.list_keys().await.expect("reads").keys;
        listed.iter().filter(|key| key.last_used_at.is_some()).count()
    };
    assert_eq!(noted().await, 1);
    assert_eq!(store.note_uses(&uses).await, Ok(Vec::new()));
    assert_eq!(noted().await, 2);
}
