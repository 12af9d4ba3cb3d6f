//! Makes due steps. A timer is a row (`due_at`), so it survives any crash; this loop only decides
//! when to look: at the next due time, when the bell rings, and at least every second for what
//! other replicas left behind. Steps that are due within a few milliseconds share a commit.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{Backoff, Outcome, StepError, pause};
use crate::{
    bell::Bell,
    health::Condition,
    live::Live,
    metrics::{Metrics, Step},
    store::{MOVED_AT_ONCE, Store},
};

/// Longest time between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Shortest time between two looks, unless more was due than one batch takes: a step may be as late as that.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Moves orders.
pub struct Progress {
    store: Arc<dyn Store>,
    bell: Arc<Bell>,
    live: Arc<Live>,
    metrics: Arc<Metrics>,
}

impl Progress {
    /// A loop that is woken by `bell` and tells `live` what it moved.
    pub fn new(store: Arc<dyn Store>, bell: Arc<Bell>, live: Arc<Live>, metrics: Arc<Metrics>) -> Self {
        Self { store, bell, live, metrics }
    }

    /// Works until told to stop; a step cut short is rolled back and due again.
    /// Says through `condition` whether steps can be made.
    pub async fn run(self, stop: CancellationToken, condition: watch::Sender<Condition>) {
        let work = async {
            let mut backoff = Backoff::default();
            loop {
                let looked = Instant::now();
                match self.step().await {
                    Ok(outcome) => {
                        backoff.reset();
                        condition.send_replace(Condition::Up);
                        if !matches!(outcome, Outcome::Worked(moves) if moves >= MOVED_AT_ONCE) {
                            sleep_until(looked + LOOK_AGAIN).await;
                            self.bell.wait(LOOK_EVERY).await;
                        }
                    }
                    Err(error) => {
                        condition.send_replace(Condition::Down(error.to_string()));
                        pause("the progress loop", &mut backoff, &error, &stop).await;
                    }
                }
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = work => {}
        }
    }

    /// Moves what is due now and sets the bell for what is due next.
    pub async fn step(&self) -> Result<Outcome, StepError> {
        let started = Instant::now();
        let advance = self.store.advance(MOVED_AT_ONCE).await?;
        if let Some(wait) = advance.next_due_in {
            self.bell.ring_in(wait);
        }
        if advance.moves.is_empty() {
            return Ok(Outcome::Idle);
        }
        self.live.moved(&advance.moves);
        self.metrics.step_done(Step::Advance, started.elapsed());
        self.metrics.moved(&advance.moves);
        Ok(Outcome::Worked(advance.moves.len()))
    }
}
