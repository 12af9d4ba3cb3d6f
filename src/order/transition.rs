//! A step that an order has made.

use super::{OrderId, Status};

/// One step of one order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transition {
    /// Whose step.
    pub order_id: OrderId,
    /// The status before.
    pub from: Status,
    /// The status after.
    pub to: Status,
    /// The position of its event in the order's timeline.
    pub seq: u32,
}
