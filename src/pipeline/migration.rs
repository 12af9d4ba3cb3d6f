//! Brings the schema up to date, however long the database takes to come, and whenever it has gone.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::oneshot,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    store::{Maintenance, StoreError},
    time::Backoff,
};

/// Shortest time between two looks for what calls that fail may lack.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often the same reason is told again.
const REPEAT: Duration = Duration::from_mins(1);

/// Migrates, and again when calls fail as they would without the schema.
pub struct Migration {
    store: Arc<dyn Maintenance>,
    migrated: CancellationToken,
    unfit: oneshot::Sender<StoreError>,
}

impl Migration {
    /// A migration of `store`, the token that is cancelled once it was done, and why it never can be.
    pub fn new(store: Arc<dyn Maintenance>) -> (Self, CancellationToken, oneshot::Receiver<StoreError>) {
        let (migrated, (unfit, why)) = (CancellationToken::new(), oneshot::channel());
        (Self { store, migrated: migrated.clone(), unfit }, migrated, why)
    }

    /// Works until told to stop. Whatever the database says, somebody may mend it; but where the first one that is
    /// found was made by an earlier version, that is told, and nothing more is tried.
    pub async fn run(self, stop: CancellationToken) {
        let Self { store, migrated, unfit } = self;
        let work = async {
            loop {
                if let Err(error) = migrate(&*store, &migrated).await {
                    // Who does not hear it is leaving.
                    drop(unfit.send(error));
                    return std::future::pending().await;
                }
                sleep(LOOK_EVERY).await;
                store.doubted().await;
            }
        };
        stop.run_until_cancelled(work).await;
    }
}

/// Tries until it is done. It may wait long for a lock that another replica holds.
async fn migrate(store: &dyn Maintenance, migrated: &CancellationToken) -> Result<(), StoreError> {
    let (mut backoff, mut told): (_, Option<(StoreError, Instant)>) = (Backoff::default(), None);
    while let Err(error) = store.migrate().await {
        if matches!(error, StoreError::EarlierVersion(_)) && !migrated.is_cancelled() {
            return Err(error);
        }
        let known = told.as_ref().is_some_and(|(last, at)| *last == error && at.elapsed() < REPEAT);
        if !known {
            warn!(%error, "the database can't be used as it must be; tried again until it can");
            told = Some((error, Instant::now()));
        }
        sleep(backoff.next_pause()).await;
    }
    if told.is_some() || !migrated.is_cancelled() {
        info!("the database is up to date");
    }
    migrated.cancel();
    Ok(())
}
