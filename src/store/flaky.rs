//! A double that makes trouble for those who read: verbs that are too slow, connections that break.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use tokio::time::{Instant, sleep};

use super::{
    Admission, Advance, AuditPage, Backlog, Counts, Due, DueOrders, Found, Incoming, Insight, LateOrders,
    LateSteps, Maintenance, NewOrder, OrderReport, OrderStore, Outbox, OutboxStore, Page, Placement,
    Position, Reported, Republished, Store, StoreError,
    conformance::{new_orders, start},
    forwarded::{events_of_inner, keys_of_inner},
    memory::MemoryStore,
};
use crate::{
    order::{AuditedReport, Order, OrderId, OrderPlaced, Rules, StageDelays, Status, Timestamp},
    time::ManualClock,
};

/// How long a verb takes that is too slow.
const TOO_SLOW: Duration = crate::time::deadlines::GUARD;

/// A store with trouble for readers.
pub(crate) struct Flaky {
    pub(crate) inner: Arc<dyn Store>,
    /// An audit of more orders is too slow.
    pub(crate) most: AtomicUsize,
    /// So many audits and repairs meet a broken connection, after so many that go well.
    pub(crate) failures: AtomicUsize,
    pub(crate) good: AtomicUsize,
    /// Ids that an audit can't read, beside all others.
    pub(crate) odd: Mutex<Vec<String>>,
    /// What an audit finds beside events, in place of what is there.
    pub(crate) kept: Mutex<Option<Vec<AuditedReport>>>,
    /// These verbs are too slow.
    pub(crate) slow: Mutex<HashSet<&'static str>>,
    /// How long each of the others takes to answer.
    pub(crate) answers_after: Mutex<Duration>,
    /// Which of them were asked, in order.
    pub(crate) asked: Mutex<Vec<&'static str>>,
    /// How long a verb takes that is too slow.
    pub(crate) takes: Duration,
    /// Since when figures are read.
    pub(crate) since: Mutex<Option<Timestamp>>,
}

impl Flaky {
    pub(crate) fn new(inner: Arc<dyn Store>) -> Self {
        Self {
            inner,
            most: AtomicUsize::new(usize::MAX),
            failures: AtomicUsize::new(0),
            good: AtomicUsize::new(0),
            odd: Mutex::default(),
            kept: Mutex::default(),
            slow: Mutex::default(),
            answers_after: Mutex::default(),
            asked: Mutex::default(),
            takes: TOO_SLOW,
            since: Mutex::default(),
        }
    }

    /// One in front of a store that holds so many orders, and their ids.
    pub(crate) async fn holding(orders: u64) -> (Self, Vec<OrderId>) {
        let clock = Arc::new(ManualClock::new(start()));
        let (inner, orders) = (MemoryStore::new(Arc::default(), clock, 1), new_orders(orders));
        inner.place(&orders, Outbox::Mine).await.expect("places");
        (Self::new(Arc::new(inner)), orders.iter().map(|order| order.order_id).collect())
    }

    /// One less of these, if there were any.
    fn takes_one(count: &AtomicUsize) -> bool {
        count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
    }

    fn connected(&self) -> Result<(), StoreError> {
        if Self::takes_one(&self.good) || !Self::takes_one(&self.failures) {
            return Ok(());
        }
        Err(StoreError::Unavailable("the connection broke".to_owned()))
    }

    fn since(&self) -> Option<Timestamp> {
        *self.since.lock().expect("no panic")
    }

    async fn in_time(&self, verb: &'static str) -> Result<(), StoreError> {
        self.asked.lock().expect("no panic").push(verb);
        let slow = self.slow.lock().expect("no panic").contains(verb);
        if slow {
            sleep(self.takes).await;
            return Err(StoreError::Timeout(TOO_SLOW));
        }
        let answers_after = *self.answers_after.lock().expect("no panic");
        if !answers_after.is_zero() {
            sleep(answers_after).await;
        }
        Ok(())
    }
}

#[async_trait]
impl OrderStore for Flaky {
    async fn place(&self, orders: &[NewOrder], outbox: Outbox) -> Result<Vec<Placement>, StoreError> {
        self.inner.place(orders, outbox).await
    }

    async fn admit(&self, incoming: &[Incoming]) -> Result<Vec<Admission>, StoreError> {
        self.inner.admit(incoming).await
    }

    async fn admit_alone(&self, incoming: &Incoming) -> Result<Admission, StoreError> {
        self.inner.admit_alone(incoming).await
    }

    async fn advance_due(&self, due: Due<'_>, delays: &StageDelays) -> Result<Advance, StoreError> {
        self.inner.advance_due(due, delays).await
    }

