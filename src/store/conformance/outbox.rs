//! What the relay does with the outbox, and those who repair it.

use std::time::Duration;

use super::{Fixture, new_orders, seconds, start};
use crate::{
    order::{OrderId, OrderPlaced},
    store::{LOST_AFTER, NewOrder, Outbox, Republished, Store},
};

/// Says that it lives and claims up to `limit` rows that are nobody's, as a relay does.
pub(crate) async fn take(store: &dyn Store, limit: usize) -> Vec<OrderPlaced> {
    store.heartbeat().await.expect("lives");
    let unclaimed = store.unclaimed(None, limit).await.expect("reads");
    store.claim(&unclaimed).await.expect("claims")
}

fn ids(orders: &[NewOrder]) -> Vec<OrderId> {
    orders.iter().map(|order| order.order_id).collect()
}

fn messages(orders: &[NewOrder]) -> Vec<OrderPlaced> {
    let message = |order: &NewOrder| OrderPlaced::new(order.order_id, order.details.clone(), start());
    orders.iter().map(message).collect()
}

/// Promise 2: everything accepted reaches the topic. Rows are there until they are marked.
pub(crate) async fn unsent_rows_are_taken_once_and_stay_until_marked(t: Fixture) {
    let orders = new_orders(5);
    let ids = ids(&orders);
    t.store.place(&orders, Outbox::Anyones).await.expect("places");
    let unclaimed = async |after, limit| t.store.unclaimed(after, limit).await.expect("reads");
    assert_eq!(unclaimed(None, 3).await, ids[..3], "oldest first");
    assert_eq!(unclaimed(Some(ids[2]), 10).await, ids[3..], "from there on");
    assert_eq!(unclaimed(None, 10).await, ids, "reading takes nothing");

    let claim = async |ids: &[OrderId]| t.store.claim(ids).await.expect("claims");
    assert_eq!(claim(&[ids[4], ids[0]]).await, [messages(&orders[..1]), messages(&orders[4..])].concat());
    assert_eq!(unclaimed(None, 10).await, ids[1..4]);
    assert_eq!(take(&*t.replica, 10).await, messages(&orders[1..4]));
    assert_eq!(unclaimed(None, 10).await, [], "all are in somebody's hands");

    t.replica.release(&ids[1..2]).await.expect("releases");
    assert_eq!(take(&*t.store, 10).await, messages(&orders[1..2]));

    t.clock.advance(seconds(2));
    let backlog = t.backlog().await;
    assert_eq!((backlog.unsent, backlog.oldest_unsent), (5, Some(start())));
    assert_eq!(backlog.oldest_unsent_age, seconds(2));
    t.store.mark_sent(&ids).await.expect("marks");
    t.store.mark_sent(&ids).await.expect("marks again");
    assert_eq!((t.backlog().await.unsent, t.backlog().await.oldest_unsent), (0, None));
    assert_eq!(claim(&ids).await, [], "what is gone is not claimed");
}

/// Promise 2: everything accepted reaches the topic, and without faults once: nobody takes what
/// the writer has handed to its own relay.
pub(crate) async fn rows_in_memory_are_not_taken(t: Fixture) {
    t.place(&new_orders(3)).await;
    assert_eq!(t.store.unclaimed(None, 10).await.expect("reads"), []);
    assert_eq!(t.replica.unclaimed(None, 10).await.expect("reads"), []);
    assert_eq!(t.backlog().await.unsent, 3);
}

/// A claim whose answer got lost is made again.
pub(crate) async fn a_claim_may_be_repeated(t: Fixture) {
    let orders = new_orders(3);
    t.store.place(&orders, Outbox::Anyones).await.expect("places");
    let ids = ids(&orders);
    for _ in 0..2 {
        assert_eq!(t.store.claim(&ids[..2]).await.expect("claims"), messages(&orders[..2]));
    }
    t.store.heartbeat().await.expect("lives");
    t.replica.heartbeat().await.expect("lives");
    assert_eq!(t.replica.unclaimed(None, 10).await.expect("reads"), ids[2..]);
}

/// Promise 2: everything accepted reaches the topic. A claim whose answer got lost is found again.
pub(crate) async fn own_rows_that_nobody_holds_are_found(t: Fixture) {
    let orders = new_orders(3);
    t.place(&orders[..2]).await;
    t.store.place(&orders[2..], Outbox::Anyones).await.expect("places");
    take(&*t.store, 10).await;
    let held = [orders[0].order_id];
    let lost = async |held: &[OrderId]| t.store.lost(held, 10).await.expect("reads");
    t.clock.advance(LOST_AFTER);
    assert_eq!(lost(&held).await, [], "a write may still be under way");
    t.clock.advance(Duration::from_millis(1));
    assert_eq!(lost(&held).await, [orders[1].order_id, orders[2].order_id]);
    assert_eq!(lost(&[]).await.len(), 3);
    t.store.release(&[orders[2].order_id]).await.expect("releases");
    assert_eq!(lost(&held).await, [orders[1].order_id], "others look after the rest");
}

/// Promise 2: everything accepted reaches the topic, again if a broker has lost it.
pub(crate) async fn orders_are_published_again_once(t: Fixture) {
    let orders = new_orders(4);
    let ids = ids(&orders);
    t.store.place(&orders[..3], Outbox::Anyones).await.expect("places");
    t.store.mark_sent(&ids[..2]).await.expect("marks");
    t.clock.advance(seconds(60));
    let republish = async |ids: &[OrderId]| t.store.republish(ids).await.expect("writes");
    let [first, second, unsent, unknown] = ids[..] else { unreachable!("four were made") };
    let [queued, waiting] = [Republished::Queued, Republished::Waiting];
    assert_eq!(republish(&[second, unknown, unsent]).await, [queued, Republished::Unknown, waiting]);
    assert_eq!(republish(&[second, first]).await, [waiting, queued]);
    assert_eq!(t.backlog().await.oldest_unsent_age, seconds(60), "of the one that was never sent");
    assert_eq!(take(&*t.replica, 10).await, messages(&orders[..3]), "as they were the first time");
    t.store.mark_sent(&ids[2..]).await.expect("marks");
    assert_eq!(t.backlog().await.oldest_unsent_age, seconds(0), "the others wait since now");
}
