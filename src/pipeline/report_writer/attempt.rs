//! What is known of reports while they are written: those whose answer got lost may be there already.

use std::{collections::HashSet, sync::Mutex};

use tokio::time::Instant;

use crate::{
    order::{OrderId, Timestamp, to_millis},
    store::{OrderReport, ReportOutcome, Reported, Standing},
    time::deadlines::RETRY as RETRY_FOR,
};

/// One attempt at writing a set, however often parts of it are written again.
pub(super) struct Attempt {
    begun: Instant,
    give_up: Instant,
    /// Reports that may have been written, since no answer came: by their orders and ids.
    in_doubt: Mutex<HashSet<(OrderId, String)>>,
}

impl Attempt {
    pub(super) fn new() -> Self {
        let begun = Instant::now();
        Self { begun, give_up: begun + RETRY_FOR, in_doubt: Mutex::default() }
    }

    pub(super) fn may_go_on(&self) -> bool {
        Instant::now() < self.give_up
    }

    pub(super) fn doubt(&self, reports: &[OrderReport]) {
        let named =
            |OrderReport { order_id, report, .. }: &OrderReport| Some((*order_id, report.id.clone()?));
        self.in_doubt.lock().expect("no panic").extend(reports.iter().filter_map(named));
    }

    /// When it was begun, if an answer got lost since.
    pub(super) fn in_doubt_since(&self) -> Option<Instant> {
        let in_doubt = !self.in_doubt.lock().expect("no panic").is_empty();
        in_doubt.then_some(self.begun)
    }

    /// Whether the order of a report that may be written already is just being changed: maybe by the call whose answer got
    /// lost.
    pub(super) fn is_open(&self, reports: &[OrderReport], answers: &[Reported]) -> bool {
        let in_doubt = self.in_doubt.lock().expect("no panic");
        let doubted = |OrderReport { order_id, report, .. }: &OrderReport| {
            report.id.as_ref().is_some_and(|id| in_doubt.contains(&(*order_id, id.clone())))
        };
        !in_doubt.is_empty()
            && reports
                .iter()
                .zip(answers)
                .any(|(report, reported)| reported.outcome == ReportOutcome::Contended && doubted(report))
    }

    /// What this attempt has written before its answer got lost is applied by it, and not by somebody before.
    pub(super) fn resolve(
        &self,
        OrderReport { order_id, report, .. }: &OrderReport,
        reported: &mut Reported,
    ) {
        let Some(id) = &report.id else { return };
        let doubted = self.in_doubt.lock().expect("no panic").remove(&(*order_id, id.clone()));
        let Reported { outcome, standing: Some(Standing { now, .. }) } = reported else { return };
        // By the database's clock alone, which also stamped the events.
        let begun = |now: Timestamp| to_millis(now - self.begun.elapsed());
        if let ReportOutcome::Replayed(events, steps) = outcome
            && doubted
            && events.last().is_some_and(|last| last.timestamp >= begun(*now))
        {
            *outcome = ReportOutcome::Applied(std::mem::take(events), std::mem::take(steps));
        }
    }
}
