//! What people and machines report of an order: what a report may say, and what becomes of it.
//!
//! The judge is a function: a timeline, a report and a moment in, what is written or why nothing is out. Stores hand in
//! what they have read and write what comes back; `http`, pages and commands show the same answer.

mod batch;
mod judge;
mod request;
mod words;

pub use batch::ReportItem;
pub(super) use judge::MadeSteps;
pub use judge::{
    Change, Conflict, EventFacts, Ignored, Rules, Steps, Verdict, allowed, events_of, judge, transitions_of,
};
pub(super) use request::{MAX_ID_CHARS, MAX_NOTE_CHARS, MAX_STATION_CHARS};
pub(crate) use request::{MAX_MINUTES, MAX_POSITION};
pub use request::{ReportErrors, ReportRequest};
pub use words::{Reason, Source};

use serde_json::{Map, Value, json};

use super::{EventKind, Role, Timestamp};

/// Most events of an order; beyond, only what steps it is taken.
pub const MAX_EVENTS: usize = 256;

/// Who reports, where keys tell that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reporter {
    /// What he may report.
    pub role: Role,
    /// The name of his key.
    pub name: String,
}

/// A report that may be made, whatever the order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// What happened.
    pub event: EventKind,
    /// The sender's name for it: the same one again changes nothing.
    pub id: Option<String>,
    /// When they say that it happened.
    pub occurred_at: Option<Timestamp>,
    /// Why.
    pub reason: Option<Reason>,
    /// By how many minutes the order is delayed.
    pub minutes: Option<u16>,
    /// What else there is to say, for those who work on the order.
    pub note: Option<String>,
    /// Where in the kitchen.
    pub station: Option<String>,
    /// Who says so.
    pub source: Source,
    /// Under which name.
    pub by: Option<String>,
    /// In which role; `None` where nobody is asked who he is, and everything may be reported.
    pub role: Option<Role>,
    /// Which position a REVERTED takes back; the latest, if it does not say.
    pub reverts: Option<u32>,
}

impl Report {
    /// The kinds that a report may have, in the order of the contract.
    pub const KINDS: [EventKind; 12] = {
        let mut kinds = [EventKind::Created; 12];
        let mut at = 0;
        while at < kinds.len() {
            // After CREATED and PLACED, and without ERASED.
            kinds[at] = EventKind::ALL[at + 2];
            at += 1;
        }
        kinds
    };

    /// A report of this kind that says nothing else.
    pub fn of(event: EventKind, source: Source) -> Self {
        Self {
            event,
            id: None,
            occurred_at: None,
            reason: None,
            minutes: None,
            note: None,
            station: None,
            source,
            by: None,
            role: None,
            reverts: None,
        }
    }

    /// Whether who reports may report such a thing, whatever the order.
    pub fn is_for_its_role(&self) -> bool {
        self.role.is_none_or(|role| role.may_report(self.event, self.reason))
    }

    /// What was said, but for the note: the same values are the same report.
    pub fn said(&self) -> Value {
        let mut said = self.told();
        said.insert("event".to_owned(), json!(self.event));
        if let Some(reverts) = self.reverts {
            said.insert("reverts".to_owned(), json!(reverts));
        }
        Value::Object(said)
    }

    /// What its event says of it, but for the note.
    fn told(&self) -> Map<String, Value> {
        let mut told = Map::new();
        told.insert("source".to_owned(), json!(self.source));
        let mut tell = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                told.insert(name.to_owned(), value);
            }
        };
        tell("by", self.by.as_ref().map(|by| json!(by)));
        tell("occurred_at", self.occurred_at.map(|at| json!(super::rfc3339(at))));
        tell("reason", self.reason.map(|reason| json!(reason)));
        tell("minutes", self.minutes.map(|minutes| json!(minutes)));
        tell("station", self.station.as_ref().map(|station| json!(station)));
        told
    }

    /// What is said of an event that nobody reported: a later report skipped it.
    fn inferred(&self) -> Value {
        let mut told = Map::new();
        told.insert("source".to_owned(), json!(self.source));
        if let Some(by) = &self.by {
            told.insert("by".to_owned(), json!(by));
        }
        told.insert("inferred".to_owned(), json!(true));
        Value::Object(told)
    }
}

/// What is said of an order that nobody took in time.
pub fn not_accepted() -> Value {
    json!({"source": Source::Timer, "reason": Reason::NotAccepted})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::order::Status;

    #[test]
    fn a_report_may_be_of_what_people_do() {
        let none = [EventKind::Created, EventKind::Reached(Status::Placed), EventKind::Erased];
        let expected: Vec<EventKind> =
            EventKind::ALL.into_iter().filter(|kind| !none.contains(kind)).collect();
        assert_eq!(Report::KINDS.as_slice(), expected);
    }

    #[test]
    fn the_same_values_are_the_same_report() {
        let report = Report {
            reason: Some(Reason::TooBusy),
            note: Some("for Ada".to_owned()),
            minutes: Some(10),
            ..Report::of(EventKind::Delayed, Source::Kitchen)
        };
        let expected = json!({"event": "DELAYED", "source": "kitchen", "reason": "too_busy", "minutes": 10});
        assert_eq!(report.said(), expected);
        let noted = Report { note: None, ..report.clone() };
        assert_eq!(noted.said(), report.said());
        assert_ne!(Report { minutes: Some(11), ..report.clone() }.said(), report.said());
    }
}
