//! The one place that asks the machine for the time. Everybody else is handed a [`Clock`], so that
//! tests move time by hand; `clippy.toml` forbids the other ways.

use std::{sync::Mutex, time::Duration};

use chrono::Utc;

use crate::order::{Timestamp, to_millis};

/// Tells the time, in whole milliseconds.
pub trait Clock: Send + Sync + 'static {
    /// Now.
    fn now(&self) -> Timestamp;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that may")]
    fn now(&self) -> Timestamp {
        to_millis(Utc::now())
    }
}

/// A clock that stands still until it is moved.
#[derive(Debug)]
pub struct ManualClock(Mutex<Timestamp>);

impl ManualClock {
    /// A clock that stands at `at`.
    pub fn new(at: Timestamp) -> Self {
        Self(Mutex::new(to_millis(at)))
    }

    /// Moves the clock forward.
    pub fn advance(&self, by: Duration) {
        *self.0.lock().expect("no holder panics") += by;
    }

    /// Sets the clock, backward too.
    pub fn set(&self, at: Timestamp) {
        *self.0.lock().expect("no holder panics") = to_millis(at);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        *self.0.lock().expect("no holder panics")
    }
}

/// Tells the runtime's time, which tests let run by itself.
#[cfg(test)]
pub(crate) struct VirtualClock {
    begun: tokio::time::Instant,
    at: Timestamp,
}

#[cfg(test)]
impl VirtualClock {
    /// A clock that stands at `at` now.
    pub(crate) fn new(at: Timestamp) -> Self {
        Self { begun: tokio::time::Instant::now(), at }
    }
}

#[cfg(test)]
impl Clock for VirtualClock {
    fn now(&self) -> Timestamp {
        to_millis(self.at + self.begun.elapsed())
    }
}
