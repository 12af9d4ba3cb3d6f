//! What a timeline amounts to: where it leads, and which of its steps can be taken back.

use serde_json::Value;

use super::super::{
    super::{Event, EventKind, Status, Timestamp},
    Source,
};

/// What the `meta` of an event says of the way of its order.
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
        }
    }
}

/// A step that can be taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::order) struct Move {
    /// The position of the event that was reported, or made by a timer.
    pub(in crate::order) seq: u32,
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
pub(in crate::order) struct Moves {
    pub(in crate::order) status: Status,
    standing: Vec<Move>,
    taken_back: Vec<u32>,
    /// Where the order was before what was inferred, until that was reported which it was inferred from.
    before: Option<Status>,
}

impl Moves {
    pub(in crate::order) const fn new() -> Self {
        Self { status: Status::FIRST, standing: Vec::new(), taken_back: Vec::new(), before: None }
    }

    pub(super) fn of(events: &[Event]) -> Self {
        let mut moves = Self::new();
        for Event { seq, event, timestamp, meta } in events {
            // Nothing else moves an order.
            if matches!(event, EventKind::Reached(_) | EventKind::Reverted) {
                moves.add(*seq, *event, *timestamp, &EventFacts::of(meta.as_ref()));
            }
        }
        moves
    }

    /// Goes where the next event leads; whether it may lead there is for others to judge.
    pub(in crate::order) fn add(&mut self, seq: u32, event: EventKind, at: Timestamp, facts: &EventFacts) {
        match event {
            EventKind::Reached(to) if to != Status::FIRST => {
                let from = *self.before.get_or_insert(self.status);
                if !facts.inferred {
                    self.standing.push(Move { seq, from, at, to: event, source: facts.source });
                    self.before = None;
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
    pub(in crate::order) fn latest(&self) -> Option<Move> {
        self.standing.last().copied()
    }

    /// The step at this position, if it still stands.
    pub(super) fn standing_at(&self, seq: u32) -> Option<Move> {
        self.standing.iter().find(|step| step.seq == seq).copied()
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
