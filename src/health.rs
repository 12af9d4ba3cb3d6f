//! How a part of the service says that it is up or down.

use tokio::sync::watch;

/// What was last seen of a part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// Not looked at yet.
    Unknown,
    /// It answers.
    Up,
    /// It works, but something is wrong, and what.
    Degraded(String),
    /// It does not, and why.
    Down(String),
}

/// Where others read the condition.
pub type Watcher = watch::Receiver<Condition>;

/// A condition that nobody has looked at yet.
pub fn unknown() -> (watch::Sender<Condition>, Watcher) {
    watch::channel(Condition::Unknown)
}
