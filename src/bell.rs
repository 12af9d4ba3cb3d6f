//! Wakes the progress loop in time: at the earliest moment that anybody has asked for.

use std::{sync::Mutex, time::Duration};

use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

/// A bell that many may set and one waits for. A ring before the wait is not lost.
#[derive(Debug, Default)]
pub struct Bell {
    earliest: Mutex<Option<Instant>>,
    changed: Notify,
}

impl Bell {
    /// Asks for a ring after `wait`; an earlier request stays.
    pub fn ring_in(&self, wait: Duration) {
        let at = Instant::now() + wait;
        let mut earliest = self.earliest.lock().expect("no holder panics");
        if earliest.is_none_or(|asked| at < asked) {
            *earliest = Some(at);
            self.changed.notify_one();
        }
    }

    /// Waits for the earliest request, at most `limit`. Requests that have been served are forgotten.
    pub async fn wait(&self, limit: Duration) {
        let give_up = Instant::now() + limit;
        loop {
            let at = self.earliest().map_or(give_up, |asked| asked.min(give_up));
            tokio::select! {
                biased;
                () = sleep_until(at) => break,
                () = self.changed.notified() => {}
            }
        }
        let mut earliest = self.earliest.lock().expect("no holder panics");
        earliest.take_if(|asked| *asked <= Instant::now());
    }

    fn earliest(&self) -> Option<Instant> {
        *self.earliest.lock().expect("no holder panics")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn waited(bell: &Bell, limit: u64) -> u128 {
        let started = Instant::now();
        bell.wait(Duration::from_millis(limit)).await;
        started.elapsed().as_millis()
    }

    #[tokio::test(start_paused = true)]
    async fn the_earliest_request_rings_and_is_forgotten() {
        let bell = Bell::default();
        bell.ring_in(Duration::from_millis(300));
        bell.ring_in(Duration::from_millis(100));
        bell.ring_in(Duration::from_millis(200));
        assert_eq!(waited(&bell, 1_000).await, 100);
        assert_eq!(waited(&bell, 1_000).await, 1_000);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_during_the_wait_shortens_it() {
        let bell = Bell::default();
        let (took, ()) =
            tokio::join!(waited(&bell, 1_000), async { bell.ring_in(Duration::from_millis(50)) });
        assert_eq!(took, 50);
    }
}
