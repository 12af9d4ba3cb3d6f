//! Connections: four small pools, so that a flood of requests can't starve the loops, nor reads
//! the writers, nor a locked idempotency key those without one. A pool that leads to a server that is silent or only reads is replaced.
//!
//! sqlx asks the server about each connection that is given back, a round trip for every call, and waits for
//! the answer without end. So none is given back: it rests here after a call that ended well, and is dropped else.

use std::{
    mem,
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use sqlx::{
    PgConnection, PgPool, Postgres,
    pool::PoolConnection,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::{Instant, timeout},
};
use tracing::warn;

use super::{super::trouble::STATEMENT_TIMEOUT, PgSettings};

/// How long a verb waits for a free connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_millis(1_500);
/// Pools younger than this are not replaced: they have not had their chance. Less than a call may take,
/// so that the pool of one that got no answer always is.
const MIN_AGE: Duration = Duration::from_millis(1_800);
/// How long a connection is used before a new one takes its place, and how long it may rest, since what lies
/// between may forget an idle one; both as in sqlx.
const LIFETIME: Duration = Duration::from_mins(30);
const REST: Duration = Duration::from_mins(10);
/// Connections of the loops: progress, relay, intake and survey take turns.
const FOR_LOOPS: u32 = 2;
/// Each writer writes one batch at a time.
const FOR_PLACING: u32 = 1;
/// How long an order waits for its idempotency key, which another session may hold: the set is halved
/// then, several times within the writer's patience.
const KEY_WITHIN: (&str, &str) = ("lock_timeout", "250");

/// The four pools.
pub(super) struct Pools {
    pub(super) place: Slot,
    pub(super) keyed: Slot,
    pub(super) loops: Slot,
    pub(super) read: Slot,
}

impl Pools {
    /// The database sees by the name of its sessions whether a replica is there.
    pub(super) fn new(settings: &PgSettings, replica: i64) -> Self {
        let options =
            session(settings.dsn.0.clone()).application_name(&format!("order-tracker {replica:016x}"));
        let for_reading = settings.max_connections.saturating_sub(2 * FOR_PLACING + FOR_LOOPS).max(1);
        Self {
            place: Slot::new(options.clone(), FOR_PLACING),
            keyed: Slot::new(options.clone().options([KEY_WITHIN]), FOR_PLACING),
            loops: Slot::new(options.clone(), FOR_LOOPS),
            read: Slot::new(options, for_reading),
        }
    }

    pub(super) async fn close(&self) {
        tokio::join!(self.place.close(), self.keyed.close(), self.loops.close(), self.read.close());
    }
}

/// Limits on the server's side, for what our own deadlines can't end there.
fn session(options: PgConnectOptions) -> PgConnectOptions {
    let statement_timeout = STATEMENT_TIMEOUT.as_millis().to_string();
    options.options([
        ("statement_timeout", statement_timeout.as_str()),
        ("lock_timeout", "1000"),
        ("idle_in_transaction_session_timeout", "3000"),
        // A plan made while a table is empty reads it whole, and a prepared statement keeps its plan for as
        // long as the table is not analysed. Every statement of ours has its index.
        ("enable_seqscan", "off"),
        // Where a table must be read whole, that setting makes the plan look dear enough to be compiled.
        ("jit", "off"),
    ])
}

/// A pool that can be replaced.
pub(super) struct Slot {
    options: PgConnectOptions,
    connections: u32,
    /// One for each connection: who has a turn finds a connection at rest, or the pool has room for one.
    turns: Semaphore,
    current: Mutex<Current>,
}

struct Current {
    pool: PgPool,
    since: Instant,
    at_rest: Vec<Rested>,
}

struct Rested {
    connection: PoolConnection<Postgres>,
    made: Instant,
    used: Instant,
}

impl Rested {
    fn is_stale(&self) -> bool {
        self.made.elapsed() >= LIFETIME || self.used.elapsed() >= REST
    }

    /// Makes room for another at once, without a farewell to a server that may be silent.
    fn discard(self) {
        drop(self.connection.detach());
    }
}

impl Slot {
    fn new(options: PgConnectOptions, connections: u32) -> Self {
        let current = Mutex::new(Current::new(&options, connections));
        Self { options, connections, turns: Semaphore::new(connections as usize), current }
    }

    fn current(&self) -> MutexGuard<'_, Current> {
        self.current.lock().expect("no holder panics")
    }

    pub(super) fn pool(&self) -> PgPool {
        self.current().pool.clone()
    }

    /// A connection for one call.
    pub(super) async fn lease(&self) -> sqlx::Result<Lease<'_>> {
        let turn = timeout(ACQUIRE_TIMEOUT, self.turns.acquire()).await;
        let turn = turn.map_err(|_| sqlx::Error::PoolTimedOut)?.map_err(|_| sqlx::Error::PoolClosed)?;
        let (pool, rested) = {
            let mut current = self.current();
            current.at_rest.extract_if(.., |rested| rested.is_stale()).for_each(Rested::discard);
            (current.pool.clone(), current.at_rest.pop())
        };
        let rested = if let Some(rested) = rested {
            rested
        } else {
            let (connection, now) = (pool.acquire().await?, Instant::now());
            Rested { connection, made: now, used: now }
        };
        Ok(Lease { slot: self, pool, rested: Some(rested), _turn: turn })
    }

    /// Discards all connections at rest: one has broken, so the others may have.
    pub(super) fn doubt(&self) {
        self.current().at_rest.drain(..).for_each(Rested::discard);
    }

    /// Puts new connections in the place of those given up, unless these are new themselves. Calls
    /// that are under way keep theirs, which are closed when they end; those at rest are dropped,
    /// without a farewell to a silent server.
    pub(super) fn replace(&self, given_up: &PgPool) {
        let mut current = self.current();
        // A closed one was replaced before.
        if !given_up.is_closed() && current.since.elapsed() >= MIN_AGE {
            warn!("connections to the database lead nowhere and are replaced");
            let old = mem::replace(&mut *current, Current::new(&self.options, self.connections));
            // Closed is what it is from here on; nobody waits for it.
            drop(old.pool.close());
            old.at_rest.into_iter().for_each(Rested::discard);
        }
    }

    async fn close(&self) {
        let pool = self.pool();
        // Closed from here on: nothing comes to rest any more.
        let closed = pool.close();
        let at_rest = mem::take(&mut self.current().at_rest);
        for rested in at_rest {
            // One that can't be told is gone all the same.
            drop(rested.connection.close().await);
        }
        closed.await;
    }
}

impl Current {
    fn new(options: &PgConnectOptions, connections: u32) -> Self {
        Self { pool: pool(options, connections), since: Instant::now(), at_rest: Vec::new() }
    }
}

/// A connection in use. Dropped before it comes to rest it is discarded: nobody knows what state it is in.
pub(super) struct Lease<'a> {
    slot: &'a Slot,
    /// Where it came from.
    pool: PgPool,
    rested: Option<Rested>,
    _turn: SemaphorePermit<'a>,
}

impl Lease<'_> {
    pub(super) fn connection(&mut self) -> &mut PgConnection {
        &mut self.rested.as_mut().expect("taken by `rest` only").connection
    }

    /// Keeps it for the next call: this one has ended well.
    pub(super) fn rest(mut self) {
        let mut current = self.slot.current();
        // A closed pool was replaced meanwhile.
        if !self.pool.is_closed()
            && let Some(rested) = self.rested.take()
        {
            current.at_rest.push(Rested { used: Instant::now(), ..rested });
        }
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        if let Some(rested) = self.rested.take() {
            rested.discard();
        }
    }
}

fn pool(options: &PgConnectOptions, connections: u32) -> PgPool {
    PgPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .connect_lazy_with(options.clone())
}
