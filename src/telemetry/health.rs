//! What each part of the service says of itself: one registry, written by whoever does the work, read by whoever
//! is asked.

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
    /// An issue that names no order.
    pub fn new(kind: IssueKind, text: impl Into<String>) -> Self {
        Self { kind, order_id: None, others: true, text: text.into() }
    }

    /// An issue of one order.
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

/// Where others read a part's health.
pub type Watcher = watch::Receiver<Health>;

/// The two ends of one part that is tested alone.
#[cfg(test)]
pub(crate) fn channel() -> (watch::Sender<Health>, Watcher) {
    watch::channel(Health::Unknown)
}

/// A part that can be well or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Says nothing of itself: how it is shows in what was read from it.
    Database,
    /// Whether it can be reached.
    Broker,
    /// Whether orders are published.
    Relay,
    /// Whether the topic is read.
    Consumer,
    /// Whether the dead-letter topic can be used.
    DeadLetters,
    /// Whether steps are made.
    Scheduler,
    /// Whether events are put on their topic.
    Events,
    /// Whether it is known which keys are good.
    Keys,
}

impl Part {
    /// All parts, in the order in which they are told.
    pub const ALL: [Self; 8] = [
        Self::Database,
        Self::Broker,
        Self::Relay,
        Self::Consumer,
        Self::DeadLetters,
        Self::Scheduler,
        Self::Events,
        Self::Keys,
    ];

    /// Its name wherever it is told.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Database => "database",
            Self::Broker => "broker",
            Self::Relay => "relay",
            Self::Consumer => "consumer",
            Self::DeadLetters => "dead_letters",
            Self::Scheduler => "scheduler",
            Self::Events => "events",
            Self::Keys => "keys",
        }
    }
}

/// What each part said of itself at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartsHealth {
    /// Whether the broker can be reached.
    pub broker: Health,
    /// Whether orders are published.
    pub relay: Health,
    /// Whether the topic is read.
    pub consumer: Health,
    /// Whether the dead-letter topic can be used.
    pub dead_letters: Health,
    /// Whether steps are made.
    pub scheduler: Health,
    /// Whether events are put on their topic, as far as that is this replica's work.
    pub events: Health,
    /// Whether it is known which keys are good; unknown where nobody is asked for one.
    pub keys: Health,
}

/// The registry. Cheap enough to clone for whoever needs one.
#[derive(Debug, Clone)]
pub struct HealthRegistry([watch::Sender<Health>; Part::ALL.len()]);

impl Default for HealthRegistry {
    /// Nobody has looked at anything yet.
    fn default() -> Self {
        Self(Part::ALL.map(|_| watch::Sender::new(Health::Unknown)))
    }
}

impl HealthRegistry {
    /// Where a part says how it is.
    pub fn reporter(&self, part: Part) -> watch::Sender<Health> {
        self.0[part as usize].clone()
    }

    /// Where others follow how a part is.
    pub fn watcher(&self, part: Part) -> Watcher {
        self.0[part as usize].subscribe()
    }

    /// How all parts are now.
    pub fn read(&self) -> PartsHealth {
        let health = |part: Part| self.0[part as usize].borrow().clone();
        PartsHealth {
            broker: health(Part::Broker),
            relay: health(Part::Relay),
            consumer: health(Part::Consumer),
            dead_letters: health(Part::DeadLetters),
            scheduler: health(Part::Scheduler),
            events: health(Part::Events),
            keys: health(Part::Keys),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_is_read_as_it_was_reported() {
        let parts = HealthRegistry::default();
        let watcher = parts.watcher(Part::Relay);
        for part in Part::ALL {
            parts.reporter(part).send_replace(Health::Down(part.as_str().to_owned()));
        }
        let down = |name: &str| Health::Down(name.to_owned());
        let expected = PartsHealth {
            broker: down("broker"),
            relay: down("relay"),
            consumer: down("consumer"),
            dead_letters: down("dead_letters"),
            scheduler: down("scheduler"),
            events: down("events"),
            keys: down("keys"),
        };
        assert_eq!(parts.read(), expected);
        assert_eq!(*watcher.borrow(), expected.relay);
    }
}
