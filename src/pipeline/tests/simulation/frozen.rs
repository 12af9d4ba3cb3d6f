//! A process that stands still for a while and wakes without having noticed.

use std::{pin::pin, sync::Arc};

use tokio::sync::watch;

/// Stops and wakes all tasks of a replica.
#[derive(Clone)]
pub(super) struct Freezer(Arc<watch::Sender<bool>>);

impl Freezer {
    pub(super) fn new() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }

    pub(super) fn freeze(&self) {
        self.0.send_replace(true);
    }

    pub(super) fn thaw(&self) {
        self.0.send_replace(false);
    }

    /// Runs a task that does nothing while it is frozen, whatever its timers say.
    pub(super) fn run<T, F: Future<Output = T>>(&self, task: F) -> impl Future<Output = T> + use<F, T> {
        let freezer = self.clone();
        async move {
            let mut frozen = freezer.0.subscribe();
            let mut task = pin!(task);
            loop {
                tokio::select! {
                    biased;
                    still = frozen.wait_for(|frozen| *frozen) => drop(still.expect("its freezer lives")),
                    outcome = &mut task => return outcome,
                }
                drop(frozen.wait_for(|frozen| !*frozen).await.expect("its freezer lives"));
            }
        }
    }
}
