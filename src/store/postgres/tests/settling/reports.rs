//! What is reported, as those write it who are told of it.

use rand::{RngExt as _, rngs::StdRng};

use super::*;
use crate::{
    order::{EventKind, Report, Rules, Source},
    store::OrderReport,
};

/// Milestones, steps, skips and what is taken back, of several orders in a set and of one again and again.
pub(super) async fn report_everything(store: &PgStore) {
    let order_ids = [place(store).await, place(store).await];
    let again = [EventKind::Reverted, EventKind::Reached(Status::Delivered)];
    for event in Report::KINDS.into_iter().rev().chain(again) {
        let report = |order_id: &OrderId| OrderReport {
            order_id: *order_id,
            report: Report { note: Some("noted".to_owned()), ..Report::of(event, Source::Kitchen) },
            if_match: None,
        };
        let reports: Vec<OrderReport> = order_ids.iter().map(report).collect();
        for set in [&reports[..1], &reports] {
            store.report(set, &Rules::default()).await.expect("reports");
        }
    }
    let found = store.find(order_ids[1]).await.expect("reads").expect("is there");
    assert_eq!(found.events.len(), 2 + 6 + 2 + 4, "{found:?}");
}

/// Reports of orders that others move at the same time, so that some are in vain.
pub(super) async fn tell(store: Arc<PgStore>, order_ids: Arc<[OrderId]>, mut random: StdRng, sets: usize) {
    for _ in 0..sets {
        let mut report = || OrderReport {
            order_id: order_ids[random.random_range(0..order_ids.len())],
            report: Report::of(EventKind::CourierAssigned, Source::Courier),
            if_match: None,
        };
        let reports: Vec<OrderReport> = (0..3).map(|_| report()).collect();
        store.report(&reports, &Rules::default()).await.expect("reports");
    }
}
