//! The series of what people report.

use prometheus::{GaugeVec, IntCounterVec, Registry};

use super::{Metrics, ReportResult, counter_vec, gauge_vec};
use crate::order::{EventKind, Reason, Report};

pub(super) struct ReportSeries {
    reports: IntCounterVec,
    cancelled: IntCounterVec,
    pub(super) late: GaugeVec,
}

impl ReportSeries {
    pub(super) fn new(r: &Registry) -> Self {
        let reports = counter_vec(
            r,
            "reports_total",
            "Reports of this kind that were judged by their order: applied, nothing new, or refused (an unknown order too); \
             what can't be read, or is not for the key's role whatever the order, is answered before that and not counted",
            &["event", "outcome"],
        );
        for kind in Report::KINDS {
            for result in ReportResult::ALL {
                reports.with_label_values(&[kind.as_str(), result.as_str()]);
            }
        }
        let cancelled = counter_vec(r, "orders_cancelled_total", "Orders cancelled, by why", &["reason"]);
        for reason in Reason::ALL {
            cancelled.with_label_values(&[reason.as_str()]);
        }
        let late = gauge_vec(
            r,
            "orders_late",
            "Orders that people move and have not moved in time, in the whole database, each status counted up to \
             10,000; NaN if not known",
            &["status"],
        );
        Self { reports, cancelled, late }
    }
}

impl Metrics {
    /// A report of this kind has its fate.
    pub fn reported(&self, kind: EventKind, result: ReportResult) {
        self.reports.reports.with_label_values(&[kind.as_str(), result.as_str()]).inc();
    }

    /// An order was cancelled.
    pub fn cancelled(&self, reason: Reason) {
        self.reports.cancelled.with_label_values(&[reason.as_str()]).inc();
    }
}
