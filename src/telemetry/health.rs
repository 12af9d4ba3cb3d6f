//! How a part of the service says that it is up or down.

use tokio::sync::watch;

/// What was last seen of a part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
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
pub type Watcher = watch::Receiver<Health>;

/// A condition that nobody has looked at yet.
pub fn channel() -> (watch::Sender<Health>, Watcher) {
    watch::channel(Health::Unknown)
}
