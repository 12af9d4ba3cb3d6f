//! The suite on PostgreSQL, where `PG_DSN` names a server on which databases can be made, and what
//! only several replicas can do.

pub(super) mod figures_cost;
mod find_cost;
mod oddities;
mod plans;
pub(super) mod settling;
mod slow_rows;

use std::{sync::Arc, time::Duration};

use proptest::test_runner::{Config, TestRunner};
use sqlx::{ConnectOptions as _, Connection as _, PgConnection, postgres::PgConnectOptions};
use tokio::time::Instant;

use super::{
    PgSettings, PgStore,
    outbox::{CLAIM, CLAIM_WITHOUT_SESSION},
    schema::MIGRATIONS,
};
use crate::{
    order::{IdMint, OrderDetails, StageDelays, Start},
    store::{
        Due, IdempotencyKey, Insight as _, Maintenance as _, NewOrder, OrderStore as _, Outbox,
        OutboxStore as _, StoreError,
        conformance::{Dialect, Fixture, conformance, histories, outbox::take, start, upgrade},
    },
    time::{Clock as _, ManualClock},
};

conformance!(fixture, #[cfg_attr(not(with_postgres), ignore = "left out: needs PG_DSN")]);

fn server() -> PgConnectOptions {
    std::env::var("PG_DSN").expect("PG_DSN").parse().expect("a DSN")
}

/// A database of the test's own, dropped with it.
pub(crate) struct Database(String);

impl Database {
    pub(crate) async fn create() -> Self {
        let name = format!("test_{:016x}", rand::random::<u64>());
        let mut console = server().connect().await.expect("connects");
        run(&mut console, &format!("CREATE DATABASE {name}")).await.expect("creates");
        Self(name)
    }

    pub(super) fn options(&self) -> PgConnectOptions {
        server().database(&self.0)
    }

    pub(super) fn settings(&self) -> PgSettings {
        PgSettings { dsn: self.options().into(), max_connections: 6 }
    }

    /// A replica of the service on this database, migrated.
    pub(crate) async fn replica(&self, clock: &Arc<ManualClock>) -> Arc<PgStore> {
        let store = PgStore::with_clock(self.settings(), clock.clone());
        store.migrate().await.expect("migrates");
        Arc::new(store)
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let statement = format!("DROP DATABASE {} WITH (FORCE)", self.0);
        // A runtime of its own: the test's may be gone already.
        let work = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("starts");
            runtime.block_on(async {
                let mut console = server().connect().await.expect("connects");
                run(&mut console, &statement).await.expect("drops");
            });
        };
        drop(std::thread::spawn(work).join());
    }
}

pub(super) async fn run(console: &mut PgConnection, statement: &str) -> sqlx::Result<()> {
    sqlx::query(sqlx::AssertSqlSafe(statement)).execute(console).await.map(drop)
}

const DIALECT: Dialect = Dialect {
    stamp: |at| format!("'{}'", at.to_rfc3339()),
    odd_moments: &["'infinity'", "'-infinity'", "'290000-01-01'", "'4000-01-01 BC'"],
    checked: "",
    hash_of_i: "sha256(convert_to(CAST(i AS text), 'UTF8'))",
    allow_odd: &[
        "ALTER TABLE orders DROP CONSTRAINT orders_moments_are_finite, DROP CONSTRAINT orders_status_check,
             DROP CONSTRAINT orders_size_check, DROP CONSTRAINT orders_due_at_check",
        "ALTER TABLE order_events DROP CONSTRAINT order_events_timestamp_is_finite,
             DROP CONSTRAINT order_events_event_check",
        "ALTER TABLE outbox DROP CONSTRAINT outbox_created_at_is_finite",
        "ALTER TABLE api_keys DROP CONSTRAINT api_keys_role_check, DROP CONSTRAINT api_keys_hash_check",
    ],
};

pub(super) async fn fixture() -> Fixture {
    fixture_in(Database::create().await).await
}

/// Two replicas that migrate at the same time.
async fn fixture_in(database: Database) -> Fixture {
    let clock = Arc::new(ManualClock::new(start()));
    let (store, replica) = tokio::join!(database.replica(&clock), database.replica(&clock));
    let options = database.options();
    let by_hand = move |statement: &str| {
        let (options, statement) = (options.clone(), statement.to_owned());
        Box::pin(async move {
            let mut console = options.connect().await.expect("connects");
            let outcome = run(&mut console, &statement).await.map_err(|error| error.to_string());
            console.close().await.expect("closes");
            outcome
        }) as futures::future::BoxFuture<'static, _>
    };
    let dialect = Some(DIALECT);
    Fixture { store, replica, clock, by_hand: Box::new(by_hand), dialect, _guard: Box::new(database) }
}

