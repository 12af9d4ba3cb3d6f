//! The embedded database: SQLite, one process, one writer, several readers.
//!
//! WAL with `synchronous=FULL`: a commit that was answered survives kill -9 and power loss. A lock
//! file keeps a second process out, but for a command that keeps keys. Sets travel as one JSON array per statement (`json_each`).

mod arrive;
mod attention;
mod events;
mod folder;
mod insight;
mod keys;
mod outbox;
mod reports;
mod rows;
mod verbs;

#[cfg(test)]
mod tests;

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use sqlx::{
    Connection as _, Sqlite, SqliteConnection, SqlitePool, Transaction,
    migrate::Migrator,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use tokio::time::{Instant, sleep};

use super::{
    Admission, Advance, Due, DueKey, DueOrders, EARLIER_VERSION, Found, IdempotencyKey, Incoming,
    Maintenance, NewOrder, OrderReport, OrderStore, Outbox, OutboxStore, Page, Placement, Position, Reported,
    Republished, StoreError,
};
use crate::{
    order::{IdMint, Order, OrderDetails, OrderId, OrderPlaced, Rules, StageDelays, Start},
    time::Clock,
};

static MIGRATIONS: Migrator = sqlx::migrate!("migrations/sqlite");

/// Connections that only read; more gain nothing on a file.
const READERS: u32 = 4;
/// How long the lock is waited for, and how often it is tried.
const PATIENCE: Duration = Duration::from_millis(500);
const AGAIN: Duration = Duration::from_millis(50);
/// How long a call waits for a free connection, and a connection for the file's lock.
const ACQUIRE_TIMEOUT: Duration = crate::time::deadlines::GUARD;

/// The adapter for SQLite.
pub struct SqliteStore {
    write: SqlitePool,
    read: SqlitePool,
    clock: Arc<dyn Clock>,
    /// Marks outbox rows that this very process holds in memory.
    process: i64,
    /// Held for the life of the store.
    _lock: Option<File>,
}

/// Why the embedded database did not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("the data folder {} is in use by another process: stop that one, or set DATA_DIR to another folder", .0.display())]
    InUse(PathBuf),
    /// The folder or the file can't be used.
    #[error("can't use the data folder {}: {error}", folder.display())]
    Folder {
        /// `DATA_DIR`.
        folder: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// The file is no database of ours.
    #[error("can't open the embedded database: {0}")]
    Database(#[from] sqlx::Error),
    /// The tables are those of an earlier version.
    #[error("the data folder {} can't be used: {EARLIER_VERSION}; move it away, or set DATA_DIR to another folder", .0.display())]
    EarlierVersion(PathBuf),
    /// Whoever has it knows no keys, and its schema is not ours to change.
    #[error("the data folder {} is in use by a process of an earlier version, which knows no keys: stop that one first", .0.display())]
    NoKeys(PathBuf),
    /// The schema can't be brought up to date.
    #[error("can't migrate the embedded database: {0}")]
    Migrate(#[from] sqlx::migrate::MigrateError),
}

impl SqliteStore {
    /// Opens the database in `folder`, made if missing, and brings its schema up to date.
    pub async fn open(folder: &Path, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        // A command may have it for a moment.
        let deadline = Instant::now() + PATIENCE;
        let lock = loop {
            match folder::take(folder) {
                Err(OpenError::InUse(_)) if Instant::now() < deadline => sleep(AGAIN).await,
                taken => break taken?,
            }
        };
        Self::open_locked(folder, clock, lock).await
    }

    async fn open_locked(folder: &Path, clock: Arc<dyn Clock>, lock: File) -> Result<Self, OpenError> {
        let options = options(folder).create_if_missing(true);
        let write = pool(1).after_release(|connection, _| Box::pin(is_fit(connection)));
        let write = write.connect_with(options.clone()).await?;
        refuse_earlier_version(folder, &write).await?;
        MIGRATIONS.run(&write).await?;
        let read = pool(READERS).connect_lazy_with(options.read_only(true).create_if_missing(false));
        Ok(Self { write, read, clock, process: rand::random(), _lock: Some(lock) })
    }

    /// The same, unless there is none.
    pub async fn open_existing(folder: &Path, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        folder::must_hold_a_database(folder)?;
        Self::open(folder, clock).await
    }

    /// The same beside the process that has it, if one does: what it wrote is seen, and what is written waits its turn.
    /// Nobody is kept out for longer than it takes to bring the schema up to date.
    pub async fn open_beside(folder: &Path, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        let deadline = Instant::now() + 2 * PATIENCE;
        loop {
            match folder::take(folder) {
                Ok(lock) => {
                    let store = Self::open_locked(folder, clock, lock).await?;
                    return Ok(Self { _lock: None, ..store });
                }
                Err(OpenError::InUse(_)) => {}
                Err(error) => return Err(error),
            }
            // Who has it may have only just begun to make it.
            match Self::join(folder, Arc::clone(&clock)).await {
                Err(OpenError::Database(_) | OpenError::NoKeys(_)) if Instant::now() < deadline => {
                    sleep(AGAIN).await;
                }
                joined => return joined,
            }
        }
    }

    /// The same, unless there is none.
    pub async fn open_existing_beside(folder: &Path, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        folder::must_hold_a_database(folder)?;
        Self::open_beside(folder, clock).await
    }

    /// Without the lock, and so without changing the schema.
    async fn join(folder: &Path, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        let write = pool(1).after_release(|connection, _| Box::pin(is_fit(connection)));
        let write = write.connect_with(options(folder)).await?;
        refuse_earlier_version(folder, &write).await?;
        let keys = "SELECT EXISTS (SELECT 1 FROM pragma_table_info('api_keys'))";
        if !sqlx::query_scalar::<_, bool>(keys).fetch_one(&write).await? {
            return Err(OpenError::NoKeys(folder.to_owned()));
        }
        let read = pool(READERS).connect_lazy_with(options(folder).read_only(true));
        Ok(Self { write, read, clock, process: rand::random(), _lock: None })
    }

    /// Opens the database for reading only, beside the process that has it.
    pub async fn open_read_only(folder: &Path, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        let read = pool(READERS).connect_with(options(folder).read_only(true)).await?;
        refuse_earlier_version(folder, &read).await?;
        Ok(Self { write: read.clone(), read, clock, process: rand::random(), _lock: None })
    }

    /// Who is refused is to blame only where a good order is not refused as well: one is placed and taken back.
    async fn blamed<T>(&self, outcome: Result<T, StoreError>) -> Result<T, StoreError> {
        let Err(error @ (StoreError::Refused(_) | StoreError::Failed(_))) = outcome else { return outcome };
        let details = OrderDetails::new("nobody", "nowhere", "nothing", "small").expect("valid");
        let order_id = IdMint::default().mint(0, rand::random());
        let order = [NewOrder {
            order_id,
            details,
            key: Some(IdempotencyKey::new("", order_id.to_string())),
            meta: None,
            start: Start::timer(Duration::ZERO),
        }];
        let mut tx = self.begin().await?;
        let rehearsed = arrive::place(&mut tx, &order, self.clock.now(), None).await;
        tx.rollback().await?;
        match rehearsed {
            Err(StoreError::Refused(reason) | StoreError::Failed(reason)) => {
                Err(StoreError::Unavailable(reason))
            }
            rehearsed => Err(rehearsed.err().unwrap_or(error)),
        }
    }

    /// Takes the write lock at once, so that what is read inside stays true until the commit.
    async fn begin(&self) -> Result<Transaction<'static, Sqlite>, StoreError> {
        Ok(self.write.begin_with("BEGIN IMMEDIATE").await?)
    }
}

/// No migration leads away from 0.1, whose orders had no position.
async fn refuse_earlier_version(folder: &Path, db: &SqlitePool) -> Result<(), OpenError> {
    let earlier: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM pragma_table_info('_sqlx_migrations'))
             AND EXISTS (SELECT 1 FROM pragma_table_info('orders'))
             AND NOT EXISTS (SELECT 1 FROM pragma_table_info('orders') WHERE name = 'seq')",
    )
    .fetch_one(db)
    .await?;
    if earlier { Err(OpenError::EarlierVersion(folder.to_owned())) } else { Ok(()) }
}

