//! What becomes of a report: the one place that knows what may happen to an order, and what it writes.

mod steps;

use std::time::Duration;

use chrono::TimeDelta;
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use steps::MadeStep;
pub(in crate::order) use steps::MadeSteps;
pub use steps::{EventFacts, Steps};

use super::{
    super::{
        Event, EventKind, Order, OrderId, Progression, Role, StageDelays, Start, Status, Timestamp,
        TrackedOrder, Transition, ready_at,
    },
    MAX_EVENTS, Report,
};

/// What is set about reports and what follows them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// How long each stage takes, or should.
    pub delays: StageDelays,
    /// How young a step must be to be taken back; zero: none ever is.
    pub undo_window: Duration,
    /// After how long an order that nobody has taken is cancelled, where people move it.
    pub cancel_unaccepted_after: Option<Duration>,
}

impl Rules {
    /// When an order goes on that is placed now.
    pub fn start(&self, progression: Progression) -> Start {
        let first = self.delays.first();
        match progression {
            Progression::Timer => Start::timer(first),
            Progression::Reported => Start { due_in: self.cancel_unaccepted_after, expected_in: Some(first) },
        }
    }
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            delays: StageDelays::default(),
            undo_window: Duration::from_mins(5),
            cancel_unaccepted_after: None,
        }
    }
}

/// What becomes of a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It happened; this is to be written.
    Applied(Box<Change>),
    /// It says nothing new.
    Ignored(Ignored),
    /// It contradicts what is there.
    Refused(Conflict),
    /// Somebody may report that of this order, but not who does.
    NotForRole,
}

/// Why a report says nothing new.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = WhyIgnored)]
pub enum Ignored {
    /// It was so already.
    Same,
    /// The order is beyond it.
    Late,
}

impl Ignored {
    /// The word in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::Late => "late",
        }
    }
}

/// What a report contradicts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conflict {
    /// The order is at one of its ends.
    OrderFinished,
    /// No step was made that could be taken back.
    NothingToRevert,
    /// The step is too old to be taken back.
    TooLateToRevert,
    /// It means another step than the latest.
    ChangedMeanwhile,
    /// The timeline holds as many events as it may.
    TimelineFull,
}

/// What is to be written of an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The order after it.
    pub order: Order,
    /// Since when the kitchen says that it can be fetched, if it does.
    pub ready_at: Option<Timestamp>,
    /// The new events; the last one is the reported one. A note is none of them.
    pub events: Vec<Event>,
    /// The steps that it made.
    pub transitions: Vec<Transition>,
}

/// The events that one report has added, of which the last is at this position.
pub fn events_of(events: &[Event], seq: u32) -> &[Event] {
    let Some(at) = events.iter().position(|event| event.seq == seq) else { return &[] };
    let is_inferred = |event: &&Event| EventFacts::of(event.meta.as_ref()).inferred;
    let inferred = events[..at].iter().rev().take_while(is_inferred).count();
    &events[at - inferred..=at]
}

/// The steps that one report has made, of which the last is at this position.
pub fn transitions_of(order_id: OrderId, events: &[Event], seq: u32) -> Vec<Transition> {
    let Some(first) = events_of(events, seq).first().map(|first| first.seq) else { return Vec::new() };
    let mut made = MadeSteps::new();
    let mut steps = Vec::new();
    for event in events.iter().take_while(|event| event.seq <= seq) {
        let from = made.status;
        made.follow(event);
        if event.seq >= first && made.status != from {
            steps.push(Transition { order_id, from, to: made.status, seq: event.seq });
        }
    }
    steps
}

/// What a report would do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Effect {
    /// Go to this status.
    Step(Status),
    /// Say something.
    Milestone,
    /// Put off what comes next.
    Delay,
    /// Take this step back.
    Revert(MadeStep),
}

/// What is there already, or stands against it.
enum No {
    Ignored(Ignored),
    Refused(Conflict),
    NotForRole,
}

/// An order as a report finds it.
struct Scene<'a> {
    tracked: &'a TrackedOrder,
    steps: MadeSteps,
    rules: &'a Rules,
    now: Timestamp,
}

impl<'a> Scene<'a> {
    fn new(tracked: &'a TrackedOrder, rules: &'a Rules, now: Timestamp) -> Self {
        Self { tracked, steps: MadeSteps::of(&tracked.events), rules, now }
    }

    fn effect(&self, event: EventKind, reverts: Option<u32>, role: Option<Role>) -> Result<Effect, No> {
        if role.is_some_and(|role| !self.is_for(role, event, reverts)) {
            return Err(No::NotForRole);
        }
        let status = self.tracked.order.status;
        match event {
            EventKind::Reverted => self.revert(reverts).map(Effect::Revert),
            EventKind::Reached(to) if to == status => Err(No::Ignored(Ignored::Same)),
            EventKind::Reached(to) if self.steps.has_reached(to) => Err(No::Ignored(Ignored::Late)),
            _ if status.is_final() => Err(No::Refused(Conflict::OrderFinished)),
            EventKind::Reached(to) => Ok(Effect::Step(to)),
            _ if self.tracked.events.len() >= MAX_EVENTS => Err(No::Refused(Conflict::TimelineFull)),
            EventKind::Delayed => Ok(Effect::Delay),
            EventKind::Ready
            | EventKind::CourierAssigned
            | EventKind::CourierAtPickup
            | EventKind::CourierAtDoor
            | EventKind::DeliveryFailed
            // No report may be of these.
            | EventKind::Created
            | EventKind::Erased => Ok(Effect::Milestone),
        }
    }

