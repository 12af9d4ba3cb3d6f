//! Sessions: how one is made, and what is set in it.
//!
//! What is set is set after the login. A pooler refuses most of what is asked for in the first message, and
//! a session in which it can't be set is not used: each new one is asked for the server's version and encoding, too.

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use sqlx::{ConnectOptions as _, PgConnection};
use tokio::time::timeout;
use tracing::info;

use super::{
    super::errors::STATEMENT_TIMEOUT,
    StoreError,
    causes::{self, ConnectionFailure},
    dsn::{self, PgDsn, Target},
    tunnel,
};

pub(super) use crate::time::deadlines::SESSION as WITHIN;
/// The oldest server that the statements are tested with, as `server_version_num` tells it.
const MIN_VERSION: i32 = 150_000;

/// What is set in every session, so nobody else may.
pub(super) const OURS: [&str; 10] = [
    "application_name",
    "statement_timeout",
    "lock_timeout",
    "idle_in_transaction_session_timeout",
    "enable_seqscan",
    "enable_bitmapscan",
    "jit",
    "standard_conforming_strings",
    "default_transaction_isolation",
    "client_encoding",
];

/// What is said where the file can't be followed.
const UNFOLLOWED: &str = "PG_DSN_FILE holds something new that is not followed";

/// What a session is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Calls, each of which ends soon.
    Calls,
    /// Orders with idempotency keys, which another session may hold: the set is halved when one does,
    /// several times within the writer's patience.
    Keys,
    /// Sets of reports, most of them small and of any size.
    Reports,
    /// A schema change takes its time.
    Schema,
}

impl Purpose {
    /// Limits on the server's side, for what our own deadlines can't end there; and what the statements rely on,
    /// whatever server, database or role have as their default.
    fn settings(self, name: &str) -> Vec<(&'static str, String)> {
        let statement_timeout = STATEMENT_TIMEOUT.as_millis().to_string();
        let [statement, lock, idle] = match self {
            Self::Calls | Self::Reports => [&*statement_timeout, "1000", "3000"],
            Self::Keys => [&*statement_timeout, "250", "3000"],
            Self::Schema => ["0"; 3],
        };
        // A plan made while a table is empty reads it whole, and a prepared statement keeps its plan for as
        // long as the table is not analysed. Every statement of ours has its index. Where a table must be read
        // whole, that setting makes the plan look dear enough to be compiled. A bitmap is made of all entries before the
        // first row is read, so it keeps to no limit, and marks no dead entry.
        let values = [name, statement, lock, idle, "off", "off", "off", "on", "read committed", "UTF8"];
        let mut ours: Vec<_> =
            OURS.into_iter().zip(values).map(|(ours, value)| (ours, value.to_owned())).collect();
        if self == Self::Reports {
            // To plan a small set anew each time costs as much as to read it, and the plan is the same whatever the set.
            ours.push(("plan_cache_mode", "force_generic_plan".to_owned()));
        }
        ours
    }
}

/// The way to the database.
pub(super) struct Access {
    target: Mutex<Arc<Target>>,
    file: Option<PathBuf>,
    /// Why the file's new word is not followed.
    unfollowed: Mutex<Option<String>>,
    /// How often it was.
    followed: AtomicU64,
    /// By the name of its sessions the database sees whether a replica is there.
    name: String,
    /// Whether the driver's TLS can't read the server's certificate.
    around: AtomicBool,
}

impl Access {
    pub(super) fn new(dsn: &PgDsn, replica: i64) -> Self {
        Self {
            target: Mutex::new(Arc::new(dsn.target().clone())),
            file: dsn.file().map(ToOwned::to_owned),
            unfollowed: Mutex::default(),
            followed: AtomicU64::new(0),
            name: format!("order-tracker {replica:016x}"),
            around: AtomicBool::new(false),
        }
    }

    fn target(&self) -> Arc<Target> {
        self.target.lock().expect("no holder panics").clone()
    }

    /// Where the database is, and which setting says so.
    pub(super) fn address(&self) -> String {
        let setting = if self.file.is_some() { "PG_DSN_FILE" } else { "PG_DSN" };
        format!("{} ({setting})", self.target().host())
    }

    /// What a call has met in a session.
    pub(super) fn error(&self, error: sqlx::Error) -> StoreError {
        match causes::of_break(&error) {
            Some(cause) => StoreError::Unavailable(cause.at(&self.address())),
            None => error.into(),
        }
    }

    /// A session with all that is to be set in it.
    pub(super) async fn session(
        &self,
        purpose: Purpose,
        within: Duration,
    ) -> Result<PgConnection, ConnectionFailure> {
        self.connect(Some(purpose), within).await
    }

    /// A session as the server gives it, for looking at what lies between it and us.
    pub(super) async fn plain_session(&self) -> Result<PgConnection, StoreError> {
        self.connect(None, WITHIN).await.map_err(|cause| self.refusal(&cause))
    }

    /// Why there is no session, and where.
    pub(super) fn refusal(&self, cause: &ConnectionFailure) -> StoreError {
        self.explained(StoreError::Unavailable(cause.at(&self.address())))
    }

    /// The same trouble, and that the file may hold what would help if it could be followed.
    pub(super) fn explained(&self, error: StoreError) -> StoreError {
        let unfollowed = self.unfollowed.lock().expect("no holder panics").clone();
        match (error, unfollowed) {
            (StoreError::Unavailable(reason), Some(why)) if !reason.contains(UNFOLLOWED) => {
                StoreError::Unavailable(format!("{reason}; {UNFOLLOWED}: {why}"))
            }
            (error, _) => error,
        }
    }