    async fn report_again(
        &self,
        reports: &[OrderReport],
        rules: &Rules,
        earlier: Option<Instant>,
    ) -> Result<Vec<Reported>, StoreError> {
        self.inner.report_again(reports, rules, earlier).await
    }

    async fn due(&self, due: Due<'_>) -> Result<DueOrders, StoreError> {
        self.inner.due(due).await
    }

    async fn positions(&self, orders: &[OrderId]) -> Result<Vec<Position>, StoreError> {
        self.inner.positions(orders).await
    }

    async fn find_all(&self, order_ids: &[OrderId]) -> Result<Found, StoreError> {
        self.inner.find_all(order_ids).await
    }

    async fn list(&self, page: &Page) -> Result<Vec<Order>, StoreError> {
        self.inner.list(page).await
    }
}

#[async_trait]
impl OutboxStore for Flaky {
    async fn heartbeat(&self) -> Result<(), StoreError> {
        self.inner.heartbeat().await
    }

    async fn unclaimed(&self, after: Option<OrderId>, limit: usize) -> Result<Vec<OrderId>, StoreError> {
        self.inner.unclaimed(after, limit).await
    }

    async fn claim(&self, unsent: &[OrderId]) -> Result<Vec<OrderPlaced>, StoreError> {
        self.inner.claim(unsent).await
    }

    async fn lost(&self, held: &[OrderId], limit: usize) -> Result<Vec<OrderId>, StoreError> {
        self.inner.lost(held, limit).await
    }

    async fn mark_sent(&self, sent: &[OrderId]) -> Result<Vec<OrderId>, StoreError> {
        self.inner.mark_sent(sent).await
    }

    async fn release(&self, unsent: &[OrderId]) -> Result<Vec<OrderId>, StoreError> {
        self.inner.release(unsent).await
    }

    async fn republish(&self, orders: &[OrderId]) -> Result<Vec<Republished>, StoreError> {
        self.connected()?;
        self.inner.republish(orders).await
    }
}

events_of_inner!(Flaky);
keys_of_inner!(Flaky);

#[async_trait]
impl Insight for Flaky {
    async fn ping(&self) -> Result<(), StoreError> {
        self.in_time("ping").await?;
        self.inner.ping().await
    }

    async fn count(&self, statuses: &[Status]) -> Result<Counts, StoreError> {
        self.in_time("count").await?;
        Ok(Counts { since: self.since(), ..self.inner.count(statuses).await? })
    }

    async fn backlog(&self) -> Result<Backlog, StoreError> {
        self.in_time("backlog").await?;
        Ok(Backlog { since: self.since(), ..self.inner.backlog().await? })
    }

    async fn overdue(&self, late: Duration, limit: usize) -> Result<LateSteps, StoreError> {
        self.in_time("overdue").await?;
        Ok(LateSteps { since: self.since(), ..self.inner.overdue(late, limit).await? })
    }

    async fn late(&self, limit: usize) -> Result<LateOrders, StoreError> {
        self.inner.late(limit).await
    }

    async fn audit(&self, after: Option<&str>, limit: usize) -> Result<AuditPage, StoreError> {
        self.connected()?;
        if limit > self.most.load(Ordering::Relaxed) {
            return Err(StoreError::Timeout(TOO_SLOW));
        }
        let mut page = self.inner.audit(after, limit).await?;
        page.unreadable.append(&mut self.odd.lock().expect("no panic"));
        Ok(page)
    }

    async fn audit_reports(
        &self,
        after: (&str, i64),
        until: Option<&str>,
        limit: usize,
    ) -> Result<Vec<AuditedReport>, StoreError> {
        self.connected()?;
        if limit > self.most.load(Ordering::Relaxed) {
            return Err(StoreError::Timeout(TOO_SLOW));
        }
        let kept = self.kept.lock().expect("no panic").clone();
        let Some(kept) = kept else { return self.inner.audit_reports(after, until, limit).await };
        let within = |report: &AuditedReport| {
            let order_id = report.order_id.as_str();
            (order_id, report.seq) > after && until.is_none_or(|until| order_id <= until)
        };
        Ok(kept.into_iter().filter(within).take(limit).collect())
    }
}

#[async_trait]
impl Maintenance for Flaky {
    async fn migrate(&self) -> Result<(), StoreError> {
        self.inner.migrate().await
    }

    async fn expire_idempotency_keys(&self, limit: usize) -> Result<u64, StoreError> {
        self.inner.expire_idempotency_keys(limit).await
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}
