//! Whether a stored order tells a story that can have happened.

mod reports;

use chrono::TimeDelta;

use super::{
    Event, EventFacts, EventKind, OrderId, Status, Timestamp, promises::OVERDUE_AFTER, report::MadeSteps,
};

pub use reports::{AuditedReport, ReportAudit};

/// An order as an auditor reads it: nothing about it is taken for granted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditedOrder {
    /// Which order.
    pub order_id: OrderId,
    /// The status that its row claims.
    pub status: Status,
    /// The position of the last event that its row claims.
    pub seq: i64,
    /// When its row says that it was created.
    pub created_at: Timestamp,
    /// When its row says that the status last changed.
    pub updated_at: Timestamp,
    /// When the service acts next; `None` where it does not.
    pub due_at: Option<Timestamp>,
    /// When people should have acted; `None` for an order that timers move.
    pub expected_at: Option<Timestamp>,
    /// Whether its outbox row is still there.
    pub unsent: bool,
    /// Its events in the order in which they were written.
    pub events: Vec<AuditedEvent>,
}

/// An event as an auditor reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuditedEvent {
    /// The position that its row claims.
    pub seq: i64,
    /// What happened.
    pub event: EventKind,
    /// When.
    pub timestamp: Timestamp,
    /// What it says of the way of its order.
    pub facts: EventFacts,
}

/// What may be wrong with an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Violation {
    /// CREATED and PLACED are not the first two events.
    NoBeginning,
    /// A step leads where none can lead from where the order was.
    Gap,
    /// What was skipped does not stand, at the same moment, before what was reported.
    InferredAlone,
    /// A step is there again though it was not taken back.
    Doubled,
    /// Something follows an end.
    AfterEnd,
    /// What a REVERTED says is not the latest step.
    RevertDiffers,
    /// What an event says of the status is not the order's at that moment.
    StatusDiffers,
    /// The positions are not 1, 2, 3 and so on in the order of events, or the row's is not the last of them.
    PositionDiffers,
    /// An event is earlier than the one before it.
    StampGoesBack,
    /// The row's status is not that of the events, or its stamps are not those of the events.
    RowDiffers,
    /// A step is later than promised, or an unfinished order waits for none.
    Overdue,
    /// Something is kept beside an event that is not there.
    ReportAlone,
    /// What is kept beside an event is of another kind.
    ReportDiffers,
    /// Two reports of an order have the same id.
    ReportDoubled,
    /// An event says that a note is kept, and none is.
    NoteMissing,
}

impl Violation {
    /// All violations.
    pub const ALL: [Self; 15] = [
        Self::NoBeginning,
        Self::Gap,
        Self::InferredAlone,
        Self::Doubled,
        Self::AfterEnd,
        Self::RevertDiffers,
        Self::StatusDiffers,
        Self::PositionDiffers,
        Self::StampGoesBack,
        Self::RowDiffers,
        Self::Overdue,
        Self::ReportAlone,
        Self::ReportDiffers,
        Self::ReportDoubled,
        Self::NoteMissing,
    ];

    /// The rule that was broken, in words.
    pub fn rule(self) -> &'static str {
        match self {
            Self::NoBeginning => "every order has CREATED and PLACED",
            Self::Gap => "no step is skipped",
            Self::InferredAlone => "what is inferred stands before what was reported, at the same moment",
            Self::Doubled => "no step is there twice unless it was taken back",
            Self::AfterEnd => "nothing follows an end but what takes it back",
            Self::RevertDiffers => "what is taken back is the latest step, from where it led to where it was",
            Self::StatusDiffers => "what changes no status says in which one it was",
            Self::PositionDiffers => "events stand at 1, 2, 3 and so on, and the order at the last of them",
            Self::StampGoesBack => "stamps never go back",
            Self::RowDiffers => "status and stamps are those of the events",
            Self::Overdue => "no step is more than 2 s late",
            Self::ReportAlone => "what is kept of a report has its event",
            Self::ReportDiffers => "what is kept of a report is of the kind of its event",
            Self::ReportDoubled => "no two reports of an order have the same id",
            Self::NoteMissing => "what an event says of a note is kept until it is erased",
        }
    }
}

impl AuditedOrder {
    /// Every violation at `now`, each once.
    pub fn violations(&self, now: Timestamp) -> Vec<Violation> {
        let mut told = Replay::of(&self.events);
        told.check(Violation::NoBeginning, self.begins());
        told.check(Violation::PositionDiffers, self.positions_fit());
        told.check(Violation::StampGoesBack, self.events.is_sorted_by_key(|event| event.timestamp));
        told.check(Violation::RowDiffers, self.row_agrees(told.steps.status));
        told.check(Violation::Overdue, self.is_in_time(now));
        Violation::ALL.into_iter().filter(|violation| told.broken.contains(violation)).collect()
    }

