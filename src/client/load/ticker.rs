//! A steady rate: lets one request go whenever one is due.

use std::{
    thread,
    time::{Duration, Instant},
};

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// Longest wait before a stop is noticed.
const NAP: Duration = Duration::from_millis(50);

/// One ticket an interval, however many are taken.
#[derive(Debug)]
pub(super) struct Ticker {
    interval: Duration,
    started: Instant,
    tickets: Semaphore,
}

impl Ticker {
    pub(super) fn new(rate: f64, started: Instant) -> Self {
        let interval = Duration::from_secs_f64(1.0 / rate).max(Duration::from_nanos(1));
        Self { interval, started, tickets: Semaphore::new(0) }
    }

    /// How long after the start the n-th request is due.
    pub(super) fn due(&self, n: u64) -> Duration {
        let nanos = self.interval.as_nanos() * u128::from(n);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// How many are due in so long a time.
    pub(super) fn due_within(&self, time: Duration) -> u64 {
        u64::try_from(time.as_nanos().div_ceil(self.interval.as_nanos())).unwrap_or(u64::MAX)
    }

    /// Waits for a ticket.
    pub(super) async fn ticket(&self) {
        if let Ok(ticket) = self.tickets.acquire().await {
            ticket.forget();
        }
    }

    /// Hands out tickets, and at the end one more to each worker. Takes a thread of its own: the
    /// runtime's timer is a millisecond coarse, which would be half of a usual latency.
    pub(super) fn run(&self, count: u64, workers: usize, stop: &CancellationToken) {
        let mut handed = 0;
        while handed < count && !stop.is_cancelled() {
            let due = self.due_within(self.started.elapsed()).min(count);
            self.tickets.add_permits(usize::try_from(due - handed).unwrap_or_default());
            handed = due;
            let wait = self.due(handed).saturating_sub(self.started.elapsed());
            thread::park_timeout(wait.min(NAP));
        }
        self.tickets.add_permits(workers);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_due_at_even_distances_and_none_is_left_out() {
        let ticker = Ticker::new(250.0, Instant::now());
        assert_eq!((ticker.due(0), ticker.due(250)), (Duration::ZERO, Duration::from_secs(1)));
        assert_eq!(ticker.due_within(Duration::from_secs(2)), 500);
        assert_eq!(Ticker::new(0.5, Instant::now()).due_within(Duration::from_millis(1)), 1);
    }

    #[tokio::test]
    async fn everybody_gets_a_ticket_and_then_an_end() {
        let ticker = Ticker::new(100_000.0, Instant::now());
        ticker.run(10, 3, &CancellationToken::new());
        assert_eq!(ticker.tickets.available_permits(), 13);
    }
}
