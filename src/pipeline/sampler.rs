//! Sets the gauges of what waits.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{Outcome, StepError, pause};
use crate::{ops::overview::Overview, telemetry::metrics::Metrics, time::Backoff};

/// How old a gauge may be.
const EVERY: Duration = Duration::from_secs(5);

/// Looks at the overview from time to time.
pub struct Sampler {
    overview: Arc<Overview>,
    metrics: Arc<Metrics>,
}

impl Sampler {
    /// A sampler of what `overview` reads.
    pub fn new(overview: Arc<Overview>, metrics: Arc<Metrics>) -> Self {
        Self { overview, metrics }
    }

    /// Works until told to stop.
    pub async fn run(self, stop: CancellationToken) {
        let work = async {
            let mut backoff = Backoff::default();
            loop {
                match self.step().await {
                    Ok(_) => {
                        backoff.reset();
                        sleep(EVERY).await;
                    }
                    Err(error) => pause("the sampler", &mut backoff, &error).await,
                }
            }
        };
        stop.run_until_cancelled(work).await;
    }

    /// Sets the gauges; what could not be read is said to be unknown.
    pub async fn step(&self) -> Result<Outcome, StepError> {
        let reading = self.overview.read().await;
        self.metrics.backlog(reading.backlog.as_ref().ok());
        self.metrics.overdue(reading.overdue.as_ref().ok());
        self.metrics.in_progress(reading.counts.as_ref().ok().map(|counts| &counts.orders));
        reading.first_error().map_or(Ok(Outcome::Idle), |error| Err(error.clone().into()))
    }
}
