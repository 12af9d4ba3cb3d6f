//! The names that the tables allow, beside those that the code knows.

use super::{Fixture, new_orders};
use crate::order::{EventKind, Status};

/// Every status that orders will have.
const STATUSES: [&str; 6] = ["PLACED", "PREPARING", "COOKING", "OUT_FOR_DELIVERY", "DELIVERED", "CANCELLED"];
/// Every event that is none of these.
const OTHER_EVENTS: [&str; 9] = [
    "CREATED",
    "READY",
    "COURIER_ASSIGNED",
    "COURIER_AT_PICKUP",
    "COURIER_AT_DOOR",
    "DELIVERY_FAILED",
    "DELAYED",
    "REVERTED",
    "ERASED",
];
/// Names that are none, but near.
const NO_NAMES: [&str; 4] = ["", "placed", "PLACED ", "UNKNOWN"];

/// The tables take what the code knows and what is to come, and nothing else; only what is not over has a timer.
pub(crate) async fn tables_take_these_names_and_no_others(t: Fixture) {
    let Some(dialect) = &t.dialect else { return };
    let events: Vec<&str> = STATUSES.into_iter().chain(OTHER_EVENTS).collect();
    assert!(Status::ALL.iter().all(|status| STATUSES.contains(&status.as_str())));
    assert!(EventKind::ALL.iter().all(|kind| events.contains(&kind.as_str())));
    let checked = dialect.checked;
    let order = new_orders(1).remove(0);
    t.place(std::slice::from_ref(&order)).await;
    let (id, at) = (order.order_id, (dialect.stamp)(super::start()));
    for status in STATUSES.into_iter().chain(OTHER_EVENTS).chain(NO_NAMES) {
        let named = STATUSES.contains(&status);
        let is_over = ["DELIVERED", "CANCELLED"].contains(&status);
        for (due_at, allowed) in [("NULL", named), (&*at, named && !is_over)] {
            let update = format!(
                "{checked}UPDATE orders SET status = '{status}', due_at = {due_at} WHERE order_id = '{id}'"
            );
            assert_eq!((t.by_hand)(&update).await.is_ok(), allowed, "{update}");
        }
    }
    for (seq, event) in (3..).zip(events.iter().copied().chain(NO_NAMES)) {
        let write = format!(
            "{checked}INSERT INTO order_events (order_id, event, seq, \"timestamp\") VALUES ('{id}', '{event}', {seq}, {at})"
        );
        assert_eq!((t.by_hand)(&write).await.is_ok(), events.contains(&event), "{write}");
    }
}
