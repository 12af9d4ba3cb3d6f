//! The suite on SQLite, and what only SQLite has: the file, its lock, and life after a crash.

use std::{
    fs::{Permissions, set_permissions},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    sync::Arc,
};

use proptest::test_runner::{Config, TestRunner};
use sqlx::{ConnectOptions as _, Connection as _, SqliteConnection, sqlite::SqliteConnectOptions};
use tempfile::TempDir;

use super::{MIGRATIONS, OpenError, SqliteStore, folder::database};
use crate::{
    keys::KeyCreation,
    order::{IdMint, OrderDetails, Role, StageDelays, Start},
    store::{
        KeyStore as _, Maintenance as _, NewOrder, OrderStore as _, Outbox, Store, StoreError,
        conformance::{Dialect, Fixture, conformance, histories, keys::drawn, outbox::take, start, upgrade},
    },
    time::ManualClock,
};

conformance!(fixture);

async fn open(folder: &Path) -> SqliteStore {
    let clock = Arc::new(ManualClock::new(start()));
    SqliteStore::open(folder, clock).await.expect("opens")
}

const DIALECT: Dialect = Dialect {
    stamp: |at| at.timestamp_millis().to_string(),
    odd_moments: &["9223372036854775807", "-9223372036854775808", "-9223372036854775807", "253402300800000"],
    checked: "PRAGMA ignore_check_constraints = OFF; ",
    hash_of_i: "randomblob(32)",
    // The console does not check.
    allow_odd: &[],
};

/// A console on the same file: without our pragmas, as `sqlite3` has it, but for foreign keys, and careless.
async fn console(folder: &Path) -> SqliteConnection {
    let options = SqliteConnectOptions::new().filename(database(folder)).foreign_keys(true);
    let options = options.pragma("ignore_check_constraints", "ON");
    options.connect().await.expect("opens")
}

pub(crate) async fn fixture() -> Fixture {
    fixture_in(TempDir::new().expect("a folder")).await
}

async fn fixture_in(folder: TempDir) -> Fixture {
    let clock = Arc::new(ManualClock::new(start()));
    let store = SqliteStore::open(folder.path(), clock.clone()).await;
    let store: Arc<dyn Store> = Arc::new(store.expect("opens"));
    let path = folder.path().to_owned();
    let by_hand = move |statement: &str| {
        let (path, statement) = (path.clone(), statement.to_owned());
        Box::pin(async move {
            let mut console = console(&path).await;
            let outcome = sqlx::query(sqlx::AssertSqlSafe(statement)).execute(&mut console).await;
            console.close().await.expect("closes");
            outcome.map(drop).map_err(|error| error.to_string())
        }) as futures::future::BoxFuture<'static, _>
    };
    Fixture {
        replica: Arc::clone(&store),
        store,
        clock,
        by_hand: Box::new(by_hand),
        dialect: Some(DIALECT),
        _guard: Box::new(folder),
    }
}

#[test]
fn any_history_keeps_the_promises() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("starts");
    let outcome = TestRunner::new(Config::with_cases(48)).run(&histories::histories(), |history| {
        runtime
            .block_on(async { histories::any_history_keeps_the_promises(fixture().await, &history).await });
        Ok(())
    });
    outcome.expect("every history");
}

fn new_order() -> NewOrder {
    let details = OrderDetails::new("Ada", "1 High St", "pizza", "large").expect("valid");
    let start = Start::timer(StageDelays::default().first());
    NewOrder { order_id: IdMint::default().mint(1, rand::random()), details, key: None, meta: None, start }
}

/// Somebody's trigger or column that no order can pass is no order's fault; one that some pass is.
#[tokio::test]
async fn no_order_is_to_blame_where_a_good_one_is_refused_too() {
    let t = fixture().await;
    let trigger = |when: &str| {
        format!(
            "CREATE TRIGGER theirs BEFORE INSERT ON outbox WHEN {when} BEGIN SELECT RAISE(ABORT, 'no'); END"
        )
    };
    (t.by_hand)(&trigger("true")).await.expect("creates");
    let refused = t.store.place(&[new_order()], Outbox::Mine).await;
    assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
    (t.by_hand)("DROP TRIGGER theirs").await.expect("drops");
    let order = new_order();
    (t.by_hand)(&trigger(&format!("NEW.order_id = '{}'", order.order_id))).await.expect("creates");
    let refused = t.store.place(&[order], Outbox::Mine).await;
    assert!(matches!(refused, Err(StoreError::Failed(_))), "{refused:?}");
    t.store.place(&[new_order()], Outbox::Mine).await.expect("places");
}

