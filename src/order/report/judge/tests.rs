use chrono::TimeDelta;

use super::*;
use crate::order::{
    OrderDetails, Reason, Source,
    Status::{Cancelled, Cooking, Delivered, OutForDelivery, Placed, Preparing},
};

const READY: EventKind = EventKind::Ready;
const DELAYED: EventKind = EventKind::Delayed;
const REVERTED: EventKind = EventKind::Reverted;

pub(super) fn at(second: i64) -> Timestamp {
    "2026-01-02T03:04:05Z".parse::<Timestamp>().expect("a moment") + TimeDelta::seconds(second)
}

/// An order and the moment, in seconds after it was placed.
pub(super) struct World {
    pub(super) tracked: TrackedOrder,
    pub(super) rules: Rules,
    pub(super) second: i64,
}

impl World {
    /// An order that timers move.
    pub(super) fn timer() -> Self {
        let details = OrderDetails::new("Ada", "1 High St", "pizza", "large").expect("valid");
        let order = Order {
            order_id: "ORD-01ARZ3NDEKTSV4RRFFQ69G5FAV".parse().expect("an id"),
            details,
            status: Placed,
            created_at: at(0),
            updated_at: at(0),
            due_at: Some(at(3)),
            expected_at: None,
        };
        let first = |(seq, event)| Event { seq, event, timestamp: at(0), meta: None };
        let events = (1..).zip([EventKind::Created, EventKind::Reached(Placed)]).map(first).collect();
        let rules = Rules { undo_window: Duration::from_mins(5), ..Rules::default() };
        Self { tracked: TrackedOrder { order, events }, rules, second: 0 }
    }

    /// One that people move.
    pub(super) fn reported() -> Self {
        let mut world = Self::timer();
        world.rules.cancel_unaccepted_after = Some(Duration::from_mins(10));
        world.tracked.order.due_at = Some(at(600));
        world.tracked.order.expected_at = Some(at(3));
        world
    }

    pub(super) fn now(&self) -> Timestamp {
        at(self.second)
    }

    pub(super) fn say(&mut self, report: &Report) -> Verdict {
        let verdict = judge(&self.tracked, report, &self.rules, self.now());
        if let Verdict::Applied(change) = &verdict {
            self.tracked.order = change.order.clone();
            self.tracked.events.extend(change.events.clone());
        }
        verdict
    }

    fn kitchen(&mut self, event: EventKind) -> Verdict {
        let mut report = Report::of(event, Source::Kitchen);
        report.reason = (event == EventKind::Reached(Cancelled)).then_some(Reason::OutOfStock);
        report.minutes = (event == DELAYED).then_some(10);
        self.say(&report)
    }

    fn applies(&mut self, event: EventKind) -> Change {
        match self.kitchen(event) {
            Verdict::Applied(change) => *change,
            verdict => panic!("{event}: {verdict:?}"),
        }
    }

    fn reaches(&mut self, status: Status) -> Change {
        self.applies(EventKind::Reached(status))
    }

    fn kinds(&self) -> Vec<&'static str> {
        self.tracked.events.iter().map(|event| event.event.as_str()).collect()
    }

    fn allowed(&self) -> Vec<&'static str> {
        let allowed = allowed(&self.tracked, None, &self.rules, self.now());
        allowed.into_iter().map(EventKind::as_str).collect()
    }
}

const fn ignored(why: Ignored) -> Verdict {
    Verdict::Ignored(why)
}

const fn refused(why: Conflict) -> Verdict {
    Verdict::Refused(why)
}

#[test]
fn a_step_starts_the_next_stage() {
    let mut world = World::timer();
    world.second = 1;
    let change = world.reaches(Preparing);
    let order = &change.order;
    assert_eq!((order.status, order.updated_at, order.due_at), (Preparing, at(1), Some(at(6))));
    let meta = json!({"source": "kitchen"});
    let event = Event { seq: 3, event: EventKind::Reached(Preparing), timestamp: at(1), meta: Some(meta) };
    assert_eq!(change.events, [event]);
    let order_id = order.order_id;
    assert_eq!(change.transitions, [Transition { order_id, from: Placed, to: Preparing, seq: 3 }]);
}

