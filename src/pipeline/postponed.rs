//! Members of sets that could not go with the others: each waits longer after each failure.

use std::{cmp::Reverse, collections::HashMap, time::Duration};

use tokio::time::Instant;

use crate::order::OrderId;

/// The first pause; each failure doubles it.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_mins(5);
/// Most that are remembered; whatever fails beyond is met again where it was met first.
pub(super) const MOST: usize = 2_000;
/// How many are named in the log within a minute; then one line says how many more there were.
const NAMED: usize = 20;
const MINUTE: Duration = Duration::from_mins(1);

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
pub(super) struct Postponements {
    known: HashMap<OrderId, Postponed>,
    named: Named,
}

/// What was said since a moment.
#[derive(Debug, Default)]
struct Named {
    since: Option<Instant>,
    lines: usize,
    left_out: usize,
}

impl Postponements {
    /// Puts one off, longer than the last time. Answers for how long if that is to be said: once of each, and
    /// of few within a minute.
    pub(super) fn add(&mut self, order_id: OrderId, reason: String) -> Option<Duration> {
        let known = self.known.get(&order_id).map(|known| known.failures);
        let failures = known.unwrap_or_default() + 1;
        let pause = FIRST_PAUSE.saturating_mul(1 << (failures - 1).min(20)).min(LONGEST_PAUSE);
        if known.is_some() || self.known.len() < MOST {
            let again_at = Instant::now() + pause;
            self.known.insert(order_id, Postponed { order_id, reason, failures, again_at });
        }
        (known.is_none() && self.named.one_more()).then_some(pause)
    }

    /// How many were put off and not named, once the minute is over.
    pub(super) fn left_out(&mut self) -> Option<usize> {
        self.named.left_out()
    }

    /// Forgets one that has gone after all.
    pub(super) fn remove(&mut self, order_id: OrderId) {
        self.known.remove(&order_id);
    }

    /// Puts one off as long as at first, without counting that as a failure; answers whether it was put off.
    pub(super) fn put_off_again(&mut self, order_id: OrderId) -> bool {
        let known = self.known.get_mut(&order_id);
        known.map(|known| known.again_at = Instant::now() + FIRST_PAUSE).is_some()
    }

    /// Whether this one is put off.
    pub(super) fn knows(&self, order_id: OrderId) -> bool {
        self.known.contains_key(&order_id)
    }

    /// How many are put off.
    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether nothing is put off.
    pub(super) fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// All that are put off, in no order.
    pub(super) fn ids(&self) -> Vec<OrderId> {
        self.known.keys().copied().collect()
    }

    /// Up to `most` that may be tried again now, those first that could have been tried first.
    pub(super) fn due(&self, most: usize) -> Vec<OrderId> {
        let now = Instant::now();
        let due = self.known.values().filter(|known| known.again_at <= now);
        least(due.collect(), most, |known| (known.again_at, known.order_id))
            .into_iter()
            .map(|known| known.order_id)
            .collect()
    }

    /// Up to `most` of those that failed most often.
    pub(super) fn worst(&self, most: usize) -> Vec<&Postponed> {
        least(self.known.values().collect(), most, |known| (Reverse(known.failures), known.order_id))
    }
}

/// The `most` with the least keys, in their order; the others are not sorted.
fn least<K: Ord>(mut all: Vec<&Postponed>, most: usize, key: impl Fn(&Postponed) -> K) -> Vec<&Postponed> {
    if most < all.len() {
        all.select_nth_unstable_by_key(most, |one| key(one));
        all.truncate(most);
    }
    all.sort_unstable_by_key(|one| key(one));
    all
}

impl Named {
    /// Whether one more may be named.
    fn one_more(&mut self) -> bool {
        let since = *self.since.get_or_insert_with(Instant::now);
        if since.elapsed() > MINUTE && self.left_out == 0 {
            *self = Self { since: Some(Instant::now()), ..Self::default() };
        }
        let may = self.lines < NAMED;
        if may {
            self.lines += 1;
        } else {
            self.left_out += 1;
        }
        may
    }

    fn left_out(&mut self) -> Option<usize> {
        let over = self.left_out > 0 && self.since.is_some_and(|since| since.elapsed() > MINUTE);
        over.then(|| std::mem::take(self).left_out)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;
    use crate::order::IdMint;

    fn ids(count: usize) -> Vec<OrderId> {
        let mut mint = IdMint::default();
        (0..count as u64).map(|n| mint.mint(n, 7)).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_double_to_a_cap_and_end_when_it_goes() {
        let (mut postponed, id) = (Postponements::default(), ids(1)[0]);
        let pauses: Vec<u64> = (0..12)
            .map(|_| {
                postponed.add(id, "no".to_owned());
                (postponed.worst(1)[0].again_at - Instant::now()).as_secs()
            })
            .collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]);
        assert_eq!((postponed.due(9), postponed.ids()), (vec![], vec![id]));
        advance(LONGEST_PAUSE).await;
        assert_eq!(postponed.due(9), [id]);
        assert!(postponed.put_off_again(id) && postponed.due(9).is_empty());
        postponed.remove(id);
        assert!(postponed.is_empty());
        assert_eq!(postponed.add(id, "no".to_owned()), Some(FIRST_PAUSE));
    }

    #[tokio::test(start_paused = true)]
    async fn memory_is_bounded_and_nobody_is_forgotten_for_another() {
        let (mut postponed, ids) = (Postponements::default(), ids(MOST + 10));
        for id in &ids {
            postponed.add(*id, "no".to_owned());
        }
        assert_eq!(postponed.len(), MOST);
        assert!(ids[..MOST].iter().all(|id| postponed.knows(*id)));
    }

    #[tokio::test(start_paused = true)]
    async fn those_that_wait_longest_are_tried_first() {
        let (mut postponed, ids) = (Postponements::default(), ids(50));
        for id in ids.iter().rev() {
            postponed.add(*id, "no".to_owned());
            advance(Duration::from_millis(1)).await;
        }
        postponed.add(ids[7], "no".to_owned());
        assert_eq!(postponed.worst(1)[0].order_id, ids[7]);
        advance(FIRST_PAUSE).await;
        assert_eq!(postponed.due(2), [ids[49], ids[48]]);
    }

    #[tokio::test(start_paused = true)]
    async fn few_are_named_and_each_once() {
        let (mut postponed, ids) = (Postponements::default(), ids(MOST + 500));
        let mut said = |ids: &[OrderId]| {
            let lines = ids.iter().filter(|id| postponed.add(**id, "no".to_owned()).is_some()).count();
            (lines, postponed.left_out())
        };
        assert_eq!(said(&ids[..1]), (1, None));
        assert_eq!(said(&ids[..1]), (0, None), "it has been named");
        assert_eq!(said(&ids[1..]), (NAMED - 1, None));
        advance(MINUTE + FIRST_PAUSE).await;
        assert_eq!(said(&[]), (0, Some(MOST + 500 - NAMED)));
        assert_eq!(said(&ids[MOST..]), (NAMED, None), "a minute later they are news again");
    }
}