/// Promise 2: everything accepted reaches the topic. What a dead process held is anyone's.
#[tokio::test]
async fn a_new_process_takes_what_the_last_one_left() {
    let folder = TempDir::new().expect("a folder");
    let order = new_order();
    let store = open(folder.path()).await;
    store.place(std::slice::from_ref(&order), Outbox::Mine).await.expect("places");
    assert_eq!(take(&store, 10).await, []);
    // Nothing is closed: the files are all that is left, as after kill -9.
    drop(store);
    let store = open(folder.path()).await;
    let taken = take(&store, 10).await;
    assert_eq!(taken.iter().map(|message| message.order_id).collect::<Vec<_>>(), [order.order_id]);
}

/// Promise 1: accepted means durable. Each schema so far, with orders in every status.
#[tokio::test]
async fn orders_of_an_earlier_schema_go_on() {
    for earlier in MIGRATIONS.iter().map(|migration| migration.version) {
        let folder = TempDir::new().expect("a folder");
        let options = SqliteConnectOptions::new().filename(database(folder.path()));
        let mut console = options.create_if_missing(true).connect().await.expect("opens");
        MIGRATIONS.run_to(earlier, &mut console).await.expect("migrates");
        let (ids, statements) = upgrade::under_way(|at| at.timestamp_millis().to_string());
        for statement in statements {
            sqlx::query(sqlx::AssertSqlSafe(statement)).execute(&mut console).await.expect("writes");
        }
        console.close().await.expect("closes");
        upgrade::they_go_on(fixture_in(folder).await, ids).await;
    }
}

#[tokio::test]
async fn a_second_process_is_kept_out() {
    let folder = TempDir::new().expect("a folder");
    let _first = open(folder.path()).await;
    let clock = Arc::new(ManualClock::new(start()));
    let second = SqliteStore::open(folder.path(), clock).await;
    assert!(matches!(second.err(), Some(OpenError::InUse(_))));
}

/// Who keeps keys works beside the service, before its first start, and keeps nobody out.
#[tokio::test]
async fn keys_are_kept_beside_the_process_that_has_the_database() {
    let folder = TempDir::new().expect("a folder");
    let clock = Arc::new(ManualClock::new(start()));
    let beside = async || SqliteStore::open_beside(folder.path(), clock.clone()).await;
    let none = SqliteStore::open_existing_beside(folder.path(), clock.clone()).await;
    assert!(matches!(none.err(), Some(OpenError::Folder { .. })), "none is made by the way");
    let (one, other) = tokio::join!(beside(), beside());
    let (first, second) = (drawn("first", Role::Shop).1, drawn("second", Role::Shop).1);
    assert_eq!(one.expect("makes one").create_key(&first).await, Ok(KeyCreation::Created));
    assert_eq!(other.expect("finds it").create_key(&second).await, Ok(KeyCreation::Created));
    let service = open(folder.path()).await;
    let third = drawn("third", Role::Shop).1;
    let command = beside().await.expect("joins");
    assert_eq!(command.create_key(&third).await, Ok(KeyCreation::Created));
    assert_eq!(service.live_keys().await.expect("reads").len(), 3);
    assert_eq!(
        service.revoke_key("first").await.expect("revokes"),
        command.revoke_key("first").await.expect("finds")
    );
    assert_eq!(command.list_keys().await.expect("reads").keys.len(), 3);
    drop(service);

    // A command that has it for a moment is waited for.
    let lock = super::folder::take(folder.path()).expect("is free");
    let (opened, ()) = tokio::join!(SqliteStore::open(folder.path(), clock.clone()), async {
        tokio::task::yield_now().await;
        drop(lock);
    });
    drop(opened.expect("in the end"));

    let mut console = console(folder.path()).await;
    sqlx::query("DROP TABLE api_keys").execute(&mut console).await.expect("as an earlier version left it");
    let _lock = super::folder::take(folder.path()).expect("is free");
    assert!(matches!(beside().await.err(), Some(OpenError::NoKeys(_))));
}

#[tokio::test]
async fn a_file_that_is_no_database_is_left_alone() {
    let folder = TempDir::new().expect("a folder");
    let file = database(folder.path());
    std::fs::write(&file, "precious, but no database: ".repeat(100)).expect("writes");
    let clock = Arc::new(ManualClock::new(start()));
    let opened = SqliteStore::open(folder.path(), clock).await;
    assert!(matches!(opened.err(), Some(OpenError::Database(_))));
    assert!(std::fs::read_to_string(file).expect("reads").starts_with("precious"));
}