pub(super) fn new_order() -> NewOrder {
    let details = OrderDetails::new("Ada", "1 High St", "pizza", "large").expect("valid");
    let start = Start::timer(StageDelays::default().first());
    NewOrder { order_id: IdMint::default().mint(1, rand::random()), details, key: None, meta: None, start }
}

#[test]
#[cfg_attr(not(with_postgres), ignore = "left out: needs PG_DSN")]
fn any_history_keeps_the_promises() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("starts");
    let outcome = TestRunner::new(Config::with_cases(16)).run(&histories::histories(), |history| {
        runtime
            .block_on(async { histories::any_history_keeps_the_promises(fixture().await, &history).await });
        Ok(())
    });
    outcome.expect("every history");
}

/// Promise 2: everything accepted reaches the topic. A replica that is gone loses its rows after a
/// few seconds, one that lives keeps them.
#[tokio::test]
#[cfg_attr(not(with_postgres), ignore = "left out: needs PG_DSN")]
async fn rows_of_a_silent_replica_are_taken_over() {
    let t = fixture().await;
    let (dead, alive) = (new_order(), new_order());
    t.store.place(std::slice::from_ref(&dead), Outbox::Mine).await.expect("places");
    t.clock.advance(CLAIM / 2);
    t.replica.place(std::slice::from_ref(&alive), Outbox::Mine).await.expect("places");
    assert!(take(&*t.replica, 10).await.is_empty());
    t.clock.advance(CLAIM / 2);
    let taken = take(&*t.replica, 10).await;
    assert_eq!(taken.iter().map(|message| message.order_id).collect::<Vec<_>>(), [dead.order_id]);
    // The silent one wakes up late: what it gives back is not its own any more.
    t.store.release(&[dead.order_id]).await.expect("releases");
    assert!(take(&*t.store, 10).await.is_empty());
}

/// Promise 4: timers are rows. What another replica held while looks went on, and then did not move, is found
/// by the next look near the mark: before one at all that is further below, which may take long.
#[tokio::test]
#[cfg_attr(not(with_postgres), ignore = "left out: needs PG_DSN")]
async fn what_a_killed_replica_held_is_found_near_the_mark() {
    let (database, clock) = (Database::create().await, Arc::new(ManualClock::new(start())));
    let store = database.replica(&clock).await;
    let order = new_order();
    store.place(std::slice::from_ref(&order), Outbox::Mine).await.expect("places");
    clock.advance(std::time::Duration::from_secs(3));
    let mut console = database.options().connect().await.expect("connects");
    let mut killed = console.begin().await.expect("begins");
    run(&mut killed, "SELECT 1 FROM orders FOR UPDATE").await.expect("locks");
    let moved = async |due| {
        store.advance_due(due, &StageDelays::default()).await.expect("advances").transitions.len()
    };
    for _ in 0..5 {
        clock.advance(std::time::Duration::from_secs(1));
        assert_eq!(moved(Due::Soonest { limit: 9, after: None }).await, 0);
    }
    killed.rollback().await.expect("ends");
    assert_eq!(moved(Due::Soonest { limit: 9, after: None }).await, 0, "it is below the mark");
    assert_eq!(moved(Due::Overlooked { limit: 9, after: None, except: &[] }).await, 1);
}

/// A process that is killed leaves no session behind, and its rows need not wait for the whole claim.
#[tokio::test]
#[cfg_attr(not(with_postgres), ignore = "left out: needs PG_DSN")]
async fn rows_of_a_killed_replica_are_taken_over_sooner() {
    let (database, clock) = (Database::create().await, Arc::new(ManualClock::new(start())));
    let (killed, other) = (database.replica(&clock).await, database.replica(&clock).await);
    killed.place(&[new_order()], Outbox::Mine).await.expect("places");
    clock.advance(CLAIM_WITHOUT_SESSION);
    assert!(take(&*other, 10).await.is_empty(), "its sessions are there");
    killed.pools.close().await;
    let mut console = database.options().connect().await.expect("connects");
    let sessions = "SELECT count(*) FROM pg_stat_activity WHERE application_name = $1";
    let name = format!("order-tracker {:016x}", killed.replica);
    // The server notices a moment later.
    while sqlx::query_scalar::<_, i64>(sessions).bind(&name).fetch_one(&mut console).await.expect("reads") > 0
    {
        tokio::task::yield_now().await;
    }
    assert_eq!(take(&*other, 10).await.len(), 1);
}

