//! What the board asks for.

use super::{Fixture, new_orders, seconds};
use crate::{
    order::{EventKind, LateOrders, PerStatus, Report, Rules, Source, Start, Status},
    store::{Backlog, LateSteps, NewOrder, OrderReport, UNSENT_LISTED},
};

pub(crate) async fn what_needs_a_look_comes_oldest_first_and_is_counted(t: Fixture) {
    let late = async |limit| t.overdue(seconds(2), limit).await;
    assert_eq!((late(5).await, t.backlog().await), (LateSteps::default(), Backlog::default()));
    let orders = new_orders(4);
    t.place(&orders[..3]).await;
    t.clock.advance(seconds(4));
    t.place(&orders[3..]).await;

    let seen = late(5).await;
    assert_eq!((seen.first.len(), seen.orders), (0, 0), "one second late is not late yet");
    assert_eq!(seen.most, seconds(1));
    let unsent = t.backlog().await.first;
    assert_eq!(unsent.iter().map(|row| row.age).collect::<Vec<_>>(), [4, 4, 4, 0].map(seconds));
    assert_eq!(unsent[0].order_id, orders[0].order_id);

    t.clock.advance(seconds(2));
    let seen = late(2).await;
    assert_eq!((seen.first.len(), seen.orders, seen.most), (2, 3, seconds(3)));
    assert_eq!((seen.first[0].late, seen.first[0].order.details.item.as_str()), (seconds(3), "pizza"));

    let more = new_orders(3);
    t.place(&more).await;
    assert_eq!((t.backlog().await.first.len(), t.backlog().await.unsent), (UNSENT_LISTED, 7));
    t.deliver_all().await;
    let sent: Vec<_> = orders.iter().chain(&more).map(|order| order.order_id).collect();
    t.store.mark_sent(&sent).await.expect("marks");
    assert_eq!((late(5).await, t.backlog().await), (LateSteps::default(), Backlog::default()));
}

/// Promise 7: the story is true. An order that people move is late once its stage has taken too long, and no timer moves it.
pub(crate) async fn orders_that_people_have_not_moved_are_late_by_status(t: Fixture) {
    let late = async || t.store.late(2).await.expect("reads");
    let by_people = |(n, order): (i64, NewOrder)| NewOrder {
        start: Start { due_in: None, expected_in: Some(seconds(10 + n)) },
        ..order
    };
    let orders: Vec<NewOrder> = (0..).zip(new_orders(4)).map(by_people).collect();
    t.place(&orders).await;
    t.place(&new_orders(1)).await;
    assert_eq!(late().await, LateOrders::default());

    t.clock.advance(seconds(12));
    let seen = late().await;
    assert_eq!((seen.orders, seen.since), (PerStatus::from_iter([(Status::Placed, 2)]), None));
    let first: Vec<_> = seen.first.iter().map(|late| (late.order.order_id, late.late)).collect();
    assert_eq!(first, [(orders[0].order_id, seconds(2)), (orders[1].order_id, seconds(1))]);
    t.deliver_all().await;
    assert_eq!(late().await.orders[Status::Placed], 4, "no timer moves them");

    let report = |at: usize, status| OrderReport {
        order_id: orders[at].order_id,
        report: Report::of(EventKind::Reached(status), Source::Kitchen),
        if_match: None,
    };
    let reports = [report(0, Status::Cooking), report(1, Status::Delivered)];
    t.store.report(&reports, &Rules::default()).await.expect("reports");
    t.clock.advance(seconds(30));
    let expected = [(Status::Placed, 2), (Status::Cooking, 1)];
    assert_eq!(late().await.orders, PerStatus::from_iter(expected), "nothing is late at an end");
    assert_eq!(late().await.first.len(), 2);
}
