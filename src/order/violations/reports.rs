//! Whether what is kept beside events belongs there.

use std::collections::HashSet;

use super::Violation;

/// What is kept beside an event, as an auditor reads it: nothing about it is taken for granted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditedReport {
    /// Of which order, as it is written.
    pub order_id: String,
    /// The position of its event, as it claims.
    pub seq: i64,
    /// The sender's name for it.
    pub report_id: Option<String>,
    /// What was reported, if it says so.
    pub said: Option<String>,
    /// Whether there is a note.
    pub has_note: bool,
    /// What event stands at its position, if one does.
    pub event: Option<String>,
}

/// Goes through what is kept beside events, order by order.
#[derive(Debug, Default)]
pub struct ReportAudit {
    order_id: String,
    ids: HashSet<String>,
    told: Vec<Violation>,
}

impl ReportAudit {
    /// What is wrong with the next one; of an order each violation once.
    pub fn violations(&mut self, report: &AuditedReport) -> Vec<Violation> {
        if self.order_id != report.order_id {
            *self = Self { order_id: report.order_id.clone(), ..Self::default() };
        }
        let again = report.report_id.as_ref().is_some_and(|id| !self.ids.insert(id.clone()));
        let found = [
            (Violation::ReportAlone, report.event.is_none()),
            (Violation::ReportDiffers, report.event.is_some() && report.event != report.said),
            (Violation::ReportDoubled, again),
        ];
        let found = found.into_iter().filter(|(violation, is)| *is && !self.told.contains(violation));
        let found: Vec<Violation> = found.map(|(violation, _)| violation).collect();
        self.told.extend(&found);
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(order_id: &str, seq: i64) -> AuditedReport {
        let cooking = Some("COOKING".to_owned());
        AuditedReport {
            order_id: order_id.to_owned(),
            seq,
            report_id: Some(format!("id {seq}")),
            said: cooking.clone(),
            has_note: false,
            event: cooking,
        }
    }

    #[test]
    fn what_belongs_to_no_event_is_found_once_an_order() {
        let mut audit = ReportAudit::default();
        let alone = |seq| AuditedReport { event: None, ..report("a", seq) };
        let differs =
            |seq, said: Option<&str>| AuditedReport { said: said.map(str::to_owned), ..report("a", seq) };
        let again =
            |order_id, seq| AuditedReport { report_id: Some("id 3".to_owned()), ..report(order_id, seq) };
        for (report, expected) in [
            (report("a", 3), &[][..]),
            (alone(4), &[Violation::ReportAlone]),
            (alone(5), &[]),
            (AuditedReport { report_id: None, ..differs(6, None) }, &[Violation::ReportDiffers]),
            (AuditedReport { report_id: None, ..differs(7, Some("READY")) }, &[]),
            (again("a", 8), &[Violation::ReportDoubled]),
            // An id is an order's own.
            (again("b", 3), &[]),
            (
                AuditedReport { event: None, ..again("b", 4) },
                &[Violation::ReportAlone, Violation::ReportDoubled],
            ),
        ] {
            assert_eq!(audit.violations(&report), expected, "{report:?}");
        }
    }
}
