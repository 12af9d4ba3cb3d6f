//! How often the database is asked for an order, and for what, on PostgreSQL.

use std::sync::Arc;

use sqlx::{ConnectOptions as _, PgConnection};

use super::{
    super::{reports, verbs},
    Database, new_order,
};
use crate::{
    order::{EventKind, OrderId, Report, Rules, Source, Timestamp, TrackedOrder, to_millis},
    store::{Found, OrderReport, OrderStore as _, Outbox, Page, conformance::start},
    time::{Clock as _, ManualClock},
};

/// What a session has been asked so far: each statement, and how often.
async fn asked(db: &mut PgConnection) -> Vec<(String, i64)> {
    let all = "SELECT statement, generic_plans + custom_plans FROM pg_prepared_statements
        WHERE statement NOT LIKE '%pg_prepared_statements%' ORDER BY prepare_time";
    sqlx::query_as(all).fetch_all(db).await.expect("reads")
}

async fn find(db: &mut PgConnection, order_id: OrderId) -> (TrackedOrder, Timestamp) {
    let Found { now, orders } = verbs::find_all(db, &[order_id], None).await.expect("reads");
    let mut orders = reports::with_notes(db, orders).await;
    (orders.pop().expect("is there"), now)
}

/// One statement brings an order, its timeline and the database's time; a second one notes, only where there is one.
/// Lists bring no time.
#[tokio::test]
#[cfg_attr(not(with_postgres), ignore = "left out: needs PG_DSN")]
async fn an_order_takes_one_statement_and_a_note_another() {
    let (database, clock) = (Database::create().await, Arc::new(ManualClock::new(start())));
    let store = database.replica(&clock).await;
    let order = new_order();
    store.place(std::slice::from_ref(&order), Outbox::Anyones).await.expect("places");
    let found = store.find_all(&[order.order_id]).await.expect("reads");
    assert_eq!(found.now, clock.now());
    let mut db = database.options().connect().await.expect("connects");

    let (_, first) = find(&mut db, order.order_id).await;
    let (_, then) = find(&mut db, order.order_id).await;
    let now: Timestamp =
        sqlx::query_scalar("SELECT clock_timestamp()").fetch_one(&mut db).await.expect("reads");
    assert!(first > start() && first <= then && then <= now, "{first} {then} {now}: its own clock");
    assert_eq!(first, to_millis(first));
    let statements = asked(&mut db).await;
    assert_eq!(statements[0].1, 2, "{statements:?}");
    assert!(statements[0].0.contains("FROM orders") && statements.len() == 2, "{statements:?}");

    let report = Report { note: Some("soft".to_owned()), ..Report::of(EventKind::Ready, Source::Kitchen) };
    let report = OrderReport { order_id: order.order_id, report, if_match: None };
    store.report(&[report], &Rules::default()).await.expect("reports");
    let (tracked, _) = find(&mut db, order.order_id).await;
    assert_eq!(tracked.events.last().and_then(|last| last.meta.clone()).expect("some")["note"], "soft");
    let page = Page { status: None, before: None, limit: 5 };
    assert_eq!(verbs::list(&mut db, &page).await.expect("reads").len(), 1);
    let statements = asked(&mut db).await;
    let times: Vec<i64> = statements.iter().map(|(_, times)| *times).collect();
    assert_eq!(times, [3, 1, 1, 1], "{statements:?}");
    let (list, _) = statements.last().expect("the list");
    assert!(!list.contains("now") && !list.contains("clock"), "{list}");
}
