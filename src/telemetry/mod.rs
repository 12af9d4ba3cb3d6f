//! Which requests a line of the log is about.

#[cfg(test)]
pub(crate) mod captured;
mod lines;
mod request_id;

pub use lines::WithRequestId;
pub use request_id::RequestId;
