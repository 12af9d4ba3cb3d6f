//! Measures what waits, for the gauges, and throws old idempotency keys away.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::{Backoff, Outcome, StepError, pause};
use crate::{metrics::Metrics, store::Store};

/// How old a gauge may be.
const EVERY: Duration = Duration::from_secs(2);
/// Most keys thrown away in one go.
const SLICE: usize = 5_000;
/// How often old keys are looked for.
const EXPIRE_EVERY: Duration = Duration::from_hours(1);

/// Looks at the store from time to time.
pub struct Survey {
    store: Arc<dyn Store>,
    metrics: Arc<Metrics>,
    expire_at: Instant,
}

impl Survey {
    /// A survey of `store`.
    pub fn new(store: Arc<dyn Store>, metrics: Arc<Metrics>) -> Self {
        Self { store, metrics, expire_at: Instant::now() }
    }

    /// Works until told to stop.
    pub async fn run(mut self, stop: CancellationToken) {
        let work = async {
            let mut backoff = Backoff::default();
            loop {
                match self.step().await {
                    Ok(_) => {
                        backoff.reset();
                        sleep(EVERY).await;
                    }
                    Err(error) => pause("the survey", &mut backoff, &error, &stop).await,
                }
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = work => {}
        }
    }

    /// Sets the gauges; once an hour expires keys.
    pub async fn step(&mut self) -> Result<Outcome, StepError> {
        self.metrics.backlog(&self.store.backlog().await?);
        if Instant::now() >= self.expire_at {
            // In slices: nobody should wait for the clean-up of a busy day.
            let expired = self.store.expire_keys(SLICE).await?;
            if expired < SLICE as u64 {
                self.expire_at = Instant::now() + EXPIRE_EVERY;
            }
        }
        Ok(Outcome::Idle)
    }
}
