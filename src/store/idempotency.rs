//! What an idempotency key means, the same for every adapter.

use std::collections::HashMap;

use super::{IdempotencyKey, NewOrder, Placement};
use crate::order::{OrderDetails, OrderId, OrderPlaced, Timestamp};

/// What an order's key says about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KeyVerdict {
    /// It has no key, or its key is its own: write it.
    Fresh,
    /// The key belongs to this order, which is the same.
    Replayed(OrderId),
    /// The key belongs to an order that is not the same.
    KeyReused,
}

/// Judges a batch by the orders that its keys belong to already; a key that is free goes to the
/// first order of the batch that brings it.
pub(super) fn judge<'a>(
    orders: &'a [NewOrder],
    mut held: HashMap<&'a IdempotencyKey, (OrderId, OrderDetails)>,
) -> Vec<KeyVerdict> {
    let judge = |order: &'a NewOrder| {
        let Some(key) = &order.key else { return KeyVerdict::Fresh };
        let (holder, details) = held.entry(key).or_insert_with(|| (order.order_id, order.details.clone()));
        if *details != order.details {
            KeyVerdict::KeyReused
        } else if *holder != order.order_id {
            KeyVerdict::Replayed(*holder)
        } else {
            KeyVerdict::Fresh
        }
    };
    orders.iter().map(judge).collect()
}

/// The orders of a batch that are to be written.
pub(super) fn fresh<'a>(orders: &'a [NewOrder], verdicts: &[KeyVerdict]) -> Vec<&'a NewOrder> {
    let pairs = orders.iter().zip(verdicts).filter(|(_, verdict)| **verdict == KeyVerdict::Fresh);
    pairs.map(|(order, _)| order).collect()
}

/// The answers for a batch; `created_at` knows when each written order was created.
pub(super) fn placements(
    orders: &[NewOrder],
    verdicts: &[KeyVerdict],
    created_at: impl Fn(OrderId) -> Timestamp,
) -> Vec<Placement> {
    let answer = |(order, verdict): (&NewOrder, &KeyVerdict)| match verdict {
        KeyVerdict::Replayed(holder) => Placement::Replayed(*holder),
        KeyVerdict::KeyReused => Placement::KeyReused,
        KeyVerdict::Fresh => {
            let created_at = created_at(order.order_id);
            Placement::Placed(OrderPlaced::new(order.order_id, order.details.clone(), created_at))
        }
    };
    orders.iter().zip(verdicts).map(answer).collect()
}