/// Promise 1: accepted means durable.
#[tokio::test]
async fn commits_reach_the_disk_before_the_answer() {
    let folder = TempDir::new().expect("a folder");
    let store = open(folder.path()).await;
    let (journal, synchronous): (String, i64) = sqlx::query_as(
        "SELECT j.journal_mode, s.synchronous FROM pragma_journal_mode AS j, pragma_synchronous AS s",
    )
    .fetch_one(&store.write)
    .await
    .expect("reads");
    // 2 is FULL: https://www.sqlite.org/pragma.html#pragma_synchronous
    assert_eq!((journal.as_str(), synchronous), ("wal", 2));
}

/// Promise 3: an effect happens once. INSERT OR REPLACE deletes without a delete trigger.
#[tokio::test]
async fn events_can_not_be_replaced() {
    let folder = TempDir::new().expect("a folder");
    let (store, order) = (open(folder.path()).await, new_order());
    store.place(std::slice::from_ref(&order), Outbox::Mine).await.expect("places");
    let before = store.find(order.order_id).await.expect("reads");
    let mut console = console(folder.path()).await;
    for statement in [
        "INSERT OR REPLACE INTO order_events SELECT id, order_id, 'DELIVERED', seq, 0, NULL FROM order_events",
        "REPLACE INTO order_events (order_id, event, seq, \"timestamp\") SELECT order_id, event, seq, 0 FROM order_events",
    ] {
        drop(sqlx::query(statement).execute(&mut console).await);
        assert_eq!(store.find(order.order_id).await.expect("reads"), before, "{statement}");
    }
}

/// Promise 5: memory, queues and time are bounded. SQLite rolls back by itself when the disk is full;
/// after that the service goes on.
#[tokio::test]
async fn a_transaction_that_sqlite_ends_itself_spoils_nothing() {
    let folder = TempDir::new().expect("a folder");
    let store = open(folder.path()).await;
    let mut console = console(folder.path()).await;
    let full = "CREATE TRIGGER full BEFORE INSERT ON outbox BEGIN SELECT RAISE(ROLLBACK, 'full'); END";
    sqlx::query(full).execute(&mut console).await.expect("makes trouble");
    for _ in 0..3 {
        store.place(&[new_order()], Outbox::Mine).await.expect_err("full");
    }
    sqlx::query("DROP TRIGGER full").execute(&mut console).await.expect("ends it");
    let order = new_order();
    store.place(std::slice::from_ref(&order), Outbox::Mine).await.expect("places");
    assert!(store.find(order.order_id).await.expect("reads").is_some());
}

fn rights(path: &Path) -> u32 {
    path.metadata().expect("is there").permissions().mode() & 0o7777
}

/// Names and addresses stand there.
#[tokio::test]
async fn nobody_else_may_look_into_the_data_folder() {
    let home = TempDir::new().expect("a folder");
    let folder = home.path().join("data");
    let files = ["orders.db", "orders.db-wal", "orders.db-shm", "lock"].map(|name| folder.join(name));
    let store = open(&folder).await;
    store.place(&[new_order()], Outbox::Mine).await.expect("places");
    let found = |files: &[std::path::PathBuf]| files.iter().map(|file| rights(file)).collect::<Vec<_>>();
    assert_eq!((rights(&folder), found(&files)), (0o700, vec![0o600; 4]));
    store.close().await;
    drop(store);

    // As an older version left them.
    let widen = || {
        set_permissions(&folder, Permissions::from_mode(0o755)).expect("widens");
        for file in files.iter().filter(|file| file.exists()) {
            set_permissions(file, Permissions::from_mode(0o644)).expect("widens");
        }
    };
    widen();
    let store = open(&folder).await;
    store.place(&[new_order()], Outbox::Mine).await.expect("places");
    assert_eq!((rights(&folder), found(&files)), (0o700, vec![0o600; 4]));
    store.close().await;
    drop(store);

    // A folder in which others keep things is not shut for them.
    widen();
    std::fs::write(folder.join("of somebody else"), "").expect("writes");
    let store = open(&folder).await;
    store.place(&[new_order()], Outbox::Mine).await.expect("places");
    assert_eq!((rights(&folder), found(&files)), (0o755, vec![0o600; 4]));
}