/// After a restart of the server every connection at rest is broken; one call may find that out, not each in turn.
#[tokio::test]
#[cfg_attr(not(with_postgres), ignore = "left out: needs PG_DSN")]
async fn one_broken_connection_casts_doubt_on_those_at_rest() {
    let database = Database::create().await;
    let store = database.replica(&Arc::new(ManualClock::new(start()))).await;
    let nobody = [new_order().order_id];
    let together = futures::future::join_all((0..3).map(|_| store.find_all(&nobody))).await;
    assert!(together.iter().all(Result::is_ok), "{together:?}");
    let mut console = database.options().connect().await.expect("connects");
    run(
        &mut console,
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
         WHERE datname = current_database() AND pid <> pg_backend_pid()",
    )
    .await
    .expect("terminates");
    assert!(matches!(store.find_all(&nobody).await, Err(StoreError::Unavailable(_))));
    assert_eq!(store.find_all(&nobody).await.expect("a new connection").orders, []);
}

#[tokio::test]
#[cfg_attr(not(with_postgres), ignore = "left out: needs PG_DSN")]
async fn a_replica_that_leaves_gives_its_rows_up_at_once() {
    let t = fixture().await;
    t.store.place(&[new_order()], Outbox::Mine).await.expect("places");
    t.store.close().await;
    assert_eq!(take(&*t.replica, 10).await.len(), 1);
}

#[tokio::test]
#[cfg_attr(not(with_postgres), ignore = "left out: needs PG_DSN")]
async fn replicas_that_start_together_migrate_once() {
    let (database, clock) = (Database::create().await, Arc::new(ManualClock::new(start())));
    let replicas = futures::future::join_all((0..5).map(|_| database.replica(&clock))).await;
    for replica in &replicas {
        replica.place(&[new_order()], Outbox::Mine).await.expect("places");
    }
    assert_eq!(replicas[0].backlog().await.expect("reads").unsent, 5);
}

/// Promise 1: accepted means durable. Each schema so far, with orders in every status, and two new
/// replicas at once.
#[tokio::test]
#[cfg_attr(not(with_postgres), ignore = "left out: needs PG_DSN")]
async fn orders_of_an_earlier_schema_go_on() {
    for earlier in MIGRATIONS.iter().map(|migration| migration.version) {
        let database = Database::create().await;
        let mut console = database.options().connect().await.expect("connects");
        MIGRATIONS.run_to(earlier, &mut console).await.expect("migrates");
        let (ids, statements) = upgrade::under_way(|at| format!("'{}'", at.to_rfc3339()));
        for statement in statements {
            run(&mut console, &statement).await.expect("writes");
        }
        console.close().await.expect("closes");
        upgrade::they_go_on(fixture_in(database).await, ids).await;
    }
}

#[tokio::test]
async fn nothing_works_before_the_schema_is_there() {
    let dsn = "postgres://nobody@127.0.0.1:1/nowhere".parse().expect("a DSN");
    let store = PgStore::new(PgSettings { dsn, max_connections: 4 });
    assert!(matches!(store.backlog().await, Err(StoreError::Unavailable(_))));
    assert!(store.migrate().await.expect_err("nobody listens").is_transient());
}

/// Promise 4: timers are rows. The database's clock decides, in whole milliseconds.
#[tokio::test]
#[cfg_attr(not(with_postgres), ignore = "left out: needs PG_DSN")]
async fn the_database_tells_the_time() {
    let database = Database::create().await;
    let delays = StageDelays::uniform(Duration::ZERO);
    let store = PgStore::new(database.settings());
    store.migrate().await.expect("migrates");
    let order = NewOrder { start: Start::timer(Duration::ZERO), ..new_order() };
    store.place(std::slice::from_ref(&order), Outbox::Mine).await.expect("places");
    let soonest = Due::Soonest { limit: 10, after: None };
    assert_eq!(
        store.advance_due(soonest, &delays).await.expect("advances").transitions.len(),
        4,
        "zero delays pass in one write"
    );
    let found = store.find(order.order_id).await.expect("reads").expect("stored");
    let now = crate::time::SystemClock.now();
    for event in &found.events {
        assert_eq!(event.timestamp.timestamp_subsec_nanos() % 1_000_000, 0, "{event:?}");
        assert!((now - event.timestamp).num_seconds().abs() < 60, "{event:?}");
    }
    assert_eq!(found.events.len(), 6);
}

/// Promise 5: memory, queues and time are bounded. A lock that somebody holds is not waited for.
#[tokio::test]
#[cfg_attr(not(with_postgres), ignore = "left out: needs PG_DSN")]
async fn a_locked_table_is_passing_trouble() {
    let (database, clock) = (Database::create().await, Arc::new(ManualClock::new(start())));
    let store = database.replica(&clock).await;
    let mut console = database.options().connect().await.expect("connects");
    let mut holder = console.begin().await.expect("begins");
    run(&mut holder, "LOCK TABLE orders").await.expect("locks");
    let asked = Instant::now();
    let error = store.place(&[new_order()], Outbox::Mine).await.expect_err("locked");
    assert!(error.is_transient() && asked.elapsed() < Duration::from_secs(2), "{error}");
    holder.rollback().await.expect("unlocks");
    store.place(&[new_order()], Outbox::Mine).await.expect("places");
}