/// Whether a connection may be used again. When the disk is full SQLite rolls a transaction back by
/// itself; the driver's own count of open transactions then stays wrong for ever.
async fn is_fit(connection: &mut SqliteConnection) -> sqlx::Result<bool> {
    // Waits for a rollback that is still queued.
    connection.ping().await?;
    Ok(!connection.is_in_transaction())
}

fn options(folder: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(folder::database(folder))
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .pragma("recursive_triggers", "ON")
        .busy_timeout(ACQUIRE_TIMEOUT)
}

fn pool(connections: u32) -> SqlitePoolOptions {
    SqlitePoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .test_before_acquire(false)
        .idle_timeout(None)
        .max_lifetime(None)
}

#[async_trait]
impl OrderStore for SqliteStore {
    async fn place(&self, orders: &[NewOrder], outbox: Outbox) -> Result<Vec<Placement>, StoreError> {
        let claimed_by = (outbox == Outbox::Mine).then_some(self.process);
        let placed = async {
            let mut tx = self.begin().await?;
            let now = self.clock.now();
            let placements = arrive::place(&mut tx, orders, now, claimed_by).await?;
            tx.commit().await?;
            Ok(placements)
        };
        self.blamed(placed.await).await
    }

    async fn admit(&self, incoming: &[Incoming]) -> Result<Vec<Admission>, StoreError> {
        let known = arrive::known(&self.read, incoming).await?;
        if incoming.iter().all(|order| known.contains(&order.placed.order_id)) {
            return Ok(vec![Admission::Known; incoming.len()]);
        }
        let admitted = async {
            let mut tx = self.begin().await?;
            let now = self.clock.now();
            let admissions = arrive::admit(&mut tx, incoming, now).await?;
            tx.commit().await?;
            Ok(admissions)
        };
        self.blamed(admitted.await).await
    }

