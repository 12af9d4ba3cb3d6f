//! What is kept of reports beside their events, as an auditor reads it.

use super::{
    Fixture, new_orders,
    reports::{kitchen, named, noted},
};
use crate::order::{AuditedReport, EventKind, OrderId, ReportAudit, Status, Violation};

const READY: EventKind = EventKind::Ready;
const COOKING: EventKind = EventKind::Reached(Status::Cooking);

fn kept(order_id: OrderId, seq: i64, id: Option<&str>, said: EventKind, has_note: bool) -> AuditedReport {
    AuditedReport {
        order_id: order_id.to_string(),
        seq,
        report_id: id.map(str::to_owned),
        said: Some(said.to_string()),
        has_note,
        event: Some(said.to_string()),
    }
}

impl Fixture {
    /// All that is kept, read by pages of so many.
    async fn all_kept(&self, limit: usize) -> Vec<AuditedReport> {
        let mut all: Vec<AuditedReport> = Vec::new();
        loop {
            let after = all.last().map_or(("", i64::MIN), |last| (last.order_id.as_str(), last.seq));
            let page = self.store.audit_reports(after, None, limit).await.expect("reads");
            assert!(page.len() <= limit);
            if page.is_empty() {
                return all;
            }
            all.extend(page);
        }
    }
}

/// Promise 7: the story is true. Each row is read with its event, and one that was made by hand with what is wrong with it.
pub(crate) async fn what_is_kept_of_reports_is_audited(t: Fixture) {
    let orders = new_orders(3);
    t.place(&orders).await;
    let [one, other, last] = [0, 1, 2].map(|n| orders[n].order_id);
    t.report(&[
        named("a", noted("soft", kitchen(one, READY))),
        noted("burnt", kitchen(one, COOKING)),
        kitchen(one, READY),
        named("a", kitchen(last, READY)),
        named("b", kitchen(last, READY)),
    ])
    .await;
    let rows = [
        kept(one, 3, Some("a"), READY, true),
        kept(one, 5, None, COOKING, true),
        kept(last, 3, Some("a"), READY, false),
        kept(last, 4, Some("b"), READY, false),
    ];
    for limit in [1, 2, 100] {
        assert_eq!(t.all_kept(limit).await, rows, "{limit}");
    }
    let until = |until: OrderId| {
        let (store, until) = (&t.store, until.to_string());
        async move { store.audit_reports(("", i64::MIN), Some(&until), 10).await.expect("reads").len() }
    };
    assert_eq!((until(one).await, until(other).await, until(last).await), (2, 2, 4));
    let audited = t.store.audit(None, 10).await.expect("reads").orders;
    let noted: Vec<Vec<i64>> = audited.iter().map(|order| order.noted().collect()).collect();
    assert_eq!(noted, [vec![3, 5], vec![], vec![]]);
    if t.dialect.is_none() {
        return;
    }
    for statement in [
        "DROP INDEX order_reports_order_id_report_id".to_owned(),
        format!("UPDATE order_reports SET report_id = 'a' WHERE order_id = '{last}' AND seq = 4"),
        format!(
            "UPDATE order_reports SET said = '{{\"event\": \"READY\"}}' WHERE order_id = '{one}' AND seq = 5"
        ),
        format!(
            "INSERT INTO order_reports (order_id, seq, said) VALUES ('{one}', 9, '{{\"event\": \"READY\"}}')"
        ),
        format!("INSERT INTO order_reports (order_id, seq, said) VALUES ('{other}', 2, '[]')"),
        "INSERT INTO order_reports (order_id, seq, said) VALUES ('~', -1, '{\"event\": 7}')".to_owned(),
    ] {
        (t.by_hand)(&statement).await.expect(&statement);
    }
    let mut audit = ReportAudit::default();
    let found: Vec<(String, i64, Vec<Violation>)> = t
        .all_kept(2)
        .await
        .into_iter()
        .map(|row| (row.order_id.clone(), row.seq, audit.violations(&row)))
        .filter(|(_, _, violations)| !violations.is_empty())
        .collect();
    let expected = [
        (one.to_string(), 5, vec![Violation::ReportDiffers]),
        (one.to_string(), 9, vec![Violation::ReportAlone]),
        (other.to_string(), 2, vec![Violation::ReportDiffers]),
        (last.to_string(), 4, vec![Violation::ReportDoubled]),
        ("~".to_owned(), -1, vec![Violation::ReportAlone]),
    ];
    assert_eq!(found, expected);
}
