//! Brings the schema up to date, however long the database takes to come.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::{Backoff, pause};
use crate::store::Store;

/// Migrates once, then waits for the end.
pub struct Migration {
    store: Arc<dyn Store>,
    migrated: CancellationToken,
}

impl Migration {
    /// A migration of `store`, and the token that is cancelled once it is done.
    pub fn new(store: Arc<dyn Store>) -> (Self, CancellationToken) {
        let migrated = CancellationToken::new();
        (Self { store, migrated: migrated.clone() }, migrated)
    }

    /// Works until told to stop; ends by itself only when the database refuses for good.
    pub async fn run(self, stop: CancellationToken) {
        let mut backoff = Backoff::default();
        // It may wait long for a lock that another replica holds.
        while let Some(outcome) = stop.run_until_cancelled(self.store.migrate()).await {
            match outcome {
                Ok(()) => {
                    info!("the database is up to date");
                    self.migrated.cancel();
                    return stop.cancelled().await;
                }
                Err(error) if error.is_transient() => {
                    pause("the schema migration", &mut backoff, &error, &stop).await;
                }
                Err(error) => return error!(%error, "the schema can't be brought up to date"),
            }
        }
    }
}
