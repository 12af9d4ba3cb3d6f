//! What all databases do with a set of reports: judge each by what was read of its order, and say what to write.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Value, json};
use tokio::time::Instant;

use super::lost_answers;
use crate::order::{
    Change, Conflict, Event, EventKind, Ignored, Order, OrderId, Report, Rules, Timestamp, TrackedOrder,
    Transition, Verdict, allowed, events_of, judge, to_millis, transitions_of,
};

/// A report of an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderReport {
    /// Which order.
    pub order_id: OrderId,
    /// What is reported.
    pub report: Report,
    /// The positions that the sender may have meant; `None` if it is all the same to him.
    pub if_match: Option<Vec<u32>>,
}

/// What became of a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReportOutcome {
    /// It happened: these events are stored, the reported one last.
    Applied(Vec<Event>, Vec<Transition>),
    /// Its id had been applied before, with these events and steps.
    Replayed(Vec<Event>, Vec<Transition>),
    /// It says nothing new; nothing was written.
    Ignored(Ignored),
    /// It contradicts what is there; nothing was written.
    Refused(Conflict),
    /// The order is not where the sender thought; nothing was written.
    Moved,
    /// Who reports it may not report that of this order; nothing was written.
    NotForRole,
    /// Its id stands for another report; nothing was written.
    IdReused,
    /// No order has this id.
    Unknown,
    /// Somebody else was changing the order; nothing was written, and the same may be asked again.
    Contended,
    /// Its row and its timeline contradict each other, by hand; nothing was written.
    Odd(String),
}

/// What became of a report, and how its order is since.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reported {
    /// What became of it.
    pub outcome: ReportOutcome,
    /// How its order is since; `None` if there is none.
    pub standing: Option<Standing>,
}

/// How an order is, and what may be reported of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The order.
    pub order: Order,
    /// The position of its last event.
    pub seq: u32,
    /// What would be applied now.
    pub allowed: Vec<EventKind>,
    /// The database's time.
    pub now: Timestamp,
}

/// What an order remembers of a report that had an id.
#[derive(Debug, Clone)]
pub(super) struct Remembered {
    /// The position of the reported event.
    pub(super) seq: u32,
    pub(super) said: Value,
    pub(super) note: Option<String>,
}

/// An order as a set of reports finds it.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub(super) tracked: TrackedOrder,
    /// The position that its row claims.
    pub(super) row_seq: u32,
    /// By their ids.
    pub(super) reports: HashMap<String, Remembered>,
}

/// What is to be written of one order, if it is still at `was_seq`.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) was_seq: u32,
    pub(super) seq: u32,
    pub(super) order: Order,
    pub(super) ready_at: Option<Timestamp>,
    pub(super) events: Vec<Event>,
    /// What must be kept beside its events.
    pub(super) said: Vec<SaidRow>,
}

/// A row of `order_reports`.
#[derive(Debug)]
pub(super) struct SaidRow {
    pub(super) seq: u32,
    pub(super) report_id: Option<String>,
    pub(super) said: Value,
    pub(super) note: Option<String>,
}

/// Sorts behind every text that is written.
pub(super) const LAST_TEXT: &str = "\u{10ffff}\u{10ffff}\u{10ffff}\u{10ffff}";

/// Judges reports one after the other: each sees what those before it have done. Answers what becomes of each, and what to
/// write, by ids. Where an earlier call with them, begun then, may have stored them, what it answered counts.
pub(super) fn judge_all(
    reports: &[OrderReport],
    mut known: HashMap<OrderId, Known>,
    rules: &Rules,
    (now, earlier): (Timestamp, Option<Instant>),
) -> (Vec<Reported>, Vec<Written>) {
    let mut changed: BTreeMap<OrderId, Changed> = BTreeMap::new();
    // Counted from when `now` was read: a call may have waited long for its connection.
    let begun = earlier.map(|begun| to_millis(now - begun.elapsed()));
    let before: Vec<Option<ReportOutcome>> = match begun {
        Some(begun) => lost_answers::outcomes(reports, &known, rules, begun),
        None => Vec::new(),
    };
    let mut before = before.into_iter();
    let answer = |OrderReport { order_id, report, if_match }: &OrderReport| {
        let before = before.next().flatten();
        let Some(known) = known.get_mut(order_id) else {
            return Reported { outcome: ReportOutcome::Unknown, standing: None };
        };
        let judged = before.map_or_else(|| known.judge(report, if_match.as_deref(), rules, now), Err);
        let outcome = match judged {
            Ok(change) => {
                let changed = changed.entry(*order_id).or_insert_with(|| Changed::of(known));
                known.apply(report, change, changed)
            }
            Err(outcome) => outcome,
        };
        let order = known.tracked.order.clone();
        let (seq, allowed) = (known.seq(), allowed(&known.tracked, report.role, rules, now));
        Reported { outcome, standing: Some(Standing { order, seq, allowed, now }) }
    };
    let answers = reports.iter().map(answer).collect();
    let written = |(order_id, changed): (OrderId, Changed)| Some(changed.written(known.remove(&order_id)?));
    (answers, changed.into_iter().filter_map(written).collect())
}

/// What is kept of an order that reports change, until all of them are judged.
struct Changed {
    was_seq: u32,
    /// How many events there were.
    were: usize,
    ready_at: Option<Timestamp>,
    said: Vec<SaidRow>,
}

