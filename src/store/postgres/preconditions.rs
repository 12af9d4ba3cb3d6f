//! What must hold before a call can succeed: sessions that are ours alone, the schema, and the rights.
//!
//! None is taken for granted once it was found: when a call fails in a way that one of them would explain,
//! they are looked at again, and brought about where that is ours to do.

use std::sync::{
    Mutex,
    atomic::{AtomicBool, Ordering},
};

use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _};
use tokio::sync::Notify;

use super::{StoreError, causes::Cause, session::Access};

/// Whether they hold, as far as is known.
pub(super) struct Preconditions {
    hold: AtomicBool,
    /// Why not, while they do not.
    reason: Mutex<String>,
    doubted: Notify,
    /// The last order could not be placed.
    unplaced: AtomicBool,
}

impl Preconditions {
    pub(super) fn new(reason: String) -> Self {
        let (hold, unplaced) = (AtomicBool::new(false), AtomicBool::new(false));
        Self { hold, reason: Mutex::new(reason), doubted: Notify::new(), unplaced }
    }

    pub(super) fn check(&self) -> Result<(), StoreError> {
        if self.hold.load(Ordering::Acquire) {
            return Ok(());
        }
        Err(StoreError::Unavailable(self.reason.lock().expect("no holder panics").clone()))
    }

    /// They were looked at; answers whether they did not hold before.
    pub(super) fn hold(&self) -> bool {
        !self.hold.swap(true, Ordering::AcqRel)
    }

    /// One of them does not hold.
    pub(super) fn fail(&self, error: &StoreError) {
        let reason = match error {
            StoreError::Unavailable(reason) | StoreError::Failed(reason) | StoreError::Refused(reason) => {
                reason.clone()
            }
            StoreError::Timeout(_) => error.to_string(),
        };
        self.explain(reason);
        self.hold.store(false, Ordering::Release);
    }

    /// Why they do not hold, if they do not.
    pub(super) fn explain(&self, reason: impl Into<String>) {
        *self.reason.lock().expect("no holder panics") = reason.into();
    }

    /// Whether orders could be placed when one was last tried.
    pub(super) fn placed(&self) -> bool {
        !self.unplaced.load(Ordering::Acquire)
    }

    /// Remembers how an order has fared.
    pub(super) fn judge_placing<T>(&self, outcome: &Result<T, StoreError>) {
        self.unplaced.store(outcome.is_err(), Ordering::Release);
    }

    /// A call has failed as it would if one of them did not hold.
    pub(super) fn doubt(&self) {
        self.doubted.notify_one();
    }

    /// Waits for such a call.
    pub(super) async fn doubted(&self) {
        self.doubted.notified().await;
    }
}

/// Two sessions at once must be two for the server, and keep what is set in them: a pooler that hands out its
/// connections by transaction lets one see what was set in the other. Answers one of them.
pub(super) async fn session_of_our_own(access: &Access) -> Result<PgConnection, StoreError> {
    let [mark, mark_beside] = [rand::random::<u64>(), rand::random()].map(|mark| {
        // Harms nobody who shares the session.
        format!("set_config('order_tracker.session', '{mark:016x}', false)")
    });
    let (mut first, mut second) =
        tokio::try_join!(Box::pin(access.plain_session()), Box::pin(access.plain_session()))?;
    let before = told(access, &mut first, &mark).await?;
    let beside = told(access, &mut second, &mark_beside).await?;
    let after = told(access, &mut first, "current_setting('order_tracker.session', true)").await?;
    // One that can't be told is gone all the same.
    drop(second.close().await);
    if before.pid != beside.pid && before == after {
        return Ok(first);
    }
    drop(first.close().await);
    let cause = Cause::new("a pooler there hands its connections out by transaction")
        .with("set pool_mode=session for this database (PgBouncer), or name the server itself in the DSN");
    Err(StoreError::Unavailable(cause.at(&access.address())))
}

/// Whose session it is, and what is set in it.
#[derive(PartialEq, Eq)]
struct Told {
    pid: i32,
    mark: Option<String>,
}

/// In one message: such a pooler may part what belongs together.
async fn told(access: &Access, session: &mut PgConnection, what: &str) -> Result<Told, StoreError> {
    let question = format!("SELECT pg_backend_pid(), {what}");
    let answer = sqlx::raw_sql(AssertSqlSafe(question)).fetch_one(session).await;
    let told = answer.and_then(|row| Ok(Told { pid: row.try_get(0)?, mark: row.try_get(1)? }));
    told.map_err(|error| access.error(error))
}

/// What orders are placed in and read from, and the rights that this takes.
const NEEDED: &str = "
    WITH needed (relation, privilege) AS (VALUES
        ('orders', 'SELECT'), ('orders', 'INSERT'), ('order_events', 'SELECT'), ('order_events', 'INSERT'),
        ('outbox', 'SELECT'), ('outbox', 'INSERT'), ('relays', 'SELECT'),
        ('idempotency_keys', 'SELECT'), ('idempotency_keys', 'INSERT'))
    SELECT current_schema() IS NULL,
        (SELECT string_agg(DISTINCT relation, ', ') FROM needed WHERE to_regclass(relation) IS NULL),
        (SELECT string_agg(privilege || ' on ' || relation, ', ' ORDER BY relation, privilege) FROM needed
            WHERE NOT has_table_privilege(to_regclass(relation), privilege)),
        pg_is_in_recovery() OR current_setting('transaction_read_only')::boolean";

/// What of it is missing. Reads no table of ours, so it costs the same at any number of orders.
pub(super) async fn missing(db: &mut PgConnection) -> sqlx::Result<Missing> {
    let (schema, tables, rights, writing) = sqlx::query_as(NEEDED).fetch_one(db).await?;
    Ok(Missing { schema, tables, rights, writing })
}

/// What is not there.
#[derive(Debug, Default)]
pub(super) struct Missing {
    schema: bool,
    tables: Option<String>,
    rights: Option<String>,
    writing: bool,
}

impl Missing {
    /// Where tables are looked for, and made.
    pub(super) fn schema(&self) -> Result<(), StoreError> {
        if self.schema {
            let reason = "no schema of the search_path is there, or may be used by the role";
            return Err(StoreError::Unavailable(reason.to_owned()));
        }
        Ok(())
    }

    /// The ground under every call.
    pub(super) fn ground(&self) -> Result<(), StoreError> {
        self.schema()?;
        match &self.tables {
            None => Ok(()),
            Some(tables) => Err(StoreError::Unavailable(format!(
                "tables are not there, or not to be seen by the role: {tables}"
            ))),
        }
    }

    /// What placing an order takes; without it other calls may do their work.
    pub(super) fn placing(&self) -> Result<(), StoreError> {
        let reason = if let Some(rights) = &self.rights {
            format!("the role lacks the right to {rights} (docs/roles.sql)")
        } else if self.writing {
            "the server only reads: it is a standby, or default_transaction_read_only is set".to_owned()
        } else {
            return Ok(());
        };
        Err(StoreError::Unavailable(reason))
    }

    /// Whether it is the server that keeps orders from being placed: another may have taken its place.
    pub(super) fn only_reads(&self) -> bool {
        self.writing
    }
}
