//! What a timeline amounts to: where it leads, and which of its steps can be taken back.

use serde_json::Value;

use super::super::{
    super::{Event, EventKind, Status, Timestamp},
    Source,
};

/// What the `meta` of an event says of the way of its order, and of what is kept elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EventFacts {
    /// Nobody reported it: a later report skipped it.
    pub inferred: bool,
    /// Who said so.
    pub source: Option<Source>,
    /// Which position it takes back.
    pub reverts: Option<u32>,
    /// Where the order was before.
    pub from: Option<Status>,
    /// Where it went back to.
    pub to: Option<Status>,
    /// Where it was, and stayed.
    pub status: Option<Status>,
    /// A note is kept beside it.
    pub noted: bool,
}

impl EventFacts {
    /// Nothing of what is there under another type than ours.
    pub fn of(meta: Option<&Value>) -> Self {
        let Some(Value::Object(meta)) = meta else { return Self::default() };
        let status = |name| meta.get(name).and_then(Value::as_str).and_then(|text| text.parse().ok());
        Self {
            inferred: meta.get("inferred") == Some(&Value::Bool(true)),
            source: meta.get("source").and_then(Value::as_str).and_then(|text| text.parse().ok()),
            reverts: meta.get("reverts").and_then(Value::as_u64).and_then(|seq| seq.try_into().ok()),
            from: status("from"),
            to: status("to"),
            status: status("status"),
            noted: meta.get("note") == Some(&Value::Bool(true)),
        }
    }
}

/// A step that can be taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::order) struct MadeStep {
    /// The position of the event that was reported, or made by a timer.
    pub(in crate::order) seq: u32,
    /// That of the first event that was inferred with it; its own, if none was.
    first: u32,
    /// Where the order was before, and before all that was inferred with it.
    pub(in crate::order) from: Status,
    pub(in crate::order) at: Timestamp,
    /// What was reached.
    pub(in crate::order) to: EventKind,
    /// Who said so.
    pub(in crate::order) source: Option<Source>,
}

/// Where a timeline leads, its steps that are not taken back, and the positions of those that are.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::order) struct MadeSteps {
    pub(in crate::order) status: Status,
    standing: Vec<MadeStep>,
    taken_back: Vec<u32>,
    /// Where what was inferred begins, and where the order was before, until that was reported which it was inferred from.
    inferred: Option<(u32, Status)>,
}

impl MadeSteps {
    pub(in crate::order) const fn new() -> Self {
        Self { status: Status::FIRST, standing: Vec::new(), taken_back: Vec::new(), inferred: None }
    }

    pub(super) fn of(events: &[Event]) -> Self {
        let mut steps = Self::new();
        for event in events {
            steps.follow(event);
        }
        steps
    }

    pub(super) fn follow(&mut self, Event { seq, event, timestamp, meta }: &Event) {
        // Nothing else steps an order.
        if matches!(event, EventKind::Reached(_) | EventKind::Reverted) {
            self.add(*seq, *event, *timestamp, &EventFacts::of(meta.as_ref()));
        }
    }

    /// Goes where the next event leads; whether it may lead there is for others to judge.
    pub(in crate::order) fn add(&mut self, seq: u32, event: EventKind, at: Timestamp, facts: &EventFacts) {
        match event {
            EventKind::Reached(to) if to != Status::FIRST => {
                let (first, from) = *self.inferred.get_or_insert((seq, self.status));
                if !facts.inferred {
                    self.standing.push(MadeStep { seq, first, from, at, to: event, source: facts.source });
                    self.inferred = None;
                }
                self.status = to;
            }
            EventKind::Reverted => {
                if let Some(step) = self.standing.pop() {
                    self.taken_back.push(step.seq);
                    self.status = step.from;
                }
            }
            _ => {}
        }
    }

    /// The one that can be taken back next.
    pub(in crate::order) fn latest(&self) -> Option<MadeStep> {
        self.standing.last().copied()
    }

    /// The step at this position, if it still stands.
    pub(super) fn standing_at(&self, seq: u32) -> Option<MadeStep> {
        self.standing.iter().find(|step| step.seq == seq).copied()
    }

    /// Whether the step at this position, reported or inferred, is not taken back.
    fn stands(&self, seq: u32) -> bool {
        let pending = self.inferred.is_some_and(|(first, _)| first <= seq);
        pending || self.standing.iter().any(|step| (step.first..=step.seq).contains(&seq))
    }

