//! What is said of due steps: which a look is for, and what it did.

use std::time::Duration;

use crate::order::{OrderId, Timestamp, Transition};

/// How long several may take, one of which made a larger set fail.
pub const SOON: Duration = Duration::from_millis(100);

/// Which due orders a look is for.
#[derive(Debug, Clone, Copy)]
pub enum Due<'a> {
    /// Up to `limit` of those that have become due since the last look, most overdue first.
    Soonest {
        /// At most so many.
        limit: usize,
        /// Only those after this place.
        after: Option<Place>,
    },
    /// The same of those that became visible late, that somebody held, or that a look was told to begin after.
    /// It looks from time to time only, and at a part of them each time.
    Overlooked {
        /// At most so many.
        limit: usize,
        /// Only those after this place.
        after: Option<Place>,
        /// Left out.
        except: &'a [OrderId],
    },
    /// These, if they are due; given up soon, since one of them may be too slow.
    These(&'a [OrderId]),
    /// This one, if it is due, for as long as a statement may take.
    Alone(OrderId),
}

/// A place in the order in which steps are due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
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
    pub last: Option<Place>,
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
