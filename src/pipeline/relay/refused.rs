//! Orders that the broker refuses step aside, each longer after each refusal; all others go on. Only what is
//! nobody's own fault makes all of them wait.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;
use tracing::warn;

use crate::{
    broker::{Blame, Refusal},
    order::OrderId,
    telemetry::health::{Issue, IssueKind},
    time::Backoff,
};

/// How long an order waits after its first refusal; each further one doubles it.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest that it waits.
const LONGEST_PAUSE: Duration = Duration::from_mins(5);
/// Most that are remembered; beyond, the oldest order is forgotten and refused anew.
const MOST: usize = 10_000;
/// One that was not tried for so long after its pause is not there any more.
const GONE_AFTER: Duration = Duration::from_secs(10);
/// How many are named in a minute.
const NAMED: u32 = 10;
const MINUTE: Duration = Duration::from_mins(1);

/// What the broker refuses.
#[derive(Debug, Default)]
pub(super) struct Refused {
    orders: BTreeMap<OrderId, Waiting>,
    /// The last one and why.
    last: Option<(OrderId, String)>,
    named: Option<Named>,
    /// Why no order can go, until one does.
    all: Option<String>,
    all_until: Option<Instant>,
    backoff: Backoff,
}

#[derive(Debug)]
struct Waiting {
    refusals: u32,
    until: Instant,
}

/// How much was said lately.
#[derive(Debug)]
struct Named {
    since: Instant,
    lines: u32,
    left_out: u64,
}

impl Refused {
    /// An order was refused.
    pub(super) fn add(&mut self, order_id: OrderId, refusal: &Refusal) {
        match refusal.blame {
            Blame::Everything => self.hold(refusal),
            // Asked for again soon: it passes with the partition's trouble.
            Blame::Partition => self.put_off(order_id, &refusal.reason, 1),
            Blame::Message => {
                let refusals = self.orders.get(&order_id).map_or(0, |known| known.refusals) + 1;
                self.put_off(order_id, &refusal.reason, refusals);
            }
        }
    }

    fn hold(&mut self, refusal: &Refusal) {
        let now = Instant::now();
        // Those that were under way when the first was refused are the same trouble.
        if self.all_until.is_none_or(|until| until <= now) {
            self.all_until = Some(now + self.backoff.next_pause());
        }
        if self.all.replace(refusal.reason.clone()).is_none() {
            warn!("no order can be published, all wait in the outbox: {refusal}");
        }
    }

    fn put_off(&mut self, order_id: OrderId, reason: &str, refusals: u32) {
        let pause = FIRST_PAUSE.saturating_mul(1 << (refusals - 1).min(20)).min(LONGEST_PAUSE);
        let waiting = Waiting { refusals, until: Instant::now() + pause };
        if self.orders.insert(order_id, waiting).is_none() {
            self.name(order_id, reason);
        }
        if self.orders.len() > MOST {
            self.orders.pop_first();
        }
        self.last = Some((order_id, reason.to_owned()));
    }

    fn name(&mut self, order_id: OrderId, reason: &str) {
        let now = Instant::now();
        let fresh = Named { since: now, lines: 0, left_out: 0 };
        let named = self.named.get_or_insert(fresh);
        if now - named.since > MINUTE {
            if named.left_out > 0 {
                warn!("{} more orders were refused", named.left_out);
            }
            *named = Named { since: now, lines: 0, left_out: 0 };
        }
        if named.lines < NAMED {
            named.lines += 1;
            warn!(%order_id, reason, "an order is refused and stays in the outbox; it is tried again now and then");
        } else {
            named.left_out += 1;
        }
    }

    /// An order was acknowledged.
    pub(super) fn went(&mut self, order_id: OrderId) {
        if !self.orders.is_empty() {
            self.orders.remove(&order_id);
        }
        if self.all.take().is_some() {
            tracing::info!("orders are published again");
        }
        self.all_until = None;
        self.backoff.reset();
    }

