//! Wakes the scheduler in time: at the earliest moment that anybody has asked for.

use std::{sync::Mutex, time::Duration};

use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

/// An alarm that many may set and one waits for. One that goes off before the wait is not lost.
#[derive(Debug, Default)]
pub struct Alarm {
    earliest: Mutex<Option<Instant>>,
    changed: Notify,
}

impl Alarm {
    /// Asks to be woken after `wait`; an earlier request stays.
    pub fn wake_in(&self, wait: Duration) {
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

    async fn waited(alarm: &Alarm, limit: u64) -> u128 {
        let started = Instant::now();
        alarm.wait(Duration::from_millis(limit)).await;
        started.elapsed().as_millis()
    }

    #[tokio::test(start_paused = true)]
    async fn the_earliest_request_wakes_and_is_forgotten() {
        let alarm = Alarm::default();
        alarm.wake_in(Duration::from_millis(300));
        alarm.wake_in(Duration::from_millis(100));
        alarm.wake_in(Duration::from_millis(200));
        assert_eq!(waited(&alarm, 1_000).await, 100);
        assert_eq!(waited(&alarm, 1_000).await, 1_000);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_during_the_wait_shortens_it() {
        let alarm = Alarm::default();
        let (took, ()) =
            tokio::join!(waited(&alarm, 1_000), async { alarm.wake_in(Duration::from_millis(50)) });
        assert_eq!(took, 50);
    }
}
