//! The service as a whole: `wiring` builds every part, here they run and are taken down in order.
//!
//! The shutdown is a chain of closing queues: no requests, so no place queue; no queue, so the batch writers end; no
//! writer, so the relay drains and ends.

mod addresses;
pub mod config;
pub(crate) mod logging;
mod shutdown;
mod supervisor;
mod wiring;

use std::{net::SocketAddr, sync::Arc};

use anyhow::{Context as _, bail};
use tokio::{sync::oneshot, time::timeout};
use tracing::info;

pub use shutdown::Shutdown;
use supervisor::Supervisor;

use crate::{
    app::config::{Config, KafkaConfig, StoreConfig},
    broker::{EmbeddedBroker, Kafka, KafkaPublisher},
    store::{Maintenance as _, PgSettings, PgStore, SqliteStore, Store, StoreError},
    time::SystemClock,
};

/// The service, started.
pub struct App {
    address: SocketAddr,
    brokers: String,
    store: Arc<dyn Store>,
    publisher: Arc<KafkaPublisher>,
    tasks: Supervisor,
    shutdown: Shutdown,
    /// Why the database can't ever be used as it is.
    unfit: oneshot::Receiver<StoreError>,
    /// Forgets its messages when it is dropped, so it goes last.
    _embedded: Option<EmbeddedBroker>,
}

/// The store that the settings name; not migrated yet.
pub async fn open_store(config: &Config) -> anyhow::Result<Arc<dyn Store>> {
    if let Some(dsn) = config.store.dsn()? {
        let max_connections = config.store.pg_max_connections;
        return Ok(Arc::new(PgStore::new(PgSettings { dsn, max_connections })));
    }
    let store = SqliteStore::open(&config.store.data_dir, Arc::new(SystemClock)).await?;
    Ok(Arc::new(store))
}

/// The same for reading only, beside the service that uses it.
pub(crate) async fn open_for_audit(config: &StoreConfig) -> anyhow::Result<Arc<dyn Store>> {
    if let Some(dsn) = config.dsn()? {
        let max_connections = PgSettings::MIN_CONNECTIONS;
        return Ok(Arc::new(PgStore::open_for_audit(PgSettings { dsn, max_connections }).await?));
    }
    Ok(Arc::new(SqliteStore::open_read_only(&config.data_dir, Arc::new(SystemClock)).await?))
}

/// The same for writing what is not there yet, beside a running service where the database allows that.
pub(crate) async fn open_for_repair(config: &StoreConfig) -> anyhow::Result<Arc<dyn Store>> {
    if !config.is_embedded() {
        return open_for_audit(config).await;
    }
    let store = SqliteStore::open_existing(&config.data_dir, Arc::new(SystemClock));
    let store =
        store.await.context("the embedded database is written to while the service is stopped only")?;
    Ok(Arc::new(store))
}

/// What a command about keys does where there is no database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IfMissing {
    /// It makes one.
    Create,
    /// It ends; nor does it change the schema of one that is there.
    Fail,
}

/// The same for the owner of the database who keeps its keys: beside a running service, and before the first start.
pub(crate) async fn open_for_keys(
    config: &StoreConfig,
    if_missing: IfMissing,
) -> anyhow::Result<Arc<dyn Store>> {
    if let Some(dsn) = config.dsn()? {
        if if_missing == IfMissing::Fail {
            return open_for_audit(config).await;
        }
        let max_connections = PgSettings::MIN_CONNECTIONS;
        let store = PgStore::new(PgSettings { dsn, max_connections });
        store.migrate().await.context("can't use the database")?;
        return Ok(Arc::new(store));
    }
    let clock = Arc::new(SystemClock);
    let store = match if_missing {
        IfMissing::Create => SqliteStore::open_beside(&config.data_dir, clock).await?,
        IfMissing::Fail => SqliteStore::open_existing_beside(&config.data_dir, clock).await?,
    };
    Ok(Arc::new(store))
}

/// The cluster that these settings are for, to read its topics or to requeue what lies on one.
pub(crate) fn open_kafka(config: &KafkaConfig, brokers: String) -> Arc<Kafka> {
    Arc::new(Kafka::new(config.settings(brokers, false), Arc::default()))
}

impl App {
    /// Where HTTP listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where the broker listens; `kcat -b` takes it.
    pub fn brokers(&self) -> &str {
        &self.brokers
    }

    /// Works until `stop` is ready or a part dies, then drains. An error means that a part died or
    /// that draining took too long.
    pub async fn run(mut self, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
        let died = tokio::select! {
            () = stop => None,
            Ok(error) = &mut self.unfit => return Err(error.into()),
            name = self.tasks.first_end() => Some(name),
        };
        info!("stopping");
        if died.is_none() {
            self.shutdown.announce().await;
        }
        let drained = self.shutdown.drain(&mut self.tasks).await;
        // Dropping the Kafka client waits for its threads, which have been seen to take for ever.
        let (store, publisher) = (self.store, self.publisher);
        let closing =
            async { tokio::join!(store.close(), tokio::task::spawn_blocking(move || drop(publisher))) };
        drop(timeout(self.shutdown.rest(), closing).await);
        if let Some(name) = died {
            bail!("the {name} ended by itself; the service can't go on without it");
        }
        drained?;
        info!("stopped");
        Ok(())
    }
}
