//! What each part of the service says of itself: one registry, written by whoever does the work, read by whoever
//! is asked.

use std::ops::Index;

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
}

impl Part {
    /// All parts, in the order in which they are told.
    pub const ALL: [Self; 6] =
        [Self::Database, Self::Broker, Self::Relay, Self::Consumer, Self::DeadLetters, Self::Scheduler];

    /// Its name wherever it is told.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Database => "database",
            Self::Broker => "broker",
            Self::Relay => "relay",
            Self::Consumer => "consumer",
            Self::DeadLetters => "dead_letters",
            Self::Scheduler => "scheduler",
        }
    }
}

/// What was last seen of every part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conditions([Health; Part::ALL.len()]);

impl Index<Part> for Conditions {
    type Output = Health;

    fn index(&self, part: Part) -> &Health {
        &self.0[part as usize]
    }
}

/// The registry. Cheap enough to clone for whoever needs one.
#[derive(Debug, Clone)]
pub struct PartsHealth([watch::Sender<Health>; Part::ALL.len()]);

impl Default for PartsHealth {
    /// Nobody has looked at anything yet.
    fn default() -> Self {
        Self(Part::ALL.map(|_| watch::Sender::new(Health::Unknown)))
    }
}

impl PartsHealth {
    /// Where a part says how it is.
    pub fn reporter(&self, part: Part) -> watch::Sender<Health> {
        self.0[part as usize].clone()
    }

    /// Where others follow how a part is.
    pub fn watcher(&self, part: Part) -> Watcher {
        self.0[part as usize].subscribe()
    }

    /// How all parts are now.
    pub fn read(&self) -> Conditions {
        Conditions(Part::ALL.map(|part| self.0[part as usize].borrow().clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_is_read_as_it_was_reported() {
        let parts = PartsHealth::default();
        let watcher = parts.watcher(Part::Relay);
        parts.reporter(Part::Relay).send_replace(Health::Degraded("slow".to_owned()));
        for part in Part::ALL {
            let expected =
                if part == Part::Relay { Health::Degraded("slow".to_owned()) } else { Health::Unknown };
            assert_eq!(parts.read()[part], expected, "{part:?}");
        }
        assert_eq!(*watcher.borrow(), parts.read()[Part::Relay]);
        assert_eq!(Part::ALL.map(|part| part as usize), [0, 1, 2, 3, 4, 5]);
    }
}
