//! How a part of the service says that it is up or down.

use std::fmt;

use tokio::sync::watch;

use crate::order::OrderId;

/// What was last seen of a part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// Not looked at yet.
    Unknown,
    /// It answers.
    Up,
    /// It works, but something is wrong, and what.
    Degraded(Issues),
    /// It does not, and why.
    Down(String),
}

impl Health {
    /// What is wrong, in words; `None` if nothing is or nobody knows.
    pub fn reason(&self) -> Option<String> {
        match self {
            Self::Unknown | Self::Up => None,
            Self::Degraded(issues) => Some(issues.to_string()),
            Self::Down(reason) => Some(reason.clone()),
        }
    }
}

/// All that is wrong with a part that works otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issues(pub Vec<Issue>);

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issue {
    /// What kind of thing.
    pub kind: IssueKind,
    /// The order that it is about, if it names one.
    pub order_id: Option<OrderId>,
    /// Whether it is about orders that it does not name.
    pub others: bool,
    /// In words.
    pub text: String,
}

/// Kinds of issue that lead to different work for a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IssueKind {
    /// Partitions take no orders.
    Partition,
    /// The broker refuses orders.
    Refused,
    /// Orders can't be moved.
    Held,
    /// Anything else.
    Other,
}

impl Issue {
    /// A issue that names no order.
    pub fn new(kind: IssueKind, text: impl Into<String>) -> Self {
        Self { kind, order_id: None, others: true, text: text.into() }
    }

    /// A issue of one order.
    pub fn about(kind: IssueKind, order_id: OrderId, text: impl Into<String>) -> Self {
        Self { order_id: Some(order_id), others: false, ..Self::new(kind, text) }
    }

    /// Whether it may be about this order.
    pub fn may_be_of(&self, order_id: OrderId) -> bool {
        self.others || self.order_id == Some(order_id)
    }
}

impl fmt::Display for Issues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, issue) in self.0.iter().enumerate() {
            let before = if n == 0 { "" } else { "; " };
            write!(f, "{before}{}", issue.text)?;
        }
        Ok(())
    }
}

impl<T: Into<String>> From<T> for Issues {
    fn from(text: T) -> Self {
        Self(vec![Issue::new(IssueKind::Other, text)])
    }
}

/// Where others read the health of a part.
pub type Watcher = watch::Receiver<Health>;

/// The health of a part that nobody has looked at yet.
pub fn channel() -> (watch::Sender<Health>, Watcher) {
    watch::channel(Health::Unknown)
}
