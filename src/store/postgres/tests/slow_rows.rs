//! Sets with one row that takes too long: how soon they are given up, and that it goes alone.

use super::{fixture, new_order};
use crate::{
    order::{OrderId, OrderPlaced},
    store::{
        Admission, Incoming, NewOrder, Outbox, Portion, StoreError,
        conformance::{Fixture, start},
        in_portions, written_within,
    },
};

/// How many there are, and which of them is slow.
const ORDERS: usize = 100;
const SLOW: usize = 50;

fn orders() -> Vec<NewOrder> {
    (0..ORDERS).map(|_| new_order()).collect()
}

/// From now on the row of this order takes longer than any set may, and less than a statement.
async fn slow_down(t: &Fixture, what: &str, order_id: OrderId) {
    let function = format!(
        "CREATE OR REPLACE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             IF (CASE TG_OP WHEN 'DELETE' THEN OLD.order_id ELSE NEW.order_id END) = '{order_id}' THEN
                 PERFORM pg_sleep(0.5);
             END IF;
             IF TG_OP = 'DELETE' THEN RETURN OLD; END IF;
             RETURN NEW;
         END $$"
    );
    let name = what.replace(' ', "_");
    let trigger = format!("CREATE TRIGGER slow_{name} BEFORE {what} FOR EACH ROW EXECUTE FUNCTION slow()");
    for statement in [function, trigger] {
        (t.by_hand)(&statement).await.expect("is made");
    }
}

fn too_slow<T>() -> Result<Vec<T>, StoreError> {
    Err(StoreError::Timeout(written_within(ORDERS)))
}

/// Promise 5: memory, queues and time are bounded. Whoever comes with one that takes too long waits for a fraction of what a
/// statement may take, and it has as long as that alone.
#[tokio::test]
#[cfg_attr(not(with_postgres), ignore = "left out: needs PG_DSN")]
async fn a_slow_arrival_is_found_soon_and_goes_alone() {
    let t = fixture().await;
    let orders = orders();
    slow_down(&t, "INSERT ON orders", orders[SLOW].order_id).await;
    let incoming = |order: &NewOrder| Incoming {
        placed: OrderPlaced::new(order.order_id, order.details.clone(), start()),
        meta: None,
        start: order.start,
    };
    let incoming: Vec<Incoming> = orders.iter().map(incoming).collect();
    assert_eq!(t.store.admit(&incoming).await, too_slow());
    let portion = Portion::new(ORDERS);
    let answers = in_portions(&portion, ORDERS, |part| t.store.admit(&incoming[part])).await;
    let waiting: Vec<usize> = (0..ORDERS).filter(|at| answers[*at].is_err()).collect();
    assert_eq!(waiting, [SLOW]);
    assert_eq!(t.store.admit_alone(&incoming[SLOW]).await, Ok(Admission::Admitted));
}

/// The same of what the relay writes.
#[tokio::test]
#[cfg_attr(not(with_postgres), ignore = "left out: needs PG_DSN")]
async fn a_slow_outbox_row_is_found_soon_and_goes_alone() {
    let t = fixture().await;
    let orders = orders();
    let ids: Vec<OrderId> = orders.iter().map(|order| order.order_id).collect();
    t.store.place(&orders, Outbox::Mine).await.expect("places");
    slow_down(&t, "UPDATE ON outbox", ids[SLOW]).await;
    assert_eq!(t.store.claim(&ids).await, too_slow());
    assert_eq!(t.store.release(&ids).await, too_slow());
    assert_eq!(t.store.release(&ids[SLOW..=SLOW]).await, Ok(vec![]));
    assert_eq!(t.store.claim(&ids[SLOW..=SLOW]).await.map(|claimed| claimed.len()), Ok(1));
    slow_down(&t, "DELETE ON outbox", ids[SLOW]).await;
    // One that does not know yet how long some rows take.
    assert_eq!(t.replica.mark_sent(&ids).await, too_slow());
    let mark =
        async |ids: &[OrderId]| t.replica.mark_sent(ids).await.map(|held| vec![held.is_empty(); ids.len()]);
    let answers = in_portions(&Portion::new(ORDERS), ORDERS, |part| mark(&ids[part])).await;
    assert_eq!(answers, vec![Ok(true); ORDERS]);
    assert_eq!(t.store.backlog().await.expect("reads").unsent, 0);
}
