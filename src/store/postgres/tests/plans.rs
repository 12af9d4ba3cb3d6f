//! What statements read, however much is stored, on PostgreSQL.

use std::{sync::Arc, time::Duration};

use sqlx::{ConnectOptions as _, PgConnection};

use super::{
    super::{
        PgStore, bounded,
        timers::{DUE, IN_RANGE},
    },
    Database, new_order, run,
};
use crate::{
    order::{COUNTED_TO, Cursor, EventKind, OrderId, Report, Rules, Source, StageDelays, Start, Status},
    store::{
        Due, DueKey, EventLog as _, FeedQuery, IdempotencyKey, Incoming, Insight as _, Maintenance as _,
        NewOrder, OrderReport, OrderStore as _, Outbox, OutboxStore as _, Page, Placement, Span, StoreError,
        conformance::start,
    },
    time::{Clock as _, ManualClock},
};

/// Statements prepared on the empty tables of the first minute must not read whole tables later: a
/// prepared statement keeps its plan until the table is analysed.
#[tokio::test]
#[cfg_attr(not(with_postgres), ignore = "left out: needs PG_DSN")]
async fn plans_made_on_empty_tables_hold_when_they_are_full() {
    const ROWS: i64 = 20_000;
    let (database, clock) = (Database::create().await, Arc::new(ManualClock::new(start())));
    let store = database.replica(&clock).await;
    let mut console = database.options().connect().await.expect("connects");
    for table in ["orders", "order_events", "outbox", "idempotency_keys"] {
        run(&mut console, &format!("ALTER TABLE {table} SET (autovacuum_enabled = false)"))
            .await
            .expect("alters");
    }
    // A generic plan is made at the sixth execution on a connection, and the loops have two.
    for _ in 0..16 {
        use_every_verb(&store).await;
    }
    for statement in [
        // No foreign key is checked, so that only our own reading is counted.
        "SET session_replication_role = replica".to_owned(),
        format!(
            "INSERT INTO orders SELECT 'ORD-' || lpad(n::text, 26, '0'), 'Ada', 'here', 'pizza', 'large',
                 'DELIVERED', 6, now(), now() FROM generate_series(1, {ROWS}) AS n"
        ),
        "INSERT INTO order_events (order_id, event, seq, \"timestamp\")
             SELECT order_id, 'CREATED', 1, now() FROM orders WHERE order_id LIKE 'ORD-000%' ON CONFLICT DO NOTHING"
            .to_owned(),
        "INSERT INTO idempotency_keys SELECT '', order_id, order_id, now() FROM orders".to_owned(),
        "SELECT pg_stat_force_next_flush()".to_owned(),
    ] {
        run(&mut console, &statement).await.expect(&statement);
    }
    let before = rows_read(&mut console).await;
    for _ in 0..4 {
        use_every_verb(&store).await;
    }
    store.close().await;
    let read = rows_read(&mut console).await - before;
    assert!(read < ROWS / 5, "{read} rows read");
}

