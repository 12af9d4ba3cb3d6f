//! What is kept beside events, read along with the orders: what lies up to the end of a page of orders is read after
//! that page, so that whatever its events say is kept must be found.

use std::collections::{BTreeMap, BTreeSet};

use super::Rule;
use crate::{
    order::{OrderId, ReportAudit, Violation},
    store::{AuditPage, Insight, ReportPages, StoreError},
};

/// How far they are read, and what is known of the order there.
pub(super) struct Reports<'a> {
    pages: ReportPages<'a>,
    audit: ReportAudit,
}

impl<'a> Reports<'a> {
    pub(super) fn new(store: &'a dyn Insight, most: usize) -> Self {
        Self { pages: ReportPages::new(store, most), audit: ReportAudit::default() }
    }

    /// Judges what is kept up to the last order of this page, and what its events say is kept.
    pub(super) async fn beside(
        &mut self,
        page: &AuditPage,
        rules: &mut BTreeMap<Violation, Rule>,
    ) -> Result<(), StoreError> {
        let noted = page.orders.iter().flat_map(|order| order.noted().map(|seq| (order.order_id, seq)));
        let mut noted: BTreeSet<(OrderId, i64)> = noted.collect();
        self.read(page.last.as_deref(), rules, &mut noted).await?;
        let without: BTreeSet<OrderId> = noted.into_iter().map(|(order_id, _)| order_id).collect();
        for order_id in without {
            rules.entry(Violation::NoteMissing).or_default().broken_by(order_id.to_string());
        }
        Ok(())
    }

    /// Judges what is kept beyond the last order.
    pub(super) async fn beyond(&mut self, rules: &mut BTreeMap<Violation, Rule>) -> Result<(), StoreError> {
        self.read(None, rules, &mut BTreeSet::new()).await
    }

    async fn read(
        &mut self,
        until: Option<&str>,
        rules: &mut BTreeMap<Violation, Rule>,
        noted: &mut BTreeSet<(OrderId, i64)>,
    ) -> Result<(), StoreError> {
        loop {
            let page = self.pages.next(until).await?;
            if page.is_empty() {
                return Ok(());
            }
            for report in &page {
                for violation in self.audit.violations(report) {
                    rules.entry(violation).or_default().broken_by(report.order_id.clone());
                }
                if report.has_note
                    && let Ok(order_id) = report.order_id.parse()
                {
                    noted.remove(&(order_id, report.seq));
                }
            }
        }
    }
}