/// Promise 3: an effect happens once. The table can't be emptied at one go either.
#[tokio::test]
#[cfg_attr(not(with_postgres), ignore = "left out: needs PG_DSN")]
async fn events_can_not_be_truncated() {
    let t = fixture().await;
    t.store.place(&[new_order()], Outbox::Mine).await.expect("places");
    for statement in ["TRUNCATE order_events", "TRUNCATE orders CASCADE"] {
        let refusal = (t.by_hand)(statement).await.expect_err(statement);
        assert!(refusal.contains("immutable"), "{refusal}");
    }
}

/// The rights in `docs/roles.sql` are enough to serve, and not enough to touch the timeline.
#[tokio::test]
#[cfg_attr(not(with_postgres), ignore = "left out: needs PG_DSN")]
async fn a_serving_role_can_do_its_work_and_no_more() {
    let (database, clock) = (Database::create().await, Arc::new(ManualClock::new(start())));
    database.replica(&clock).await.close().await;
    let role = format!("serving_{:016x}", rand::random::<u64>());
    let mut owner = database.options().connect().await.expect("connects");
    run(&mut owner, &format!("CREATE ROLE {role} LOGIN PASSWORD 'secret'")).await.expect("creates");
    // What an earlier version gave goes, and a second time changes nothing.
    run(&mut owner, &format!("GRANT ALL ON orders, order_events TO {role}")).await.expect("grants");
    let rights = include_str!("../../../../docs/roles.sql").replace(":role", &role);
    for statement in rights.repeat(2).split_inclusive(';') {
        run(&mut owner, statement).await.expect(statement);
    }

    let options = database.options().username(&role).password("secret");
    let dsn = options.clone().into();
    let store = PgStore::with_clock(PgSettings { dsn, ..database.settings() }, clock.clone());
    store.migrate().await.expect("finds the schema up to date");
    let keyed = NewOrder { key: Some(IdempotencyKey::open("key")), ..new_order() };
    store.place(&[keyed, new_order()], Outbox::Anyones).await.expect("places");
    clock.advance(Duration::from_hours(25));
    assert_eq!(store.advance(10).await.expect("advances").transitions.len(), 2);
    let unsent = take(&store, 10).await;
    store.release(&[unsent[0].order_id]).await.expect("releases");
    store.mark_sent(&[unsent[1].order_id]).await.expect("marks");
    assert_eq!(store.expire_idempotency_keys(10).await.expect("expires"), 1);
    assert_eq!(store.audit(None, 10).await.expect("reads").orders.len(), 2);
    store.close().await;

    let mut serving = options.connect().await.expect("connects");
    for statement in [
        "UPDATE order_events SET event = 'DELIVERED'",
        "DELETE FROM order_events",
        "TRUNCATE order_events",
        "ALTER TABLE order_events DISABLE TRIGGER ALL",
        "DELETE FROM orders",
        "UPDATE orders SET customer_name = 'somebody else'",
    ] {
        let refusal = run(&mut serving, statement).await.expect_err(statement).to_string();
        assert!(refusal.contains("permission denied") || refusal.contains("must be owner"), "{refusal}");
    }
    serving.close().await.expect("closes");
    run(&mut owner, &format!("DROP OWNED BY {role}")).await.expect("revokes");
    run(&mut owner, &format!("DROP ROLE {role}")).await.expect("drops");
}

/// What somebody has tampered with is not there for readers, and there for the auditor.
#[tokio::test]
#[cfg_attr(not(with_postgres), ignore = "left out: needs PG_DSN")]
async fn an_order_without_events_is_left_to_the_auditor() {
    let t = fixture().await;
    let orders = [new_order(), new_order()];
    t.store.place(&orders, Outbox::Mine).await.expect("places");
    for statement in ["ALTER TABLE order_events DISABLE TRIGGER USER", "DELETE FROM order_events"] {
        (t.by_hand)(statement).await.expect(statement);
    }
    let ids = orders.map(|order| order.order_id);
    assert_eq!(t.store.find_all(&ids).await.expect("reads").orders, []);
    let audited = t.store.audit(None, 10).await.expect("reads").orders;
    assert_eq!(audited.iter().map(|order| order.events.len()).collect::<Vec<_>>(), [0, 0]);
}