/// The worst shape for timers: very many in progress in every status and none due, then many dead entries
/// that no vacuum may take since a session holds an old snapshot. What a look reads does not grow with either.
#[tokio::test]
#[cfg_attr(not(with_postgres), ignore = "left out: needs PG_DSN")]
async fn a_look_reads_what_is_due_however_many_wait() {
    const WAITING: i64 = 30_000;
    let (database, clock) = (Database::create().await, Arc::new(ManualClock::new(start())));
    let store = database.replica(&clock).await;
    let mut console = database.options().connect().await.expect("connects");
    // Prepared on empty tables, generic from the sixth time on.
    for _ in 0..16 {
        store.advance(10).await.expect("advances");
    }
    run(&mut console, "ALTER TABLE orders SET (autovacuum_enabled = false)").await.expect("alters");
    let waiting = format!(
        "INSERT INTO orders SELECT 'ORD-0' || lpad(n::text, 25, '0'), 'Ada', 'here', 'pizza', 'large',
             (ARRAY['PLACED', 'PREPARING', 'COOKING', 'OUT_FOR_DELIVERY'])[1 + n % 4], 2 + n % 4, $$2026-01-02$$, $$2026-01-02$$,
             timestamptz '2026-01-03' + n * interval '1 s' FROM generate_series(1, {WAITING}) AS n"
    );
    run(&mut console, &waiting).await.expect("inserts");
    let backup = database.options().connect().await.expect("connects");
    let backup = old_snapshot(backup).await;
    // Those that had been due and moved on: each left a dead entry behind.
    for due_at in ["timestamptz '2026-01-01'", "due_at + interval '1 h'", "timestamptz '2026-01-03'"] {
        let moved = format!("UPDATE orders SET due_at = {due_at} WHERE order_id LIKE 'ORD-0%7'");
        run(&mut console, &moved).await.expect("updates");
    }
    for analyzed in [false, true] {
        if analyzed {
            run(&mut console, "ANALYZE orders").await.expect("analyzes");
        }
        let due: Vec<NewOrder> = (0..20).map(|_| new_order()).collect();
        store.place(&due, Outbox::Mine).await.expect("places");
        clock.advance(Duration::from_secs(3));
        store.advance(1_000).await.expect("advances");
        let before = flushed(&store, &mut console).await;
        let mut steps = 0;
        for _ in 0..50 {
            clock.advance(Duration::from_millis(200));
            steps += store.advance(1_000).await.expect("advances").transitions.len();
        }
        let read = flushed(&store, &mut console).await - before;
        assert!(steps >= 20, "COOKING of each: {steps}");
        let steps = i64::try_from(steps).expect("few");
        assert!(read <= 15 * steps + 50 * 4, "{read} entries read in 50 looks for {steps} steps");
        timers_read_what_they_move(&store, &clock, &mut console).await;
    }
    drop(backup);
}

/// What counts up to a limit reads up to it, too. A plan by bitmap would read every entry of the index first, and mark
/// none of the dead ones.
#[tokio::test]
#[cfg_attr(not(with_postgres), ignore = "left out: needs PG_DSN")]
async fn a_count_reads_no_further_than_it_counts() {
    let (database, clock) = (Database::create().await, Arc::new(ManualClock::new(start())));
    let store = database.replica(&clock).await;
    let mut console = database.options().connect().await.expect("connects");
    run(&mut console, "ALTER TABLE orders SET (autovacuum_enabled = false)").await.expect("alters");
    let waiting = "INSERT INTO orders SELECT 'ORD-0' || lpad(n::text, 25, '0'), 'Ada', 'here', 'pizza', 'large',
             (ARRAY['PLACED', 'PREPARING', 'COOKING', 'OUT_FOR_DELIVERY'])[1 + n % 4], 2 + n % 4, $$2026-01-02$$, $$2026-01-02$$,
             timestamptz '2026-01-03' FROM generate_series(1, 160000) AS n";
    run(&mut console, waiting).await.expect("inserts");
    for analyzed in [false, true] {
        if analyzed {
            run(&mut console, "ANALYZE orders").await.expect("analyzes");
        }
        for _ in 0..16 {
            let (counts, read) = reading(&store, &mut console, store.count(&[Status::Cooking])).await;
            let counted = counts.orders[Status::Cooking];
            assert_eq!(counted, u64::try_from(COUNTED_TO).expect("positive"));
            let counted = usize::try_from(counted).expect("few");
            assert!((counted..=2 * counted + 10).contains(&read), "{read} entries read");
        }
    }
}

