//! The dead letters: which of them nobody has requeued, read from what is new on their topic.

mod index;
mod monitor;

pub use monitor::DeadLetterMonitor;
