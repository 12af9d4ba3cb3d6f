//! What is promised, in numbers: each stands here once, and code, alerts and documents are held to it.

use std::time::Duration;

/// An overdue step is made within so long of a replica being back; a step that is later is overdue.
pub const OVERDUE_AFTER: Duration = Duration::from_secs(2);

/// An order is on the topic within so long while the broker is there.
pub const PUBLISHED_WITHIN: Duration = Duration::from_secs(10);