/// Promise 7: the story is true. A step that was skipped is marked.
#[test]
fn what_is_skipped_is_inferred_at_the_same_moment() {
    let mut world = World::timer();
    let mut report = Report::of(EventKind::Reached(OutForDelivery), Source::Courier);
    report.by = Some("bike 7".to_owned());
    let Verdict::Applied(change) = world.say(&report) else { panic!("applies") };
    assert_eq!(world.kinds()[2..], ["PREPARING", "COOKING", "OUT_FOR_DELIVERY"]);
    let inferred = json!({"source": "courier", "by": "bike 7", "inferred": true});
    let metas: Vec<Value> = change.events.iter().filter_map(|event| event.meta.clone()).collect();
    assert_eq!(metas, [inferred.clone(), inferred, json!({"source": "courier", "by": "bike 7"})]);
    assert_eq!(change.transitions.len(), 3);
    assert_eq!(events_of(&world.tracked.events, 5).len(), 3);
    assert_eq!(events_of(&world.tracked.events, 2).len(), 1);
}

#[test]
fn what_is_known_is_ignored_and_what_contradicts_is_refused() {
    let mut world = World::timer();
    world.reaches(Cooking);
    assert_eq!(world.kitchen(EventKind::Reached(Cooking)), ignored(Ignored::Same));
    assert_eq!(world.kitchen(EventKind::Reached(Preparing)), ignored(Ignored::Late));
    world.reaches(Delivered);
    assert_eq!(world.kitchen(EventKind::Reached(Delivered)), ignored(Ignored::Same));
    assert_eq!(world.kitchen(EventKind::Reached(Cooking)), ignored(Ignored::Late));
    for event in [READY, DELAYED, EventKind::CourierAtDoor, EventKind::Reached(Cancelled)] {
        assert_eq!(world.kitchen(event), refused(Conflict::OrderFinished), "{event}");
    }
    assert_eq!((world.tracked.order.due_at, world.tracked.order.expected_at), (None, None));
}

/// The statuses that a cancelled order had reached are late, all else contradicts.
#[test]
fn a_cancelled_order_takes_no_step() {
    let mut world = World::timer();
    world.reaches(Preparing);
    let change = world.reaches(Cancelled);
    let meta = json!({"source": "kitchen", "reason": "out_of_stock"});
    assert_eq!(change.events[0].meta, Some(meta));
    assert_eq!(world.kitchen(EventKind::Reached(Cancelled)), ignored(Ignored::Same));
    assert_eq!(world.kitchen(EventKind::Reached(Preparing)), ignored(Ignored::Late));
    for event in [READY, EventKind::Reached(Cooking), EventKind::Reached(Delivered)] {
        assert_eq!(world.kitchen(event), refused(Conflict::OrderFinished), "{event}");
    }
    assert_eq!(world.allowed(), ["REVERTED"]);
}

#[test]
fn milestones_are_taken_in_every_open_status_and_change_none() {
    let mut world = World::timer();
    world.second = 1;
    let before = world.tracked.order.clone();
    for event in [READY, READY, EventKind::CourierAtDoor] {
        let change = world.applies(event);
        assert_eq!(change.order, before);
        assert_eq!(change.events[0].meta, Some(json!({"source": "kitchen", "status": "PLACED"})));
        assert_eq!(change.transitions, []);
        assert_eq!(change.ready_at, Some(at(1)), "{event}");
    }
}

/// Whoever fetches it must not stand before a kitchen that has said since that it needs longer.
#[test]
fn it_is_ready_until_something_later_says_otherwise() {
    for not_any_more in [DELAYED, EventKind::Reached(OutForDelivery), REVERTED] {
        let mut world = World::timer();
        world.reaches(Cooking);
        world.second = 4;
        assert_eq!(world.applies(EventKind::CourierAssigned).ready_at, None);
        assert_eq!(world.applies(READY).ready_at, Some(at(4)));
        world.second = 5;
        assert_eq!(world.applies(EventKind::CourierAtPickup).ready_at, Some(at(4)), "a courier is no cook");
        assert_eq!(world.applies(not_any_more).ready_at, None, "{not_any_more}");
        assert_eq!(world.applies(EventKind::DeliveryFailed).ready_at, None, "{not_any_more}");
    }
}

#[test]
fn a_delay_counts_from_the_due_moment_or_from_now() {
    let mut world = World::timer();
    assert_eq!(world.applies(DELAYED).order.due_at, Some(at(3 + 600)));
    assert_eq!(world.applies(DELAYED).order.due_at, Some(at(3 + 1_200)));
    world.second = 5_000;
    assert_eq!(world.applies(DELAYED).order.due_at, Some(at(5_600)));

    let mut world = World::reported();
    world.second = 10;
    let order = world.applies(DELAYED).order;
    assert_eq!((order.due_at, order.expected_at), (Some(at(1_200)), Some(at(610))));
    let order = world.reaches(Preparing).order;
    assert_eq!((order.due_at, order.expected_at), (None, Some(at(15))), "for the current stage alone");
}

