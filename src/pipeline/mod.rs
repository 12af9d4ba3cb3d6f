//! The loops that carry an order from the queue to its delivery.
//!
//! `batch_writer` stores what was handed in, `report_writer` what was reported, `relay` publishes it, `consumer` reads the topic back,
//! `scheduler` makes due steps, `event_relay` puts every event on its topic, `sampler` measures what waits, `upkeep` throws old idempotency keys away, `key_reader` knows which API keys are good; before all, `migration` brings the schema up
//! to date. Each is a public `step()` inside a
//! small `run()`; tests call `step`. Every queue between them is bounded.
//!
//! Invariant: a loop never gives up on trouble; it says so once per pause and tries again.

mod batch_writer;
mod consumer;
mod event_relay;
mod key_reader;
mod migration;
mod postponed;
mod relay;
mod report_writer;
mod sampler;
mod scheduler;
pub mod simulator;
#[cfg(test)]
mod tests;
mod upkeep;

pub use batch_writer::{BatchWriter, WRITTEN_AT_ONCE};
pub use consumer::Consumer;
pub use event_relay::EventRelay;
pub use key_reader::KeyReader;
pub use migration::Migration;
pub use relay::Relay;
pub use report_writer::ReportWriter;
pub use sampler::Sampler;
pub use scheduler::Scheduler;
pub use upkeep::Upkeep;

use std::fmt;

use crate::{broker::BrokerError, store::StoreError, time::Backoff};

/// What a step came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// So many orders, messages or receipts were worked on.
    Worked(usize),
    /// There was nothing to do.
    Idle,
    /// Nothing will come any more: the queue is closed and empty.
    Finished,
}

/// Why a step failed; the same step may succeed later.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// The database's fault.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The broker's fault.
    #[error("the broker is unavailable: {0}")]
    Broker(#[from] BrokerError),
}

/// Says what failed and pauses, longer each time. Who is told to stop meanwhile drops it.
async fn pause(name: &str, backoff: &mut Backoff, error: &(dyn fmt::Display + Sync)) {
    let pause = backoff.next_pause();
    tracing::warn!(%error, "{name} will try again in {pause:?}");
    tokio::time::sleep(pause).await;
}
