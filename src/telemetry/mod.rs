//! What the service says of itself: metrics, how each part is, and which requests a line of the log is about.

#[cfg(test)]
pub(crate) mod captured;
pub mod health;
mod lines;
pub mod metrics;
mod request_id;

pub use lines::WithRequestId;
pub use request_id::RequestId;
