//! A wrapper that bounds and measures every verb, so that adapters stay plain SQL.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use tokio::time::{Instant, sleep, timeout};

use super::{
    Admission, Advance, Arrival, AuditPage, Backlog, Counts, Due, DueOrders, EventLog, FeedPage, FeedQuery,
    Found, Holder, Horizon, Incoming, Insight, KeyStore, LateOrders, LateSteps, Lease, Maintenance, NewOrder,
    OrderReport, OrderStore, Outbox, OutboxStore, Page, Placement, Position, Reported, Republished, Span,
    Store, StoreError,
};
use crate::{
    keys::{KeyCreation, KeyId, KeyList, KeyRecord, KeyUse, StoredKey},
    order::{AuditedReport, Cursor, Order, OrderFacts, OrderId, OrderPlaced, Rules, StageDelays, Status},
    telemetry::metrics::Metrics,
    time::deadlines::GUARD,
};

/// Pauses between the tries of a read, in milliseconds.
const RETRY_PAUSES: [u64; 4] = [5, 20, 50, 100];

/// Gives every verb of the inner store a deadline and a place in the metrics.
pub struct Resilient {
    inner: Arc<dyn Store>,
    metrics: Arc<Metrics>,
}

impl Resilient {
    /// Wraps `inner`.
    pub fn new(inner: Arc<dyn Store>, metrics: Arc<Metrics>) -> Self {
        Self { inner, metrics }
    }

    async fn read<T>(&self, verb: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        let outcome = timeout(GUARD, verb).await.unwrap_or(Err(StoreError::Timeout(GUARD)));
        outcome.inspect_err(|_| self.metrics.db_failed())
    }

    /// Tries a read again at once when its connection turns out to be broken: after a restart of the
    /// database every idle connection is, and no client should have to find them all.
    async fn read_again<T, F>(&self, verb: impl Fn() -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let cause = Mutex::new(None);
        let tries = async {
            for pause in RETRY_PAUSES {
                match verb().await {
                    Err(error @ StoreError::Unavailable(_)) => {
                        *cause.lock().expect("no holder panics") = Some(error);
                        sleep(Duration::from_millis(pause)).await;
                    }
                    outcome => return outcome,
                }
            }
            verb().await
        };
        let outcome = self.read(tries).await;
        // Why the tries before it failed says more than that the last one took too long.
        match (outcome, cause.into_inner().expect("no holder panics")) {
            (Err(StoreError::Timeout(_)), Some(cause)) => Err(cause),
            (outcome, _) => outcome,
        }
    }

    async fn write<T>(&self, verb: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        let started = Instant::now();
        let outcome = self.read(verb).await;
        self.metrics.db_written(started.elapsed());
        outcome
    }
}

#[async_trait]
impl OrderStore for Resilient {
    async fn place(&self, orders: &[NewOrder], outbox: Outbox) -> Result<Vec<Placement>, StoreError> {
        self.write(self.inner.place(orders, outbox)).await
    }

    async fn admit(&self, incoming: &[Incoming]) -> Result<Vec<Admission>, StoreError> {
        self.write(self.inner.admit(incoming)).await
    }

    async fn admit_alone(&self, incoming: &Incoming) -> Result<Admission, StoreError> {
        self.write(self.inner.admit_alone(incoming)).await
    }

    /// Counted as a write only when something moved: most looks find nothing due.
    async fn advance_due(&self, due: Due<'_>, delays: &StageDelays) -> Result<Advance, StoreError> {
        let started = Instant::now();
        let advance = self.read(self.inner.advance_due(due, delays)).await?;
        if !advance.transitions.is_empty() {
            self.metrics.db_written(started.elapsed());
        }
        Ok(advance)
    }

    async fn report_again(
        &self,
        reports: &[OrderReport],
        rules: &Rules,
        earlier: Option<Instant>,
    ) -> Result<Vec<Reported>, StoreError> {
        self.write(self.inner.report_again(reports, rules, earlier)).await
    }

    async fn due(&self, due: Due<'_>) -> Result<DueOrders, StoreError> {
        self.read(self.inner.due(due)).await
    }

    async fn positions(&self, orders: &[OrderId]) -> Result<Vec<Position>, StoreError> {
        self.read_again(|| self.inner.positions(orders)).await
    }

    async fn find_all(&self, order_ids: &[OrderId]) -> Result<Found, StoreError> {
        self.read_again(|| self.inner.find_all(order_ids)).await
    }

    async fn list(&self, page: &Page) -> Result<Vec<Order>, StoreError> {
        self.read_again(|| self.inner.list(page)).await
    }
}

#[async_trait]
impl OutboxStore for Resilient {
    async fn heartbeat(&self) -> Result<(), StoreError> {
        self.read(self.inner.heartbeat()).await
    }

    async fn unclaimed(&self, after: Option<OrderId>, limit: usize) -> Result<Vec<OrderId>, StoreError> {
        self.read(self.inner.unclaimed(after, limit)).await
    }

    async fn claim(&self, unsent: &[OrderId]) -> Result<Vec<OrderPlaced>, StoreError> {
        self.write(self.inner.claim(unsent)).await
    }

