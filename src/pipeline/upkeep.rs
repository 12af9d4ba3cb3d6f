//! Throws old idempotency keys away.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{Outcome, StepError, pause};
use crate::{
    store::{Maintenance, Portion, StoreError},
    time::Backoff,
};
use tokio::time::Instant;

/// Most keys thrown away in one go.
const SLICE: usize = 5_000;
/// How often old keys are looked for.
const EVERY: Duration = Duration::from_hours(1);
/// Between two slices: nobody should wait for the clean-up of a busy day.
const BREATH: Duration = Duration::from_millis(100);

/// Looks after what would grow for ever.
pub struct Upkeep {
    store: Arc<dyn Maintenance>,
    slice: Portion,
}

impl Upkeep {
    /// Looks after `store`.
    pub fn new(store: Arc<dyn Maintenance>) -> Self {
        Self { store, slice: Portion::new(SLICE) }
    }

    /// Works until told to stop.
    pub async fn run(self, stop: CancellationToken) {
        let work = async {
            let mut backoff = Backoff::default();
            loop {
                match self.step().await {
                    Ok(outcome) => {
                        backoff.reset();
                        sleep(if outcome == Outcome::Idle { EVERY } else { BREATH }).await;
                    }
                    Err(error) => pause("throwing old keys away", &mut backoff, &error).await,
                }
            }
        };
        stop.run_until_cancelled(work).await;
    }

    /// Throws a slice away; idle once nothing old is left.
    pub async fn step(&self) -> Result<Outcome, StepError> {
        let (started, size) = (Instant::now(), self.slice.size());
        let expired = self.store.expire_idempotency_keys(size).await.inspect_err(|error| {
            if matches!(error, StoreError::Timeout(_)) {
                self.slice.too_much(size);
            }
        });
        let expired = usize::try_from(expired?).unwrap_or(usize::MAX);
        self.slice.fits(expired, started.elapsed());
        Ok(if expired < size { Outcome::Idle } else { Outcome::Worked(expired) })
    }
}
