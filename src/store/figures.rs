//! How much there is, and how far it is looked for.

use crate::order::Timestamp;

/// The oldest unsent order is looked for among so many with the smallest ids, which are the first placed.
pub(super) const OLDEST_OF: usize = 1_000;

/// Orders by status.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// In the order of the life cycle, each up to [`COUNTED_TO`](crate::order::COUNTED_TO).
    pub orders: [u64; 5],
    /// Orders in progress that were placed before this moment were not counted, since too many dead entries lie
    /// among them; `None` if all were.
    pub since: Option<Timestamp>,
}