    async fn advance_due(&self, due: Due<'_>, delays: &StageDelays) -> Result<Advance, StoreError> {
        let next_due = verbs::next_due(&self.read, None).await?;
        let now = self.clock.now();
        if next_due.is_none_or(|due| due > now) {
            return Ok(Advance { transitions: Vec::new(), next_due_in: verbs::until(next_due, now) });
        }
        let mut tx = self.begin().await?;
        let now = self.clock.now();
        let (orders, transitions) = verbs::advance(&mut tx, due, now, delays).await?;
        let full =
            matches!(due, Due::Soonest { limit, .. } | Due::Overlooked { limit, .. } if orders >= limit);
        let next_due = if full { Some(now) } else { verbs::next_due(&mut *tx, Some(now)).await? };
        tx.commit().await?;
        Ok(Advance { transitions, next_due_in: verbs::until(next_due, now) })
    }

    async fn report_again(
        &self,
        reports: &[OrderReport],
        rules: &Rules,
        earlier: Option<Instant>,
    ) -> Result<Vec<Reported>, StoreError> {
        let mut tx = self.begin().await?;
        let answers = reports::report(&mut tx, reports, rules, (self.clock.now(), earlier)).await?;
        tx.commit().await?;
        Ok(answers)
    }

    async fn due(&self, due: Due<'_>) -> Result<DueOrders, StoreError> {
        let mut db = self.read.acquire().await?;
        let due = verbs::due(&mut db, due, self.clock.now()).await?;
        let last = due.last().map(|last| DueKey { due_at: last.due_at, order_id: last.order_id });
        Ok(DueOrders { order_ids: due.into_iter().map(|due| due.order_id).collect(), last })
    }

    async fn positions(&self, orders: &[OrderId]) -> Result<Vec<Position>, StoreError> {
        verbs::positions(&self.read, orders, self.clock.now()).await
    }

    async fn find_all(&self, order_ids: &[OrderId]) -> Result<Found, StoreError> {
        let found = verbs::timelines(&self.read, order_ids).await?;
        let now = self.clock.now();
        Ok(Found { now, orders: reports::with_notes(&self.read, found).await? })
    }

    async fn list(&self, page: &Page) -> Result<Vec<Order>, StoreError> {
        verbs::list(&self.read, page).await
    }
}

#[async_trait]
impl OutboxStore for SqliteStore {
    /// There is one process, and it lives.
    async fn heartbeat(&self) -> Result<(), StoreError> {
        Ok(())
    }

    async fn unclaimed(&self, after: Option<OrderId>, limit: usize) -> Result<Vec<OrderId>, StoreError> {
        outbox::unclaimed(&self.read, after, limit, self.process).await
    }

    async fn claim(&self, unsent: &[OrderId]) -> Result<Vec<OrderPlaced>, StoreError> {
        outbox::claim(&self.write, unsent, self.process).await?;
        outbox::messages(&self.read, unsent).await
    }

    async fn lost(&self, held: &[OrderId], limit: usize) -> Result<Vec<OrderId>, StoreError> {
        outbox::lost(&self.read, held, limit, self.process, self.clock.now()).await
    }

    /// One session writes, so nobody else holds a row.
    async fn mark_sent(&self, sent: &[OrderId]) -> Result<Vec<OrderId>, StoreError> {
        outbox::mark_sent(&self.write, sent).await.map(|()| Vec::new())
    }

    async fn release(&self, unsent: &[OrderId]) -> Result<Vec<OrderId>, StoreError> {
        outbox::release(&self.write, unsent).await.map(|()| Vec::new())
    }

    async fn republish(&self, orders: &[OrderId]) -> Result<Vec<Republished>, StoreError> {
        let mut tx = self.begin().await?;
        let republished = outbox::republish(&mut tx, orders, self.clock.now()).await?;
        tx.commit().await?;
        Ok(republished)
    }
}

#[async_trait]
impl Maintenance for SqliteStore {
    /// Opening has done it.
    async fn migrate(&self) -> Result<(), StoreError> {
        Ok(())
    }

    async fn expire_idempotency_keys(&self, limit: usize) -> Result<u64, StoreError> {
        verbs::expire_idempotency_keys(&self.write, self.clock.now(), limit).await
    }

    async fn close(&self) {
        self.read.close().await;
        self.write.close().await;
    }
}
