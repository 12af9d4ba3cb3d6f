//! Sets the gauges of what waits.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{Outcome, StepError, pause};
use crate::{
    ops::overview::Overview, order::LateOrders, store::Counts, telemetry::metrics::Metrics, time::Backoff,
};

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
        self.metrics.orders_late(reading.late.as_ref().ok().and_then(LateOrders::known));
        self.metrics.in_progress(reading.counts.as_ref().ok().and_then(Counts::known));
        reading.first_error().map_or(Ok(Outcome::Idle), |error| Err(error.clone().into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        store::{conformance::start, flaky::Flaky, memory::MemoryStore},
        time::ManualClock,
    };

    /// Promise 6: it says what is wrong. A count of a part is no figure of the whole.
    #[tokio::test]
    async fn what_was_counted_in_part_is_not_known() {
        let clock = Arc::new(ManualClock::new(start()));
        let memory = MemoryStore::new(Arc::default(), clock, 1);
        let store = Arc::new(Flaky::new(Arc::new(memory)));
        let metrics = Arc::new(Metrics::new());
        let told = async || {
            let sampler = Sampler::new(Overview::new(store.clone()), Arc::clone(&metrics));
            sampler.step().await.expect("reads");
            let text = String::from_utf8(metrics.render().expect("renders")).expect("text");
            let line = text.lines().find(|line| line.starts_with("orders_in_progress{status=\"PLACED\"}"));
            line.and_then(|line| line.split(' ').nth(1)).expect("a gauge").to_owned()
        };
        assert_eq!(told().await, "0");
        *store.since.lock().expect("no panic") = Some(start());
        assert_eq!(told().await, "NaN");
    }
}
