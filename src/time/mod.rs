//! The clock, the alarm that wakes a loop, and the pauses between tries.

mod alarm;
mod backoff;
mod clock;
pub mod deadlines;

pub use alarm::Alarm;
pub use backoff::Backoff;
#[cfg(test)]
pub(crate) use clock::VirtualClock;
pub use clock::{Clock, ManualClock, SystemClock};
