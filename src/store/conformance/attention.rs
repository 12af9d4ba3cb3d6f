//! What the board asks for.

use super::{Fixture, new_orders, seconds};
use crate::store::{Backlog, LateSteps, UNSENT_LISTED};

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
