//! What a report reads, however much is stored, on PostgreSQL.

use std::sync::Arc;

use serde_json::Value;
use sqlx::{ConnectOptions as _, PgConnection};

use super::{
    super::{
        PgStore,
        session::{Access, Purpose, WITHIN},
        tests::{Database, figures_cost::all_read, new_order, run},
    },
    AUDIT, READ, WRITE,
};
use crate::{
    order::{EventKind, OrderId, Report, Rules, Source, Status},
    store::{
        Maintenance as _, NewOrder, OrderReport, OrderStore as _, Outbox, ReportOutcome, conformance::start,
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
/// Rows that the parts of a statement may hand on for one report, or look at and leave out.
const HANDLED: f64 = 40.0;
/// Stored orders where plans are looked at.
const STORED: u32 = 20_000;

/// Delivered orders up to this one, with their timelines, each of which was reported under an id.
fn fill(from: u32, to: u32) -> [String; 3] {
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
            let applied =
                answers.iter().filter(|answer| matches!(answer.outcome, ReportOutcome::Applied(..)));
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
    for (count, analyzed) in [(500, false), (STORED, false), (STORED, true)] {
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
    for statement in fill(1, STORED) {
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

/// What both statements are asked for a set of as many, spread over all that are stored.
fn bound(size: u32) -> [String; 2] {
    let array =
        |of: &dyn Fn(u32) -> String| format!("'{{{}}}'", (1..=size).map(of).collect::<Vec<_>>().join(","));
    let all = |value: &str| array(&|_| value.to_owned());
    let ids = array(&|nth| format!("ORD-0{:025}", nth * (STORED / size)));
    let nth = array(&|nth| nth.to_string());
    let (was, seq, stamps, none, json) = (all("6"), all("7"), all("2026-01-03"), all("NULL"), all("true"));
    [
        format!("{ids}, {}, NULL, {ids}", all("id 3")),
        format!(
            "{ids}, {was}, {seq}, {}, {stamps}, {none}, {none}, {none}, {nth}, {}, {seq}, {stamps}, {json}, {nth},
             {seq}, {}, {json}, {none}",
            all("OUT_FOR_DELIVERY"),
            all("REVERTED"),
            all("id 7")
        ),
    ]
}

/// Rows that a plan's parts have handed on, or looked at and left out.
fn handled(node: &Value) -> f64 {
    let number = |name: &str| node[name].as_f64().unwrap_or_default();
    let of_each = ["Actual Rows", "Rows Removed by Filter", "Rows Removed by Join Filter"].map(number);
    let parts = node["Plans"].as_array().into_iter().flatten().map(handled);
    of_each.iter().sum::<f64>() * number("Actual Loops") + parts.sum::<f64>()
}

/// Carries a statement out and takes it back. Answers how many rows were handled for each report of the set.
async fn handled_for_each(session: &mut PgConnection, name: &str, size: u32, bound: &str) -> f64 {
    run(session, "BEGIN").await.expect("begins");
    let explain = format!("EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) EXECUTE {name} ({bound})");
    let explain = sqlx::AssertSqlSafe(explain);
    let plan: Value = sqlx::query_scalar(explain).fetch_one(&mut *session).await.expect(name);
    run(session, "ROLLBACK").await.expect("rolls back");
    let plan = &plan[0]["Plan"];
    assert_eq!(plan["Actual Rows"].as_f64(), Some(size.into()), "{name}: {plan:#}");
    handled(plan) / f64::from(size)
}

/// A set costs what its reports do: none of them is compared with all others, in sessions as the service makes them.
#[tokio::test]
#[cfg_attr(not(with_postgres), ignore = "left out: needs PG_DSN")]
async fn a_report_costs_the_same_however_many_come_with_it() {
    let database = Database::create().await;
    database.replica(&Arc::new(ManualClock::new(start()))).await.close().await;
    let mut console = database.options().connect().await.expect("connects");
    quiet(&mut console).await;
    for statement in fill(1, STORED) {
        run(&mut console, &statement).await.expect("fills");
    }
    let access = Access::new(&database.settings().dsn, 1);
    let mut session = access.session(Purpose::Calls, WITHIN).await.expect("connects");
    let statements = [("reads", READ), ("writes", WRITE)];
    for (name, statement) in statements {
        run(&mut session, &format!("PREPARE {name} AS {statement}")).await.expect(name);
    }
    for analyzed in [false, true] {
        if analyzed {
            run(&mut console, "ANALYZE").await.expect("analyzes");
        }
        for mode in ["force_generic_plan", "force_custom_plan"] {
            run(&mut session, &format!("SET plan_cache_mode = {mode}")).await.expect("sets");
            for size in [8, 64, 512] {
                for ((name, _), bound) in statements.iter().zip(bound(size)) {
                    let each = handled_for_each(&mut session, name, size, &bound).await;
                    assert!(
                        each <= HANDLED,
                        "{name} {size}, {mode}, analyzed: {analyzed}: {each} rows for each"
                    );
                }
            }
        }
    }
}
