//! What waits: orders that are not published, steps that are late.
//!
//! Whatever is counted is counted up to [`COUNTED_TO`], so the price of a look is the same however many orders are
//! stored or wait. A figure that could not be read from the beginning in time says since when it was.

use std::time::Duration;

use super::{Order, OrderId, PerStatus, Timestamp};

/// How far anything is counted.
pub const COUNTED_TO: i64 = 10_000;

/// How many unsent orders are listed.
pub const UNSENT_LISTED: usize = 5;

/// Orders that wait to be published.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Outbox rows that no broker has acknowledged, up to [`COUNTED_TO`].
    pub unsent: u64,
    /// When the oldest of them was written.
    pub oldest_unsent: Option<Timestamp>,
    /// How long ago the oldest of them was written.
    pub oldest_unsent_age: Duration,
    /// The first of them, up to [`UNSENT_LISTED`], oldest first.
    pub first: Vec<Unsent>,
    /// Rows of orders placed before this moment were not read, since too many dead ones lie among them; `None`
    /// if all were.
    pub since: Option<Timestamp>,
}

/// An order that no broker has acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unsent {
    /// Whose message it is.
    pub order_id: OrderId,
    /// How long it has been waiting.
    pub age: Duration,
}

/// Steps that are late.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LateSteps {
    /// How late the most overdue step is, however little that may be.
    pub most: Duration,
    /// How many orders are later than was asked for, up to [`COUNTED_TO`].
    pub orders: u64,
    /// The first of these, most overdue first.
    pub first: Vec<Overdue>,
    /// Steps due before this moment were not read, since too many dead entries lie among them; `None` if all were.
    pub since: Option<Timestamp>,
}

impl LateSteps {
    /// How late the most overdue step is, at least; `None` if that is not known.
    pub fn known(&self) -> Option<Duration> {
        (self.since.is_none() || self.most > Duration::ZERO).then_some(self.most)
    }
}

/// Orders that people move and have not moved in time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LateOrders {
    /// By status, each up to [`COUNTED_TO`].
    pub orders: PerStatus<u64>,
    /// The first of them, the one that is late the longest first.
    pub first: Vec<Overdue>,
    /// Those expected before this moment were not counted, since too many dead entries lie among them; `None` if all were.
    pub since: Option<Timestamp>,
}

impl LateOrders {
    /// What can be told as a figure of the whole database; `None` if not all was counted.
    pub fn known(&self) -> Option<&PerStatus<u64>> {
        self.since.is_none().then_some(&self.orders)
    }
}

/// An order whose next step is late.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overdue {
    /// The order, still in the status before.
    pub order: Order,
    /// How late the step is.
    pub late: Duration,
}