    async fn lost(&self, held: &[OrderId], limit: usize) -> Result<Vec<OrderId>, StoreError> {
        self.read(self.inner.lost(held, limit)).await
    }

    async fn mark_sent(&self, sent: &[OrderId]) -> Result<Vec<OrderId>, StoreError> {
        self.write(self.inner.mark_sent(sent)).await
    }

    async fn release(&self, unsent: &[OrderId]) -> Result<Vec<OrderId>, StoreError> {
        self.write(self.inner.release(unsent)).await
    }

    async fn republish(&self, orders: &[OrderId]) -> Result<Vec<Republished>, StoreError> {
        self.write(self.inner.republish(orders)).await
    }
}

#[async_trait]
impl EventLog for Resilient {
    async fn horizon(&self) -> Result<Horizon, StoreError> {
        self.read_again(|| self.inner.horizon()).await
    }

    async fn arrivals(&self, spans: &[Span], limit: usize) -> Result<Vec<Arrival>, StoreError> {
        self.read_again(|| self.inner.arrivals(spans, limit)).await
    }

    async fn events(&self, query: &FeedQuery) -> Result<FeedPage, StoreError> {
        self.read_again(|| self.inner.events(query)).await
    }

    async fn facts(&self, orders: &[OrderId]) -> Result<Vec<(OrderId, OrderFacts)>, StoreError> {
        self.read_again(|| self.inner.facts(orders)).await
    }

    async fn holder(&self) -> Result<Option<Holder>, StoreError> {
        self.read(self.inner.holder()).await
    }

    async fn lease(&self, name: &str, lasting: Duration) -> Result<Option<Lease>, StoreError> {
        self.read(self.inner.lease(name, lasting)).await
    }

    async fn move_on(
        &self,
        name: &str,
        lease: Lease,
        to: Cursor,
        lasting: Duration,
    ) -> Result<Option<Lease>, StoreError> {
        self.write(self.inner.move_on(name, lease, to, lasting)).await
    }

    async fn give_back(&self, name: &str, lease: Lease) -> Result<(), StoreError> {
        self.read(self.inner.give_back(name, lease)).await
    }

    async fn place_of(&self, name: &str) -> Result<Option<Cursor>, StoreError> {
        self.read_again(|| self.inner.place_of(name)).await
    }
}

#[async_trait]
impl Insight for Resilient {
    async fn ping(&self) -> Result<(), StoreError> {
        self.read_again(|| self.inner.ping()).await
    }

    async fn count(&self, statuses: &[Status]) -> Result<Counts, StoreError> {
        self.read_again(|| self.inner.count(statuses)).await
    }

    async fn backlog(&self) -> Result<Backlog, StoreError> {
        self.read_again(|| self.inner.backlog()).await
    }

    async fn overdue(&self, late: Duration, limit: usize) -> Result<LateSteps, StoreError> {
        self.read_again(|| self.inner.overdue(late, limit)).await
    }

    async fn late(&self, limit: usize) -> Result<LateOrders, StoreError> {
        self.read_again(|| self.inner.late(limit)).await
    }

    async fn audit(&self, after: Option<&str>, limit: usize) -> Result<AuditPage, StoreError> {
        self.read(self.inner.audit(after, limit)).await
    }

    async fn audit_reports(
        &self,
        after: (&str, i64),
        until: Option<&str>,
        limit: usize,
    ) -> Result<Vec<AuditedReport>, StoreError> {
        self.read(self.inner.audit_reports(after, until, limit)).await
    }
}

#[async_trait]
impl KeyStore for Resilient {
    async fn live_keys(&self) -> Result<Vec<StoredKey>, StoreError> {
        self.read_again(|| self.inner.live_keys()).await
    }

    async fn note_uses(&self, uses: &[KeyUse]) -> Result<Vec<KeyId>, StoreError> {
        self.write(self.inner.note_uses(uses)).await
    }

    async fn list_keys(&self) -> Result<KeyList, StoreError> {
        self.read_again(|| self.inner.list_keys()).await
    }

    async fn create_key(&self, key: &StoredKey) -> Result<KeyCreation, StoreError> {
        self.write(self.inner.create_key(key)).await
    }

    async fn revoke_key(&self, id_or_name: &str) -> Result<Option<KeyRecord>, StoreError> {
        self.write(self.inner.revoke_key(id_or_name)).await
    }
}

#[async_trait]
impl Maintenance for Resilient {
    /// Without a deadline: a schema change on large tables takes its time.
    async fn migrate(&self) -> Result<(), StoreError> {
        self.inner.migrate().await.inspect_err(|_| self.metrics.db_failed())
    }

    async fn doubted(&self) {
        self.inner.doubted().await;
    }

    async fn expire_idempotency_keys(&self, limit: usize) -> Result<u64, StoreError> {
        self.write(self.inner.expire_idempotency_keys(limit)).await
    }

    async fn close(&self) {
        // Closing waits for connections in use; past the deadline the exit closes them.
        drop(timeout(GUARD, self.inner.close()).await);
    }
}
