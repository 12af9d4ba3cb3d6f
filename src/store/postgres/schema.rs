//! Brings the schema up to date, or finds that somebody with the right to has done so.
//!
//! A change of a table waits for everybody who uses it, and everybody who comes later waits behind it: beside an
//! open snapshot, such as a backup's, that would be an outage of all replicas that run. So each migration gives up
//! soon (`lock_timeout`, in its file), and is tried again after a pause.

use std::time::Duration;

use sqlx::{
    PgConnection, Row as _,
    migrate::{MigrateError, Migrator},
};
use tokio::time::sleep;
use tracing::warn;

use super::{StoreError, session::Access};

pub(super) static MIGRATIONS: Migrator = sqlx::migrate!("migrations/postgres");

/// The pause after the first try in vain; each further one doubles it.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(16);
/// After so many tries, more than a minute, who asked is told why nothing happens.
const TRIES: usize = 9;

/// Runs what is missing of these. The migrator holds an advisory lock, so replicas take turns.
pub(super) async fn bring_up_to_date(
    db: &mut PgConnection,
    access: &Access,
    migrations: &Migrator,
) -> Result<(), StoreError> {
    let (mut pause, mut tries) = (FIRST_PAUSE, 0);
    loop {
        match migrations.run_direct(None, &mut *db, false).await {
            Ok(()) => return Ok(()),
            Err(MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _)) => {
                if !is_locked(&error) {
                    return Err(access.error(error));
                }
                let who = holders(&mut *db).await.unwrap_or_default();
                tries += 1;
                if tries == TRIES {
                    let why = format!("a table can't be changed while others use it ({who})");
                    return Err(StoreError::Unavailable(why));
                }
                warn!("a table can't be changed while others use it ({who}); it is tried again in {pause:?}");
                sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            Err(error) => return Err(StoreError::Refused(error.to_string())),
        }
    }
}

fn is_locked(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Database(refusal) if refusal.code().is_some_and(|code| code == "55P03"))
}

/// Who uses the tables for longest, in words. Others' statements are nobody's business.
async fn holders(db: &mut PgConnection) -> sqlx::Result<String> {
    let rows = sqlx::query(
        "SELECT a.pid, coalesce(nullif(a.application_name, ''), 'unnamed') AS name,
             extract(epoch FROM clock_timestamp() - a.xact_start)::bigint AS seconds
         FROM pg_stat_activity AS a
         WHERE a.pid <> pg_backend_pid() AND a.xact_start IS NOT NULL AND EXISTS (
             SELECT 1 FROM pg_locks AS l WHERE l.pid = a.pid AND l.granted AND l.relation IN (
                 to_regclass('orders'), to_regclass('order_events'), to_regclass('outbox'),
                 to_regclass('idempotency_keys')))
         ORDER BY a.xact_start LIMIT 3",
    )
    .fetch_all(db)
    .await?;
    let holder = |row: &sqlx::postgres::PgRow| -> sqlx::Result<String> {
        let (pid, name): (i32, String) = (row.try_get("pid")?, row.try_get("name")?);
        Ok(format!("session {pid}, {name:?}, in a transaction for {} s", row.try_get::<i64, _>("seconds")?))
    };
    Ok(rows.iter().map(holder).collect::<sqlx::Result<Vec<_>>>()?.join("; "))
}

/// Whether the tables are those of a version that no migration leads away from: 0.1, whose orders had no position.
pub(super) async fn is_of_an_earlier_version(db: &mut PgConnection) -> sqlx::Result<bool> {
    sqlx::query_scalar(
        "SELECT to_regclass('_sqlx_migrations') IS NOT NULL AND to_regclass('orders') IS NOT NULL AND NOT EXISTS (
             SELECT 1 FROM pg_attribute
             WHERE attrelid = to_regclass('orders') AND attname = 'seq' AND NOT attisdropped)",
    )
    .fetch_one(db)
    .await
}

/// Whether nothing is missing: the serving role of a two-role setup may look, but not create.
pub(super) async fn is_up_to_date(db: &mut PgConnection) -> sqlx::Result<bool> {
    let exists: bool =
        sqlx::query_scalar("SELECT to_regclass('_sqlx_migrations') IS NOT NULL").fetch_one(&mut *db).await?;
    if !exists {
        return Ok(false);
    }
    let applied: Vec<(i64, Vec<u8>)> =
        sqlx::query_as("SELECT version, checksum FROM _sqlx_migrations WHERE success").fetch_all(db).await?;
    let is_applied = |version, checksum: &[u8]| {
        applied.iter().any(|(found, sum)| *found == version && sum.as_slice() == checksum)
    };
    Ok(MIGRATIONS.iter().all(|migration| is_applied(migration.version, &migration.checksum)))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use sqlx::{
        ConnectOptions as _, Connection as _, PgConnection, SqlSafeStr as _,
        migrate::{Migration, MigrationType},
    };

    use super::{
        super::tests::{Database, run},
        *,
    };
    use crate::{store::conformance::start, time::ManualClock};

    /// A change as a later version may bring.
    fn with_a_change() -> Migrator {
        let sql = "SET LOCAL lock_timeout = '500ms'; ALTER TABLE orders ADD COLUMN later text";
        let change = Migration::new(
            MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or_default() + 1,
            "later".into(),
            MigrationType::Simple,
            sql.into_sql_str(),
            false,
        );
        Migrator::with_migrations(MIGRATIONS.iter().cloned().chain([change]).collect())
    }

    /// Beside a backup's snapshot a change of the schema can't be made. It waits by itself: what everybody else asks
    /// of the tables is answered all the while.
    #[tokio::test]
    #[cfg_attr(not(with_postgres), ignore = "left out: needs PG_DSN")]
    async fn a_change_that_waits_holds_up_nobody() {
        let (database, clock) = (Database::create().await, Arc::new(ManualClock::new(start())));
        let mut console = database.options().connect().await.expect("connects");
        let store = database.replica(&clock).await;
        let others = database.options().options([("lock_timeout", "900")]);
        let (mut other, mut backup) = (
            others.connect().await.expect("connects"),
            database.options().connect().await.expect("connects"),
        );
        let mut snapshot = backup.begin().await.expect("begins");
        for table in ["orders", "order_events", "outbox", "idempotency_keys"] {
            run(&mut snapshot, &format!("SELECT 1 FROM {table}")).await.expect("reads");
        }
        let migrations = with_a_change();
        let mut owner = database.options().connect().await.expect("connects");
        let migration = bring_up_to_date(&mut owner, &store.access, &migrations);
        let traffic = async {
            for _ in 0..2 {
                while !waits(&mut console).await {}
                run(&mut other, "SELECT 1 FROM orders").await.expect("is answered");
                while waits(&mut console).await {}
            }
            let said = holders(&mut console).await.expect("reads");
            assert!(said.contains("in a transaction for"), "{said}");
            snapshot.rollback().await.expect("ends");
        };
        let (migrated, ()) = tokio::join!(migration, traffic);
        migrated.expect("is made in the end");
        run(&mut console, "SELECT later FROM orders").await.expect("is there");
    }

    /// Whether somebody waits for a lock on a table.
    async fn waits(console: &mut PgConnection) -> bool {
        let waiting = "SELECT EXISTS (SELECT 1 FROM pg_locks WHERE NOT granted AND locktype = 'relation'
            AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))";
        sqlx::query_scalar(waiting).fetch_one(console).await.expect("reads")
    }
}
