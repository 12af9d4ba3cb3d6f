//! Orders that a broker has lost are put into the outbox again; a running service publishes them.

use chrono::TimeDelta;
use serde::Serialize;

use crate::{
    order::{OrderId, Timestamp},
    store::{AuditPage, OutboxStore, Pages, Patience, Portion, Republished, Store, StoreError, in_portions},
};

/// Most orders in one write, and in one reading.
const AT_ONCE: usize = 1_000;
/// An order's id is made before the order is stored, by another clock: so far apart the two may be.
const APART: TimeDelta = TimeDelta::minutes(10);

/// Which orders are meant.
#[derive(Debug, Clone, Copy)]
pub struct Between {
    /// Created at this moment or later.
    pub since: Timestamp,
    /// Created before this moment.
    pub until: Timestamp,
    /// With greater ids than this one.
    pub after: Option<OrderId>,
}

/// What was done.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct Republication {
    /// Orders that wait to be published again.
    pub queued: u64,
    /// Orders that waited to be published already.
    pub waiting: u64,
    /// Ids of no order.
    pub unknown: Vec<OrderId>,
    /// Ids of orders that can't be read, so nobody knows whether they are meant.
    pub unreadable: Vec<String>,
    /// Orders that the database refused to queue.
    pub refused: Vec<OrderId>,
    /// Where to go on with `--after`, if the end was not reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<OrderId>,
}

impl Republication {
    fn add(&mut self, order_id: OrderId, what: Republished) {
        match what {
            Republished::Queued => self.queued += 1,
            Republished::Waiting => self.waiting += 1,
            Republished::Unknown => self.unknown.push(order_id),
        }
    }

    /// Puts these orders into the outbox again.
    pub async fn these(&mut self, store: &dyn OutboxStore, order_ids: &[OrderId]) -> Result<(), StoreError> {
        let (portion, mut patience, mut rest) =
            (Portion::new(AT_ONCE), Patience::default(), order_ids.to_vec());
        loop {
            let answers = in_portions(&portion, rest.len(), |part| store.republish(&rest[part])).await;
            let (mut again, mut failure) = (Vec::new(), None);
            for (order_id, answer) in rest.iter().zip(answers) {
                match answer {
                    Ok(what) => self.add(*order_id, what),
                    Err(error) if error.is_transient() => {
                        again.push(*order_id);
                        failure = Some(error);
                    }
                    Err(_) => self.refused.push(*order_id),
                }
            }
            let Some(error) = failure else { return Ok(()) };
            if !patience.wait().await {
                return Err(error);
            }
            rest = again;
        }
    }

    /// Found by their ids, which rise with time; which of them are meant, the order itself tells.
    pub async fn all_between(
        &mut self,
        store: &dyn Store,
        Between { since, until, after }: Between,
    ) -> Result<(), StoreError> {
        let first = OrderId::first_of(since.checked_sub_signed(APART).unwrap_or(Timestamp::UNIX_EPOCH));
        // Without an end, ids that were written by hand and come after all others are looked at, too.
        let end = until.checked_add_signed(APART).map(|until| OrderId::first_of(until).to_string());
        let within = |id: &str| end.as_deref().is_none_or(|end| id < end);
        let mut pages = Pages::new(store, Some(after.unwrap_or(first).max(first).to_string()), AT_ONCE);
        while let Some(page) = pages.next().await? {
            let AuditPage { orders, unreadable, last, .. } = page;
            self.unreadable.extend(unreadable.into_iter().filter(|id| within(id)));
            let meant = orders.iter().filter(|order| (since..until).contains(&order.created_at));
            let meant: Vec<OrderId> = meant.map(|order| order.order_id).collect();
            self.these(store, &meant).await?;
            self.ended_at = orders.last().map(|order| order.order_id).or(self.ended_at);
            if last.is_some_and(|last| !within(&last)) {
                break;
            }
        }
        self.ended_at = None;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, atomic::Ordering};

    use super::*;
    use crate::{
        store::{
            OrderStore as _, Outbox,
            conformance::{new_orders, start},
            flaky::Flaky,
            memory::MemoryStore,
        },
        time::ManualClock,
    };

    const ALL: Between = Between { since: Timestamp::UNIX_EPOCH, until: Timestamp::MAX_UTC, after: None };

    /// A store with so many orders that are sent.
    async fn sent(orders: u64) -> (Flaky, Vec<OrderId>) {
        let clock = Arc::new(ManualClock::new(start()));
        let inner = MemoryStore::new(Arc::default(), clock, 1);
        let orders = new_orders(orders);
        let ids: Vec<OrderId> = orders.iter().map(|order| order.order_id).collect();
        inner.place(&orders, Outbox::Mine).await.expect("places");
        inner.mark_sent(&ids).await.expect("marks");
        (Flaky::new(Arc::new(inner)), ids)
    }

    /// Promise 2: everything accepted reaches the topic, again if a broker has lost it; and nothing is sent twice
    /// since the database was away in between.
    #[tokio::test(start_paused = true)]
    async fn a_run_that_failed_goes_on_from_where_it_ended() {
        let (store, ids) = sent(100).await;
        // Slow pages and a broken connection are no failure.
        store.most.store(9, Ordering::Relaxed);
        store.failures.store(3, Ordering::Relaxed);
        let mut whole = Republication::default();
        whole.all_between(&store, ALL).await.expect("queues");
        assert_eq!((whole.queued, whole.waiting, whole.ended_at), (100, 0, None));
        store.mark_sent(&ids).await.expect("marks");

        store.good.store(9, Ordering::Relaxed);
        store.failures.store(usize::MAX, Ordering::Relaxed);
        let mut first = Republication::default();
        first.all_between(&store, ALL).await.expect_err("away");
        assert!(
            (1..100).contains(&first.queued) && first.waiting == 0 && first.ended_at.is_some(),
            "{first:?}"
        );

        store.failures.store(0, Ordering::Relaxed);
        let mut rest = Republication::default();
        rest.all_between(&store, Between { after: first.ended_at, ..ALL }).await.expect("queues");
        assert_eq!((first.queued + rest.queued, rest.waiting, rest.ended_at), (100, 0, None));
    }

    /// Promise 6: it says what is wrong.
    #[tokio::test(start_paused = true)]
    async fn what_can_not_be_read_is_named_and_holds_up_no_other() {
        let (store, _) = sent(30).await;
        store.most.store(10, Ordering::Relaxed);
        let odd = ["TEST-1".to_owned(), "ORD-01KAAA00000000000000000001".to_owned()];
        store.odd.lock().expect("no panic").extend(odd.clone());
        let mut report = Republication::default();
        report.all_between(&store, ALL).await.expect("queues");
        assert_eq!((report.queued, &report.unreadable[..]), (30, &odd[..]));
    }
}
