//! How old a figure is that somebody tells from time to time.

use std::{
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use tokio::time::Instant;

/// A figure, or several that are told together.
pub(super) struct Fresh {
    within: Duration,
    told_at: Mutex<Option<Instant>>,
}

impl Fresh {
    /// A figure that says nothing of now when it is older than `within`.
    pub(super) fn within(seconds: u64) -> Self {
        Self { within: Duration::from_secs(seconds), told_at: Mutex::default() }
    }

    fn told_at(&self) -> MutexGuard<'_, Option<Instant>> {
        self.told_at.lock().expect("no holder panics")
    }

    /// It is told, or told to be unknown.
    pub(super) fn told(&self, known: bool) {
        *self.told_at() = known.then(Instant::now);
    }

    /// Whether it was known once and has not been told for too long.
    pub(super) fn is_old(&self) -> bool {
        self.told_at().is_some_and(|at| at.elapsed() > self.within)
    }
}
