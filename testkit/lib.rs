//! What tests of the whole service and the benchmark share: the binary as a process, a database and a topic of one's
//! own, readers of the topic and of event streams, and the real servers with the ways to break them.

pub mod proc;
mod process;
mod servers;
mod sse;
mod stack;
mod topic;

use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::time::{Instant, sleep};

pub use process::{Frozen, Process, command, signal};
pub use servers::{Part, Servers, tool};
pub use sse::{EventStream, Frame};
pub use stack::{Settings, Stack, variable};
pub use topic::{MAX_BYTES, Message, Topic, TopicReader};

/// Pause between two looks at something that is awaited.
pub const POLL: Duration = Duration::from_millis(20);

/// A whole timeline.
pub const SIX: [&str; 6] = ["CREATED", "PLACED", "PREPARING", "COOKING", "OUT_FOR_DELIVERY", "DELIVERED"];

/// Looks until there is something to see.
pub async fn until<T>(
    patience: Duration,
    what: &str,
    mut look: impl AsyncFnMut() -> Result<Option<T>>,
) -> Result<T> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(found) = look().await? {
            return Ok(found);
        }
        ensure!(Instant::now() < deadline, "not within {patience:?}: {what}");
        sleep(POLL).await;
    }
}
