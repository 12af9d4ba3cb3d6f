//! What is asked about orders by those who watch, count and audit them.

use std::time::Duration;

use async_trait::async_trait;

use super::{
    super::{AuditPage, Backlog, Counts, Insight, LateOrders, LateSteps, StoreError},
    PgStore, bounded, reports, verbs,
};
use crate::order::{AuditedReport, Status};

#[async_trait]
impl Insight for PgStore {
    /// Reads nothing of ours, so it costs the same at any number of orders.
    async fn ping(&self) -> Result<(), StoreError> {
        self.can_place().await
    }

    async fn count(&self, statuses: &[Status]) -> Result<Counts, StoreError> {
        let (pools, now) = (self.pools()?, self.now());
        bounded(&pools.read, async |db| self.figures.count(db, now, statuses).await).await
    }

    async fn backlog(&self) -> Result<Backlog, StoreError> {
        let (pools, now) = (self.pools()?, self.now());
        bounded(&pools.read, async |db| self.figures.backlog(db, now).await).await
    }

    async fn overdue(&self, late: Duration, limit: usize) -> Result<LateSteps, StoreError> {
        let (pools, now) = (self.pools()?, self.now());
        bounded(&pools.read, async |db| self.figures.overdue(db, now, late, limit).await).await
    }

    async fn late(&self, limit: usize) -> Result<LateOrders, StoreError> {
        let (pools, now) = (self.pools()?, self.now());
        bounded(&pools.read, async |db| self.figures.late(db, now, limit).await).await
    }

    async fn audit(&self, after: Option<&str>, limit: usize) -> Result<AuditPage, StoreError> {
        let (pools, now) = (self.pools()?, self.now());
        bounded(&pools.read, async |db| verbs::audit(db, after, limit, now).await).await
    }

    async fn audit_reports(
        &self,
        after: (&str, i64),
        until: Option<&str>,
        limit: usize,
    ) -> Result<Vec<AuditedReport>, StoreError> {
        let pools = self.pools()?;
        bounded(&pools.read, async |db| reports::audit(db, after, until, limit).await).await
    }
}
