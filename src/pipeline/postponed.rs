//! Members of sets that could not go with the others: each waits longer after each failure.

use std::{collections::HashMap, time::Duration};

use tokio::time::Instant;

use crate::order::OrderId;

/// The first pause; each failure doubles it.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_mins(5);
/// Most that are remembered; beyond, the one that waits longest is forgotten and fails anew.
const MOST: usize = 2_000;

/// One that is put off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Postponed {
    /// Which order.
    pub order_id: OrderId,
    /// Why it failed last.
    pub reason: String,
    /// How often it has failed.
    pub failures: u32,
    /// When it is tried again.
    pub again_at: Instant,
}

/// Those that are put off.
#[derive(Debug, Default)]
pub(super) struct Postponements(HashMap<OrderId, Postponed>);

impl Postponements {
    /// Puts one off, longer than the last time; answers for how long.
    pub(super) fn add(&mut self, order_id: OrderId, reason: String) -> Duration {
        let failures = self.0.get(&order_id).map_or(0, |known| known.failures) + 1;
        let pause = FIRST_PAUSE.saturating_mul(1 << (failures - 1).min(20)).min(LONGEST_PAUSE);
        if self.0.len() >= MOST
            && let Some(latest) =
                self.0.values().max_by_key(|known| known.again_at).map(|known| known.order_id)
        {
            self.0.remove(&latest);
        }
        let again_at = Instant::now() + pause;
        self.0.insert(order_id, Postponed { order_id, reason, failures, again_at });
        pause
    }

    /// Forgets one that has gone after all.
    pub(super) fn remove(&mut self, order_id: OrderId) {
        self.0.remove(&order_id);
    }

    /// Puts one off as long as at first, without counting that as a failure; answers whether it was put off.
    pub(super) fn wait(&mut self, order_id: OrderId) -> bool {
        let known = self.0.get_mut(&order_id);
        known.map(|known| known.again_at = Instant::now() + FIRST_PAUSE).is_some()
    }

    /// Whether this one is put off.
    pub(super) fn knows(&self, order_id: OrderId) -> bool {
        self.0.contains_key(&order_id)
    }

    /// Whether nothing is put off.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All that are put off, in no order.
    pub(super) fn ids(&self) -> Vec<OrderId> {
        self.0.keys().copied().collect()
    }

    /// Up to `most` that may be tried again now.
    pub(super) fn due(&self, most: usize) -> Vec<OrderId> {
        let now = Instant::now();
        let due = self.0.values().filter(|known| known.again_at <= now);
        due.take(most).map(|known| known.order_id).collect()
    }

    /// All that are put off, the one that failed most often first.
    pub(super) fn list(&self) -> Vec<Postponed> {
        let mut list: Vec<Postponed> = self.0.values().cloned().collect();
        list.sort_by_key(|known| (std::cmp::Reverse(known.failures), known.order_id));
        list
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;
    use crate::order::IdMint;

    #[tokio::test(start_paused = true)]
    async fn pauses_double_to_a_cap_and_end_when_it_goes() {
        let (mut postponed, id) = (Postponements::default(), IdMint::default().mint(1, 7));
        let pauses: Vec<u64> = (0..12).map(|_| postponed.add(id, "no".to_owned()).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]);
        assert_eq!((postponed.due(9), postponed.ids()), (vec![], vec![id]));
        advance(LONGEST_PAUSE).await;
        assert_eq!(postponed.due(9), [id]);
        assert!(postponed.wait(id) && postponed.due(9).is_empty());
        postponed.remove(id);
        assert!(postponed.is_empty());
        assert_eq!(postponed.add(id, "no".to_owned()), FIRST_PAUSE);
    }

    #[tokio::test(start_paused = true)]
    async fn memory_is_bounded() {
        let (mut postponed, mut mint) = (Postponements::default(), IdMint::default());
        for n in 0..MOST + 10 {
            postponed.add(mint.mint(n as u64, 7), "no".to_owned());
        }
        assert_eq!(postponed.ids().len(), MOST);
    }
}