/// Promise 7: the story is true. A mistake is taken back by a further event.
#[test]
fn the_latest_step_is_taken_back_with_what_it_inferred() {
    let mut world = World::timer();
    world.reaches(Preparing);
    world.reaches(OutForDelivery);
    world.second = 200;
    let change = world.applies(REVERTED);
    let meta = json!({"source": "kitchen", "reverts": 5, "from": "OUT_FOR_DELIVERY", "to": "PREPARING"});
    assert_eq!(change.events[0].meta, Some(meta));
    let order = &change.order;
    assert_eq!((order.status, order.updated_at, order.due_at), (Preparing, at(200), Some(at(205))));
    assert_eq!(world.applies(REVERTED).order.status, Placed, "the step before");
    assert_eq!(world.kitchen(REVERTED), refused(Conflict::NothingToRevert));
    world.reaches(Cooking);
    assert_eq!(world.applies(REVERTED).order.status, Placed);
}

#[test]
fn both_ends_can_be_taken_back_and_the_clock_starts_anew() {
    for end in [Delivered, Cancelled] {
        for mut world in [World::timer(), World::reported()] {
            world.reaches(Cooking);
            world.reaches(end);
            world.second = 60;
            let order = world.applies(REVERTED).order;
            let by_people = order.expected_at.is_some();
            let expected = if by_people { (None, Some(at(67))) } else { (Some(at(67)), None) };
            assert_eq!((order.status, (order.due_at, order.expected_at)), (Cooking, expected));
        }
    }
    let mut world = World::reported();
    world.reaches(Cancelled);
    world.second = 60;
    let order = world.applies(REVERTED).order;
    assert_eq!((order.due_at, order.expected_at), (Some(at(660)), Some(at(63))));
}

#[test]
fn only_what_is_young_and_meant_is_taken_back() {
    let mut world = World::timer();
    world.reaches(Preparing);
    world.second = 300;
    assert_eq!(world.kitchen(REVERTED), refused(Conflict::TooLateToRevert));
    world.second = 299;
    world.rules.undo_window = Duration::ZERO;
    for second in [299, 0, -9] {
        world.second = second;
        assert_eq!(world.kitchen(REVERTED), refused(Conflict::TooLateToRevert));
    }
    world.rules.undo_window = Duration::from_mins(5);
    let of = |seq| Report { reverts: Some(seq), ..Report::of(REVERTED, Source::Staff) };
    assert_eq!(world.say(&of(2)), refused(Conflict::ChangedMeanwhile));
    assert!(matches!(world.say(&of(3)), Verdict::Applied(_)));
    assert_eq!(world.say(&of(3)), ignored(Ignored::Same), "taken back already");
}

#[test]
fn a_full_timeline_takes_only_what_moves() {
    let mut world = World::timer();
    while world.tracked.events.len() < MAX_EVENTS {
        world.applies(READY);
    }
    for event in [READY, DELAYED] {
        assert_eq!(world.kitchen(event), refused(Conflict::TimelineFull), "{event}");
    }
    assert_eq!(world.allowed(), ["PREPARING", "COOKING", "OUT_FOR_DELIVERY", "DELIVERED", "CANCELLED"]);
    world.reaches(Preparing);
    world.applies(REVERTED);
}

#[test]
fn what_is_allowed_is_what_would_be_applied() {
    let mut world = World::timer();
    let all: Vec<&str> = Report::KINDS.into_iter().map(EventKind::as_str).collect();
    assert_eq!(world.allowed(), all[..11], "all but REVERTED");
    world.reaches(Cooking);
    assert_eq!(world.allowed(), all[2..]);
    world.reaches(Delivered);
    assert_eq!(world.allowed(), ["REVERTED"]);
    world.second = 300;
    assert_eq!(world.allowed(), [""; 0]);
}

/// A database whose clock was set back writes no earlier stamp.
#[test]
fn stamps_never_go_back() {
    let mut world = World::timer();
    world.second = -5;
    assert_eq!(world.reaches(Preparing).order.updated_at, at(0));
    // A step that was late when this was said is not made before it, either.
    world.second = 9;
    assert_eq!(world.applies(READY).order.due_at, Some(at(9)));
}
