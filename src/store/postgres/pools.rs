//! Connections: three small pools, so that a flood of requests can't starve the loops, nor reads
//! the writer. A pool that leads to a server that is silent or only reads is replaced.

use std::{sync::RwLock, time::Duration};

use sqlx::{
    PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::time::Instant;
use tracing::warn;

use super::PgSettings;

/// How long a verb waits for a free connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_millis(1_500);
/// Pools younger than this are not replaced: they have not had their chance. Less than a call may take,
/// so that the pool of one that got no answer always is.
const MIN_AGE: Duration = Duration::from_millis(1_800);
/// Connections of the loops: progress, relay, intake and survey take turns.
const FOR_LOOPS: u32 = 2;
/// The writer writes one batch at a time.
const FOR_PLACING: u32 = 1;

/// The three pools.
pub(super) struct Pools {
    pub(super) place: Slot,
    pub(super) loops: Slot,
    pub(super) read: Slot,
}

impl Pools {
    /// The database sees by the name of its sessions whether a replica is there.
    pub(super) fn new(settings: &PgSettings, replica: i64) -> Self {
        let options =
            session(settings.dsn.0.clone()).application_name(&format!("order-tracker {replica:016x}"));
        let for_reading = settings.max_connections.saturating_sub(FOR_PLACING + FOR_LOOPS).max(1);
        Self {
            place: Slot::new(options.clone(), FOR_PLACING),
            loops: Slot::new(options.clone(), FOR_LOOPS),
            read: Slot::new(options, for_reading),
        }
    }

    pub(super) async fn close(&self) {
        let (place, loops, read) = (self.place.get(), self.loops.get(), self.read.get());
        tokio::join!(place.close(), loops.close(), read.close());
    }
}

/// Limits on the server's side, for what our own deadlines can't end there.
fn session(options: PgConnectOptions) -> PgConnectOptions {
    options.options([
        ("statement_timeout", "1800"),
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
    current: RwLock<(PgPool, Instant)>,
}

impl Slot {
    fn new(options: PgConnectOptions, connections: u32) -> Self {
        let current = RwLock::new((pool(&options, connections), Instant::now()));
        Self { options, connections, current }
    }

    pub(super) fn get(&self) -> PgPool {
        self.current.read().expect("no holder panics").0.clone()
    }

    /// Puts new connections in the place of those given up, unless these are new themselves. Calls
    /// that are under way keep theirs, which are closed when they end; those at rest are dropped,
    /// without a farewell to a silent server.
    pub(super) fn replace(&self, given_up: &PgPool) {
        let mut current = self.current.write().expect("no holder panics");
        // A closed one was replaced before.
        if !given_up.is_closed() && current.1.elapsed() >= MIN_AGE {
            warn!("connections to the database lead nowhere and are replaced");
            let new = (pool(&self.options, self.connections), Instant::now());
            let (old, _) = std::mem::replace(&mut *current, new);
            // Closed is what it is from here on; nobody waits for it.
            drop(old.close());
        }
    }
}

fn pool(options: &PgConnectOptions, connections: u32) -> PgPool {
    PgPoolOptions::new()
        .max_connections(connections)
        // One at least is kept: where the server has few to give, nobody else may take the last.
        .min_connections(1)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        // Costs a fifth of the rate; a broken connection shows itself by an error just as well.
        .test_before_acquire(false)
        .connect_lazy_with(options.clone())
}