/// Every other question about what is due, in the same shape, with many that are left out.
async fn timers_read_what_they_move(store: &PgStore, clock: &ManualClock, console: &mut PgConnection) {
    let delays = StageDelays::default();
    let orders: Vec<NewOrder> = (0..30).map(|_| new_order()).collect();
    store.place(&orders, Outbox::Mine).await.expect("places");
    clock.advance(Duration::from_secs(3));
    let ids: Vec<OrderId> = orders.iter().map(|order| order.order_id).collect();
    let held: Vec<OrderId> = (0..2_000).map(|_| new_order().order_id).collect();

    let (due, read) = reading(store, console, store.due(Due::Soonest { limit: 1_000, after: None })).await;
    assert!(due.order_ids.len() >= 30 && read <= 2 * due.order_ids.len() + 10, "{read}: {due:?}");
    for due in [Due::SecondChance(&ids[..10]), Due::Alone(ids[10])] {
        let (advance, read) = reading(store, console, store.advance_due(due, &delays)).await;
        assert!(
            !advance.transitions.is_empty() && read <= 5 * advance.transitions.len() + 5,
            "{read}: {due:?}"
        );
    }

    // The others come to lie below the mark.
    clock.advance(Duration::from_millis(1_500));
    let after = Some(DueKey { due_at: clock.now() + Duration::from_hours(1), order_id: ids[0] });
    store.advance_due(Due::Soonest { limit: 1_000, after }, &delays).await.expect("looks");
    let overlooked = |except| Due::Overlooked { limit: 1_000, after: None, except };
    // It reads what has died in the last minute, too. Every other look is one at all that is further below, and
    // walks past everything there.
    let is_near = || store.low_water.last_below().is_some_and(|(from, _)| from.is_some());
    while store.advance_due(overlooked(&ids), &delays).await.is_err() || !is_near() {}
    let (due, read) = reading(store, console, store.due(overlooked(&held))).await;
    assert!(due.order_ids.len() >= 19 && read <= 2 * due.order_ids.len() + 300, "{read}: {due:?}");
    loop {
        let (advance, read) = reading(store, console, store.advance_due(overlooked(&held), &delays)).await;
        if is_near() {
            assert!(
                advance.transitions.len() >= 19 && read <= 5 * advance.transitions.len() + 300,
                "{read}: {advance:?}"
            );
            break;
        }
    }
}

/// What a question was answered, and how many entries were read for it.
async fn reading<T>(
    store: &PgStore,
    console: &mut PgConnection,
    question: impl Future<Output = Result<T, StoreError>>,
) -> (T, usize) {
    let before = flushed(store, console).await;
    let answer = question.await.expect("answers");
    let read = flushed(store, console).await - before;
    (answer, usize::try_from(read).expect("counts rise"))
}

/// Orders that are left out are looked up, not compared one by one, and the look is bound by the index all the
/// same: in a generic plan, too, which is all that a statement has that was prepared long ago.
#[tokio::test]
#[cfg_attr(not(with_postgres), ignore = "left out: needs PG_DSN")]
async fn those_left_out_are_looked_up() {
    let database = Database::create().await;
    database.replica(&Arc::new(ManualClock::new(start()))).await.close().await;
    let mut console = database.options().connect().await.expect("connects");
    for setting in ["plan_cache_mode = force_generic_plan", "enable_seqscan = off"] {
        run(&mut console, &format!("SET {setting}")).await.expect(setting);
    }
    let bound =
        "NULL, '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', now(), '', NULL, '{a,b}', 10";
    for (name, statement, bound) in
        [("moves", IN_RANGE, bound), ("reads", DUE, "NULL, now(), '', NULL, '{a,b}', 10")]
    {
        run(&mut console, &format!("PREPARE {name} AS {statement}")).await.expect(name);
        let explain = sqlx::AssertSqlSafe(format!("EXPLAIN EXECUTE {name} ({bound})"));
        let plan: Vec<String> = sqlx::query_scalar(explain).fetch_all(&mut console).await.expect("explains");
        let has = |words: &[&str]| plan.iter().any(|line| words.iter().all(|word| line.contains(word)));
        assert!(has(&["Index Scan", "orders_due_at"]), "{plan:#?}");
        assert!(has(&["Index Cond", "due_at >=", "due_at <="]), "{plan:#?}");
        assert!(has(&["Filter", "hashed SubPlan"]), "{plan:#?}");
    }
}

