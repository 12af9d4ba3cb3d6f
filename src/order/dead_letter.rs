//! What lies on the dead-letter topic, as it was last read.

use std::collections::BTreeMap;

use tokio::time::Instant;

use super::{RejectReason, Timestamp};

/// The reason of dead letters that name none of ours: others wrote them.
pub const OTHER: &str = "other";

/// Dead letters that nobody has requeued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetterBacklog {
    /// How many, by reason; reasons without any are not there.
    pub by_reason: BTreeMap<&'static str, u64>,
    /// There may be more: what is older was not read.
    pub more: bool,
    /// A few of them, the newest first.
    pub newest: Vec<DeadLetterRef>,
    /// When the topic was looked at.
    pub at: Instant,
}

impl DeadLetterBacklog {
    /// How many in all.
    pub fn total(&self) -> u64 {
        self.by_reason.values().sum()
    }
}

/// Enough of a dead letter to find it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetterRef {
    /// Where it lies, as `dead-letters show` takes it.
    pub place: String,
    /// Why it could not become an order.
    pub reason: &'static str,
    /// When it was written.
    pub written: Timestamp,
}

/// All reasons.
pub fn reasons() -> impl Iterator<Item = &'static str> {
    RejectReason::ALL.into_iter().map(RejectReason::as_str).chain([OTHER])
}