    /// The positions of the events that say that a note is kept beside them; none once notes were erased.
    pub fn noted(&self) -> impl Iterator<Item = i64> {
        let erased = self.events.iter().any(|event| event.event == EventKind::Erased);
        self.events.iter().filter(move |event| event.facts.noted && !erased).map(|event| event.seq)
    }

    fn begins(&self) -> bool {
        let kinds = self.events.iter().map(|event| event.event).take(2);
        kinds.eq([EventKind::Created, EventKind::Reached(Status::FIRST)])
    }

    fn positions_fit(&self) -> bool {
        let count = i64::try_from(self.events.len()).unwrap_or(i64::MAX);
        self.seq == count && self.events.iter().map(|event| event.seq).eq(1..=count)
    }

    fn row_agrees(&self, status: Status) -> bool {
        let changed = self
            .events
            .iter()
            .rfind(|event| matches!(event.event, EventKind::Reached(_) | EventKind::Reverted));
        let last = changed.is_some_and(|last| (status, last.timestamp) == (self.status, self.updated_at));
        // A missing CREATED is a violation of its own.
        let first = self.events.iter().find(|event| event.event == EventKind::Created);
        last && first.is_none_or(|first| first.timestamp == self.created_at)
    }

    fn is_in_time(&self, now: Timestamp) -> bool {
        match self.due_at {
            Some(due) => now - due <= TimeDelta::from_std(OVERDUE_AFTER).unwrap_or_default(),
            // What people move may wait for them alone.
            None => self.status.is_final() || self.expected_at.is_some(),
        }
    }
}

/// What comes of going through the events one by one, in the order in which they were written.
struct Replay {
    steps: MadeSteps,
    broken: Vec<Violation>,
}

impl Replay {
    fn of(events: &[AuditedEvent]) -> Self {
        let mut replay = Self { steps: MadeSteps::new(), broken: Vec::new() };
        for (at, event) in events.iter().enumerate() {
            let follows = events.get(at + 1);
            replay.check(Violation::InferredAlone, !event.facts.inferred || event.leads_to(follows));
            let again = events[..at].iter().any(|earlier| earlier.event == event.event);
            replay.judge(event, again);
        }
        replay
    }

    fn check(&mut self, violation: Violation, holds: bool) {
        if !holds {
            self.broken.push(violation);
        }
    }

    /// Of what can't have happened nothing comes, so that one fault is told once.
    fn judge(&mut self, event: &AuditedEvent, again: bool) {
        let (status, facts) = (self.steps.status, &event.facts);
        match event.event {
            EventKind::Created | EventKind::Reached(Status::FIRST) => {
                return self.check(Violation::Doubled, !again);
            }
            EventKind::Reached(to) if self.steps.has_reached(to) => {
                return self.check(Violation::Doubled, false);
            }
            EventKind::Reached(_) if status.is_final() => return self.check(Violation::AfterEnd, false),
            EventKind::Reached(to) => self.check(Violation::Gap, status.may_become(to)),
            EventKind::Reverted => {
                let latest = self.steps.latest().map(|step| (Some(step.seq), Some(step.from)));
                let fits = latest == Some((facts.reverts, facts.to)) && facts.from == Some(status);
                self.check(Violation::RevertDiffers, fits);
            }
            EventKind::Erased => {}
            _ => {
                self.check(Violation::AfterEnd, !status.is_final());
                self.check(Violation::StatusDiffers, facts.status == Some(status));
            }
        }
        self.steps.add(u32::try_from(event.seq).unwrap_or_default(), event.event, event.timestamp, facts);
    }
}

impl From<&Event> for AuditedEvent {
    fn from(Event { seq, event, timestamp, meta }: &Event) -> Self {
        let facts = EventFacts::of(meta.as_ref());
        Self { seq: i64::from(*seq), event: *event, timestamp: *timestamp, facts }
    }
}

impl AuditedEvent {
    /// Whether a step follows that this one can have been inferred from.
    fn leads_to(&self, follows: Option<&Self>) -> bool {
        let (Some(step), Some(follows)) = (self.event.status(), follows) else { return false };
        let further = follows.event.status().is_some_and(|further| step.comes_before(further));
        further && self.timestamp == follows.timestamp
    }
}

#[cfg(test)]
mod tests;