    /// Follows the file if it has a new word.
    pub(super) async fn read_again(&self) {
        let known = self.target();
        self.rotated(&known).await;
    }

    /// How often it was followed: what was connected before may lead to where nobody should go any more.
    pub(super) fn followed(&self) -> u64 {
        self.followed.load(Ordering::Acquire)
    }

    async fn connect(
        &self,
        purpose: Option<Purpose>,
        within: Duration,
    ) -> Result<PgConnection, ConnectionFailure> {
        let target = self.target();
        let refusal = match self.connect_to(&target, purpose, within).await {
            Err(refusal) => refusal,
            session => return session,
        };
        match self.rotated(&target).await {
            Some(rotated) => self.connect_to(&rotated, purpose, within).await,
            None => Err(refusal),
        }
    }

    /// The file's new word, where it has one: passwords are changed while we run.
    async fn rotated(&self, known: &Arc<Target>) -> Option<Arc<Target>> {
        let file = self.file.as_deref()?;
        let changed = dsn::changed(file, known).await;
        *self.unfollowed.lock().expect("no holder panics") = changed.as_ref().err().map(ToString::to_string);
        let mut target = self.target.lock().expect("no holder panics");
        if !Arc::ptr_eq(&target, known) {
            // Another call was faster.
            return Some(Arc::clone(&target));
        }
        *target = Arc::new(changed.ok()??);
        self.followed.fetch_add(1, Ordering::AcqRel);
        info!("PG_DSN_FILE has changed and is followed");
        Some(Arc::clone(&target))
    }

    async fn connect_to(
        &self,
        target: &Target,
        purpose: Option<Purpose>,
        within: Duration,
    ) -> Result<PgConnection, ConnectionFailure> {
        let login = async {
            let mut session = self.log_in(target).await?;
            if let Some(purpose) = purpose {
                self.set_up(&mut session, target, purpose).await?;
            }
            Ok(session)
        };
        let silence =
            || Err(ConnectionFailure::new(format!("no answer within {:.1} s", within.as_secs_f64())));
        timeout(within, login).await.unwrap_or_else(|_| silence())
    }

    /// By the driver's own TLS, or around it where that reads what nobody asked to be read.
    async fn log_in(&self, target: &Target) -> Result<PgConnection, ConnectionFailure> {
        let may = target.encrypts_only();
        if !(may && self.around.load(Ordering::Relaxed)) {
            match target.options.connect().await {
                Err(error) if may && causes::is_unreadable(&error) => {
                    info!("the server's certificate is of X.509 version 1; nothing is checked of it");
                    self.around.store(true, Ordering::Relaxed);
                }
                session => return session.map_err(|error| causes::of_login(&error, target)),
            }
        }
        let session = tunnel::log_in(&target.options).await;
        session.map_err(|error| {
            // It may be another server by now, or have another certificate.
            self.around.store(false, Ordering::Relaxed);
            causes::of_login(&error, target)
        })
    }

    /// Makes a plain session one of ours.
    pub(super) async fn adopt(&self, session: &mut PgConnection, purpose: Purpose) -> Result<(), StoreError> {
        let target = self.target();
        let adopted = self.set_up(session, &target, purpose).await;
        adopted.map_err(|cause| self.refusal(&cause))
    }

    async fn set_up(
        &self,
        session: &mut PgConnection,
        target: &Target,
        purpose: Purpose,
    ) -> Result<(), ConnectionFailure> {
        let server = self.set(session, target, purpose).await;
        server.map_err(|error| causes::of_login(&error, target))?.check()
    }

    /// The values travel as parameters, so that no log of statements holds them.
    async fn set(
        &self,
        session: &mut PgConnection,
        target: &Target,
        purpose: Purpose,
    ) -> sqlx::Result<Server> {
        let ours = purpose.settings(&self.name);
        let theirs = target.settings.iter().map(|(name, value)| (name.as_str(), value));
        let all = theirs.chain(ours.iter().map(|(name, value)| (*name, value)));
        let (names, values): (Vec<&str>, Vec<&String>) = all.unzip();
        let (encoding, version, _) = sqlx::query_as::<_, (String, i32, i64)>(
            "SELECT current_setting('server_encoding'), current_setting('server_version_num')::int,
                 (SELECT count(set_config(s.name, s.value, false)) FROM unnest($1::text[], $2::text[]) AS s (name, value))",
        )
        .bind(names)
        .bind(values)
        .persistent(false)
        .fetch_one(session)
        .await?;
        Ok(Server { encoding, version })
    }
}

/// What a server says of itself.
struct Server {
    encoding: String,
    version: i32,
}

impl Server {
    fn check(&self) -> Result<(), ConnectionFailure> {
        let (found, needed) = (self.version / 10_000, MIN_VERSION / 10_000);
        if self.version < MIN_VERSION {
            return Err(ConnectionFailure::new(format!("PostgreSQL {found} is too old, {needed} is needed")));
        }
        if self.encoding != "UTF8" {
            let what = format!("the database's encoding is {}, which can't hold every name", self.encoding);
            let remedy = "make one with CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0";
            return Err(ConnectionFailure::new(what).with(remedy));
        }
        Ok(())
    }
}
