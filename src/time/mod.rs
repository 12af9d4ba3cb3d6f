//! The clock, the alarm that wakes a loop, the pauses between tries, and time limits.

mod alarm;
mod backoff;
mod clock;
pub mod deadlines;

pub use alarm::Alarm;
pub use backoff::Backoff;
#[cfg(test)]
pub(crate) use clock::VirtualClock;
pub use clock::{Clock, ManualClock, SystemClock};