/// Holds a snapshot, as a backup does, for as long as it lives.
pub(super) async fn old_snapshot(mut session: PgConnection) -> PgConnection {
    run(&mut session, "BEGIN ISOLATION LEVEL REPEATABLE READ").await.expect("begins");
    run(&mut session, "SELECT count(*) FROM relays").await.expect("reads");
    session
}

impl PgStore {
    /// Makes what the sessions of loops and readers have read known to the server's statistics.
    async fn flush_statistics(&self) {
        for _ in 0..4 {
            let flush = async |db: &mut PgConnection| {
                sqlx::query("SELECT pg_stat_force_next_flush()").execute(db).await.map(drop)
            };
            bounded(&self.pools.loops, flush).await.expect("flushes");
            bounded(&self.pools.read, flush).await.expect("flushes");
        }
    }
}

/// Entries that were read from the indexes and tables of orders so far, the store's open sessions included.
async fn flushed(store: &PgStore, console: &mut PgConnection) -> i64 {
    store.flush_statistics().await;
    let sum = "SELECT (SELECT sum(idx_tup_read) FROM pg_stat_user_indexes)::bigint
        + (SELECT sum(seq_tup_read) FROM pg_stat_user_tables)::bigint";
    // What the console did itself is told now too, not in the middle of what is measured.
    for statement in ["SELECT pg_stat_force_next_flush()", "SELECT pg_stat_clear_snapshot()"] {
        run(console, statement).await.expect(statement);
    }
    sqlx::query_scalar(sum).fetch_one(console).await.expect("reads")
}

/// Newer orders of another status are not walked past, though the planner knows that most have the one asked for.
#[tokio::test]
#[cfg_attr(not(with_postgres), ignore = "left out: needs PG_DSN")]
async fn a_list_by_status_reads_no_other() {
    let (database, clock) = (Database::create().await, Arc::new(ManualClock::new(start())));
    let store = database.replica(&clock).await;
    let mut console = database.options().connect().await.expect("connects");
    for statement in [
        "INSERT INTO orders SELECT 'ORD-0' || lpad(n::text, 25, '0'), 'Ada', 'here', 'pizza', 'large',
             'DELIVERED', 6, now(), now() FROM generate_series(1, 20000) AS n",
        "INSERT INTO orders SELECT 'ORD-1' || lpad(n::text, 25, '0'), 'Ada', 'here', 'pizza', 'large',
             'PLACED', 2, now(), now(), now() FROM generate_series(1, 2000) AS n",
        "ANALYZE orders",
        "SELECT pg_stat_force_next_flush()",
    ] {
        run(&mut console, statement).await.expect(statement);
    }
    let before = rows_read(&mut console).await;
    let page = Page { status: Some(Status::Delivered), before: None, limit: 10 };
    let listed = store.list(&page).await.expect("reads");
    let older = Page { before: listed.last().map(|last| last.order_id), ..page };
    let all = [listed, store.list(&older).await.expect("reads")].concat();
    let ids: Vec<String> = all.iter().map(|order| order.order_id.to_string()).collect();
    assert_eq!(ids, (19_981..=20_000).rev().map(|n| format!("ORD-0{n:025}")).collect::<Vec<_>>());
    store.close().await;
    let read = rows_read(&mut console).await - before;
    assert!(read < 1_000, "{read} rows read");
}

/// A sweep of the outbox reads what it answers, wherever it stands, before and after the table was analysed.
#[tokio::test]
#[cfg_attr(not(with_postgres), ignore = "left out: needs PG_DSN")]
async fn a_sweep_reads_what_it_answers() {
    let (database, clock) = (Database::create().await, Arc::new(ManualClock::new(start())));
    let store = database.replica(&clock).await;
    let mut console = database.options().connect().await.expect("connects");
    let rows = "INSERT INTO outbox SELECT 'ORD-0' || lpad(n::text, 25, '0'), now() FROM generate_series(1, 20000) AS n";
    for statement in [rows, "ANALYZE outbox"] {
        run(&mut console, statement).await.expect(statement);
        run(&mut console, "SELECT pg_stat_force_next_flush()").await.expect("flushes");
        let before = rows_read(&mut console).await;
        let replica = database.replica(&clock).await;
        for from in [0, 9_000, 19_980] {
            let after = format!("ORD-0{from:025}").parse().expect("an id");
            // A generic plan is made at the sixth execution.
            for _ in 0..8 {
                let found = replica.unclaimed(Some(after), 10).await.expect("reads");
                assert_eq!(found.len(), 10);
                replica.claim(&found).await.expect("claims");
                replica.release(&found).await.expect("releases");
            }
        }
        replica.close().await;
        let read = rows_read(&mut console).await - before;
        assert!(read < 3 * 8 * 10 * 10, "{read} rows read");
    }
    store.close().await;
}