    /// Whether an order waits for its next try.
    pub(super) fn waits(&self, order_id: OrderId, now: Instant) -> bool {
        self.orders.get(&order_id).is_some_and(|waiting| waiting.until > now)
    }

    /// Until when no order goes.
    pub(super) fn all_until(&self) -> Option<Instant> {
        self.all_until.filter(|until| *until > Instant::now())
    }

    /// Whether the last that was heard is that no order can go: one is enough to ask again.
    pub(super) fn asks(&self) -> bool {
        self.all.is_some()
    }

    /// All rows were seen since then: those that were to be tried long before are not there any more.
    pub(super) fn forget_gone(&mut self, since: Instant) {
        self.orders.retain(|_, waiting| waiting.until + GONE_AFTER > since);
    }

    /// Why no order can go.
    pub(super) fn all(&self) -> Option<&str> {
        self.all.as_deref()
    }

    /// How many are refused, in words; nothing if none is.
    pub(super) fn trouble(&self) -> Option<Issue> {
        let (order_id, reason) = self.last.as_ref()?;
        match self.orders.len() {
            0 => None,
            1 => {
                let text = format!("the broker refuses {order_id}: {reason}");
                Some(Issue::about(IssueKind::Refused, *order_id, text))
            }
            count => {
                let text = format!("the broker refuses {count} orders, {order_id} is the last: {reason}");
                Some(Issue { others: true, ..Issue::about(IssueKind::Refused, *order_id, text) })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;
    use crate::order::IdMint;

    fn refusal(blame: Blame) -> Refusal {
        Refusal { blame, reason: "no".to_owned() }
    }

    fn pause(refused: &Refused, id: OrderId) -> u64 {
        (refused.orders[&id].until - Instant::now()).as_secs()
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_waits_longer_each_time_and_a_partition_does_not() {
        let (mut refused, mut mint) = (Refused::default(), IdMint::default());
        let [message, partition] = [mint.mint(1, 7), mint.mint(2, 7)];
        let pauses: Vec<u64> = (0..11)
            .map(|_| {
                refused.add(message, &refusal(Blame::Message));
                refused.add(partition, &refusal(Blame::Partition));
                assert_eq!(pause(&refused, partition), 1);
                pause(&refused, message)
            })
            .collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        assert!(refused.waits(message, Instant::now()) && refused.all().is_none());
        advance(LONGEST_PAUSE).await;
        assert!(!refused.waits(message, Instant::now()));
        refused.went(message);
        refused.went(partition);
        assert_eq!(refused.trouble(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_nobodys_fault_makes_all_wait_and_one_asks_again() {
        let (mut refused, mut mint) = (Refused::default(), IdMint::default());
        for n in 0..100 {
            refused.add(mint.mint(n, 7), &refusal(Blame::Everything));
        }
        assert_eq!(refused.all_until(), Some(Instant::now() + Duration::from_millis(100)), "one trouble");
        assert!(refused.orders.is_empty() && refused.asks());
        advance(Duration::from_millis(100)).await;
        assert_eq!(refused.all_until(), None);
        refused.add(mint.mint(1, 7), &refusal(Blame::Everything));
        assert_eq!(refused.all_until(), Some(Instant::now() + Duration::from_millis(250)));
        refused.went(mint.mint(1, 7));
        assert!(refused.all_until().is_none() && !refused.asks());
    }

    #[tokio::test(start_paused = true)]
    async fn memory_is_bounded() {
        let (mut refused, mut mint) = (Refused::default(), IdMint::default());
        let ids: Vec<OrderId> = (0..MOST as u64 + 5).map(|n| mint.mint(n, 7)).collect();
        for id in &ids {
            refused.add(*id, &refusal(Blame::Message));
        }
        assert_eq!(refused.orders.len(), MOST);
        assert!(!refused.waits(ids[0], Instant::now()), "the oldest is forgotten");
        advance(Duration::from_secs(30)).await;
        refused.forget_gone(Instant::now());
        assert_eq!(refused.trouble(), None);
    }
}
