//! What the board asks for.

use super::{Fixture, new_orders, seconds};
use crate::store::Attention;

pub(crate) async fn what_needs_a_look_comes_oldest_first_and_is_counted(t: Fixture) {
    let attention = async |limit| t.store.attention(seconds(2), limit).await.expect("reads");
    assert_eq!(attention(5).await, Attention::default());
    let orders = new_orders(4);
    t.place(&orders[..3]).await;
    t.clock.advance(seconds(4));
    t.place(&orders[3..]).await;

    let seen = attention(5).await;
    assert_eq!((seen.overdue.len(), seen.overdue_orders), (0, 0), "one second late is not late yet");
    assert_eq!(seen.unsent.iter().map(|row| row.age).collect::<Vec<_>>(), [4, 4, 4, 0].map(seconds));
    assert_eq!(seen.unsent[0].order_id, orders[0].order_id);

    t.clock.advance(seconds(2));
    let seen = attention(2).await;
    assert_eq!((seen.overdue.len(), seen.overdue_orders, seen.unsent.len()), (2, 3, 2));
    assert_eq!((seen.overdue[0].late, seen.overdue[0].order.draft.item.as_str()), (seconds(3), "pizza"));

    t.deliver_all().await;
    t.store.mark_sent(&orders.iter().map(|order| order.order_id).collect::<Vec<_>>()).await.expect("marks");
    assert_eq!(attention(5).await, Attention::default());
}