/// Uses every verb whose cost must not depend on what is stored.
async fn use_every_verb(store: &PgStore) {
    let order =
        NewOrder { key: Some(IdempotencyKey::open(rand::random::<u64>().to_string())), ..new_order() };
    let id = order.order_id;
    let placements = store.place(&[order, new_order()], Outbox::Mine).await.expect("places");
    let incoming = placements.into_iter().map(|placement| match placement {
        Placement::Placed(placed) => Incoming { placed, meta: None, start: Start::default() },
        other => panic!("{other:?}"),
    });
    store.admit(&incoming.collect::<Vec<_>>()).await.expect("admits");
    for due in [
        Due::Soonest { limit: 10, after: None },
        Due::Overlooked { limit: 10, after: None, except: &[id] },
        Due::Overlooked { limit: 10, after: None, except: &[id] },
        Due::SecondChance(&[id]),
        Due::Alone(id),
    ] {
        store.advance_due(due, &StageDelays::default()).await.expect("advances");
        store.due(due).await.expect("reads");
    }
    let report =
        |event| OrderReport { order_id: id, report: Report::of(event, Source::Kitchen), if_match: None };
    for event in [EventKind::Ready, EventKind::Reached(Status::Cancelled)] {
        store.report(&[report(event)], &Rules::default()).await.expect("reports");
    }
    store.find(id).await.expect("reads");
    store.positions(&[id]).await.expect("reads");
    for status in [None, Some(Status::Cooking)] {
        store.list(&Page { status, before: None, limit: 10 }).await.expect("reads");
    }
    store.audit(None, 10).await.expect("reads");
    store.heartbeat().await.expect("lives");
    store.unclaimed(None, 10).await.expect("reads");
    store.claim(&[id]).await.expect("claims");
    store.lost(&[], 10).await.expect("reads");
    store.release(&[id]).await.expect("releases");
    store.mark_sent(&[id]).await.expect("marks");
    store.republish(&[id]).await.expect("writes");
    store.mark_sent(&[id]).await.expect("marks");
    store.expire_idempotency_keys(10).await.expect("expires");
    store.backlog().await.expect("reads");
    read_events(store, id).await;
}

/// The newest of them, as those do who follow.
async fn read_events(store: &PgStore, order_id: OrderId) {
    let last = store.horizon().await.expect("looks").last;
    let span = Span { after: Cursor(last.0 - 20), upto: last };
    for event in [None, Some(EventKind::Created)] {
        store.events(&FeedQuery { span, event, limit: 10 }).await.expect("reads");
    }
    let above = Span { after: last, upto: Cursor(i64::MAX) };
    store.arrivals(&[span, above], 10).await.expect("reads");
    store.facts(&[order_id]).await.expect("reads");
    let lasting = Duration::from_secs(5);
    let lease = store.lease("reader", lasting).await.expect("leases").expect("is free");
    let lease = store.move_on("reader", lease, last, lasting).await.expect("moves").expect("is held");
    store.give_back("reader", lease).await.expect("gives back");
    store.place_of("reader").await.expect("reads");
}

/// Rows that were read so far, by sessions that have ended.
async fn rows_read(console: &mut PgConnection) -> i64 {
    let sum = "SELECT sum(seq_tup_read + coalesce(idx_tup_fetch, 0))::bigint FROM pg_stat_user_tables";
    sqlx::query_scalar(sum).fetch_one(console).await.expect("reads")
}
