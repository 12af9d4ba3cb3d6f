//! Connections: three small pools, so that a flood of requests can't starve the loops, nor reads
//! the writer; all three are replaced when they lead to a server that is silent or only reads.

use std::{
    sync::{Arc, RwLock},
    time::Duration,
};

use sqlx::{
    PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::time::Instant;
use tracing::warn;

use super::PgSettings;

/// How long a verb waits for a free connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_millis(1_500);
/// Pools younger than this are not replaced: they have not had their chance.
const MIN_AGE: Duration = Duration::from_secs(2);
/// Connections of the loops: progress, relay, intake and survey take turns.
const FOR_LOOPS: u32 = 2;
/// The writer writes one batch at a time.
const FOR_PLACING: u32 = 1;

/// One generation of connections.
pub(super) struct Pools {
    pub(super) place: PgPool,
    pub(super) loops: PgPool,
    pub(super) read: PgPool,
    since: Instant,
}

impl Pools {
    fn new(settings: &PgSettings) -> Self {
        let options = session(settings.dsn.0.clone());
        let pool = |connections| {
            PgPoolOptions::new()
                .max_connections(connections)
                .acquire_timeout(ACQUIRE_TIMEOUT)
                // Costs a fifth of the rate; a broken connection shows itself by an error just as well.
                .test_before_acquire(false)
                .connect_lazy_with(options.clone())
        };
        Self {
            place: pool(FOR_PLACING),
            loops: pool(FOR_LOOPS),
            read: pool(settings.max_connections.saturating_sub(FOR_PLACING + FOR_LOOPS).max(1)),
            since: Instant::now(),
        }
    }

    pub(super) async fn close(&self) {
        tokio::join!(self.place.close(), self.loops.close(), self.read.close());
    }
}

/// Limits on the server's side, for what our own deadlines can't end there.
fn session(options: PgConnectOptions) -> PgConnectOptions {
    options.application_name("order-tracker").options([
        ("statement_timeout", "1800"),
        ("lock_timeout", "1000"),
        ("idle_in_transaction_session_timeout", "3000"),
    ])
}

/// The generation in use.
pub(super) struct PoolSlot(RwLock<Arc<Pools>>);

impl PoolSlot {
    pub(super) fn new(settings: &PgSettings) -> Self {
        Self(RwLock::new(Arc::new(Pools::new(settings))))
    }

    pub(super) fn get(&self) -> Arc<Pools> {
        Arc::clone(&self.0.read().expect("no holder panics"))
    }

    /// Puts new connections in the place of `worn`, unless somebody has done so already.
    pub(super) fn replace(&self, worn: &Arc<Pools>, settings: &PgSettings) {
        let mut current = self.0.write().expect("no holder panics");
        if Arc::ptr_eq(&current, worn) && worn.since.elapsed() >= MIN_AGE {
            warn!("connections to the database lead nowhere and are replaced");
            let worn = std::mem::replace(&mut *current, Arc::new(Pools::new(settings)));
            // A silent server does not answer a farewell either: nobody waits for it.
            tokio::spawn(async move { worn.close().await });
        }
    }
}
