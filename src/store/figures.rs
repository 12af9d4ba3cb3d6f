//! How much there is, and how far it is looked for.

use crate::order::{PerStatus, Timestamp};

/// The oldest unsent order is looked for among so many with the smallest ids, which are the first placed.
pub(super) const OLDEST_OF: usize = 1_000;

/// Orders by status.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// By status, each up to [`COUNTED_TO`](crate::order::COUNTED_TO).
    pub orders: PerStatus<u64>,
    /// Orders in progress that were placed before this moment were not counted, since too many dead entries lie
    /// among them; `None` if all were.
    pub since: Option<Timestamp>,
}

impl Counts {
    /// What can be told as a figure of the whole database; `None` if not all was counted.
    pub fn known(&self) -> Option<&PerStatus<u64>> {
        self.since.is_none().then_some(&self.orders)
    }
}
