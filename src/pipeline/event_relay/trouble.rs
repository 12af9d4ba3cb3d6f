//! What holds events up: said once a series in the log, and as long as it lasts in the part's health.

use std::sync::{Mutex, MutexGuard};

use tokio::sync::watch;
use tracing::{info, warn};

use crate::telemetry::health::Health;

/// What may be in trouble, each for itself: one that works ends nobody else's series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Matter {
    /// Taking the place, and keeping it.
    Place,
    /// Reading what is to be written.
    Reading,
    /// Writing it.
    Topic,
}

/// All trouble that there is.
pub(super) struct Trouble {
    health: watch::Sender<Health>,
    now: Mutex<[Option<Health>; 3]>,
}

impl Trouble {
    pub(super) fn new(health: watch::Sender<Health>) -> Self {
        Self { health, now: Mutex::default() }
    }

    fn now(&self) -> MutexGuard<'_, [Option<Health>; 3]> {
        self.now.lock().expect("no holder panics")
    }

    /// There is trouble, and how it shows.
    pub(super) fn is(&self, matter: Matter, health: Health) {
        let mut now = self.now();
        if now[matter as usize].is_none() {
            warn!(reason = health.reason(), "events wait for their topic");
        }
        now[matter as usize] = Some(health);
        self.tell(&now);
    }

    /// There is none, or none any more.
    pub(super) fn is_over(&self, matter: Matter) {
        let mut now = self.now();
        if now[matter as usize].take().is_some() {
            info!("events go on to their topic");
        }
        self.tell(&now);
    }

    pub(super) fn is_there(&self, matter: Matter) -> bool {
        self.now()[matter as usize].is_some()
    }

    fn tell(&self, now: &[Option<Health>; 3]) {
        let health = now.iter().flatten().next().cloned().unwrap_or(Health::Up);
        self.health.send_if_modified(|told| {
            let changed = *told != health;
            *told = health;
            changed
        });
    }
}
