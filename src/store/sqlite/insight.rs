//! What is asked about orders by those who watch, count and audit them.

use std::time::Duration;

use async_trait::async_trait;

use super::{
    super::{AuditPage, Backlog, Counts, Insight, LateOrders, LateSteps, StoreError},
    SqliteStore, attention, reports, verbs,
};
use crate::order::{AuditedReport, Status};

#[async_trait]
impl Insight for SqliteStore {
    async fn ping(&self) -> Result<(), StoreError> {
        sqlx::query("SELECT 1").execute(&self.read).await?;
        Ok(())
    }

    async fn count(&self, statuses: &[Status]) -> Result<Counts, StoreError> {
        attention::count(&self.read, statuses).await
    }

    async fn backlog(&self) -> Result<Backlog, StoreError> {
        attention::backlog(&self.read, self.clock.now()).await
    }

    async fn overdue(&self, late: Duration, limit: usize) -> Result<LateSteps, StoreError> {
        attention::overdue(&self.read, self.clock.now(), late, limit).await
    }

    async fn late(&self, limit: usize) -> Result<LateOrders, StoreError> {
        attention::late(&self.read, self.clock.now(), limit).await
    }

    async fn audit(&self, after: Option<&str>, limit: usize) -> Result<AuditPage, StoreError> {
        verbs::audit(&self.read, after, limit, self.clock.now()).await
    }

    async fn audit_reports(
        &self,
        after: (&str, i64),
        until: Option<&str>,
        limit: usize,
    ) -> Result<Vec<AuditedReport>, StoreError> {
        reports::audit(&self.read, after, until, limit).await
    }
}
