//! What a report reads, however much is stored, on PostgreSQL.

use std::sync::Arc;

use sqlx::{ConnectOptions as _, PgConnection};

use super::{
    super::{
        PgStore,
        figures_cost::all_read,
        tests::{Database, new_order, run},
    },
    AUDIT, READ, WRITE,
};
use crate::{
    order::{EventKind, OrderId, Report, Rules, Source, Status},
    store::{
        Maintenance as _, NewOrder, OrderReport, OrderStore as _, Outbox, ReportOutcome as Outcome,
        conformance::start,
    },
    time::ManualClock,
};

/// How often each is asked: a generic plan is made at the sixth execution.
const ASKED: usize = 8;
/// Orders of one set.
const SET: usize = 5;
/// What comes with every start of a replica.
const START: usize = 60;
/// Entries that one report may read: its order, five or six events and what was said under its id, once to judge it and
/// once to write.
const MOST: usize = 24;

/// Delivered orders up to this one, with their timelines, each of which was reported under an id.
fn fill(from: usize, to: usize) -> [String; 3] {
    let numbers = format!("generate_series({from}, {to}) AS n");
    let id = "'ORD-0' || lpad(n::text, 25, '0')";
    [
        format!(
            "INSERT INTO orders SELECT {id}, 'Ada', 'here', 'pizza', 'large', 'DELIVERED', 6, $$2026-01-02$$, $$2026-01-02$$
             FROM {numbers}"
        ),
        format!(
            "INSERT INTO order_events (order_id, event, seq, \"timestamp\")
             SELECT {id}, (ARRAY['CREATED', 'PLACED', 'PREPARING', 'COOKING', 'OUT_FOR_DELIVERY', 'DELIVERED'])[seq], seq,
                 $$2026-01-02$$ FROM {numbers}, generate_series(1, 6) AS seq"
        ),
        format!(
            "INSERT INTO order_reports SELECT {id}, seq, 'id ' || seq, '{{}}', 'a note' FROM {numbers}, generate_series(3, 6) AS seq"
        ),
    ]
}

/// Sets of reports that happen, say nothing new or are of no order; all have ids, which others' reports have too.
async fn report(store: &PgStore, orders: &[OrderId]) {
    for set in orders.chunks(SET) {
        for (event, happens) in [
            (EventKind::Reached(Status::Cooking), true),
            (EventKind::Reached(Status::Preparing), false),
            (EventKind::Ready, true),
        ] {
            let report = |order_id: OrderId| OrderReport {
                order_id,
                report: Report {
                    id: Some(format!("id {}", if happens { event.as_str().len() } else { 3 })),
                    note: Some("a note".to_owned()),
                    ..Report::of(event, Source::Kitchen)
                },
                if_match: None,
            };
            let mut reports: Vec<OrderReport> = set.iter().copied().map(report).collect();
            reports.push(report(new_order().order_id));
            let answers = store.report(&reports, &Rules::default()).await.expect("reports");
            let applied = answers.iter().filter(|answer| matches!(answer.outcome, Outcome::Applied(..)));
            assert_eq!(applied.count(), if happens { SET } else { 0 }, "{answers:?}");
        }
    }
}

async fn quiet(console: &mut PgConnection) {
    run(console, "SET session_replication_role = replica").await.expect("no foreign key is checked");
    for table in ["orders", "order_events", "order_reports"] {
        let statement = format!("ALTER TABLE {table} SET (autovacuum_enabled = false)");
        run(console, &statement).await.expect(&statement);
    }
}

/// Promise 5: memory, queues and time are bounded. No look costs more because more orders are stored, in generic plans
/// and in those made for one answer, on tables that were never analysed and on those that were.
#[tokio::test]
#[cfg_attr(not(with_postgres), ignore = "left out: needs PG_DSN")]
async fn a_report_costs_the_same_however_many_orders_there_are() {
    let (database, clock) = (Database::create().await, Arc::new(ManualClock::new(start())));
    database.replica(&clock).await.close().await;
    let mut console = database.options().connect().await.expect("connects");
    let name = database.options().get_database().expect("has a name").to_owned();
    quiet(&mut console).await;
    let mut there = 0;
    for (count, analyzed) in [(500, false), (20_000, false), (20_000, true)] {
        for statement in fill(there + 1, count) {
            run(&mut console, &statement).await.expect("fills");
        }
        there = count;
        if analyzed {
            run(&mut console, "ANALYZE").await.expect("analyzes");
        }
        for mode in ["force_generic_plan", "force_custom_plan"] {
            let mode = format!("ALTER DATABASE {name} SET plan_cache_mode = {mode}");
            run(&mut console, &mode).await.expect("sets");
            let store = database.replica(&clock).await;
            let orders: Vec<NewOrder> = (0..ASKED * SET).map(|_| new_order()).collect();
            store.place(&orders, Outbox::Anyones).await.expect("places");
            store.close().await;
            let before = all_read(&mut console).await;
            let store = database.replica(&clock).await;
            let ids: Vec<OrderId> = orders.iter().map(|order| order.order_id).collect();
            report(&store, &ids).await;
            store.close().await;
            let read = usize::try_from(all_read(&mut console).await - before).expect("counts rise");
            let most = START + ASKED * 3 * (SET + 1) * MOST;
            assert!(read <= most, "{count} orders, {mode}: {read} entries read, {most} at most");
        }
    }
}

/// In the plans that a statement has which was prepared long ago: no table is read from its beginning to its end, for a report
/// or by those who look at what is kept of them.
#[tokio::test]
#[cfg_attr(not(with_postgres), ignore = "left out: needs PG_DSN")]
async fn no_table_is_read_for_a_report() {
    let database = Database::create().await;
    database.replica(&Arc::new(ManualClock::new(start()))).await.close().await;
    let mut console = database.options().connect().await.expect("connects");
    quiet(&mut console).await;
    for statement in fill(1, 20_000) {
        run(&mut console, &statement).await.expect("fills");
    }
    run(&mut console, "SET plan_cache_mode = force_generic_plan").await.expect("sets");
    let arrays = vec!["'{}'"; 18].join(", ");
    for (name, statement, bound, index) in [
        ("reads", READ, "'{a,b}', '{x}', NULL, '{a}'", "orders_pkey"),
        ("writes", WRITE, &arrays, "orders_pkey"),
        ("audits", AUDIT, "'ORD-01', 3, 'ORD-02', 100", "order_reports_pkey"),
    ] {
        run(&mut console, &format!("PREPARE {name} AS {statement}")).await.expect(name);
        for analyzed in [false, true] {
            if analyzed {
                run(&mut console, "ANALYZE").await.expect("analyzes");
            }
            let explain = sqlx::AssertSqlSafe(format!("EXPLAIN EXECUTE {name} ({bound})"));
            let plan: Vec<String> =
                sqlx::query_scalar(explain).fetch_all(&mut console).await.expect("explains");
            assert!(!plan.iter().any(|line| line.contains("Seq Scan")), "{plan:#?}");
            let indexed = plan.iter().any(|line| line.contains(index));
            assert!(indexed, "{plan:#?}");
        }
    }
}