    /// Whether this role may report that of this order.
    fn is_for(&self, role: Role, event: EventKind, reverts: Option<u32>) -> bool {
        let status = self.tracked.order.status;
        role.may_report(event, None)
            && match event {
                EventKind::Reached(Status::Cancelled) => status.is_final() || role.may_cancel_in(status),
                EventKind::Reverted => {
                    let step = reverts.map_or_else(|| self.steps.latest(), |seq| self.steps.standing_at(seq));
                    step.is_none_or(|step| role.may_take_back(step.to, step.source))
                }
                _ => true,
            }
    }

    fn revert(&self, reverts: Option<u32>) -> Result<MadeStep, No> {
        if reverts.is_some_and(|seq| self.steps.has_taken_back(seq)) {
            return Err(No::Ignored(Ignored::Same));
        }
        let latest = self.steps.latest().ok_or(No::Refused(Conflict::NothingToRevert))?;
        if reverts.is_some_and(|seq| seq != latest.seq) {
            return Err(No::Refused(Conflict::ChangedMeanwhile));
        }
        let window = TimeDelta::from_std(self.rules.undo_window).unwrap_or(TimeDelta::MAX);
        // However young: a clock that was set back opens no window of no length.
        let age = (self.now - latest.at).max(TimeDelta::zero());
        if age < window { Ok(latest) } else { Err(No::Refused(Conflict::TooLateToRevert)) }
    }

    fn change(&self, report: &Report, effect: Effect) -> Change {
        let old = &self.tracked.order;
        let last = self.tracked.events.last();
        // The stamps of a timeline never go back, though the clock do.
        let at = last.map_or(self.now, |last| self.now.max(last.timestamp));
        let mut meta = report.told();
        let mut change =
            Change { order: old.clone(), ready_at: None, events: Vec::new(), transitions: Vec::new() };
        let first = last.map_or(0, |last| last.seq) + 1;
        let mut next = first..;
        let mut step = |from, to, seq| {
            change.transitions.push(Transition { order_id: old.order_id, from, to, seq });
        };
        match effect {
            Effect::Step(to) => {
                let mut from = old.status;
                for status in skipped(old.status, to) {
                    let Some(seq) = next.next() else { break };
                    let (event, meta) = (EventKind::Reached(status), Some(report.inferred()));
                    change.events.push(Event { seq, event, timestamp: at, meta });
                    step(from, status, seq);
                    from = status;
                }
                step(from, to, next.start);
                self.go_to(&mut change.order, to, at);
            }
            Effect::Revert(latest) => {
                meta.insert("reverts".to_owned(), json!(latest.seq));
                meta.insert("from".to_owned(), json!(old.status));
                meta.insert("to".to_owned(), json!(latest.from));
                step(old.status, latest.from, next.start);
                self.go_to(&mut change.order, latest.from, at);
            }
            Effect::Delay | Effect::Milestone => {
                meta.insert("status".to_owned(), json!(old.status));
                let minutes = TimeDelta::minutes(report.minutes.unwrap_or_default().into());
                // A timer stamps nothing before its time, so never before this event, whatever the clock does.
                change.order.due_at = old.due_at.map(|due| due.max(at));
                if effect == Effect::Delay {
                    let later = |due: Timestamp| due.max(at) + minutes;
                    change.order.due_at = old.due_at.map(later);
                    change.order.expected_at = old.expected_at.map(later);
                }
            }
        }
        let (seq, event, meta) = (next.start, report.event, Some(Value::Object(meta)));
        change.events.push(Event { seq, event, timestamp: at, meta });
        change.ready_at = ready_at(self.tracked.events.iter().chain(&change.events));
        change
    }

    /// Changes the status, and when it goes on from there.
    fn go_to(&self, order: &mut Order, to: Status, at: Timestamp) {
        let rules = self.rules;
        (order.status, order.updated_at) = (to, at);
        if order.expected_at.is_some() {
            order.expected_at = Some(rules.delays.due_after(to, at).unwrap_or(at));
            let cancelled_after = rules.cancel_unaccepted_after.filter(|_| to == Status::FIRST);
            order.due_at = cancelled_after.map(|after| at + after);
        } else {
            order.due_at = rules.delays.due_after(to, at);
        }
    }
}

/// The statuses between two of a plain life; none before an end that is no part of it.
fn skipped(from: Status, to: Status) -> impl Iterator<Item = Status> {
    let between = from.onwards().take_while(move |status| *status != to);
    between.take(if from.comes_before(to) { usize::MAX } else { 0 })
}

/// What becomes of a report that finds an order like this, by the database's clock.
pub fn judge(tracked: &TrackedOrder, report: &Report, rules: &Rules, now: Timestamp) -> Verdict {
    if !report.is_for_its_role() {
        return Verdict::NotForRole;
    }
    let scene = Scene::new(tracked, rules, now);
    match scene.effect(report.event, report.reverts, report.role) {
        Ok(effect) => Verdict::Applied(Box::new(scene.change(report, effect))),
        Err(No::Ignored(why)) => Verdict::Ignored(why),
        Err(No::Refused(conflict)) => Verdict::Refused(conflict),
        Err(No::NotForRole) => Verdict::NotForRole,
    }
}

/// What may be reported now in this role and would be applied, in the order of the contract; `None`: where nobody is asked
/// who he is.
pub fn allowed(tracked: &TrackedOrder, role: Option<Role>, rules: &Rules, now: Timestamp) -> Vec<EventKind> {
    let scene = Scene::new(tracked, rules, now);
    Report::KINDS.into_iter().filter(|kind| scene.effect(*kind, None, role).is_ok()).collect()
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
