//! What a call said of reports whose answer got lost, as far as it can't be seen in the timelines.
//!
//! Of what it applied, ids are remembered. What it ignored or refused has left no trace; but all of an order are written
//! together, so where one is there all others were judged, and are judged again as they were then.

use std::collections::HashMap;

use super::reports::{Known, OrderReport, ReportOutcome};
use crate::order::{OrderId, Rules, Status, Steps, Timestamp, events_of};

/// Where a timeline ended, and when.
#[derive(Clone, Copy)]
struct TimelineEnd {
    seq: u32,
    at: Timestamp,
}

/// What was written of a report: where the timeline ended before and after it.
struct Stored {
    before: TimelineEnd,
    after: TimelineEnd,
}

/// For each report: what an earlier call, begun then, answered of it, where that can be told; `None`: it is judged now.
pub(super) fn outcomes(
    reports: &[OrderReport],
    known: &HashMap<OrderId, Known>,
    rules: &Rules,
    begun: Timestamp,
) -> Vec<Option<ReportOutcome>> {
    let stored: Vec<Option<Stored>> = reports.iter().map(|report| stored(report, known, begun)).collect();
    let outcome = |at: usize| {
        let OrderReport { order_id, report, if_match } = &reports[at];
        if stored[at].is_some() {
            return None;
        }
        let of_order = |other: &usize| reports[*other].order_id == *order_id;
        let last = (0..at).rev().filter(of_order).find_map(|other| Some(stored[other].as_ref()?.after));
        let next =
            || (at..reports.len()).filter(of_order).find_map(|other| Some(stored[other].as_ref()?.before));
        let TimelineEnd { seq, at } = last.or_else(next)?;
        known.get(order_id)?.until(seq).judge(report, if_match.as_deref(), rules, at).err()
    };
    (0..reports.len()).map(outcome).collect()
}

/// What was written of this one since then.
fn stored(report: &OrderReport, known: &HashMap<OrderId, Known>, begun: Timestamp) -> Option<Stored> {
    let known = known.get(&report.order_id)?;
    let remembered = known.reports.get(report.report.id.as_ref()?)?;
    let events = events_of(&known.tracked.events, remembered.seq);
    let (first, last) = (events.first()?, events.last()?);
    let end = |seq| TimelineEnd { seq, at: last.timestamp };
    (last.timestamp >= begun)
        .then(|| Stored { before: end(first.seq.saturating_sub(1)), after: end(last.seq) })
}

impl Known {
    /// How it was when its timeline ended here, as far as a judge asks that writes nothing.
    fn until(&self, seq: u32) -> Self {
        let mut tracked = self.tracked.clone();
        tracked.events.retain(|event| event.seq <= seq);
        let last = Steps::of(&tracked.events).standing.last().and_then(|step| step.event.status());
        tracked.order.status = last.unwrap_or(Status::FIRST);
        Self { tracked, row_seq: seq, reports: self.reports.clone() }
    }
}