    pub(super) fn has_taken_back(&self, seq: u32) -> bool {
        self.taken_back.contains(&seq)
    }

    /// Whether the order is in this status, or was before it came to where it is.
    pub(in crate::order) fn has_reached(&self, to: Status) -> bool {
        let reached = |status: Status| to == status || to.comes_before(status);
        match self.status {
            Status::Cancelled => to == Status::Cancelled || reached(self.before_the_latest()),
            status => reached(status),
        }
    }

    fn before_the_latest(&self) -> Status {
        self.latest().map_or(Status::FIRST, |step| step.from)
    }
}

/// Which steps of a timeline stand, and which were taken back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Steps<'a> {
    /// Those that nobody has taken back, oldest first; PLACED and what was inferred are among them.
    pub standing: Vec<&'a Event>,
    /// The one that can be taken back next.
    pub latest: Option<&'a Event>,
    /// The positions of those that were taken back, in the order in which they were, without what was inferred with them.
    pub taken_back: Vec<u32>,
}

impl<'a> Steps<'a> {
    /// Those of these events, as a report would find them.
    pub fn of(events: &'a [Event]) -> Self {
        let steps = MadeSteps::of(events);
        let stands = |event: &&Event| match event.event {
            EventKind::Reached(Status::FIRST) => true,
            EventKind::Reached(_) => steps.stands(event.seq),
            _ => false,
        };
        let standing: Vec<&Event> = events.iter().filter(stands).collect();
        let latest = steps.latest().map(|step| step.seq);
        let latest = standing.iter().copied().rfind(|event| Some(event.seq) == latest);
        Self { standing, latest, taken_back: steps.taken_back }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn events(told: &[(EventKind, Value)]) -> Vec<Event> {
        let event = |(seq, (event, meta)): (u32, &(EventKind, Value))| Event {
            seq,
            event: *event,
            timestamp: Timestamp::UNIX_EPOCH,
            meta: Some(meta.clone()).filter(|meta| !meta.is_null()),
        };
        (1..).zip(told).map(event).collect()
    }

    fn reached(status: Status) -> (EventKind, Value) {
        (EventKind::Reached(status), Value::Null)
    }

    fn inferred(status: Status) -> (EventKind, Value) {
        (EventKind::Reached(status), json!({"source": "kitchen", "inferred": true}))
    }

    fn reverted(reverts: u32) -> (EventKind, Value) {
        (EventKind::Reverted, json!({"source": "staff", "reverts": reverts}))
    }

    type Found = (Vec<u32>, Option<u32>, Vec<u32>);

    fn steps(told: &[(EventKind, Value)]) -> Found {
        let events = events(told);
        let Steps { standing, latest, taken_back } = Steps::of(&events);
        (standing.iter().map(|step| step.seq).collect(), latest.map(|step| step.seq), taken_back)
    }

    #[test]
    fn a_step_that_was_taken_back_stands_no_more_nor_what_was_inferred_with_it() {
        let mut told = vec![(EventKind::Created, Value::Null), reached(Status::Placed)];
        assert_eq!(steps(&told), (vec![2], None, vec![]));
        told.extend([inferred(Status::Preparing), reached(Status::Cooking), (EventKind::Ready, json!({}))]);
        assert_eq!(
            steps(&told),
            (vec![2, 3, 4], Some(4), vec![]),
            "the reported one of a skip, and no milestone"
        );
        told.push(reached(Status::OutForDelivery));
        told.push(reverted(6));
        assert_eq!(
            steps(&told),
            (vec![2, 3, 4], Some(4), vec![6]),
            "a timer's step, and then the one before"
        );
        told.push(reverted(4));
        assert_eq!(steps(&told), (vec![2], None, vec![6, 4]));
        told.extend([reached(Status::Preparing), reached(Status::Cancelled)]);
        assert_eq!(steps(&told), (vec![2, 9, 10], Some(10), vec![6, 4]));
        told.push(reverted(10));
        assert_eq!(steps(&told), (vec![2, 9], Some(9), vec![6, 4, 10]));
    }

    #[test]
    fn what_can_t_have_happened_takes_nothing_else_with_it() {
        let mut told = vec![(EventKind::Created, Value::Null), reached(Status::Placed), reverted(2)];
        assert_eq!(steps(&told), (vec![2], None, vec![]));
        told.push(inferred(Status::Preparing));
        assert_eq!(
            steps(&told),
            (vec![2, 4], None, vec![]),
            "nothing was reported that it was inferred from"
        );
    }
}
