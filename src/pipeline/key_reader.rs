//! Keeps the keys that are good in memory, and notes when they were last used.

use std::{collections::HashSet, sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    keys::{KeyId, KeyRing, KeyUse},
    store::{KeyStore, StoreError},
    telemetry::{
        health::{Health, Issues},
        metrics::Metrics,
    },
    time::Backoff,
};

/// How often they are read: one that is revoked is out within twice that, and a call that takes its time.
const EVERY: Duration = Duration::from_secs(2);

/// Reads what is good; requests ask the ring alone.
pub struct KeyReader {
    store: Arc<dyn KeyStore>,
    ring: Arc<KeyRing>,
    metrics: Arc<Metrics>,
    /// Whether the last reading, and the last noting, failed: a series of failures is told once.
    unread: bool,
    unnoted: bool,
}

impl KeyReader {
    /// Keeps `ring` as `store` has it.
    pub fn new(store: Arc<dyn KeyStore>, ring: Arc<KeyRing>, metrics: Arc<Metrics>) -> Self {
        Self { store, ring, metrics, unread: false, unnoted: false }
    }

    /// Works until told to stop. Says through `health` whether what is known is fresh.
    pub async fn run(mut self, stop: CancellationToken, health: watch::Sender<Health>) {
        let work = async {
            let mut backoff = Backoff::default();
            loop {
                let began = Instant::now();
                let now = self.step().await;
                self.metrics.keys_up(Some(now == Health::Up));
                let fresh = !matches!(now, Health::Down(_));
                health.send_if_modified(|before| {
                    let changed = *before != now;
                    *before = now;
                    changed
                });
                if fresh {
                    backoff.reset();
                    sleep_until(began + EVERY).await;
                } else {
                    sleep(backoff.next_pause()).await;
                }
            }
        };
        if stop.run_until_cancelled(work).await.is_none() {
            // What came since the last look; if that fails, a minute is missing.
            drop(self.note().await);
        }
    }

    /// Reads once, and notes once; answers how that went.
    pub async fn step(&mut self) -> Health {
        match self.store.live_keys().await {
            Ok(keys) => {
                self.ring.replace(keys);
                if std::mem::take(&mut self.unread) {
                    info!("the keys are read again");
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut self.unread, true) {
                    warn!(%error, "the keys can't be read; those that are known stay as they are");
                }
                return Health::Down(format!("can't be read: {error}"));
            }
        }
        match self.note().await {
            Ok(()) => {
                self.unnoted = false;
                Health::Up
            }
            Err(error) => {
                if !std::mem::replace(&mut self.unnoted, true) {
                    warn!(%error, "when keys were last used can't be noted");
                }
                Health::Degraded(Issues::from(format!("their last use can't be noted: {error}")))
            }
        }
    }

    /// A minute is noted once for each key; one whose row somebody holds is told again.
    async fn note(&self) -> Result<(), StoreError> {
        let uses = self.ring.uses();
        if uses.is_empty() {
            return Ok(());
        }
        let held: HashSet<KeyId> = self.store.note_uses(&uses).await?.into_iter().collect();
        let noted: Vec<KeyUse> = uses.into_iter().filter(|used| !held.contains(&used.id)).collect();
        self.ring.noted(&noted);
        Ok(())
    }
}