impl Changed {
    /// Before the first change.
    fn of(known: &Known) -> Self {
        Self { was_seq: known.seq(), were: known.tracked.events.len(), ready_at: None, said: Vec::new() }
    }

    /// After the last one.
    fn written(self, mut known: Known) -> Written {
        let (seq, events) = (known.seq(), known.tracked.events.split_off(self.were));
        let Self { was_seq, ready_at, said, .. } = self;
        Written { was_seq, seq, order: known.tracked.order, ready_at, events, said }
    }
}

impl Remembered {
    /// Whether it said the same. Whose key it came with is no part of what was sent.
    fn says(&self, report: &Report) -> bool {
        let (mut before, mut now) = (self.said.clone(), report.said());
        if report.role.is_some() {
            for said in [&mut before, &mut now].into_iter().filter_map(Value::as_object_mut) {
                said.retain(|name, _| !["source", "by"].contains(&name.as_str()));
            }
        }
        before == now && self.note == report.note
    }
}

impl Known {
    fn seq(&self) -> u32 {
        self.tracked.events.last().map_or(0, |last| last.seq)
    }

    /// What a report changes, or what becomes of it otherwise.
    pub(super) fn judge(
        &self,
        report: &Report,
        if_match: Option<&[u32]>,
        rules: &Rules,
        now: Timestamp,
    ) -> Result<Change, ReportOutcome> {
        if let Some(remembered) = report.id.as_ref().and_then(|id| self.reports.get(id)) {
            return Err(if remembered.says(report) {
                self.replayed(remembered)
            } else {
                ReportOutcome::IdReused
            });
        }
        let (seq, row_seq) = (self.seq(), self.row_seq);
        if seq != row_seq {
            return Err(ReportOutcome::Odd(format!(
                "the order's row is at position {row_seq}, its timeline at {seq}"
            )));
        }
        let verdict = judge(&self.tracked, report, rules, now);
        // Who may not is not told where the order is.
        if verdict != Verdict::NotForRole && if_match.is_some_and(|positions| !positions.contains(&seq)) {
            return Err(ReportOutcome::Moved);
        }
        match verdict {
            Verdict::Applied(change) => Ok(*change),
            Verdict::Ignored(why) => Err(ReportOutcome::Ignored(why)),
            Verdict::Refused(conflict) => Err(ReportOutcome::Refused(conflict)),
            Verdict::NotForRole => Err(ReportOutcome::NotForRole),
        }
    }

    /// Changes the order by what a report does to it.
    fn apply(&mut self, report: &Report, change: Change, changed: &mut Changed) -> ReportOutcome {
        let Change { order, ready_at, mut events, transitions } = change;
        if let Some(last) = events.last_mut().filter(|_| report.note.is_some()) {
            mark_note(last);
        }
        self.tracked.order = order;
        self.tracked.events.extend(events.iter().cloned());
        self.row_seq = self.seq();
        changed.ready_at = ready_at;
        // Nothing is kept of one that has neither.
        if report.id.is_some() || report.note.is_some() {
            let (seq, said, note) = (self.row_seq, report.said(), report.note.clone());
            if let Some(id) = report.id.clone() {
                self.reports.insert(id, Remembered { seq, said: said.clone(), note: note.clone() });
            }
            changed.said.push(SaidRow { seq, report_id: report.id.clone(), said, note });
        }
        show_note(&mut events, report.note.as_deref());
        ReportOutcome::Applied(events, transitions)
    }

    fn replayed(&self, remembered: &Remembered) -> ReportOutcome {
        let TrackedOrder { order, events } = &self.tracked;
        let steps = transitions_of(order.order_id, events, remembered.seq);
        let mut events = events_of(events, remembered.seq).to_vec();
        show_note(&mut events, remembered.note.as_deref());
        ReportOutcome::Replayed(events, steps)
    }
}

/// Says in the event that there is a note beside it: an event can't be changed, and a note must be erasable.
fn mark_note(event: &mut Event) {
    if let Some(Value::Object(meta)) = &mut event.meta {
        meta.insert("note".to_owned(), json!(true));
    }
}

/// Whether a note is kept beside this event.
pub(super) fn has_note(event: &Event) -> bool {
    event.meta.as_ref().and_then(|meta| meta.get("note")) == Some(&json!(true))
}

/// Puts the note of the last of these events where its mark is.
fn show_note(events: &mut [Event], note: Option<&str>) {
    if let Some(last) = events.last_mut() {
        put_note(last, note);
    }
}

/// Puts a note where its mark is; without one, since it was erased, the mark goes.
pub(super) fn put_note(event: &mut Event, note: Option<&str>) {
    if !has_note(event) {
        return;
    }
    if let Some(Value::Object(meta)) = &mut event.meta {
        match note {
            Some(note) => _ = meta.insert("note".to_owned(), json!(note)),
            None => _ = meta.remove("note"),
        }
    }
}

/// Puts the notes of these orders, by order and position, where their marks are.
pub(super) fn put_notes(found: &mut [TrackedOrder], notes: &HashMap<(OrderId, u32), String>) {
    for tracked in found {
        let order_id = tracked.order.order_id;
        for event in &mut tracked.events {
            let note = notes.get(&(order_id, event.seq));
            put_note(event, note.map(String::as_str));
        }
    }
}

/// Which of these orders have notes.
pub(super) fn noted(found: &[TrackedOrder]) -> Vec<OrderId> {
    let noted = found.iter().filter(|tracked| tracked.events.iter().any(has_note));
    noted.map(|tracked| tracked.order.order_id).collect()
}
