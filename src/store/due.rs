//! What is said of due steps: which a look is for, and what it did.

use std::time::Duration;

use super::MOVED_AT_ONCE;
use crate::order::{OrderId, Timestamp, Transition, promises::OVERDUE_AFTER};

/// How long a few may take: whoever can be moved needs some milliseconds.
const FEW: Duration = Duration::from_millis(25);
/// How much more for each that there may be.
pub(super) const EACH: Duration = Duration::from_micros(225);
/// How long one may take that had too little time among others.
pub const SOON: Duration = Duration::from_millis(100);
const _: () = assert!(
    2 * (FEW.as_millis() + EACH.as_micros() * MOVED_AT_ONCE as u128 / 1_000) + 40 * FEW.as_millis()
        < OVERDUE_AFTER.as_millis(),
    "whoever is due beside some that can't be moved is found in time, where another replica meets them too"
);

/// How long a call may take that moves up to so many; the store gives more where it moves nothing so soon.
pub fn moved_within(orders: usize) -> Duration {
    FEW + EACH * u32::try_from(orders).unwrap_or(u32::MAX)
}

/// Which due orders a look is for, and how soon it is given up: a set that holds one order that can't be moved keeps all
/// others of it waiting for so long.
#[derive(Debug, Clone, Copy)]
pub enum Due<'a> {
    /// Up to `limit` of those that have become due since the last look, most overdue first, given up [`moved_within`] a time.
    Soonest {
        /// At most so many.
        limit: usize,
        /// Only those after this place.
        after: Option<DueKey>,
    },
    /// The same of those that became visible late, that somebody held, or that a look was told to begin after.
    /// It looks from time to time only, and at a part of them each time.
    Overlooked {
        /// At most so many.
        limit: usize,
        /// Only those after this place.
        after: Option<DueKey>,
        /// Left out.
        except: &'a [OrderId],
    },
    /// These, if they are due, given up [`moved_within`] a time: a part of a set that failed, so one may be too slow.
    Part(&'a [OrderId]),
    /// These, if they are due, within [`SOON`]: they had too little time before.
    SecondChance(&'a [OrderId]),
    /// This one, if it is due, for as long as a statement may take.
    Alone(OrderId),
}

/// A place in the order in which steps are due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct DueKey {
    /// When a step is due.
    pub due_at: Timestamp,
    /// Whose, among those that are due at the same time.
    pub order_id: OrderId,
}

/// Orders that are due.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DueOrders {
    /// Most overdue first.
    pub order_ids: Vec<OrderId>,
    /// The place of the last; none if there is none.
    pub last: Option<DueKey>,
}

/// What [`advance_due`](super::OrderStore::advance_due) did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Advance {
    /// Every step made, in the order made.
    pub transitions: Vec<Transition>,
    /// How long until the next step is due, counted from the answer; zero if more was due than the limit
    /// allowed, `None` if none waits.
    pub next_due_in: Option<Duration>,
}

impl Advance {
    /// How many orders were moved.
    pub fn orders(&self) -> usize {
        self.transitions.chunk_by(|one, next| one.order_id == next.order_id).count()
    }
}
