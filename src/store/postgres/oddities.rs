//! Rows that somebody has made odd by hand, and how little they change for all others, on PostgreSQL.

use std::{sync::Arc, time::Duration};

use sqlx::{ConnectOptions as _, PgConnection};
use tokio::time::Instant;

use super::tests::{Database, new_order, run};
use crate::{
    clock::ManualClock,
    order::{OrderId, Status},
    store::{NewOrder, Outbox, Page, Store, StoreError, conformance::start},
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

/// What is no moment is refused, and where it stands already it is one order's trouble, not a replica's end.
#[tokio::test]
#[cfg_attr(not(with_postgres), ignore = "left out: needs PG_DSN")]
async fn infinity_is_refused_and_ends_nothing() {
    let (_database, clock, store, [odd, good], mut console) = two_orders().await;
    for column in ["due_at", "created_at", "updated_at"] {
        let odd_row = format!("UPDATE orders SET {column} = 'infinity' WHERE order_id = '{odd}'");
        let refusal = run(&mut console, &odd_row).await.expect_err("is no moment").to_string();
        assert!(refusal.contains("orders_moments_are_finite"), "{refusal}");
    }
    run(&mut console, "ALTER TABLE orders DROP CONSTRAINT orders_moments_are_finite").await.expect("drops");
    for moment in ["infinity", "-infinity", "290000-01-01"] {
        for column in ["created_at", "updated_at", "due_at"] {
            let odd_row = format!("UPDATE orders SET {column} = '{moment}' WHERE order_id = '{odd}'");
            run(&mut console, &odd_row).await.expect("by hand");
            let found = store.find(odd).await;
            assert!(matches!(found, Err(StoreError::Failed(_))), "{column} {moment}: {found:?}");
            assert!(store.find(good).await.expect("reads").is_some());
            let listed = store.list(&Page { status: None, before: None, limit: 9 }).await.expect("lists");
            assert_eq!(listed.iter().map(|order| order.order_id).collect::<Vec<_>>(), [good]);
            let page = store.audit(None, 9).await.expect("reads");
            assert_eq!((page.orders.len(), page.unreadable), (1, vec![odd.to_string()]));
            store.positions(&[odd, good]).await.expect("reads");
            store.backlog().await.expect("reads");
            store.attention(Duration::ZERO, 9).await.expect("reads");
            store.count(&Status::ALL).await.expect("counts");
            run(&mut console, &format!("UPDATE orders SET {column} = now() WHERE order_id = '{odd}'"))
                .await
                .expect("mends");
        }
    }
    run(&mut console, &format!("UPDATE orders SET due_at = 'infinity' WHERE order_id = '{odd}'"))
        .await
        .expect("by hand");
    clock.advance(Duration::from_secs(3));
    let advance = store.advance(9).await.expect("advances");
    assert_eq!(advance.moves.iter().map(|step| step.order_id).collect::<Vec<_>>(), [good]);
}

/// An idempotency key that another session holds is waited for by its own order alone, and not for long.
#[tokio::test]
#[cfg_attr(not(with_postgres), ignore = "left out: needs PG_DSN")]
async fn a_key_that_is_held_holds_up_no_order_without_one() {
    let (database, _clock, store, [stored, _], mut console) = two_orders().await;
    let hold = format!("INSERT INTO idempotency_keys VALUES ('held', '{stored}', now())");
    run(&mut console, "BEGIN").await.expect("begins");
    run(&mut console, &hold).await.expect("holds the key");
    let keyed = NewOrder { key: Some("held".to_owned()), ..new_order() };
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
