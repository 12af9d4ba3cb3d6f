//! Pauses between tries: growing and capped.

use std::time::Duration;

use crate::order::promises::OVERDUE_AFTER;

/// The cap is how late a loop may be after the trouble is over.
const SCHEDULE_MS: [u64; 4] = [100, 250, 500, 1_000];
const _: () =
    assert!((SCHEDULE_MS[3] as u128) < OVERDUE_AFTER.as_millis(), "a loop is back before a step is overdue");

/// Where a loop stands in its pauses.
#[derive(Debug, Default)]
pub struct Backoff {
    failures: usize,
}

impl Backoff {
    /// The next pause; the last of the schedule from then on.
    pub fn next_pause(&mut self) -> Duration {
        let millis = SCHEDULE_MS[self.failures.min(SCHEDULE_MS.len() - 1)];
        self.failures += 1;
        Duration::from_millis(millis)
    }

    /// Begins anew after a success.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_cap_and_begin_anew() {
        let mut backoff = Backoff::default();
        for limit in SCHEDULE_MS.into_iter().chain([1_000, 1_000]) {
            assert_eq!(backoff.next_pause(), Duration::from_millis(limit));
        }
        backoff.reset();
        assert_eq!(backoff.next_pause(), Duration::from_millis(100));
    }
}
